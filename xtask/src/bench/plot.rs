//! The ratios as a bar plot in SVG, which takes its colours from whether the reader's screen is light
//! or dark.

use super::Measured;
use super::side::Side;
use super::stats::Row;

const LINE: f64 = 18.0;
const LABELS: f64 = 190.0;
const BARS: f64 = 480.0;
const VALUES: f64 = 80.0;
/// The scale's ends: a ratio beyond one is drawn as long as it goes.
const LEAST: f64 = 0.05;
const MOST: f64 = 20.0;
const MARKS: &[f64] = &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.faint { fill: #6e7781 }
.grid { stroke: #d0d7de }
.one { stroke: #24292f; stroke-width: 1.5 }
.good { fill: #1a7f64 }
.bad { fill: #bc4c00 }
.none { fill: none; stroke: #bc4c00; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .faint { fill: #8d96a0 }
  .grid { stroke: #30363d }
  .one { stroke: #e6edf3 }
  .good { fill: #3fb950 }
  .bad { fill: #f0883e }
  .none { stroke: #f0883e }
}
";

/// All suites' rows below each other, a bar from the line at 1 to the ratio, on a logarithmic scale.
pub(super) fn svg(suites: &[Measured], sides: &[Side; 2]) -> String {
    let shown = |row: &&Row| row.base.iter().any(Option::is_some) || row.ratio().is_some();
    let lines: usize = suites.iter().map(|suite| suite.rows.iter().filter(shown).count() + 1).sum();
    let bottom = LINE * (lines as f64 + 3.0);
    let (width, height) = (LABELS + BARS + VALUES, bottom + LINE);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<style>\n{STYLE}</style>\n"
    );
    let title = format!("{} against {}: shorter than 1 is better", sides[1].title, sides[0].title);
    text += &label(8.0, LINE, "head", &title);
    for mark in MARKS {
        let (x, class) = (place(*mark), if *mark == 1.0 { "one" } else { "grid" });
        text += &format!("<path class=\"{class}\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/>\n", LINE * 2.0);
        text += &format!(
            "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mark}</text>\n",
            bottom + 14.0
        );
    }
    let mut y = LINE * 2.0;
    for suite in suites {
        y += LINE;
        text += &label(8.0, y, "head", suite.name);
        for row in suite.rows.iter().filter(shown) {
            y += LINE;
            text += &bar(row, y);
        }
    }
    text + "</svg>\n"
}

fn bar(row: &Row, y: f64) -> String {
    let mut text = label(16.0, y, "", &row.name);
    let top = y - 11.0;
    let after = LABELS + BARS + 8.0;
    match row.ratio() {
        Some(ratio) => {
            let (from, to) = (place(ratio.min(1.0)), place(ratio.max(1.0)));
            let class = if ratio <= 1.0 { "good" } else { "bad" };
            let width = to - from;
            text += &format!(
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"13\"/>\n"
            );
            text += &label(after, y, "", &format!("{ratio:.2}"));
        }
        None => {
            let (from, width) = (place(1.0), place(MOST) - place(1.0));
            text +=
                &format!("<rect class=\"none\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"13\"/>\n");
            text += &label(after, y, "faint", "missing");
        }
    }
    text
}

fn label(x: f64, y: f64, class: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>\n")
}

/// Where a ratio is on the scale.
fn place(ratio: f64) -> f64 {
    let share = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LABELS + share * BARS
}

#[cfg(test)]
mod tests {
    use super::super::side;
    use super::super::stats::Unit;
    use super::*;

    #[test]
    fn every_row_has_its_bar() {
        let row = |name: &str, ours| Row {
            name: name.into(),
            unit: Unit::Nanoseconds,
            base: vec![Some(10.0)],
            ours: vec![ours],
        };
        let rows = vec![row("fast", Some(5.0)), row("a<b", Some(20.0)), row("gone", None)];
        let suite = Measured { name: "micro", rows, releases: [None, None] };
        let text = svg(&[suite], &side::both(None).expect("two sides"));
        for class in ["good", "bad", "none"] {
            assert_eq!(text.matches(&format!("<rect class=\"{class}\"")).count(), 1, "{class}");
        }
        assert!(text.contains("a&lt;b") && text.contains("missing"));
        assert!(place(0.5) < place(1.0) && place(1.0) < place(2.0) && place(1e9) == place(MOST));
    }
}
