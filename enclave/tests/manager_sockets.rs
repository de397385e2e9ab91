//! The socketpair between supervisor and vault-manager: messages of every size, a reader that stops, a vault-manager that lies.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use casemate_enclave::ipc::{CommitResult, FROM_MANAGER_BYTES, FromManager, Newest, OUTSTANDING_RECORDS, ToManager};
use casemate_enclave::manager_socket::ManagerSocket;
use casemate_enclave::socket::{SocketError, pair};
use casemate_enclave::supervisor_socket::{REQUEST_LANE_BYTES, SupervisorSocket};
use casemate_protocol::codec::encode;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::{FRAME_BYTES, LOAD_BYTES, OBJECT_BYTES, RECORD_BYTES};
use casemate_protocol::link::VersionObject;
use casemate_protocol::record::{Outgoing, StreamId};
use casemate_protocol::secret::Secret;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, recv, send};

const PATIENCE: Duration = Duration::from_secs(20);

fn request(id: u64, bytes: usize) -> ToManager {
    ToManager::Request { id, deadline_ms: 1, frame: vec![9; bytes], credentials: None }
}

fn ends() -> (SupervisorSocket, OwnedFd) {
    let (ours, theirs) = pair().unwrap();
    (SupervisorSocket::new(ours), theirs)
}

/// The next message. What waits is sent meanwhile, as the supervisor's loop does it.
fn next(socket: &mut SupervisorSocket) -> Result<FromManager, SocketError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if socket.waits_for_room() {
            match socket.flush() {
                // What the vault-manager said before it ended still counts.
                Ok(()) | Err(SocketError::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(message) = socket.try_recv()? {
            return Ok(message);
        }
        assert!(Instant::now() < deadline, "nothing came");
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, socket.waits_for_room());
        poll(&mut [PollFd::new(socket.as_fd(), wanted)], 1000_u16).unwrap();
    }
}

fn say(fd: &OwnedFd, datagram: &[u8]) {
    send(fd.as_raw_fd(), datagram, MsgFlags::MSG_NOSIGNAL).unwrap();
}

/// One record: header fields as given, and this payload.
fn record(payload_len: u32, stream: u64, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&payload_len.to_be_bytes()[..], &stream.to_be_bytes(), &[flags], payload].concat()
}

#[test]
fn messages_of_every_size_arrive_as_they_were_sent() {
    let (mut ours, theirs) = ends();
    let version = |version, bytes| VersionObject { version, bytes: vec![5; bytes] };
    let sent = vec![
        ToManager::Start {
            vault: VaultId::derive(&[1; 32], &[2; 16]),
            newest: Newest::Shown(version(3, OBJECT_BYTES)),
            versions_kept: 10,
            generation: 1,
            parked: Some(vec![8; 1000]),
        },
        request(1, 0),
        request(2, RECORD_BYTES),
        request(3, FRAME_BYTES),
        ToManager::Stop { park: true },
    ];
    let answer = ToManager::Opened {
        vault_key: Secret::new(vec![7; 32]),
        generation: 1,
        versions: (1..4).map(|number| version(number, LOAD_BYTES / 3)).collect(),
    };
    let (count, bytes) = (sent.len() + 1, [1, 64 * 1024, OBJECT_BYTES]);
    let manager = thread::spawn(move || {
        let mut socket = ManagerSocket::new(theirs);
        let received: Vec<_> = (0..count).map(|_| socket.recv().unwrap()).collect();
        for (id, bytes) in (0..).zip(bytes) {
            socket.send(&FromManager::Reply { id, frame: vec![6; bytes] }).unwrap();
        }
        assert_eq!(
            socket.send(&FromManager::Commit { version: 1, object: vec![0; FROM_MANAGER_BYTES] }),
            Err(SocketError::TooLarge)
        );
        socket.send(&FromManager::Open { create: true }).unwrap();
        received
    });
    for message in &sent {
        ours.try_send(message).unwrap();
    }
    ours.try_send(&answer).unwrap();
    for (expected, bytes) in (0..).zip(bytes) {
        let FromManager::Reply { id, frame } = next(&mut ours).unwrap() else { panic!() };
        assert_eq!((id, frame), (expected, vec![6; bytes]));
    }
    assert_eq!(next(&mut ours), Ok(FromManager::Open { create: true }));
    assert_eq!(next(&mut ours), Err(SocketError::Closed));
    let (answers, requests): (Vec<_>, Vec<_>) =
        manager.join().unwrap().into_iter().partition(|message| matches!(message, ToManager::Opened { .. }));
    assert_eq!(requests, sent);
    assert_eq!(answers, [answer]);
    assert_eq!(ours.queued_bytes(), 0);
}

