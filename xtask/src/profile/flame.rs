//! Stacks as a flame graph in SVG: callers below, callees on top of them, widths by count. Each box
//! tells its name and share when one points at it; colours are those of the crates.

use super::stacks::Stacks;
use std::collections::BTreeMap;

const WIDTH: f64 = 1200.0;
const LINE: f64 = 17.0;
/// Boxes that are narrower than this are left out.
const NARROWEST: f64 = 0.4;
/// Width of a letter, about.
const LETTER: f64 = 6.6;

const STYLE: &str = "\
text { font: 11px monospace; fill: #24292f; pointer-events: none }
rect { stroke: #ffffff; stroke-width: .5 }
rect:hover { stroke: #24292f; stroke-width: 1 }
@media (prefers-color-scheme: dark) { svg { background: #0d1117 } rect { stroke: #0d1117; opacity: .85 } rect:hover { stroke: #fff } }
";

/// A function as called by those below it.
#[derive(Default)]
struct Node {
    count: u64,
    callees: BTreeMap<String, Node>,
}

impl Node {
    fn depth(&self) -> usize {
        1 + self.callees.values().map(Node::depth).max().unwrap_or(0)
    }
}

pub(super) fn svg(stacks: &Stacks) -> String {
    let mut all = Node::default();
    for (stack, count) in stacks.iter() {
        let mut node = &mut all;
        node.count += count;
        for name in stack {
            node = node.callees.entry(name.clone()).or_default();
            node.count += count;
        }
    }
    let height = all.depth() as f64 * LINE;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>\n{STYLE}</style>\n"
    );
    let scale = WIDTH / all.count.max(1) as f64;
    draw(&mut text, "all", &all, 0.0, height - LINE, scale, all.count);
    text + "</svg>\n"
}

fn draw(text: &mut String, name: &str, node: &Node, x: f64, y: f64, scale: f64, total: u64) {
    let width = node.count as f64 * scale;
    if width < NARROWEST {
        return;
    }
    let shown = escape(name);
    let share = node.count as f64 * 100.0 / total.max(1) as f64;
    *text += &format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{shown}: {} samples, {share:.1} %</title></rect>\n",
        LINE - 1.0,
        colour(name),
        node.count
    );
    let letters = (width / LETTER) as usize;
    if letters > 3 {
        let label: String = name.chars().take(letters - 1).collect();
        *text += &format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n", x + 2.0, y + 12.0, escape(&label));
    }
    let mut at = x;
    for (callee, inner) in &node.callees {
        draw(text, callee, inner, at, y - LINE, scale, total);
        at += inner.count as f64 * scale;
    }
}

/// A warm colour by the crate that a function belongs to.
fn colour(name: &str) -> String {
    let own = name.trim_start_matches(['<', '&']).split("::").next().unwrap_or(name);
    let hash = own.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("hsl({}, 70%, 68%)", hash % 360)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("<a as b>&c"), "&lt;a as b&gt;&amp;c");
        assert_eq!(colour("<mm::x as y>::z"), colour("mm::other"));
    }

    #[test]
    fn an_empty_profile_is_a_picture_too() {
        let text = svg(&Stacks::default());
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
    }
}
