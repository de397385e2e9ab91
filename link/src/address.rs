//! Where the link is: a Unix socket for the local run and tests, vsock between a Nitro enclave and its parent.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::stream::Stream;

/// An end of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix stream socket: `unix:/path`.
    Unix(PathBuf),
    /// A vsock port: `vsock:CID:PORT`; the CID `any` to listen on every one.
    Vsock {
        /// Context id: 3 is the parent as an enclave sees it.
        cid: u32,
        /// Port.
        port: u32,
    },
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a link address is `unix:/absolute/path` or `vsock:CID:PORT` (for example `vsock:3:5000`), found {0:?}")]
pub struct InvalidAddress(pub String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.chars().take(200).collect());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Self::Unix(path))
            } else {
                Err(invalid())
            };
        }
        let (cid, port) = text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')).ok_or_else(invalid)?;
        let cid = if cid == "any" { VMADDR_CID_ANY } else { cid.parse().map_err(|_| invalid())? };
        Ok(Self::Vsock { cid, port: port.parse().map_err(|_| invalid())? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: VMADDR_CID_ANY, port } => write!(f, "vsock:any:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

/// Dials an address. The caller bounds the wait: vsock takes seconds to give up on a peer that is not there.
///
/// # Errors
/// As connect(2).
pub async fn connect(address: &Address) -> io::Result<Stream> {
    Ok(match address {
        Address::Unix(path) => Stream::unix(UnixStream::connect(path).await?)?,
        Address::Vsock { cid, port } => Stream::vsock(VsockStream::connect(VsockAddr::new(*cid, *port)).await?)?,
    })
}

/// Who dialled, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process of this user on this machine.
    Unix {
        /// Its user id.
        uid: u32,
    },
    /// A virtual machine or enclave.
    Vsock {
        /// Its context id.
        cid: u32,
    },
}

/// Takes connections at an address.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Unix(UnixListener),
    Vsock(VsockListener),
}

impl Listener {
    /// Listens at `address`. A Unix socket is open to its own user alone (mode 0600) from the moment its name exists, and takes
    /// the place of a socket at which nobody listens any more.
    ///
    /// # Errors
    /// As bind(2); `AddrInUse` also when something else than a dead socket has that name.
    pub fn bind(address: &Address) -> io::Result<Self> {
        Ok(Self(match address {
            Address::Unix(path) => Kind::Unix(bind_unix(path)?),
            Address::Vsock { cid, port } => Kind::Vsock(VsockListener::bind(VsockAddr::new(*cid, *port))?),
        }))
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        Ok(match &self.0 {
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                (Stream::unix(stream)?, Peer::Unix { uid })
            }
            Kind::Vsock(listener) => {
                let (stream, address) = listener.accept().await?;
                (Stream::vsock(stream)?, Peer::Vsock { cid: address.cid() })
            }
        })
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let in_use = |why: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{} {why}", path.display()));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(in_use("is there and is no socket; remove it")),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(in_use("is in use by a running process; stop that first")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound inside a folder that only we can enter and then renamed: the socket never exists with a wider mode, and the
    // process-wide umask stays as it is.
    let folder = path.parent().unwrap_or(Path::new("/")).join(format!(".{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let inside = folder.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    if bound.is_err() {
        // Nothing hangs on it: the first error is the one to tell.
        drop(fs::remove_file(&inside));
    }
    drop(fs::remove_dir(&folder));
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn texts() {
        for text in ["unix:/run/casemate/link.sock", "vsock:3:5000", "vsock:any:5000"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in
            ["", "unix:", "unix:relative", "unix:/", "vsock:3", "vsock:3:", "vsock:-1:5", "vsock:3:4294967296", "tcp:1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn unix_is_private_and_replaces_only_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.sock");
        let address = Address::Unix(path.clone());
        let listener = Listener::bind(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        assert_eq!(Listener::bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut dialled = connect(&address).await.unwrap();
        // The probe of the second bind comes first.
        drop(listener.accept().await.unwrap());
        let (mut accepted, peer) = listener.accept().await.unwrap();
        assert!(matches!(peer, Peer::Unix { .. }));
        dialled.write_all(b"x").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');

        // Moving to another runtime loses nothing.
        let mut dialled = dialled.detach().attach().unwrap();
        dialled.write_all(b"y").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'y');

        drop(listener);
        drop(Listener::bind(&address).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(Listener::bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
