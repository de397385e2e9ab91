//! What a compromised vault-manager would try, and what a sound one does. A deed that the kernel neither ends nor refuses is told
//! to the test.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::os::fd::OwnedFd;
use std::ptr;

use casemate_enclave::ipc::{FromManager, ToManager};
use casemate_enclave::manager_socket::ManagerSocket;
use casemate_enclave::outside::{Clock, Randomness};
use casemate_enclave::system::{OsRandomness, SystemClock};
use casemate_enclave::vault::parking::ParkingSecret;
use libc::{c_int, c_long};
use nix::sys::socket::{SockaddrLike, UnixAddr};

use crate::tenants::MEMORY_BYTES;

/// The deeds that end the process by the seccomp rule. (What the deed's word means is in [`forbidden`].)
pub(crate) const FORBIDDEN: &[&str] = &[
    "open",
    "openat2",
    "open-nsm",
    "open-memory",
    "bind",
    "connect",
    "kill-neighbour",
    "kill-zygote",
    "kill-all",
    "tkill-kill",
    "tgkill",
    "pidfd",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "fork",
    "vfork",
    "clone3",
    "exec",
    "mprotect-exec",
    "mmap-exec",
    "mmap-shared",
    "mmap-stack",
    "mmap-file",
    "shmget",
    "msgget",
    "memfd",
    "prlimit",
    "setrlimit",
    "setuid",
    "capset",
    "prctl",
    "seccomp",
    "unshare",
    "setns",
    "mount",
    "umount",
    "pivot_root",
    "chroot",
    "chdir",
    "sethostname",
    "uname",
    "getpid",
    "write-stdout",
    "write-own-socket",
    "read-own-socket",
    "recv-other",
    "send-other",
    "recvmsg",
    "sendmsg",
    "dup",
    "fcntl",
    "ioctl",
    "setsockopt",
    "getppid",
    "sched_setaffinity",
    "clock-of-another",
    "madvise-huge",
    "futex",
    "io_uring",
    "bpf",
    "perf",
    "userfaultfd",
    "keyctl",
    "x32-getpid",
    "sigaction",
    "landlock",
    "landlock-more",
    "nanosleep",
];

/// Serves the test until it lets go.
pub(crate) fn run(socket: OwnedFd, _: ParkingSecret) -> ! {
    let mut socket = ManagerSocket::new(socket);
    let mut static_key = [0; 32];
    OsRandomness.fill(&mut static_key);
    if socket.send(&FromManager::Ready { static_key }).is_err() {
        std::process::exit(1);
    }
    while let Ok(message) = socket.recv() {
        let ToManager::Request { id, frame, .. } = message else { continue };
        let answer = act(&String::from_utf8(frame).unwrap());
        if socket.send(&FromManager::Reply { id, frame: answer }).is_err() {
            break;
        }
    }
    std::process::exit(0)
}

fn act(deed: &str) -> Vec<u8> {
    let (deed, number) = deed.split_once(' ').map_or((deed, 0), |(deed, number)| (deed, number.parse().unwrap()));
    match deed {
        "echo" => b"echo".to_vec(),
        "random" => {
            let mut out = vec![0; 32];
            OsRandomness.fill(&mut out);
            out
        }
        "work" => work(),
        "host-name" => nix::unistd::gethostname().unwrap().into_encoded_bytes(),
        "exit" => std::process::exit(7),
        "panic" => panic!("as asked"),
        "abort" => std::process::abort(),
        "segfault" => {
            // SAFETY: none; the process shall end by it.
            unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
            Vec::new()
        }
        "overflow" => recurse(1).to_be_bytes().to_vec(),
        "memory" => {
            let mut hoard = Vec::new();
            for _ in 0..1024 {
                hoard.push(vec![1_u8; 1024 * 1024]);
            }
            hoard.concat()
        }
        "read-only-memory" => read_only_memory(false),
        "memory-made-read-only" => read_only_memory(true),
        _ => match forbidden(deed, number) {
            -1 => format!("refused: {}", nix::errno::Errno::last()).into_bytes(),
            result => format!("done: {result}").into_bytes(),
        },
    }
}

