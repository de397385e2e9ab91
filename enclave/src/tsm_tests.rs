//! `configfs-tsm` against a double that answers as the kernel does.

use std::collections::BTreeMap;
use std::sync::Mutex;

use casemate_attestation::snp::CertificateTable;

use super::*;

/// One report's folder: what was written, and how often.
#[derive(Debug, Default)]
struct Entry {
    generation: u64,
    inblob: Option<[u8; 64]>,
}

/// As `drivers/virt/coco/guest/report.c` answers: files appear with the folder, each write counts up, a read without an input is refused,
/// and the table of certificates is not there when the host has none.
#[derive(Debug)]
struct FakeConfigfs {
    provider: &'static str,
    table: Option<Vec<u8>>,
    /// How many times somebody else writes between.
    races: Mutex<u32>,
    entries: Mutex<BTreeMap<String, Entry>>,
    made: Mutex<u32>,
}

impl FakeConfigfs {
    fn of(provider: &'static str) -> Self {
        Self { provider, table: None, races: Mutex::new(0), entries: Mutex::default(), made: Mutex::new(0) }
    }

    fn with<T>(&self, file: &str, deed: impl FnOnce(&mut Entry, &str) -> io::Result<T>) -> io::Result<T> {
        let (folder, name) = file.split_once('/').ok_or(io::ErrorKind::NotFound)?;
        let mut entries = self.entries.lock().unwrap();
        deed(entries.get_mut(folder).ok_or(io::ErrorKind::NotFound)?, name)
    }

    fn outblob(&self, data: &[u8; 64]) -> Vec<u8> {
        if self.provider == "sev_guest" {
            let mut report = vec![0; REPORT_BYTES];
            (report[0], report[0x34]) = (3, 1);
            report[0x50..0x90].copy_from_slice(data);
            report[0x90..0xc0].fill(0x3e);
            return report;
        }
        let mut quote = vec![0; 48 + 584];
        quote[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
        quote[12..28].copy_from_slice(&[
            0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
        ]);
        quote[MRTD_AT..MRTD_AT + 48].fill(0x3e);
        quote[48 + 520..].copy_from_slice(data);
        let certified = 384 + 64 + 2 + 32 + 6;
        quote.extend(u32::try_from(128 + 6 + certified).unwrap().to_le_bytes());
        quote.extend([0; 128]);
        quote.extend(6_u16.to_le_bytes());
        quote.extend(u32::try_from(certified).unwrap().to_le_bytes());
        quote.extend([0; 384 + 64]);
        quote.extend(32_u16.to_le_bytes());
        quote.extend([0; 32]);
        quote.extend(5_u16.to_le_bytes());
        quote.extend([0; 4]);
        quote
    }
}

impl PseudoFiles for FakeConfigfs {
    fn make(&self, folder: &str) -> io::Result<()> {
        *self.made.lock().unwrap() += 1;
        match self.entries.lock().unwrap().insert(folder.to_owned(), Entry::default()) {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove(&self, folder: &str) -> io::Result<()> {
        self.entries.lock().unwrap().remove(folder).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(file, |entry, name| {
            match name {
                // 1 to 64 bytes; TDX wants all of them.
                "inblob" => entry.inblob = Some(bytes.try_into().map_err(|_| io::ErrorKind::InvalidInput)?),
                "privlevel" if self.provider == "sev_guest" && bytes == b"0" => {}
                _ => return Err(io::ErrorKind::PermissionDenied.into()),
            }
            entry.generation += 1;
            Ok(())
        })
    }

    fn read(&self, file: &str, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.with(file, |entry, name| match name {
            "provider" => Ok(format!("{}\n", self.provider).into_bytes()),
            "generation" => Ok(format!("{}\n", entry.generation).into_bytes()),
            "outblob" => {
                let mut races = self.races.lock().unwrap();
                if *races > 0 {
                    *races -= 1;
                    entry.inblob = Some([0xee; 64]);
                    entry.generation += 1;
                }
                Ok(self.outblob(&entry.inblob.ok_or(io::ErrorKind::InvalidInput)?))
            }
            "auxblob" => self.table.clone().ok_or(io::ErrorKind::NotFound.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })?;
        if bytes.len() > limit { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
    }
}

fn request() -> EvidenceRequest {
    EvidenceRequest { user_data: Some(b"user".to_vec()), nonce: Some(b"nonce".to_vec()), public_key: None }
}

#[test]
fn a_report_binds_the_request() {
    let wanted = bound(request());
    let snp = Tsm::over(FakeConfigfs::of("sev_guest"));
    let evidence = snp.attest(request()).unwrap();
    assert_eq!(Report::parse(&evidence).unwrap().report_data(), &wanted);
    assert_eq!(snp.measurements().unwrap().pcrs, [[0x3e; 48]; 3]);
    assert!(snp.files.entries.lock().unwrap().is_empty(), "folders are removed");
    let tdx = Tsm::over(FakeConfigfs::of("tdx_guest"));
    let evidence = tdx.attest(request()).unwrap();
    assert!(Quote::parse(&evidence).unwrap().signed_bytes().ends_with(&wanted));
    assert_eq!(tdx.measurements().unwrap().pcrs, [[0x3e; 48]; 3]);
}

#[test]
fn the_hosts_certificates_go_along() {
    let table = CertificateTable { leaf: Some(b"leaf"), intermediate: Some(b"ask"), root: Some(b"ark") };
    let files = FakeConfigfs { table: Some(table.encode()), ..FakeConfigfs::of("sev_guest") };
    let evidence = Tsm::over(files).attest(request()).unwrap();
    assert_eq!(CertificateTable::parse(&evidence[REPORT_BYTES..]), Ok(table));
}

#[test]
fn a_report_of_somebody_elses_is_asked_for_anew() {
    let racing = |times| FakeConfigfs { races: Mutex::new(times), ..FakeConfigfs::of("sev_guest") };
    let evidence = Tsm::over(racing(2)).attest(request()).unwrap();
    assert_eq!(Report::parse(&evidence).unwrap().report_data(), &bound(request()));
    let module = Tsm::over(racing(3));
    let refused = module.attest(request()).unwrap_err();
    assert!(refused.reason.contains("came between"), "{refused}");
    assert!(module.files.entries.lock().unwrap().is_empty(), "folders are removed after a failure too");
}

#[test]
fn what_the_platform_has_not_is_refused() {
    let module = Tsm::over(FakeConfigfs::of("arm_cca_guest"));
    assert!(module.attest(request()).unwrap_err().reason.contains("arm_cca_guest"));
    assert!(module.extend(16, b"data").is_err() && module.lock(16).is_err());
    let mut random = [0; 32];
    module.random(&mut random).unwrap();
    assert_ne!(random, [0; 32]);
}

/// The kernel's own files, as far as ordinary ones can stand for them.
#[test]
fn real_files_are_written_whole_and_read_with_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let files = KernelFiles::below(folder.path());
    files.make("one").unwrap();
    assert!(files.make("one").is_err());
    std::fs::write(folder.path().join("one/file"), b"0123456789").unwrap();
    files.write("one/file", b"abc").unwrap();
    assert!(files.write("one/absent", b"abc").is_err(), "nothing is made by writing");
    assert_eq!(files.read("one/file", 10).unwrap(), b"abc3456789");
    assert_eq!(files.read("one/file", 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    std::fs::remove_file(folder.path().join("one/file")).unwrap();
    files.remove("one").unwrap();
}
