//! The development evidence authority: AWS's attestation PKI in small, under a root that says `DEV ONLY`.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use casemate_attestation::TrustAnchor;
use rcgen::{Issuer, KeyPair};

use crate::document::SimulatedDocument;
use crate::forgery::Forgery;
use crate::issuing::{ChainPlan, Curve, Validity, issuer_params};

/// The certificates above the leaf, root first, as AWS has them: their role and the CA certificates allowed below.
const ROLES: [(&str, Option<u8>); 4] = [("root", None), ("region", Some(2)), ("zone", Some(1)), ("instance", Some(0))];
/// The file of the key that issues leaves.
const KEY_FILE: &str = "issuing-key.pem";

/// Signs development evidence. Each authority has keys of its own; the root's key is forgotten as soon as it has signed.
pub struct DevelopmentAuthority {
    cabundle: Vec<Vec<u8>>,
    issuer: Issuer<'static, KeyPair>,
}

/// Why an authority cannot be made, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate could not be made.
    #[error("a development certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file could not be read or written.
    #[error("the development authority's file {} could not be used: {source}; delete the folder and make a new authority", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DevelopmentAuthority {
    /// Makes a new authority: a new root, and three certificates below it.
    ///
    /// # Panics
    ///
    /// If P-384 keys cannot be made, for which there is no cause but a broken build.
    pub fn new() -> Self {
        Self::planned(ChainPlan::default()).expect("making P-384 keys and signing with them cannot fail")
    }

    /// Makes an authority with other certificates than it should have.
    ///
    /// # Errors
    ///
    /// When the plan cannot be put into certificates.
    pub fn planned(plan: ChainPlan) -> Result<Self, AuthorityError> {
        let mut cabundle = Vec::with_capacity(ROLES.len());
        let mut above: Option<Issuer<'static, KeyPair>> = None;
        for (role, path_length) in ROLES {
            let (curve, validity) = match role {
                "root" => (Curve::P384, plan.root),
                "instance" => (plan.instance_curve, plan.instance),
                _ => (Curve::P384, Validity::LONG),
            };
            let key = curve.generate()?;
            let params = issuer_params(role, path_length, validity);
            let certificate = match &above {
                None => params.self_signed(&key)?,
                Some(issuer) => params.signed_by(&key, issuer)?,
            };
            cabundle.push(certificate.der().to_vec());
            above = Some(Issuer::new(params, key));
        }
        let issuer = above.expect("there are four roles");
        Ok(Self { cabundle, issuer })
    }

    /// The root certificate, DER.
    pub fn root_der(&self) -> Vec<u8> {
        self.cabundle[0].clone()
    }

    /// The root as an anchor, for those who verify this authority's evidence.
    pub fn anchor(&self) -> TrustAnchor {
        TrustAnchor::from_der(self.root_der()).expect("an authority's root is a root")
    }

    /// Signs `document` as Nitro's security module does, with a new leaf.
    ///
    /// Sizes are not judged here: that is the module's part, and tests want documents that break them.
    ///
    /// # Panics
    ///
    /// If a leaf cannot be made, for which there is no cause but a broken build.
    pub fn sign(&self, document: SimulatedDocument) -> Vec<u8> {
        Forgery::of(self, document).build()
    }

    /// Writes the authority into `directory`, which is made with mode 0700 if it is absent: `root.der`, `region.der`,
    /// `zone.der`, `instance.der` and, mode 0600, `issuing-key.pem`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| AuthorityError::File { path: directory.to_owned(), source })?;
        for ((role, _), der) in ROLES.iter().zip(&self.cabundle) {
            write(&directory.join(format!("{role}.der")), der)?;
        }
        write(&directory.join(KEY_FILE), self.issuer.key().serialize_pem().as_bytes())
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or the key is none.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let mut cabundle = Vec::with_capacity(ROLES.len());
        for (role, _) in ROLES {
            cabundle.push(read(&directory.join(format!("{role}.der")))?);
        }
        let path = directory.join(KEY_FILE);
        let pem = String::from_utf8(read(&path)?)
            .map_err(|error| AuthorityError::File { path, source: io::Error::other(error) })?;
        let (role, path_length) = ROLES[ROLES.len() - 1];
        let issuer = Issuer::new(issuer_params(role, path_length, Validity::LONG), KeyPair::from_pem(&pem)?);
        Ok(Self { cabundle, issuer })
    }

    pub(crate) fn cabundle(&self) -> &[Vec<u8>] {
        &self.cabundle
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

impl Default for DevelopmentAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DevelopmentAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevelopmentAuthority").field("anchor", &self.anchor()).field("issuer", &"redacted").finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AuthorityError> {
    fs::read(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

/// Writes a file that only its owner may read. Certificates are public, but one rule for all of them cannot be mixed up.
fn write(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    let written = (|| {
        // The mode takes effect only where the file is made.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
    })();
    written.map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}
