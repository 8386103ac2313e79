//! `timeball top`: a running server, live in a terminal.

mod model;
mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::model::Model;
use super::place::{Place, PlaceError};
use super::{EXIT_FAILURE, fail};
use crate::limits::commands::{
    TOP_INTERVAL_SECONDS_DEFAULT, TOP_KEY_WAIT, TOP_ONCE_COLUMNS, TOP_ONCE_LINES,
};
use crate::process::control::{AskError, Request, ask};

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    place: Place,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = TOP_INTERVAL_SECONDS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Look twice, print one screen as text, and end
    #[arg(long)]
    once: bool,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("top needs a terminal; for a file or a pipe there is `timeball top --once`")]
    NoTerminal,
    #[error("the terminal cannot be used: {0}; `timeball top --once` needs nothing of it")]
    Terminal(#[from] io::Error),
}

pub(super) fn run(arguments: &TopArguments) -> ExitCode {
    match top(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Place(error)) => fail(error.exit_code(), error),
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

fn top(arguments: &TopArguments) -> Result<(), Error> {
    let socket = arguments.place.find()?.control_socket;
    let interval = Duration::from_secs(arguments.interval);
    let mut model = Model::default();
    // A server that is not there is said before the screen is taken.
    model.take(Ok(ask(&socket, Request::Status)?));
    let look = || ask(&socket, Request::Status).map_err(|error| error.to_string());
    if arguments.once {
        std::thread::sleep(interval);
        model.take(Ok(ask(&socket, Request::Status)?));
        print!("{}", as_text(&model));
        return Ok(());
    }
    if !io::stdout().is_terminal() {
        return Err(Error::NoTerminal);
    }
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&end))?;
    }
    // A panic, too, leaves the terminal as it was.
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &mut model, interval, look, &end);
    ratatui::try_restore()?;
    Ok(shown?)
}

/// Looks and draws until somebody has seen enough.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    model: &mut Model,
    interval: Duration,
    look: impl Fn() -> Result<crate::process::status::Status, String>,
    end: &AtomicBool,
) -> io::Result<()> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| view::draw(frame, model))?;
        loop {
            if end.load(Ordering::Relaxed) {
                return Ok(());
            }
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // A signal that comes between the look at the flag and this has to be seen soon.
            match event::poll(left.min(TOP_KEY_WAIT)) {
                Ok(false) => {}
                Ok(true) => match event::read()? {
                    event if is_end(&event) => return Ok(()),
                    Event::Resize(..) => {
                        terminal.draw(|frame| view::draw(frame, model))?;
                    }
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        model.take(look());
        next = Instant::now() + interval;
    }
}

/// q, Escape and Ctrl-C, which is a key as any other in a terminal that is ours.
fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_control_c =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || is_control_c)
}

/// One screen without colours.
fn as_text(model: &Model) -> String {
    let backend = TestBackend::new(TOP_ONCE_COLUMNS, TOP_ONCE_LINES);
    let mut terminal = Terminal::new(backend).expect("memory is a terminal that never fails");
    terminal.draw(|frame| view::draw(frame, model)).expect("the same");
    let buffer = terminal.backend().buffer();
    let columns = usize::from(TOP_ONCE_COLUMNS);
    let mut text = String::new();
    for line in buffer.content().chunks(columns) {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