/// What a sound vault-manager needs the kernel for: memory in all sizes, grown and given back, time, chance.
fn work() -> Vec<u8> {
    let clock = SystemClock::new();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for round in 0_usize..200 {
        let mut block = vec![0_u8; 1 << (round % 22)];
        OsRandomness.fill(&mut block[..1]);
        block.resize(block.len() * 3 / 2, 1);
        kept.push(block);
        if round % 3 == 2 {
            kept.swap_remove(round % kept.len());
        }
        if kept.iter().map(Vec::len).sum::<usize>() > 8 << 20 {
            kept.clear();
        }
    }
    assert!(clock.unix_seconds() > 0 && clock.monotonic() > std::time::Duration::ZERO);
    b"worked".to_vec()
}

/// Takes memory that it never writes to, of which it reads a byte for each table of addresses; or that it gives up the right to write to.
/// Says how much it got.
fn read_only_memory(was_writable: bool) -> Vec<u8> {
    const PIECE: usize = 2 << 20;
    const MOST: usize = 1 << 30;
    let rights = libc::PROT_READ | if was_writable { libc::PROT_WRITE } else { 0 };
    let mut got = 0;
    while got < MOST {
        // SAFETY: the kernel chooses the place, and only what it gave is read.
        unsafe {
            let piece = libc::mmap(ptr::null_mut(), PIECE, rights, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            if piece == libc::MAP_FAILED || libc::mprotect(piece, PIECE, libc::PROT_READ) != 0 {
                break;
            }
            piece.cast::<u8>().read_volatile();
        }
        got += PIECE;
    }
    format!("got {got}").into_bytes()
}

#[allow(unconditional_recursion, reason = "it shall end by the stack's limit")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + std::hint::black_box(frame)[7]
}

