//! From inside a vault-manager: what is tried is denied, the process is killed where the rule says so, and nobody else notices.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use casemate_enclave::sandbox::{Layer, SandboxOptions, UID_BASE};
use casemate_enclave::zygote::{ExitKind, Zygote};

use crate::Test;
use crate::deeds::FORBIDDEN;
use crate::tenants::{House, MEMORY_BYTES, NEED_ROOT, is_root, options};

/// The argument that makes this program a supervisor without privileges; names of layers to waive follow.
pub(crate) const POOR_SUPERVISOR: &str = "--be-a-poor-supervisor";
/// A uid and gid without any privilege.
const NOBODY: u32 = 65_534;

pub(crate) const TESTS: &[Test] = &[
    ("forbidden_calls_kill", forbidden_calls_kill),
    ("a_socket_of_any_family_kills", a_socket_of_any_family_kills),
    ("sound_work_lives", sound_work_lives),
    ("memory_that_is_only_read_ends_too", memory_that_is_only_read_ends_too),
    ("what_is_allowed_reaches_nobody_else", what_is_allowed_reaches_nobody_else),
    ("other_layers_hold_without_seccomp", other_layers_hold_without_seccomp),
    ("the_kernel_says_the_walls_stand", the_kernel_says_the_walls_stand),
    ("a_layer_that_fails_stops_the_start", a_layer_that_fails_stops_the_start),
    ("waived_layers_are_told", waived_layers_are_told),
];

fn forbidden_calls_kill() {
    let mut house = House::open(&[]);
    let mut neighbour = house.tenant(1);
    let neighbours_pid = neighbour.pid;
    let zygotes_pid = house.zygote.pid();
    for (slot, deed) in (2..).zip(FORBIDDEN) {
        let mut tenant = house.tenant(slot);
        let asked = match *deed {
            "kill-zygote" => format!("{deed} {zygotes_pid}"),
            _ => format!("{deed} {neighbours_pid}"),
        };
        let answer = house.ask(&mut tenant, &asked);
        assert_eq!(answer.map(|answer| String::from_utf8(answer).unwrap()), None, "`{deed}` was survived");
        assert_eq!(house.exit_of(tenant.slot), ExitKind::SandboxKilled, "`{deed}`");
        assert_eq!(house.text(&mut neighbour, "echo"), "echo", "the neighbour, after `{deed}`");
    }
}

fn a_socket_of_any_family_kills() {
    let mut house = House::open(&[]);
    let mut neighbour = house.tenant(1);
    // AF_MAX of linux/socket.h is 46; AF_VSOCK is 40.
    for family in 0..=46 {
        let mut tenant = house.tenant(2);
        assert_eq!(house.ask(&mut tenant, &format!("socket {family}")), None, "family {family}");
        assert_eq!(house.exit_of(tenant.slot), ExitKind::SandboxKilled, "family {family}");
    }
    assert_eq!(house.text(&mut neighbour, "echo"), "echo");
}

fn sound_work_lives() {
    let mut house = House::open(&[]);
    let mut tenant = house.tenant(1);
    for _ in 0..5 {
        assert_eq!(house.text(&mut tenant, "work"), "worked");
    }
    // What reads like descriptor 2 is nowhere.
    assert!(house.text(&mut tenant, "write-stderr").starts_with("refused: EBADF"));
}

/// It counts for nothing where written memory is counted, and yet it costs the machine page tables.
fn memory_that_is_only_read_ends_too() {
    let mut house = House::open(&[]);
    let mut neighbour = house.tenant(1);
    for (slot, deed) in (2..).zip(["read-only-memory", "memory-made-read-only"]) {
        let mut tenant = house.tenant(slot);
        let answer = house.text(&mut tenant, deed);
        let got: u64 = answer.strip_prefix("got ").unwrap().parse().unwrap();
        assert!((MEMORY_BYTES / 2..=MEMORY_BYTES * 2).contains(&got), "`{deed}`: {got}");
        assert_eq!(house.text(&mut tenant, "echo"), "echo");
    }
    assert_eq!(house.text(&mut neighbour, "echo"), "echo");
}

fn what_is_allowed_reaches_nobody_else() {
    if !is_root() {
        println!("skipped: without root there is no uid layer, on which this rests");
        return;
    }
    let mut house = House::open(&[]);
    let (mut tenant, mut neighbour) = (house.tenant(1), house.tenant(2));
    for pid in [neighbour.pid, i32::try_from(house.zygote.pid()).unwrap(), 2] {
        let answer = house.text(&mut tenant, &format!("tkill-abort {pid}"));
        assert!(answer.starts_with("refused: ESRCH"), "{answer}");
    }
    // Number 1 is itself.
    assert_eq!(house.ask(&mut tenant, "tkill-abort 1"), None);
    assert_eq!(house.exit_of(tenant.slot), ExitKind::Signal(libc::SIGABRT));
    assert_eq!(house.text(&mut neighbour, "echo"), "echo");
}

