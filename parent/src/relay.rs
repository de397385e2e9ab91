//! The TCP relay: carries the enclave's TLS connections to the key service, and to nowhere else.
//!
//! TLS ends in the enclave. The parent sees and could change every byte; all that it decides is where bytes may go, so that an
//! image that was taken over could not call home.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_link::{HelloError, answer_hello};
use casemate_protocol::link::Hello;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{HostPort, Kms};
use crate::enclave::BUILD;

/// Relays at the same time; the enclave pools its connections and needs a handful.
const RELAYS: usize = 64;
/// Longest wait for a TCP connection, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A relay over which nothing comes for so long is cut.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
const BUFFER_BYTES: usize = 16 * 1024;

/// Relays to an allow-list.
#[derive(Debug)]
pub struct Relay {
    kms: Kms,
    places: Arc<Semaphore>,
    idle: Duration,
}

/// Why a connection is not relayed; the enclave is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// Not on the allow-list.
    #[error("{0} is not in kms.allow of this parent")]
    NotAllowed(String),
    /// Too many.
    #[error("{RELAYS} connections are relayed already")]
    Busy,
    /// It cannot be reached.
    #[error("{target} cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        target: String,
        /// Why.
        reason: String,
    },
}

impl Relay {
    /// A relay to what the configuration allows.
    pub fn new(kms: Kms) -> Self {
        Self { kms, places: Arc::new(Semaphore::new(RELAYS)), idle: IDLE_TIMEOUT }
    }

    /// The allowed target that a hello names. Exact: neither other ports nor subdomains.
    fn target(&self, hello: &Hello) -> Result<HostPort, RelayError> {
        let asked = hello.relay.as_ref();
        let shown = || asked.map_or_else(|| "nothing".to_owned(), |asked| format!("{}:{}", asked.host, asked.port));
        let target = asked.and_then(|asked| HostPort::new(&asked.host, asked.port));
        target
            .filter(|target| self.kms.allow.contains(target))
            .ok_or_else(|| RelayError::NotAllowed(shown().chars().filter(char::is_ascii_graphic).take(100).collect()))
    }

    async fn dial(&self, target: &HostPort) -> Result<TcpStream, RelayError> {
        let unreachable = |reason: String| RelayError::Unreachable { target: target.to_string(), reason };
        let elsewhere: Option<SocketAddr> =
            self.kms.dial.iter().find(|(name, _)| name == target).map(|(_, address)| *address);
        let connecting = async {
            match elsewhere {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect((target.host.as_str(), target.port)).await,
            }
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        // TLS handshakes are ping-pong: waiting to fill a segment only delays them.
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        Ok(stream)
    }

    /// How long a connection to the first allowed target takes. Nothing is sent over it.
    ///
    /// # Errors
    /// In words.
    pub async fn reach(&self, within: Duration) -> Result<Duration, String> {
        let Some(target) = self.kms.allow.first() else { return Err("kms.allow is empty".to_owned()) };
        let begun = std::time::Instant::now();
        match tokio::time::timeout(within, self.dial(target)).await {
            Ok(Ok(_stream)) => Ok(begun.elapsed()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("{target} takes no connection within {} s", within.as_secs())),
        }
    }

    /// Answers a relay's hello and carries its bytes until one side ends.
    ///
    /// # Errors
    /// See [`HelloError`]; also when the relay was refused.
    pub async fn serve<S>(&self, stream: S, hello: &Hello) -> Result<(), HelloError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let dialled = match (self.target(hello), &place) {
            (Err(error), _) => Err(error),
            (Ok(_), Err(_)) => Err(RelayError::Busy),
            (Ok(target), Ok(_)) => self.dial(&target).await,
        };
        match dialled {
            Ok(outside) => {
                let stream = answer_hello(stream, hello, BUILD, None).await?;
                counter!("casemate_relay_connections_total", "outcome" => "relayed").increment(1);
                carry(stream, outside, self.idle).await;
                Ok(())
            }
            Err(error) => {
                let outcome = match error {
                    RelayError::NotAllowed(_) => "not_allowed",
                    RelayError::Busy => "busy",
                    RelayError::Unreachable { .. } => "unreachable",
                };
                counter!("casemate_relay_connections_total", "outcome" => outcome).increment(1);
                answer_hello(stream, hello, BUILD, Some(&error.to_string())).await.map(drop)
            }
        }
    }
}

