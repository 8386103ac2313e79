//! One self-contained HTML file: text, tables and SVG charts, no script, nothing from elsewhere.

use std::fmt::Write as _;

use super::chart::{Axes, Line, chart, legend, short};
use super::terminal::{ROWS, Row, SEARCH_ROWS, caveat, number, search_text, text};
use super::{RunReport, SearchReport};
use crate::host::Host;
use crate::search::Purpose;

/// Runs and searches, each with its name.
pub fn page(runs: &[(String, RunReport)], searches: &[(String, SearchReport)]) -> String {
    let mut page = String::from(HEAD);
    if runs.len() > 1 {
        page += "<h2>Runs side by side</h2>";
        page += &table(runs, &ROWS);
        page += &faults(runs);
    }
    if searches.len() > 1 {
        page += "<h2>Searches side by side</h2>";
        page += &table(searches, &SEARCH_ROWS);
        for (name, search) in searches {
            if let Some(caveat) = caveat(search) {
                put(&mut page, format_args!("<p class=invalid>{}: {caveat}</p>", escaped(name)));
            }
        }
    }
    if !runs.is_empty() {
        page += "<h2>Latency</h2><p>From the moment a request was due to its answer's arrival.</p>";
        page += &latency_chart(runs);
    }
    if !searches.is_empty() {
        page += "<h2>Answered against offered</h2>\
                 <p>Where a line leaves the grey one, requests go unanswered.</p>";
        page += &overload_chart(searches);
        page += "<h2>Latency against load</h2><p>The 99th percentile, at shares of the highest \
                 rate that the server keeps.</p>";
        page += &load_chart(searches);
        page += "<h2>Search steps</h2><p>Filled: the server kept the rate. Hollow: it did not.</p>";
        page += &steps_chart(searches);
    }
    for (name, run) in runs {
        put(&mut page, format_args!("<h2>Run: {}</h2>", escaped(name)));
        page += &rate_chart(run);
        put(&mut page, format_args!("<pre>{}</pre>", escaped(&text(run))));
        page += &facts(&run.command_line, run.begun, &run.host);
    }
    for (name, search) in searches {
        put(&mut page, format_args!("<h2>Search: {}</h2>", escaped(name)));
        put(&mut page, format_args!("<pre>{}</pre>", escaped(&search_text(search))));
        page += &facts(&search.command_line, search.begun, &search.host);
    }
    page += "</main></body></html>\n";
    page
}

fn table<T>(columns: &[(String, T)], rows: &[Row<T>]) -> String {
    let mut table = String::from("<div class=wide><table><tr><th></th>");
    for (name, _) in columns {
        put(&mut table, format_args!("<th scope=col>{}</th>", escaped(name)));
    }
    for (title, value) in rows {
        if columns.iter().all(|(_, column)| value(column).is_none()) {
            continue;
        }
        put(&mut table, format_args!("</tr><tr><th scope=row>{title}</th>"));
        let first = columns.first().and_then(|(_, column)| value(column));
        for (place, (_, column)) in columns.iter().enumerate() {
            match (value(column), first) {
                (None, _) => table += "<td>&ndash;</td>",
                (Some(value), Some(first)) if place > 0 && first > 0.0 => put(
                    &mut table,
                    format_args!(
                        "<td>{} <i>&times;&thinsp;{:.2}</i></td>",
                        grouped(value),
                        value / first
                    ),
                ),
                (Some(value), _) => put(&mut table, format_args!("<td>{}</td>", grouped(value))),
            }
        }
    }
    table + "</tr></table></div><p class=facts>&times;: ratio to the first column.</p>"
}

/// What makes a comparison worthless stands beside it.
fn faults(runs: &[(String, RunReport)]) -> String {
    let faults = runs.iter().flat_map(|(name, run)| run.faults.iter().map(move |it| (name, it)));
    faults
        .map(|(name, fault)| {
            format!("<p class=invalid>INVALID {}: {}</p>", escaped(name), escaped(fault))
        })
        .collect()
}

