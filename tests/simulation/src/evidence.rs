//! The nodes' evidence: genuine development evidence, which devices judge with the product's own code.
//!
//! An authority and the evidence of each identity are made once a process: signing is not what is simulated.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use casemate_client::trust::{ClusterText, Measurements, SelfBuilt, TrustFile};
use casemate_client::{Roots, Trust};
use casemate_enclave::outside::{EvidenceRequest, SecurityModule};
use casemate_enclave::supervisor::identity::Identity;
use casemate_enclave::supervisor::node::PLATFORM_NITRO;
use casemate_protocol::codec;
use casemate_protocol::id::VaultId;
use casemate_protocol::statement::Credentials;
use casemate_protocol::trust::{ClusterId, TrustConfiguration, node_user_data};
use casemate_standins::{DevelopmentAuthority, SeededRandomness, SimulatedClock, SimulatedModule};

use crate::event::Place;
use crate::time::BEGINNING_UNIX;

const PCRS: [[u8; 48]; 3] = [[1; 48], [2; 48], [3; 48]];

struct World {
    module: SimulatedModule,
    roots: Arc<Roots>,
    evidence: Mutex<BTreeMap<[u8; 32], Vec<u8>>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let authority = Arc::new(DevelopmentAuthority::new());
    let roots = Roots::of(authority.anchor());
    let module = SimulatedModule::new(authority, PCRS).with_clock(Arc::new(SimulatedClock::at(BEGINNING_UNIX)));
    World { module, roots: Arc::new(roots), evidence: Mutex::default() }
});

fn configuration() -> Vec<u8> {
    codec::encode(&TrustConfiguration {
        format: 1,
        kms_key_arn: "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
        region: "us-east-1".to_owned(),
        release_keys: Vec::new(),
    })
}

/// The cluster of all nodes.
pub fn cluster() -> ClusterId {
    ClusterId::of(&configuration())
}

/// What is compiled into every device.
pub fn roots() -> Arc<Roots> {
    Arc::clone(&WORLD.roots)
}

/// What every device trusts.
pub fn trust() -> Trust {
    let [pcr0, pcr1, pcr2] = PCRS;
    let image = SelfBuilt { name: "simulated".to_owned(), measurements: Measurements { pcr0, pcr1, pcr2 } };
    let file = TrustFile { cluster: ClusterText(cluster().0), images: vec![image], releases: Vec::new() };
    let mut trust = Trust::default();
    trust.add(&file, &WORLD.roots).expect("an image of one cluster");
    trust
}

/// The identity of one boot of one node: the same in every schedule, so that its evidence is made once.
pub fn identity(place: Place) -> Identity {
    let node = u64::try_from(place.node).expect("few nodes");
    Identity::generate(&SeededRandomness::new((node << 32) | place.boot))
}

/// What handshake message 2 carries.
pub fn credentials(identity: &Identity, vault: VaultId, static_key: [u8; 32], now_unix: u64) -> Credentials {
    let public = identity.public();
    let mut made = WORLD.evidence.lock().unwrap_or_else(PoisonError::into_inner);
    let evidence = made.entry(public).or_insert_with(|| {
        let request = EvidenceRequest {
            user_data: Some(node_user_data(&public, cluster()).to_vec()),
            public_key: Some(public.to_vec()),
            nonce: None,
        };
        WORLD.module.attest(request).expect("a working module")
    });
    Credentials {
        platform: PLATFORM_NITRO,
        evidence: evidence.clone(),
        trust_configuration: configuration(),
        identity: public,
        statement: identity.state(vault, static_key, now_unix),
    }
}
