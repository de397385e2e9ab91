//! What an enclave for development is told at its start when it is an image, which has no arguments and no files of its own: read from the
//! host, once, before anything else. A release image reads nothing but the link.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use data_encoding::BASE64;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};

/// Where the host hands them out.
pub const PORT: u32 = 7100;
/// The parent instance, as every enclave sees it.
const PARENT: u32 = 3;
/// Longest settings that are read.
const BYTES: u64 = 64 * 1024;
const PATIENCE_SECONDS: i64 = 10;
/// The files of a development authority that an enclave needs.
const FILES: [&str; 5] = ["root.der", "region.der", "zone.der", "instance.der", "issuing-key.pem"];

/// The settings, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The stand-in KMS, HOST:PORT.
    pub kms_endpoint: String,
    /// Its CA certificate, DER in base64.
    kms_ca: String,
    /// The development authority's files by name, in base64.
    authority: Vec<(String, String)>,
}

impl Settings {
    /// Settings of this authority and this stand-in KMS.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(authority: &Path, kms_endpoint: &str, kms_ca: &Path) -> io::Result<Self> {
        let read = |path: &Path| Ok::<_, io::Error>(BASE64.encode(&fs::read(path)?));
        let files = FILES.iter().map(|name| Ok(((*name).to_owned(), read(&authority.join(name))?)));
        Ok(Self {
            kms_endpoint: kms_endpoint.to_owned(),
            kms_ca: read(kms_ca)?,
            authority: files.collect::<io::Result<_>>()?,
        })
    }

    /// Asks the host for them.
    ///
    /// # Errors
    /// When the host does not answer, or with something else.
    pub fn fetch() -> io::Result<Self> {
        let host = dial_host(PORT)?;
        setsockopt(&host, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        let mut json = Vec::new();
        host.take(BYTES).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Writes the authority's files into `directory`, which must not be there yet.
    ///
    /// # Errors
    /// When they are not base64, or cannot be written.
    pub fn unpack(&self, directory: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(directory)?;
        for (name, text) in &self.authority {
            if FILES.contains(&name.as_str()) {
                fs::write(directory.join(name), decoded(text)?)?;
            }
        }
        Ok(())
    }

    /// The CA certificate of the stand-in KMS, DER.
    ///
    /// # Errors
    /// When it is not base64.
    pub fn kms_ca(&self) -> io::Result<Vec<u8>> {
        decoded(&self.kms_ca)
    }
}

/// Dials the host of this machine.
///
/// # Errors
/// When nobody listens there.
pub fn dial_host(port: u32) -> io::Result<File> {
    let fd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, SendTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
    connect(fd.as_raw_fd(), &VsockAddr::new(PARENT, port))?;
    Ok(File::from(fd))
}

fn decoded(text: &str) -> io::Result<Vec<u8>> {
    BASE64.decode(text.as_bytes()).map_err(io::Error::other)
}
