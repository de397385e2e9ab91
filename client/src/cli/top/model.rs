//! What the view knows, and how answers, failures and keys change it. No terminal and no node: plain values.

use std::time::Duration;

use casemate_protocol::link::TOLD_VAULTS;
use casemate_protocol::resident::VaultsBy;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use super::rates::{Counters, Difference, Rates};
use super::sample::Sample;

/// The first pause after a node did not answer; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// What the view knows.
#[derive(Debug)]
pub(super) struct Model {
    /// The newest answer.
    pub(super) sample: Sample,
    /// What the newest two answers that differ tell; none before, and after a restart.
    pub(super) rates: Option<Rates>,
    /// The key cache's hits in percent: lately, or since boot while nobody has asked it lately.
    pub(super) hits_percent: Option<f64>,
    /// By what the vaults are listed.
    pub(super) by: VaultsBy,
    /// Vaults above the first that is shown.
    pub(super) scroll: usize,
    /// Whether the help is shown.
    pub(super) help: bool,
    /// Why the newest answer is not new.
    pub(super) lost: Option<Lost>,
    /// Vaults to list at most, if somebody said so.
    limit: Option<usize>,
    /// Vaults that the screen holds.
    rows: usize,
    measured: Counters,
}

/// The node does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// Why.
    pub(super) why: String,
    /// How long it is waited before it is asked again.
    pub(super) pause: Duration,
}

/// What is to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Nothing,
    /// Draw anew.
    Draw,
    /// Draw anew, and ask the node at once.
    Ask,
    /// End.
    Quit,
}

impl Model {
    /// A view of a node that has answered once.
    pub(super) fn new(mut sample: Sample, by: VaultsBy, limit: Option<usize>) -> Self {
        sample.sort(by);
        let measured = Counters::of(&sample);
        Self {
            rates: None,
            hits_percent: measured.hits_percent(),
            by,
            scroll: 0,
            help: false,
            lost: None,
            limit,
            rows: 0,
            measured,
            sample,
        }
    }

    /// The node has answered; says whether its numbers are new.
    pub(super) fn answered(&mut self, mut sample: Sample) -> bool {
        sample.sort(self.by);
        let counters = Counters::of(&sample);
        let difference = counters.since(&self.measured);
        match difference {
            Difference::Same => {}
            Difference::Restarted => (self.rates, self.hits_percent) = (None, counters.hits_percent()),
            Difference::Rates(rates, hits) => {
                (self.rates, self.hits_percent) = (Some(rates), hits.or_else(|| counters.hits_percent()));
            }
        }
        if difference != Difference::Same {
            self.measured = counters;
        }
        self.sample = sample;
        self.lost = None;
        self.stay_in_bounds();
        difference != Difference::Same
    }

    /// The node has not answered.
    pub(super) fn not_answered(&mut self, why: String) {
        let pause = self.lost.as_ref().map_or(FIRST_PAUSE, |lost| (lost.pause * 2).min(LONGEST_PAUSE));
        self.lost = Some(Lost { why, pause });
    }

