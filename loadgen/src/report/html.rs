//! One self-contained HTML file: text, tables and SVG charts, no script, nothing from elsewhere.

use std::fmt::Write as _;

use plotters::prelude::*;

use super::terminal::{QUANTILES, ROWS, comparison, search_text, text};
use super::{RunReport, SearchReport};
use crate::search::Purpose;

/// Runs, each with its name, and searches.
pub fn page(runs: &[(String, RunReport)], searches: &[SearchReport]) -> String {
    let mut page = String::from(HEAD);
    if runs.len() > 1 {
        page += "<h2>Side by side</h2>";
        page += &comparison_table(runs);
    }
    if !runs.is_empty() {
        page += "<h2>Latency</h2><p>From the moment a request was due to its answer's arrival.</p>";
        page += &latency_chart(runs);
    }
    for (name, run) in runs {
        put(&mut page, format_args!("<h2>{}</h2>", escaped(name)));
        page += &rate_chart(run);
        put(&mut page, format_args!("<pre>{}</pre>", escaped(&text(run))));
        page += &facts(&run.command_line, run.begun, &run.host);
    }
    for search in searches {
        put(&mut page, format_args!("<h2>Search: udp {}</h2>", search.plan.target));
        put(&mut page, format_args!("<pre>{}</pre>", escaped(&search_text(search))));
    }
    if !searches.is_empty() {
        page += "<h2>Answered against offered</h2>";
        page += &overload_chart(searches);
        page += "<h2>Search steps</h2><p>Filled: the server kept the rate.</p>";
        page += &steps_chart(searches);
        for search in searches {
            page += &facts(&search.command_line, search.begun, &search.host);
        }
    }
    page += "</body></html>\n";
    page
}

fn comparison_table(runs: &[(String, RunReport)]) -> String {
    let mut table = String::from("<table><tr><th></th>");
    for (name, _) in runs {
        put(&mut table, format_args!("<th>{}</th>", escaped(name)));
    }
    for (title, value) in ROWS {
        put(&mut table, format_args!("</tr><tr><th>{title}</th>"));
        let first = runs.first().and_then(|(_, run)| value(run));
        for (_, run) in runs {
            match (value(run), first) {
                (None, _) => table += "<td>-</td>",
                (Some(value), Some(first)) if first > 0.0 => put(
                    &mut table,
                    format_args!("<td>{value:.1} <i>x {:.2}</i></td>", value / first),
                ),
                (Some(value), _) => put(&mut table, format_args!("<td>{value:.1}</td>")),
            }
        }
    }
    table += "</tr></table>";
    let names: Vec<String> = runs.iter().map(|(name, _)| name.clone()).collect();
    let runs: Vec<RunReport> = runs.iter().map(|(_, run)| run.clone()).collect();
    // What makes a comparison worthless stands beside it.
    let faults: Vec<String> = comparison(&names, &runs)
        .lines()
        .filter(|line| line.starts_with("INVALID"))
        .map(|line| format!("<p class=invalid>{}</p>", escaped(line)))
        .collect();
    table + &faults.concat()
}

fn facts(command_line: &str, begun: i64, host: &crate::host::Host) -> String {
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
            let nines_max = (run.latency.count() as f64).log10().clamp(1.0, 6.0);
            let points = (0..=200).map(|step| {
                let nines = nines_max * f64::from(step) / 200.0;
                let quantile = 1.0 - 10_f64.powf(-nines);
                (nines, (run.latency.quantile_ns(quantile) as f64 / 1e3).max(0.1))
            });
            Line { name: name.clone(), points: points.collect(), marks: Vec::new() }
        })
        .collect();
    let nines = |x: &f64| match *x {
        x if x < 0.5 => "0".to_owned(),
        x => format!(
            "{:.*} %",
            (x.round() as usize).saturating_sub(2),
            100.0 - 10_f64.powf(2.0 - x.round())
        ),
    };
    chart(&Axes { x: "requests up to this share", y: "latency in us", log_y: true }, &lines, &nines)
}

fn rate_chart(run: &RunReport) -> String {
    let line = |name: &str, value: fn(&super::Second) -> u64| Line {
        name: name.to_owned(),
        points: (0..)
            .zip(&run.seconds)
            .map(|(at, second)| (f64::from(at), value(second) as f64))
            .collect(),
        marks: Vec::new(),
    };
    let lines =
        [line("offered", |second| second.offered), line("answered", |second| second.answered)];
    chart(&Axes { x: "second", y: "requests/s", log_y: false }, &lines, &|x| format!("{x:.0}"))
}

