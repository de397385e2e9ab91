//! Answers that do not fit into the link at once follow as soon as the parent has read, whether or not anything else happens.

use std::time::{Duration, Instant};

use casemate_client::NatsTransport;
use casemate_e2e::Node;
use casemate_e2e::owner::{OwnedVault, Owner};
use casemate_protocol::limits::SECRET_BYTES;
use casemate_protocol::secret::Secret;
use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};

/// Together their answers are many times what the link's socket holds.
const VAULTS: usize = 48;
/// After so many milliseconds the parent stops reading, in turns: one of them falls between the first answer and the last.
const STOPS: [u64; 5] = [4, 8, 16, 24, 32];
/// By then the vault-managers have nothing left to do, and nobody says anything any more.
const SILENCE: Duration = Duration::from_millis(300);
/// The supervisor looks around twice a second whatever happens. What waits for that waits too long.
const SOON: Duration = Duration::from_secs(1);

async fn read(vault: &OwnedVault) {
    let found = vault.secret_get("large", None).await.unwrap();
    assert_eq!(found.value.len(), SECRET_BYTES);
}

#[test]
fn do_not_wait_for_other_traffic() {
    let node = Node::start_with("[limits]\ncreates_per_second = 1000\n");
    let parent = node.parent.as_ref().unwrap().pid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(node.nats_url()).await.unwrap();
        let mut vaults = Vec::new();
        for _ in 0..VAULTS {
            let owner = Owner::new(&node);
            let transport = NatsTransport::from_client(client.clone());
            let vault = owner.open_over(transport, owner.begin(), Duration::from_secs(20));
            vault.create().await.unwrap();
            vault.secret_put("large", Secret::new(vec![7; SECRET_BYTES]), None).await.unwrap();
            vaults.push(vault);
        }
        for stop in STOPS {
            let all = join_all(vaults.iter().map(read));
            let pause = async {
                tokio::time::sleep(Duration::from_millis(stop)).await;
                kill(parent, Signal::SIGSTOP).unwrap();
                tokio::time::sleep(SILENCE).await;
                kill(parent, Signal::SIGCONT).unwrap();
                Instant::now()
            };
            let (_, went_on) = tokio::join!(all, pause);
            let took = went_on.elapsed();
            assert!(took < SOON, "stopped after {stop} ms: the rest took {took:?}");
        }
    });
}
