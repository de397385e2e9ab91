//! The first words of a connection: which protocol versions the dialling side speaks and what the connection is for, so that
//! parent and image can be upgraded apart.
//!
//! On the wire: `u32 BE length ‖ CBOR`, at most [`HELLO_BYTES`], each way once.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use casemate_protocol::codec::{self, DecodeError};
use casemate_protocol::link::{HELLO_BYTES, Hello, HelloReply, LINK_MAX, LINK_MIN};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest wait for the whole exchange of one message. A peer that says nothing must not hold a connection.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection did not begin.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The other side took longer than [`HELLO_TIMEOUT`].
    #[error("the other side of the link did not say hello within 5 s; check that both ends are of this project")]
    Deadline,
    /// The connection failed.
    #[error("the link failed during hello: {0}")]
    Io(#[from] io::Error),
    /// A length over [`HELLO_BYTES`].
    #[error(
        "the other side of the link announced a hello of {0} bytes, at most 1024 are allowed; something else listens there"
    )]
    TooLarge(u32),
    /// Not a hello.
    #[error("the other side's hello was not understood: {0}")]
    Malformed(#[from] DecodeError),
    /// The other side refused, in its own words (shortened).
    #[error("the other side of the link refused: {0}")]
    Refused(String),
    /// No version in common.
    #[error("the two sides of the link speak no common version; upgrade the older one")]
    Version,
}

/// The newest version that both sides speak.
pub fn negotiate(ours: RangeInclusive<u16>, theirs: RangeInclusive<u16>) -> Option<u16> {
    let newest = (*ours.end()).min(*theirs.end());
    let oldest = (*ours.start()).max(*theirs.start());
    (oldest <= newest).then_some(newest)
}

/// Says hello and takes the reply, which names a version that this build speaks.
///
/// # Errors
/// See [`HelloError`].
pub async fn dial_hello<S>(mut stream: S, hello: &Hello) -> Result<(S, HelloReply), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(write(&mut stream, &codec::encode(hello))).await?;
    let reply: HelloReply = codec::decode(&within(read(&mut stream)).await?, HELLO_BYTES)?;
    if let Some(why) = &reply.refused {
        return Err(HelloError::Refused(why.chars().filter(|c| !c.is_control()).take(200).collect()));
    }
    match reply.version {
        Some(version) if (LINK_MIN..=LINK_MAX).contains(&version) => Ok((stream, reply)),
        _ => Err(HelloError::Version),
    }
}

/// Takes the other side's hello; it is answered with [`answer_hello`].
///
/// # Errors
/// See [`HelloError`].
pub async fn accept_hello<S>(mut stream: S) -> Result<(S, Hello), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = codec::decode(&within(read(&mut stream)).await?, HELLO_BYTES)?;
    Ok((stream, hello))
}

/// Answers a hello: with the version that both speak, or with `refused`.
///
/// # Errors
/// [`HelloError::Refused`] when it was refused, [`HelloError::Version`] when no version is common (the other side was told); see
/// [`HelloError`] for the rest.
pub async fn answer_hello<S>(mut stream: S, hello: &Hello, build: &str, refused: Option<&str>) -> Result<S, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let version = negotiate(LINK_MIN..=LINK_MAX, hello.min..=hello.max);
    let refused = match (refused, version) {
        (Some(why), _) => Some(why.to_owned()),
        (None, None) => Some(format!(
            "this side speaks link versions {LINK_MIN} to {LINK_MAX}, yours speaks {} to {}; upgrade the older one",
            hello.min, hello.max
        )),
        (None, Some(_)) => None,
    };
    let accepted = version.filter(|_| refused.is_none());
    let reply = HelloReply { version: accepted, build: build.to_owned(), refused: refused.clone() };
    within(write(&mut stream, &codec::encode(&reply))).await?;
    match (accepted, refused) {
        (Some(_), _) => Ok(stream),
        (None, Some(why)) if version.is_some() => Err(HelloError::Refused(why)),
        (None, _) => Err(HelloError::Version),
    }
}

async fn within<T>(exchange: impl Future<Output = Result<T, HelloError>>) -> Result<T, HelloError> {
    tokio::time::timeout(HELLO_TIMEOUT, exchange).await.map_err(|_| HelloError::Deadline)?
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), HelloError> {
    let len = u32::try_from(body.len()).ok().filter(|len| *len as usize <= HELLO_BYTES);
    let len = len.ok_or(HelloError::TooLarge(u32::MAX))?;
    let mut message = Vec::with_capacity(4 + body.len());
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message).await?;
    stream.flush().await?;
    Ok(())
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HelloError> {
    let len = stream.read_u32().await?;
    // Before allocation: the length is the other side's word.
    if len as usize > HELLO_BYTES {
        return Err(HelloError::TooLarge(len));
    }
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_protocol::link::Class;

    fn hello(min: u16, max: u16) -> Hello {
        Hello { min, max, build: "test".to_owned(), boot_id: [1; 16], class: Class::Control, relay: None }
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let cases = [
            (1..=1, 1..=1, Some(1)),
            (1..=3, 2..=5, Some(3)),
            (2..=5, 1..=3, Some(3)),
            (1..=2, 3..=4, None),
            (3..=4, 1..=2, None),
            // A range that is none.
            (1..=4, RangeInclusive::new(3, 2), None),
        ];
        for (ours, theirs, version) in cases {
            assert_eq!(negotiate(ours.clone(), theirs.clone()), version, "{ours:?} {theirs:?}");
        }
    }

    #[tokio::test]
    async fn both_ends_agree_and_nothing_is_read_beyond_the_hello() {
        let (here, there) = tokio::io::duplex(4096);
        let dialling = tokio::spawn(async move { dial_hello(here, &hello(1, 9)).await });
        let (there, heard) = accept_hello(there).await.unwrap();
        assert_eq!(heard, hello(1, 9));
        let mut there = answer_hello(there, &heard, "parent", None).await.unwrap();
        there.write_all(b"raw").await.unwrap();
        let (mut here, reply) = dialling.await.unwrap().unwrap();
        assert_eq!((reply.version, reply.build.as_str()), (Some(1), "parent"));
        let mut raw = [0; 3];
        here.read_exact(&mut raw).await.unwrap();
        assert_eq!(&raw, b"raw");
    }

    #[tokio::test]
    async fn refusals_reach_the_dialler() {
        for (offer, refused) in [(hello(7, 9), None), (hello(1, 1), Some("already there"))] {
            let (here, there) = tokio::io::duplex(4096);
            let dialling = tokio::spawn(async move { dial_hello(here, &offer).await });
            let (there, heard) = accept_hello(there).await.unwrap();
            assert!(answer_hello(there, &heard, "parent", refused).await.is_err());
            assert!(matches!(dialling.await.unwrap(), Err(HelloError::Refused(_))));
        }
    }

    #[tokio::test]
    async fn a_stranger_is_refused_before_memory_is_spent() {
        let (mut here, there) = tokio::io::duplex(64);
        here.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(matches!(accept_hello(there).await, Err(HelloError::TooLarge(_))));
        let (mut here, there) = tokio::io::duplex(64);
        here.write_all(&[0, 0, 0, 2, 0xff, 0xff]).await.unwrap();
        assert!(matches!(accept_hello(there).await, Err(HelloError::Malformed(_))));
    }
}