/// A chart with its legend above it, where it covers nothing; nothing if there is nothing to draw.
fn figure(axes: &Axes<'_>, lines: &[Line]) -> String {
    let svg = chart(axes, lines);
    if svg.is_empty() {
        return svg;
    }
    let mut figure = String::from("<p class=legend>");
    for (color, name) in legend(lines) {
        put(
            &mut figure,
            format_args!("<span><i style=\"background: {color}\"></i>{}</span>", escaped(name)),
        );
    }
    put(&mut figure, format_args!("</p><div class=wide>{svg}</div>"));
    figure
}

fn facts(command_line: &str, begun: i64, host: &Host) -> String {
    let format = time::format_description::well_known::Rfc3339;
    let begun = time::OffsetDateTime::from_unix_timestamp(begun).ok();
    let begun = begun.and_then(|begun| begun.format(&format).ok()).unwrap_or_default();
    format!(
        "<p class=facts>{begun}; Linux {}; {}; {} processors; load average {}<br>\
         <code>{}</code></p>",
        escaped(&host.kernel),
        escaped(&host.processor),
        host.processors,
        escaped(&host.load_average),
        escaped(command_line),
    )
}

/// Latency against the share of requests that had it, in nines: 90 %, 99 %, 99.9 %.
fn latency_chart(runs: &[(String, RunReport)]) -> String {
    let lines: Vec<Line> = runs
        .iter()
        .filter(|(_, run)| run.latency.count() > 0)
        .map(|(name, run)| {
            let nines_max = (run.latency.count() as f64).log10().clamp(1.0, 6.0).floor();
            let points = (0..=200).map(|step| {
                let nines = nines_max * f64::from(step) / 200.0;
                let quantile = 1.0 - 10_f64.powf(-nines);
                (nines, (run.latency.quantile_ns(quantile) as f64 / 1e3).max(0.1))
            });
            line(name, points.collect())
        })
        .collect();
    let nines = |x: &f64| match *x {
        x if x < 0.5 => "all".to_owned(),
        x if (x - x.round()).abs() > 0.01 => String::new(),
        x => format!(
            "{:.*} %",
            (x.round() as usize).saturating_sub(2),
            100.0 - 10_f64.powf(2.0 - x.round())
        ),
    };
    let axes = Axes {
        x: "share of requests answered at least as fast",
        y: "latency, µs",
        log_y: true,
        x_label: &nines,
        x_labels: 7,
    };
    figure(&axes, &lines)
}

fn rate_chart(run: &RunReport) -> String {
    let of = |name: &str, value: fn(&super::Second) -> u64| {
        let points = (0..).zip(&run.seconds);
        line(name, points.map(|(at, second)| (f64::from(at), value(second) as f64)).collect())
    };
    let mut lines = vec![of("offered", |second| second.offered)];
    lines.push(of("answered", |second| second.answered));
    if run.server_counters.len() > 1 {
        let rates = run.server_counters.windows(2).map(|pair| {
            let answers = pair[1].answers().saturating_sub(pair[0].answers());
            (pair[1].seconds - 1.0, answers as f64 / (pair[1].seconds - pair[0].seconds).max(1e-3))
        });
        lines.push(line("answered, by the server's own count", rates.collect()));
    }
    let axes = Axes {
        x: "second of the run",
        y: "requests/s",
        log_y: false,
        x_label: &short,
        x_labels: 10,
    };
    figure(&axes, &lines)
}

fn overload_chart(searches: &[(String, SearchReport)]) -> String {
    let mut lines: Vec<Line> = searches
        .iter()
        .map(|(name, search)| {
            let is_sweep = |purpose| matches!(purpose, Purpose::Sweep(_) | Purpose::Latency(_));
            let trials = search.trials.iter().filter(|trial| is_sweep(trial.purpose));
            let mut points: Vec<_> =
                trials.map(|trial| (trial.offered_per_second, trial.answered_per_second)).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            let marks = points.iter().map(|point| (*point, true)).collect();
            Line { marks, ..line(name, points) }
        })
        .collect();
    let highest = |which: fn(&(f64, f64)) -> f64| {
        lines.iter().flat_map(|line| &line.points).map(which).fold(0.0, f64::max)
    };
    let all = highest(|point| point.0).min(highest(|point| point.1) * 1.1);
    lines.insert(0, Line { is_guide: true, ..line("all answered", vec![(0.0, 0.0), (all, all)]) });
    let axes = Axes {
        x: "offered, requests/s",
        y: "answered in time, /s",
        log_y: false,
        x_label: &short,
        x_labels: 10,
    };
    figure(&axes, &lines)
}

