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

use casemate_dev::circumstances::{self, Director};
use casemate_dev::settings;
use nix::sys::signal::Signal;

use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(30);
/// What the guest may send before it hears from us: less than 32 KiB, up to which its kernel sends a packet in one piece. The device drops
/// packets in several, without a word.
const CREDIT_BYTES: &str = "24576";
/// The process, and with it the log that the console goes to.
const MACHINE: &str = "enclave";
const MEMORY_MIB: u32 = 1024;
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
    /// The enclave image. What its builder wrote of it lies beside it.
    pub image: PathBuf,
    /// Memory of the machine.
    pub memory_mib: u32,
    /// What the machine's clock says at the start, `2020-01-01T00:00:00`; without it the time. Its security module has a clock of its own.
    pub clock: Option<&'static str>,
}

impl Emulation {
    /// The image that ships, as `CASEMATE_EMULATOR` and `CASEMATE_IMAGE` say; nothing when they do not.
    pub fn of_release_image() -> Option<Self> {
        Self::of("CASEMATE_IMAGE")
    }

    /// The image with a development enclave, as `CASEMATE_EMULATOR` and `CASEMATE_TEST_IMAGE` say.
    pub fn of_test_image() -> Option<Self> {
        Self::of("CASEMATE_TEST_IMAGE")
    }

    /// The same for every node that is not told otherwise, when `CASEMATE_IN_GUEST` is set.
    pub fn of_every_node() -> Option<Self> {
        std::env::var_os("CASEMATE_IN_GUEST").and_then(|_| Self::of_test_image())
    }

    fn of(image: &str) -> Option<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Some(Self { emulator: path("CASEMATE_EMULATOR")?, image: path(image)?, memory_mib: MEMORY_MIB, clock: None })
    }

    /// The file of its measurements.
    pub fn summary(&self) -> PathBuf {
        let mut path = self.image.clone().into_os_string();
        path.push(".pcrs.json");
        path.into()
    }
}

/// Whether every node's enclave is a machine of its own, whose processes nobody sees from outside. That is said aloud: the test ends here.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub fn hides_processes() -> bool {
    let hidden = Emulation::of_every_node().is_some();
    if hidden {
        println!("! skipped: the enclave's processes are in a machine of their own");
    }
    hidden
}

/// A running machine's link to the outside. The machine's vsock ends with it.
#[derive(Debug)]
pub struct Vsock {
    device: Process,
    beats: Arc<AtomicU32>,
    /// Changes the machine's circumstances, if its image is one for development.
    pub(crate) director: Director,
}

impl Vsock {
    /// How often init has told that it lives, and was answered.
    pub fn heartbeats(&self) -> u32 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Carries nothing any more, or goes on.
    pub fn cut(&self, cut: bool) {
        self.device.signal(if cut { Signal::SIGSTOP } else { Signal::SIGCONT });
    }
}

/// Starts a machine; what its console says is appended to the log of the process. The machine's files lie in `folder`, which must be new;
/// the enclave finds its parent behind the socket `link`, and its settings, if its image asks for any.
///
/// # Panics
/// When it does not start.
pub fn start(
    emulation: &Emulation,
    folder: &Path,
    logs: &Path,
    link: &Path,
    settings: Option<String>,
) -> (Process, Vsock) {
    fs::create_dir(folder).expect("a folder can be made");
    let port = |number: u32| folder.join(format!("vsock_{number}"));
    symlink(link, port(LINK_PORT)).expect("a link can be made");
    let beats = answer_heartbeats(&port(HEARTBEAT_PORT));
    if let Some(settings) = settings {
        hand_out(&port(settings::PORT), settings);
    }
    let director = Director::listen(&port(circumstances::PORT)).expect("a socket can be made");
    let socket = folder.join("device");
    let mut device = Process::start(
        "vsock",
        folder,
        Command::new(emulation.emulator.join("vhost-device-vsock"))
            .args(["--guest-cid", "16", "--tx-buffer-size", CREDIT_BYTES, "--socket"])
            .arg(&socket)
            .arg("--uds-path")
            .arg(folder.join("vsock")),
    );
    device.await_ready(PATIENCE, "it made its socket", |_| socket.exists().then_some(()));
    let memory = format!("{}M", emulation.memory_mib);
    let mut machine = Command::new(emulation.emulator.join("qemu-system-x86_64"));
    if let Some(clock) = emulation.clock {
        machine.args(["-rtc", &format!("base={clock}")]);
    }
    let machine = Process::start(
        MACHINE,
        logs,
        machine
            .arg("-L")
            .arg(&emulation.emulator)
            .args(["-M", "nitro-enclave,vsock=vsock,id=casemate", "-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", "2", "-m", &memory, "-no-reboot", "-display", "none", "-monitor", "none"])
            .args(["-append", &command_line()])
            .arg("-chardev")
            .arg(format!("socket,id=vsock,path={}", socket.display()))
            .arg("-chardev")
            .arg(format!("file,id=console,append=on,path={}", logs.join(MACHINE).with_extension("log").display()))
            .args(["-serial", "chardev:console"])
            .arg("-kernel")
            .arg(&emulation.image),
    );
    (machine, Vsock { device, beats, director })
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

/// Gives an enclave for development its settings.
fn hand_out(socket: &Path, settings: String) {
    let listener = UnixListener::bind(socket).expect("a socket can be made");
    // Until the test program ends.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who hangs up early asks again.
            let _ = stream.write_all(settings.as_bytes());
        }
    });
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
