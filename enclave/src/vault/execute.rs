//! Operations on a state: reads answer from it, mutations write changes into an overlay of it.

use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::{self, PAGE_ENTRIES};
use casemate_protocol::lock::recipient_tag;
use casemate_protocol::reply::{Answer, AuditEntry, AuditEvent, VaultStatus};
use casemate_protocol::request::{Operation, accept_rollback_bytes};
use casemate_protocol::secret::Secret;

use super::body::{Change, KeyRecord, OutcomeRecord, Revision};
use super::device::Standing;
use super::keys;
use super::state::{State, key_entry, secret_entry};
use crate::outside::Randomness;

/// Room that a mutation leaves for its outcome and its audit entry.
const BOOKKEEPING: usize = 2048;

/// Who asks, when, and where the result will stand.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The vault.
    pub vault: VaultId,
    /// The device's static key.
    pub device: [u8; 32],
    /// Unix seconds.
    pub now: u64,
    /// Randomness for keys and nonces.
    pub randomness: &'a dyn Randomness,
}

/// The numbers of a status that the state itself does not know.
#[derive(Debug, Clone, Copy)]
pub struct Standpoint {
    /// The lock number.
    pub lock_number: u32,
    /// The shard key's generation.
    pub key_generation: u32,
}

/// A state that is about to become the next version, and the changes that lead there.
#[derive(Debug)]
pub struct Overlay {
    /// The state as it will be.
    pub state: State,
    /// The version that it will be.
    pub version: u64,
    /// What leads there.
    pub changes: Vec<Change>,
}

impl Overlay {
    /// Applies a change that this code has just made: it fits by construction.
    fn change(&mut self, change: Change) {
        self.state.apply(change.clone()).expect("changes are made to fit the state that they are made from");
        self.changes.push(change);
    }

    /// Appends to the audit chain.
    pub fn audit(&mut self, context: &Context<'_>, event: AuditEvent, subject: Option<&str>) {
        let mut entry = AuditEntry {
            number: self.state.audit.next_number(),
            at: context.now,
            version: self.version,
            device: recipient_tag(context.vault, &context.device),
            event,
            subject: subject.map(str::to_owned),
            hash: [0; 32],
        };
        entry.hash = entry.chain(&self.state.audit.last_hash());
        self.change(Change::Audited(entry));
    }

    /// Enrols a device.
    pub fn add_device(&mut self, device: &super::device::Device) {
        self.change(Change::DeviceAdded(device.record()));
    }

    /// Remembers a mutation's outcome.
    pub fn remember(&mut self, device: [u8; 32], sequence: u64, request_hash: [u8; 32], answer: Option<&Answer>) {
        let encoded = answer.map(codec::encode).filter(|bytes| bytes.len() <= limits::OUTCOME_BYTES).map(Secret::new);
        let record = OutcomeRecord { sequence, request_hash, answer: encoded };
        self.change(Change::Outcome { device, record });
    }
}

/// Whether an operation becomes a version: it changes the vault, or uses a key whose uses are audited.
pub fn is_durable(state: &State, operation: &Operation) -> bool {
    operation.is_mutation()
        || match operation {
            Operation::KeyExport { name } => state.keys.get(name).is_some_and(|key| key.policy.exportable),
            Operation::KeySign { name, .. }
            | Operation::KeyVerify { name, .. }
            | Operation::KeyAgree { name, .. }
            | Operation::KeyEncrypt { name, .. }
            | Operation::KeyDecrypt { name, .. }
            | Operation::KeyMac { name, .. } => state.keys.get(name).is_some_and(|key| key.policy.audit_use),
            _ => false,
        }
}

fn not_found() -> Refusal {
    ErrorCode::NotFound.into()
}

fn key<'a>(state: &'a State, name: &str) -> Result<&'a KeyRecord, Refusal> {
    state.keys.get(name).map(|key| &**key).ok_or_else(not_found)
}

