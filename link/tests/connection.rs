//! What a connection promises, and what it does to a peer that breaks the rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use casemate_link::{CallError, CloseReason, Connection, Incoming, Limits};
use casemate_protocol::limits::RECORD_BYTES;
use casemate_protocol::record::{Assembler, Bounds, HEADER_BYTES, Header, Outgoing, RecordError, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const LIMITS: Limits = Limits { message_bytes: 5 << 20, window_requests: 16, window_bytes: 8 << 20 };
const SOON: Duration = Duration::from_secs(5);

fn pair() -> (Connection, Connection) {
    let (here, there) = duplex(64 * 1024);
    (Connection::spawn(here, LIMITS), Connection::spawn(there, LIMITS))
}

/// A connection, and the bare other end of its stream.
fn bare() -> (Connection, DuplexStream) {
    let (here, there) = duplex(64 * 1024);
    (Connection::spawn(here, LIMITS), there)
}

/// Answers every call with its own body.
fn echo(mut connection: Connection) {
    tokio::spawn(async move {
        while let Some(incoming) = connection.incoming.recv().await {
            if let Incoming::Call { body, reply, .. } = incoming {
                reply.reply(body);
            }
        }
    });
}

async fn record(stream: &mut DuplexStream) -> (Header, Bytes) {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let header = Header::parse(&header).unwrap();
    let mut payload = vec![0; header.payload_len];
    stream.read_exact(&mut payload).await.unwrap();
    (header, payload.into())
}

fn wire(number: u64, is_reply: bool, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let mut message = Outgoing::new(StreamId { number, is_reply }, Bytes::copy_from_slice(body));
    while !message.write_piece(&mut out) {}
    out
}

#[tokio::test]
async fn messages_of_every_size_come_back_whole() {
    let (here, there) = pair();
    echo(there);
    let sizes = [1, RECORD_BYTES - 4, RECORD_BYTES - 3, 300_000, 5 << 20];
    for size in sizes {
        let body = Bytes::from(vec![7; size]);
        assert_eq!(here.caller.call(body.clone(), SOON).await, Ok(body));
    }
    assert_eq!(here.caller.in_flight(), (0, 0));
    let too_large = Bytes::from(vec![0; (5 << 20) + 1]);
    assert_eq!(here.caller.call(too_large, SOON).await, Err(CallError::TooLarge));
}

#[tokio::test]
async fn a_long_message_does_not_delay_a_short_one() {
    let (here, mut there) = bare();
    let long = here.caller.begin(vec![1; 4 << 20].into()).unwrap();
    // The long one is on its way before the short one exists.
    record(&mut there).await;
    let short = here.caller.begin(Bytes::from_static(b"short")).unwrap();
    let mut before = 0;
    while record(&mut there).await.0.stream.number != 1 {
        before += 1;
    }
    assert!(before <= 6, "{before} records of the long message came before the short one");
    drop((long, short));
}

#[tokio::test]
async fn two_long_messages_take_turns() {
    let (here, mut there) = bare();
    let calls = [here.caller.begin(vec![1; 4 << 20].into()), here.caller.begin(vec![2; 4 << 20].into())];
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(record(&mut there).await.0.stream.number);
    }
    assert!(seen.windows(3).all(|three| three.contains(&0) && three.contains(&1)), "{seen:?}");
    drop(calls);
}

