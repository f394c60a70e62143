//! Congestion windows and round-trip times over time, as SVG: a strip for each sender.

use std::fmt::Write;

const WIDTH: f64 = 700.0;
const STRIP: f64 = 110.0;
const LEFT: f64 = 60.0;
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f }
path { fill: none; stroke-width: 1.5 }
.window { stroke: #0969da } .window-text { fill: #0969da }
.time { stroke: #bc4c00 } .time-text { fill: #bc4c00 }
.axis { stroke: #d0d7de }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .axis { stroke: #30363d } }
";

/// What one sender told over time.
pub(super) struct Curve {
    name: String,
    /// Seconds, segments, milliseconds.
    points: Vec<[f64; 3]>,
}

impl Curve {
    /// Of lines with three numbers; others say nothing.
    pub(super) fn parse(name: &str, text: &str) -> Curve {
        let point = |line: &str| -> Option<[f64; 3]> {
            let numbers: Vec<f64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
            numbers.try_into().ok()
        };
        Curve { name: name.to_owned(), points: text.lines().filter_map(point).collect() }
    }

    fn most(&self, field: usize) -> f64 {
        self.points.iter().map(|point| point[field]).fold(1.0, f64::max)
    }

    /// The line of one field, scaled to its greatest value.
    fn line(&self, field: usize, top: f64) -> String {
        let (most, end) = (self.most(field), self.most(0));
        let mut line = String::new();
        for (number, point) in self.points.iter().enumerate() {
            let (x, y) = (LEFT + point[0] / end * WIDTH, top + (STRIP - 30.0) * (1.0 - point[field] / most));
            let _ = write!(line, "{}{x:.1} {y:.1}", if number == 0 { "M" } else { "L" });
        }
        line
    }
}

/// All curves below each other.
pub(super) fn svg(curves: &[Curve]) -> String {
    let (width, height) = (LEFT + WIDTH + 10.0, STRIP * curves.len() as f64 + 10.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<style>\n{STYLE}</style>\n"
    );
    for (number, curve) in curves.iter().enumerate() {
        let top = STRIP * number as f64 + 25.0;
        let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", top - 8.0, curve.name);
        let _ = writeln!(text, "<path class=\"axis\" d=\"M{LEFT} {:.1}h{WIDTH}\"/>", top + STRIP - 30.0);
        for (field, class, unit, x) in [(1, "window", "segments", 200.0), (2, "time", "ms", 320.0)] {
            let most = curve.most(field);
            let _ = writeln!(text, "<path class=\"{class}\" d=\"{}\"/>", curve.line(field, top));
            let at = LEFT + x;
            let _ = writeln!(
                text,
                "<text class=\"{class}-text\" x=\"{at}\" y=\"{:.1}\">up to {most:.0} {unit}</text>",
                top - 8.0
            );
        }
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_lines() {
        let curve = Curve::parse("reno", "0.0 10 40.0\nnoise\n1.0 20 80.5\n");
        assert_eq!(curve.points, [[0.0, 10.0, 40.0], [1.0, 20.0, 80.5]]);
        let text = svg(&[curve]);
        assert!(text.contains("reno") && text.contains("up to 20 segments") && text.contains("up to 80 ms"), "{text}");
        assert_eq!(text.matches("<path class=\"window\"").count(), 1);
    }
}
