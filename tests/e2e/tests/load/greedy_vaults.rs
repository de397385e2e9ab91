//! An owner who floods, opens sessions without end or fills the vault hurts himself alone.

use std::time::Duration;

use casemate_client::VaultError;
use casemate_e2e::load::{Volley, Work};
use casemate_e2e::{Node, census};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits::{SECRET_BYTES, VAULT_BYTES};
use casemate_protocol::secret::Secret;

use crate::neighbour::{Neighbour, assert_hardly_slower, runtime};

const READS: usize = 1500;

#[test]
fn who_floods_is_told_to_wait() {
    let node = Node::start();
    runtime().block_on(async {
        let neighbour = Neighbour::move_in(&node).await;
        let mut greedy = Volley::load(&node, 1, Work::Read).await;
        let calm = neighbour.read(READS).await;
        let (answers, meanwhile) = tokio::join!(greedy.fire(60_000, 20_000.0), neighbour.read(READS));
        assert_hardly_slower(&calm, &meanwhile, "one vault is asked 20,000 times a second");
        println!("served {} ({:.0} a second), busy {}", answers.served.len(), answers.rate(), answers.busy);
        assert_eq!((answers.silent, answers.refused.len()), (0, 0), "{:?}", answers.refused.first());
        assert!(!answers.served.is_empty());
    });
}

#[test]
fn sessions_without_end_cost_one_vault_its_own_memory_and_no_more() {
    let node = Node::start();
    runtime().block_on(async {
        let (greedy, neighbour) = (Neighbour::move_in(&node).await, Neighbour::move_in(&node).await);
        let calm = neighbour.read(READS).await;
        let many = async {
            // As many as may be begun at once; beyond it the vault is told to wait.
            for _ in 0..60 {
                greedy.enter().await;
            }
        };
        let ((), meanwhile) = tokio::join!(many, neighbour.read(READS));
        assert_hardly_slower(&calm, &meanwhile, "a vault opens sessions");
        let enclave = node.enclave.as_ref().unwrap().pid().as_raw().unsigned_abs();
        let largest = census::managers(enclave).unwrap().into_iter().filter_map(census::private).max().unwrap();
        assert!(largest < 2 << 20, "{largest} bytes");
    });
}

#[test]
fn who_fills_the_quota_is_refused_and_gives_memory_back() {
    let node = Node::start();
    runtime().block_on(async {
        let (greedy, neighbour) = (Neighbour::move_in(&node).await, Neighbour::move_in(&node).await);
        let calm = neighbour.read(READS).await;
        let fill = async {
            for number in 0..=VAULT_BYTES / SECRET_BYTES {
                let value = Secret::new(vec![5; SECRET_BYTES - 64]);
                match greedy.vault.secret_put(&format!("{number}"), value, None).await {
                    Ok(_) => {}
                    Err(VaultError::Refused(Refusal { code: ErrorCode::QuotaExceeded, .. })) => return true,
                    Err(error) => panic!("{error}"),
                }
            }
            false
        };
        let (was_refused, meanwhile) = tokio::join!(fill, neighbour.read(READS));
        assert!(was_refused, "a vault is filled by then");
        assert_hardly_slower(&calm, &meanwhile, "a vault is filled");
        greedy.vault.secret_get("0", None).await.expect("it still answers");
        // What it needed to write is given back: what stays is what it holds.
        let enclave = node.enclave.as_ref().unwrap().pid().as_raw().unsigned_abs();
        let largest = census::managers(enclave).unwrap().into_iter().filter_map(census::private).max().unwrap();
        println!("a full vault has {} KiB", largest / 1024);
        assert!(largest < 2 * VAULT_BYTES as u64, "{largest} bytes");
        tokio::time::timeout(Duration::from_secs(5), neighbour.read(10)).await.unwrap();
    });
}