fn forbidden(deed: &str, number: c_int) -> c_long {
    const NONE: c_long = 0;
    let path = c"/proc/self/exe".as_ptr();
    let page = ptr::from_ref(&0_u8).map_addr(|address| address & !4095);
    let mut byte = 0_u8;
    let byte = &raw mut byte;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: every pointer is to memory of ours or null, where the kernel looks; most calls end the process, and none that did
    // not would harm more than the test.
    unsafe {
        match deed {
            "open" => open(path),
            "open-nsm" => open(c"/dev/nsm".as_ptr()),
            "open-device" => open(c"/dev/null".as_ptr()),
            "open-memory" => open(CString::new(format!("/proc/{number}/mem")).unwrap().as_ptr()),
            "write-root" => libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, c"/".as_ptr(), libc::W_OK),
            "openat2" => libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, NONE, NONE),
            "socket" => libc::syscall(libc::SYS_socket, number, libc::SOCK_STREAM, NONE),
            "bind" => tcp(libc::SYS_bind, 0),
            "connect" => tcp(libc::SYS_connect, u16::try_from(number).unwrap_or(9)),
            "abstract" => abstract_socket(number),
            "kill-neighbour" | "kill-zygote" => libc::syscall(libc::SYS_kill, number, libc::SIGKILL),
            "kill-all" => libc::syscall(libc::SYS_kill, -1, libc::SIGKILL),
            // Sends nothing, but asks whether it could.
            "may-kill" => libc::syscall(libc::SYS_kill, number, NONE),
            "tkill-kill" => libc::syscall(libc::SYS_tkill, number, libc::SIGKILL),
            "tgkill" => libc::syscall(libc::SYS_tgkill, number, number, libc::SIGABRT),
            "pidfd" => libc::syscall(libc::SYS_pidfd_open, number, NONE),
            // Unlike PTRACE_ATTACH it does not stop whom it gets.
            "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, number, NONE, NONE),
            "process_vm_readv" => {
                // Every process of this program has a byte there.
                let part = libc::iovec { iov_base: byte.cast(), iov_len: 1 };
                let part = &raw const part;
                libc::syscall(libc::SYS_process_vm_readv, number, part, 1_i64, part, 1_i64, NONE)
            }
            "process_vm_writev" => libc::syscall(libc::SYS_process_vm_writev, number, NONE, NONE, NONE, NONE, NONE),
            "fork" => libc::syscall(libc::SYS_fork),
            "vfork" => libc::syscall(libc::SYS_clone, libc::CLONE_VM | libc::SIGCHLD, NONE, NONE, NONE, NONE),
            "clone3" => libc::syscall(libc::SYS_clone3, NONE, NONE),
            "exec" => libc::syscall(libc::SYS_execve, path, NONE, NONE),
            "mprotect-exec" => libc::syscall(libc::SYS_mprotect, page, 4096, rw | libc::PROT_EXEC),
            "mmap-exec" => libc::syscall(libc::SYS_mmap, NONE, 4096, rw | libc::PROT_EXEC, anonymous, -1, NONE),
            "mmap-shared" => {
                libc::syscall(libc::SYS_mmap, NONE, 4096, rw, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, NONE)
            }
            "mmap-stack" => libc::syscall(libc::SYS_mmap, NONE, 4096, rw, anonymous | libc::MAP_GROWSDOWN, -1, NONE),
            "mmap-file" => libc::syscall(libc::SYS_mmap, NONE, 4096, rw, libc::MAP_PRIVATE, 0, NONE),
            "msgget" => libc::syscall(libc::SYS_msgget, libc::IPC_PRIVATE, 0o600),
            "segment" => libc::syscall(libc::SYS_shmget, number, NONE, NONE),
            "mmap-much" => libc::syscall(libc::SYS_mmap, NONE, 2 * MEMORY_BYTES, rw, anonymous, -1, NONE),
            "shmget" => libc::syscall(libc::SYS_shmget, NONE, 4096, libc::IPC_CREAT | 0o600),
            "memfd" => libc::syscall(libc::SYS_memfd_create, path, NONE),
            "prlimit" => {
                let limit = libc::rlimit { rlim_cur: 1 << 40, rlim_max: 1 << 40 };
                libc::syscall(libc::SYS_prlimit64, NONE, libc::RLIMIT_DATA, &raw const limit, NONE)
            }
            "setrlimit" => {
                let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
                libc::syscall(libc::SYS_setrlimit, libc::RLIMIT_NOFILE, &raw const limit)
            }
            "setuid" => libc::syscall(libc::SYS_setuid, NONE),
            "capset" => libc::syscall(libc::SYS_capset, NONE, NONE),
            "prctl" => libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, NONE, NONE, NONE),
            "no-new-privs" => libc::syscall(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, NONE, NONE, NONE, NONE),
            "seccomp" => libc::syscall(libc::SYS_seccomp, 1, NONE, NONE),
            "unshare" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
            "setns" => libc::syscall(libc::SYS_setns, NONE, NONE),
            "mount" => libc::syscall(libc::SYS_mount, NONE, c"/".as_ptr(), c"tmpfs".as_ptr(), NONE, NONE),
            "umount" => libc::syscall(libc::SYS_umount2, c"/".as_ptr(), libc::MNT_DETACH),
            "pivot_root" => libc::syscall(libc::SYS_pivot_root, c"/".as_ptr(), c"/".as_ptr()),
            "chdir" => libc::syscall(libc::SYS_chdir, c"/".as_ptr()),
            "sethostname" => libc::syscall(libc::SYS_sethostname, c"me".as_ptr(), 2),
            "uname" => libc::syscall(libc::SYS_uname, byte),
            "getpid" => libc::syscall(libc::SYS_getpid),
            "chroot" => libc::syscall(libc::SYS_chroot, path),
            "write-stdout" => libc::syscall(libc::SYS_write, 1, byte, 1),
            "write-own-socket" => libc::syscall(libc::SYS_write, NONE, byte, 1),
            "read-own-socket" => libc::syscall(libc::SYS_read, NONE, byte, 1),
            "recv-other" => libc::syscall(libc::SYS_recvfrom, 3, byte, 1, libc::MSG_DONTWAIT, NONE, NONE),
            "send-other" => libc::syscall(libc::SYS_sendto, 3, byte, 1, libc::MSG_DONTWAIT, NONE, NONE),
            "recvmsg" => libc::syscall(libc::SYS_recvmsg, NONE, NONE, NONE),
            "sendmsg" => libc::syscall(libc::SYS_sendmsg, NONE, NONE, NONE),
            "dup" => libc::syscall(libc::SYS_dup, NONE),
            "fcntl" => libc::syscall(libc::SYS_fcntl, NONE, libc::F_DUPFD, NONE),
            "ioctl" => libc::syscall(libc::SYS_ioctl, NONE, libc::FIONREAD, byte),
            "setsockopt" => libc::syscall(libc::SYS_setsockopt, NONE, libc::SOL_SOCKET, libc::SO_SNDBUF, byte, 4),
            "getppid" => libc::syscall(libc::SYS_getppid),
            "sched_setaffinity" => libc::syscall(libc::SYS_sched_setaffinity, NONE, 8, byte),
            // The CPU clock of another process, as clock_getcpuclockid(3) would make its id.
            "clock-of-another" => libc::syscall(libc::SYS_clock_gettime, (!number << 3) | 2, byte),
            "madvise-huge" => libc::syscall(libc::SYS_madvise, page, 4096, libc::MADV_HUGEPAGE),
            "futex" => libc::syscall(libc::SYS_futex, page, libc::FUTEX_WAKE, 1, NONE, NONE, NONE),
            "io_uring" => libc::syscall(libc::SYS_io_uring_setup, 1, NONE),
            "bpf" => libc::syscall(libc::SYS_bpf, NONE, NONE, NONE),
            "perf" => libc::syscall(libc::SYS_perf_event_open, NONE, NONE, NONE, NONE, NONE),
            "userfaultfd" => libc::syscall(libc::SYS_userfaultfd, NONE),
            "keyctl" => libc::syscall(libc::SYS_keyctl, NONE, NONE, NONE, NONE, NONE),
            "x32-getpid" => libc::syscall(libc::SYS_getpid | 0x4000_0000),
            "sigaction" => libc::syscall(libc::SYS_rt_sigaction, libc::SIGUSR1, NONE, NONE, 8),
            "landlock-more" => libc::syscall(libc::SYS_landlock_restrict_self, NONE, NONE),
            "landlock" => libc::syscall(libc::SYS_landlock_create_ruleset, NONE, NONE, 1),
            "nanosleep" => libc::syscall(libc::SYS_nanosleep, NONE, NONE),
            "has-descriptor" => libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD),
            // What must be refused although it is on the list.
            "tkill-abort" => libc::syscall(libc::SYS_tkill, number, libc::SIGABRT),
            "write-stderr" => libc::syscall(libc::SYS_write, 2, byte, 1),
            other => panic!("what is `{other}`?"),
        }
    }
}

/// # Safety
/// `path` ends with a zero.
unsafe fn open(path: *const c_char) -> c_long {
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_RDONLY) }
}

/// A TCP socket and one call with an address of this machine.
fn tcp(call: c_long, port: u16) -> c_long {
    let ip = libc::in_addr { s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be() };
    let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap();
    let address = libc::sockaddr_in { sin_family: family, sin_port: port.to_be(), sin_addr: ip, sin_zero: [0; 8] };
    // SAFETY: the address lives through the call and is as long as we say.
    unsafe {
        let socket = libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
        if socket < 0 {
            return socket;
        }
        libc::syscall(call, socket, &raw const address, size_of_val(&address))
    }
}

/// The name in the abstract namespace at which the test listens.
pub(crate) fn abstract_name(number: c_int) -> String {
    format!("casemate-walls-{number}")
}

fn abstract_socket(number: c_int) -> c_long {
    let address = UnixAddr::new_abstract(abstract_name(number).as_bytes()).unwrap();
    // SAFETY: the address lives through the call and is as long as it says.
    unsafe {
        let socket = libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
        if socket < 0 {
            return socket;
        }
        libc::syscall(libc::SYS_connect, socket, address.as_ptr(), address.len())
    }
}
