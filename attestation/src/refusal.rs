//! Why evidence was refused: one variant for each rule.

use std::fmt;

use crate::nitro::{ChainError, DocumentError, EnvelopeError};

/// Why evidence was refused. The text names the rule, what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no COSE_Sign1 envelope as Nitro makes them.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope holds no attestation document as AWS specifies it.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The certificates do not lead from the document's key to the trust anchor.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The leaf certificate's key did not sign the document.
    #[error(
        "the document's signature does not verify with the leaf certificate's key: the document was changed, or was never signed"
    )]
    Signature,
    /// Made later than now.
    #[error(
        "the document is from the future: it was made at {issued_at_unix} and it is {now_unix} (Unix seconds), at most \
         {skew_seconds} s ahead are allowed; check this machine's clock"
    )]
    FromTheFuture {
        /// When the document says it was made.
        issued_at_unix: u64,
        /// The verifier's time.
        now_unix: u64,
        /// How far ahead it may be.
        skew_seconds: u64,
    },
    /// Made too long ago.
    #[error(
        "the document is {age_seconds} s old (made at {issued_at_unix}, it is {now_unix}), at most {max_age_seconds} s are \
         allowed; ask for fresh evidence, and check this machine's clock"
    )]
    TooOld {
        /// When the document says it was made.
        issued_at_unix: u64,
        /// The verifier's time.
        now_unix: u64,
        /// The difference.
        age_seconds: u64,
        /// How old it may be.
        max_age_seconds: u64,
    },
    /// A debug enclave.
    #[error(
        "PCR{pcr} is all zero: the enclave runs in debug mode, where its host can read its console; start it without debug mode"
    )]
    Debug {
        /// The first register that is zero.
        pcr: u8,
    },
    /// The policy lists no image.
    #[error(
        "the policy lists no measurements, so no enclave is believed; add a release, or a trust file for a self-built image"
    )]
    NoMeasurements,
    /// The enclave runs another image.
    #[error(
        "PCR{pcr} is {found}, wanted {wanted} (the nearest of {images} known images): the enclave runs an image that this \
         verifier does not believe"
    )]
    Measurement {
        /// The first register that differs from the nearest image.
        pcr: u8,
        /// Its value, shortened hex.
        found: String,
        /// The nearest image's value, shortened hex.
        wanted: String,
        /// How many images the policy lists.
        images: usize,
    },
    /// Not the verifier's nonce.
    #[error("the document's nonce is {found}, wanted {wanted}: it answers somebody else's question, or is a replay")]
    Nonce {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
    /// Not the expected binding.
    #[error("the document binds user data {found}, wanted {wanted}: it speaks for another node or another cluster")]
    UserData {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
    /// Not the expected key.
    #[error("the document binds public key {found}, wanted {wanted}: it speaks for another key")]
    PublicKey {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
}

/// Bytes as hex, shortened so that a message stays readable: nobody compares 96 digits by eye.
pub(crate) struct Short<'a>(pub(crate) &'a [u8]);

impl Short<'_> {
    const SHOWN: usize = 8;

    pub(crate) fn text(bytes: &[u8]) -> String {
        Short(bytes).to_string()
    }

    pub(crate) fn optional(bytes: Option<&[u8]>) -> String {
        bytes.map_or_else(|| "absent".to_owned(), Self::text)
    }
}

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("empty");
        }
        for byte in self.0.iter().take(Self::SHOWN) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > Self::SHOWN { f.write_str("…") } else { Ok(()) }
    }
}