/// Answers an operation that changes nothing.
///
/// # Errors
/// The refusal that the device gets.
pub fn read(
    state: &State,
    standpoint: Standpoint,
    context: &Context<'_>,
    operation: &Operation,
) -> Result<Answer, Refusal> {
    match operation {
        Operation::Status => Ok(Answer::Status(status(state, standpoint))),
        Operation::SecretGet { name, revision } => {
            let revisions = state.secrets.get(name).ok_or_else(not_found)?;
            let found = match revision {
                None => revisions.front(),
                Some(number) => revisions.iter().find(|kept| kept.number == *number),
            };
            let found = found.ok_or_else(not_found)?;
            Ok(Answer::Secret { value: found.value.clone(), revision: found.number, written_at: found.written_at })
        }
        Operation::SecretList { prefix, after } => {
            let from = match after.as_deref() {
                Some(after) if after >= prefix.as_str() => std::ops::Bound::Excluded(after),
                _ => std::ops::Bound::Included(prefix.as_str()),
            };
            let mut matching = state
                .secrets
                .range::<str, _>((from, std::ops::Bound::Unbounded))
                .take_while(|(name, _)| name.starts_with(prefix.as_str()));
            let entries = matching.by_ref().take(PAGE_ENTRIES).map(|(name, revisions)| {
                secret_entry(name, revisions.front().expect("a secret has at least one revision"))
            });
            let entries = entries.collect();
            Ok(Answer::Secrets { entries, more: matching.next().is_some() })
        }
        Operation::SecretHistory { name } => {
            let revisions = state.secrets.get(name).ok_or_else(not_found)?;
            Ok(Answer::History { entries: revisions.iter().map(|revision| secret_entry(name, revision)).collect() })
        }
        Operation::KeyList { after } => {
            let from = after.as_deref().unwrap_or("");
            let mut rest = state.keys.range::<str, _>((std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded));
            let entries = rest.by_ref().take(PAGE_ENTRIES).map(|(_, key)| key_entry(key)).collect();
            Ok(Answer::Keys { entries, more: rest.next().is_some() })
        }
        Operation::KeyPublic { name } => {
            let entry = key_entry(key(state, name)?);
            if entry.public.is_some() { Ok(Answer::Key(entry)) } else { Err(ErrorCode::WrongAlgorithm.into()) }
        }
        Operation::Audit { after } => Ok(state.audit.page(*after)),
        _ => use_key(state, context, operation),
    }
}

fn status(state: &State, standpoint: Standpoint) -> VaultStatus {
    VaultStatus {
        created_at: state.created_at,
        secrets: state.secrets.len() as u64,
        keys: state.keys.len() as u64,
        devices: state.devices.len() as u64,
        used_bytes: state.used_bytes() as u64,
        limit_bytes: (limits::VAULT_BYTES - limits::RESERVED_BYTES) as u64,
        lock_number: standpoint.lock_number,
        key_generation: standpoint.key_generation,
        audit_entries: state.audit.next_number() - 1,
    }
}

/// Uses a key.
fn use_key(state: &State, context: &Context<'_>, operation: &Operation) -> Result<Answer, Refusal> {
    match operation {
        Operation::KeySign { name, message } => {
            let key = key(state, name)?;
            keys::sign(key.algorithm, &key.material, message).map(Answer::Signature)
        }
        Operation::KeyVerify { name, message, signature } => {
            let key = key(state, name)?;
            keys::verify(key.algorithm, &key.material, message, signature).map(Answer::Verified)
        }
        Operation::KeyAgree { name, peer } => {
            let key = key(state, name)?;
            keys::agree(key.algorithm, &key.material, peer).map(Answer::Bytes)
        }
        Operation::KeyEncrypt { name, plaintext, associated } => {
            let key = key(state, name)?;
            keys::encrypt(key.algorithm, &key.material, plaintext, associated, context.randomness)
                .map(Answer::Ciphertext)
        }
        Operation::KeyDecrypt { name, ciphertext, associated } => {
            let key = key(state, name)?;
            keys::decrypt(key.algorithm, &key.material, ciphertext, associated).map(Answer::Bytes)
        }
        Operation::KeyMac { name, message } => {
            let key = key(state, name)?;
            keys::mac(key.algorithm, &key.material, message).map(Answer::Signature)
        }
        Operation::KeyExport { name } => {
            let key = key(state, name)?;
            if key.policy.exportable {
                Ok(Answer::Bytes(key.material.clone()))
            } else {
                Err(ErrorCode::NotExportable.into())
            }
        }
        _ => Err(ErrorCode::Internal.into()),
    }
}

/// Executes a durable operation in the overlay, once for its sequence number.
///
/// # Errors
/// The refusal that the device gets; the overlay is then as before.
pub fn mutate(
    overlay: &mut Overlay,
    context: &Context<'_>,
    sequence: Option<u64>,
    request_hash: &[u8; 32],
    operation: &Operation,
) -> Result<Answer, Refusal> {
    let sequence = sequence.ok_or_else(|| Refusal::field(ErrorCode::InvalidArgument, "sequence"))?;
    let device = overlay.state.device(&context.device).ok_or(ErrorCode::NotAuthorised)?;
    match device.standing(sequence, request_hash) {
        Standing::New => {}
        Standing::Known(answer) => return Ok(answer),
        Standing::Repeat => return use_key(&overlay.state, context, operation),
        Standing::Refused(refusal) => return Err(refusal),
    }
    let answer = change(overlay, context, operation)?;
    // Results of key uses are computed again on a retry rather than kept.
    let kept = (!operation.uses_key()).then_some(&answer);
    overlay.remember(context.device, sequence, *request_hash, kept);
    Ok(answer)
}

