//! What can go wrong with a vault, and what to do about it.

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::head::Head;

use crate::home::HomeError;
use crate::judge::Distrust;
use crate::random::RandomError;
use crate::session::Fault;
use crate::transport::TransportError;
use crate::trust::TrustError;

/// The kinds of errors that a program must tell apart. The command line's exit code is this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything else.
    Other = 1,
    /// The command was used wrongly.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Somebody else was first.
    Conflict = 4,
    /// The vault refuses.
    Refused = 5,
    /// The node is not believed. Nothing was sent to it.
    Distrusted = 6,
    /// The vault's state is not the one that this device knows.
    Rollback = 7,
    /// Nobody answered, or was too busy to.
    Unavailable = 8,
    /// It may or may not have been done.
    OutcomeUnknown = 9,
    /// A signature, ciphertext or audit chain is not authentic.
    NotVerified = 10,
}

/// An error that knows its kind, its name and its remedy.
pub trait Explain: std::fmt::Display {
    /// For a program's decision.
    fn kind(&self) -> Kind;
    /// A stable name.
    fn code(&self) -> String;
    /// What to do about it.
    fn remedy(&self) -> String;
}

/// Two heads of one vault that do not belong to one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// What the device holds.
    pub held: Head,
    /// What the node showed; none when it denies the vault.
    pub found: Option<Head>,
}

impl Contradiction {
    fn shown(&self) -> String {
        self.found.map_or_else(
            || "denies that there is such a vault".to_owned(),
            |head| format!("shows version {}", head.version),
        )
    }
}

/// Why an operation on a vault failed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The vault refused, inside the session.
    #[error("the vault refused: {0}")]
    Refused(Refusal),
    /// Somebody on the way refused; it is not authenticated.
    #[error("refused before a session with the vault stood: {0} (not authenticated: the host could have written this)")]
    RefusedOutside(Refusal),
    /// The node is not believed.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    /// An older state than this device has seen, or none at all.
    #[error("rollback: this device has seen version {} of the vault, and the node {}", .0.held.version, .0.shown())]
    Rollback(Box<Contradiction>),
    /// Another history.
    #[error("fork: this device has seen version {} of the vault, and the node shows another history ({})", .0.held.version, .0.shown())]
    Fork(Box<Contradiction>),
    /// The device's head is too old to compare.
    #[error("this device's newest version of the vault, {}, is too old to be compared with its history ({})", .0.held.version, .0.shown())]
    HistoryUnknown(Box<Contradiction>),
    /// It may or may not have been done.
    #[error(
        "no authentic answer by the deadline, or none that the vault remembers: it is not known whether this took effect"
    )]
    OutcomeUnknown,
    /// Nobody answered by the deadline, and nothing was changed by this request.
    #[error("no answer by the deadline ({last})")]
    TimedOut {
        /// The last thing that went wrong.
        last: String,
    },
    /// The lock key was turned and the vault's copy for this device does not open it.
    #[error("the vault's lock key was turned, and this device cannot open the new one")]
    LockedOut,
    /// This device deleted the vault.
    #[error("this vault was deleted")]
    Gone,
    /// The creation of this vault has not been finished.
    #[error("the creation of this vault was begun and is not finished")]
    NotCreated,
    /// There is nothing to accept.
    #[error("the node shows nothing that contradicts this device: there is nothing to accept")]
    NothingToAccept,
    /// The node's answer does not fit the request.
    #[error("the vault's answer is not one for this request")]
    Unexpected,
    /// NATS cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The session machine refused.
    #[error(transparent)]
    Session(#[from] casemate_protocol::session::SessionError),
    /// The device's state cannot be kept.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The system has no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl VaultError {
    /// The refusal of a fault that ends a request.
    pub(crate) fn from_fault(fault: Fault) -> Self {
        match fault {
            Fault::Plain(refusal) => Self::RefusedOutside(refusal),
            Fault::Session(error) => Self::Session(error),
            Fault::Frame(_) | Fault::OutOfPlace | Fault::Mismatch => Self::Unexpected,
        }
    }
}

/// The kind of a refusal.
pub fn kind_of(code: ErrorCode) -> Kind {
    match code {
        ErrorCode::NotFound | ErrorCode::Deleted => Kind::NotFound,
        ErrorCode::AlreadyExists | ErrorCode::Conflict | ErrorCode::Superseded => Kind::Conflict,
        ErrorCode::Malformed
        | ErrorCode::UnsupportedVersion
        | ErrorCode::TooLarge
        | ErrorCode::InvalidArgument
        | ErrorCode::NotAuthorised
        | ErrorCode::QuotaExceeded
        | ErrorCode::LockTurned
        | ErrorCode::WrongAlgorithm
        | ErrorCode::NotExportable
        | ErrorCode::HeadInvalid
        | ErrorCode::StateCorrupt => Kind::Refused,
        ErrorCode::RollbackDetected | ErrorCode::ForkDetected | ErrorCode::HistoryUnknown => Kind::Rollback,
        ErrorCode::Busy
        | ErrorCode::Unavailable
        | ErrorCode::DeadlineExceeded
        | ErrorCode::SessionUnknown
        | ErrorCode::Moved
        | ErrorCode::Draining
        | ErrorCode::RateLimited
        | ErrorCode::AccessRefused => Kind::Unavailable,
        ErrorCode::OutcomeUnknown => Kind::OutcomeUnknown,
        ErrorCode::VerificationFailed => Kind::NotVerified,
        ErrorCode::Internal => Kind::Other,
    }
}

