//! One frame: a pure function of what is known and of the size of the screen.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::node::printable;
use super::super::units;
use super::columns::Columns;
use super::model::Model;

/// Between two things on a line.
const GAP: &str = "   ";
const HELP: [&str; 9] = [
    "m: by memory",
    "r: by requests",
    "l: by latency",
    "d: by depth of queue",
    "i: by idle time",
    "↑ ↓ PgUp PgDn Home End: scroll",
    "?: help",
    "q Esc Ctrl-C: quit",
    "REQ/S and LATENCY are powers of two",
];

/// How a frame looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether it has colours.
    pub(super) colours: bool,
    /// Whether somebody sits before it and can press keys.
    pub(super) live: bool,
}

impl Look {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// The style of a word that tells whether something is well.
    fn verdict(self, well: bool, middling: bool) -> Style {
        self.colour(match (well, middling) {
            (true, _) => Color::Green,
            (false, true) => Color::Yellow,
            (false, false) => Color::Red,
        })
    }
}

/// How many vaults a screen of this size holds.
pub(super) fn rows(model: &Model, look: Look, area: Rect) -> usize {
    let width = area.width.into();
    let around = header(model, look, width).len() + below(model, look, width).len() + 2;
    usize::from(area.height).saturating_sub(around)
}

/// Draws a frame.
pub(super) fn draw(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let lines = frame(model, look, area.width.into(), rows(model, look, area));
    for (y, line) in (area.y..area.bottom()).zip(&lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// The same as plain text, as long as it must be.
pub(super) fn text(model: &Model, width: usize) -> Vec<String> {
    let look = Look { colours: false, live: false };
    let lines = frame(model, look, width, model.sample.vaults.len().max(1));
    lines.iter().map(|line| line.to_string().trim_end().to_owned()).collect()
}

fn frame(model: &Model, look: Look, width: usize, rows: usize) -> Vec<Line<'static>> {
    let mut lines = header(model, look, width);
    lines.push(Line::default());
    let columns = Columns::fitting(width);
    let heading = columns.heading(model.by);
    lines.push(Line::styled(format!("{heading:<width$}"), Style::new().add_modifier(Modifier::REVERSED)));
    let vaults = model.sample.vaults.iter().skip(model.scroll).take(rows);
    let mut shown: Vec<_> = vaults
        .map(|vault| {
            let style = if vault.state == "open" { Style::new() } else { look.colour(Color::Yellow) };
            Line::styled(columns.row(vault), style)
        })
        .collect();
    if model.sample.vaults.is_empty() && rows > 0 {
        let why = model.sample.unlisted.as_deref().unwrap_or("no vault is resident");
        shown.push(Line::raw(printable(why)));
    }
    shown.resize(rows, Line::default());
    lines.append(&mut shown);
    lines.append(&mut below(model, look, width));
    lines
}

fn header(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let health = &model.sample.health;
    let seconds = |seconds| units::age(Duration::from_secs(seconds));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = Vec::new();

    let status = look.verdict(health.status == "healthy", health.status == "degraded");
    lines.append(&mut flow(
        vec![
            Span::styled(format!("node {}", printable(&health.node)), bold),
            Span::styled(printable(&health.status), status.add_modifier(Modifier::BOLD)),
            Span::raw(format!("up {}", seconds(health.uptime_s))),
            Span::raw(format!("version {}", printable(&health.version))),
        ],
        width,
    ));

    let enclave = &health.enclave;
    let connected = if enclave.connected { "connected" } else { "not connected" };
    let evidence =
        enclave.evidence_age_s.map_or_else(|| "no evidence".to_owned(), |age| format!("evidence {}", seconds(age)));
    let nats = if health.nats.connected {
        format!("nats {}", units::took(health.nats.rtt_us))
    } else {
        "nats away".to_owned()
    };
    let kms = if health.kms.state.is_empty() { "-".to_owned() } else { printable(&health.kms.state) };
    lines.append(&mut flow(
        vec![
            Span::styled(format!("enclave {connected}"), look.verdict(enclave.connected, false)),
            Span::raw(format!("up {}", seconds(enclave.uptime_s))),
            Span::raw(evidence),
            Span::styled(nats, look.verdict(health.nats.connected, false)),
            Span::styled(if health.store.ok { "store ok" } else { "store away" }, look.verdict(health.store.ok, false)),
            Span::styled(format!("kms {kms}"), look.verdict(kms == "ok", kms == "degraded")),
            Span::raw(format!("keys cached {}", health.kms.cached_keys)),
        ],
        width,
    ));

    let memory = &health.memory;
    let (used, total, left) = (units::bytes(memory.used), units::bytes(memory.total), units::bytes(memory.available));
    // The shares at which eviction ends and begins, as they are set by default.
    let full = units::percent(memory.used, memory.total);
    let style = look.verdict(full < 75, full < 85);
    let figures = format!("{used} of {total}, {left} available");
    lines.push(gauge("memory", (memory.used, memory.total), &figures, style, width));
    let vaults = &health.vaults;
    let figures = format!("{} of {}", vaults.resident, vaults.limit);
    let style = look.verdict(vaults.resident < vaults.limit, true);
    lines.push(gauge("resident", (vaults.resident, vaults.limit), &figures, style, width));

    let rate = |of: fn(&super::rates::Rates) -> f64| {
        model.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| format!("{}/s", units::rate(of(rates))))
    };
    let hits = model.hits_percent.map_or_else(|| "-".to_owned(), |percent| format!("{} %", units::rate(percent)));
    let died = if vaults.crashed == 0 && vaults.stuck == 0 { Style::new() } else { look.colour(Color::Red) };
    // A vault-manager tried what it may not: a break-in until shown otherwise.
    let killed = (vaults.sandbox_killed > 0).then(|| {
        let style = look.colour(Color::Red).add_modifier(Modifier::BOLD);
        Span::styled(format!("! sandbox killed {}", vaults.sandbox_killed), style)
    });
    let figures = vec![
        Span::raw(format!("half-open {}", vaults.half_open)),
        Span::raw(format!("parked {}", vaults.parked)),
        Span::raw(format!("in flight {}", vaults.in_flight)),
        Span::styled(format!("requests {}", rate(|rates| rates.requests)), bold),
        Span::raw(format!("refused {}", rate(|rates| rates.refused))),
        Span::raw(format!("evictions {}", rate(|rates| rates.evictions))),
        Span::raw(format!("opens {}", rate(|rates| rates.opens))),
        Span::raw(format!("cache hits {hits}")),
        Span::styled(format!("crashed/stuck {}/{}", vaults.crashed, vaults.stuck), died),
    ];
    lines.append(&mut flow(figures.into_iter().chain(killed).collect(), width));

    let reasons = health.reasons.iter().map(|reason| Span::styled(format!("! {}", printable(reason)), status));
    lines.append(&mut flow(reasons.collect(), width));
    lines
}

