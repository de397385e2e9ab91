//! The session between a device and its vault: Noise `XX`, then sealed runs with explicit counters.
//!
//! Both ends are the same few machines; none of them does I/O.

use std::fmt;
use std::time::Duration;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use minicbor::{Decode, Encode};
use snow::HandshakeState;
use zeroize::Zeroize;

use crate::codec;
use crate::frame::SealedRun;
use crate::head::Head;
use crate::id::VaultId;
use crate::padding::size_class;
use crate::secret::Secret;
use crate::statement::Credentials;
use crate::window::ReplayWindow;
use crate::wipe::{ZeroizingVec, wipe};
use crate::{PROTOCOL_VERSION, label, limits};

/// The handshake's name. Another one is another protocol version.
pub const NOISE: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";

const TAG_BYTES: usize = 16;
/// Position of a part in its run: its number and the count of parts.
const POSITION_BYTES: usize = 2;
/// Where a run's plaintext begins, once it is opened.
const CONTENT_AT: usize = POSITION_BYTES + LENGTH_BYTES;
const LENGTH_BYTES: usize = 4;
const NOISE_MESSAGE_BYTES: usize = 65_535;

/// Why a session step failed. After any of these the step's input is dropped and the session's state is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The handshake message does not authenticate or is not of the expected form.
    #[error("the handshake message is not genuine; make a new session")]
    Handshake,
    /// A counter was used before, or is older than the window.
    #[error("the frame's counter was used before or is too old")]
    Replayed,
    /// The frame does not authenticate, or is not of the expected form.
    #[error("the frame is not genuine")]
    Forged,
    /// The session has carried its share of messages or is too old.
    #[error("the session has ended by age or by number of messages; make a new one")]
    Exhausted,
    /// The message does not fit into a frame.
    #[error("the message does not fit into a frame")]
    TooLarge,
}

/// The payload of handshake message 3: what the owner brings along.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opening {
    /// The lock key, 32 bytes.
    #[n(0)]
    pub lock_key: Secret,
    /// The newest head that the device holds.
    #[n(1)]
    pub head: Option<Head>,
    /// The first request, encoded, if it is at most 32 KiB.
    #[n(2)]
    pub first_request: Option<Secret>,
}

/// Makes a device's or a vault-manager's static key pair from 32 random bytes: X25519, clamped by use.
pub fn public_key(static_secret: &[u8; 32]) -> [u8; 32] {
    let resolver = snow::resolvers::DefaultResolver;
    let mut dh = snow::resolvers::CryptoResolver::resolve_dh(&resolver, &snow::params::DHChoice::Curve25519)
        .expect("X25519 is compiled in");
    dh.set(static_secret);
    let mut out = [0; 32];
    out.copy_from_slice(dh.pubkey());
    out
}

fn builder<'a>(static_secret: &'a [u8; 32], prologue: &'a [u8]) -> snow::Builder<'a> {
    snow::Builder::new(NOISE.parse().expect("a constant, valid name"))
        .local_private_key(static_secret)
        .and_then(|builder| builder.prologue(prologue))
        .expect("each is set once")
}

fn prologue(vault: VaultId) -> Vec<u8> {
    label::info("casemate/session/v1", &[&[PROTOCOL_VERSION], vault.as_bytes()])
}

/// The device's end of the handshake.
pub struct Initiator(HandshakeState);

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(redacted)")
    }
}

impl Initiator {
    /// Begins a session with `vault`; returns handshake message 1.
    pub fn start(static_secret: &[u8; 32], vault: VaultId) -> (Self, Vec<u8>) {
        let prologue = prologue(vault);
        let mut state = builder(static_secret, &prologue).build_initiator().expect("all parameters are set");
        let mut message = vec![0; 64];
        let len = state.write_message(&[], &mut message).expect("message 1 is 32 bytes");
        message.truncate(len);
        (Self(state), message)
    }

