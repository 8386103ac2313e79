//! What a check found, for people, for monitoring plugins, for programs and for Prometheus.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::state::State;
use super::threshold::Threshold;
use crate::observe::exposition::Exposition;
use crate::observe::exposition::Kind::Gauge;

/// A kind of measure, by its name everywhere.
pub(super) struct Quantity {
    /// In performance data and JSON.
    pub(super) label: &'static str,
    /// Its unit in performance data: `s`, `%`, `c` (a counter) or none.
    pub(super) unit: &'static str,
    /// For Prometheus, which has base units only.
    pub(super) metric: &'static str,
    /// How many of those one unit of ours is.
    pub(super) base_units: f64,
    /// What it is.
    pub(super) help: &'static str,
}

/// One thing that was looked at.
#[derive(Serialize)]
pub(super) struct Finding {
    pub(super) state: State,
    /// A sentence without a full stop.
    pub(super) text: String,
}

struct Measure {
    quantity: &'static Quantity,
    value: f64,
    threshold: Option<Threshold>,
}

/// All of it.
pub(super) struct Report {
    /// Who was checked.
    target: String,
    /// All in all, if all is well.
    pub(super) gist: String,
    findings: Vec<Finding>,
    measures: Vec<Measure>,
}

impl Report {
    pub(super) fn new(target: String) -> Self {
        let target = target.replace('|', "/");
        Self { target, gist: String::new(), findings: Vec::new(), measures: Vec::new() }
    }

    /// Something that is so, or not.
    pub(super) fn say(&mut self, state: State, text: impl Into<String>) {
        // What follows a bar is performance data.
        self.findings.push(Finding { state, text: text.into().replace('|', "/") });
    }

    /// Something that is measured and judged.
    pub(super) fn judge(
        &mut self,
        quantity: &'static Quantity,
        value: f64,
        threshold: &Threshold,
        text: impl Into<String>,
    ) {
        self.say(threshold.judge(value), text);
        self.measures.push(Measure { quantity, value, threshold: Some(*threshold) });
    }

    /// Something that is measured for those who draw it.
    pub(super) fn measure(&mut self, quantity: &'static Quantity, value: f64) {
        self.measures.push(Measure { quantity, value, threshold: None });
    }

    /// The worst of the findings. That nothing was found out is not known to be well.
    pub(super) fn state(&self) -> State {
        match self.findings.as_slice() {
            [] => State::Unknown,
            findings => State::worst(findings.iter().map(|finding| finding.state)),
        }
    }

    /// As monitoring plugins print it: one line with performance data, then all that was looked at.
    pub(super) fn to_text(&self) -> String {
        let state = self.state();
        let worst = self.findings.iter().filter(|finding| finding.state != State::Ok);
        let worst: Vec<&str> = worst.map(|finding| finding.text.as_str()).collect();
        let gist = if worst.is_empty() { self.gist.replace('|', "/") } else { worst.join("; ") };
        let word = state.word().to_uppercase();
        let data: Vec<String> = self.measures.iter().map(Measure::performance).collect();
        let data = if data.is_empty() { String::new() } else { format!(" | {}", data.join(" ")) };
        let mut text = format!("TIMEBALL {word} {}: {gist}{data}\n", self.target);
        for Finding { state, text: found } in &self.findings {
            writeln!(text, "{:<8}  {found}", state.word()).expect("writing to a string");
        }
        text
    }

    /// For programs.
    pub(super) fn to_json(&self) -> String {
        let measures: serde_json::Map<_, _> = self
            .measures
            .iter()
            .map(|measure| (measure.quantity.label.to_owned(), measure.value.into()))
            .collect();
        let value = serde_json::json!({
            "target": self.target,
            "state": self.state(),
            "findings": self.findings,
            "measures": measures,
        });
        format!("{value:#}\n")
    }

    /// For the textfile collector of Prometheus' node exporter.
    pub(super) fn to_prometheus(&self, now_unix_seconds: f64) -> String {
        let target: &[(&str, &dyn std::fmt::Display)] = &[("target", &self.target)];
        let mut out = Exposition::default();
        let help = "How the check ended: 0 ok, 1 warning, 2 critical, 3 unknown.";
        out.metric("timeball_check_state", Gauge, help).sample(target, self.state().code());
        let help = "When the check was made, in seconds since 1970.";
        out.metric("timeball_check_timestamp_seconds", Gauge, help)
            .sample(target, now_unix_seconds);
        for Measure { quantity, value, .. } in &self.measures {
            let value = value * quantity.base_units;
            out.metric(quantity.metric, Gauge, quantity.help).sample(target, value);
        }
        out.into_text()
    }
}

impl Measure {
    /// `label=value[unit];warning;critical`.
    fn performance(&self) -> String {
        let Quantity { label, unit, .. } = self.quantity;
        // Nine decimals are nanoseconds; exponents are not in the grammar.
        let value = format!("{:.9}", self.value);
        let value = value.trim_end_matches('0').trim_end_matches('.');
        match &self.threshold {
            Some(threshold) => format!("{label}={value}{unit};{threshold}"),
            None => format!("{label}={value}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Quantity = Quantity {
        label: "length",
        unit: "s",
        metric: "timeball_check_length_seconds",
        base_units: 60.0,
        help: "How long.",
    };

    fn report(value: f64) -> Report {
        let mut report = Report::new("a|b".to_owned());
        report.gist = "all is well".to_owned();
        let threshold = Threshold::above("1,2").expect("good");
        report.judge(&LENGTH, value, &threshold, format!("it is {value} s | long"));
        report
    }

    #[test]
    fn nothing_found_out_is_not_well() {
        assert_eq!(Report::new(String::new()).state(), State::Unknown);
    }

    #[test]
    fn plugins_print_one_line_with_performance_data() {
        let text = report(0.000_000_25).to_text();
        let lines: Vec<&str> = text.lines().collect();
        let head = "TIMEBALL OK a|b: all is well | length=0.00000025s;1;2".replace("a|b", "a/b");
        assert_eq!(lines, [head.as_str(), "ok        it is 0.00000025 s / long"]);
        let text = report(3.0).to_text();
        assert!(text.starts_with("TIMEBALL CRITICAL a/b: it is 3 s / long | length=3s;1;2\n"));
    }

    #[test]
    fn prometheus_gets_gauges() {
        let text = report(1.5).to_prometheus(1_800_000_000.0);
        assert!(text.contains("\ntimeball_check_state{target=\"a/b\"} 1\n"), "{text}");
        assert!(text.contains("\ntimeball_check_length_seconds{target=\"a/b\"} 90\n"), "{text}");
        assert!(text.contains("# TYPE timeball_check_length_seconds gauge\n"), "{text}");
    }
}
