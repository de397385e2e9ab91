//! An enclave's image in a machine of its own: QEMU's nitro-enclave machine, emulated, whose vsock ends in Unix sockets beside the node's
//! other files.
//!
//! The image is the one that ships, or one that differs in its programs: nothing in it can tell that it is emulated, but that its
//! evidence is unsigned.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where init tells that the enclave lives (`eif/init`).
const HEARTBEAT_PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xB7;
/// Where the parent listens (`enclave/src/main.rs`).
const LINK_PORT: u32 = 7001;

/// What boots an image, and the image.
#[derive(Debug, Clone)]
pub struct Emulation {
    /// The folder with QEMU and vhost-device-vsock.
    pub emulator: PathBuf,
    /// The enclave image.
    pub image: PathBuf,
}

impl Emulation {
    /// As `CASEMATE_EMULATOR` and `CASEMATE_IMAGE` say; nothing when they do not.
    pub fn from_environment() -> Option<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Some(Self { emulator: path("CASEMATE_EMULATOR")?, image: path("CASEMATE_IMAGE")? })
    }
}

/// A running machine. It ends with this.
#[derive(Debug)]
pub struct Guest {
    machine: Process,
    /// Kept, because the machine's vsock ends with it.
    _vsock: Process,
    console: PathBuf,
    beats: Arc<AtomicU32>,
}

impl Guest {
    /// Starts the machine. Its files lie in `folder`, which must be new; the enclave finds its parent behind the socket `link`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(emulation: &Emulation, folder: &Path, link: &Path, memory_mib: u32) -> Self {
        fs::create_dir(folder).expect("a folder can be made");
        let port = |number: u32| folder.join(format!("vsock_{number}"));
        symlink(link, port(LINK_PORT)).expect("a link can be made");
        let beats = answer_heartbeats(&port(HEARTBEAT_PORT));
        let device = folder.join("device");
        let mut vsock = Process::start(
            "vsock",
            folder,
            Command::new(emulation.emulator.join("vhost-device-vsock"))
                .args(["--guest-cid", "16", "--socket"])
                .arg(&device)
                .arg("--uds-path")
                .arg(folder.join("vsock")),
        );
        vsock.await_ready(PATIENCE, "it made its socket", |_| device.exists().then_some(()));
        let console = folder.join("console");
        let machine = Process::start(
            "machine",
            folder,
            Command::new(emulation.emulator.join("qemu-system-x86_64"))
                .arg("-L")
                .arg(&emulation.emulator)
                .args(["-M", "nitro-enclave,vsock=vsock,id=casemate", "-accel", "tcg,thread=multi", "-cpu", "max"])
                .args([
                    "-smp",
                    "2",
                    "-m",
                    &format!("{memory_mib}M"),
                    "-no-reboot",
                    "-display",
                    "none",
                    "-monitor",
                    "none",
                ])
                .args(["-append", &command_line()])
                .arg("-chardev")
                .arg(format!("socket,id=vsock,path={}", device.display()))
                .arg("-serial")
                .arg(format!("file:{}", console.display()))
                .arg("-kernel")
                .arg(&emulation.image),
        );
        Self { machine, _vsock: vsock, console, beats }
    }

    /// What init and the kernel have said.
    pub fn console(&self) -> String {
        fs::read_to_string(&self.console).unwrap_or_default()
    }

    /// How often init has told that it lives, and was answered.
    pub fn heartbeats(&self) -> u32 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Stops the machine's clock and processors, or lets them go on.
    pub fn pause(&self, stopped: bool) {
        self.machine.signal(if stopped { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// Whether the machine has ended.
    pub fn has_ended(&mut self) -> bool {
        self.machine.has_ended()
    }
}

/// What the emulator has to say to the kernel, which is not measured and not in the image: how fast the processor is, which it cannot
/// find out on a busy machine, and how to restart a machine that has no keyboard controller.
fn command_line() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let megahertz = processors.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split_once(": ")?.1.parse().ok());
    let clock =
        megahertz.map_or_else(String::new, |mhz: f64| format!("tsc_early_khz={:.0} tsc=reliable ", mhz * 1000.0));
    format!("{clock}no_timer_check reboot=t")
}

/// Sends each heartbeat back, as AWS's tools do on a parent.
fn answer_heartbeats(socket: &Path) -> Arc<AtomicU32> {
    let listener = UnixListener::bind(socket).expect("a socket can be made");
    let beats = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&beats);
    // Until the test program ends.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if answer(stream).is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    beats
}

fn answer(mut stream: UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut beat = [0];
    stream.read_exact(&mut beat)?;
    assert_eq!(beat, [HEARTBEAT]);
    stream.write_all(&beat)?;
    // It hangs up when it has read the answer.
    stream.read(&mut beat).map(drop)
}
