//! A frame for one vault is delivered to another: of the same shard, and of another.

use casemate_e2e::hostile::{Deed, Host, Puppet, get, put};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind};
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::session::SessionError;

fn attack(same_shard: bool) {
    let host = Host::start();
    let (bystander, mut one) = (host.owner(), Puppet::with_vault(&host));
    let mut other = Puppet::in_shard(one.vault.shard(), same_shard);
    other.create(&host).unwrap();
    one.put(&host, "a", "one's").unwrap();
    other.put(&host, "a", "other's").unwrap();
    let objects = host.objects().clone();

    // Sealed: the session is another process's.
    let frame = one.seal_next(&put("a", "planted"));
    assert_eq!(host.refuses(other.vault, &frame), ErrorCode::SessionUnknown);
    // Under the name of a session that the other vault does know.
    let theirs = other.seal(None, &get("a"));
    let DeviceFrame::Sealed { session, .. } = DeviceFrame::decode(&theirs).unwrap() else { panic!("sealed") };
    let DeviceFrame::Sealed { run, .. } = DeviceFrame::decode(&frame).unwrap() else { panic!("sealed") };
    let renamed = DeviceFrame::Sealed { session, run }.encode(DEADLINE_DEFAULT);
    assert_eq!(host.refuses(other.vault, &renamed), ErrorCode::Malformed);
    // A handshake: message 2 speaks for the other vault, which is in the prologue.
    let hello = one.hello();
    let welcome = host.carry(other.vault, &hello);
    assert_eq!(one.welcome(&welcome).unwrap_err(), SessionError::Handshake);
    // Message 3 of an honest handshake.
    let kept = one.session.take();
    let (session, _) = one.greet(&host);
    let finish = one.finish_with(session, None);
    assert_eq!(host.refuses(other.vault, &finish), ErrorCode::SessionUnknown);
    one.session = kept;

    assert_eq!((host.refusals().session_unknown, host.refusals().bad_frame), (2, 1));
    assert_eq!(*host.objects(), objects, "nothing was written anywhere");
    assert_eq!((one.get(&host, "a"), other.get(&host, "a")), (Ok("one's".to_owned()), Ok("other's".to_owned())));
    bystander.is_served();
}

#[test]
fn a_vault_of_the_same_shard_takes_no_frame_of_another() {
    attack(true);
}

#[test]
fn a_vault_of_another_shard_takes_no_frame_of_another() {
    attack(false);
}

#[test]
fn a_device_that_is_led_to_another_vault_sends_it_nothing_and_tries_again() {
    let host = Host::start();
    let (one, other) = (host.owner(), host.owner());
    one.put("a", "one's").unwrap();
    other.put("a", "other's").unwrap();
    for kind in [DeviceFrameKind::Sealed, DeviceFrameKind::Hello, DeviceFrameKind::Finish] {
        if kind != DeviceFrameKind::Sealed {
            one.disconnect();
        }
        one.wire.meddle_once(kind, Deed::CarryTo(other.id()));
        assert_eq!(one.get("a").unwrap(), "one's", "{kind:?}");
    }
    // Sealed and Finish met a vault that does not know them; the hello's answer spoke for somebody else.
    assert_eq!(host.refusals().session_unknown, 2);
    other.is_served();
}

#[test]
fn an_owner_of_one_vault_is_a_stranger_in_another() {
    let host = Host::start();
    let (bystander, mut one, other) = (host.owner(), Puppet::with_vault(&host), Puppet::with_vault(&host));
    // The device itself turns against its neighbour: genuine keys, an honest handshake, the wrong vault.
    let own = std::mem::replace(&mut one.vault, other.vault);
    assert_eq!(one.enter(&host, None, &get("a")), Err(ErrorCode::NotAuthorised), "open");
    host.evict(other.vault);
    assert_eq!(one.enter(&host, None, &get("a")), Err(ErrorCode::NotAuthorised), "closed");
    assert_eq!(host.refusals().stranger, 2);
    one.vault = own;
    assert_eq!(one.enter(&host, None, &get("a")), Err(ErrorCode::NotFound), "its own vault lets it in");
    bystander.is_served();
}
