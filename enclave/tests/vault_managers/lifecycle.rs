//! How vault-managers come, end, and are told of; and that none outlives zygote or supervisor.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use casemate_enclave::sandbox::Layer;
use casemate_enclave::zygote::{ExitKind, Place, Slot, ZygoteError, ZygoteEvent};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::tenants::{House, MEMORY_BYTES, await_end, is_root, runs};

/// The argument that makes this program a supervisor to be killed.
pub(crate) const SUPERVISOR: &str = "--be-a-supervisor";

pub(crate) const TESTS: &[Test] = &[
    ("ends_are_told_apart", ends_are_told_apart),
    ("a_slot_is_free_again_after_its_exit", a_slot_is_free_again_after_its_exit),
    ("signals_for_the_whole_service_pass_by", signals_for_the_whole_service_pass_by),
    ("closing_its_socket_ends_a_manager", closing_its_socket_ends_a_manager),
    ("managers_die_with_the_zygote", managers_die_with_the_zygote),
    ("managers_die_with_the_supervisor", managers_die_with_the_supervisor),
    ("letting_go_of_the_zygote_leaves_nothing", letting_go_of_the_zygote_leaves_nothing),
    ("deaths_at_one_time_are_all_told", deaths_at_one_time_are_all_told),
    ("a_burst_of_spawns_is_queued_and_bounded", a_burst_of_spawns_is_queued_and_bounded),
    ("a_manager_runs_where_it_is_put", a_manager_runs_where_it_is_put),
];

fn ends_are_told_apart() {
    let mut house = House::open(&[]);
    for (deed, end) in [
        ("exit", ExitKind::Code(7)),
        ("panic", ExitKind::Signal(libc::SIGABRT)),
        ("abort", ExitKind::Signal(libc::SIGABRT)),
        ("memory", ExitKind::Signal(libc::SIGABRT)),
        ("segfault", ExitKind::Signal(libc::SIGSEGV)),
        ("overflow", ExitKind::Signal(libc::SIGSEGV)),
        ("getppid", ExitKind::SandboxKilled),
    ] {
        let mut tenant = house.tenant(1);
        assert_eq!(house.ask(&mut tenant, deed), None, "`{deed}` was survived");
        assert_eq!(house.exit_of(Slot(1)), end, "`{deed}`");
    }
    house.tenant(1);
    house.zygote.kill(Slot(1)).unwrap();
    // The tenant's socket was dropped as well: whichever end came first is told.
    let end = house.exit_of(Slot(1));
    assert!([ExitKind::Signal(libc::SIGKILL), ExitKind::Code(0)].contains(&end), "{end:?}");
}

fn a_slot_is_free_again_after_its_exit() {
    let mut house = House::open(&[]);
    let tenant = house.tenant(3);
    let (_ours, theirs) = casemate_enclave::socket::pair().unwrap();
    house.zygote.spawn(Slot(3), theirs, MEMORY_BYTES).unwrap();
    house.event(|event| (event == ZygoteEvent::SpawnFailed { slot: Slot(3), errno: Errno::EBUSY }).then_some(()));
    house.zygote.kill(Slot(3)).unwrap();
    assert_eq!(house.exit_of(tenant.slot), ExitKind::Signal(libc::SIGKILL));
    // Killing nobody is nothing.
    house.zygote.kill(Slot(3)).unwrap();
    let mut next = house.tenant(3);
    assert_eq!(house.text(&mut next, "echo"), "echo");
    let (_ours, theirs) = casemate_enclave::socket::pair().unwrap();
    assert!(matches!(house.zygote.spawn(Slot(1 << 16), theirs, 1), Err(ZygoteError::NoSuchSlot(_))));
}

/// A service manager's SIGTERM goes to every process of a service. The supervisor drains then, and needs its vault-managers for it.
fn signals_for_the_whole_service_pass_by() {
    if !is_root() {
        println!("skipped: without root there is no PID namespace, which keeps these signals off");
        return;
    }
    let mut house = House::open(&[]);
    let mut tenant = house.tenant(1);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGSYS] {
        kill(Pid::from_raw(tenant.pid), signal).unwrap();
    }
    assert_eq!(house.text(&mut tenant, "echo"), "echo");
    house.zygote.kill(Slot(1)).unwrap();
    assert_eq!(house.exit_of(Slot(1)), ExitKind::Signal(libc::SIGKILL));
}

fn closing_its_socket_ends_a_manager() {
    let mut house = House::open(&[]);
    let tenant = house.tenant(1);
    let (slot, pid) = (tenant.slot, tenant.pid);
    drop(tenant);
    assert_eq!(house.exit_of(slot), ExitKind::Code(0));
    assert!(!runs(pid));
}