fn change(overlay: &mut Overlay, context: &Context<'_>, operation: &Operation) -> Result<Answer, Refusal> {
    match operation {
        Operation::SecretPut { name, value, expected_revision } => {
            room(overlay, name.len() + value.len())?;
            expect_revision(overlay, name, *expected_revision)?;
            let number = overlay.state.last_revision + 1;
            let revision = Revision { number, written_at: context.now, value: value.clone() };
            overlay.change(Change::SecretWritten { name: name.clone(), revision });
            overlay.audit(context, AuditEvent::SecretWritten, Some(name));
            Ok(Answer::Written { revision: number })
        }
        Operation::SecretDelete { name, expected_revision } => {
            if !overlay.state.secrets.contains_key(name) {
                return Err(not_found());
            }
            expect_revision(overlay, name, *expected_revision)?;
            overlay.change(Change::SecretDeleted { name: name.clone() });
            overlay.audit(context, AuditEvent::SecretDeleted, Some(name));
            Ok(Answer::Nothing)
        }
        Operation::KeyGenerate { name, algorithm, policy } => {
            let material = keys::generate(*algorithm, context.randomness);
            let record = KeyRecord {
                name: name.clone(),
                algorithm: *algorithm,
                policy: *policy,
                created_at: context.now,
                material,
            };
            add_key(overlay, context, record, AuditEvent::KeyGenerated)
        }
        Operation::KeyImport { name, algorithm, policy, material } => {
            keys::check(*algorithm, material)?;
            let (name, material) = (name.clone(), material.clone());
            let record = KeyRecord { name, algorithm: *algorithm, policy: *policy, created_at: context.now, material };
            add_key(overlay, context, record, AuditEvent::KeyImported)
        }
        Operation::KeyDelete { name } => {
            key(&overlay.state, name)?;
            overlay.change(Change::KeyDeleted { name: name.clone() });
            overlay.audit(context, AuditEvent::KeyDeleted, Some(name));
            Ok(Answer::Nothing)
        }
        Operation::AcceptRollback { held, found, signature } => {
            accept_rollback(overlay, context, (held, found), signature)
        }
        Operation::DeleteVault => {
            overlay.audit(context, AuditEvent::VaultDeleted, None);
            Ok(Answer::Nothing)
        }
        Operation::CreateVault { .. } => Err(ErrorCode::AlreadyExists.into()),
        Operation::KeyExport { name } => audited_use(overlay, context, operation, name, AuditEvent::KeyExported),
        Operation::KeySign { name, .. }
        | Operation::KeyVerify { name, .. }
        | Operation::KeyAgree { name, .. }
        | Operation::KeyEncrypt { name, .. }
        | Operation::KeyDecrypt { name, .. }
        | Operation::KeyMac { name, .. } => audited_use(overlay, context, operation, name, AuditEvent::KeyUsed),
        _ => Err(ErrorCode::Internal.into()),
    }
}

fn audited_use(
    overlay: &mut Overlay,
    context: &Context<'_>,
    operation: &Operation,
    name: &str,
    event: AuditEvent,
) -> Result<Answer, Refusal> {
    room(overlay, 0)?;
    let answer = use_key(&overlay.state, context, operation)?;
    overlay.audit(context, event, Some(name));
    Ok(answer)
}

fn add_key(
    overlay: &mut Overlay,
    context: &Context<'_>,
    record: KeyRecord,
    event: AuditEvent,
) -> Result<Answer, Refusal> {
    room(overlay, record.name.len() + record.material.len())?;
    if overlay.state.keys.contains_key(&record.name) {
        return Err(ErrorCode::AlreadyExists.into());
    }
    let (name, entry) = (record.name.clone(), key_entry(&record));
    overlay.change(Change::KeyAdded(record));
    overlay.audit(context, event, Some(&name));
    Ok(Answer::Key(entry))
}

/// Attack stopped: a host that offers an old state as "restored" cannot make a device's session accept it; only the device's own
/// signature over both heads does.
fn accept_rollback(
    overlay: &mut Overlay,
    context: &Context<'_>,
    (held, found): (&casemate_protocol::head::Head, &casemate_protocol::head::Head),
    signature: &[u8; 64],
) -> Result<Answer, Refusal> {
    let device = overlay.state.device(&context.device).ok_or(ErrorCode::NotAuthorised)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&device.signing_key)
        .map_err(|_| Refusal::field(ErrorCode::InvalidArgument, "signature"))?;
    let signed = accept_rollback_bytes(context.vault, held, found);
    key.verify_strict(&signed, &ed25519_dalek::Signature::from_bytes(signature))
        .map_err(|_| Refusal::field(ErrorCode::InvalidArgument, "signature"))?;
    overlay.audit(context, AuditEvent::RollbackAccepted, None);
    Ok(Answer::Nothing)
}

fn room(overlay: &Overlay, bytes: usize) -> Result<(), Refusal> {
    let limit = limits::VAULT_BYTES - limits::RESERVED_BYTES;
    if overlay.state.used_bytes() + bytes + BOOKKEEPING <= limit {
        Ok(())
    } else {
        Err(ErrorCode::QuotaExceeded.into())
    }
}

fn expect_revision(overlay: &Overlay, name: &str, expected: Option<u64>) -> Result<(), Refusal> {
    let Some(expected) = expected else { return Ok(()) };
    let present =
        overlay.state.secrets.get(name).and_then(|revisions| revisions.front()).map_or(0, |newest| newest.number);
    if present == expected { Ok(()) } else { Err(ErrorCode::Conflict.into()) }
}