fn load_chart(searches: &[(String, SearchReport)]) -> String {
    let lines: Vec<Line> = searches
        .iter()
        .map(|(name, search)| {
            let points: Vec<_> = search
                .trials
                .iter()
                .filter_map(|trial| match trial.purpose {
                    Purpose::Latency(_) => Some((
                        trial.offered_per_second,
                        (trial.latency_ns[2] as f64 / 1e3).max(0.1),
                    )),
                    _ => None,
                })
                .collect();
            let marks = points.iter().map(|point| (*point, true)).collect();
            Line { marks, ..line(name, points) }
        })
        .collect();
    let axes = Axes {
        x: "offered, requests/s",
        y: "p99 latency, µs",
        log_y: true,
        x_label: &short,
        x_labels: 10,
    };
    figure(&axes, &lines)
}

fn steps_chart(searches: &[(String, SearchReport)]) -> String {
    let lines: Vec<Line> = searches
        .iter()
        .map(|(name, search)| {
            let trials = search.trials.iter();
            let trials = trials.filter(|trial| matches!(trial.purpose, Purpose::Search(_)));
            let marks: Vec<_> = (1..)
                .zip(trials)
                .map(|(number, trial)| {
                    ((f64::from(number), trial.rate_per_second), trial.passed(&search.goal))
                })
                .collect();
            Line {
                points: marks.iter().map(|(point, _)| *point).collect(),
                marks,
                ..line(name, vec![])
            }
        })
        .collect();
    let axes =
        Axes { x: "trial", y: "planned, requests/s", log_y: true, x_label: &short, x_labels: 15 };
    figure(&axes, &lines)
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.to_owned(), points, marks: Vec::new(), is_guide: false }
}

/// With thousands set apart.
fn grouped(value: f64) -> String {
    let text = number(value);
    let whole = text.find('.').unwrap_or(text.len());
    let mut grouped = String::new();
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && place < whole && (whole - place).is_multiple_of(3) {
            grouped += "&#8239;";
        }
        grouped.push(digit);
    }
    grouped
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// Charts are drawn in black and colours on nothing; a dark page turns them round. What is wider
/// than the window scrolls in a box of its own.
const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>timeball-load</title>
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<style>
:root { --text: #222; --back: #fff; --box: #f4f5f7; --dim: #666; --bad: #b00020; }
@media (prefers-color-scheme: dark) {
:root { --text: #e4e4e4; --back: #16181c; --box: #22252b; --dim: #a0a0a0; --bad: #ff7b88; }
svg, .legend i { filter: invert(.9) hue-rotate(180deg); } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: var(--text);
background: var(--back); }
main { max-width: 900px; margin: 0 auto; padding: 1rem; }
h1 { margin: .2em 0; } h2 { margin: 1.6em 0 .4em; } p { margin: .3em 0 .6em; }
.wide { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 620px; height: auto; }
pre { background: var(--box); padding: 1em; overflow-x: auto; font-size: 13px; border-radius: 4px; }
table { border-collapse: collapse; } th, td { padding: .25em .9em; text-align: right; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
th[scope=row] { text-align: left; font-weight: normal; }
tr:nth-child(even) { background: var(--box); } i { color: var(--dim); }
.legend { margin: .2em 0; } .legend span { margin-right: 1.4em; white-space: nowrap; }
.legend i { display: inline-block; width: 1.4em; height: .25em; margin-right: .5em;
vertical-align: middle; }
.facts { color: var(--dim); font-size: 13px; } code { overflow-wrap: anywhere; }
.invalid { color: var(--bad); font-weight: bold; }
</style></head><body><main><h1>timeball-load</h1>
";