    /// Reads handshake message 2; returns the vault's credentials and the static key that it proved to hold. Nothing is to be
    /// sent before both were judged.
    ///
    /// # Errors
    /// [`SessionError::Handshake`].
    pub fn read_welcome(&mut self, noise: &[u8]) -> Result<(Credentials, [u8; 32]), SessionError> {
        let mut payload = vec![0; noise.len().min(NOISE_MESSAGE_BYTES)];
        let len = self.0.read_message(noise, &mut payload).map_err(|_| SessionError::Handshake)?;
        let credentials = codec::decode(&payload[..len], NOISE_MESSAGE_BYTES).map_err(|_| SessionError::Handshake)?;
        Ok((credentials, remote_static(&self.0)?))
    }

    /// Ends the handshake; returns message 3 and the session.
    ///
    /// # Errors
    /// [`SessionError::TooLarge`] when the opening does not fit.
    pub fn finish(mut self, opening: &Opening) -> Result<(Vec<u8>, Channel), SessionError> {
        let payload = codec::encode_secret(opening);
        let mut message = vec![0; payload.len() + 128];
        let len = self.0.write_message(&payload, &mut message).map_err(|_| SessionError::TooLarge)?;
        message.truncate(len);
        Ok((message, Channel::new(self.0, Side::Initiator)?))
    }
}

fn remote_static(state: &HandshakeState) -> Result<[u8; 32], SessionError> {
    state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(SessionError::Handshake)
}

/// The vault-manager's end of the handshake.
pub struct Responder(HandshakeState);

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(redacted)")
    }
}

impl Responder {
    /// Answers handshake message 1 with message 2, which carries `credentials`.
    ///
    /// # Errors
    /// [`SessionError::Handshake`].
    pub fn welcome(
        static_secret: &[u8; 32],
        vault: VaultId,
        hello: &[u8],
        credentials: &Credentials,
    ) -> Result<(Self, Vec<u8>), SessionError> {
        let prologue = prologue(vault);
        let mut state = builder(static_secret, &prologue).build_responder().expect("all parameters are set");
        let mut nothing = [0; 64];
        match state.read_message(hello, &mut nothing) {
            Ok(0) => {}
            _ => return Err(SessionError::Handshake),
        }
        let payload = codec::encode(credentials);
        let mut message = vec![0; payload.len() + 256];
        let len = state.write_message(&payload, &mut message).map_err(|_| SessionError::TooLarge)?;
        message.truncate(len);
        Ok((Self(state), message))
    }

    /// Reads message 3; returns the device's static key, what it brings along, and the session.
    ///
    /// # Errors
    /// [`SessionError::Handshake`]; the handshake is then over.
    pub fn finish(mut self, noise: &[u8]) -> Result<([u8; 32], Opening, Channel), SessionError> {
        let mut payload = ZeroizingVec::from(vec![0; noise.len().min(NOISE_MESSAGE_BYTES)]);
        let len = self.0.read_message(noise, &mut payload).map_err(|_| SessionError::Handshake)?;
        let opening: Opening =
            codec::decode(&payload[..len], NOISE_MESSAGE_BYTES).map_err(|_| SessionError::Handshake)?;
        let first = opening.first_request.as_ref().map_or(0, |request| request.len());
        if opening.lock_key.len() != 32 || first > limits::FIRST_REQUEST_BYTES {
            return Err(SessionError::Handshake);
        }
        let device = remote_static(&self.0)?;
        Ok((device, opening, Channel::new(self.0, Side::Responder)?))
    }
}

/// Which end of the handshake a channel came from.
#[derive(Debug, Clone, Copy)]
enum Side {
    Initiator,
    Responder,
}

/// An established session: seals and opens runs of Noise transport messages. Directions are independent.
///
/// Encoded, it is all that is needed to go on with the session elsewhere. Whoever goes on from one encoding twice uses a counter twice,
/// and gives away what both messages say.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Channel {
    #[n(0)]
    send_key: Secret,
    #[n(1)]
    receive_key: Secret,
    #[n(2)]
    send_counter: u64,
    #[n(3)]
    received: ReplayWindow,
    #[n(4)]
    received_messages: u64,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("send_counter", &self.send_counter).finish_non_exhaustive()
    }
}

