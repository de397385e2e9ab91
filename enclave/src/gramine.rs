//! The security module of an SGX enclave under Gramine: `/dev/attestation`, where a quote is asked for by writing 64 bytes and got by reading
//! (<https://gramine.readthedocs.io/en/stable/attestation.html>).

use std::sync::{Mutex, PoisonError};

use casemate_attestation::MAX_EVIDENCE_BYTES;
use casemate_attestation::intel::{Quote, TeeKind};

use crate::outside::{EvidenceRequest, Measurements, ModuleError, SecurityModule};
use crate::pseudo_files::{KernelFiles, PseudoFiles};
use crate::tsm::{NO_REGISTERS, bound};

/// Where Gramine has it.
const FOLDER: &str = "/dev/attestation";
/// The longest text of a small file.
const TEXT_BYTES: usize = 64;
// Places in an SGX quote of version 3: the header, then the enclave's report.
const MRENCLAVE_AT: usize = 48 + 64;
const REPORT_DATA_AT: usize = 48 + 320;

/// The security module of an SGX enclave under Gramine.
#[derive(Debug)]
pub struct Gramine<F> {
    files: F,
    /// The files are the whole process's: whoever writes between would get our quote, and we his.
    turn: Mutex<()>,
}

impl Gramine<KernelFiles> {
    /// Gramine's own.
    pub fn open() -> Self {
        Self::over(KernelFiles::below(FOLDER))
    }
}

fn refused(operation: &'static str, reason: &dyn ToString) -> ModuleError {
    ModuleError { operation, reason: reason.to_string() }
}

impl<F: PseudoFiles> Gramine<F> {
    /// Over other files than Gramine's.
    pub fn over(files: F) -> Self {
        Self { files, turn: Mutex::new(()) }
    }

    fn quote(&self, operation: &'static str, data: &[u8; 64]) -> Result<Vec<u8>, ModuleError> {
        let failed = |error: std::io::Error| refused(operation, &error);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = self.files.read("attestation_type", TEXT_BYTES).map_err(failed)?;
        // EPID is withdrawn, and `none` is a manifest without remote attestation.
        if kind.trim_ascii() != b"dcap" {
            let reason = format!("attestation_type is {}, wanted dcap", String::from_utf8_lossy(kind.trim_ascii()));
            return Err(refused(operation, &reason));
        }
        self.files.write("user_report_data", data).map_err(failed)?;
        let quote = self.files.read("quote", MAX_EVIDENCE_BYTES).map_err(failed)?;
        match Quote::parse(&quote) {
            Ok(parsed) if parsed.kind == TeeKind::Sgx && parsed.signed_bytes().get(REPORT_DATA_AT..) == Some(data) => {
                Ok(quote)
            }
            Ok(_) => Err(refused(operation, &"the quote does not bind what was asked")),
            Err(error) => Err(refused(operation, &error)),
        }
    }
}

impl<F: PseudoFiles> SecurityModule for Gramine<F> {
    /// MRENCLAVE with 16 zeros behind it, three times: it is a SHA-256.
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        let quote = self.quote("measurements of /dev/attestation", &[0; 64])?;
        let mut measurement = [0; 48];
        measurement[..32].copy_from_slice(&quote[MRENCLAVE_AT..MRENCLAVE_AT + 32]);
        Ok(Measurements { pcrs: [measurement; 3] })
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        self.quote("quote of /dev/attestation", &bound(request))
    }

    fn extend(&self, _: u16, _: &[u8]) -> Result<Vec<u8>, ModuleError> {
        Err(refused("extend", &NO_REGISTERS))
    }

    fn lock(&self, _: u16) -> Result<(), ModuleError> {
        Err(refused("lock", &NO_REGISTERS))
    }

    /// What evidence comes from here tells no time.
    fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
        Ok(None)
    }

    /// Gramine's getrandom(2), which is the processor's instruction.
    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError> {
        getrandom::fill(out).map_err(|error| refused("random", &error))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// As Gramine answers: a quote over what was written last, zeros before that; folders can be neither made nor removed.
    #[derive(Debug)]
    struct FakeGramine {
        kind: &'static str,
        data: Mutex<[u8; 64]>,
        /// Binds something else than what was written.
        lies: bool,
    }

    impl PseudoFiles for FakeGramine {
        fn make(&self, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn remove(&self, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
            if file != "user_report_data" {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            *self.data.lock().unwrap() = bytes.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(())
        }

        fn read(&self, file: &str, _: usize) -> io::Result<Vec<u8>> {
            match file {
                "attestation_type" => Ok(self.kind.as_bytes().to_vec()),
                "quote" if self.kind == "dcap" => {
                    let mut quote = vec![0; 48 + 384];
                    (quote[0], quote[2]) = (3, 2);
                    quote[12..28].copy_from_slice(&[
                        0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
                    ]);
                    quote[MRENCLAVE_AT..MRENCLAVE_AT + 32].fill(0x3e);
                    quote[REPORT_DATA_AT..].copy_from_slice(&*self.data.lock().unwrap());
                    quote[REPORT_DATA_AT] ^= u8::from(self.lies);
                    let signature = 128 + 384 + 64 + 2 + 32 + 6;
                    quote.extend(u32::try_from(signature).unwrap().to_le_bytes());
                    let start = quote.len();
                    quote.resize(start + signature, 0);
                    (quote[start + 576], quote[start + 610]) = (32, 5);
                    Ok(quote)
                }
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn module(kind: &'static str, lies: bool) -> Gramine<FakeGramine> {
        Gramine::over(FakeGramine { kind, data: Mutex::new([0; 64]), lies })
    }

    #[test]
    fn a_quote_binds_the_request() {
        let request = || EvidenceRequest { nonce: Some(b"nonce".to_vec()), ..EvidenceRequest::default() };
        let evidence = module("dcap", false).attest(request()).unwrap();
        assert!(Quote::parse(&evidence).unwrap().signed_bytes().ends_with(&bound(request())));
        let measured = module("dcap", false).measurements().unwrap().pcrs;
        assert_eq!((&measured[0][..32], &measured[0][32..]), (&[0x3e; 32][..], &[0; 16][..]));
        assert!(module("dcap", true).attest(request()).unwrap_err().reason.contains("does not bind"));
        for kind in ["epid", "none"] {
            assert!(module(kind, false).attest(request()).unwrap_err().reason.contains(kind));
        }
        assert!(module("dcap", false).extend(16, b"data").is_err() && module("dcap", false).lock(16).is_err());
    }
}