fn managers_die_with_the_zygote() {
    let mut house = House::open(&[]);
    let tenants: Vec<_> = (0..50).map(|slot| house.tenant(slot)).collect();
    let pids: Vec<_> = tenants.iter().map(|tenant| tenant.pid).collect();
    assert!(pids.iter().all(|pid| runs(*pid)));
    kill(Pid::from_raw(i32::try_from(house.zygote.pid()).unwrap()), Signal::SIGKILL).unwrap();
    let error = house.try_event(|_| None::<()>).unwrap_err();
    assert!(matches!(error, ZygoteError::Gone), "{error}");
    await_end(&pids);
    let (_ours, theirs) = casemate_enclave::socket::pair().unwrap();
    assert!(matches!(house.zygote.spawn(Slot(60), theirs, MEMORY_BYTES), Err(ZygoteError::Gone)));
    // It is the layer that ends them: without it they live on, as long as the supervisor keeps their sockets.
    let mut house = House::open(&[Layer::ParentDeath]);
    let mut tenant = house.tenant(1);
    kill(Pid::from_raw(i32::try_from(house.zygote.pid()).unwrap()), Signal::SIGKILL).unwrap();
    assert!(matches!(house.try_event(|_| None::<()>), Err(ZygoteError::Gone)));
    assert_eq!(house.text(&mut tenant, "echo"), "echo");
    let pid = tenant.pid;
    drop(tenant);
    await_end(&[pid]);
}

/// A supervisor with three vault-managers, whose process ids it prints, that then waits for its end.
pub(crate) fn be_a_supervisor() -> ! {
    let mut house = House::open(&[]);
    let tenants: Vec<_> = (0..3).map(|slot| house.tenant(slot)).collect();
    println!("{}", house.zygote.pid());
    for tenant in &tenants {
        println!("{}", tenant.pid);
    }
    println!();
    loop {
        std::thread::park();
    }
}

fn managers_die_with_the_supervisor() {
    let mut supervisor = Command::new("/proc/self/exe").arg(SUPERVISOR).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pids: Vec<i32> = lines.take_while(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| runs(*pid)));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    await_end(&pids);
}

fn letting_go_of_the_zygote_leaves_nothing() {
    let mut house = House::open(&[]);
    let tenants: Vec<_> = (0..3).map(|slot| house.tenant(slot)).collect();
    let mut pids: Vec<_> = tenants.iter().map(|tenant| tenant.pid).collect();
    pids.push(i32::try_from(house.zygote.pid()).unwrap());
    drop(house);
    // Reaped, too: not even a zombie is left.
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
    }
}

/// While a signal waits to be read the kernel keeps no second one: a zygote that did nothing for a while hears of one death.
fn deaths_at_one_time_are_all_told() {
    let mut house = House::open(&[]);
    let zygote = Pid::from_raw(i32::try_from(house.zygote.pid()).unwrap());
    let tenants: Vec<_> = (0..20).map(|slot| house.tenant(slot)).collect();
    kill(zygote, Signal::SIGSTOP).unwrap();
    let (slots, pids): (Vec<_>, Vec<_>) = tenants.iter().map(|tenant| (tenant.slot, tenant.pid)).unzip();
    // Each ends by itself when its socket is closed.
    drop(tenants);
    await_end(&pids);
    kill(zygote, Signal::SIGCONT).unwrap();
    for slot in slots {
        assert_eq!(house.exit_of(slot), ExitKind::Code(0));
    }
}

fn a_burst_of_spawns_is_queued_and_bounded() {
    let mut house = House::open(&[]);
    let zygote = Pid::from_raw(i32::try_from(house.zygote.pid()).unwrap());
    // A zygote that does nothing for a while.
    kill(zygote, Signal::SIGSTOP).unwrap();
    let mut ours = Vec::new();
    let mut taken = 0;
    let full = loop {
        let (our, theirs) = casemate_enclave::socket::pair().unwrap();
        match house.zygote.spawn(Slot(taken), theirs, MEMORY_BYTES) {
            Ok(()) => ours.push(our),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken < 5000, "nothing bounds the queue");
    };
    assert!(matches!(full, ZygoteError::QueueFull), "{full}");
    // Kills are not refused even then.
    house.zygote.kill(Slot(0)).unwrap();
    kill(zygote, Signal::SIGCONT).unwrap();
    for slot in 0..taken {
        house.event(|event| matches!(event, ZygoteEvent::Spawned { slot: of, .. } if of == Slot(slot)).then_some(()));
    }
    assert_eq!(house.exit_of(Slot(0)), ExitKind::Signal(libc::SIGKILL));
}

fn a_manager_runs_where_it_is_put() {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).unwrap();
    let processors = |pid| {
        let set = sched_getaffinity(Pid::from_raw(pid)).unwrap();
        (0..CpuSet::count()).filter(|number| set.is_set(*number).unwrap()).collect::<Vec<_>>()
    };
    // The zygote has what this thread has.
    let [first, second, ..] = processors(0)[..] else { return println!("skipped: one processor") };
    let (mut two, all, home) = (CpuSet::new(), [first, second], [first]);
    two.set(first).unwrap();
    two.set(second).unwrap();
    sched_setaffinity(this, &two).unwrap();
    let mut house = House::open(&[]);
    sched_setaffinity(this, &before).unwrap();
    let (mut one, other) = (house.tenant(1), house.tenant(2));
    for (next, (place, there)) in
        [(Place::Home, &home[..]), (Place::Anywhere, &all[..])].into_iter().cycle().take(4).enumerate()
    {
        assert!(house.zygote.put(Slot(1), place).unwrap());
        // Nobody lives there.
        assert!(house.zygote.put(Slot(50), place).unwrap());
        // The zygote does one thing after the other: who comes afterwards finds it done.
        house.tenant(u32::try_from(10 + next).unwrap());
        assert_eq!(processors(one.pid), there, "{place:?}");
        assert_eq!(processors(other.pid), all, "the neighbour");
        assert_eq!(house.text(&mut one, "echo"), "echo");
    }
}
