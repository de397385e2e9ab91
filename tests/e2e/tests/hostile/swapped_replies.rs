//! Authentic replies are given to other requests, or to other vaults.

use casemate_client::session::Fault;
use casemate_e2e::hostile::{Deed, Host};
use casemate_protocol::frame::DeviceFrameKind;
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::session::SessionError;

use casemate_e2e::hostile::get;

#[test]
fn a_reply_answers_its_own_request_only() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner());
    owner.put("a", "1").unwrap();
    owner.put("b", "2").unwrap();
    let mut session = owner.session(&host);
    let head = owner.record().head();
    let (first, first_pending) = session.seal(None, head, &get("a")).unwrap();
    let (second, second_pending) = session.seal(None, head, &get("b")).unwrap();
    let answers = [first, second].map(|frame| host.carry(owner.id(), &frame.encode(DEADLINE_DEFAULT)).encode());
    // Both are authentic, of this session, and fresh. Only what they answer differs.
    assert_eq!(session.open(&answers[1], &first_pending).unwrap_err(), Fault::Mismatch);
    assert_eq!(session.open(&answers[0], &second_pending).unwrap_err(), Fault::Mismatch);
    bystander.is_served();
}

#[test]
fn a_reply_of_another_vault_or_an_earlier_one_is_not_authentic() {
    let host = Host::start();
    let (bystander, one, other) = (host.owner(), host.owner(), host.owner());
    one.put("a", "one's").unwrap();
    other.put("a", "other's").unwrap();
    let (mut session, mut foreign) = (one.session(&host), other.session(&host));
    let ask = |session: &mut casemate_client::session::Session, owner: &casemate_e2e::hostile::Owner| {
        let (frame, pending) = session.seal(None, owner.record().head(), &get("a")).unwrap();
        (host.carry(owner.id(), &frame.encode(DEADLINE_DEFAULT)).encode(), pending)
    };
    let ((answer, pending), (theirs, _)) = (ask(&mut session, &one), ask(&mut foreign, &other));
    assert_eq!(session.open(&theirs, &pending).unwrap_err(), Fault::Session(SessionError::Forged));
    session.open(&answer, &pending).expect("its own");
    let (_, pending) = ask(&mut session, &one);
    assert_eq!(session.open(&answer, &pending).unwrap_err(), Fault::Session(SessionError::Replayed));
    bystander.is_served();
}

#[test]
fn a_device_whose_replies_are_swapped_still_reads_what_it_wrote() {
    let host = Host::start();
    let (one, other) = (host.owner(), host.owner());
    one.put("a", "one's").unwrap();
    other.put("a", "other's").unwrap();
    assert_eq!(other.get("a").unwrap(), "other's");
    let theirs = other.wire.answers().pop().unwrap();
    one.wire.meddle_once(DeviceFrameKind::Sealed, Deed::Change(Box::new(move |_| theirs)));
    let hellos = one.wire.count(DeviceFrameKind::Hello);
    assert_eq!(one.get("a").unwrap(), "one's");
    assert_eq!(one.wire.count(DeviceFrameKind::Hello), hellos + 1, "in a new session");
    assert_eq!(other.get("a").unwrap(), "other's");
}
