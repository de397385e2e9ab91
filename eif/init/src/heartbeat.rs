//! Tells the parent's Nitro tools that the enclave has started: a byte to a port of theirs, which they send back. Until then they wait, and
//! without it they stop the enclave.
//!
//! As `enclave_ready` does in AWS's own init (aws-nitro-enclaves-sdk-bootstrap, `init/init.c`), but tried more than once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

/// The parent instance, as every enclave sees it.
const PARENT: u32 = 3;
const PORT: u32 = 9000;
const BEAT: u8 = 0xB7;
/// The kernel gives up dialling after two seconds.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE_SECONDS: i64 = 5;

/// Nobody wants to know.
#[derive(Debug, thiserror::Error)]
#[error("the parent does not answer the heartbeat (vsock {PARENT}:{PORT}): {0}")]
pub(crate) struct HeartbeatError(io::Error);

/// Beats until it is heard.
pub(crate) fn beat() -> Result<(), HeartbeatError> {
    let mut attempt = 1;
    loop {
        match dial().and_then(exchange) {
            Ok(()) => return Ok(()),
            Err(error) if attempt == ATTEMPTS => return Err(HeartbeatError(error)),
            Err(_) => thread::sleep(PAUSE),
        }
        attempt += 1;
    }
}

fn dial() -> io::Result<File> {
    let fd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::seconds(PATIENCE_SECONDS);
    setsockopt(&fd, SendTimeout, &patience)?;
    setsockopt(&fd, ReceiveTimeout, &patience)?;
    connect(fd.as_raw_fd(), &VsockAddr::new(PARENT, PORT))?;
    Ok(File::from(fd))
}

fn exchange(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(&[BEAT])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer == [BEAT] { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it sent another byte back")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What init makes of a parent that reads the beat and answers `answer`.
    fn with_parent(answer: &'static [u8]) -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let parent = thread::spawn(move || {
            let mut heard = [0];
            theirs.read_exact(&mut heard).unwrap();
            theirs.write_all(answer).unwrap();
            heard
        });
        let result = exchange(ours);
        assert_eq!(parent.join().unwrap(), [0xB7]);
        result
    }

    #[test]
    fn only_the_same_byte_is_an_answer() {
        with_parent(&[0xB7]).unwrap();
        assert_eq!(with_parent(&[0xB6]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(with_parent(&[]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
