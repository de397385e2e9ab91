//! The host refuses in a vault's name, outside any session, where anybody can write what he likes.

use casemate_client::record::Life;
use casemate_client::{Explain, VaultError};
use casemate_e2e::hostile::{Deed, Host};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind;

#[test]
fn none_of_them_settles_what_became_of_a_write() {
    let host = Host::start();
    let owner = host.owner();
    let mut revision = owner.put("a", "0").unwrap();
    let lies = [
        ErrorCode::Superseded,
        ErrorCode::NotAuthorised,
        ErrorCode::Conflict,
        ErrorCode::Deleted,
        ErrorCode::StateCorrupt,
        ErrorCode::DeadlineExceeded,
        ErrorCode::SessionUnknown,
        ErrorCode::Malformed,
    ];
    for (number, code) in (1_u64..).zip(lies) {
        // The write is done, and the host says that it was not.
        owner.wire.meddle_once(DeviceFrameKind::Sealed, Deed::deny(code));
        let written = owner.put("a", &number.to_string()).expect("asked again, and answered with the first outcome");
        assert_eq!(written, revision + 1, "{code}: done, and once");
        revision = written;
    }
    owner.wire.carry_on();
    assert_eq!(owner.get("a").unwrap(), lies.len().to_string());
    assert!(owner.record().unresolved().is_empty());
}

#[test]
fn none_of_them_is_taken_for_the_vaults_word() {
    let host = Host::start();
    let owner = host.owner();
    owner.put("a", "1").unwrap();
    let (held, known) = (owner.record(), owner.get("a").unwrap());
    for code in [ErrorCode::Deleted, ErrorCode::LockTurned, ErrorCode::RollbackDetected, ErrorCode::NotAuthorised] {
        owner.wire.meddle(move |_, _| Deed::refuse(code));
        let error = owner.get("a").unwrap_err();
        assert!(matches!(&error, VaultError::RefusedOutside(refusal) if refusal.code == code), "{error}");
    }
    // A vault that this device has seen does not vanish because somebody says so.
    owner.wire.meddle(|_, _| Deed::refuse(ErrorCode::NotFound));
    let error = owner.get("a").unwrap_err();
    assert!(matches!(&error, VaultError::Rollback(heads) if heads.found.is_none()), "{error}");
    assert_eq!(error.code(), ErrorCode::RollbackDetected.as_str());
    owner.wire.carry_on();
    let record = owner.record();
    assert_eq!((record.life(), record.head(), record.lock_key()), (Life::Live, held.head(), held.lock_key()));
    assert_eq!(owner.get("a").unwrap(), known);
}
