//! One chart as SVG: lines over two axes.

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// What the axes say.
pub(super) struct Axes<'a> {
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) log_y: bool,
    pub(super) x_label: &'a dyn Fn(&f64) -> String,
    /// Labels of the x axis at the most.
    pub(super) x_labels: usize,
}

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Points to mark; filled ones are good.
    pub(super) marks: Vec<((f64, f64), bool)>,
    /// A thin grey line to compare the others with.
    pub(super) is_guide: bool,
}

/// An SVG drawing; nothing if there is nothing to draw.
pub(super) fn chart(axes: &Axes<'_>, lines: &[Line]) -> String {
    let mut svg = String::new();
    let points = || lines.iter().filter(|line| !line.is_guide).flat_map(|line| &line.points);
    if points().next().is_none() {
        return svg;
    }
    let x_max = points().map(|point| point.0).fold(1e-9, f64::max);
    let y_max = points().map(|point| point.1).fold(1e-9, f64::max);
    let y_min = points().map(|point| point.1).fold(f64::MAX, f64::min).max(y_max * 1e-9);
    // A decade at least: a logarithmic axis with one label says little.
    let decades = y_min.min(y_max / 10.0) * 0.8..y_max * 1.6;
    let root = SVGBackend::with_string(&mut svg, SIZE_PIXELS).into_drawing_area();
    let mut builder = ChartBuilder::on(&root);
    builder.margin(8).margin_right(28).x_label_area_size(48).y_label_area_size(84);
    // The drawing goes to a string, so that nothing can fail.
    let drawn = if axes.log_y {
        builder
            .build_cartesian_2d(0.0..x_max, decades.log_scale())
            .and_then(|chart| draw(chart, axes, lines))
    } else {
        builder
            .build_cartesian_2d(0.0..x_max, 0.0..y_max * 1.15)
            .and_then(|chart| draw(chart, axes, lines))
    };
    drawn.and_then(|()| root.present()).expect("drawing into a string");
    drop(root);
    svg
}

/// A number in few letters.
pub(super) fn short(value: &f64) -> String {
    match *value {
        0.0 => "0".to_owned(),
        value if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        value if value >= 1e3 => format!("{} k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Colours as CSS has them, with the names of their lines.
pub(super) fn legend(lines: &[Line]) -> impl Iterator<Item = (String, &str)> {
    coloured(lines).map(|(line, RGBColor(red, green, blue))| {
        (format!("#{red:02x}{green:02x}{blue:02x}"), line.name.as_str())
    })
}

type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw<'a, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    axes: &Axes<'_>,
    lines: &[Line],
) -> Result<(), Failure<'a>>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_labels(axes.x_labels)
        .y_labels(Y_LABELS)
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK.mix(0.5))
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_label_formatter(axes.x_label)
        .y_label_formatter(&short)
        .draw()?;
    for (line, color) in coloured(lines) {
        let style =
            if line.is_guide { BLACK.mix(0.35).stroke_width(1) } else { color.stroke_width(2) };
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        chart.draw_series(line.marks.iter().map(|(point, is_good)| {
            let style = if *is_good { color.filled() } else { color.stroke_width(1) };
            Circle::new(*point, 4, style)
        }))?;
    }
    Ok(())
}

/// Each line with its colour; guides are grey.
fn coloured(lines: &[Line]) -> impl Iterator<Item = (&Line, RGBColor)> {
    let mut colors = COLORS.iter().copied().cycle();
    lines.iter().map(move |line| {
        let color = if line.is_guide { None } else { colors.next() };
        (line, color.unwrap_or(GREY))
    })
}

/// Told apart by people who see few colours (Okabe and Ito 2008).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const GREY: RGBColor = RGBColor(166, 166, 166);

/// Labels of the y axis at the most.
const Y_LABELS: usize = 6;

/// Family and size; the back end makes 13.7 pixels of it.
const FONT: (&str, i32) = ("sans-serif", 17);

/// Width and height of a chart.
const SIZE_PIXELS: (u32, u32) = (900, 340);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        let pairs = [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.0, "7"),
            (1_000.0, "1 k"),
            (12_500.0, "12.5 k"),
            (2_000_000.0, "2 M"),
        ];
        for (value, text) in pairs {
            assert_eq!(short(&value), text);
        }
    }
}
