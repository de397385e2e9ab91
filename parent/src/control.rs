//! The control connection: configures the enclave, feeds it credentials, asks how it is, and takes its logs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use casemate_link::{CallError, Connection, Incoming};
use casemate_protocol::codec;
use casemate_protocol::link::{CONTROL_BYTES, ControlCall, ControlReply, LogLevel, LogRecord, Tuning};
use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::config::AwsCredentials;
use crate::enclave::{BootId, Enclave, OrderError};
use crate::metric::{self, EnclaveCounts};
use crate::state::NodeState;

/// The enclave makes its first evidence before it answers this.
const CONFIGURE_DEADLINE: Duration = Duration::from_secs(20);
const CREDENTIALS_DEADLINE: Duration = Duration::from_secs(5);
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
const HEALTH_DEADLINE: Duration = Duration::from_secs(3);
/// Answers missed in a row after which the connection is given up, so that the enclave dials anew.
const MISSED_LIMIT: u32 = 10;
/// Log records taken per second; a broken enclave must not fill the journal.
const LOGS_PER_SECOND: u32 = 200;

/// Serves control connections, one at a time.
#[derive(Debug)]
pub struct Control {
    /// Who is there.
    pub enclave: Arc<Enclave>,
    /// What is known.
    pub state: Arc<NodeState>,
    /// The trust configuration's bytes.
    pub trust_configuration: Vec<u8>,
    /// Limits and time-outs.
    pub tuning: Tuning,
    /// The newest credentials.
    pub credentials: watch::Receiver<Option<Arc<AwsCredentials>>>,
    /// What was counted of what the enclave tells.
    pub counts: Mutex<EnclaveCounts>,
}

impl Control {
    /// Serves a connection until it ends.
    pub async fn serve(&self, connection: Connection, boot: BootId, build: &str) {
        let Connection { caller, mut incoming, mut closed } = connection;
        let reason = tokio::select! {
            reason = closed.wait() => reason.to_string(),
            () = take_logs(&mut incoming) => "the other side closed".to_owned(),
            reason = self.drive(boot, build) => reason,
        };
        caller.close();
        if self.enclave.dismiss(&caller) {
            self.state.enclave_gone();
            metric::enclave_down();
            tracing::warn!(reason, "the enclave's control connection ended");
        }
    }

