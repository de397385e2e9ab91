//! Homes under bad modes, crashes and company.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::record::tests::{head, record};

const SHORT: Duration = Duration::from_millis(60);

fn home(directory: &tempfile::TempDir) -> Home {
    Home::open(&directory.path().join("home"), SHORT).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn only_the_owner_may_look() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    home.device().unwrap();
    let (_, record) = record();
    home.keeper(record.vault()).unwrap().keep_vault(&record).unwrap();
    assert_eq!(mode(home.path()), 0o700);
    for name in ["device.json", "lock"] {
        assert_eq!(mode(&home.path().join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&home.vault_path(record.vault())), 0o600);
}

#[test]
fn what_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    home.device().unwrap();
    set_mode(&home.path().join("device.json"), 0o640);
    let error = home.device().unwrap_err();
    assert!(matches!(error, HomeError::Exposed { mode: 0o640, .. }), "{error}");
    assert!(error.remedy().contains("chmod"));
    set_mode(home.path(), 0o750);
    assert!(matches!(Home::open(home.path(), SHORT), Err(HomeError::Exposed { mode: 0o750, .. })));
}

#[test]
fn a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    let elsewhere = directory.path().join("elsewhere.json");
    write(&elsewhere, &Device::generate().unwrap()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, home.path().join("device.json")).unwrap();
    assert!(matches!(home.device(), Err(HomeError::Io { .. })));
}

#[test]
fn the_device_stays_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let first = home(&directory).device().unwrap().public_key();
    assert_eq!(home(&directory).device().unwrap().public_key(), first);
}

#[test]
fn a_crash_leaves_the_old_record_or_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    let (_, mut record) = record();
    let vault = record.vault();
    home.keeper(vault).unwrap().keep_vault(&record).unwrap();
    // A crash between making and renaming the temporary file leaves this behind.
    fs::write(home.vaults().join(format!(".{vault}.json.new")), b"half a reco").unwrap();
    assert_eq!(home.list().unwrap().len(), 1);
    let (found, keeper) = home.claim(vault).unwrap();
    assert_eq!(found.head(), None);
    record.hold(head(4, 4));
    keeper.keep_vault(&record).unwrap();
    drop(keeper);
    assert_eq!(home.claim(vault).unwrap().0.head(), Some(head(4, 4)));
    assert!(!home.vaults().join(format!(".{vault}.json.new")).exists());
}

#[test]
fn two_processes_do_not_use_one_vault() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    let (_, record) = record();
    let keeper = home.keeper(record.vault()).unwrap();
    keeper.keep_vault(&record).unwrap();
    assert!(matches!(home.claim(record.vault()), Err(HomeError::Locked { .. })));
    drop(keeper);
    home.claim(record.vault()).unwrap();
}

#[test]
fn damage_and_other_versions_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    let (_, record) = record();
    let (vault, path) = (record.vault(), home.vault_path(record.vault()));
    assert!(matches!(home.claim(vault), Err(HomeError::NoVault(_))));
    write(&path, &record).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in
        [("\"format\": 1", "\"format\": 9"), ("\"life\"", "\"strife\""), (&vault.to_string(), &"a".repeat(32))]
    {
        fs::write(&path, text.replace(from, to)).unwrap();
        match home.claim(vault) {
            Err(HomeError::Newer { format: 9, .. }) => assert!(from.contains("format")),
            Err(HomeError::Damaged { .. }) => assert!(!from.contains("format")),
            other => panic!("{from}: {other:?}"),
        }
    }
}

#[test]
fn a_failed_change_of_trust_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(&directory);
    let changed: Result<(), HomeError> = home.change_trust(|trust| {
        trust.accept_release(5);
        Err(HomeError::Damaged { path: PathBuf::new(), reason: String::new() })
    });
    assert!(changed.is_err() && home.trust().unwrap() == Trust::default());
    home.change_trust(|trust| {
        trust.accept_release(5);
        Ok::<_, HomeError>(())
    })
    .unwrap();
    assert_eq!(home.trust().unwrap().highest_release(), Some(5));
}

#[test]
fn what_leaves_a_vault_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, b"older").unwrap();
    set_mode(&path, 0o644);
    write_private(&path, b"newer").unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"newer".to_vec(), 0o600));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// The beginning of a file may read well without its rest, and a reader of TOML takes a thousand times its size.
#[test]
fn a_trust_file_is_read_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trust.toml");
    let most = usize::try_from(TRUST_FILE_BYTES).unwrap();
    let text = format!("cluster = \"{}\"\n#", "01".repeat(32));
    for (len, is_read) in [(most, true), (most + 1, false), (3 * most, false)] {
        fs::write(&path, format!("{text}{}", "x".repeat(len - text.len()))).unwrap();
        assert_eq!(read_trust_file(&path).is_ok(), is_read, "{len}");
    }
}
