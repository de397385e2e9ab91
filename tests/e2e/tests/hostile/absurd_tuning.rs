//! The parent tunes the enclave to absurd values: that denies service at most, and for as long as they stand.

use std::time::{Duration, Instant};

use casemate_e2e::hostile::{Host, Plan, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::link::{ControlReply, Tuning};

const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(20);

/// Every field the same, as far as it goes.
fn all(value: u64) -> Tuning {
    let word = u32::try_from(value).unwrap_or(u32::MAX);
    let byte = u8::try_from(value).unwrap_or(u8::MAX);
    Tuning {
        vault_limit: word,
        idle_ms: value,
        queue_per_vault: word,
        memory_high_percent: byte,
        memory_low_percent: byte,
        shard_key_ttl_ms: value,
        shard_key_hard_ms: value,
        creates_per_second: word,
        attests_per_second: word,
        opens_per_second: word,
        versions_kept: word,
        store_timeout_ms: value,
        vault_memory_bytes: value,
    }
}

#[test]
fn no_value_ends_the_enclave_or_opens_anything() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let inverted = Tuning { memory_high_percent: 0, memory_low_percent: 100, ..Tuning::default() };
    for tuning in [all(0), all(1), all(u64::MAX), inverted, all(u64::MAX / 2)] {
        let what = format!("{tuning:?}");
        assert_eq!(host.offer(&Plan { tuning, ..Plan::default() }), ControlReply::Done);
        host.health();
        // Served, or told to come again; never anything else, and never another vault's secret.
        let answer = device.enter(&host, None, &get("a"));
        let denied = matches!(answer, Err(ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::RateLimited));
        assert!(answer.is_ok() || denied, "{answer:?} under {what}");
        assert_eq!(host.offer(&Plan::default()), ControlReply::Done);
        bystander.is_served();
        host.evict(device.vault);
        // What strange values took from the buckets comes back at the rate that holds now.
        let deadline = Instant::now() + PATIENCE;
        while let Err(code) = device.enter(&host, None, &get("a")) {
            assert!(code == ErrorCode::Busy && Instant::now() < deadline, "served as before: {code:?}");
            std::thread::sleep(RETRY);
        }
    }
    assert_eq!(host.health().vaults.crashed, 0);
}

#[test]
fn an_enclave_that_starts_with_absurd_values_can_be_tuned_back() {
    let host = Host::start_with(&Plan { tuning: all(0), ..Plan::default() });
    host.health();
    assert_eq!(host.offer(&Plan::default()), ControlReply::Done);
    host.owner().is_served();
    let host = Host::start_with(&Plan { tuning: all(u64::MAX), ..Plan::default() });
    assert!(host.health().vaults.limit < u64::from(u32::MAX), "the machine's limit holds");
    host.owner().is_served();
}
