//! The screen of `timeball top`, from a model.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};

use super::model::{Model, Rates, Spread, WorkerRates};
use crate::cli::clock::at_a_glance;
use crate::cli::control::{age, keys, until};
use crate::limits::CERTIFICATE_EXPIRY_WARNING_DAYS;
use crate::process::status::{CertificateStatus, Status};

/// Width of the names in front of lines.
const LABEL: usize = 13;

/// Draws everything. On a screen of 80 columns and 24 lines all of it has a place; a smaller one
/// loses the lower parts.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let [head, chart, numbers, workers, facts, reasons, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Length(4),
        Constraint::Length(workers_height(model)),
        Constraint::Length(facts_height(model)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(model)), head);
    draw_chart(frame, model, chart);
    let rates = model.rates();
    frame
        .render_widget(Paragraph::new(rates.as_ref().map(numbers_of).unwrap_or_default()), numbers);
    let lines = rates.as_ref().map(|rates| workers_of(rates, workers.height.into()));
    frame.render_widget(Paragraph::new(lines.unwrap_or_default()), workers);
    let lines = model.now.as_ref().map(facts_of).unwrap_or_default();
    frame.render_widget(Paragraph::new(lines), facts);
    let lines = rates.as_ref().map(|rates| reasons_of(rates, reasons.height.into()));
    frame.render_widget(Paragraph::new(lines.unwrap_or_default()), reasons);
    let help = "q quits; figures are of the last interval, percentiles are upper bounds";
    frame.render_widget(Paragraph::new(help.dim()), foot);
}

/// A line for each worker under its head, but no more than leave room for the rest.
fn workers_height(model: &Model) -> u16 {
    let workers = model.now.as_ref().map_or(1, |status| status.workers.len());
    1 + workers.clamp(1, 4) as u16
}

fn facts_height(model: &Model) -> u16 {
    let certificates = model.now.as_ref().map_or(0, |status| status.certificates.len());
    3 + certificates.min(2) as u16
}

fn headline(model: &Model) -> Line<'static> {
    let Some(status) = &model.now else {
        let why = model.trouble.clone().unwrap_or_else(|| "looking".to_owned());
        return Line::from(format!(" timeball  {why} ").reversed());
    };
    let (state, style) = match (&model.trouble, status.health.ready) {
        (Some(why), _) => (format!("no answer: {why}"), Color::Red),
        (None, true) => ("ready".to_owned(), Color::Green),
        (None, false) => (status.health.reasons.join("; "), Color::Red),
    };
    Line::from(vec![
        Span::from(format!(" timeball {}  ", status.release)).bold(),
        Span::styled(state, Style::new().fg(style).bold()),
        Span::from(format!("  up {}", age(status.uptime_seconds))),
    ])
}

fn draw_chart(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let now = model.history.back().map(|rate| quantity(*rate)).unwrap_or_default();
    let most = model.history.iter().copied().fold(0.0, f64::max);
    let title = format!(" requests per second: {now}, at most {} ", quantity(most));
    let block = Block::bordered().title(title.bold()).border_style(Style::new().dim());
    let columns: usize = block.inner(area).width.into();
    let first = model.history.len().saturating_sub(columns);
    let mut data = vec![0; columns.saturating_sub(model.history.len())];
    data.extend(model.history.iter().skip(first).map(|rate| rate.round() as u64));
    let chart = Sparkline::default().data(data).style(Style::new().fg(Color::Cyan)).block(block);
    frame.render_widget(chart, area);
}

fn numbers_of(rates: &Rates) -> Vec<Line<'static>> {
    let spread = |spread: &Spread, shown: fn(f64) -> String| {
        let one = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
        format!("p50 {:<9} p90 {:<9} p99 {}", one(spread.p50), one(spread.p90), one(spread.p99))
    };
    let (naks, dropped, lost) = (rates.naks, rates.dropped, rates.lost);
    vec![
        Line::from(vec![
            label("answered"),
            format!("NTP {:<10} NTS {:<10} ", quantity(rates.plain), quantity(rates.nts)).into(),
            bad_if(naks > 0.0, format!("NAK {:<8} ", quantity(naks))),
            bad_if(dropped > 0.0, format!("dropped {:<8} ", quantity(dropped))),
            bad_if(lost > 0.0, format!("lost {}", quantity(lost))),
        ]),
        Line::from(vec![label("latency"), spread(&rates.latency, time).into()]),
        Line::from(vec![label("batch"), spread(&rates.batch, whole).into()]),
        Line::from(vec![
            label("handshakes"),
            format!(
                "{} brought cookies, of {} connections",
                quantity(rates.handshakes),
                quantity(rates.connections)
            )
            .into(),
        ]),
    ]
}

