//! `timeball authdata`: what NTS clients have of servers, in the columns of chronyc's `authdata`.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::keys::in_words;
use super::remote::{Asking, Error, NtsSampler, OfferedAeads, host_and_port};
use super::{EXIT_FAILURE, EXIT_USAGE, fail};
use crate::limits::NTS_KE_PORT;
use crate::limits::commands::AUTHDATA_SERVER_COLUMNS;

#[derive(Debug, Args)]
pub(super) struct AuthdataArguments {
    /// Servers of key establishment, as for `query`
    #[arg(value_name = "HOST[:PORT]", required = true)]
    servers: Vec<String>,
    #[command(flatten)]
    offered: OfferedAeads,
    #[command(flatten)]
    asking: Asking,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// What a client has of one server; zeros for what it has not, as in chronyc's table.
#[derive(Debug, Serialize)]
struct Row {
    server: String,
    mode: &'static str,
    /// Counts key establishments, as chronyd does: 1 behind the first.
    key_id: u32,
    aead_id: u16,
    aead: Option<&'static str>,
    key_bits: usize,
    /// Since key establishment.
    last_seconds: Option<f64>,
    /// Of key establishment, since it last went well.
    attempts: u32,
    naks: u32,
    cookies: usize,
    cookie_bytes: usize,
    /// Why no time came, or none that is authentic; empty if it did.
    why: String,
}

pub(super) fn run(arguments: &AuthdataArguments) -> ExitCode {
    let places: Result<Vec<_>, Error> =
        arguments.servers.iter().map(|server| host_and_port(server, NTS_KE_PORT)).collect();
    let places = match places {
        Ok(places) => places,
        Err(error) => return fail(EXIT_USAGE, error),
    };
    let rows = rows(arguments, places);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("plain data"));
    } else {
        print_table(&rows);
    }
    let is_authentic = rows.iter().all(|row| row.why.is_empty());
    if is_authentic { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

/// Asks all servers at once: one that is silent holds nobody up.
fn rows(arguments: &AuthdataArguments, places: Vec<(String, u16)>) -> Vec<Row> {
    thread::scope(|scope| {
        let ask = |(server, place): (&String, (String, u16))| {
            let mut row = Row::new(server.clone());
            scope.spawn(move || {
                if let Err(error) = row.ask(place, arguments) {
                    row.why = error.to_string();
                }
                row
            })
        };
        let asked: Vec<_> = arguments.servers.iter().zip(places).map(ask).collect();
        asked.into_iter().map(|row| row.join().expect("no thread panics")).collect()
    })
}

impl Row {
    fn new(server: String) -> Self {
        Self {
            server,
            mode: "NTS",
            key_id: 0,
            aead_id: 0,
            aead: None,
            key_bits: 0,
            last_seconds: None,
            attempts: 1,
            naks: 0,
            cookies: 0,
            cookie_bytes: 0,
            why: String::new(),
        }
    }

    /// Does what a client does first, and fills in what comes of it, as far as it comes.
    fn ask(&mut self, place: (String, u16), arguments: &AuthdataArguments) -> Result<(), Error> {
        let AuthdataArguments { offered, asking, .. } = arguments;
        let established = asking.establish(place, &offered.aeads)?;
        let established_at = Instant::now();
        let agreed = &established.agreed;
        (self.key_id, self.attempts) = (1, 0);
        (self.aead_id, self.aead) = (agreed.algorithm.id(), Some(agreed.algorithm.name()));
        self.key_bits = 8 * agreed.algorithm.key_bytes();
        self.cookies = agreed.cookies.len();
        self.cookie_bytes = agreed.cookies.first().map_or(0, |cookie| cookie.len());
        let mut sampler = NtsSampler::new(&established, asking.timeout())?;
        let asked = (0..asking.samples).try_for_each(|_| sampler.sample().map(drop));
        (self.naks, self.cookies) = (sampler.naks, sampler.cookies());
        self.last_seconds = Some(established_at.elapsed().as_secs_f64());
        asked
    }
}

fn print_table(rows: &[Row]) {
    // A name is shown whole; most fit the width that chronyc gives them.
    let longest = rows.iter().map(|row| row.server.len()).max().unwrap_or(0);
    let width = longest.max(AUTHDATA_SERVER_COLUMNS);
    let head =
        format!("{:<width$} Mode KeyID Type KLen Last Atmp  NAK Cook CLen", "Name/IP address");
    println!("{head}\n{}", "=".repeat(head.len()));
    for row in rows {
        let last = row.last_seconds.map(|last| in_words(Duration::from_secs_f64(last)));
        println!(
            "{:<width$} {:>4} {:>5} {:>4} {:>4} {:>4} {:>4} {:>4} {:>4} {:>4}",
            row.server,
            row.mode,
            row.key_id,
            row.aead_id,
            row.key_bits,
            last.as_deref().unwrap_or("-"),
            row.attempts,
            row.naks,
            row.cookies,
            row.cookie_bytes,
        );
        if !row.why.is_empty() {
            println!("  {}", row.why);
        }
    }
    let authentic = rows.iter().filter(|row| row.why.is_empty()).count();
    println!("\nauthentic: {authentic} of {} servers", rows.len());
}
