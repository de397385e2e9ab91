//! A volley: requests sealed before, fired at a rate, and what became of each.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use casemate_client::session::Session;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::VaultFrame;
use casemate_protocol::head::Head;
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy, Operation};
use casemate_protocol::secret::Secret;
use casemate_protocol::subject::Subjects;
use futures_util::StreamExt;
use tokio::sync::Notify;

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
/// Where a bare responder answers.
const ELSEWHERE: &str = "casemate.load.elsewhere";
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
    nats: String,
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
        Self { nats: node.nats_url(), client, members, work }
    }

    /// Seals `count` requests, over all vaults in turn, and fires them at `rate` a second.
    ///
    /// # Panics
    /// When NATS is gone.
    pub async fn fire(&mut self, count: usize, rate: f64) -> Answers {
        let shots = self.seal(count);
        self.fire_shots(&shots, rate).await
    }

    /// Like [`Self::fire`], but of each `times` requests only one is for a vault. A bare responder says `busy` to the others at once, so that
    /// what becomes of the one shows what the volley itself, NATS and the machine cost those who are served.
    ///
    /// # Panics
    /// When NATS is gone.
    pub async fn fire_mostly_elsewhere(&mut self, count: usize, rate: f64, times: usize) -> Answers {
        let mut shots = self.seal(count);
        for (number, (subject, _)) in shots.iter_mut().enumerate() {
            if number % times != 0 {
                ELSEWHERE.clone_into(subject);
            }
        }
        let bystander = Bystander::begin(&self.nats).await;
        let answers = self.fire_shots(&shots, rate).await;
        drop(bystander);
        answers
    }

    async fn fire_shots(&self, shots: &[(String, Bytes)], rate: f64) -> Answers {
        let count = shots.len();
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(format!("{inbox}.*")).await.expect("NATS is there");
        let begun = Instant::now();
        let (sent, came) = tokio::join!(self.shoot(shots, &inbox, rate, begun), collect(answers, count, begun));
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

/// Says `busy` to whatever comes, on a thread of its own.
struct Bystander {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    async fn begin(nats: &str) -> Self {
        let (nats, stop, ready) = (nats.to_owned(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (theirs, told) = (Arc::clone(&stop), Arc::clone(&ready));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(stand_by(&nats, &theirs, &told));
        });
        ready.notified().await;
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.notify_one();
        // Its panic was printed, and shows in what was not answered.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

async fn stand_by(nats: &str, stop: &Notify, ready: &Notify) {
    let options = ConnectOptions::new().subscription_capacity(CAPACITY);
    let client = options.connect(nats).await.expect("NATS can be reached");
    let mut requests = client.subscribe(ELSEWHERE).await.expect("NATS is there");
    client.flush().await.expect("NATS is there");
    ready.notify_one();
    let busy = VaultFrame::Refused(Refusal::retry(ErrorCode::Busy, 1)).encode();
    loop {
        tokio::select! {
            () = stop.notified() => return,
            request = requests.next() => {
                let Some(reply) = request.and_then(|request| request.reply) else { return };
                client.publish(reply, busy.clone()).await.expect("NATS is there");
            }
        }
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
