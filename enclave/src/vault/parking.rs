//! Parked sessions: what a vault-manager hands over when its place is needed, so that the vault's devices go on in the process that
//! comes after it, without a handshake.
//!
//! The supervisor keeps them, sealed under a key that it never has: the zygote makes a secret of its own, each vault-manager inherits it
//! by the fork, derives the key of its own vault and forgets the secret. Attacks stopped: a look into the supervisor's memory, which finds
//! neither root keys nor session keys; a vault-manager that was taken over, which can open its own vault's sessions alone.
//!
//! What was parked is used once: a second process that went on from it would use counters again that the first has used. The supervisor
//! forgets it when a process says [`FromManager::Open`](crate::ipc::FromManager::Open) or
//! [`FromManager::Resume`](crate::ipc::FromManager::Resume), and a process says that before it seals anything.
//!
//! A vault that is not too large is parked whole: a vault that is parked is one that is resident without a process. As long as no other
//! process of this node has opened it since, what it held is what the one before it would have answered from.

use std::fmt;
use std::mem;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use casemate_protocol::codec;
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::label;
use casemate_protocol::lock::LockCopy;
use casemate_protocol::object::TAG_BYTES;
use casemate_protocol::secret::Secret;
use casemate_protocol::wipe::ZeroizingVec;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::audit::Noted;
use super::body::Snapshot;
use super::sessions::Session;
use crate::outside::Randomness;

/// Sessions that one vault may park, the most recently used ones.
pub(crate) const PARKED_SESSIONS: usize = 8;
/// The most that a vault's state may be to be parked with them, as [`State::used_bytes`](super::state::State::used_bytes) counts. A vault
/// with a full history of 1,024 entries and a few secrets is below it.
pub(super) const WHOLE_BYTES: usize = 192 * 1024;
/// The longest that what is parked is, sealed.
pub(crate) const PARKED_BYTES: usize = WHOLE_BYTES + 16 * 1024;

const SALT_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// What keys of the two parts are derived for.
const SESSIONS: &str = "casemate/parked/v1";
const WHOLE: &str = "casemate/parked-whole/v1";

/// What the zygote makes once and every vault-manager inherits. It stands in one place of the heap: wherever it is handed on, a process has
/// one copy to wipe. Only deriving a vault's key from it passes it through a hash's own blocks, which are wiped when they are let go.
#[derive(Default)]
pub struct ParkingSecret(ZeroizingVec);

impl fmt::Debug for ParkingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParkingSecret(redacted)")
    }
}

impl ParkingSecret {
    /// A secret that nobody else has.
    pub fn random(randomness: &dyn Randomness) -> Self {
        let mut secret = ZeroizingVec::from(vec![0; 32]);
        randomness.fill(&mut secret);
        Self(secret)
    }

    /// What a fork leaves to a child.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self(self.0.clone())
    }

    /// Takes the secret out, and leaves nothing where it was.
    #[must_use]
    pub fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// The key of one vault.
    pub(super) fn key(&self, vault: VaultId) -> ParkingKey {
        ParkingKey { vault, key: label::derive(self.0.as_slice(), vault.as_bytes(), "casemate/parking/v1", &[]) }
    }
}

/// Seals and opens what one vault parks.
pub(super) struct ParkingKey {
    vault: VaultId,
    key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for ParkingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParkingKey(redacted)")
    }
}

/// What is parked.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Parked {
    /// The vault's root key. The lock key, from which it was made, is not needed.
    #[n(0)]
    pub(super) root: Secret,
    /// The vault's head when it was left.
    #[n(1)]
    pub(super) head: Head,
    /// The sessions.
    #[n(2)]
    pub(super) sessions: Vec<Session>,
    /// What the next version's audit entries tell of beside its changes.
    #[n(3)]
    pub(super) noted: Vec<Noted>,
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked(redacted)")
    }
}

/// The rest of a parked vault, which is not opened before a frame of a session has.
pub(super) struct SealedWhole {
    salt: [u8; SALT_BYTES],
    sealed: Vec<u8>,
}

impl fmt::Debug for SealedWhole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedWhole({} bytes)", self.sealed.len())
    }
}

/// What an open vault is made of beside its root key and its head.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct Whole {
    /// The vault key.
    #[n(0)]
    pub(super) vault_key: Secret,
    /// The committed state.
    #[n(1)]
    pub(super) state: Snapshot,
    /// The shard key generation under which the vault key is wrapped.
    #[n(2)]
    pub(super) generation: u32,
    /// The lock key's number.
    #[n(3)]
    pub(super) lock_number: u32,
    /// The lock key's copies.
    #[n(4)]
    pub(super) copies: Vec<LockCopy>,
    /// The newest snapshot's version.
    #[n(5)]
    pub(super) base: u64,
    /// Bytes of the snapshot's object, and of the deltas' above it.
    #[n(6)]
    pub(super) snapshot_bytes: usize,
    /// See there.
    #[n(7)]
    pub(super) delta_bytes: usize,
    /// How many deltas there are.
    #[n(8)]
    pub(super) deltas: usize,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Whole(redacted)")
    }
}

impl ParkingKey {
    fn cipher(&self, salt: &[u8], label: &str) -> Aes256Gcm {
        let key = label::derive(self.key.as_slice(), salt, label, &[]);
        Aes256Gcm::new_from_slice(key.as_slice()).expect("32 bytes")
    }