    /// Configures, then asks every second; returns why the connection is to be given up.
    async fn drive(&self, boot: BootId, build: &str) -> String {
        let configure = ControlCall::Configure {
            trust_configuration: self.trust_configuration.clone(),
            tuning: self.tuning.clone(),
        };
        if let Err(error) = self.enclave.order(&configure, CONFIGURE_DEADLINE).await {
            tracing::error!(%error, "the enclave did not take its configuration");
            self.state.enclave_refused(&error.to_string());
            // It would only dial again at once; the operator sees the reason meanwhile.
            tokio::time::sleep(Duration::from_secs(5)).await;
            return error.to_string();
        }
        self.state.enclave_connected(build);
        tracing::info!(build, "the enclave is connected and configured");

        let mut credentials = self.credentials.clone();
        credentials.mark_changed();
        let mut tick = tokio::time::interval(HEALTH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        loop {
            tokio::select! {
                changed = credentials.changed() => {
                    if changed.is_err() {
                        // Nobody renews them any more: the parent stops.
                        std::future::pending::<()>().await;
                    }
                    let newest = credentials.borrow_and_update().clone();
                    if let Some(newest) = newest && let Err(error) = self.feed(&newest).await {
                        tracing::error!(%error, "the enclave did not take the IAM credentials; they are offered again");
                        credentials.mark_changed();
                        tokio::time::sleep(HEALTH_INTERVAL).await;
                    }
                }
                _ = tick.tick() => match self.ask(boot).await {
                    Ok(()) => missed = 0,
                    Err(OrderError::NotConnected | OrderError::Call(CallError::Closed)) => return "closed".to_owned(),
                    Err(error) => {
                        missed += 1;
                        metric::enclave_down();
                        tracing::warn!(%error, missed, "the enclave did not say how it is");
                        if missed >= MISSED_LIMIT {
                            return format!("{missed} answers missed in a row");
                        }
                    }
                }
            }
        }
    }

    async fn feed(&self, credentials: &AwsCredentials) -> Result<(), OrderError> {
        let call = ControlCall::Credentials {
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret_access_key.clone(),
            session_token: credentials.session_token.clone(),
        };
        self.enclave.order(&call, CREDENTIALS_DEADLINE).await.map(drop)
    }

    async fn ask(&self, boot: BootId) -> Result<(), OrderError> {
        match self.enclave.order(&ControlCall::Health, HEALTH_DEADLINE).await? {
            ControlReply::Health(health) => {
                metric::enclave(boot, &health, &mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
                self.state.enclave_answered(*health);
                Ok(())
            }
            _ => Err(OrderError::NotUnderstood),
        }
    }
}

/// Takes notices until the connection ends. Calls of the enclave do not exist here; each is let go, which answers it.
async fn take_logs(incoming: &mut mpsc::Receiver<Incoming>) {
    let mut since = Instant::now();
    let mut taken = 0;
    while let Some(message) = incoming.recv().await {
        let Incoming::Notice { body } = message else { continue };
        if since.elapsed() >= Duration::from_secs(1) {
            since = Instant::now();
            taken = 0;
        }
        taken += 1;
        if taken <= LOGS_PER_SECOND {
            log(&body);
        } else {
            counter!("casemate_enclave_log_records_total", "level" => "dropped").increment(1);
        }
    }
}

/// Writes one record of the enclave's fixed vocabulary into our log.
fn log(body: &Bytes) {
    let Ok(record) = codec::decode::<LogRecord>(body, CONTROL_BYTES) else {
        counter!("casemate_enclave_log_records_total", "level" => "unknown").increment(1);
        return;
    };
    let (event, value, dropped) = (record.event.as_str(), record.value.unwrap_or(0), record.dropped);
    let level = match record.level {
        LogLevel::Error => {
            tracing::error!(target: "enclave", value, dropped, "{event}");
            "error"
        }
        LogLevel::Warn => {
            tracing::warn!(target: "enclave", value, dropped, "{event}");
            "warn"
        }
        LogLevel::Info => {
            tracing::info!(target: "enclave", value, dropped, "{event}");
            "info"
        }
    };
    counter!("casemate_enclave_log_records_total", "level" => level).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_link::Limits;
    use casemate_protocol::error::ErrorCode;
    use casemate_protocol::health::EnclaveHealth;
    use casemate_protocol::link::{Class, LogEvent};
    use casemate_protocol::secret::Secret;
    use casemate_protocol::trust::ClusterId;

    fn parts() -> (Arc<Control>, watch::Sender<Option<Arc<AwsCredentials>>>) {
        let (sender, credentials) = watch::channel(None);
        let control = Control {
            enclave: Arc::default(),
            state: Arc::new(NodeState::new("test", ClusterId([0; 32]))),
            trust_configuration: vec![1, 2, 3],
            tuning: Tuning::default(),
            credentials,
            counts: Mutex::default(),
        };
        (Arc::new(control), sender)
    }

    /// Connects an enclave that answers with `answer` and returns what it was asked.
    fn connect(
        control: &Arc<Control>,
        answer: fn(&ControlCall) -> ControlReply,
    ) -> (mpsc::UnboundedReceiver<ControlCall>, tokio::task::JoinHandle<()>) {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let parent = Connection::spawn(here, Limits::of(Class::Control));
        let mut enclave = Connection::spawn(there, Limits::of(Class::Control));
        control.enclave.admit_control([1; 16], parent.caller.clone());
        let (asked, asks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let record = LogRecord { level: LogLevel::Info, event: LogEvent::Booted, value: None, dropped: 0 };
            enclave.caller.notify(codec::encode(&record).into()).unwrap();
            while let Some(Incoming::Call { body, reply, .. }) = enclave.incoming.recv().await {
                let call = codec::decode(&body, CONTROL_BYTES).unwrap();
                reply.reply(codec::encode(&answer(&call)).into());
                if asked.send(call).is_err() {
                    return;
                }
            }
        });
        let control = Arc::clone(control);
        (asks, tokio::spawn(async move { control.serve(parent, [1; 16], "test").await }))
    }

    #[tokio::test]
    async fn configures_first_then_feeds_and_asks() {
        let (control, credentials) = parts();
        let fed = AwsCredentials {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: Secret::new(b"s".to_vec()),
            session_token: None,
        };
        credentials.send_replace(Some(Arc::new(fed)));
        let (mut asks, served) = connect(&control, |call| match call {
            ControlCall::Health => ControlReply::Health(Box::new(EnclaveHealth { uptime_s: 7, ..Default::default() })),
            _ => ControlReply::Done,
        });
        let Some(ControlCall::Configure { trust_configuration, .. }) = asks.recv().await else { panic!("configure") };
        assert_eq!(trust_configuration, [1, 2, 3]);
        let both = [asks.recv().await.unwrap(), asks.recv().await.unwrap()];
        assert!(both.iter().any(|call| matches!(call, ControlCall::Credentials { .. })));
        assert!(both.iter().any(|call| matches!(call, ControlCall::Health)));
        while control.state.observe().enclave.health.is_none() {
            tokio::task::yield_now().await;
        }
        let observed = control.state.observe().enclave;
        assert!(observed.connected && observed.last_answer.is_some() && observed.health.unwrap().uptime_s == 7);
        // The enclave goes.
        drop(asks);
        served.await.unwrap();
        assert!(!control.state.observe().enclave.connected);
    }

    #[tokio::test]
    async fn a_refused_configuration_is_shown() {
        let (control, _credentials) = parts();
        let (_asks, served) =
            connect(&control, |_| ControlReply::Refused(ErrorCode::InvalidArgument, "another cluster".to_owned()));
        while control.state.observe().enclave.refused.is_none() {
            tokio::task::yield_now().await;
        }
        let page = control.state.page();
        assert!(page["reasons"].to_string().contains("another cluster"), "{page}");
        served.abort();
    }
}
