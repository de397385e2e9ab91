//! What a test does to the circumstances of an enclave for development while it runs: the enclave dials the test, which then tells it what
//! shall be, one line of JSON each, and hears in a line when it is so. A release image has nothing that listens to anybody about such things.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use casemate_enclave::supervisor::memory::Memory;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use serde::{Deserialize, Serialize};

/// Where the host of a development image listens.
pub const PORT: u32 = 7101;
/// The answer to what was done. Any other line says why it was not.
const DONE: &str = "done";
/// How long the enclave may take to dial, and to do as it was told.
const PATIENCE: Duration = Duration::from_mins(1);
/// Memory is taken in pieces of this.
const PIECE_BYTES: usize = 1 << 20;

/// What shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circumstance {
    /// The kernel's clock says this, milliseconds since the Unix epoch, and goes on from there. For a machine of the enclave's own.
    KernelClock(u64),
    /// More than so many percent of the machine's memory are in use; zero gives back what was taken. For a machine of the enclave's own.
    MemoryUsed(u8),
    /// So many seconds pass at once, for the enclave and for its security module.
    TimePassed(u64),
    /// The security module refuses everything, or does so no more.
    ModuleFailing(bool),
}

/// Sets the kernel's clock, of the whole machine.
///
/// # Errors
/// When the kernel does not let us.
pub fn set_kernel_clock(unix_ms: u64) -> io::Result<()> {
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(Duration::from_millis(unix_ms)))?)
}

/// Memory that nobody uses and nobody else can have: a file of no folder, since a heap keeps what it once had.
#[derive(Debug, Default)]
pub struct Taken(Option<File>);

impl Taken {
    /// Takes of the machine's memory until more than `percent` of it are in use, as the supervisor counts them; zero gives all back.
    ///
    /// # Errors
    /// When the kernel has no more, or does not tell how much there is.
    pub fn take(&mut self, percent: u8) -> io::Result<()> {
        self.0 = None;
        if percent == 0 {
            return Ok(());
        }
        let piece = vec![1; PIECE_BYTES];
        let file = self.0.insert(File::from(memfd_create(c"taken", MFdFlags::MFD_CLOEXEC)?));
        loop {
            let memory = Memory::sample()?;
            if (memory.total - memory.available) * 100 > memory.total * u64::from(percent) {
                return Ok(());
            }
            file.write_all(&piece)?;
        }
    }
}

/// Does what the test says at the other end of what `dial` gives, on a thread of its own, until the test hangs up; where no test listens,
/// nothing. To be called when the zygote is there, which is made while the process has one thread and no more descriptors than it needs.
pub fn obey<S: Read + Write>(
    dial: impl FnOnce() -> io::Result<S> + Send + 'static,
    mut bring_about: impl FnMut(Circumstance) -> io::Result<()> + Send + 'static,
) {
    thread::spawn(move || {
        let Ok(connection) = dial() else { return };
        let mut connection = BufReader::new(connection);
        let mut line = String::new();
        while connection.read_line(&mut line).is_ok_and(|len| len > 0) {
            let told = serde_json::from_str(&line).map_err(io::Error::other);
            let answer = told.and_then(&mut bring_about).map_or_else(|error| error.to_string(), |()| DONE.to_owned());
            if connection.get_mut().write_all(format!("{answer}\n").as_bytes()).is_err() {
                break;
            }
            line.clear();
        }
    });
}

/// The refusal of what this enclave has no means for.
///
/// # Errors
/// Always.
pub fn cannot(circumstance: Circumstance) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("{circumstance:?} is not for this enclave")))
}

/// The test's end: one enclave, which dials a socket.
#[derive(Debug)]
pub struct Director {
    listener: UnixListener,
    enclave: Mutex<Option<BufReader<UnixStream>>>,
}

impl Director {
    /// Listens at `socket`, where nothing may be yet.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(socket: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, enclave: Mutex::new(None) })
    }

    /// Has the enclave bring this about, and returns when it has.
    ///
    /// # Errors
    /// When it does not dial, does not answer, or cannot.
    pub fn bring_about(&self, circumstance: Circumstance) -> io::Result<()> {
        let mut enclave = self.enclave.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *enclave {
            Some(connection) => connection,
            none => none.insert(BufReader::new(self.accept()?)),
        };
        connection.get_mut().write_all(format!("{}\n", serde_json::to_string(&circumstance)?).as_bytes())?;
        let mut answer = String::new();
        connection.read_line(&mut answer)?;
        if answer.trim_end() == DONE { Ok(()) } else { Err(io::Error::other(format!("the enclave says: {answer}"))) }
    }

    fn accept(&self) -> io::Result<UnixStream> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enclave_does_what_it_is_told_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let director = Director::listen(&socket).unwrap();
        let heard = std::sync::Arc::new(Mutex::new(Vec::new()));
        let hears = std::sync::Arc::clone(&heard);
        obey(
            || UnixStream::connect(socket),
            move |circumstance| {
                hears.lock().unwrap().push(circumstance);
                if circumstance == Circumstance::TimePassed(7) { Ok(()) } else { cannot(circumstance) }
            },
        );
        director.bring_about(Circumstance::TimePassed(7)).unwrap();
        let refused = director.bring_about(Circumstance::ModuleFailing(true)).unwrap_err().to_string();
        assert!(refused.contains("ModuleFailing(true) is not for this enclave"), "{refused}");
        assert_eq!(*heard.lock().unwrap(), [Circumstance::TimePassed(7), Circumstance::ModuleFailing(true)]);
    }
}
