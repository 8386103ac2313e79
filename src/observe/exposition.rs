//! Prometheus' text format, version 0.0.4. The crates for it own the counters, or write
//! OpenMetrics, whose names `promtool check metrics` takes for wrong ones; this format is a few
//! lines.

use std::fmt::{Display, Write as _};

use crate::process::status::HistogramStatus;

/// What this format is called in HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kind of a metric.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Metrics as text.
#[derive(Default)]
pub(crate) struct Exposition {
    text: String,
    name: &'static str,
}

/// Labels of a sample: names and values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

impl Exposition {
    /// Begins a metric; its samples follow at once.
    pub(crate) fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        self.name = name;
        self
    }

    /// One sample of the metric.
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.named("", labels, None, value)
    }

    /// A histogram of the metric.
    pub(crate) fn histogram(&mut self, labels: Labels<'_>, found: &HistogramStatus) -> &mut Self {
        let mut below = 0;
        for (bound, count) in found.bounds.iter().zip(&found.counts) {
            below += count;
            self.named("_bucket", labels, Some(bound), below);
        }
        let all: u64 = found.counts.iter().sum();
        self.named("_bucket", labels, Some(&"+Inf"), all);
        self.named("_sum", labels, None, found.sum).named("_count", labels, None, all)
    }

    /// All of it.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn named(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        bound: Option<&dyn Display>,
        value: impl Display,
    ) -> &mut Self {
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let labels: Vec<String> =
            labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let name = self.name;
        if labels.is_empty() {
            self.line(format_args!("{name}{suffix} {value}"));
        } else {
            self.line(format_args!("{name}{suffix}{{{}}} {value}", labels.join(",")));
        }
        self
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.text, "{line}").expect("writing to a string cannot fail");
    }
}

fn escaped(value: &dyn Display) -> String {
    value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_the_format_wants_it() {
        let mut out = Exposition::default();
        let histogram = HistogramStatus { bounds: vec![0.5, 2.0], counts: vec![3, 1, 1], sum: 7.5 };
        out.metric("a_total", Kind::Counter, "What a is.").sample(&[], 3_u64);
        out.metric("b", Kind::Gauge, "B.").sample(&[("file", &"a \"b\"\\\n"), ("n", &1)], 0.25);
        out.metric("c", Kind::Histogram, "C.").histogram(&[("n", &1)], &histogram);
        assert_eq!(
            out.into_text(),
            "# HELP a_total What a is.\n# TYPE a_total counter\na_total 3\n\
             # HELP b B.\n# TYPE b gauge\nb{file=\"a \\\"b\\\"\\\\\\n\",n=\"1\"} 0.25\n\
             # HELP c C.\n# TYPE c histogram\n\
             c_bucket{n=\"1\",le=\"0.5\"} 3\nc_bucket{n=\"1\",le=\"2\"} 4\n\
             c_bucket{n=\"1\",le=\"+Inf\"} 5\nc_sum{n=\"1\"} 7.5\nc_count{n=\"1\"} 5\n"
        );
    }
}
