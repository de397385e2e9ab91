//! From inside a vault-manager: what is tried is denied, the process is killed where the rule says so, and nobody else notices.

use std::fs;

use casemate_enclave::sandbox::{Layer, SandboxOptions, UID_BASE};
use casemate_enclave::zygote::{ExitKind, Zygote};

use crate::Test;
use crate::deeds::FORBIDDEN;
use crate::tenants::{House, MEMORY_BYTES, is_root, options};

pub(crate) const TESTS: &[Test] = &[
    ("forbidden_calls_kill", forbidden_calls_kill),
    ("sound_work_lives", sound_work_lives),
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

fn sound_work_lives() {
    let mut house = House::open(&[]);
    let mut tenant = house.tenant(1);
    for _ in 0..5 {
        assert_eq!(house.text(&mut tenant, "work"), "worked");
    }
    // What reads like descriptor 2 is nowhere.
    assert!(house.text(&mut tenant, "write-stderr").starts_with("refused: EBADF"));
}

fn what_is_allowed_reaches_nobody_else() {
    if !is_root() {
        println!("skipped: without root there is no uid layer, on which this rests");
        return;
    }
    let mut house = House::open(&[]);
    let (mut tenant, mut neighbour) = (house.tenant(1), house.tenant(2));
    for pid in [neighbour.pid, i32::try_from(house.zygote.pid()).unwrap(), 1] {
        let answer = house.text(&mut tenant, &format!("tkill-abort {pid}"));
        assert!(answer.starts_with("refused: EPERM"), "{answer}");
    }
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
    for (deed, errno) in [
        ("open", "EMFILE"),
        ("socket-unix", "EMFILE"),
        ("memfd", "EMFILE"),
        ("dup", "EMFILE"),
        ("fork", "EAGAIN"),
        ("kill-neighbour", "EPERM"),
        ("ptrace", "EPERM"),
        ("process_vm_readv", "EPERM"),
        ("prlimit", "EPERM"),
        ("setrlimit", "EPERM"),
        ("setuid", "EPERM"),
        ("chroot", "ENOTDIR"),
        ("mount", "EPERM"),
        ("write-stdout", "EBADF"),
        ("send-other", "EBADF"),
    ] {
        let answer = house.text(&mut tenant, &format!("{deed} {pid}"));
        if deed == "chroot" {
            assert!(answer.starts_with("refused"), "{answer}");
        } else {
            assert!(answer.starts_with(&format!("refused: {errno}")), "`{deed}`: {answer}");
        }
    }
    assert_eq!(house.text(&mut neighbour, "echo"), "echo");
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
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", tenant.pid)).unwrap().map(|fd| fd.unwrap().path()).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(fs::read_link(&open[0]).unwrap().to_str().unwrap().starts_with("socket:"));
    assert_eq!(fs::read(format!("/proc/{}/environ", tenant.pid)).unwrap(), b"");
    let limits = read("limits");
    let limit = |name: &str| {
        limits.lines().find(|line| line.starts_with(name)).unwrap()[26..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max data size"), MEMORY_BYTES.to_string());
    assert_eq!(
        (limit("Max open files"), limit("Max processes"), limit("Max core file size")),
        ("1".into(), "0".into(), "0".into())
    );
}

fn a_layer_that_fails_stops_the_start() {
    // A uid base without room is refused before anything starts.
    let error = Zygote::start(&SandboxOptions { uid_base: u32::MAX, waived: Vec::new() }).unwrap_err().to_string();
    assert!(error.contains("uid base"), "{error}");
    if is_root() {
        println!("the rest is skipped: root may put up every layer");
        return;
    }
    let error = Zygote::start(&SandboxOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`uid`") && error.contains("waive"), "{error}");
}

fn waived_layers_are_told() {
    let house = House::open(&[Layer::Rlimits, Layer::Dumpable]);
    let in_force = house.zygote.layers_in_force();
    assert_eq!(in_force, options(&[Layer::Rlimits, Layer::Dumpable]).layers());
    assert!(in_force.contains(&Layer::Seccomp) && !in_force.contains(&Layer::Rlimits));
    drop(house);
    // Every layer can be given up, one by one.
    for layer in Layer::ALL {
        let mut house = House::open(&[layer]);
        let mut tenant = house.tenant(0);
        assert_eq!(house.text(&mut tenant, "echo"), "echo", "without {layer}");
    }
}
