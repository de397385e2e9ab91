//! The files of a development authority: its root and signing key, and the measurements that it vouches for.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

/// `measurements.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasurementsFile {
    /// SHA-384, hex.
    pub pcr0: String,
    /// SHA-384, hex.
    pub pcr1: String,
    /// SHA-384, hex.
    pub pcr2: String,
}

/// What of `FILE.eif.pcrs.json` matters here.
#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Summary {
    pcr0: String,
    pcr1: String,
    pcr2: String,
}

/// Why a file of the authority is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be read or written.
    #[error("{path}: {source}; make the files with `casemate-dev-authority make`")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not of the expected form.
    #[error("{0} does not hold three SHA-384 measurements in hex; make it with `casemate-dev-authority make`")]
    Form(PathBuf),
}

impl MeasurementsFile {
    /// Measurements that follow from a binary, as an image's follow from its parts: another binary, other measurements.
    ///
    /// # Errors
    /// When the binary cannot be read.
    pub fn of_binary(binary: &Path) -> Result<Self, DirectoryError> {
        let bytes = fs::read(binary).map_err(|source| DirectoryError::Io { path: binary.to_owned(), source })?;
        let content = Sha384::digest(&bytes);
        let register = |part: u8| {
            let mut hash = Sha384::new();
            hash.update([0; 48]);
            hash.update(content);
            hash.update([part]);
            hex::encode(hash.finalize())
        };
        Ok(Self { pcr0: register(0), pcr1: register(1), pcr2: register(2) })
    }

    /// Measurements of an image: what its builder wrote beside it.
    ///
    /// # Errors
    /// When the file cannot be read or is not of its form.
    pub fn of_image(summary: &Path) -> Result<Self, DirectoryError> {
        let bytes = fs::read(summary).map_err(|source| DirectoryError::Io { path: summary.to_owned(), source })?;
        let form = || DirectoryError::Form(summary.to_owned());
        let Summary { pcr0, pcr1, pcr2 } = serde_json::from_slice(&bytes).map_err(|_| form())?;
        let file = Self { pcr0, pcr1, pcr2 };
        file.registers().ok_or_else(form)?;
        Ok(file)
    }

    /// Reads `measurements.json` of a directory.
    ///
    /// # Errors
    /// When it cannot be read or is not of its form.
    pub fn load(directory: &Path) -> Result<Self, DirectoryError> {
        let path = Self::path(directory);
        let bytes = fs::read(&path).map_err(|source| DirectoryError::Io { path: path.clone(), source })?;
        let file: Self = serde_json::from_slice(&bytes).map_err(|_| DirectoryError::Form(path.clone()))?;
        file.registers().ok_or(DirectoryError::Form(path))?;
        Ok(file)
    }

    /// Writes `measurements.json` into a directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), DirectoryError> {
        let path = Self::path(directory);
        let json = serde_json::to_vec_pretty(self).expect("three texts");
        fs::write(&path, json).map_err(|source| DirectoryError::Io { path, source })
    }

    /// PCR0–PCR2.
    pub fn registers(&self) -> Option<[[u8; 48]; 3]> {
        let register = |text: &str| hex::decode(text).ok()?.try_into().ok();
        Some([register(&self.pcr0)?, register(&self.pcr1)?, register(&self.pcr2)?])
    }

    fn path(directory: &Path) -> PathBuf {
        directory.join("measurements.json")
    }
}
