//! The conformance table: one test a line, named by its number, against the running server over
//! sockets. `cargo test --test conformance` runs the tests and prints the table.
//!
//! `lines.tsv` holds the lines; where one is not tested here it says why, or by which test it is
//! tested elsewhere, and this program checks that such a test exists.
#![allow(unreachable_pub, reason = "`pub` here means: for the other files of this program")]

mod access;
#[path = "../common/mod.rs"]
mod common;
mod interleaved;
mod ke;
mod limits;
mod ntp;
mod nts;
mod request;
mod rotation;
mod table;
mod tls;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use common::server::Server;
use libtest_mimic::{Arguments, Failed, Trial};
use timeball::aead::Algorithm;

/// A test of one line.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: fn(&Server),
}

/// A case named like its function, `cNNN_what_holds`.
macro_rules! case {
    ($name:ident) => {
        crate::Case { name: stringify!($name), run: $name }
    };
}
pub(crate) use case;

/// Where a line is tested, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Here,
    Elsewhere(&'static str),
    Open(&'static str),
    NotApplicable(&'static str),
}

struct Line {
    number: u16,
    level: &'static str,
    text: &'static str,
    status: Status,
}

fn lines() -> Vec<Line> {
    let status = |text: &'static str| match text.split_once(": ") {
        Some(("open", why)) => Status::Open(why),
        Some(("not applicable", why)) => Status::NotApplicable(why),
        _ if text == "here" => Status::Here,
        _ => Status::Elsewhere(text.strip_prefix("in ").expect("a status")),
    };
    include_str!("lines.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [number, level, text, place] = fields[..] else { panic!("four fields: {line}") };
            let number = number.parse().expect("a number");
            Line { number, level, text, status: status(place) }
        })
        .collect()
}

fn number(name: &str) -> u16 {
    name[1..4].parse().expect("cNNN_")
}

/// One server for all tests that do not need their own. Its key establishment has more patience
/// than any test: an answer to what is wrong cannot be mistaken for one that comes of a timeout.
static SERVER: Mutex<Option<Arc<Server>>> = Mutex::new(None);

fn server() -> Arc<Server> {
    let mut server = SERVER.lock().unwrap_or_else(|error| error.into_inner());
    let start = || Server::start_with(Algorithm::AesSivCmac256, "", "", "timeout_seconds = 60");
    Arc::clone(server.get_or_insert_with(|| Arc::new(start())))
}

type Results = Arc<Mutex<BTreeMap<u16, bool>>>;

fn trial(case: Case, results: &Results) -> Trial {
    let results = Arc::clone(results);
    Trial::test(case.name, move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(&server())));
        let passed = outcome.is_ok();
        *results.lock().expect("not poisoned").entry(number(case.name)).or_insert(true) &= passed;
        outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Failed::from(text.unwrap_or("panicked"))
        })
    })
}

/// A line's claim that it is tested elsewhere: `file function`.
fn elsewhere(line: &Line, place: &'static str, results: &Results) -> Trial {
    let (number, results) = (line.number, Arc::clone(results));
    Trial::test(format!("c{number:03}_is_tested_in_another_place"), move || {
        let (file, function) = place.split_once(' ').ok_or("not `file function`")?;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
        let exists = text.contains(&format!("fn {function}("));
        results.lock().expect("not poisoned").insert(number, exists);
        if exists { Ok(()) } else { Err(format!("{file} has no {function}").into()) }
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lines = lines();
    let results = Results::default();
    let cases: Vec<Case> = [
        ke::cases(),
        nts::cases(),
        ntp::cases(),
        interleaved::cases(),
        rotation::cases(),
        access::cases(),
        limits::cases(),
    ]
    .concat();
    for line in &lines {
        let tested = cases.iter().any(|case| number(case.name) == line.number);
        assert_eq!(tested, line.status == Status::Here, "line {}: status and tests", line.number);
    }
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let mut trials: Vec<Trial> = cases.into_iter().map(|case| trial(case, &results)).collect();
    for line in &lines {
        let name = format!("c{:03}", line.number);
        match line.status {
            Status::Here => {}
            Status::Elsewhere(place) => trials.push(elsewhere(line, place, &results)),
            // The reason is the test's kind, so that every summary shows it.
            Status::Open(why) => trials.push(
                Trial::test(name, || Ok(()))
                    .with_kind(format!("open: {why}"))
                    .with_ignored_flag(true),
            ),
            Status::NotApplicable(why) => trials.push(
                Trial::test(name, || Ok(()))
                    .with_kind(format!("not applicable: {why}"))
                    .with_ignored_flag(true),
            ),
        }
    }
    let is_chosen = arguments.filter.is_some() || !arguments.skip.is_empty() || arguments.ignored;
    let all_ran = !is_chosen && !arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    // A static is not dropped: without this the server would outlive its tests.
    drop(SERVER.lock().map(|mut server| server.take()));
    if all_ran {
        let results = results.lock().expect("not poisoned");
        table::print(&lines, &results);
        if !conclusion.has_failed() && !table::is_published(&lines, &names) {
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}
