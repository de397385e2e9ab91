//! Golden frames: narrow, wide, lost, without an enclave.

use std::fmt::Write;
use std::time::Duration;

use casemate_protocol::resident::VaultsBy;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::super::sample::Sample;
use super::*;

fn page(requests: u64) -> Value {
    json!({
        "status": "degraded",
        "node": "node-1",
        "version": "0.1.0",
        "uptime_s": 7260,
        "enclave": { "connected": true, "answered_at_ms": 1000 + (requests - 1000) * 8, "uptime_s": 7200, "evidence_age_s": 300 },
        "nats": { "connected": true, "rtt_us": 180 },
        "store": { "ok": true },
        "kms": { "state": "degraded", "cached_keys": 3, "hits": 990, "misses": 10 },
        "vaults": {
            "resident": 120, "half_open": 1, "parked": 30, "limit": 1000, "in_flight": 4, "evicted": 7, "opened": 127,
            "crashed": 1, "stuck": 0, "requests": requests, "refused": 2
        },
        "memory": { "total": 4_294_967_296_u64, "used": 3_435_973_836_u64, "available": 858_993_460 },
        "reasons": ["kms: degraded", "enclave: memory is short"],
    })
}

fn list(count: u64) -> Value {
    let states = ["open", "open", "opening", "half_open"];
    let vault = |number: u64| {
        let place = usize::try_from(number).unwrap();
        json!({
            "vault": format!("{}{number:02}", "vov2xk5lvov2xk5lvov2xk5lvov2xk"),
            "state": states[place % states.len()],
            "memory_bytes": (20 - number) * 65_536 * 7,
            "requests_per_second": ([64.0, 0.125, 0.0])[place % 3],
            "latency_us": ([Some(512), Some(131_072), None])[place % 3],
            "in_flight": number,
            "queued": number / 2,
            "idle_ms": number * 40_000,
            "pid": 4000 + number,
        })
    };
    json!({ "vaults": (0..count).map(vault).collect::<Vec<_>>() })
}

fn model(vaults: u64) -> Model {
    let sample = |requests| Sample::read(page(requests), Ok(list(vaults)), Duration::ZERO).unwrap();
    let mut model = Model::new(sample(1000), VaultsBy::Memory, None);
    model.answered(sample(1250));
    model
}

/// What a terminal of this size shows.
fn screen(model: &mut Model, look: Look, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    model.fits(rows(model, look, Rect::new(0, 0, width, height)));
    terminal.draw(|frame| draw(model, look, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        writeln!(text, "{}", line.trim_end()).unwrap();
    }
    text
}

const LIVE: Look = Look { colours: true, live: true };

#[test]
fn wide() {
    let mut model = model(6);
    assert_eq!(screen(&mut model, LIVE, 120, 20), include_str!("golden/wide.txt"));
}

#[test]
fn narrow_scrolled_with_help() {
    let mut model = model(15);
    model.help = true;
    model.fits(4);
    model.scroll = 5;
    assert_eq!(screen(&mut model, LIVE, 60, 24), include_str!("golden/narrow.txt"));
}

#[test]
fn lost_and_without_an_enclave() {
    let page = json!({ "status": "unhealthy", "node": "n\u{1b}[2J", "reasons": ["enclave: not connected"] });
    let sample = Sample::read(page, Err("the enclave is not connected".to_owned()), Duration::ZERO).unwrap();
    let mut model = Model::new(sample, VaultsBy::Rate, None);
    model.not_answered("no answer from /run/casemate/admin.sock: refused".to_owned());
    model.not_answered("no answer from /run/casemate/admin.sock: refused".to_owned());
    assert_eq!(screen(&mut model, LIVE, 100, 16), include_str!("golden/lost.txt"));
}

#[test]
fn a_break_in_is_told() {
    let told = |killed: u64| {
        let mut page = page(1000);
        page["vaults"]["sandbox_killed"] = killed.into();
        let sample = Sample::read(page, Ok(list(1)), Duration::ZERO).unwrap();
        text(&Model::new(sample, VaultsBy::Memory, None), 120).join("\n").contains("! sandbox killed 2")
    };
    assert!(told(2) && !told(0));
}

#[test]
fn plain_text_is_as_long_as_it_must_be() {
    let lines = text(&model(6), 120);
    assert_eq!(lines.join("\n") + "\n", include_str!("golden/once.txt"));
}

#[test]
fn without_colours_there_are_none_and_nothing_else_changes() {
    let mut model = model(6);
    let plain = Look { colours: false, ..LIVE };
    assert_eq!(screen(&mut model, plain, 100, 20), screen(&mut model, LIVE, 100, 20));
    let colours = |look| {
        let area = Rect::new(0, 0, 100, 20);
        let mut buffer = Buffer::empty(area);
        draw(&model, look, area, &mut buffer);
        buffer.content.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert_eq!(colours(plain), 0);
    assert!(colours(LIVE) > 0);
}

#[test]
fn any_size_is_drawn() {
    let mut model = model(6);
    for width in [0, 1, 7, 30, 79, 300] {
        for height in [0, 1, 2, 5, 9, 100] {
            screen(&mut model, LIVE, width, height);
        }
    }
}
