//! A run against a server in this process, and a search that never was.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use timeball_load::host::Host;
use timeball_load::plan::{Ask, Plan};
use timeball_load::record::Tally;
use timeball_load::reflector::Reflector;
use timeball_load::report::{RunReport, SearchReport, Second};
use timeball_load::request::Clients;
use timeball_load::run::run;
use timeball_load::search::{Goal, Purpose, Trial, Verdict};

pub(crate) fn report(requests: u64) -> RunReport {
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

pub(crate) fn search() -> SearchReport {
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
