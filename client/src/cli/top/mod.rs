//! `casemate node top`: a node at work, on a screen that renews itself.
//!
//! ```text
//!  source ──answers──▶ model ◀──keys── live (terminal, signals)
//!                        │
//!                        └──▶ view ──▶ a frame, text
//! ```
//!
//! Without a terminal it prints one frame and ends; with `--json` it prints what it knows as often as it asks.

mod columns;
mod live;
mod model;
mod rates;
mod sample;
mod source;
mod view;

use std::time::Duration;

use casemate_protocol::resident::VaultsBy;
use clap::Args;

use super::context::Context;
use super::node::{Listed, Socket};
use super::output::{CliError, Output, print_line, print_value, stdout_is_terminal};
use model::Model;
use source::Source;
use view::Look;

/// Vaults that are listed where no screen says how many fit.
const WITHOUT_SCREEN: usize = 50;
/// Columns of a frame that no screen bounds.
const WIDTH: usize = 120;
/// The enclave tells its numbers once a second: how soon, and how often, one frame is tried again for two answers that differ.
const AGAIN: Duration = Duration::from_millis(250);
const TRIES: usize = 12;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    socket: Socket,
    /// Seconds between two looks, 0.2 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
    /// Print one frame as plain text, after one interval, and end; so it is without a terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    listed: Listed,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 1 or 0.5".to_owned())?;
    let fits = (0.2..=60.0).contains(&seconds);
    if fits { Ok(Duration::from_secs_f64(seconds)) } else { Err("0.2 to 60 seconds".to_owned()) }
}

impl TopArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let output = context.output;
        let source = Source::new(self.socket.into_path(), context.globals.timeout);
        let by = self.listed.by.unwrap_or(VaultsBy::Memory);
        let limit = self.listed.limit();
        // Who has given a wrong path is told so at once, and not by a screen that waits for it.
        let first = source.ask(by, limit.unwrap_or(WITHOUT_SCREEN))?;
        let mut model = Model::new(first, by, limit);
        model.fits(WITHOUT_SCREEN);
        if stdout_is_terminal() && !self.once && !output.json {
            let colours = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
            return live::run(source, model, self.interval, Look { colours, live: true });
        }
        if output.json && !self.once {
            return stream(&source, &mut model, self.interval, output);
        }
        once(&source, &mut model, self.interval)?;
        if output.json {
            return print_value(&model.value());
        }
        let width = ratatui::crossterm::terminal::size().ok().filter(|_| stdout_is_terminal());
        let width = width.map_or(WIDTH, |(width, _)| width.into());
        view::text(&model, width).into_iter().try_for_each(print_line)
    }
}

/// Asks until two answers differ: one alone has no rates.
fn once(source: &Source, model: &mut Model, interval: Duration) -> Result<(), CliError> {
    let mut pause = interval;
    for _ in 0..TRIES {
        std::thread::sleep(pause);
        if model.answered(source.ask(model.by, model.wanted())?) {
            break;
        }
        pause = AGAIN;
    }
    Ok(())
}

/// Prints one document at each look, until nobody reads them.
fn stream(source: &Source, model: &mut Model, interval: Duration, output: Output) -> Result<(), CliError> {
    loop {
        print_value(&model.value())?;
        loop {
            std::thread::sleep(model.pause(interval));
            match source.ask(model.by, model.wanted()) {
                Ok(sample) => {
                    model.answered(sample);
                    break;
                }
                Err(error) => {
                    output.error(&error);
                    model.not_answered(error.message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0.1", "61", "-1", "NaN", "x", ""] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}