    /// How long it is waited before the node is asked again.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        self.lost.as_ref().map_or(interval, |lost| lost.pause)
    }

    /// So many vaults fit the screen now.
    pub(super) fn fits(&mut self, rows: usize) {
        self.rows = rows;
        self.stay_in_bounds();
    }

    /// How many vaults the node is asked for: what the screen shows, and what was scrolled past.
    pub(super) fn wanted(&self) -> usize {
        let shown = self.scroll.saturating_add(self.rows);
        self.limit.unwrap_or(shown).clamp(1, TOLD_VAULTS)
    }

    /// How many vaults there are to scroll through.
    pub(super) fn listed(&self) -> usize {
        let vaults = &self.sample.health.vaults;
        let there = usize::try_from(vaults.resident.saturating_add(vaults.half_open)).unwrap_or(usize::MAX);
        there.max(self.sample.vaults.len()).min(self.limit.unwrap_or(TOLD_VAULTS))
    }

    /// Somebody has pressed a key.
    pub(super) fn pressed(&mut self, key: KeyEvent) -> Turn {
        if key.kind == KeyEventKind::Release {
            return Turn::Nothing;
        }
        let page = self.rows.max(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Turn::Quit,
            _ if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => Turn::Nothing,
            KeyCode::Char('q') | KeyCode::Esc => Turn::Quit,
            KeyCode::Char('?' | 'h') => {
                self.help = !self.help;
                Turn::Draw
            }
            KeyCode::Char('m') => self.order(VaultsBy::Memory),
            KeyCode::Char('r') => self.order(VaultsBy::Rate),
            KeyCode::Char('l') => self.order(VaultsBy::Latency),
            // `q` ends every program of this kind, so the depth of queues has another key.
            KeyCode::Char('d') => self.order(VaultsBy::Queue),
            KeyCode::Char('i') => self.order(VaultsBy::Idle),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_to(self.scroll.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.scroll_to(self.scroll.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll_to(self.scroll.saturating_add(page)),
            KeyCode::PageUp => self.scroll_to(self.scroll.saturating_sub(page)),
            KeyCode::Home => self.scroll_to(0),
            KeyCode::End => self.scroll_to(usize::MAX),
            _ => Turn::Nothing,
        }
    }

    /// One document for programs.
    pub(super) fn value(&self) -> Value {
        json!({
            "health": self.sample.page,
            "rates": self.rates,
            "key_cache_hits_percent": self.hits_percent,
            "by": self.by.as_str(),
            "vaults": self.sample.vaults,
            "unlisted": self.sample.unlisted,
        })
    }

    fn order(&mut self, by: VaultsBy) -> Turn {
        self.by = by;
        self.scroll = 0;
        self.sample.sort(by);
        Turn::Ask
    }

    fn scroll_to(&mut self, scroll: usize) -> Turn {
        let before = self.scroll;
        self.scroll = scroll;
        self.stay_in_bounds();
        if self.scroll == before { Turn::Nothing } else { Turn::Ask }
    }

    fn stay_in_bounds(&mut self) {
        self.scroll = self.scroll.min(self.listed().saturating_sub(self.rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(millis: u64, requests: u64, vaults: usize) -> Sample {
        let mut sample = Sample { at: Duration::from_millis(millis), ..Sample::default() };
        sample.health.vaults.requests = requests;
        sample.health.vaults.resident = u64::try_from(vaults).unwrap();
        sample.vaults = vec![super::super::sample::Vault::default(); vaults.min(10)];
        sample
    }

    fn model(vaults: usize, limit: Option<usize>) -> Model {
        let mut model = Model::new(sample(1000, 10, vaults), VaultsBy::Memory, limit);
        model.fits(10);
        model
    }

    fn press(model: &mut Model, code: KeyCode) -> Turn {
        model.pressed(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn rates_stay_while_the_node_repeats_itself_and_go_with_its_boot() {
        let mut model = model(1, None);
        assert_eq!(model.rates, None);
        assert!(model.answered(sample(2000, 30, 1)));
        assert!((model.rates.unwrap().requests - 20.0).abs() < 1e-9);
        assert!(!model.answered(sample(2010, 30, 1)));
        assert!((model.rates.unwrap().requests - 20.0).abs() < 1e-9, "the same numbers told twice");
        assert!(model.answered(sample(3000, 2, 1)));
        assert_eq!(model.rates, None);
    }

    #[test]
    fn a_node_that_does_not_answer_is_asked_ever_later() {
        let mut model = model(1, None);
        let interval = Duration::from_millis(500);
        assert_eq!(model.pause(interval), interval);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            model.not_answered("away".to_owned());
            pauses.push(model.pause(interval).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16]);
        assert_eq!(model.sample.health.vaults.requests, 10, "what is known stays on the screen");
        model.answered(sample(9000, 30, 1));
        assert_eq!((model.pause(interval), model.lost.as_ref()), (interval, None));
    }

    #[test]
    fn keys_choose_the_order_and_end_it() {
        let mut model = model(1, None);
        for (key, by) in [
            ('r', VaultsBy::Rate),
            ('l', VaultsBy::Latency),
            ('d', VaultsBy::Queue),
            ('i', VaultsBy::Idle),
            ('m', VaultsBy::Memory),
        ] {
            assert_eq!((press(&mut model, KeyCode::Char(key)), model.by), (Turn::Ask, by));
        }
        assert_eq!((press(&mut model, KeyCode::Char('?')), model.help), (Turn::Draw, true));
        assert_eq!(press(&mut model, KeyCode::Char('x')), Turn::Nothing);
        assert_eq!(press(&mut model, KeyCode::Char('q')), Turn::Quit);
        assert_eq!(press(&mut model, KeyCode::Esc), Turn::Quit);
        let with = |code, modifiers| KeyEvent::new(KeyCode::Char(code), modifiers);
        assert_eq!(model.pressed(with('c', KeyModifiers::CONTROL)), Turn::Quit);
        assert_eq!(model.pressed(with('q', KeyModifiers::ALT)), Turn::Nothing);
    }

    #[test]
    fn scrolling_stays_within_what_there_is_and_asks_for_it() {
        let mut model = model(25, None);
        assert_eq!((model.wanted(), model.listed()), (10, 25));
        assert_eq!(press(&mut model, KeyCode::Up), Turn::Nothing);
        assert_eq!((press(&mut model, KeyCode::PageDown), model.scroll, model.wanted()), (Turn::Ask, 10, 20));
        assert_eq!((press(&mut model, KeyCode::End), model.scroll, model.wanted()), (Turn::Ask, 15, 25));
        assert_eq!(press(&mut model, KeyCode::Down), Turn::Nothing);
        model.fits(20);
        assert_eq!(model.scroll, 5, "a larger screen");
        model.answered(sample(2000, 10, 3));
        assert_eq!(model.scroll, 0, "vaults have left");
        assert_eq!(press(&mut model, KeyCode::Home), Turn::Nothing);
    }

    #[test]
    fn a_limit_holds() {
        let mut model = model(25, Some(12));
        press(&mut model, KeyCode::End);
        assert_eq!((model.wanted(), model.listed(), model.scroll), (12, 12, 2));
        let model = Model::new(sample(0, 0, 50_000), VaultsBy::Memory, Some(1_000_000));
        assert_eq!(model.wanted(), TOLD_VAULTS);
    }
}
