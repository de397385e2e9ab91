//! The words that devices, parents and enclaves speak.
//!
//! No I/O happens here: subjects, identifiers, frames, requests, replies, error codes and limits are plain values with one byte
//! representation each, and the session is a machine that turns bytes into bytes. Whoever owns a socket feeds it.
//!
//! Everything that takes bytes from outside checks a limit before it allocates.

pub mod codec;
pub mod error;
pub mod frame;
pub mod fuzz;
pub mod head;
pub mod health;
pub mod id;
pub mod label;
pub mod limits;
pub mod link;
pub mod lock;
pub mod object;
pub mod padding;
pub mod path;
pub mod record;
pub mod reply;
pub mod request;
pub mod resident;
pub mod secret;
pub mod session;
pub mod stage;
pub mod statement;
pub mod subject;
pub mod trust;
pub mod window;
pub mod wipe;

/// The version of everything on the wire: frames, session and object format. It names the handshake, so that another handshake
/// (a post-quantum hybrid) is another version.
pub const PROTOCOL_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    /// Golden messages: see `goldens.rs`.
    pub(crate) fn goldens() -> Vec<(&'static str, Vec<u8>)> {
        super::goldens::all()
    }
}

#[cfg(test)]
mod goldens;
