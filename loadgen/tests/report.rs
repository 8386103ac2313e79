//! Results as text, JSON, CSV and HTML, from runs against a server in this process.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use timeball::aead::Algorithm;
use timeball_load::handshakes::Exchanges;
use timeball_load::host::Host;
use timeball_load::plan::{Ask, Plan};
use timeball_load::record::Tally;
use timeball_load::reflector::{Reflector, self_test};
use timeball_load::report::terminal::{comparison, ntpperf, text};
use timeball_load::report::{
    Document, RunReport, SearchReport, Second, csv, html, merge, search_csv,
};
use timeball_load::request::Clients;
use timeball_load::run::run;
use timeball_load::search::{Goal, Purpose, Trial, Verdict};

fn report(requests: u64) -> RunReport {
    let reflector = Reflector::start(false, None).expect("a server");
    let mut plan = Plan::new(reflector.address, Ask::Ntp, 1000.0, Duration::from_secs(10));
    plan.requests_max = requests;
    plan.timeout = Duration::from_secs(10);
    let stop = AtomicBool::new(false);
    let found = run(&plan, vec![Clients::Plain(3)], &stop, |_, _| {}).expect("a run");
    assert_eq!(found.total.tally.answered, requests);
    RunReport {
        program: "timeball-load".to_owned(),
        command_line: "timeball-load ntp <server>".to_owned(),
        begun: 1_800_000_000,
        host: Host::look(),
        plan,
        clients: 3,
        offer_seconds: found.offer_time.as_secs_f64(),
        interrupted: false,
        faults: Vec::new(),
        self_test: None,
        server: None,
        server_counters: Vec::new(),
        tally: found.total.tally,
        latency: found.total.latency,
        send_lag: found.total.send_lag,
        seconds: found.intervals.iter().map(Second::of).collect(),
    }
}

fn search() -> SearchReport {
    let trial = |purpose, rate: f64, answered: f64| Trial {
        purpose,
        rate_per_second: rate,
        offered_per_second: rate,
        answered_per_second: answered,
        latency_ns: [10_000, 20_000, 30_000, 40_000],
        server_ns_per_answer: None,
        tally: Tally { offered: rate as u64, answered: answered as u64, ..Tally::default() },
        faults: Vec::new(),
    };
    SearchReport {
        program: "timeball-load".to_owned(),
        command_line: "timeball-load search ntp 127.0.0.1".to_owned(),
        begun: 1_800_000_000,
        host: Host::look(),
        plan: Plan::new(([127, 0, 0, 1], 123).into(), Ask::Ntp, 1.0, Duration::from_secs(1)),
        goal: Goal {
            low_per_second: 1e3,
            high_per_second: 1e6,
            loss_max: 0.001,
            resolution: 0.02,
            repeats: 1,
        },
        verdict: Some(Verdict {
            rates_per_second: vec![4e5],
            median_per_second: 4e5,
            spread_per_second: [4e5, 4e5],
            at_least: false,
        }),
        trials: vec![
            trial(Purpose::Search(0), 1e6, 5e5),
            trial(Purpose::Search(0), 4e5, 4e5),
            trial(Purpose::Latency(0.5), 2e5, 2e5),
            trial(Purpose::Sweep(1.0), 4e5, 4e5),
            trial(Purpose::Sweep(2.0), 8e5, 3e5),
        ],
    }
}

#[test]
fn the_self_test_finds_the_generator_right() {
    let plan = Plan::new(([127, 0, 0, 1], 123).into(), Ask::Ntp, 500.0, Duration::from_secs(1));
    let found = self_test(&plan, Algorithm::AesSivCmac256).expect("all answers are good");
    assert_eq!(found.planned_per_second, 500.0);
}

#[test]
fn what_json_wrote_is_read_again() {
    let (run, search) = (report(50), search());
    let read = |text: &str| serde_json::from_str::<Document>(text).expect("a document");
    match read(&serde_json::to_string(&run).expect("plain data")) {
        Document::Run(read) => {
            assert_eq!(read.tally, run.tally);
            assert_eq!(text(&read), text(&run));
        }
        _ => panic!("a run"),
    }
    match read(&serde_json::to_string(&search).expect("plain data")) {
        Document::Search(read) => assert_eq!(search_csv(&read), search_csv(&search)),
        _ => panic!("a search"),
    }
}

#[test]
fn merging_adds_and_comparing_divides() {
    let (one, other) = (report(40), report(80));
    let merged = merge(&[one.clone(), other.clone()]).expect("runs");
    assert_eq!(merged.tally.offered, 120);
    assert!(merged.tally.requests_add_up() && merged.tally.datagrams_add_up());
    assert_eq!(merged.latency.count(), 120);
    let offered: u64 = merged.seconds.iter().map(|second| second.offered).sum();
    assert_eq!(offered, 120);
    assert_eq!(merged.latency.max_ns(), one.latency.max_ns().max(other.latency.max_ns()));
    assert!(merge(&[]).is_none());

    let mut twice = one.clone();
    twice.offer_seconds /= 2.0;
    twice.faults.push("too slow".to_owned());
    let table = comparison(&["a".to_owned(), "b".to_owned()], &[one, twice]);
    let answered = table.lines().find(|line| line.starts_with("answered/s")).expect("a row");
    assert!(answered.contains("(x 1.00)") && answered.contains("(x 2.00)"), "{answered}");
    assert!(table.contains("INVALID b: too slow"), "{table}");
}

#[test]
fn csv_and_ntpperf_have_a_line_for_each() {
    let run = report(30);
    assert_eq!(csv(&run).lines().count(), 1 + run.seconds.len());
    assert_eq!(search_csv(&search()).lines().count(), 1 + 5);
    let table = ntpperf(&[run.clone(), run]);
    assert_eq!(table.lines().count(), 4);
    assert!(table.lines().skip(2).all(|line| line.contains("0.00%") && line.contains("100.00%")));
}

#[test]
fn the_page_holds_all_charts_and_needs_nothing_from_elsewhere() {
    let runs = vec![("one".to_owned(), report(30)), ("<two>".to_owned(), report(30))];
    let page = html::page(&runs, &[("a".to_owned(), search()), ("b".to_owned(), search())]);
    // Latency, two courses, overload, latency against load, steps.
    assert_eq!(page.matches("<svg").count(), 6);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.contains("&lt;two&gt;") && !page.contains("<two>"), "names are escaped");
    assert!(page.contains("ntp &lt;server&gt;") && page.contains(&Host::look().kernel));
    let links = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!links.contains("http") && !links.contains("<script") && !links.contains("src="));
    // Nothing to draw is no reason to fail.
    let mut empty = search();
    empty.trials.clear();
    empty.verdict = None;
    assert!(html::page(&[], &[("none".to_owned(), empty)]).contains("interrupted"));
}

#[test]
fn exchanges_are_at_fault_for_what_the_generator_did_only() {
    let fine =
        Exchanges { offered: 1000, lagging: 10, generator_share: 0.95, ..Default::default() };
    assert!(fine.faults().is_empty());
    let late = Exchanges { lagging: 11, ..fine.clone() };
    assert!(late.faults()[0].contains("--concurrency"), "{:?}", late.faults());
    let busy = Exchanges { generator_share: 0.96, ..fine };
    assert!(busy.faults()[0].contains("processors"), "{:?}", busy.faults());
}
