//! The Nitro security module: `/dev/nsm`, spoken to by AWS's own crate. The one file that knows it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::nsm_process_request;
use casemate_protocol::limits::EVIDENCE_BYTES;
use minicbor::data::Type;
use minicbor::{Decoder, decode};

use crate::outside::{EvidenceRequest, Measurements, ModuleError, SecurityModule};

const DEVICE: &str = "/dev/nsm";

/// The security module of a Nitro enclave.
pub struct Nsm(File);

impl fmt::Debug for Nsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nsm")
    }
}

impl Nsm {
    /// Opens the device. The descriptor is closed on exec and was never in the zygote.
    ///
    /// # Errors
    /// When there is none: this is no Nitro enclave, or its kernel lacks the driver.
    pub fn open() -> Result<Self, ModuleError> {
        let file = OpenOptions::new().read(true).write(true).open(DEVICE);
        file.map(Self).map_err(|error| ModuleError { operation: "open /dev/nsm", reason: error.to_string() })
    }

    fn call(&self, operation: &'static str, request: Request) -> Result<Response, ModuleError> {
        match nsm_process_request(self.0.as_raw_fd(), request) {
            Response::Error(code) => Err(ModuleError { operation, reason: format!("{code:?}") }),
            response => Ok(response),
        }
    }
}

fn unexpected(operation: &'static str) -> ModuleError {
    ModuleError { operation, reason: "an answer of another form than the request's".to_owned() }
}

impl SecurityModule for Nsm {
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        const OPERATION: &str = "DescribePCR";
        let mut pcrs = [[0; 48]; 3];
        for (index, pcr) in (0..).zip(&mut pcrs) {
            let Response::DescribePCR { data, .. } = self.call(OPERATION, Request::DescribePCR { index })? else {
                return Err(unexpected(OPERATION));
            };
            *pcr = data.try_into().map_err(|_| unexpected(OPERATION))?;
        }
        Ok(Measurements { pcrs })
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        const OPERATION: &str = "Attestation";
        let EvidenceRequest { user_data, nonce, public_key } = request;
        let request = Request::Attestation {
            user_data: user_data.map(Into::into),
            nonce: nonce.map(Into::into),
            public_key: public_key.map(Into::into),
        };
        match self.call(OPERATION, request)? {
            Response::Attestation { document } if document.len() <= EVIDENCE_BYTES => Ok(document),
            _ => Err(unexpected(OPERATION)),
        }
    }

    fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, ModuleError> {
        const OPERATION: &str = "ExtendPCR";
        match self.call(OPERATION, Request::ExtendPCR { index, data: data.to_vec() })? {
            Response::ExtendPCR { data } => Ok(data),
            _ => Err(unexpected(OPERATION)),
        }
    }

    fn lock(&self, index: u16) -> Result<(), ModuleError> {
        const OPERATION: &str = "LockPCR";
        match self.call(OPERATION, Request::LockPCR { index })? {
            Response::LockPCR => Ok(()),
            _ => Err(unexpected(OPERATION)),
        }
    }

    /// The module has no request for the time, but each of its documents tells it.
    fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
        let evidence = self.attest(EvidenceRequest::default())?;
        let untold = || ModuleError { operation: "Attestation", reason: "its document tells no time".to_owned() };
        timestamp(&evidence).map(Some).map_err(|_| untold())
    }

    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError> {
        const OPERATION: &str = "GetRandom";
        let mut filled = 0;
        while filled < out.len() {
            let Response::GetRandom { random } = self.call(OPERATION, Request::GetRandom)? else {
                return Err(unexpected(OPERATION));
            };
            if random.is_empty() {
                return Err(unexpected(OPERATION));
            }
            let take = random.len().min(out.len() - filled);
            out[filled..filled + take].copy_from_slice(&random[..take]);
            filled += take;
        }
        Ok(())
    }
}

/// The time in a document, milliseconds since the Unix epoch. It comes from the module itself, so that nothing else of it is judged here.
fn timestamp(evidence: &[u8]) -> Result<u64, decode::Error> {
    let mut envelope = Decoder::new(evidence);
    if envelope.datatype()? == Type::Tag {
        envelope.tag()?;
    }
    envelope.array()?;
    // The protected and the unprotected header.
    envelope.skip()?;
    envelope.skip()?;
    let mut document = Decoder::new(envelope.bytes()?);
    document.map()?;
    while document.datatype()? != Type::Break {
        if document.str()? == "timestamp" {
            return document.u64();
        }
        document.skip()?;
    }
    Err(decode::Error::message("no timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(fill: impl FnOnce(&mut minicbor::Encoder<&mut Vec<u8>>)) -> Vec<u8> {
        let (mut payload, mut envelope) = (Vec::new(), Vec::new());
        fill(&mut minicbor::Encoder::new(&mut payload));
        let mut encoder = minicbor::Encoder::new(&mut envelope);
        encoder.array(4).unwrap().bytes(&[0xa1, 1, 0x38, 34]).unwrap().map(0).unwrap();
        encoder.bytes(&payload).unwrap().bytes(&[0; 96]).unwrap();
        envelope
    }

    #[test]
    fn each_document_tells_the_time() {
        let definite = document(|map| {
            map.map(2).unwrap().str("digest").unwrap().str("SHA384").unwrap().str("timestamp").unwrap().u64(7).unwrap();
        });
        let indefinite = document(|map| {
            map.begin_map().unwrap().str("pcrs").unwrap().map(1).unwrap().u8(0).unwrap().bytes(&[1; 48]).unwrap();
            map.str("timestamp").unwrap().u64(8).unwrap().end().unwrap();
        });
        assert_eq!((timestamp(&definite).unwrap(), timestamp(&indefinite).unwrap()), (7, 8));
        let mut tagged = vec![0xd2];
        tagged.extend(&definite);
        assert_eq!(timestamp(&tagged).unwrap(), 7);
        let untold = document(|map| {
            map.begin_map().unwrap().end().unwrap();
        });
        assert!(timestamp(&untold).is_err());
        for end in 0..definite.len() - 98 {
            assert!(timestamp(&definite[..end]).is_err(), "{end}");
        }
    }
}