fn workers_of(rates: &Rates, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(format!(
        "{:<LABEL$}{:>9}  {:<20}  {:>10}  {:>9}",
        "workers", "processor", "load", "answered/s", "p99"
    ))];
    lines[0] = std::mem::take(&mut lines[0]).bold();
    let room = height.saturating_sub(1);
    let shown = if rates.workers.len() > room { room.saturating_sub(1) } else { room };
    for worker in rates.workers.iter().take(shown) {
        lines.push(worker_of(worker));
    }
    if let Some(rest) = rates.workers.get(shown..).filter(|rest| !rest.is_empty()) {
        let load: f64 = rest.iter().map(|worker| worker.load).sum::<f64>() / rest.len() as f64;
        let text =
            format!("{:<LABEL$}{} more, {:.0} % busy on average", "", rest.len(), load * 100.0);
        lines.push(Line::from(text));
    }
    lines
}

fn worker_of(worker: &WorkerRates) -> Line<'static> {
    let filled = (worker.load * 15.0).round() as usize;
    let colour = if worker.load > 0.9 { Color::Yellow } else { Color::Green };
    let p99 = worker.latency.p99.map_or_else(|| "-".to_owned(), time);
    Line::from(vec![
        format!("{:<LABEL$}{:>9}  ", "", worker.cpu).into(),
        Span::styled("█".repeat(filled), Style::new().fg(colour)),
        "·".repeat(15 - filled).dim(),
        format!("{:>4.0} %{:>11}  {p99:>9}", worker.load * 100.0, quantity(worker.answered)).into(),
    ])
}

fn facts_of(status: &Status) -> Vec<Line<'static>> {
    let serving = status.processes.iter().filter(|process| process.is_serving).count();
    let all = status.processes.len();
    let restarts: u64 = status.processes.iter().map(|process| process.restarts).sum();
    let processes = format!("{serving} of {all} serve, restarts {restarts}");
    let mut lines = vec![
        Line::from(vec![
            label("clock"),
            bad_if(status.clock.stratum == 0, at_a_glance(&status.clock)),
        ]),
        Line::from(vec![label("master keys"), keys(&status.keys).into()]),
        Line::from(vec![label("processes"), bad_if(serving < all, processes)]),
    ];
    let now_unix = status.taken_unix_milliseconds / 1000;
    lines.extend(status.certificates.iter().take(2).map(|certificate| {
        let CertificateStatus { names, expires_unix, .. } = certificate;
        let days = (expires_unix - now_unix).div_euclid(86_400);
        let text = format!("{days} days, until {}, for {}", until(certificate), names.join(", "));
        let is_late = days < CERTIFICATE_EXPIRY_WARNING_DAYS;
        Line::from(vec![label("certificate"), bad_if(is_late, text)])
    }));
    lines
}

fn reasons_of(rates: &Rates, height: usize) -> Vec<Line<'static>> {
    if rates.reasons.is_empty() {
        return vec![Line::from(vec![label("refused"), "nothing".into()])];
    }
    let head =
        format!("{:<LABEL$}{:<36}{:>12}  {:>12}", "refused", "reason", "per second", "total");
    let mut lines = vec![Line::from(head).bold()];
    lines.extend(rates.reasons.iter().take(height.saturating_sub(1)).map(|reason| {
        Line::from(format!(
            "{:<LABEL$}{:<36}{:>12}  {:>12}",
            "",
            reason.name,
            quantity(reason.rate),
            reason.total
        ))
    }));
    lines
}

fn label(text: &str) -> Span<'static> {
    Span::from(format!("{text:<LABEL$}")).bold()
}

fn bad_if(is_bad: bool, text: String) -> Span<'static> {
    if is_bad { Span::styled(text, Style::new().fg(Color::Yellow)) } else { Span::from(text) }
}

/// Three digits or more of a rate.
fn quantity(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k", rate / 1e3),
        rate if rate >= 10.0 || rate == 0.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds.is_infinite() => "longer".to_owned(),
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

fn whole(datagrams: f64) -> String {
    format!("{datagrams:.0}")
}

#[cfg(test)]
mod tests;
