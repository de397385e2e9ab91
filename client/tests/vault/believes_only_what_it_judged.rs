//! Evidence is judged before anything is sent; a node that is not believed never sees message 3.

use std::time::Duration;

use casemate_client::{Distrust, Explain, Kind, VaultError};

use crate::fake::{Fake, Lie};

#[tokio::test(flavor = "current_thread")]
async fn an_honest_node_is_believed() {
    let fake = Fake::new();
    let vault = fake.vault(Duration::from_secs(5));
    vault.create().await.unwrap();
    let trusted = vault.trusted().unwrap();
    assert!(trusted.is_development, "a development root is named as one");
    assert!(trusted.claims.anchor_subject.contains("DEV ONLY"));
}

#[tokio::test(flavor = "current_thread")]
async fn each_lie_is_refused_and_gets_nothing() {
    use casemate_attestation::{Refusal, Register};
    type Matches = fn(&Distrust) -> bool;
    let lies: [(Lie, Matches); 10] = [
        (Lie::OtherMeasurements, |d| {
            matches!(d, Distrust::Evidence(Refusal::Measurement { register: Register::Pcr(2), .. }))
        }),
        (Lie::DebugEnclave, |d| matches!(d, Distrust::Evidence(Refusal::Debug { .. }))),
        (Lie::StaleEvidence, |d| matches!(d, Distrust::Evidence(Refusal::TooOld { .. }))),
        (Lie::OtherRoot, |d| matches!(d, Distrust::Evidence(Refusal::Chain(_)))),
        (Lie::OtherCluster, |d| matches!(d, Distrust::Cluster { .. })),
        (Lie::EvidenceOfAnotherNode, |d| matches!(d, Distrust::Evidence(Refusal::UserData { .. }))),
        (Lie::StatementOfAnotherVault, |d| matches!(d, Distrust::StatementVault(_))),
        (Lie::StatementOfAnotherKey, |d| matches!(d, Distrust::StatementKey)),
        (Lie::StatementBySomebodyElse, |d| matches!(d, Distrust::StatementSignature)),
        (Lie::StatementEnded, |d| matches!(d, Distrust::StatementEnded { .. })),
    ];
    for (lie, matches) in lies {
        let fake = Fake::new();
        fake.inner().lie = lie;
        let error = fake.vault(Duration::from_secs(5)).create().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Distrusted, "{lie:?}: {error}");
        assert!(!error.remedy().is_empty());
        let VaultError::Distrusted(distrust) = error else { panic!("{lie:?}: {error}") };
        assert!(matches(&distrust), "{lie:?}: {distrust:?}");
        let inner = fake.inner();
        assert_eq!((inner.hellos, inner.finishes), (1, 0), "{lie:?}");
    }
}
