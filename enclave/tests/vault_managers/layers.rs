//! Each layer on its own, with every other one waived: it denies what it is there for. And with nothing in force the same is done, so
//! that it was the layer and not the machine.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::id;

use casemate_enclave::sandbox::Layer;
use casemate_enclave::zygote::ExitKind;

use crate::Test;
use crate::deeds::abstract_name;
use crate::tenants::{House, is_root};

pub(crate) const TESTS: &[Test] = &[
    ("each_layer_denies_on_its_own", each_layer_denies_on_its_own),
    ("namespaces_are_shared_but_for_the_pids", namespaces_are_shared_but_for_the_pids),
    ("memory_ends_at_the_limit_alone", memory_ends_at_the_limit_alone),
];

/// What a deed's number stands for.
#[derive(Clone, Copy)]
enum Number {
    Neighbour,
    Zygote,
    /// The port of a listener on this machine.
    Port,
    /// The process that listens in the abstract namespace, and whose segment of shared memory there is.
    Test,
    Is(i32),
}

use Number::{Is, Neighbour, Port, Test as Own, Zygote};

/// Who denies what, and how.
const DENIALS: &[(Layer, &str, Number, &str)] = &[
    (Layer::Descriptors, "has-descriptor", Is(3), "EBADF"),
    (Layer::Rlimits, "open", Is(0), "EMFILE"),
    (Layer::Rlimits, "mmap-much", Is(0), "ENOMEM"),
    (Layer::Uid, "setuid", Is(0), "EPERM"),
    (Layer::Uid, "may-kill", Neighbour, "EPERM"),
    (Layer::Uid, "ptrace", Neighbour, "EPERM"),
    (Layer::Uid, "process_vm_readv", Neighbour, "EPERM"),
    (Layer::Uid, "open-memory", Neighbour, "EACCES"),
    (Layer::PidNamespace, "may-kill", Neighbour, "ESRCH"),
    (Layer::PidNamespace, "may-kill", Zygote, "ESRCH"),
    (Layer::PidNamespace, "pidfd", Neighbour, "ESRCH"),
    (Layer::PidNamespace, "ptrace", Neighbour, "ESRCH"),
    (Layer::PidNamespace, "process_vm_readv", Neighbour, "ESRCH"),
    (Layer::Landlock, "open", Is(0), "EACCES"),
    (Layer::Landlock, "open-device", Is(0), "EACCES"),
    (Layer::Landlock, "open-memory", Neighbour, "EACCES"),
    (Layer::Landlock, "bind", Is(0), "EACCES"),
    (Layer::Landlock, "connect", Port, "EACCES"),
    (Layer::Landlock, "abstract", Own, "EPERM"),
    (Layer::Landlock, "may-kill", Zygote, "EPERM"),
    (Layer::Landlock, "may-kill", Neighbour, "EPERM"),
    (Layer::Landlock, "ptrace", Neighbour, "EPERM"),
    (Layer::MountNamespace, "open", Is(0), "ENOENT"),
    (Layer::MountNamespace, "open-device", Is(0), "ENOENT"),
    (Layer::MountNamespace, "open-memory", Neighbour, "ENOENT"),
    (Layer::MountNamespace, "write-root", Is(0), "EROFS"),
    (Layer::NetworkNamespace, "connect", Port, "ENETUNREACH"),
    (Layer::NetworkNamespace, "abstract", Own, "ECONNREFUSED"),
    (Layer::IpcNamespace, "segment", Own, "ENOENT"),
];

/// A segment of System V shared memory, under the test's process id as its key, as long as it lives.
struct Segment(libc::c_int);

impl Segment {
    #[allow(unsafe_code)]
    fn new() -> Self {
        let key = i32::try_from(id()).unwrap();
        // SAFETY: the call takes numbers only.
        let segment = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o600) };
        assert!(segment >= 0, "{}", nix::errno::Errno::last());
        Self(segment)
    }
}

