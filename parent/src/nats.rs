//! The connection to NATS: how it is made, and how it is known to work.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use futures_util::StreamExt;
use metrics::counter;
use tokio::time::MissedTickBehavior;

use crate::config::Nats;
use crate::state::NodeState;

/// Between round trips.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait before a reconnect; short, because clients wait with us.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Why NATS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// A file that is no longer readable, or not what it should be.
    #[error("{key} ({path}) cannot be used: {reason}")]
    File {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The connection cannot be made.
    #[error("NATS at {url} cannot be reached: {reason}; check nats.url, the credentials and TLS settings")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// No permission, or the connection is closed for good.
    #[error("a subscription to {subject} cannot be made: {reason}; check the permissions of this node's NATS user")]
    Subscribe {
        /// To what.
        subject: String,
        /// Why.
        reason: String,
    },
    /// A message did not come back.
    #[error("a message to {0} did not come back within 3 s; check the permissions of this node's NATS user")]
    Silent(String),
}

/// Whether to come back from a failed first connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The running parent starts without NATS and takes it when it comes.
    Retry,
    /// A check wants to know now.
    Fail,
}

/// Connects.
///
/// # Errors
/// See [`NatsError`].
pub async fn connect(config: &Nats, node: &str, state: &Arc<NodeState>, first: First) -> Result<Client, NatsError> {
    let mut options = ConnectOptions::new();
    if let Some(path) = &config.credentials_file {
        options = options.credentials_file(path).await.map_err(|error| file("nats.credentials_file", path, &error))?;
    }
    if let Some(path) = &config.nkey_file {
        let text = std::fs::read_to_string(path).map_err(|error| file("nats.nkey_file", path, &error))?;
        let seed = text.lines().map(str::trim).find(|line| line.starts_with('S'));
        let seed = seed.ok_or_else(|| file("nats.nkey_file", path, &"no line is an NKEY seed (they begin with S)"))?;
        options = options.nkey(seed.to_owned());
    }
    if let Some(path) = &config.tls_ca {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some((cert, key)) = &config.tls_identity {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    options = options
        .name(format!("casemate-parent {node}"))
        .subscription_capacity(config.subscription_capacity)
        .ping_interval(Duration::from_secs(20))
        .connection_timeout(Duration::from_secs(5))
        .reconnect_delay_callback(|attempt| {
            let attempt = u32::try_from(attempt).unwrap_or(u32::MAX).min(10);
            Duration::from_millis(20).saturating_mul(1 << attempt).min(RECONNECT_MAX)
        })
        .event_callback(events(Arc::clone(state)));
    if first == First::Retry {
        options = options.retry_on_initial_connect();
    }
    let servers: Vec<String> = config.url.split(',').map(|url| url.trim().to_owned()).collect();
    options
        .connect(servers)
        .await
        .map_err(|error| NatsError::Connect { url: config.url.clone(), reason: error.to_string() })
}

fn file(key: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> NatsError {
    NatsError::File { key, path: path.display().to_string(), reason: reason.to_string() }
}

type NoFuture = std::future::Ready<()>;

fn events(state: Arc<NodeState>) -> impl Fn(Event) -> NoFuture + Send + Sync + 'static {
    let connects = AtomicU64::new(0);
    move |event| {
        match event {
            Event::Connected => {
                let reconnects = connects.fetch_add(1, Ordering::Relaxed);
                if reconnects > 0 {
                    counter!("casemate_nats_reconnects_total").increment(1);
                }
                tracing::info!(reconnects, "connected to NATS");
                state.set_nats(true, reconnects);
            }
            Event::Disconnected | Event::Closed => {
                tracing::warn!("the connection to NATS ended; it is made anew");
                state.set_nats(false, connects.load(Ordering::Relaxed).saturating_sub(1));
            }
            Event::SlowConsumer(_) => {
                counter!("casemate_nats_slow_consumer_total").increment(1);
                state.slow_consumer();
            }
            Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
            Event::Draining => {}
            Event::ServerError(error) => tracing::warn!(%error, "the NATS server reported an error"),
            Event::ClientError(error) => tracing::debug!(%error, "the NATS client reported an error"),
        }
        std::future::ready(())
    }
}

/// Sends messages to itself through the server.
#[derive(Debug)]
pub struct Probe {
    client: Client,
    subject: String,
    subscriber: Subscriber,
    sent: u64,
}

impl Probe {
    /// A probe on this node's own subject.
    ///
    /// # Errors
    /// [`NatsError::Subscribe`].
    pub async fn new(client: Client, prefix: &str, node: &str) -> Result<Self, NatsError> {
        Self::at(client, format!("{prefix}.v1.node.{node}.probe")).await
    }

    /// A probe on a subject that nobody else's answers come to: two probes on one subject would take each other's numbers for their own.
    ///
    /// # Errors
    /// [`NatsError::Subscribe`].
    pub async fn at(client: Client, subject: String) -> Result<Self, NatsError> {
        let subscriber = subscribe(&client, &subject).await?;
        Ok(Self { client, subject, subscriber, sent: 0 })
    }

    /// One round trip.
    ///
    /// # Errors
    /// [`NatsError::Silent`].
    pub async fn round_trip(&mut self) -> Result<Duration, NatsError> {
        self.sent += 1;
        let payload = self.sent.to_be_bytes();
        let begun = Instant::now();
        let trip = async {
            self.client.publish(self.subject.clone(), payload.to_vec().into()).await.ok()?;
            loop {
                // Anybody may write here: only our own number counts.
                if self.subscriber.next().await?.payload == payload.as_slice() {
                    return Some(());
                }
            }
        };
        match tokio::time::timeout(PROBE_TIMEOUT, trip).await {
            Ok(Some(())) => Ok(begun.elapsed()),
            Ok(None) | Err(_) => Err(NatsError::Silent(self.subject.clone())),
        }
    }

    /// Round trips until the task is dropped.
    pub async fn watch(mut self, state: Arc<NodeState>) {
        let mut tick = tokio::time::interval(PROBE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // A failure is an age that grows, and the verdict says so; while NATS is away there is no need to say it twice.
            if let Ok(rtt) = self.round_trip().await {
                state.nats_answered(rtt);
            }
        }
    }
}

/// Subscribes, with the subject in the error.
///
/// # Errors
/// [`NatsError::Subscribe`].
pub async fn subscribe(client: &Client, subject: &str) -> Result<Subscriber, NatsError> {
    client
        .subscribe(subject.to_owned())
        .await
        .map_err(|error| NatsError::Subscribe { subject: subject.to_owned(), reason: error.to_string() })
}
