//! Somebody without a vault crowds the node.

use std::time::{Duration, Instant};

use casemate_e2e::hostile::{Host, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::link::BlobCall;

/// Nobody is told to wait longer when strangers come.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn names_that_anybody_can_write_cost_no_key_and_crowd_nobody_out() {
    let host = Host::start();
    let bystander = host.owner();
    let before = host.health();
    host.take_store_calls();
    for _ in 0..120 {
        let mut stranger = Puppet::new();
        let hello = stranger.hello();
        host.carry(stranger.vault, &hello);
    }
    // Those before may have used up what is let in at once: then the next one is told to come again, and is let in.
    let begun = Instant::now();
    let mut stranger = Puppet::new();
    let answer = loop {
        match stranger.enter(&host, None, &get("a")) {
            Err(ErrorCode::Busy) if begun.elapsed() < SOON => std::thread::sleep(Duration::from_millis(20)),
            answer => break answer,
        }
    };
    assert_eq!(answer, Err(ErrorCode::NotFound));
    let after = host.health();
    assert_eq!(after.kms.calls, before.kms.calls, "the key service was not asked");
    assert_eq!(after.vaults.resident, before.vaults.resident);
    assert!(after.vaults.half_open <= (after.vaults.limit / 20).max(4), "{:?}", after.vaults);
    let calls = host.take_store_calls();
    assert!(calls.iter().all(|call| matches!(call, BlobCall::Newest(_))), "no more than the newest object was read");
    bystander.is_served();
}

#[test]
fn a_made_up_head_of_no_vault_is_counted_apart() {
    let host = Host::start();
    let (bystander, holder) = (host.owner(), Puppet::with_vault(&host));
    let mut stranger = Puppet::new();
    stranger.head = holder.head;
    assert_eq!(stranger.enter(&host, None, &get("a")), Err(ErrorCode::NotFound));
    let refusals = host.refusals();
    assert_eq!((refusals.vanished, refusals.rollback, refusals.fork), (1, 0, 0), "nobody is accused by it");
    bystander.is_served();
}
