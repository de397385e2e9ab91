//! Ten times as many signatures are asked for as can be made: those who are served are served soon, the others are told to come again, and
//! two seconds later all is as before. `./dev bench` measures how soon.

use std::time::Duration;

use casemate_e2e::load::{Answers, Volley, Work};
use casemate_e2e::{Node, census};

use crate::neighbour::runtime;

/// Requests of the probe, and how many a second: more than any machine that this runs on can do.
const PROBE: (usize, f64) = (10_000, 20_000.0);
const SECONDS: f64 = 2.0;
const MOST: f64 = 200_000.0;
/// Memory that parent, supervisor and zygote may take meanwhile, and keep.
const MEMORY_BYTES: u64 = 16 << 20;

async fn fire(volley: &mut Volley, rate: f64) -> Answers {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
    let count = (rate * SECONDS).min(MOST) as usize;
    let answers = volley.fire(count, rate).await;
    println!(
        "{rate:.0} a second: {:.0} a second served, p50 {:?}, p99 {:?}; {} told to wait",
        answers.rate(),
        answers.quantile(0.5),
        answers.quantile(0.99),
        answers.busy
    );
    assert_eq!((answers.silent, answers.refused.len()), (0, 0), "{:?}", answers.refused.first());
    answers
}

fn memory(node: &Node) -> u64 {
    let parts = [&node.parent, &node.enclave].into_iter().flatten();
    let pids = parts.map(|part| part.pid().as_raw().unsigned_abs());
    pids.flat_map(|pid| census::family(pid).unwrap()).filter_map(|member| census::proportional(member.pid)).sum()
}

#[test]
fn those_who_are_served_are_served_soon_and_the_others_told() {
    let node = Node::start_with("[limits]\ncreates_per_second = 1000\n");
    runtime().block_on(async {
        let mut volley = Volley::load(&node, 64, Work::Sign).await;
        let capacity = volley.fire(PROBE.0, PROBE.1).await.rate();
        let calm = fire(&mut volley, capacity / 10.0).await;
        let before = memory(&node);
        let overloaded = fire(&mut volley, capacity * 10.0).await;
        let after = memory(&node);
        assert!(overloaded.busy > 0 && overloaded.rate() > capacity / 20.0);
        let soon = calm.quantile(0.99) * 10 + Duration::from_millis(100);
        assert!(overloaded.quantile(0.99) < soon, "{:?}", overloaded.quantile(0.99));
        assert!(after < before + MEMORY_BYTES, "from {before} to {after} bytes");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let again = fire(&mut volley, capacity / 10.0).await;
        assert_eq!(again.busy, 0, "full speed again");
        assert!(again.quantile(0.99) < soon, "{:?}", again.quantile(0.99));
    });
}