/// What stands at the foot: the help if it is wanted, and which part of the list is shown, or why nothing of it is new.
fn below(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines = flow(HELP.iter().filter(|_| model.help).map(|help| Span::raw(*help)).collect(), width);
    if let Some(lost) = &model.lost {
        let why = format!("! {}; asked again every {}", printable(&lost.why), units::age(lost.pause));
        lines.push(Line::styled(why, look.colour(Color::Red).add_modifier(Modifier::BOLD)));
        return lines;
    }
    let (first, listed) = (model.scroll + 1, model.listed());
    let last = model.sample.vaults.len();
    let part = match (look.live, last) {
        (_, 0) => "vaults: none".to_owned(),
        (true, _) => format!("vaults from {first} of {listed}, by {}", model.by.as_str()),
        (false, _) => format!("vaults {first} to {last}, by {}", model.by.as_str()),
    };
    let keys = if look.live && !model.help { "   ?: help   q: quit" } else { "" };
    lines.push(Line::raw(format!("{part}{keys}")));
    lines
}

/// A bar between its name and its figures.
fn gauge(name: &str, (part, whole): (u64, u64), figures: &str, style: Style, width: usize) -> Line<'static> {
    let percent = units::percent(part, whole);
    let (name, figures) = (format!("{name:<8}  "), format!(" {percent:>3} %   {figures}"));
    // The figures say more than the bar.
    let left = width.saturating_sub(name.chars().count() + figures.chars().count());
    let bar = units::bar(part, whole, left.min(width / 4).max(4));
    Line::from(vec![Span::raw(name), Span::styled(bar, style), Span::raw(figures)])
}

/// Puts things beside each other, on as many lines as it takes.
fn flow(things: Vec<Span<'static>>, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for thing in things {
        match lines.last_mut() {
            Some(line) if line.width() + GAP.len() + thing.width() <= width => {
                line.push_span(Span::raw(GAP));
                line.push_span(thing);
            }
            _ => lines.push(Line::from(thing)),
        }
    }
    lines
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