impl Explain for VaultError {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused(refusal) | Self::RefusedOutside(refusal) => kind_of(refusal.code),
            Self::Distrusted(_) => Kind::Distrusted,
            Self::Rollback(_) | Self::Fork(_) | Self::HistoryUnknown(_) => Kind::Rollback,
            Self::OutcomeUnknown => Kind::OutcomeUnknown,
            Self::TimedOut { .. } => Kind::Unavailable,
            Self::LockedOut => Kind::Refused,
            Self::Gone | Self::NotCreated => Kind::NotFound,
            Self::NothingToAccept => Kind::Conflict,
            Self::Transport(error) => error.kind(),
            Self::Home(error) => error.kind(),
            Self::Unexpected | Self::Session(_) | Self::Random(_) => Kind::Other,
        }
    }

    fn code(&self) -> String {
        match self {
            Self::Refused(refusal) | Self::RefusedOutside(refusal) => refusal.code.as_str(),
            Self::Distrusted(distrust) => distrust.code(),
            Self::Rollback(_) => ErrorCode::RollbackDetected.as_str(),
            Self::Fork(_) => ErrorCode::ForkDetected.as_str(),
            Self::HistoryUnknown(_) => ErrorCode::HistoryUnknown.as_str(),
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown.as_str(),
            Self::TimedOut { .. } => "timed_out",
            Self::LockedOut => ErrorCode::LockTurned.as_str(),
            Self::Gone => ErrorCode::Deleted.as_str(),
            Self::NotCreated => "not_created",
            Self::NothingToAccept => "nothing_to_accept",
            Self::Unexpected => "unexpected_answer",
            Self::Session(_) => "session",
            Self::Transport(error) => return error.code(),
            Self::Home(error) => return error.code(),
            Self::Random(_) => "no_randomness",
        }
        .to_owned()
    }

    fn remedy(&self) -> String {
        match self {
            Self::Refused(refusal) | Self::RefusedOutside(refusal) => refusal.code.remedy(),
            Self::Distrusted(distrust) => distrust.remedy(),
            Self::Rollback(heads) if heads.found.is_none() => {
                "Do not create it again. Ask the operator: either the node looks into the wrong store, or the vault's objects were removed."
            }
            Self::Rollback(_) => ErrorCode::RollbackDetected.remedy(),
            Self::Fork(_) => ErrorCode::ForkDetected.remedy(),
            Self::HistoryUnknown(_) => ErrorCode::HistoryUnknown.remedy(),
            Self::OutcomeUnknown => {
                "Read the state; or run the very same command again, before another one that changes the same: it asks for the outcome under the same sequence number and does nothing twice."
            }
            Self::TimedOut { .. } => {
                "Try again, with a longer --timeout if it recurs; the operator sees the reason in the node's health."
            }
            Self::LockedOut => ErrorCode::NotAuthorised.remedy(),
            Self::Gone => ErrorCode::Deleted.remedy(),
            Self::NotCreated => "Run `casemate vault create` again: it finishes the creation that was begun.",
            Self::NothingToAccept => "Nothing needs to be done.",
            Self::Unexpected | Self::Session(_) => "Upgrade this program; if it is current, tell the operator: somebody on the way may interfere.",
            Self::Transport(error) => error.remedy(),
            Self::Home(error) => return error.remedy(),
            Self::Random(_) => "Wait until the system has gathered randomness.",
        }
        .to_owned()
    }
}

impl Explain for TransportError {
    fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::Usage,
            Self::Credentials { .. } => Kind::Refused,
            Self::Connect { .. } | Self::NoResponders | Self::TimedOut | Self::TooLarge | Self::Lost(_) => {
                Kind::Unavailable
            }
        }
    }

    fn code(&self) -> String {
        match self {
            Self::Connect { .. } => "nats_connect",
            Self::Credentials { .. } => "nats_credentials",
            Self::File { .. } => "file",
            Self::NoResponders => "no_responders",
            Self::TimedOut => "timed_out",
            Self::TooLarge => "nats_max_payload",
            Self::Lost(_) => "nats_lost",
        }
        .to_owned()
    }

    fn remedy(&self) -> String {
        Self::remedy(self).to_owned()
    }
}

impl Explain for HomeError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoVault(_) => Kind::NotFound,
            Self::Locked { .. } => Kind::Unavailable,
            Self::Io { .. } | Self::Exposed { .. } | Self::Damaged { .. } | Self::Newer { .. } | Self::Random(_) => {
                Kind::Other
            }
        }
    }

    fn code(&self) -> String {
        match self {
            Self::Io { .. } => "home_io",
            Self::Exposed { .. } => "home_exposed",
            Self::Damaged { .. } => "home_damaged",
            Self::Newer { .. } => "home_newer",
            Self::Locked { .. } => "home_locked",
            Self::NoVault(_) => "no_such_vault",
            Self::Random(_) => "no_randomness",
        }
        .to_owned()
    }

    fn remedy(&self) -> String {
        Self::remedy(self)
    }
}

impl Explain for Distrust {
    fn kind(&self) -> Kind {
        Kind::Distrusted
    }

    fn code(&self) -> String {
        Self::code(self).to_owned()
    }

    fn remedy(&self) -> String {
        Self::remedy(self).to_owned()
    }
}

impl Explain for TrustError {
    fn kind(&self) -> Kind {
        Kind::Distrusted
    }

    fn code(&self) -> String {
        "trust_file".to_owned()
    }

    fn remedy(&self) -> String {
        Self::remedy(self).to_owned()
    }
}