/// The cipher of a direction, and the nonce of a message: Noise's ChaChaPoly.
fn cipher(key: &Secret) -> Option<ChaCha20Poly1305> {
    ChaCha20Poly1305::new_from_slice(key).ok()
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl Channel {
    fn new(mut state: HandshakeState, side: Side) -> Result<Self, SessionError> {
        if !state.is_handshake_finished() {
            return Err(SessionError::Handshake);
        }
        let (mut initiator, mut responder) = state.dangerously_get_raw_split();
        let (send_key, receive_key) = match side {
            Side::Initiator => (Secret::from(&initiator[..]), Secret::from(&responder[..])),
            Side::Responder => (Secret::from(&responder[..]), Secret::from(&initiator[..])),
        };
        initiator.zeroize();
        responder.zeroize();
        Ok(Self { send_key, receive_key, send_counter: 0, received: ReplayWindow::default(), received_messages: 0 })
    }

    /// Whether a session of this age must be made anew.
    pub fn is_exhausted(&self, age: Duration) -> bool {
        age >= limits::SESSION_AGE || self.send_counter.max(self.received_messages) >= limits::SESSION_MESSAGES
    }

    /// Seals a plaintext: length, plaintext, zeros up to its size class; cut into parts that carry their position.
    ///
    /// # Errors
    /// [`SessionError::TooLarge`] or [`SessionError::Exhausted`].
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<SealedRun, SessionError> {
        const CONTENT: usize = limits::PART_BYTES - POSITION_BYTES;
        // Room for the frame's own fields.
        if plaintext.len() > limits::FRAME_BYTES - limits::FRAME_BYTES / 8 - 1024 {
            return Err(SessionError::TooLarge);
        }
        let padded_len = size_class(CONTENT_AT + plaintext.len()) - POSITION_BYTES;
        let count = padded_len.div_ceil(CONTENT);
        let (count_byte, count_u64) = (u8::try_from(count).map_err(|_| SessionError::TooLarge)?, count as u64);
        if self.send_counter + count_u64 > limits::SESSION_MESSAGES {
            return Err(SessionError::Exhausted);
        }
        let length = u32::try_from(plaintext.len()).expect("below 960 KiB");
        let cipher = cipher(&self.send_key).ok_or(SessionError::Exhausted)?;
        // One allocation, in which each part is sealed where it stands: growing would leave plaintext behind.
        let mut ciphertext = Vec::with_capacity(padded_len + count * (POSITION_BYTES + TAG_BYTES));
        let (mut rest, mut left) = (plaintext, padded_len);
        // Used up before anything is sealed, whatever becomes of it.
        let first = self.send_counter;
        self.send_counter += count_u64;
        for index in 0..count_byte {
            let start = ciphertext.len();
            let end = start + POSITION_BYTES + left.min(CONTENT);
            left -= left.min(CONTENT);
            ciphertext.extend_from_slice(&[index, count_byte]);
            if index == 0 {
                ciphertext.extend_from_slice(&length.to_be_bytes());
            }
            let (content, later) = rest.split_at(rest.len().min(end - ciphertext.len()));
            rest = later;
            ciphertext.extend_from_slice(content);
            ciphertext.resize(end, 0);
            let nonce = nonce(first + u64::from(index));
            let Ok(tag) = cipher.encrypt_in_place_detached(&nonce, &[], &mut ciphertext[start..]) else {
                wipe(&mut ciphertext);
                return Err(SessionError::TooLarge);
            };
            ciphertext.extend_from_slice(&tag);
        }
        debug_assert_eq!(ciphertext.len(), ciphertext.capacity());
        Ok(SealedRun { counter: first, ciphertext })
    }

    /// Opens a run. Attacks stopped: replayed or stale counters; parts left out, added, exchanged or taken from the middle of
    /// another run (each carries its position); a length that is not the run's own. A refused run leaves no trace.
    ///
    /// # Errors
    /// [`SessionError::Replayed`], [`SessionError::Forged`] or [`SessionError::Exhausted`].
    pub fn open(&mut self, run: &SealedRun) -> Result<ZeroizingVec, SessionError> {
        const SEALED: usize = limits::PART_BYTES + TAG_BYTES;
        let parts = run.ciphertext.len().div_ceil(SEALED);
        let count = u8::try_from(parts).map_err(|_| SessionError::Forged)?;
        if !(POSITION_BYTES + TAG_BYTES..=limits::FRAME_BYTES).contains(&run.ciphertext.len()) {
            return Err(SessionError::Forged);
        }
        let end = run.counter.checked_add(count.into()).ok_or(SessionError::Forged)?;
        if end > limits::SESSION_MESSAGES {
            return Err(SessionError::Exhausted);
        }
        if !(run.counter..end).all(|counter| self.received.is_fresh(counter)) {
            return Err(SessionError::Replayed);
        }
        let cipher = cipher(&self.receive_key).ok_or(SessionError::Exhausted)?;
        // One allocation, no longer than the run: all of it is wiped afterwards. In front of each part's content its position takes the
        // place of two bytes of the part before, which is opened by then.
        let mut padded = ZeroizingVec::with_capacity(run.ciphertext.len());
        for (index, sealed) in (0_u8..).zip(run.ciphertext.chunks(SEALED)) {
            let (sealed, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(SessionError::Forged)?;
            let at = padded.len().saturating_sub(POSITION_BYTES);
            let before = padded[at..].first_chunk().copied().unwrap_or([0; POSITION_BYTES]);
            padded.truncate(at);
            padded.extend_from_slice(sealed);
            let part = &mut padded[at..];
            cipher
                .decrypt_in_place_detached(&nonce(run.counter + u64::from(index)), &[], part, Tag::from_slice(tag))
                .map_err(|_| SessionError::Forged)?;
            if part.len() < POSITION_BYTES || part[..POSITION_BYTES] != [index, count] {
                return Err(SessionError::Forged);
            }
            part[..POSITION_BYTES].copy_from_slice(&before);
        }
        let Some((length, content)) = padded[POSITION_BYTES..].split_first_chunk::<LENGTH_BYTES>() else {
            return Err(SessionError::Forged);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("at least 32 bits");
        if length > content.len() || size_class(CONTENT_AT + length) != padded.len() {
            return Err(SessionError::Forged);
        }
        (run.counter..end).for_each(|counter| self.received.mark(counter));
        self.received_messages += u64::from(count);
        padded.copy_within(CONTENT_AT..CONTENT_AT + length, 0);
        padded.truncate(length);
        Ok(padded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Statement;
    use proptest::prelude::*;

    const SEALED: usize = limits::PART_BYTES + TAG_BYTES;

    fn credentials(vault: VaultId) -> Credentials {
        Credentials {
            platform: 0,
            evidence: vec![1; 4500],
            trust_configuration: vec![2; 200],
            identity: [3; 32],
            statement: Statement { vault, static_key: [4; 32], not_after: 5, signature: [6; 64] },
        }
    }

    fn session(first: Option<&[u8]>) -> (Channel, Channel) {
        let vault = VaultId::from_bytes([9; 20]);
        let (mut device, hello) = Initiator::start(&[11; 32], vault);
        let (manager, welcome) = Responder::welcome(&[12; 32], vault, &hello, &credentials(vault)).unwrap();
        let (found, key) = device.read_welcome(&welcome).unwrap();
        assert_eq!((found, key), (credentials(vault), public_key(&[12; 32])));
        let opening =
            Opening { lock_key: Secret::new(vec![8; 32]), head: None, first_request: first.map(Secret::from) };
        let (finish, device) = device.finish(&opening).unwrap();
        let (key, found, manager) = manager.finish(&finish).unwrap();
        assert_eq!((key, found), (public_key(&[11; 32]), opening));
        (device, manager)
    }

    /// All of a run is a size class, what stands in front of the message counted in, and nothing is sealed beyond it.
    #[test]
    fn a_small_message_fills_its_class() {
        let (mut device, mut manager) = session(None);
        for (len, class) in [(0, 256), (250, 256), (251, 288), (282, 288), (283, 320), (1018, 1024)] {
            let run = device.seal(&vec![7; len]).unwrap();
            assert_eq!(run.ciphertext.len(), class + TAG_BYTES, "{len}");
            assert_eq!(manager.open(&run).unwrap().as_slice(), vec![7; len]);
        }
    }

    /// What somebody who has the session's keys may seal, and no honest device does. Each part is sealed as it stands.
    #[test]
    fn genuine_parts_that_are_no_run_are_refused_and_leave_no_trace() {
        let (device, mut manager) = session(None);
        let part = |len: usize, begins: &[u8]| {
            let mut part = vec![0; len];
            part[..begins.len()].copy_from_slice(begins);
            part
        };
        let first = |count| part(limits::PART_BYTES, &[0, count]);
        let not_runs = [
            vec![part(0, &[])],
            vec![part(1, &[0])],
            vec![part(2, &[0, 1])],
            vec![part(5, &[0, 1])],
            vec![part(256, &[0, 2])],
            vec![part(256, &[1, 1])],
            vec![part(256, &[0, 1, 0, 0, 0, 251])],
            vec![part(256, &[0, 1, 255, 255, 255, 255])],
            vec![part(255, &[0, 1])],
            vec![part(288, &[0, 1, 0, 0, 0, 250])],
            vec![first(2), part(0, &[])],
            vec![first(2), part(1, &[1])],
            vec![first(2), part(2, &[0, 2])],
            vec![first(3), part(2, &[1, 3])],
        ];
        let cipher = cipher(&device.send_key).unwrap();
        let seal = |parts: &[Vec<u8>]| {
            let mut ciphertext = Vec::new();
            for (counter, part) in (0..).zip(parts) {
                let mut sealed = part.clone();
                let tag = cipher.encrypt_in_place_detached(&nonce(counter), &[], &mut sealed).unwrap();
                ciphertext.extend([&sealed[..], &tag].concat());
            }
            SealedRun { counter: 0, ciphertext }
        };
        for parts in &not_runs {
            let lens: Vec<usize> = parts.iter().map(Vec::len).collect();
            assert_eq!(manager.open(&seal(parts)), Err(SessionError::Forged), "{lens:?}, {:?}", &parts.last());
        }
        let run = seal(&[part(256, &[0, 1, 0, 0, 0, 250])]);
        assert_eq!(manager.open(&run).unwrap().as_slice(), [0; 250], "as honest ones seal it");
    }

    /// The transport messages are Noise's own, byte for byte: a client in another language may use any library.
    #[test]
    fn it_speaks_noise() {
        let vault = VaultId::from_bytes([9; 20]);
        let (mut device, hello) = Initiator::start(&[11; 32], vault);
        let (mut manager, welcome) = Responder::welcome(&[12; 32], vault, &hello, &credentials(vault)).unwrap();
        device.read_welcome(&welcome).unwrap();
        let opening = Opening { lock_key: Secret::new(vec![8; 32]), head: None, first_request: None };
        let mut message = vec![0; 1000];
        let len = device.0.write_message(&codec::encode_secret(&opening), &mut message).unwrap();
        manager.0.read_message(&message[..len], &mut [0; 1000]).unwrap();
        let (raw_device, raw_manager) = (device.0.dangerously_get_raw_split(), manager.0.dangerously_get_raw_split());
        assert_eq!(raw_device, raw_manager);
        let channel = |send: [u8; 32], receive: [u8; 32]| Channel {
            send_key: Secret::from(&send[..]),
            receive_key: Secret::from(&receive[..]),
            send_counter: 0,
            received: ReplayWindow::default(),
            received_messages: 0,
        };
        let mut ours = channel(raw_device.0, raw_device.1);
        let mut theirs = channel(raw_manager.1, raw_manager.0);
        let (device, manager) =
            (device.0.into_stateless_transport_mode().unwrap(), manager.0.into_stateless_transport_mode().unwrap());
        for counter in 0..3 {
            let run = ours.seal(b"to the vault").unwrap();
            let mut plaintext = [0; 1000];
            let len = manager.read_message(counter, &run.ciphertext, &mut plaintext).unwrap();
            let mut again = vec![0; 1000];
            let sealed = device.write_message(counter, &plaintext[..len], &mut again).unwrap();
            assert_eq!(again[..sealed], run.ciphertext);
            assert_eq!(*theirs.open(&run).unwrap(), b"to the vault");
            let back = theirs.seal(b"to the device").unwrap();
            assert!(device.read_message(counter, &back.ciphertext, &mut plaintext).is_ok());
            assert_eq!(*ours.open(&back).unwrap(), b"to the device");
        }
    }

    #[test]
    fn a_session_goes_on_elsewhere_where_it_stopped() {
        let (mut device, mut vault) = session(None);
        let (first, second) = (device.seal(b"1").unwrap(), device.seal(b"2").unwrap());
        vault.open(&second).unwrap();
        let answer = vault.seal(b"answer").unwrap();
        let encoded = codec::encode_secret(&vault);
        let mut vault: Channel = codec::decode(&encoded, 1000).unwrap();
        assert_eq!(vault.open(&second), Err(SessionError::Replayed));
        assert_eq!(*vault.open(&first).unwrap(), b"1");
        let next = vault.seal(b"next").unwrap();
        assert!(next.counter > answer.counter, "no counter is used twice");
        assert_eq!(*device.open(&next).unwrap(), b"next");
        assert_eq!(*device.open(&answer).unwrap(), b"answer");
        assert!(encoded.len() < 300, "{}", encoded.len());
    }

    #[test]
    fn another_vault_is_another_session() {
        let (vault, other) = (VaultId::from_bytes([9; 20]), VaultId::from_bytes([10; 20]));
        let (mut device, hello) = Initiator::start(&[11; 32], vault);
        let (_, welcome) = Responder::welcome(&[12; 32], other, &hello, &credentials(other)).unwrap();
        assert_eq!(device.read_welcome(&welcome).unwrap_err(), SessionError::Handshake);
    }

    #[test]
    fn flips_in_the_handshake_are_refused() {
        let vault = VaultId::from_bytes([9; 20]);
        let (_, hello) = Initiator::start(&[11; 32], vault);
        let (mut device, _) = Initiator::start(&[11; 32], vault);
        let (_, mut welcome) = Responder::welcome(&[12; 32], vault, &hello, &credentials(vault)).unwrap();
        welcome[40] ^= 1;
        assert_eq!(device.read_welcome(&welcome).unwrap_err(), SessionError::Handshake);
    }

    #[test]
    fn replay_reorder_splice() {
        let (mut device, mut vault) = session(None);
        let runs: Vec<_> = (0_u8..3).map(|i| device.seal(&vec![i; 100_000]).unwrap()).collect();
        assert_eq!(*vault.open(&runs[2]).unwrap(), vec![2; 100_000]);
        assert_eq!(*vault.open(&runs[0]).unwrap(), vec![0; 100_000]);
        assert_eq!(vault.open(&runs[0]), Err(SessionError::Replayed));
        let second_part = SealedRun { counter: runs[1].counter + 1, ciphertext: runs[1].ciphertext[SEALED..].to_vec() };
        assert_eq!(vault.open(&second_part), Err(SessionError::Forged));
        let first_part = SealedRun { counter: runs[1].counter, ciphertext: runs[1].ciphertext[..SEALED].to_vec() };
        assert_eq!(vault.open(&first_part), Err(SessionError::Forged));
        assert_eq!(*vault.open(&runs[1]).unwrap(), vec![1; 100_000], "refused runs left no trace");
        assert_eq!(device.open(&runs[1]), Err(SessionError::Forged), "directions are independent");
    }

    #[test]
    fn a_session_ends() {
        let (mut device, mut vault) = session(None);
        device.send_counter = limits::SESSION_MESSAGES;
        assert_eq!(device.seal(b"x"), Err(SessionError::Exhausted));
        assert!(device.is_exhausted(Duration::ZERO) && vault.is_exhausted(limits::SESSION_AGE));
        let run = SealedRun { counter: u64::MAX, ciphertext: vec![0; 300] };
        assert_eq!(vault.open(&run), Err(SessionError::Forged));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_plaintext_and_any_flip(len in 0_usize..200_000, flip in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (mut device, mut vault) = session(Some(b"first"));
            let plaintext: Vec<u8> = (0_u8..=250).cycle().take(len).collect();
            let run = vault.seal(&plaintext).unwrap();
            let mut flipped = run.clone();
            let at = flip.index(flipped.ciphertext.len());
            flipped.ciphertext[at] ^= 1 << bit;
            prop_assert_eq!(device.open(&flipped), Err(SessionError::Forged));
            let opened = device.open(&run).unwrap();
            prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
        }
    }
}