/// Carries bytes both ways until both directions have ended, one has failed, or nothing came for `idle`.
async fn carry<A, B>(inside: A, outside: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let begun = Instant::now();
    let last = AtomicU64::new(0);
    let (inside_read, inside_write) = tokio::io::split(inside);
    let (outside_read, outside_write) = tokio::io::split(outside);
    let watch = async {
        loop {
            let quiet_since = begun + Duration::from_millis(last.load(Ordering::Relaxed));
            if quiet_since.elapsed() >= idle {
                return;
            }
            tokio::time::sleep_until(quiet_since + idle).await;
        }
    };
    tokio::select! {
        _ended = async {
            tokio::try_join!(
                one_way(inside_read, outside_write, begun, &last, "out"),
                one_way(outside_read, inside_write, begun, &last, "in"),
            )
        } => {}
        () = watch => tracing::debug!("an idle relay was cut"),
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    begun: Instant,
    last: &AtomicU64,
    direction: &'static str,
) -> std::io::Result<()> {
    let bytes = counter!("casemate_relay_bytes_total", "direction" => direction);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        bytes.increment(read as u64);
        last.store(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_link::dial_hello;
    use casemate_protocol::link::{Class, LINK_MAX, LINK_MIN, RelayTarget};
    use tokio::net::TcpListener;

    fn hello(host: &str, port: u16) -> Hello {
        let relay = Some(RelayTarget { host: host.to_owned(), port });
        Hello { min: LINK_MIN, max: LINK_MAX, build: "t".to_owned(), boot_id: [0; 16], class: Class::Relay, relay }
    }

    fn relay(address: SocketAddr) -> Relay {
        let allowed = HostPort::new("kms.example.com", 443).unwrap();
        Relay {
            idle: Duration::from_millis(200),
            ..Relay::new(Kms { allow: vec![allowed.clone()], dial: vec![(allowed, address)] })
        }
    }

    #[test]
    fn the_allow_list_is_exact() {
        let relay = relay("127.0.0.1:1".parse().unwrap());
        for (host, port) in [("kms.example.com", 443), ("KMS.example.com", 443)] {
            assert!(relay.target(&hello(host, port)).is_ok());
        }
        for (host, port) in [
            ("kms.example.com", 80),
            ("example.com", 443),
            ("a.kms.example.com", 443),
            ("kms.example.com.", 443),
            ("169.254.169.254", 80),
            ("", 443),
            ("kms.example.com\0.evil", 443),
        ] {
            assert!(matches!(relay.target(&hello(host, port)), Err(RelayError::NotAllowed(_))), "{host}:{port}");
        }
        assert!(relay.target(&Hello { relay: None, ..hello("x", 1) }).is_err());
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_silence_ends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Arc::new(relay(listener.local_addr().unwrap()));
        let (here, there) = tokio::io::duplex(1024);
        let serving = Arc::clone(&relay);
        let served = tokio::spawn(async move {
            let hello = hello("kms.example.com", 443);
            let (there, _) = casemate_link::accept_hello(there).await.unwrap();
            serving.serve(there, &hello).await
        });
        let (mut here, _) = dial_hello(here, &hello("kms.example.com", 443)).await.unwrap();
        let (mut outside, _) = listener.accept().await.unwrap();
        here.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        outside.read_exact(&mut bytes).await.unwrap();
        outside.write_all(b"pong").await.unwrap();
        here.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"pong");
        // Nobody says anything any more.
        assert_eq!(here.read(&mut bytes).await.unwrap(), 0);
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_not_reached_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let relay = relay(address);
        for (host, word) in [("kms.example.com", "cannot be reached"), ("evil.example.com", "not in kms.allow")] {
            let (here, there) = tokio::io::duplex(1024);
            let asked = hello(host, 443);
            let (dialled, served) = tokio::join!(dial_hello(here, &asked), async {
                let (there, heard) = casemate_link::accept_hello(there).await.unwrap();
                relay.serve(there, &heard).await
            });
            assert!(served.is_err());
            let Err(HelloError::Refused(why)) = dialled else { panic!("refused") };
            assert!(why.contains(word), "{why}");
        }
        assert!(relay.reach(Duration::from_secs(2)).await.unwrap_err().contains("kms.example.com:443"));
        let again = TcpListener::bind(address).await.unwrap();
        relay.reach(Duration::from_secs(2)).await.unwrap();
        drop(again);
    }
}
