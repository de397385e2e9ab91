//! The image's kernel holds as many vault-managers as it was made for: two thousand vaults are resident in the guest, and all answer.

use std::time::{Duration, Instant};

use casemate_client::NatsTransport;
use casemate_e2e::Node;
use casemate_e2e::guest::Emulation;
use casemate_e2e::owner::{OwnedVault, Owner};
use casemate_protocol::secret::Secret;
use futures_util::{StreamExt, stream};

const VAULTS: usize = 2_000;
/// An idle vault takes 480 KiB at most.
const MEMORY_MIB: u32 = 2_048;
const LIMITS: &str =
    "[limits]\nvault_limit = 2500\nidle_ms = 86400000\nopens_per_second = 100000\ncreates_per_second = 100000\n";
const AT_ONCE: usize = 16;
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn two_thousand_vaults_are_resident_and_answer() {
    let Some(test) = Emulation::of_test_image() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_TEST_IMAGE name no emulator and no image");
        return;
    };
    let mut node = Node::prepare_in(Some(Emulation { memory_mib: MEMORY_MIB, ..test }), LIMITS);
    node.start_all();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(node.nats_url()).await.unwrap();
        let owner = Owner::new(&node);
        let make = async || {
            let vault = owner.open_over(NatsTransport::from_client(client.clone()), owner.begin(), DEADLINE);
            vault.create().await.unwrap();
            vault.secret_put("a", Secret::from(&b"1"[..]), None).await.unwrap();
            vault
        };
        let begun = Instant::now();
        let vaults: Vec<OwnedVault> =
            stream::iter((0..VAULTS).map(|_| make())).buffer_unordered(AT_ONCE).collect().await;
        println!("{VAULTS} vaults were made in {:?}", begun.elapsed());
        // What the parent tells may be a second old.
        let begun = Instant::now();
        while node.health().unwrap().1["vaults"]["resident"] != VAULTS {
            assert!(begun.elapsed() < DEADLINE, "{}", node.health().unwrap().1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let begun = Instant::now();
        let answers = stream::iter(&vaults).map(|vault| vault.secret_get("a", None)).buffer_unordered(AT_ONCE);
        answers.for_each(async |answer| assert_eq!(&answer.unwrap().value[..], b"1")).await;
        println!("all answered in {:?}", begun.elapsed());
    });
    let (_, health) = node.health().unwrap();
    // Nobody was opened a second time for it, and nobody has fallen.
    assert_eq!(health["vaults"]["resident"], VAULTS, "{health}");
    assert_eq!(health["vaults"]["evicted"], 0, "{health}");
    assert_eq!(health["vaults"]["crashed"], 0, "{health}");
    println!("memory of the guest: {}", health["memory"]);
}