impl Drop for Segment {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: removing needs no structure to read into.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// The ABI of landlock from which on it denies a deed; 1 for files and processes.
fn landlock_since(deed: &str) -> i64 {
    match deed {
        "bind" | "connect" => 4,
        "abstract" | "may-kill" => 6,
        _ => 1,
    }
}

#[allow(unsafe_code)]
fn landlock_abi() -> i64 {
    // SAFETY: with this flag, LANDLOCK_CREATE_RULESET_VERSION, nothing is made.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) }
}

fn all_but(layer: Option<Layer>) -> Vec<Layer> {
    Layer::ALL.into_iter().filter(|other| Some(*other) != layer).collect()
}

fn each_layer_denies_on_its_own() {
    if !is_root() {
        println!(
            "skipped: without root most layers cannot stand, and without them the same is denied by being somebody"
        );
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = i32::from(listener.local_addr().unwrap().port());
    let own = i32::try_from(id()).unwrap();
    let name = SocketAddr::from_abstract_name(abstract_name(own)).unwrap();
    let _listener = UnixListener::bind_addr(&name).unwrap();
    let _segment = Segment::new();
    // What is asked of a fresh vault-manager, so that no deed is helped by an earlier one.
    let ask = |house: &mut House, neighbour: i32, deed: &str, number: Number| {
        let number = match number {
            Neighbour => neighbour,
            Zygote => i32::try_from(house.zygote.pid()).unwrap(),
            Port => port,
            Own => own,
            Is(number) => number,
        };
        let mut tenant = house.tenant(2);
        let answer = house.text(&mut tenant, &format!("{deed} {number}"));
        house.zygote.kill(tenant.slot).unwrap();
        house.exit_of(tenant.slot);
        answer
    };
    let mut bare = House::open(&all_but(None));
    assert!(bare.zygote.layers_in_force().is_empty());
    let bare_neighbour = bare.tenant(1);
    for layer in Layer::ALL {
        let denials: Vec<_> = DENIALS.iter().filter(|(of, ..)| *of == layer).collect();
        if denials.is_empty() {
            continue;
        }
        let mut house = House::open(&all_but(Some(layer)));
        assert_eq!(house.zygote.layers_in_force(), [layer]);
        let mut neighbour = house.tenant(1);
        for (_, deed, number, errno) in denials {
            if layer == Layer::Landlock && landlock_abi() < landlock_since(deed) {
                println!("skipped: this kernel's landlock (ABI {}) knows nothing of `{deed}`", landlock_abi());
                continue;
            }
            let denied = ask(&mut house, neighbour.pid, deed, *number);
            assert!(denied.starts_with(&format!("refused: {errno}")), "{layer}: `{deed}`: {denied}");
            let done = ask(&mut bare, bare_neighbour.pid, deed, *number);
            assert!(done.starts_with("done: "), "without {layer}: `{deed}`: {done}");
        }
        assert_eq!(house.text(&mut neighbour, "echo"), "echo", "the neighbour, with {layer}");
    }
    // Those that show in a word of the kernel rather than in a refusal.
    let host_name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for (layer, deed, with, without) in [
        (Layer::UtsNamespace, "host-name", "vault-manager", host_name.as_str()),
        (Layer::NoNewPrivs, "no-new-privs", "done: 1", "done: 0"),
        (Layer::PidNamespace, "getpid", "done: 1", ""),
    ] {
        let mut house = House::open(&all_but(Some(layer)));
        assert_eq!(ask(&mut house, 0, deed, Is(0)), with, "{layer}");
        let bare = ask(&mut bare, 0, deed, Is(0));
        assert!(if without.is_empty() { bare != with } else { bare == without }, "without {layer}: {bare}");
    }
}

fn namespaces_are_shared_but_for_the_pids() {
    if !is_root() {
        println!("skipped: without root there are no namespaces");
        return;
    }
    let mut house = House::open(&[]);
    let (a, b) = (house.tenant(1), house.tenant(2));
    let zygote = i32::try_from(house.zygote.pid()).unwrap();
    let own = i32::try_from(id()).unwrap();
    let namespace = |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["mnt", "net", "ipc", "uts"] {
        assert_eq!(namespace(a.pid, kind), namespace(b.pid, kind), "{kind}");
        assert_eq!(namespace(a.pid, kind), namespace(zygote, kind), "{kind}");
        assert_ne!(namespace(a.pid, kind), namespace(own, kind), "{kind}: the supervisor's");
    }
    assert_ne!(namespace(a.pid, "pid"), namespace(b.pid, "pid"));
    assert_eq!(namespace(zygote, "pid"), namespace(own, "pid"));
    assert_eq!(namespace(zygote, "pid_for_children"), namespace(own, "pid"), "it has turned back");
    let interfaces = std::fs::read_to_string(format!("/proc/{}/net/dev", a.pid)).unwrap();
    let names: Vec<_> =
        interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["lo"], "{interfaces}");
}

fn memory_ends_at_the_limit_alone() {
    let mut waived = all_but(Some(Layer::Rlimits));
    // Last words into a file would go beyond the limit of file sizes, which ends a process otherwise.
    waived.retain(|layer| *layer != Layer::Descriptors);
    let mut house = House::open(&waived);
    let (mut tenant, mut neighbour) = (house.tenant(1), house.tenant(2));
    assert_eq!(house.ask(&mut tenant, "memory"), None);
    assert_eq!(house.exit_of(tenant.slot), ExitKind::Signal(libc::SIGABRT));
    assert_eq!(house.text(&mut neighbour, "echo"), "echo");
}