fn overload_chart(searches: &[SearchReport]) -> String {
    let lines: Vec<Line> = searches
        .iter()
        .map(|search| {
            let is_sweep = |purpose| matches!(purpose, Purpose::Sweep(_) | Purpose::Latency(_));
            let trials = search.trials.iter().filter(|trial| is_sweep(trial.purpose));
            let mut points: Vec<_> =
                trials.map(|trial| (trial.offered_per_second, trial.answered_per_second)).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            let marks = points.iter().map(|point| (*point, true)).collect();
            Line { name: search.plan.target.to_string(), points, marks }
        })
        .collect();
    chart(&Axes { x: "offered/s", y: "answered/s", log_y: false }, &lines, &thousands)
}

fn steps_chart(searches: &[SearchReport]) -> String {
    let lines: Vec<Line> = searches
        .iter()
        .map(|search| {
            let trials = search.trials.iter();
            let trials = trials.filter(|trial| matches!(trial.purpose, Purpose::Search(_)));
            let marks: Vec<_> = (1..)
                .zip(trials)
                .map(|(number, trial)| {
                    ((f64::from(number), trial.rate_per_second), trial.passed(&search.goal))
                })
                .collect();
            let points = marks.iter().map(|(point, _)| *point).collect();
            Line { name: search.plan.target.to_string(), points, marks }
        })
        .collect();
    chart(&Axes { x: "trial", y: "requests/s", log_y: true }, &lines, &|x| format!("{x:.0}"))
}

struct Axes {
    x: &'static str,
    y: &'static str,
    log_y: bool,
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    /// Points to mark; filled ones are good.
    marks: Vec<((f64, f64), bool)>,
}

/// An SVG drawing; nothing if there is nothing to draw.
fn chart(axes: &Axes, lines: &[Line], x_label: &dyn Fn(&f64) -> String) -> String {
    let mut svg = String::new();
    let points = || lines.iter().flat_map(|line| &line.points);
    if points().next().is_none() {
        return svg;
    }
    let x_max = points().map(|point| point.0).fold(1e-9, f64::max);
    let y_max = points().map(|point| point.1).fold(1e-9, f64::max) * 1.1;
    let y_min = points().map(|point| point.1).fold(f64::MAX, f64::min).max(y_max * 1e-9) * 0.9;
    let root = SVGBackend::with_string(&mut svg, SIZE_PIXELS).into_drawing_area();
    let mut builder = ChartBuilder::on(&root);
    builder.margin(12).x_label_area_size(36).y_label_area_size(80);
    // The drawing goes to a string, so that nothing can fail.
    let drawn = if axes.log_y {
        builder
            .build_cartesian_2d(0.0..x_max, (y_min..y_max).log_scale())
            .and_then(|chart| draw(chart, axes, lines, x_label))
    } else {
        builder
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)
            .and_then(|chart| draw(chart, axes, lines, x_label))
    };
    drawn.and_then(|()| root.present()).expect("drawing into a string");
    drop(root);
    svg
}

type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw<'a, Y>(
    mut chart: ChartContext<
        'a,
        SVGBackend<'a>,
        Cartesian2d<plotters::coord::types::RangedCoordf64, Y>,
    >,
    axes: &Axes,
    lines: &[Line],
    x_label: &dyn Fn(&f64) -> String,
) -> Result<(), Failure<'a>>
where
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .light_line_style(TRANSPARENT)
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_label_formatter(x_label)
        .y_label_formatter(&thousands)
        .draw()?;
    for (number, line) in lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        chart.draw_series(line.marks.iter().map(|(point, is_good)| {
            let style = if *is_good { color.filled() } else { color.stroke_width(1) };
            Circle::new(*point, 4, style)
        }))?;
    }
    chart
        .configure_series_labels()
        .label_font(FONT)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
}

fn thousands(value: &f64) -> String {
    match *value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e3 => format!("{:.0}k", value / 1e3),
        value if value >= 10.0 => format!("{value:.0}"),
        0.0 => "0".to_owned(),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// Family and size in pixels.
const FONT: (&str, i32) = ("sans-serif", 13);

/// Width and height of a chart.
const SIZE_PIXELS: (u32, u32) = (900, 380);

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>timeball-load</title><style>
body { font: 15px/1.5 sans-serif; max-width: 940px; margin: 2em auto; color: #222; }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto; font-size: 13px; }
table { border-collapse: collapse; } th, td { padding: .2em 1em; text-align: right; }
tr:nth-child(even) { background: #f4f4f4; } i { color: #777; } .facts { color: #555; }
.invalid { color: #b00; font-weight: bold; }
</style></head><body><h1>timeball-load</h1>
";

const _: () = assert!(QUANTILES.len() == 7, "the text shows them");
