//! The certificate that a chain must lead to.

use std::fmt;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// A root certificate that the caller trusts. Never taken from evidence, a node or an operator.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustAnchor {
    der: CertificateDer<'static>,
    subject: String,
    fingerprint: [u8; 32],
}

/// Why a certificate cannot be an anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Longer than a certificate of this PKI may be.
    #[error("the root certificate has {found} bytes, at most {limit} are allowed: is it one certificate in DER form?")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not an X.509 certificate.
    #[error("the root certificate cannot be read ({0}): give one X.509 certificate in DER form, not PEM")]
    Malformed(String),
    /// Subject and issuer differ.
    #[error("the root certificate was issued by \"{issuer}\" and not by itself: give the root, not an intermediate")]
    NotSelfIssued {
        /// Who issued it.
        issuer: String,
    },
}

impl TrustAnchor {
    /// The longest root certificate that is taken: Nitro's own limit for certificates in a document.
    pub const MAX_BYTES: usize = crate::nitro::MAX_CERTIFICATE_BYTES;

    /// AWS's root of the Nitro attestation PKI (G1), compiled in. The only anchor that release programs name.
    pub fn aws_nitro() -> Self {
        Self::from_der(crate::nitro::ROOT_G1.to_vec()).expect("the compiled-in root is a root; a test reads it")
    }

    /// Takes a root certificate, in DER form, as an anchor.
    ///
    /// # Errors
    ///
    /// When the bytes are no certificate, or one that another issued.
    pub fn from_der(der: Vec<u8>) -> Result<Self, AnchorError> {
        if der.len() > Self::MAX_BYTES {
            return Err(AnchorError::TooLarge { found: der.len(), limit: Self::MAX_BYTES });
        }
        let malformed = |reason: &dyn fmt::Display| AnchorError::Malformed(reason.to_string());
        let certificate = Certificate::from_der(&der).map_err(|reason| malformed(&reason))?;
        let tbs = certificate.tbs_certificate();
        if tbs.issuer() != tbs.subject() {
            return Err(AnchorError::NotSelfIssued { issuer: tbs.issuer().to_string() });
        }
        let subject = tbs.subject().to_string();
        let fingerprint = Sha256::digest(&der).into();
        let der = CertificateDer::from(der);
        // Asked now, so that a bad anchor is reported where it was configured and not with the first evidence.
        webpki::anchor_from_trusted_cert(&der).map_err(|reason| malformed(&reason))?;
        Ok(Self { der, subject, fingerprint })
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its subject, as in RFC 4514.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchor")
            .field("subject", &self.subject)
            .field("fingerprint", &format_args!("{}", crate::refusal::Short(&self.fingerprint)))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_root_reads_as_published() {
        let anchor = TrustAnchor::aws_nitro();
        assert_eq!(anchor.subject(), "CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US");
        assert!(anchor.fingerprint().starts_with(&[0x64, 0x1a, 0x03, 0x21]));
        assert_eq!(
            format!("{anchor:?}"),
            "TrustAnchor { subject: \"CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US\", fingerprint: 641a0321a3e244ef…, .. }"
        );
    }

    #[test]
    fn what_is_no_root_is_no_anchor() {
        assert!(matches!(
            TrustAnchor::from_der(vec![0; 2000]),
            Err(AnchorError::TooLarge { found: 2000, limit: 1024 })
        ));
        assert!(matches!(TrustAnchor::from_der(Vec::new()), Err(AnchorError::Malformed(_))));
        let mut truncated = TrustAnchor::aws_nitro().der().to_vec();
        truncated.pop();
        assert!(matches!(TrustAnchor::from_der(truncated), Err(AnchorError::Malformed(_))));
        let mut trailing = TrustAnchor::aws_nitro().der().to_vec();
        trailing.push(0);
        assert!(matches!(TrustAnchor::from_der(trailing), Err(AnchorError::Malformed(_))));
    }
}
