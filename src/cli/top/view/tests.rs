use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

/// A running server, seen twice while clients of each kind asked: `timeball status --json`.
const LOOKS: [&str; 2] =
    [include_str!("../recorded/before.json"), include_str!("../recorded/now.json")];

fn looks() -> [Status; 2] {
    LOOKS.map(|text| serde_json::from_str(text).expect("a status"))
}

fn model() -> Model {
    let mut model = Model::default();
    looks().into_iter().for_each(|status| model.take(Ok(status)));
    model
}

/// The lines of a screen.
fn screen(model: &Model, columns: u16, lines: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("memory");
    terminal.draw(|frame| draw(frame, model)).expect("memory");
    let cells = terminal.backend().buffer().content();
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect();
    cells.chunks(columns.into()).map(line).collect()
}

fn line<'a>(screen: &'a [String], start: &str) -> &'a str {
    let found = screen.iter().find(|line| line.trim_start().starts_with(start));
    found.unwrap_or_else(|| panic!("{start}: {screen:#?}"))
}

#[test]
fn everything_has_a_place_on_a_small_screen() {
    let model = model();
    let screen = screen(&model, 80, 24);
    let rates = model.rates().expect("two looks");
    assert!(line(&screen, "timeball").contains("ready"));
    let answered = line(&screen, "answered");
    assert!(answered.contains(&format!("NTP {} ", quantity(rates.plain))), "{answered}");
    assert!(answered.contains(&format!("NTS {} ", quantity(rates.nts))), "{answered}");
    assert!(line(&screen, "latency").contains("p99 "));
    assert!(line(&screen, "handshakes").contains("brought cookies"));
    for start in ["workers", "clock", "master keys", "processes", "certificate"] {
        line(&screen, start);
    }
    let certificate = line(&screen, "certificate");
    assert!(certificate.contains(" days, until 20"), "{certificate}");
    let reasons = screen.iter().position(|line| line.starts_with("refused")).expect("a table");
    assert!(screen[reasons + 1].trim_start().starts_with(&rates.reasons[0].name), "{screen:#?}");
    assert!(screen[23].starts_with("q quits"));
    assert!(screen.iter().any(|line| line.contains('█')), "no bar and no chart: {screen:#?}");
}

#[test]
fn any_size_is_drawn() {
    let model = model();
    for (columns, lines) in [(1, 1), (20, 5), (80, 12), (200, 60), (0, 0)] {
        let screen = screen(&model, columns.max(1), lines.max(1));
        assert_eq!(screen.len(), usize::from(lines.max(1)));
    }
    assert!(line(&screen(&Model::default(), 80, 24), "timeball").contains("looking"));
}

#[test]
fn many_workers_are_summed_up() {
    let [mut before, mut now] = looks();
    for status in [&mut before, &mut now] {
        let worker = status.workers[0].clone();
        status.workers = vec![worker; 32];
    }
    let mut model = Model::default();
    model.take(Ok(before));
    model.take(Ok(now));
    let screen = screen(&model, 80, 24);
    assert!(line(&screen, "29 more, ").contains(" % busy on average"));
    line(&screen, "refused");
}

#[test]
fn a_server_that_is_gone_is_said_and_one_that_comes_back_begins_anew() {
    let mut model = model();
    model.take(Err("no server is running".to_owned()));
    assert!(line(&screen(&model, 80, 24), "timeball").contains("no answer: no server is running"));
    let [before, mut now] = looks();
    model.take(Ok(now.clone()));
    assert!(model.rates().is_none(), "no time has passed");
    now.uptime_seconds = 0;
    now.taken_unix_milliseconds += 1000;
    model.take(Ok(now));
    assert!(model.rates().is_none(), "another server's counters");
    model.take(Ok(before));
    assert!(model.rates().is_none(), "the clock went back");
    let mut sick = looks()[1].clone();
    sick.health.ready = false;
    sick.health.reasons = vec!["the certificate has expired".to_owned()];
    model.take(Ok(sick));
    assert!(line(&screen(&model, 80, 24), "timeball").contains("the certificate has expired"));
}

#[test]
fn figures_are_short() {
    let shown = [0.0, 0.4, 9.96, 12.3, 9999.0, 12_345.0, 2_345_678.0].map(quantity);
    assert_eq!(shown, ["0", "0.4", "10.0", "12", "9999", "12.3 k", "2.35 M"]);
    assert_eq!([8.192e-6, 0.0021, f64::INFINITY].map(time), ["8 µs", "2.1 ms", "longer"]);
}
