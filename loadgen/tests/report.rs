//! Results as text, JSON, CSV and HTML, from runs against a server in this process.

mod made;

use std::time::Duration;

use made::{report, search};
use timeball::aead::Algorithm;
use timeball_load::handshakes::Exchanges;
use timeball_load::host::Host;
use timeball_load::plan::{Ask, Plan};
use timeball_load::reflector::self_test;
use timeball_load::report::terminal::{comparison, ntpperf, text};
use timeball_load::report::{Document, csv, html, merge, search_csv};

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
