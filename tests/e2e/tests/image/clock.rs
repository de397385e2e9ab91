//! The clock of a running machine is set: health says so within five seconds, the node convinces nobody, and all is well by itself when the
//! clock is right again.
//!
//! The kernel's clock is really set, in the machine and while the node runs, by the image's development enclave (`Circumstance`). Its
//! security module is the emulator's and keeps the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_e2e::guest::Emulation;
use casemate_e2e::{Circumstance, Node};

/// Until `/health` tells, and until it is well again.
const TOLD: Duration = Duration::from_secs(5);
/// Long enough for some attempts to make evidence anew.
const WATCHED: Duration = Duration::from_secs(4);
const HOUR_MS: i64 = 3_600_000;
const JUMPS: [(&str, i64); 4] = [
    ("an hour ahead", HOUR_MS),
    ("an hour back", -HOUR_MS),
    ("a year ahead", 365 * 24 * HOUR_MS),
    ("a year back", -365 * 24 * HOUR_MS),
];
/// What `/health` gives as its reasons: why it does not serve, and what is behind that.
const REASONS: [&str; 3] =
    ["enclave: its evidence is missing or too old", "enclave: no evidence", "enclave: the kernel's clock has jumped"];
const ATTESTS: [&str; 3] = ["attest", "--timeout", "2"];
const LISTS: [&str; 4] = ["secret", "list", "--timeout", "2"];
/// The exit code of a device that was refused because the node cannot do it now (`client/src/cli`).
const UNAVAILABLE: i32 = 8;

/// Sets the machine's clock to the time, or so far from it.
fn set_clock(node: &Node, off_ms: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    node.bring_about(Circumstance::KernelClock(u64::try_from(now).unwrap().saturating_add_signed(off_ms)));
}

/// Waits until the page of health has this code and exactly these reasons; fails when that takes too long.
#[track_caller]
fn told(node: &Node, code: u16, reasons: &[&str]) -> Duration {
    let start = Instant::now();
    loop {
        let (found, health) = node.health().unwrap();
        let is_so = found == code && health["reasons"] == serde_json::json!(reasons);
        let took = start.elapsed();
        assert!(took < TOLD, "{code} {reasons:?} was not told within {TOLD:?}: {found} {}", health["reasons"]);
        if is_so {
            return took;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_clock_that_is_set_ends_the_evidence_until_it_is_right_again() {
    let Some(test) = Emulation::of_test_image() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_TEST_IMAGE name no emulator and no image");
        return;
    };
    let mut node = Node::prepare_in(Some(test), "");
    node.start_all();
    let (owner, stranger) = (node.device_with_vault("owner"), node.device("stranger"));
    owner.run_with_input(&["secret", "put", "a"], b"1").ok();
    for (name, off_ms) in JUMPS {
        stranger.run(&["attest"]).ok();
        told(&node, 200, &[]);

        set_clock(&node, off_ms);
        let took = told(&node, 503, &REASONS);
        println!("a clock set {name} was told after {} ms (promised: {} ms)", took.as_millis(), TOLD.as_millis());
        for (device, asked) in [(&stranger, ATTESTS.as_slice()), (&owner, &LISTS)] {
            let refused = device.run(asked);
            println!("{asked:?}: {}", refused.stderr.trim());
            assert_eq!(refused.code, UNAVAILABLE, "{asked:?}, {name}: {}", refused.stderr);
        }
        // It stays so, whatever the node tries.
        let watched = Instant::now();
        while watched.elapsed() < WATCHED {
            assert_eq!(node.health().unwrap().0, 503, "{name}");
            std::thread::sleep(Duration::from_millis(100));
        }

        set_clock(&node, 0);
        let took = told(&node, 200, &[]);
        println!("well {} ms after it was right again (promised: {} ms)", took.as_millis(), TOLD.as_millis());
        assert_eq!(owner.run(&["secret", "get", "a", "--timeout", "30"]).ok(), b"1", "{name}");
    }
    // It was one enclave all the time.
    assert!(node.ended_parts().is_empty());
}
