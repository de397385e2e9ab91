//! What the two ends of a requests connection promise, to each other and against a peer that breaks the rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use casemate_link::{Answers, CallError, Calls, CloseReason, Exchange, Limits, Ticket};
use casemate_protocol::limits::RECORD_BYTES;
use casemate_protocol::record::{Outgoing, RecordError, StreamId};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

const LIMITS: Limits = Limits { message_bytes: 2 << 20, window_requests: 16, window_bytes: 8 << 20 };
const PATIENCE: Duration = Duration::from_secs(10);

type Calling = (Calls<u64>, Exchange<DuplexStream, u64>);

fn pair() -> (Calling, Answers<DuplexStream>) {
    let (here, there) = duplex(64 * 1024);
    (Exchange::new(here, LIMITS), Answers::new(there, LIMITS))
}

fn later() -> Instant {
    Instant::now() + PATIENCE
}

/// Takes what has come and writes what waits, until something has come.
async fn receive(answers: &mut Answers<DuplexStream>) -> Result<Vec<(Ticket, Bytes)>, CloseReason> {
    let mut taken = Vec::new();
    let work = poll_fn(|cx| {
        answers.poll_flush(cx)?;
        match answers.poll_receive(cx, |ticket, body| taken.push((ticket, Bytes::copy_from_slice(body)))) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout(PATIENCE, work).await.expect("nothing came")?;
    Ok(taken)
}

/// Answers every call with its own body, for ever.
fn echo(mut answers: Answers<DuplexStream>) {
    tokio::spawn(async move {
        while let Ok(calls) = receive(&mut answers).await {
            for (ticket, body) in calls {
                answers.answer(&ticket, body);
            }
        }
    });
}

/// The next `count` ends, by waiter.
async fn ends(exchange: &mut Exchange<DuplexStream, u64>, count: usize) -> BTreeMap<u64, Result<Bytes, CallError>> {
    let mut ends = BTreeMap::new();
    while ends.len() < count {
        for (waiter, end) in timeout(PATIENCE, exchange.next()).await.expect("no call ends").unwrap() {
            assert!(ends.insert(waiter, end).is_none(), "call {waiter} ended twice");
        }
    }
    ends
}

#[tokio::test]
async fn messages_of_every_size_come_back_whole_and_once() {
    let ((calls, mut exchange), answers) = pair();
    echo(answers);
    let sizes = [1, 300, RECORD_BYTES - 4, RECORD_BYTES - 3, 300_000, 2 << 20];
    for (waiter, size) in (0..).zip(sizes) {
        calls.begin(vec![u8::try_from(waiter).unwrap(); size].into(), later(), waiter).unwrap();
    }
    let ends = ends(&mut exchange, sizes.len()).await;
    for ((waiter, end), size) in ends.into_iter().zip(sizes) {
        assert_eq!(end, Ok(vec![u8::try_from(waiter).unwrap(); size].into()));
    }
    assert_eq!(calls.in_flight(), 0);
}

#[tokio::test]
async fn beyond_the_window_is_busy_at_once_and_an_answer_makes_room() {
    let ((calls, mut exchange), mut answers) = pair();
    for waiter in 0..16 {
        calls.begin(Bytes::from_static(b"x"), later(), waiter).unwrap();
    }
    assert_eq!(calls.begin(Bytes::from_static(b"x"), later(), 16), Err((CallError::Busy, 16)));
    let big = Bytes::from(vec![0; LIMITS.message_bytes + 1]);
    assert_eq!(calls.begin(big, later(), 17), Err((CallError::TooLarge, 17)));
    let (received, _) = tokio::join!(receive(&mut answers), timeout(Duration::from_millis(50), exchange.next()));
    let mut received = received.unwrap();
    answers.answer(&received.remove(3).0, Bytes::from_static(b"y"));
    let ends = tokio::select! {
        ends = ends(&mut exchange, 1) => ends,
        other = receive(&mut answers) => panic!("{other:?}"),
    };
    assert_eq!(ends, BTreeMap::from([(3, Ok(Bytes::from_static(b"y")))]));
    calls.begin(Bytes::from_static(b"x"), later(), 18).unwrap();
}

#[tokio::test]
async fn a_silent_peer_is_waited_for_until_each_deadline_and_its_late_answer_is_dropped() {
    let ((calls, mut exchange), mut answers) = pair();
    let begun = Instant::now();
    for (waiter, wait) in [(0, 80), (1, 20), (2, 50)] {
        calls.begin(Bytes::from_static(b"x"), begun + Duration::from_millis(wait), waiter).unwrap();
    }
    let mut order = Vec::new();
    let mut received = Vec::new();
    while order.len() < 3 {
        tokio::select! {
            ended = exchange.next() => order.extend(ended.unwrap()),
            calls = receive(&mut answers), if received.is_empty() => received = calls.unwrap(),
        }
    }
    assert_eq!(order, [1, 2, 0].map(|waiter| (waiter, Err(CallError::Deadline))));
    assert!(begun.elapsed() >= Duration::from_millis(80));
    // Nobody waits, but the other side works on them still.
    assert_eq!(calls.in_flight(), 3);
    for (ticket, body) in received {
        answers.answer(&ticket, body);
    }
    calls.begin(Bytes::from_static(b"after"), later(), 9).unwrap();
    echo(answers);
    assert_eq!(ends(&mut exchange, 1).await, BTreeMap::from([(9, Ok(Bytes::from_static(b"after")))]));
    assert_eq!(calls.in_flight(), 0);
}

#[tokio::test]
async fn the_end_of_the_connection_ends_every_call_once() {
    let ((calls, mut exchange), answers) = pair();
    for waiter in 0..5 {
        calls.begin(Bytes::from_static(b"x"), later(), waiter).unwrap();
    }
    drop(answers);
    let ends = ends(&mut exchange, 5).await;
    assert!(ends.values().all(|end| *end == Err(CallError::Closed)));
    exchange.next().await.unwrap_err();
    assert!(calls.is_closed());
    assert_eq!(calls.begin(Bytes::from_static(b"x"), later(), 6), Err((CallError::Closed, 6)));

    let ((calls, mut exchange), _answers) = pair();
    calls.begin(Bytes::from_static(b"x"), later(), 0).unwrap();
    calls.close();
    assert_eq!(exchange.next().await.unwrap(), [(0, Err(CallError::Closed))]);
    assert_eq!(exchange.next().await.unwrap_err(), CloseReason::Local);
}

#[tokio::test]
async fn an_answer_goes_to_its_own_connection_and_a_fat_one_is_none() {
    let ((calls, mut exchange), mut answers) = pair();
    let ((stranger_calls, mut stranger), mut former) = pair();
    stranger_calls.begin(Bytes::from_static(b"x"), later(), 0).unwrap();
    let (old, _) = tokio::join!(receive(&mut former), timeout(Duration::from_millis(50), stranger.next()));
    calls.begin(Bytes::from_static(b"x"), later(), 1).unwrap();
    let (new, _) = tokio::join!(receive(&mut answers), timeout(Duration::from_millis(50), exchange.next()));
    answers.answer(&old.unwrap()[0].0, Bytes::from_static(b"not yours"));
    answers.answer(&new.unwrap()[0].0, vec![0; LIMITS.message_bytes + 1].into());
    echo(answers);
    assert_eq!(ends(&mut exchange, 1).await, BTreeMap::from([(1, Err(CallError::Unanswered))]));
}

/// What a peer may not send, and what is said of it.
fn wire(number: u64, is_reply: bool, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let mut message = Outgoing::new(StreamId { number, is_reply }, Bytes::copy_from_slice(body));
    while !message.write_piece(&mut out) {}
    out
}

#[tokio::test]
async fn rule_breakers_are_cut_off() {
    let cases: [(BytesMut, CloseReason); 4] = [
        (wire(7, true, b"an answer to nothing"), CloseReason::StrayReply),
        (wire(7, false, b"a call"), CloseReason::StrayCall),
        (BytesMut::from(&[0xff; 64][..]), CloseReason::Record(RecordError::Header)),
        (wire(0, true, &vec![0; LIMITS.message_bytes + 1]), CloseReason::Record(RecordError::TooLarge)),
    ];
    for (bytes, expected) in cases {
        let (here, mut there) = duplex(8 << 20);
        let (calls, mut exchange) = Exchange::new(here, LIMITS);
        calls.begin(Bytes::from_static(b"x"), later(), 0).unwrap();
        there.write_all(&bytes).await.unwrap();
        assert_eq!(exchange.next().await.unwrap(), [(0, Err(CallError::Closed))]);
        let reason = exchange.next().await.unwrap_err();
        assert_eq!((reason, reason.is_violation()), (expected, true));
    }

    let many: BytesMut = (0..17).flat_map(|number| wire(number, false, b"x")).collect();
    let cases = [
        (wire(7, true, b"an answer"), CloseReason::StrayReply),
        (many, CloseReason::Window),
        (BytesMut::from(&[0xff; 64][..]), CloseReason::Record(RecordError::Header)),
    ];
    for (bytes, expected) in cases {
        let (here, mut there) = duplex(8 << 20);
        let mut answers = Answers::new(here, LIMITS);
        there.write_all(&bytes).await.unwrap();
        let reason = receive(&mut answers).await.unwrap_err();
        assert_eq!((reason, reason.is_violation()), (expected, true));
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_pins_the_window_and_no_more() {
    let (here, mut there) = duplex(1024);
    let (calls, mut exchange) = Exchange::new(here, LIMITS);
    let body = Bytes::from(vec![0; 1 << 20]);
    let mut begun = 0;
    while calls.begin(body.clone(), Instant::now() + Duration::from_millis(30), begun).is_ok() {
        begun += 1;
        assert!(begun < 100, "nothing bounds what waits");
    }
    assert_eq!(begun, 8);
    let ends = ends(&mut exchange, 8).await;
    assert!(ends.values().all(|end| *end == Err(CallError::Deadline)));
    assert_eq!(calls.begin(body, later(), 9).unwrap_err().0, CallError::Busy);
    there.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_calls_and_does_not_read_is_not_received_from_any_more() {
    let (here, mut there) = duplex(4096);
    let mut answers = Answers::new(here, LIMITS);
    let mut answered = 0;
    while !answers.is_full() {
        there.write_all(&wire(answered, false, b"x")).await.unwrap();
        for (ticket, _) in receive(&mut answers).await.unwrap() {
            answers.answer(&ticket, Bytes::from(vec![0; 1000]));
        }
        answered += 1;
        assert!(answered < 100, "nothing bounds what waits");
    }
    assert!(answered >= 16, "an honest peer's whole window is received");
    let (mut reader, _writer) = tokio::io::split(there);
    tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    timeout(
        PATIENCE,
        poll_fn(|cx| {
            answers.poll_flush(cx).unwrap();
            if answers.is_full() { Poll::Pending } else { Poll::Ready(()) }
        }),
    )
    .await
    .expect("there is room again once it has read");
}
