//! A volley: requests sealed before, fired at a rate, and what became of each.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::Client;
use casemate_client::session::Session;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::VaultFrame;
use casemate_protocol::head::Head;
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy, Operation};
use casemate_protocol::secret::Secret;
use casemate_protocol::subject::Subjects;

use super::bystander::{self, Bystander};
use super::wire::{Message, Publisher, Subscriber};
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
pub(super) const PATIENCE: Duration = Duration::from_secs(12);
/// The first moments of a volley.
const ONSET: Duration = Duration::from_millis(500);

/// Some vaults, each with a session that seals without asking.
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
    /// What became of requests that were sent then.
    ///
    /// # Panics
    /// When one was answered twice.
    fn of(sent: &[Duration], came: Vec<Answer>) -> Self {
        let mut result = Self { elapsed: sent.last().copied().unwrap_or_default(), ..Self::default() };
        let mut answered = vec![false; sent.len()];
        for (number, at, outcome) in came {
            assert!(!std::mem::replace(&mut answered[number], true), "request {number} was answered twice");
            let took = at.saturating_sub(sent[number]);
            match outcome {
                Outcome::Served if sent[number] < ONSET => result.early.push(took),
                Outcome::Served => result.served.push(took),
                Outcome::Busy => result.busy += 1,
                Outcome::Refused(code) => result.refused.push(code),
            }
        }
        result.silent = answered.iter().filter(|answered| !**answered).count() as u64;
        result.served.sort_unstable();
        result
    }

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
        let client = async_nats::connect(node.nats_url()).await.expect("NATS can be reached");
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
        let shots = self.seal(count, 1);
        self.fire_shots(shots, rate).await
    }

    /// Like [`Self::fire`], but of each `times` requests only one is for a vault. A bare responder says `busy` to the others at once, so that
    /// what becomes of the one shows what the volley itself, NATS and the machine cost those who are served.
    ///
    /// # Panics
    /// When NATS is gone.
    pub async fn fire_mostly_elsewhere(&mut self, count: usize, rate: f64, times: usize) -> Answers {
        let shots = self.seal(count, times);
        let bystander = Bystander::begin(&self.nats).expect("NATS is there");
        let answers = self.fire_shots(shots, rate).await;
        drop(bystander);
        answers
    }

    async fn fire_shots(&self, shots: Shots, rate: f64) -> Answers {
        let (nats, inbox) = (self.nats.clone(), self.client.new_inbox());
        let volley = tokio::task::spawn_blocking(move || fire(&nats, &inbox, &shots, rate));
        volley.await.expect("no panic").expect("NATS is there")
    }

    /// Requests over all vaults in turn, of which all but one in `times` go to the bystander instead.
    fn seal(&mut self, count: usize, times: usize) -> Shots {
        let operation = self.work.operation();
        let members = self.members.len();
        let subjects = self.members.iter().map(|member| member.subject.clone()).chain([bystander::SUBJECT.to_owned()]);
        let mut shots = Shots::new(subjects.collect());
        for number in 0..count {
            let at = number % members;
            let member = &mut self.members[at];
            let (frame, _) = member.session.seal(None, member.head, &operation).expect("the session stands");
            let subject = if number % times == 0 { at } else { members };
            shots.add(subject, &frame.encode(DEADLINE_DEFAULT));
        }
        shots
    }
}

/// Sealed requests in one piece of memory: a minute's are millions.
struct Shots {
    subjects: Vec<String>,
    /// Of each, which subject it is for and where its frame ends.
    each: Vec<(usize, usize)>,
    frames: Vec<u8>,
}

impl Shots {
    fn new(subjects: Vec<String>) -> Self {
        Self { subjects, each: Vec::new(), frames: Vec::new() }
    }

    fn add(&mut self, subject: usize, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        self.each.push((subject, self.frames.len()));
    }

    fn len(&self) -> usize {
        self.each.len()
    }

    /// The subject and the frame of one.
    fn shot(&self, number: usize) -> (&str, &[u8]) {
        let begin = number.checked_sub(1).map_or(0, |before| self.each[before].1);
        let (subject, end) = self.each[number];
        (&self.subjects[subject], &self.frames[begin..end])
    }
}

fn fire(nats: &str, inbox: &str, shots: &Shots, rate: f64) -> io::Result<Answers> {
    let subscriber = Subscriber::connect(nats, &format!("{inbox}.*"), PATIENCE)?;
    let mut publisher = Publisher::connect(nats)?;
    let begun = Instant::now();
    let (sent, came) = thread::scope(|scope| {
        let collector = scope.spawn(|| collect(subscriber, shots.len(), begun));
        (shoot(&mut publisher, shots, inbox, rate, begun), collector.join().expect("no panic"))
    });
    Ok(Answers::of(&sent?, came))
}

/// When each was sent.
fn shoot(
    publisher: &mut Publisher,
    shots: &Shots,
    inbox: &str,
    rate: f64,
    begun: Instant,
) -> io::Result<Vec<Duration>> {
    let mut sent = Vec::with_capacity(shots.len());
    while sent.len() < shots.len() {
        thread::sleep(TICK);
        let now = begun.elapsed();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
        let due = (now.as_secs_f64() * rate) as usize;
        for number in sent.len()..due.min(shots.len()) {
            let (subject, frame) = shots.shot(number);
            publisher.add(subject, &format!("{inbox}.{number}"), frame);
            sent.push(now);
        }
        publisher.send()?;
    }
    Ok(sent)
}

/// An answer: the number of its request, when it came, and what it is.
type Answer = (usize, Duration, Outcome);

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Served,
    Busy,
    Refused(ErrorCode),
}

impl Outcome {
    fn of(answer: &[u8]) -> Self {
        match VaultFrame::decode(answer) {
            Ok(VaultFrame::Sealed { .. }) => Self::Served,
            Ok(VaultFrame::Refused(Refusal { code: ErrorCode::Busy, retry_after_ms: Some(_), .. })) => Self::Busy,
            Ok(VaultFrame::Refused(refusal)) => Self::Refused(refusal.code),
            Ok(VaultFrame::Welcome { .. }) | Err(_) => Self::Refused(ErrorCode::Malformed),
        }
    }
}

/// All answers, or those that came while there was patience.
fn collect(mut answers: Subscriber, count: usize, begun: Instant) -> Vec<Answer> {
    let mut came = Vec::with_capacity(count);
    let mut listens = true;
    while listens && came.len() < count {
        let add = |answer: Message<'_>, at: Instant| {
            let number = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            came.extend(number.map(|number| (number, at - begun, Outcome::of(answer.payload))));
        };
        listens = answers.receive(add).is_ok();
    }
    came
}