    /// Seals under keys that are used once: a fresh salt, the length of the first part, that part, and the whole vault, if it is parked.
    pub(super) fn seal(&self, parked: &Parked, whole: Option<&Whole>, randomness: &dyn Randomness) -> Vec<u8> {
        let mut salt = [0; SALT_BYTES];
        randomness.fill(&mut salt);
        let first = self.seal_part(&salt, SESSIONS, codec::encode_secret(parked));
        let rest = whole.map(|whole| self.seal_part(&salt, WHOLE, codec::encode_secret(whole))).unwrap_or_default();
        let length = u32::try_from(first.len()).expect("a few sessions");
        [&salt[..], &length.to_be_bytes(), &first, &rest].concat()
    }

    fn seal_part(&self, salt: &[u8], label: &str, mut body: ZeroizingVec) -> Vec<u8> {
        let cipher = self.cipher(salt, label);
        let tag = cipher
            .encrypt_inout_detached(&Nonce::default(), self.vault.as_bytes(), body.as_mut_slice().into())
            .expect("a vault is far below AES-GCM's 64 GiB");
        [&body[..], &tag].concat()
    }

    /// Opens the first part of what this vault parked under this zygote.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<(Parked, Option<SealedWhole>)> {
        let (salt, sealed) = sealed.split_first_chunk::<SALT_BYTES>()?;
        let (length, sealed) = sealed.split_first_chunk::<LENGTH_BYTES>()?;
        let (first, rest) = sealed.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let parked = codec::decode(&self.open_part(salt, SESSIONS, first)?, PARKED_BYTES).ok()?;
        Some((parked, (!rest.is_empty()).then(|| SealedWhole { salt: *salt, sealed: rest.to_vec() })))
    }

    /// Opens the rest. Attack stopped: the rest of something that was parked at another time, behind this first part: it has another salt.
    pub(super) fn open_whole(&self, whole: &SealedWhole) -> Option<Whole> {
        codec::decode(&self.open_part(&whole.salt, WHOLE, &whole.sealed)?, PARKED_BYTES).ok()
    }

    fn open_part(&self, salt: &[u8], label: &str, sealed: &[u8]) -> Option<ZeroizingVec> {
        let (sealed, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        let mut body = ZeroizingVec::from(sealed.to_vec());
        let (cipher, tag) = (self.cipher(salt, label), Tag::from(*tag));
        cipher
            .decrypt_inout_detached(&Nonce::default(), self.vault.as_bytes(), body.as_mut_slice().into(), &tag)
            .ok()?;
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::State;
    use super::*;
    use crate::vault::tests::harness::CountingRandomness;

    fn parked() -> Parked {
        let head = Head { version: 7, hash: [1; 32], tag: [2; 32] };
        Parked { root: Secret::new(vec![3; 32]), head, sessions: Vec::new(), noted: Vec::new() }
    }

    fn whole() -> Whole {
        Whole {
            vault_key: Secret::new(vec![4; 32]),
            state: State::new(5).snapshot(),
            generation: 1,
            lock_number: 2,
            copies: Vec::new(),
            base: 3,
            snapshot_bytes: 4,
            delta_bytes: 5,
            deltas: 6,
        }
    }

    #[test]
    fn only_its_own_vault_under_its_own_zygote_opens_it() {
        let randomness = CountingRandomness::default();
        let (secret, other) = (ParkingSecret::random(&randomness), ParkingSecret::random(&randomness));
        let (ours, theirs) = (VaultId::from_bytes([1; 20]), VaultId::from_bytes([2; 20]));
        let sealed = secret.key(ours).seal(&parked(), None, &randomness);
        let (opened, rest) = secret.key(ours).open(&sealed).unwrap();
        assert_eq!((opened.root.as_ref(), opened.head), (&[3; 32][..], parked().head));
        assert!(rest.is_none());
        assert!(secret.key(theirs).open(&sealed).is_none());
        assert!(other.key(ours).open(&sealed).is_none());
        assert_ne!(secret.key(ours).seal(&parked(), None, &randomness), sealed, "no key is used twice");
    }

    #[test]
    fn no_bit_of_it_can_be_changed() {
        let randomness = CountingRandomness::default();
        let key = ParkingSecret::random(&randomness).key(VaultId::from_bytes([1; 20]));
        let opens = |sealed: &[u8]| {
            let (parked, whole) = key.open(sealed)?;
            Some((parked, key.open_whole(&whole?)?))
        };
        let sealed = key.seal(&parked(), Some(&whole()), &randomness);
        let (_, opened) = opens(&sealed).unwrap();
        assert_eq!((opened.state, opened.deltas), (whole().state, 6));
        for bit in 0..8 * sealed.len() {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(opens(&changed).is_none(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(opens(&sealed[..length]).is_none(), "{length} bytes");
        }
    }

    /// Attack: an older vault behind newer sessions, or one in the place of the other.
    #[test]
    fn two_that_were_parked_at_different_times_do_not_go_together() {
        let randomness = CountingRandomness::default();
        let key = ParkingSecret::random(&randomness).key(VaultId::from_bytes([1; 20]));
        let [first, second] = [(); 2].map(|()| key.seal(&parked(), Some(&whole()), &randomness));
        let cut = SALT_BYTES
            + LENGTH_BYTES
            + usize::try_from(u32::from_be_bytes(*first[SALT_BYTES..].first_chunk().unwrap())).unwrap();
        let mixed = [&second[..cut], &first[cut..]].concat();
        let (_, rest) = key.open(&mixed).unwrap();
        assert!(key.open_whole(&rest.unwrap()).is_none());
    }

    #[test]
    fn what_was_taken_is_not_there_any_more() {
        let mut secret = ParkingSecret::random(&CountingRandomness::default());
        let taken = secret.take();
        assert_eq!((secret.0.len(), taken.0.len()), (0, 32));
    }
}
