//! The Nitro security module: `/dev/nsm`, spoken to by AWS's own crate. The one file that knows it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::nsm_process_request;
use casemate_attestation::nitro::{Document, Envelope};
use casemate_protocol::limits::EVIDENCE_BYTES;

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
        let untold = |reason: String| ModuleError { operation: "Attestation, for the time", reason };
        let envelope = Envelope::parse(&evidence).map_err(|error| untold(error.to_string()))?;
        let document = Document::parse(envelope.payload()).map_err(|error| untold(error.to_string()))?;
        Ok(Some(document.timestamp_unix_ms))
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
