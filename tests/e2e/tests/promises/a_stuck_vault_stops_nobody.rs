//! The bridge keeps serving one vault while another is stuck for its whole deadline; and the stuck one comes back.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use nix::sys::signal::{Signal, kill};

#[test]
fn others_are_served_meanwhile() {
    if casemate_e2e::guest::hides_processes() {
        return;
    }
    let node = Node::start();
    let (stuck, other) = (node.device_with_vault("stuck"), node.device_with_vault("other"));
    stuck.run_with_input(&["secret", "put", "a"], b"1").ok();
    other.run_with_input(&["secret", "put", "b"], b"2").ok();
    kill(node.manager_of(&stuck.vault()), Signal::SIGSTOP).unwrap();

    let started = Instant::now();
    let waiting = {
        let stuck = stuck.clone();
        std::thread::spawn(move || stuck.run(&["secret", "get", "a", "--timeout", "4"]))
    };
    let mut served = 0;
    let mut slowest = Duration::ZERO;
    while !waiting.is_finished() {
        let one = Instant::now();
        assert_eq!(other.run(&["secret", "get", "b"]).ok(), b"2");
        slowest = slowest.max(one.elapsed());
        served += 1;
    }
    let answered = waiting.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "no client waits longer than its deadline");
    assert!(served >= 10 && slowest < Duration::from_secs(1), "{served} served, the slowest in {slowest:?}");
    // It was killed and opened anew, in time or for the next request.
    if answered.code != 0 {
        assert!([8, 9].contains(&answered.code), "{}", answered.stderr);
    }
    assert_eq!(stuck.run(&["secret", "get", "a"]).ok(), b"1");
    let end = Instant::now() + Duration::from_secs(15);
    while node.health().unwrap().1["vaults"]["stuck"] != 1 {
        assert!(Instant::now() < end, "{:?}", node.health());
        std::thread::sleep(Duration::from_millis(20));
    }
}
