//! The terminal while the view has it: taken, drawn to, listened to, and given back whatever happens.

use std::io;
use std::time::Duration;

use casemate_protocol::resident::VaultsBy;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::layout::Rect;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::super::context::Context;
use super::super::output::CliError;
use super::model::{Model, Turn};
use super::sample::Sample;
use super::source::Source;
use super::view::{self, Look};
use crate::error::Kind;

/// Keys and answers that wait for the view. Whoever has more to tell waits.
const WAITING: usize = 64;

/// What the view hears.
enum Heard {
    /// Somebody has pressed a key.
    Key(KeyEvent),
    /// Somebody has changed the window.
    Resized,
    /// The node has answered, or not.
    Answer(Box<Result<Sample, CliError>>),
    /// Nobody can be heard any more.
    Deaf(io::Error),
}

/// Shows the node until somebody has seen enough.
pub(super) fn run(source: Source, model: Model, interval: Duration, look: Look) -> Result<(), CliError> {
    Context::block_on(async {
        let ends = Ends::new().map_err(|error| failed(&error))?;
        let screen = Screen::take().map_err(|error| failed(&error))?;
        watch(screen, ends, source, model, interval, look).await
    })
}

async fn watch(
    mut screen: Screen,
    mut ends: Ends,
    source: Source,
    mut model: Model,
    interval: Duration,
    look: Look,
) -> Result<(), CliError> {
    let (tell, mut heard) = mpsc::channel(WAITING);
    // Both wait where no signal and no answer would reach them. They end with the process: neither has anything to lose.
    let (order, orders) = std::sync::mpsc::channel::<(VaultsBy, usize)>();
    spawn("node", {
        let tell = tell.clone();
        move || {
            while let Ok((by, limit)) = orders.recv() {
                let answer = Heard::Answer(Box::new(source.ask(by, limit)));
                if tell.blocking_send(answer).is_err() {
                    return;
                }
            }
        }
    })?;
    spawn("keys", move || listen(&tell))?;

    let mut due = Instant::now();
    let mut asked = false;
    loop {
        screen.draw(&mut model, look).map_err(|error| failed(&error))?;
        tokio::select! {
            () = ends.come() => return Ok(()),
            () = sleep_until(due), if !asked => {
                let order = order.send((model.by, model.wanted()));
                order.map_err(|_| failed(&io::Error::other("nobody asks the node any more")))?;
                asked = true;
                due = Instant::now() + interval;
            }
            next = heard.recv() => match next {
                Some(Heard::Key(key)) => match model.pressed(key) {
                    Turn::Nothing | Turn::Draw => {}
                    Turn::Ask => due = Instant::now(),
                    Turn::Quit => return Ok(()),
                },
                Some(Heard::Resized) => {}
                Some(Heard::Answer(answer)) => {
                    asked = false;
                    match *answer {
                        Ok(sample) => {
                            model.answered(sample);
                        }
                        Err(error) => {
                            model.not_answered(error.message);
                            due = Instant::now() + model.pause(interval);
                        }
                    }
                }
                Some(Heard::Deaf(error)) => return Err(failed(&error)),
                None => return Err(failed(&io::Error::other("nothing is heard any more"))),
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| failed(&error))
}

/// Tells what somebody does at the terminal.
fn listen(tell: &mpsc::Sender<Heard>) {
    loop {
        let heard = match event::read() {
            Ok(Event::Key(key)) => Heard::Key(key),
            Ok(Event::Resize(..)) => Heard::Resized,
            Ok(_) => continue,
            Err(error) => Heard::Deaf(error),
        };
        let is_last = matches!(heard, Heard::Deaf(_));
        if tell.blocking_send(heard).is_err() || is_last {
            return;
        }
    }
}

fn failed(error: &io::Error) -> CliError {
    CliError::new(
        Kind::Other,
        "terminal",
        format!("the terminal cannot be used: {error}"),
        "Use --once for one frame as plain text, or --json.",
    )
}

/// The signals that end the view. Unhandled they would end it too, and leave the terminal as it is.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The terminal, raw and on its other page. Given back when it is dropped, and by a hook when there is a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| give_back())
    }

    fn draw(&mut self, model: &mut Model, look: Look) -> io::Result<()> {
        let size = self.0.size()?;
        model.fits(view::rows(model, look, Rect::new(0, 0, size.width, size.height)));
        self.0.draw(|frame| view::draw(model, look, frame.area(), frame.buffer_mut())).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Where it cannot be given back nobody is left who sees it.
    let _ = ratatui::try_restore();
}
