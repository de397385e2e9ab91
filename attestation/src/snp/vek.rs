//! What AMD's leaf certificate says of the key in it: the firmware that it was derived for, and the chip or the provider.

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, OctetStringRef};

use crate::claims::{Product, SnpSigner, SnpTcb};
use crate::refusal::Short;

// AMD's extensions (publication 57230, table 9).
const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const PROVIDER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// The longest provider's name.
const MAX_PROVIDER_BYTES: usize = 64;

/// Why a leaf certificate is not the one of a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VekError {
    /// An extension that must be there is not, or is there twice, or is no such value.
    #[error("AMD's leaf certificate has no {extension} as AMD writes it")]
    Extension {
        /// Its name.
        extension: &'static str,
    },
    /// A chip's certificate with a provider's report, or the other way round.
    #[error("the report says that a {report} signed it, and the certificate is a {certificate}'s")]
    Kind {
        /// What the report says.
        report: SnpSigner,
        /// What the certificate is.
        certificate: SnpSigner,
    },
    /// Another firmware.
    #[error(
        "the certificate is for firmware {component} {certificate}, and the report says {report}: another key signed it"
    )]
    Tcb {
        /// The component.
        component: &'static str,
        /// What the certificate says.
        certificate: u8,
        /// What the report says.
        report: u8,
    },
    /// Another chip.
    #[error("the certificate is for chip {certificate}, and the report says {report}: it belongs to another machine")]
    ChipId {
        /// Shortened hex.
        certificate: String,
        /// Shortened hex.
        report: String,
    },
    /// Another product.
    #[error("the report comes from a processor of {report}, and its certificates lead to the root of {certificate}")]
    Product {
        /// What CPUID in the report says.
        report: Product,
        /// Whose root it is.
        certificate: Product,
    },
}

/// What a leaf certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vek {
    /// Whose key it is.
    pub(crate) signer: SnpSigner,
    /// The firmware that the key was derived for.
    pub(crate) tcb: SnpTcb,
    /// VCEK: the chip, 64 bytes, of Turin 8.
    hardware_id: Option<Vec<u8>>,
    /// VLEK: the provider.
    pub(crate) provider: Option<String>,
}

impl Vek {
    pub(crate) fn read(leaf: &Certificate, product: Product) -> Result<Self, VekError> {
        let number = |oid, extension| {
            let value = find(leaf, oid).map_err(|()| VekError::Extension { extension })?;
            value.map(|value| u8::from_der(value).map_err(|_| VekError::Extension { extension })).transpose()
        };
        let needed = |oid, extension| number(oid, extension)?.ok_or(VekError::Extension { extension });
        let tcb = SnpTcb {
            fmc: if product == Product::Turin { needed(FMC, "firmware version (FMC)")? } else { 0 },
            bootloader: needed(BOOTLOADER, "firmware version (boot loader)")?,
            tee: needed(TEE, "firmware version (TEE)")?,
            snp: needed(SNP, "firmware version (SNP)")?,
            microcode: needed(MICROCODE, "firmware version (microcode)")?,
        };
        let hardware_id = find(leaf, HARDWARE_ID).map_err(|()| VekError::Extension { extension: "hardware id" })?;
        let provider = find(leaf, PROVIDER).map_err(|()| VekError::Extension { extension: "provider id" })?;
        match (hardware_id, provider) {
            (Some(id), None) => {
                // Some certificates hold the bytes as they are, others in an octet string of their own.
                let inner = <&OctetStringRef>::from_der(id).map(OctetStringRef::as_bytes);
                let forms = [Some(id), inner.ok()].into_iter().flatten();
                let id = forms.into_iter().find(|id| [8, 64].contains(&id.len()));
                let id = id.ok_or(VekError::Extension { extension: "hardware id" })?;
                Ok(Self { signer: SnpSigner::Vcek, tcb, hardware_id: Some(id.to_vec()), provider: None })
            }
            (None, Some(provider)) => {
                let refused = VekError::Extension { extension: "provider id" };
                let name = Ia5StringRef::from_der(provider).map_err(|_| refused.clone())?.as_str();
                // Attack stopped: a name that forges a line of a log.
                if name.is_empty()
                    || name.len() > MAX_PROVIDER_BYTES
                    || !name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
                {
                    return Err(refused);
                }
                Ok(Self { signer: SnpSigner::Vlek, tcb, hardware_id: None, provider: Some(name.to_owned()) })
            }
            _ => Err(VekError::Extension { extension: "hardware id or provider id, one of the two," }),
        }
    }

    /// Whether it is the certificate of `report`'s chip. A report whose host masks the chip names none; the policy judges that.
    pub(crate) fn judge_chip(&self, report: Option<&[u8; 64]>) -> Result<(), VekError> {
        let (Some(certificate), Some(chip)) = (&self.hardware_id, report) else { return Ok(()) };
        let (head, rest) = chip.split_at(certificate.len());
        // Attack stopped: the certificate of a machine whose owner has its key, with the report of another.
        if head == certificate && rest.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(VekError::ChipId { certificate: Short::text(certificate), report: Short::text(chip) })
    }

    /// Whether it is for the firmware that `report` says.
    pub(crate) fn judge_tcb(&self, report: SnpTcb) -> Result<(), VekError> {
        let both = self.tcb.components().into_iter().zip(report.components());
        // Attack stopped: a key of old firmware with a known hole, that says it is of new firmware.
        match both.into_iter().find(|(certificate, report)| certificate != report) {
            None => Ok(()),
            Some(((component, certificate), (_, report))) => Err(VekError::Tcb { component, certificate, report }),
        }
    }
}

/// The value of the one extension with this name.
fn find(certificate: &Certificate, oid: ObjectIdentifier) -> Result<Option<&[u8]>, ()> {
    let extensions = certificate.tbs_certificate().extensions().map_or(&[][..], |extensions| extensions);
    let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
    match (found.next(), found.next()) {
        (found, None) => Ok(found.map(|extension| extension.extn_value.as_bytes())),
        // Attack stopped: two values, of which two readers believe different ones.
        _ => Err(()),
    }
}