#[test]
fn a_reader_that_stops_pins_four_records_and_a_bounded_queue() {
    let (mut ours, theirs) = ends();
    let mut taken = 0_usize;
    let full = loop {
        match ours.try_send(&request(taken as u64, FRAME_BYTES)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100, "nothing bounds the queue");
    };
    assert_eq!(full, SocketError::QueueFull);
    let sent = taken * encode(&request(0, FRAME_BYTES)).len();
    assert!(ours.queued_bytes() <= REQUEST_LANE_BYTES);
    // What is neither queued nor in the one record that was cut lies in the kernel.
    let in_kernel = sent - ours.queued_bytes();
    assert!(in_kernel <= (OUTSTANDING_RECORDS + 1) * RECORD_BYTES, "{in_kernel} bytes in the kernel");
    assert!(in_kernel >= OUTSTANDING_RECORDS * (RECORD_BYTES - 64), "{in_kernel} bytes in the kernel");
    // Stop is taken even now, and so are answers: they have a lane of their own.
    ours.try_send(&ToManager::CommitResult(CommitResult::Committed)).unwrap();
    ours.try_send(&ToManager::Stop { park: false }).unwrap();

    let manager = thread::spawn(move || {
        let mut socket = ManagerSocket::new(theirs);
        let mut order = Vec::new();
        loop {
            match socket.recv().unwrap() {
                ToManager::Stop { .. } => return order,
                ToManager::CommitResult(_) => order.push(u64::MAX),
                ToManager::Request { id, .. } => order.push(id),
                other => panic!("{other:?}"),
            }
        }
    });
    // Whoever awaits messages also sends what waits.
    assert_eq!(next(&mut ours), Err(SocketError::Closed));
    let order = manager.join().unwrap();
    assert_eq!(order[0], u64::MAX, "a fat request held up a commit result");
    assert_eq!(order[1..], (0..taken as u64).collect::<Vec<_>>());
    assert_eq!(ours.queued_bytes(), 0);
    assert_eq!(ours.try_send(&ToManager::Stop { park: false }), Err(SocketError::Closed));
}

#[test]
fn a_manager_that_asks_and_does_not_read_is_answered_a_few_times() {
    let (mut ours, _theirs) = ends();
    let answer = ToManager::CommitResult(CommitResult::Committed);
    let answered = (0..1000).take_while(|_| ours.try_send(&answer).is_ok()).count();
    // Those in the kernel, and a few behind them.
    assert!((8..1000).contains(&answered), "{answered} answers wait for somebody who does not read");
    assert!(ours.queued_bytes() < 100, "{} bytes of them wait here", ours.queued_bytes());
}

#[test]
fn a_writer_that_is_not_read_pins_four_records() {
    let (_ours, theirs) = ends();
    let datagram = record(u32::try_from(RECORD_BYTES).unwrap(), 0, 0, &vec![0; RECORD_BYTES]);
    let mut sent = 0;
    while send(theirs.as_raw_fd(), &datagram, MsgFlags::MSG_DONTWAIT).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, OUTSTANDING_RECORDS);
}