#[tokio::test]
async fn beyond_the_window_is_busy_at_once_and_an_answer_makes_room() {
    let (here, mut there) = pair();
    let first: Vec<_> = (0..16).map(|_| here.caller.begin(Bytes::from_static(b"x")).unwrap()).collect();
    assert_eq!(here.caller.begin(Bytes::from_static(b"x")).unwrap_err(), CallError::Busy);
    assert_eq!(here.caller.in_flight(), (16, 16));
    let Some(Incoming::Call { reply, .. }) = there.incoming.recv().await else { panic!("a call") };
    reply.reply(Bytes::from_static(b"y"));
    let mut first = first.into_iter();
    assert_eq!(first.next().unwrap().wait(SOON).await, Ok(Bytes::from_static(b"y")));
    assert!(here.caller.begin(Bytes::from_static(b"x")).is_ok());

    let (here, _there) = pair();
    let _large = here.caller.begin(vec![0; 5 << 20].into()).unwrap();
    assert_eq!(here.caller.begin(vec![0; 5 << 20].into()).unwrap_err(), CallError::Busy);
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_its_late_answer_is_dropped() {
    let (here, mut there) = pair();
    let begun = Instant::now();
    let late = here.caller.call(Bytes::from_static(b"late"), Duration::from_millis(30)).await;
    assert_eq!(late, Err(CallError::Deadline));
    assert!(begun.elapsed() < SOON);
    // The other side still works on it: the place in the window is taken.
    assert_eq!(here.caller.in_flight(), (1, 4));
    let Some(Incoming::Call { reply, .. }) = there.incoming.recv().await else { panic!("a call") };
    reply.reply(Bytes::from_static(b"too late"));
    echo(there);
    assert_eq!(here.caller.call(Bytes::from_static(b"next"), SOON).await, Ok(Bytes::from_static(b"next")));
    assert_eq!(here.caller.in_flight(), (0, 0));
}

#[tokio::test]
async fn the_end_of_the_connection_ends_every_call_once() {
    let (mut here, there) = pair();
    let calls: Vec<_> = (0..5).map(|_| here.caller.begin(Bytes::from_static(b"x")).unwrap()).collect();
    // Whoever drops the connection's incoming half has ended it.
    drop(there);
    for call in calls {
        assert_eq!(call.wait(SOON).await, Err(CallError::Closed));
    }
    assert_eq!(here.closed.wait().await, CloseReason::Ended);
    assert_eq!(here.caller.begin(Bytes::from_static(b"x")).unwrap_err(), CallError::Closed);
    assert!(here.incoming.recv().await.is_none());
}

#[tokio::test]
async fn closing_locally_is_seen_by_both() {
    let (mut here, mut there) = pair();
    here.caller.close();
    assert_eq!(here.closed.wait().await, CloseReason::Local);
    assert!(there.incoming.recv().await.is_none());
    assert_eq!(there.closed.wait().await, CloseReason::Ended);
}

#[tokio::test]
async fn a_call_that_is_let_go_still_gets_its_one_end() {
    let (here, mut there) = pair();
    let calls = [(); 2].map(|()| here.caller.begin(Bytes::from_static(b"x")).unwrap());
    let (Some(first), Some(Incoming::Call { reply, .. })) = (there.incoming.recv().await, there.incoming.recv().await)
    else {
        panic!("two calls")
    };
    drop(first);
    // Too long an answer must not end the connection for everybody else either.
    reply.reply(vec![0; (5 << 20) + 1].into());
    for call in calls {
        assert_eq!(call.wait(SOON).await, Err(CallError::Unanswered));
    }
    echo(there);
    assert!(here.caller.call(Bytes::from_static(b"x"), SOON).await.is_ok());
}

#[tokio::test]
async fn notices_arrive_without_taking_the_calls_places() {
    let (here, mut there) = pair();
    here.caller.notify(Bytes::from_static(b"hear")).unwrap();
    match there.incoming.recv().await {
        Some(Incoming::Notice { body }) => assert_eq!(body, "hear"),
        other => panic!("{other:?}"),
    }
    // A flood that nobody takes loses notices, not calls.
    for _ in 0..2000 {
        let _refused_or_sent = here.caller.notify(Bytes::from_static(b"flood"));
        tokio::task::yield_now().await;
    }
    let calls: Vec<_> = (0..16).map(|_| here.caller.begin(Bytes::from_static(b"x")).unwrap()).collect();
    echo(there);
    for call in calls {
        assert_eq!(call.wait(SOON).await, Ok(Bytes::from_static(b"x")));
    }
}

#[tokio::test]
async fn reading_goes_on_while_nobody_reads_what_is_written() {
    let (here, mut there) = bare();
    // More than the pipe holds: the writer is stuck from here on.
    let _stuck = here.caller.begin(vec![0; 1 << 20].into()).unwrap();
    let small = here.caller.begin(Bytes::from_static(b"x")).unwrap();
    there.write_all(&wire(1, true, b"y")).await.unwrap();
    assert_eq!(small.wait(SOON).await, Ok(Bytes::from_static(b"y")));
    // Who answers with much can wait for the other side to read.
    let waiting = tokio::time::timeout(Duration::from_millis(50), here.caller.written_down_to(1000)).await;
    assert!(waiting.is_err());
    let caller = here.caller.clone();
    let drained = tokio::spawn(async move { caller.written_down_to(0).await });
    while !drained.is_finished() {
        tokio::select! {
            _ = record(&mut there) => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

#[tokio::test]
async fn rule_breakers_are_cut_off() {
    let cases = [
        ("a header that is none", BytesMut::from(&[0xff; HEADER_BYTES][..]), CloseReason::Record(RecordError::Header)),
        (
            "a message over the limit",
            wire(0, false, &vec![0; (5 << 20) + 1]),
            CloseReason::Record(RecordError::TooLarge),
        ),
        ("an answer to nothing", wire(3, true, b"x"), CloseReason::StrayReply),
        (
            "a piece of nothing",
            BytesMut::from(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 7][..]),
            CloseReason::Record(RecordError::OutOfStep),
        ),
        (
            "more calls than the window",
            (0..17).flat_map(|number| wire(number, false, b"x")).collect(),
            CloseReason::Window,
        ),
    ];
    for (what, bytes, reason) in cases {
        let (mut here, mut there) = bare();
        let call = here.caller.begin(Bytes::from_static(b"waits")).unwrap();
        // It may be cut off in the middle.
        let _cut = there.write_all(&bytes).await;
        assert_eq!(here.closed.wait().await, reason, "{what}");
        assert_eq!(call.wait(SOON).await, Err(CallError::Closed), "{what}");
    }
}

#[tokio::test]
async fn a_second_answer_is_a_stray_one() {
    let (mut here, mut there) = bare();
    let call = here.caller.begin(Bytes::from_static(b"x")).unwrap();
    there.write_all(&wire(0, true, b"first")).await.unwrap();
    there.write_all(&wire(0, true, b"second")).await.unwrap();
    assert_eq!(call.wait(SOON).await, Ok(Bytes::from_static(b"first")));
    assert_eq!(here.closed.wait().await, CloseReason::StrayReply);
}

#[tokio::test]
async fn what_is_unfinished_stays_within_the_window() {
    let (here, mut there) = bare();
    let calls: Vec<_> = (0..2).map(|_| here.caller.begin(vec![0; 4 << 20].into()).unwrap()).collect();
    let bounds = Bounds { message_bytes: 5 << 20, messages: 16, bytes: 8 << 20 };
    let mut assembler = Assembler::new(bounds);
    let mut whole = 0;
    while whole < 2 {
        let (header, payload) = record(&mut there).await;
        whole += usize::from(assembler.take(header, &payload).unwrap().is_some());
    }
    drop(calls);
}
