//! AMD SEV-SNP attestation reports, one file for each structure they consist of.
//!
//! The format is AMD's ("SEV Secure Nested Paging Firmware ABI Specification", publication 56860, section 7.3), the certificates are those
//! of the "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (publication 57230). From the inside out:
//! [`Report`] (1,184 bytes), [`CertificateTable`] (as the host hands it to the guest), the certificate chain (X.509).

mod chain;
mod report;
mod table;
mod vek;
mod verify;

pub use report::{REPORT_BYTES, Report, ReportError};
pub use table::{CertificateTable, TableError};
pub use vek::VekError;

pub(crate) use chain::Chain;
pub(crate) use verify::{authenticate, signed_bytes};

/// The most that is looked at: a report, and the certificates that a host puts behind it.
pub const MAX_BYTES: usize = REPORT_BYTES + table::MAX_TABLE_BYTES;
