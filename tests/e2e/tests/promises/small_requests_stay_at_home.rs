//! Whose requests are small stays on one processor of two; whatever takes longer is done on either, and who is idle leaves.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::owner::{OwnedVault, Owner};
use casemate_protocol::secret::Secret;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(10);

fn processors(of: Pid) -> Vec<usize> {
    let set = sched_getaffinity(of).unwrap();
    (0..CpuSet::count()).filter(|number| set.is_set(*number).unwrap()).collect()
}

/// Has this thread, and whatever it starts, run on two processors. False if there are not so many.
fn take_two() -> bool {
    let this = Pid::from_raw(0);
    let [first, second, ..] = processors(this)[..] else { return false };
    let mut two = CpuSet::new();
    two.set(first).unwrap();
    two.set(second).unwrap();
    sched_setaffinity(this, &two).unwrap();
    true
}

#[test]
fn reads_lead_home_and_a_write_leads_away() {
    if casemate_e2e::guest::hides_processes() || !take_two() {
        println!("skipped: {:?} processors, or nobody may look at the processes", available_parallelism());
        return;
    }
    let node = Node::start();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let owner = Owner::new(&node);
        let vault = owner.open(&node.nats_url(), owner.begin(), DEADLINE).await;
        vault.create().await.unwrap();
        vault.secret_put("a", Secret::from(&b"1"[..]), None).await.unwrap();
        let manager = node.manager_of(&vault.id().to_string());
        assert_eq!(processors(manager).len(), 2);
        reads_until_home(&vault, manager).await;
        vault.secret_put("a", Secret::from(&b"2"[..]), None).await.unwrap();
        is_sent_away(manager, "a write").await;
        reads_until_home(&vault, manager).await;
        is_sent_away(manager, "nothing to do").await;
    });
}

async fn reads_until_home(vault: &OwnedVault, manager: Pid) {
    let begun = Instant::now();
    while processors(manager).len() != 1 {
        vault.secret_get("a", None).await.unwrap();
        assert!(begun.elapsed() < DEADLINE, "many reads, and it runs on {:?}", processors(manager));
    }
}

/// The zygote moves it a moment after the supervisor wants it.
async fn is_sent_away(manager: Pid, why: &str) {
    let begun = Instant::now();
    while processors(manager).len() != 2 {
        assert!(begun.elapsed() < DEADLINE, "{why}, and it runs on {:?}", processors(manager));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
