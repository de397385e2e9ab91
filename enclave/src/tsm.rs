//! The security module of SEV-SNP guests and TDX domains: Linux's `configfs-tsm`, a folder in which a report is asked for by writing and
//! got by reading (kernel: `Documentation/ABI/testing/configfs-tsm-report`).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_attestation::intel::Quote;
use casemate_attestation::snp::{MAX_BYTES, REPORT_BYTES, Report};
use casemate_attestation::{Bound, MAX_EVIDENCE_BYTES, report_data};

use crate::outside::{EvidenceRequest, Measurements, ModuleError, SecurityModule};
use crate::pseudo_files::{KernelFiles, PseudoFiles};

/// Where the kernel has it.
const FOLDER: &str = "/sys/kernel/config/tsm/report";
/// How often a report is asked for anew when another one came between.
const TRIES: u32 = 3;
/// The longest text of a small file.
const TEXT_BYTES: usize = 64;
/// MRTD begins at this byte of a TDX quote of version 4, and with a body's head before it of version 5.
const MRTD_AT: usize = 48 + 136;
const BODY_HEAD: usize = 6;

/// Which kernel driver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provider {
    /// `sev_guest`.
    Snp,
    /// `tdx_guest`.
    Tdx,
}

/// The security module of a SEV-SNP guest or a TDX domain.
#[derive(Debug)]
pub struct Tsm<F> {
    files: F,
    /// Reports that were asked for: their folders have names of their own.
    asked: AtomicU64,
}

impl Tsm<KernelFiles> {
    /// The kernel's.
    pub fn open() -> Self {
        Self::over(KernelFiles::below(FOLDER))
    }
}

fn refused(operation: &'static str, reason: &dyn ToString) -> ModuleError {
    ModuleError { operation, reason: reason.to_string() }
}

/// What a report of 64 bytes binds for a request.
pub(crate) fn bound(request: EvidenceRequest) -> [u8; 64] {
    let EvidenceRequest { user_data, nonce, public_key } = request;
    report_data(&Bound { user_data, nonce, public_key, report_data: None })
}

impl<F: PseudoFiles> Tsm<F> {
    /// Over other files than the kernel's.
    pub fn over(files: F) -> Self {
        Self { files, asked: AtomicU64::new(0) }
    }

    /// The report over `data`, with the host's certificates behind it where there are any.
    fn report(&self, operation: &'static str, data: &[u8; 64]) -> Result<Vec<u8>, ModuleError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let folder = format!("casemate-{}-{number}", std::process::id());
        self.files.make(&folder).map_err(|error| refused(operation, &error))?;
        let report = (0..TRIES).find_map(|_| self.try_report(&folder, data).transpose());
        let removed = self.files.remove(&folder);
        let report = report.ok_or_else(|| refused(operation, &"another report came between, each time"))?;
        let report = report.map_err(|error| refused(operation, &error))?;
        removed.map_err(|error| refused(operation, &error))?;
        Ok(report)
    }

    fn number(&self, file: &str) -> io::Result<u64> {
        let text = self.files.read(file, TEXT_BYTES)?;
        let text = std::str::from_utf8(&text).map_err(io::Error::other)?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// `None` when somebody else wrote between.
    fn try_report(&self, folder: &str, data: &[u8; 64]) -> io::Result<Option<Vec<u8>>> {
        let file = |name: &str| format!("{folder}/{name}");
        let provider = match self.files.read(&file("provider"), TEXT_BYTES)?.trim_ascii() {
            b"sev_guest" => Provider::Snp,
            b"tdx_guest" => Provider::Tdx,
            other => return Err(io::Error::other(format!("provider {} is unknown", String::from_utf8_lossy(other)))),
        };
        let before = self.number(&file("generation"))?;
        let mut writes = 1;
        if provider == Provider::Snp {
            // VMPL 0: a report of lower rights is refused by those who judge it. Where the guest itself runs lower the kernel refuses this.
            self.files.write(&file("privlevel"), b"0")?;
            writes += 1;
        }
        self.files.write(&file("inblob"), data)?;
        let limit = if provider == Provider::Snp { REPORT_BYTES } else { MAX_EVIDENCE_BYTES };
        let mut report = self.files.read(&file("outblob"), limit)?;
        if provider == Provider::Snp {
            // Absent on hosts that hand no certificates to their guests.
            match self.files.read(&file("auxblob"), MAX_BYTES - REPORT_BYTES) {
                Ok(table) => report.extend(table),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Attack stopped: a report over what another process wrote, taken for ours. Each write counts.
        Ok((self.number(&file("generation"))? == before + writes && binds(provider, &report, data)).then_some(report))
    }
}

/// Whether the report binds `data`: looked at, because a race could otherwise pass unseen.
fn binds(provider: Provider, report: &[u8], data: &[u8; 64]) -> bool {
    match provider {
        Provider::Snp => report
            .get(..REPORT_BYTES)
            .and_then(|report| Report::parse(report).ok())
            .is_some_and(|report| report.report_data() == data),
        // The last 64 bytes of a body of version 1.0; later ones have fields behind it.
        Provider::Tdx => {
            Quote::parse(report).is_ok_and(|quote| quote.signed_bytes().windows(64).any(|window| window == data))
        }
    }
}

impl<F: PseudoFiles> SecurityModule for Tsm<F> {
    /// The one measurement that names the guest, three times: MEASUREMENT of SEV-SNP, MRTD of TDX.
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        const OPERATION: &str = "measurements of configfs-tsm";
        let report = self.report(OPERATION, &[0; 64])?;
        let snp = report.get(..REPORT_BYTES).and_then(|report| Report::parse(report).ok());
        let measurement = match snp {
            Some(report) => Some(*report.measurement()),
            None => Quote::parse(&report).ok().and_then(|quote| {
                let at = MRTD_AT + if report.first() == Some(&5) { BODY_HEAD } else { 0 };
                quote.signed_bytes().get(at..at + 48)?.try_into().ok()
            }),
        };
        let measurement = measurement.ok_or_else(|| refused(OPERATION, &"the report cannot be read"))?;
        Ok(Measurements { pcrs: [measurement; 3] })
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        self.report("report of configfs-tsm", &bound(request))
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

    /// The kernel's: on these platforms the processor's own instruction is its hardware source, and there is no other.
    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError> {
        getrandom::fill(out).map_err(|error| refused("random", &error))
    }
}

/// Why nothing is extended or locked outside of Nitro.
pub(crate) const NO_REGISTERS: &str =
    "this platform has no register that a guest extends and locks; what must be bound goes into the report data";

#[cfg(test)]
#[path = "tsm_tests.rs"]
mod tests;
