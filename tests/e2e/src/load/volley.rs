//! A volley: requests sealed before, fired at a rate, and what became of each.

use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use casemate_client::session::Session;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::VaultFrame;
use casemate_protocol::head::Head;
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy, Operation};
use casemate_protocol::secret::Secret;
use casemate_protocol::subject::Subjects;
use futures_util::StreamExt;

use crate::Node;
use crate::owner::{OwnedVault, Owner};

/// The secret that is read, and the key that signs.
const NAME: &str = "load";

/// What each request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A small secret: most of the work is in the way there and back.
    Read,
    /// A P-256 signature: most of the work is the vault-manager's.
    Sign,
}

impl Work {
    fn operation(self) -> Operation {
        match self {
            Self::Read => Operation::SecretGet { name: NAME.to_owned(), revision: None },
            Self::Sign => Operation::KeySign { name: NAME.to_owned(), message: Secret::new(vec![7; 32]) },
        }
    }
}
/// Between two bursts.
const TICK: Duration = Duration::from_micros(500);
/// No answer comes later than its request's deadline.
const PATIENCE: Duration = Duration::from_secs(12);
/// The first moments of a volley.
const ONSET: Duration = Duration::from_millis(500);
/// Answers that may wait in this client.
const CAPACITY: usize = 1 << 20;

/// Some vaults, each with a session that seals without asking, and a connection.
pub struct Volley {
    client: Client,
    members: Vec<Member>,
    work: Work,
}

struct Member {
    subject: String,
    session: Session,
    head: Option<Head>,
    /// Keeps the vault's record.
    _vault: OwnedVault,
}

impl std::fmt::Debug for Volley {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volley").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

/// What became of the requests of a volley.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// How long those took that were served, shortest first.
    pub served: Vec<Duration>,
    /// Likewise, of those that were sent in the first moments, when nobody could know yet how many there would be.
    pub early: Vec<Duration>,
    /// Refused with `busy` and a time to come back.
    pub busy: u64,
    /// Refused otherwise, by code.
    pub refused: Vec<ErrorCode>,
    /// Never answered.
    pub silent: u64,
    /// From the first request to the last.
    pub elapsed: Duration,
}

impl Answers {
    /// The time within which this share of the served was.
    pub fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let at = (self.served.len() as f64 * share) as usize;
        self.served.get(at.min(self.served.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Served a second.
    #[expect(clippy::cast_precision_loss, reason = "requests of a run")]
    pub fn rate(&self) -> f64 {
        (self.served.len() + self.early.len()) as f64 / self.elapsed.as_secs_f64()
    }
}

impl Volley {
    /// Makes so many vaults with a secret and a key each, and a session with each.
    ///
    /// # Panics
    /// When an honest node does not let them.
    pub async fn load(node: &Node, vaults: usize, work: Work) -> Self {
        let options = ConnectOptions::new().subscription_capacity(CAPACITY);
        let client = options.connect(node.nats_url()).await.expect("NATS can be reached");
        let mut members = Vec::new();
        for _ in 0..vaults {
            let owner = Owner::new(node);
            let transport = casemate_client::NatsTransport::from_client(client.clone());
            let vault = owner.open_over(transport.clone(), owner.begin(), PATIENCE);
            vault.create().await.expect("a vault can be made");
            vault.secret_put(NAME, Secret::new(vec![7; 128]), None).await.expect("a secret can be written");
            let key = vault.key_generate(NAME, KeyAlgorithm::P256, KeyPolicy::default()).await;
            key.expect("a key can be made");
            let record = vault.record();
            let session = owner.enter(&transport, &record).await;
            members.push(Member {
                subject: Subjects::default().vault(vault.id()),
                session,
                head: record.head(),
                _vault: vault,
            });
        }
        Self { client, members, work }
    }

    /// Seals `count` requests, over all vaults in turn, and fires them at `rate` a second.
    ///
    /// # Panics
    /// When NATS is gone.
    pub async fn fire(&mut self, count: usize, rate: f64) -> Answers {
        let shots = self.seal(count);
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(format!("{inbox}.*")).await.expect("NATS is there");
        let begun = Instant::now();
        let (sent, came) = tokio::join!(self.shoot(&shots, &inbox, rate, begun), collect(answers, count, begun));
        let mut result = Answers { elapsed: sent.last().copied().unwrap_or_default(), ..Answers::default() };
        result.silent = (count - came.len()) as u64;
        for (number, at, answer) in came {
            match answer {
                Some(VaultFrame::Sealed { .. }) => {
                    let took = at.saturating_sub(sent[number]);
                    if sent[number] < ONSET { result.early.push(took) } else { result.served.push(took) }
                }
                Some(VaultFrame::Refused(refusal))
                    if refusal.code == ErrorCode::Busy && refusal.retry_after_ms.is_some() =>
                {
                    result.busy += 1;
                }
                Some(VaultFrame::Refused(refusal)) => result.refused.push(refusal.code),
                Some(VaultFrame::Welcome { .. }) | None => result.refused.push(ErrorCode::Malformed),
            }
        }
        result.served.sort_unstable();
        result
    }

    fn seal(&mut self, count: usize) -> Vec<(String, Bytes)> {
        let operation = self.work.operation();
        let members = self.members.len();
        (0..count)
            .map(|number| {
                let member = &mut self.members[number % members];
                let (frame, _) = member.session.seal(None, member.head, &operation).expect("the session stands");
                (member.subject.clone(), frame.encode(DEADLINE_DEFAULT).into())
            })
            .collect()
    }

    /// When each was sent.
    async fn shoot(&self, shots: &[(String, Bytes)], inbox: &str, rate: f64, begun: Instant) -> Vec<Duration> {
        let mut sent = Vec::with_capacity(shots.len());
        let mut tick = tokio::time::interval(TICK);
        while sent.len() < shots.len() {
            tick.tick().await;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
            let due = (begun.elapsed().as_secs_f64() * rate) as usize;
            for (subject, frame) in &shots[sent.len()..due.clamp(sent.len(), shots.len())] {
                let reply = format!("{inbox}.{}", sent.len());
                sent.push(begun.elapsed());
                self.client.publish_with_reply(subject.clone(), reply, frame.clone()).await.expect("NATS is there");
            }
        }
        sent
    }
}

/// The number, the time and the content of each answer.
async fn collect(
    mut answers: async_nats::Subscriber,
    count: usize,
    begun: Instant,
) -> Vec<(usize, Duration, Option<VaultFrame>)> {
    let mut came = Vec::with_capacity(count);
    while came.len() < count {
        let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, answers.next()).await else { break };
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        came.extend(number.map(|number| (number, begun.elapsed(), VaultFrame::decode(&answer.payload).ok())));
    }
    came
}