#[test]
fn what_a_vault_manager_makes_up_is_a_violation() {
    let over = u32::try_from(FROM_MANAGER_BYTES + 1).unwrap();
    let big = u32::try_from(RECORD_BYTES).unwrap();
    let announced = |total: u32, rest: usize| [&total.to_be_bytes()[..], &vec![0; rest]].concat();
    let hostile: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("a datagram shorter than a header", vec![vec![1]]),
        ("a length that is not the datagram's", vec![record(5, 0, 3, &[0; 4])]),
        ("unknown flags", vec![record(4, 0, 0x83, &[0; 4])]),
        ("a datagram over 64 KiB", vec![record(big, 0, 1, &vec![0; RECORD_BYTES + 1])]),
        ("a payload over its limit", vec![record(big + 1, 0, 1, &announced(9, 0))]),
        ("a message over its limit", vec![record(big, 0, 1, &announced(over, RECORD_BYTES - 4))]),
        ("a piece of nothing", vec![record(4, 0, 2, &[0; 4])]),
        ("crumbs", vec![record(5, 0, 1, &announced(1000, 1))]),
        (
            "two messages at once",
            vec![
                record(big, 0, 1, &announced(200_000, RECORD_BYTES - 4)),
                record(big, 1, 1, &announced(200_000, RECORD_BYTES - 4)),
            ],
        ),
        ("no CBOR", vec![record(5, 0, 3, &announced(1, 1))]),
        ("trailing bytes", vec![record(8, 0, 3, &[0, 0, 0, 4, 0x82, 6, 0, 0])]),
        ("a message of the other direction", {
            let mut wire = BytesMut::new();
            let body = Bytes::from(encode(&request(1, 10)));
            Outgoing::new(StreamId { number: 0, is_reply: false }, body).write_piece(&mut wire);
            vec![wire.to_vec()]
        }),
    ];
    for (what, datagrams) in hostile {
        let (mut ours, theirs) = ends();
        for datagram in &datagrams {
            say(&theirs, datagram);
        }
        let error = next(&mut ours).expect_err(what);
        assert_ne!(error, SocketError::Closed, "{what}");
    }
    // A datagram of nothing is an end.
    let (mut ours, theirs) = ends();
    say(&theirs, &[]);
    assert_eq!(next(&mut ours), Err(SocketError::Closed));
}

#[test]
fn last_words_are_heard() {
    let (mut ours, theirs) = ends();
    ours.try_send(&request(1, 10)).unwrap();
    let mut socket = ManagerSocket::new(theirs);
    for id in 0..3 {
        socket.send(&FromManager::Reply { id, frame: vec![1; 70_000] }).unwrap_or_else(|error| panic!("{id}: {error}"));
        if id == 0 {
            assert!(matches!(next(&mut ours), Ok(FromManager::Reply { id: 0, .. })));
        }
        if id == 1 {
            break;
        }
    }
    // It ends with a request unread, upon which the kernel lets one call of ours fail.
    drop(socket);
    ours.try_send(&request(2, 10)).unwrap_err();
    assert!(matches!(next(&mut ours), Ok(FromManager::Reply { id: 1, .. })));
    assert_eq!(next(&mut ours), Err(SocketError::Closed));
}

#[test]
fn a_manager_can_wait_with_a_deadline() {
    let (ours, theirs) = pair().unwrap();
    let mut socket = ManagerSocket::new(theirs);
    let begun = Instant::now();
    assert_eq!(socket.recv_timeout(Duration::from_millis(30)), Ok(None));
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let mut wire = BytesMut::new();
    let message = request(1, 100_000);
    let mut outgoing = Outgoing::new(StreamId { number: 0, is_reply: false }, Bytes::from(encode(&message)));
    assert!(!outgoing.write_piece(&mut wire));
    say(&ours, &wire);
    // Half a message is no message, and is not lost.
    assert_eq!(socket.recv_timeout(Duration::from_millis(5)), Ok(None));
    wire.clear();
    assert!(outgoing.write_piece(&mut wire));
    say(&ours, &wire);
    assert_eq!(socket.recv_timeout(Duration::ZERO), Ok(Some(message)));
    drop(ours);
    assert_eq!(socket.recv_timeout(Duration::MAX), Err(SocketError::Closed));
    assert_eq!(socket.recv(), Err(SocketError::Closed));
}

#[test]
fn the_supervisors_end_never_blocks_and_no_descriptor_is_inherited() {
    let (ours, theirs) = pair().unwrap();
    assert_eq!(recv(ours.as_raw_fd(), &mut [0; 8], MsgFlags::empty()), Err(Errno::EAGAIN));
    for end in [&ours, &theirs] {
        let flags = nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
