//! The enclave's ends of the link: dialled, and dialled again for ever.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_link::{Address, CloseReason, Connection, HelloError, Limits, Stream, connect, dial_hello};
use casemate_protocol::link::{Class, Hello, LINK_MAX, LINK_MIN, RelayTarget};

use super::backoff;
use crate::outside::Randomness;

/// How long a dial may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// Dials the parent.
#[derive(Debug)]
pub struct Dialler {
    address: Address,
    build: String,
    boot_id: [u8; 16],
    salt: u64,
    broken: AtomicU64,
}

impl Dialler {
    /// A dialler with a fresh boot id.
    pub fn new(address: Address, build: String, randomness: &dyn Randomness) -> Self {
        let (mut boot_id, mut salt) = ([0; 16], [0; 8]);
        randomness.fill(&mut boot_id);
        randomness.fill(&mut salt);
        Self { address, build, boot_id, salt: u64::from_ne_bytes(salt), broken: AtomicU64::new(0) }
    }

    /// How often the parent broke the rules of the link.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    /// Dials once and says hello.
    ///
    /// # Errors
    /// As the connection, or as the parent refuses.
    pub async fn dial(&self, class: Class, relay: Option<RelayTarget>) -> Result<Stream, HelloError> {
        let hello =
            Hello { min: LINK_MIN, max: LINK_MAX, build: self.build.clone(), boot_id: self.boot_id, class, relay };
        let late = || HelloError::Io(io::Error::from(io::ErrorKind::TimedOut));
        let stream = tokio::time::timeout(DIAL_DEADLINE, connect(&self.address)).await.map_err(|_| late())??;
        let answered = dial_hello(stream, &hello).await;
        if let Err(HelloError::TooLarge(_) | HelloError::Malformed(_) | HelloError::Version) = &answered {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answered?.0)
    }

    /// Keeps one connection of `class`, for ever: dials, hands it to `serve`, and dials anew when that has ended.
    pub async fn keep<S, F>(self: Arc<Self>, class: Class, mut serve: S)
    where
        S: FnMut(Connection) -> F,
        F: Future<Output = ()>,
    {
        let serve = |stream| {
            let connection = Connection::spawn(stream, Limits::of(class));
            let closed = connection.closed.clone();
            let served = serve(connection);
            async move {
                served.await;
                closed.reason()
            }
        };
        self.keep_stream(class, serve).await;
    }

    /// The same with the bare stream; `serve` tells why it ended.
    pub async fn keep_stream<S, F>(self: Arc<Self>, class: Class, mut serve: S)
    where
        S: FnMut(Stream) -> F,
        F: Future<Output = Option<CloseReason>>,
    {
        let mut attempt = 0;
        loop {
            match self.dial(class, None).await {
                Ok(stream) => {
                    let begun = tokio::time::Instant::now();
                    if serve(stream).await.is_some_and(CloseReason::is_violation) {
                        self.broken.fetch_add(1, Ordering::Relaxed);
                    }
                    // A connection that ends at once was no success.
                    if begun.elapsed() > backoff::LONGEST {
                        attempt = 0;
                    }
                }
                Err(error) => tracing::debug!(%error, ?class, "the link is not up"),
            }
            tokio::time::sleep(backoff::wait(attempt, self.salt ^ class as u64)).await;
            attempt = attempt.saturating_add(1);
        }
    }
}
