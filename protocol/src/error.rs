//! Refusals: the closed list of error codes, each with what to do about it.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::lock::LockCopy;

macro_rules! codes {
    ($($number:literal $name:ident $text:literal $means:literal $remedy:literal)*) => {
        /// Why a request was refused. The number is what travels; new codes take new numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
        #[cbor(index_only)]
        pub enum ErrorCode {
            $(#[doc = $means] #[n($number)] $name,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as people and programs read it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $means,)* }
            }

            /// What to do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    0 Malformed "malformed" "The request is not of the form that this protocol version speaks."
        "Upgrade the client; if it is current, report this as a fault."
    1 UnsupportedVersion "unsupported_version" "The other side does not speak this protocol version."
        "Upgrade the older side."
    2 TooLarge "too_large" "A field or the whole request is over its limit."
        "Send less: a secret has at most 64 KiB, a name at most 256 bytes."
    3 InvalidArgument "invalid_argument" "A field has a value that this operation does not take."
        "Correct the argument; the operation's help lists what is allowed."
    4 Busy "busy" "The node or the vault has as much work as it may hold."
        "Try again after the time given."
    5 Unavailable "unavailable" "Something that the request needs (store, key service, enclave) does not answer."
        "Try again after the time given; if it lasts, the operator sees the reason in the node's health."
    6 DeadlineExceeded "deadline_exceeded" "The deadline ended before the request began; nothing was done."
        "Try again, with a longer deadline if it recurs."
    7 OutcomeUnknown "outcome_unknown" "The request may or may not have taken effect."
        "Ask again with the same sequence number (the client does), or read the state."
    8 SessionUnknown "session_unknown" "The vault does not know this session: it was closed or restarted, or the session ended."
        "Make a new session (the client does by itself)."
    9 NotAuthorised "not_authorised" "This device is not one of the vault's devices."
        "Enrol the device from one that is, or use the right CASEMATE_HOME."
    10 NotFound "not_found" "There is nothing of this name."
        "Check the name with the matching list command."
    11 AlreadyExists "already_exists" "There is something of this name already."
        "Choose another name, or delete the old one first."
    12 Conflict "conflict" "The secret's revision is not the expected one: somebody else changed it."
        "Read it again and decide anew."
    13 QuotaExceeded "quota_exceeded" "The vault is full."
        "Delete something; a vault holds 4 MiB, old revisions included."
    14 Deleted "deleted" "The vault was deleted and its name is never used again."
        "Create a new vault."
    15 Moved "moved" "Another node has written this vault."
        "Try again: the request then reaches the vault's present owner."
    16 HeadInvalid "head_invalid" "The head that the device presented was not made by this vault."
        "Check that CASEMATE_HOME belongs to this vault; if it does, somebody forges: tell the operator's security contact."
    17 RollbackDetected "rollback_detected" "The node shows an older state than this device has seen."
        "Do not write. Ask the operator; after an honest restore, run `casemate vault accept-rollback`."
    18 ForkDetected "fork_detected" "The node shows another history than this device has seen."
        "Do not write. Ask the operator; after an honest restore, run `casemate vault accept-rollback`."
    19 HistoryUnknown "history_unknown" "The device's head is too old to be compared with the vault's history."
        "If this device was long unused, confirm with `casemate vault accept-rollback`."
    20 Superseded "superseded" "A newer request of this device came first; this one was never executed."
        "Send it again with a new sequence number if it is still wanted."
    21 LockTurned "lock_turned" "The lock key was turned; the device's copy is an old one."
        "The client opens the new copy by itself; if it cannot, this device was revoked."
    22 WrongAlgorithm "wrong_algorithm" "The key's algorithm cannot do this operation."
        "See `casemate key list` for what each key can do."
    23 NotExportable "not_exportable" "The key was not made exportable and never leaves the vault."
        "Generate or import a key with `--exportable` if it must leave."
    24 VerificationFailed "verification_failed" "The ciphertext or key agreement input is not authentic for this key."
        "Check that key, ciphertext and associated data belong together."
    25 StateCorrupt "state_corrupt" "The stored vault does not authenticate: it was damaged or tampered with."
        "Tell the operator; restore the object store from its versions."
    26 AccessRefused "access_refused" "The key service refuses this enclave."
        "The operator must check the key policy against the node's measurements."
    27 Draining "draining" "The node is shutting down."
        "Try again at once: another node or the restarted one answers."
    28 RateLimited "rate_limited" "More creations or evidence requests than the node allows."
        "Try again after the time given."
    29 Internal "internal" "The node met a condition that it does not handle; nothing is claimed about the outcome."
        "Ask again; if it recurs, report it with the node's version."
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as it travels. Plain ones (outside a session) are forgeable by the host and mean nothing but denial of service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refusal {
    /// Why.
    #[n(0)]
    pub code: ErrorCode,
    /// When trying again makes sense, in milliseconds.
    #[n(1)]
    pub retry_after_ms: Option<u32>,
    /// With `lock_turned`, and only inside a session: the caller's sealed copy of the new lock key.
    #[n(2)]
    pub lock_copy: Option<Box<LockCopy>>,
    /// With `invalid_argument` and `too_large`: the field at fault, from a fixed vocabulary.
    #[n(3)]
    pub field: Option<String>,
}

impl Refusal {
    /// A refusal without particulars.
    pub const fn new(code: ErrorCode) -> Self {
        Self { code, retry_after_ms: None, lock_copy: None, field: None }
    }

    /// A refusal that names when to try again.
    pub const fn retry(code: ErrorCode, after_ms: u32) -> Self {
        Self { code, retry_after_ms: Some(after_ms), lock_copy: None, field: None }
    }

    /// A refusal that names the field at fault.
    pub fn field(code: ErrorCode, field: &'static str) -> Self {
        Self { code, retry_after_ms: None, lock_copy: None, field: Some(field.to_owned()) }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code.meaning())?;
        if let Some(field) = &self.field {
            write!(f, " (field: {field})")?;
        }
        if let Some(ms) = self.retry_after_ms {
            write!(f, " (try again after {ms} ms)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_complete_and_unique() {
        let texts: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for (number, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(crate::codec::decode::<ErrorCode>(&crate::codec::encode(code), 16), Ok(*code));
            assert_eq!(*code as usize, number, "numbers travel and must not shift");
            assert!(code.meaning().ends_with('.') && code.remedy().ends_with('.'));
        }
    }
}
