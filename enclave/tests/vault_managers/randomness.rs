//! A fork duplicates everything that a process keeps. Randomness must not be kept.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::Test;
use crate::tenants::House;

pub(crate) const TESTS: &[Test] =
    &[("a_thousand_managers_draw_a_thousand_keys", a_thousand_managers_draw_a_thousand_keys)];

const MANAGERS: u32 = 1000;
/// The promise is 1.5 ms on a quiet machine; this only catches what is far off on a busy one.
const SPAWN_AT_MOST: Duration = Duration::from_millis(15);

fn a_thousand_managers_draw_a_thousand_keys() {
    let mut house = House::open(&[]);
    let mut times = Vec::new();
    let mut tenants = Vec::new();
    for slot in 0..MANAGERS {
        let begun = Instant::now();
        tenants.push(house.tenant(slot));
        times.push(begun.elapsed());
    }
    let drawn: HashSet<Vec<u8>> = tenants.iter_mut().map(|tenant| house.ask(tenant, "random").unwrap()).collect();
    assert_eq!(drawn.len(), tenants.len(), "two vault-managers drew the same");
    assert!(drawn.iter().all(|bytes| bytes.len() == 32 && *bytes != [0; 32]));

    times.sort_unstable();
    let mut clones: Vec<_> = tenants.iter().map(|tenant| tenant.clone_micros).collect();
    clones.sort_unstable();
    let (median, ninety_nine) = (tenants.len() / 2, tenants.len() * 99 / 100);
    println!(
        "spawn until ready: p50 {:?}, p99 {:?}; of it the clone: p50 {} µs, p99 {} µs",
        times[median], times[ninety_nine], clones[median], clones[ninety_nine]
    );
    assert!(times[median] < SPAWN_AT_MOST, "spawn p50 {:?}", times[median]);
}