fn other_layers_hold_without_seccomp() {
    if !is_root() {
        println!("skipped: without root there is no uid layer, on which most of this rests");
        return;
    }
    let mut house = House::open(&[Layer::Seccomp]);
    let mut neighbour = house.tenant(1);
    let mut tenant = house.tenant(2);
    let pid = neighbour.pid;
    let denials = [
        ("open", "EMFILE"),
        ("bind", "EMFILE"),
        ("abstract", "EMFILE"),
        ("memfd", "EMFILE"),
        ("dup", "EMFILE"),
        ("fork", "EAGAIN"),
        ("kill-neighbour", "ESRCH"),
        ("pidfd", "ESRCH"),
        ("ptrace", "ESRCH"),
        ("process_vm_readv", "ESRCH"),
        ("prlimit", "EPERM"),
        ("setrlimit", "EPERM"),
        ("sethostname", "EPERM"),
        ("mount", "EPERM"),
        ("umount", "EPERM"),
        ("pivot_root", "EPERM"),
        ("chroot", "ENOENT"),
        ("write-root", "EROFS"),
        ("write-stdout", "EBADF"),
        ("send-other", "EBADF"),
    ];
    let mut are_denied = |house: &House, tenant: &mut _, when: &str| {
        for (deed, errno) in denials {
            let answer = house.text(tenant, &format!("{deed} {pid}"));
            assert!(answer.starts_with(&format!("refused: {errno}")), "`{deed}` {when}: {answer}");
        }
        assert_eq!(house.text(&mut neighbour, "echo"), "echo");
    };
    are_denied(&house, &mut tenant, "at first");
    // In a user namespace of one's own one has every capability. Only seccomp keeps a vault-manager from making one (so the answer is
    // the machine's); the other layers must not rest on capabilities alone.
    house.text(&mut tenant, "unshare");
    are_denied(&house, &mut tenant, "in a user namespace");
    let mut another = house.tenant(3);
    assert!(house.text(&mut another, "setuid").starts_with("refused: EPERM"));
}

fn the_kernel_says_the_walls_stand() {
    let mut house = House::open(&[]);
    let tenant = house.tenant(9);
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", tenant.pid)).unwrap();
    assert_eq!(read("cmdline"), "vault-manager\0");
    assert_eq!(read("comm"), "vault-manager\n");
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Threads"), "1");
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
    assert_eq!(field("SigBlk"), "0000000000000000");
    if !is_root() {
        println!("the rest is skipped: without root there is no uid layer, and /proc/<pid> is closed");
        return;
    }
    let id = UID_BASE + 9;
    assert_eq!((field("Uid"), field("Gid")), (format!("{id} {id} {id} {id}"), format!("{id} {id} {id} {id}")));
    assert_eq!(field("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NSpid"), format!("{} 1", tenant.pid));
    assert_eq!(read("mountinfo").lines().count(), 1, "{}", read("mountinfo"));
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", tenant.pid)).unwrap().map(|fd| fd.unwrap().path()).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(fs::read_link(&open[0]).unwrap().to_str().unwrap().starts_with("socket:"));
    assert_eq!(fs::read(format!("/proc/{}/environ", tenant.pid)).unwrap(), b"");
    let limits = read("limits");
    let limit = |name: &str| {
        limits.lines().find(|line| line.starts_with(name)).unwrap()[26..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max data size"), MEMORY_BYTES.to_string());
    // And the program beside it, whose length is another in each build.
    let addresses: u64 = limit("Max address space").parse().unwrap();
    assert!((MEMORY_BYTES..MEMORY_BYTES + (64 << 20)).contains(&addresses), "{addresses}");
    assert_eq!(
        (limit("Max open files"), limit("Max processes"), limit("Max core file size")),
        ("1".into(), "0".into(), "0".into())
    );
}

/// A supervisor without any privilege, which waives what it is told to and says what came of it.
pub(crate) fn be_a_poor_supervisor(waived: impl Iterator<Item = String>) -> ! {
    let waived = waived.map(|name| name.parse().unwrap()).collect();
    match Zygote::start(&SandboxOptions { waived, ..SandboxOptions::default() }) {
        Ok(zygote) => println!("started with {}", zygote.layers_in_force().len()),
        Err(error) => println!("{error}"),
    }
    std::process::exit(0)
}

fn a_layer_that_fails_stops_the_start() {
    // A uid base without room is refused before anything starts.
    let error = Zygote::start(&SandboxOptions { uid_base: u32::MAX, waived: Vec::new() }).unwrap_err().to_string();
    assert!(error.contains("uid base"), "{error}");

    let start_without = |waived: &[Layer]| {
        let mut supervisor = Command::new("/proc/self/exe");
        supervisor.arg(POOR_SUPERVISOR).args(waived.iter().map(|layer| layer.name()));
        if is_root() {
            supervisor.uid(NOBODY).gid(NOBODY);
        }
        String::from_utf8(supervisor.output().unwrap().stdout).unwrap()
    };
    // Where it is absent it does not fail.
    let need_root: Vec<_> = NEED_ROOT.into_iter().filter(|layer| *layer != Layer::Cgroup).collect();
    for layer in &need_root {
        let mut waived = NEED_ROOT.to_vec();
        waived.retain(|other| other != layer);
        let said = start_without(&waived);
        assert!(said.contains(&format!("`{layer}` cannot be put up")) && said.contains("waive"), "{layer}: {said}");
        assert!(said.contains("Operation not permitted"), "{layer}: {said}");
    }
    let said = start_without(&NEED_ROOT);
    assert_eq!(said, format!("started with {}\n", Layer::ALL.len() - NEED_ROOT.len()));
}

fn waived_layers_are_told() {
    let house = House::open(&[Layer::Rlimits, Layer::Dumpable]);
    let in_force = house.zygote.layers_in_force();
    let absent = house.zygote.layers_absent();
    assert!(absent.is_empty() || absent == [Layer::Cgroup], "only a controller may be absent: {absent:?}");
    let mut wanted = options(&[Layer::Rlimits, Layer::Dumpable]).layers();
    wanted.retain(|layer| !absent.contains(layer));
    assert_eq!(in_force, wanted);
    assert!(in_force.contains(&Layer::Seccomp) && !in_force.contains(&Layer::Rlimits));
    drop(house);
    // Every layer can be given up, one by one.
    for layer in Layer::ALL {
        let mut house = House::open(&[layer]);
        let mut tenant = house.tenant(0);
        assert_eq!(house.text(&mut tenant, "echo"), "echo", "without {layer}");
    }
}
