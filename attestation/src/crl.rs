//! Certificate revocation lists (RFC 5280, section 5): read, held to their issuer's key and to their time, asked for a certificate.

use rustls_pki_types::SignatureVerificationAlgorithm;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};

use crate::chain::{CertificateName, ChainError, CrlError};
use crate::refusal::{Short, printable};

/// The longest list that is read: AMD's have about 1 KiB, Intel's 6 KiB.
pub(crate) const MAX_CRL_BYTES: usize = 64 * 1024;
/// The most lists that may come with evidence: one for each issuer of a path.
pub(crate) const MAX_CRLS: usize = 4;

/// A list that was read. Nothing in it is verified yet.
#[derive(Debug)]
pub(crate) struct RevocationList<'a> {
    list: CertificateList,
    /// The bytes that are signed.
    signed: &'a [u8],
    /// The contents of its AlgorithmIdentifier.
    algorithm: &'a [u8],
}

/// Someone who may issue lists: a certificate's subject and its key.
pub(crate) struct Issuer<'a> {
    /// The subject, DER.
    pub(crate) name: &'a [u8],
    /// The key as it stands in the certificate's bit string.
    pub(crate) key: &'a [u8],
}

/// One element of DER.
struct Element<'a> {
    contents: &'a [u8],
    /// All of it.
    whole: &'a [u8],
    after: &'a [u8],
}

fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (_tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some(Element { contents, whole: &bytes[..bytes.len() - after.len()], after })
}

impl<'a> RevocationList<'a> {
    /// Reads a list.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, CrlError> {
        if der.len() > MAX_CRL_BYTES {
            return Err(CrlError::TooLarge { found: der.len(), limit: MAX_CRL_BYTES });
        }
        let list = CertificateList::from_der(der).map_err(|reason| CrlError::Malformed(reason.to_string()))?;
        let parts = element(der).and_then(|outer| {
            let signed = element(outer.contents)?;
            Some((signed.whole, element(signed.after)?.contents))
        });
        let (signed, algorithm) = parts.ok_or_else(|| CrlError::Malformed("not a sequence of three".to_owned()))?;
        // Attack stopped: a list of changes, or of some kinds of certificates only, shown as if it were the whole.
        let mut extensions = list.tbs_cert_list.crl_extensions.iter().flatten();
        if let Some(extension) = extensions.find(|extension| extension.critical) {
            return Err(CrlError::Malformed(format!("critical extension {}", extension.extn_id)));
        }
        Ok(Self { list, signed, algorithm })
    }

    /// Who is said to have issued it, as in RFC 4514.
    fn issuer(&self) -> String {
        printable(&self.list.tbs_cert_list.issuer.to_string())
    }

    fn issuer_der(&self) -> Vec<u8> {
        self.list.tbs_cert_list.issuer.to_der().unwrap_or_default()
    }

    /// When it begins and ends, Unix seconds.
    pub(crate) fn window(&self) -> (u64, Option<u64>) {
        let tbs = &self.list.tbs_cert_list;
        (tbs.this_update.to_unix_duration().as_secs(), tbs.next_update.map(|time| time.to_unix_duration().as_secs()))
    }

    /// Judges its time; returns its last second.
    pub(crate) fn judge_time(&self, now_unix: u64) -> Result<u64, CrlError> {
        let issuer = || self.issuer();
        match self.window() {
            // Attack stopped: an old list, from before the machine's key was stolen, shown for ever.
            (_, Some(next_update_unix)) if now_unix >= next_update_unix => {
                Err(CrlError::Stale { issuer: issuer(), next_update_unix, now_unix })
            }
            (this_update_unix, Some(next_update_unix)) if now_unix >= this_update_unix => Ok(next_update_unix - 1),
            _ => Err(CrlError::NotYetValid { issuer: issuer(), now_unix }),
        }
    }

    /// Judges its signature; returns the place of its issuer in `issuers`.
    pub(crate) fn judge_signature(
        &self,
        issuers: &[Issuer<'_>],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<usize, CrlError> {
        let name = self.issuer_der();
        let place = issuers.iter().position(|issuer| issuer.name == name);
        let place = place.ok_or_else(|| CrlError::Issuer { found: self.issuer() })?;
        let signature = self.list.signature.raw_bytes();
        let verifies = algorithms
            .iter()
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.algorithm)
            .any(|algorithm| algorithm.verify_signature(issuers[place].key, self.signed, signature).is_ok());
        // Attack stopped: an empty list of the host's own making.
        if verifies { Ok(place) } else { Err(CrlError::Signature { issuer: self.issuer() }) }
    }

    /// Refuses `certificate` if this list, of its issuer, names it.
    pub(crate) fn judge(&self, name: CertificateName, certificate: &Certificate) -> Result<(), ChainError> {
        let tbs = certificate.tbs_certificate();
        if *tbs.issuer() != self.list.tbs_cert_list.issuer {
            return Ok(());
        }
        let serial = tbs.serial_number();
        let mut revoked = self.list.tbs_cert_list.revoked_certificates.iter().flatten();
        // Attack stopped: a key that its issuer knows to be stolen.
        if revoked.any(|revoked| revoked.serial_number == *serial) {
            return Err(ChainError::Revoked { certificate: name, serial: Short::text(serial.as_bytes()) });
        }
        Ok(())
    }
}

/// Whether `bytes` are a list; for fuzzing.
pub(crate) fn is_taken(bytes: &[u8]) -> bool {
    let Ok(list) = RevocationList::parse(bytes) else { return false };
    let (begin, _) = list.window();
    let _ = list.judge_time(begin);
    let name = list.issuer_der();
    let key = crate::anchor::amd_key();
    let issuers = [Issuer { name: &name, key: &key }];
    // Nobody but AMD has that key, and AMD's lists are not among what a fuzzer begins with.
    assert!(list.judge_signature(&issuers, crate::backend::AMD_CERTIFICATES).is_err());
    true
}
