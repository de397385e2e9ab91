//! Answers that do not fit into the link at once follow as soon as the parent has read, whether or not anything else happens.

use std::time::{Duration, Instant};

use casemate_client::NatsTransport;
use casemate_e2e::Node;
use casemate_e2e::owner::{OwnedVault, Owner};
use casemate_protocol::limits::SECRET_BYTES;
use casemate_protocol::secret::Secret;
use futures_util::future::join_all;

const VAULTS: usize = 48;
/// The supervisor looks around twice a second whatever happens. What waits for that waits too long.
const SOON: Duration = Duration::from_millis(400);

async fn read(vault: &OwnedVault) {
    let found = vault.secret_get("large", None).await.unwrap();
    assert_eq!(found.value.len(), SECRET_BYTES);
}

#[test]
fn do_not_wait_for_other_traffic() {
    let node = Node::start_with("[limits]\ncreates_per_second = 1000\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(node.nats_url()).await.unwrap();
        let mut vaults = Vec::new();
        for _ in 0..VAULTS {
            let owner = Owner::new(&node);
            let transport = NatsTransport::from_client(client.clone());
            let vault = owner.open_over(transport, owner.begin(), Duration::from_secs(10));
            vault.create().await.unwrap();
            vault.secret_put("large", Secret::new(vec![7; SECRET_BYTES]), None).await.unwrap();
            vaults.push(vault);
        }
        let mut least = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            join_all(vaults.iter().map(read)).await;
            least = least.min(start.elapsed());
        }
        assert!(least < SOON, "{VAULTS} answers of {SECRET_BYTES} bytes took {least:?}");
    });
}
