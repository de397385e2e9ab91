//! What anybody with access to NATS can throw at a vault whose name he knows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use casemate_protocol::frame::{DeviceFrame, SealedRun, SessionId};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::{DEADLINE_DEFAULT, SESSION_MESSAGES};
use casemate_protocol::subject::Subjects;

use super::wire::Publisher;
use crate::chaos::dice::Dice;

/// Frames that differ; they take turns.
const FRAMES: u64 = 1024;
/// Bytes of a small sealed request.
const SEALED_BYTES: usize = 256;
/// Between two bursts of a flood.
const TICK: Duration = Duration::from_millis(1);
/// Nobody listens there.
const NOWHERE: &str = "casemate.load.nowhere";

/// A kind of bad frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// No frame at all.
    Malformed,
    /// Sealed under a session that its vault knows, by somebody who does not have its keys.
    Forged,
    /// Sealed under a session that nobody knows.
    UnknownSession,
    /// Handshakes that are not finished.
    Unfinished,
}

impl Attack {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Malformed, Self::Forged, Self::UnknownSession, Self::Unfinished];

    /// The attack's name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::UnknownSession => "unknown_session",
            Self::Unfinished => "unfinished",
        }
    }

    /// Frames of this kind. `session` is one that the vault knows.
    fn frames(self, session: SessionId) -> Vec<Vec<u8>> {
        let frame = |number| {
            let mut dice = Dice::new(number, &[]);
            let frame = match self {
                Self::Malformed => return random(&mut dice, SEALED_BYTES),
                Self::Forged => sealed(session, &mut dice),
                Self::UnknownSession => {
                    let session = random(&mut dice, session.len()).try_into().expect("so many bytes");
                    sealed(session, &mut dice)
                }
                Self::Unfinished => DeviceFrame::Hello { noise: random(&mut dice, 32) },
            };
            frame.encode(DEADLINE_DEFAULT)
        };
        (0..FRAMES).map(frame).collect()
    }
}

fn sealed(session: SessionId, dice: &mut Dice) -> DeviceFrame {
    let run = SealedRun { counter: dice.below(SESSION_MESSAGES), ciphertext: random(dice, SEALED_BYTES) };
    DeviceFrame::Sealed { session, run }
}

fn random(dice: &mut Dice, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(|| dice.roll().to_be_bytes()).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// An attack under way, from a connection of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    stop: AtomicBool,
}

impl Flood {
    /// Begins to throw `rate` frames a second at a vault.
    pub fn begin(nats: &str, vault: VaultId, attack: Attack, session: SessionId, rate: u32) -> Self {
        Self::begin_at(nats, Subjects::default().vault(vault), attack.frames(session), rate)
    }

    /// The same frames at a subject that nobody listens to: what a flood costs on this machine although no node
    /// has anything to do with it.
    pub fn elsewhere(nats: &str, attack: Attack, rate: u32) -> Self {
        Self::begin_at(nats, NOWHERE.to_owned(), attack.frames(SessionId::default()), rate)
    }

    fn begin_at(nats: &str, subject: String, frames: Vec<Vec<u8>>, rate: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let (nats, theirs) = (nats.to_owned(), Arc::clone(&shared));
        let thread =
            thread::spawn(move || throw(&nats, &subject, &frames, rate, &theirs).expect("the connection stands"));
        Self { thread: Some(thread), shared, begun: Instant::now() }
    }

    /// Frames a second, as they really went out.
    #[expect(clippy::cast_precision_loss, reason = "frames of a run")]
    pub fn rate(&self) -> f64 {
        self.sent() as f64 / self.begun.elapsed().as_secs_f64()
    }

    /// Frames that went out so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Ends it; says how many frames went out.
    pub fn end(mut self) -> u64 {
        self.stop();
        self.sent()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed; who looks at the rate sees the rest.
            drop(thread.join());
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop();
    }
}

fn throw(nats: &str, subject: &str, frames: &[Vec<u8>], rate: u32, shared: &Shared) -> io::Result<()> {
    let mut publisher = Publisher::connect(nats)?;
    let begun = Instant::now();
    let mut frames = frames.iter().cycle();
    let mut sent = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(TICK);
        let due = begun.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        while u128::from(sent) < due {
            publisher.add(subject, NOWHERE, frames.next().expect("there are frames"));
            sent += 1;
        }
        publisher.send()?;
        shared.sent.store(sent, Ordering::Relaxed);
    }
    Ok(())
}
