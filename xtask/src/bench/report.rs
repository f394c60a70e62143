//! The results as a table for people and as JSON for programs.

use super::Measured;
use super::options::Options;
use super::side::Side;
use super::stats::{MISSING, Row, geometric_mean, median};
use crate::guest::MODEL;
use crate::workspace::{revision, root};
use serde_json::{Map, Value, json};
use std::process::Command;

/// All rows, suite by suite, and the means. Revisions of ours get verdicts.
pub(super) fn table(suites: &[Measured], sides: &[Side; 2]) -> String {
    let [base, ours] = sides.each_ref().map(|side| side.title.as_str());
    let judged = sides[0].key == "base";
    let mut text = line("", [base, ours, "", "ratio", "spread", ""]);
    for suite in suites {
        text += &format!("== {}\n", suite.name);
        for row in &suite.rows {
            text += &row_line(row, judged);
        }
        text += &mean_line("geometric mean", suite.rows.iter().collect());
    }
    if suites.len() > 1 {
        text += &mean_line("== overall", suites.iter().flat_map(|suite| &suite.rows).collect());
    }
    text += &format!("ratio: {ours} to {base} (of rates the other way round); below 1, {ours} is better\n");
    if judged {
        text += "better, worse: all samples of one side beat all of the other's\n";
    }
    text
}

fn line(name: &str, [base, ours, unit, ratio, spread, verdict]: [&str; 6]) -> String {
    let line = format!("{name:<22} {base:>11} {ours:>11} {unit:<4} {ratio:>7} {spread:>7} {verdict}");
    format!("{}\n", line.trim_end())
}

fn row_line(row: &Row, judged: bool) -> String {
    let value = |values| match median(values) {
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.0}"),
        None => "missing".to_owned(),
    };
    let ratio = row.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    // One round has no spread.
    let spread = row.spread().filter(|_| row.base.len() > 1);
    let spread = spread.map(|spread| format!("{:.0} %", spread * 100.0)).unwrap_or_default();
    let verdict = row.verdict().filter(|_| judged).map(|verdict| verdict.name()).unwrap_or_default();
    line(&row.name, [&value(&row.base), &value(&row.ours), row.unit.name(), &ratio, &spread, verdict])
}

fn mean_line(name: &str, rows: Vec<&Row>) -> String {
    let missing = rows.iter().filter(|row| median(&row.base).is_some() && row.ratio().is_none()).count();
    let Some(mean) = geometric_mean(rows.iter().copied()) else {
        return format!("{name}: nothing measured\n");
    };
    let mut text = line(name, ["", "", "", &format!("{mean:.2}"), "", ""]);
    if missing > 0 {
        text += &format!("  ({missing} missing, each counted as {MISSING:.0})\n");
    }
    text
}

/// `{machine, versions, options, suites: {NAME: {geomean, rows}}, geomean}`.
pub(super) fn json(suites: &[Measured], sides: &[Side; 2], options: &Options) -> String {
    let judged = sides[0].key == "base";
    let suite = |suite: &Measured| {
        let rows: Vec<Value> = suite.rows.iter().map(|row| row_value(row, sides, judged)).collect();
        (suite.name.to_owned(), json!({ "geomean": geometric_mean(&suite.rows), "rows": rows }))
    };
    let mut versions = json!({
        "quintet": revision(),
        "qemu": said_by("qemu-system-x86_64", &["--version"]),
    });
    let release = suites.iter().find_map(|suite| suite.releases[0].clone());
    versions[sides[0].key] = if judged { json!(sides[0].title) } else { json!(release) };
    let document = json!({
        "machine": { "model": MODEL, "cpus": options.cpus, "host_cpu": host_cpu() },
        "versions": versions,
        "options": { "accel": options.accel, "icount": options.icount },
        "suites": suites.iter().map(suite).collect::<Map<String, Value>>(),
        "geomean": geometric_mean(suites.iter().flat_map(|suite| &suite.rows)),
    });
    format!("{document:#}\n")
}

fn row_value(row: &Row, sides: &[Side; 2], judged: bool) -> Value {
    let [base, ours] = sides.each_ref().map(|side| side.key);
    let mut value = json!({
        "name": row.name,
        "unit": row.unit.name(),
        base: median(&row.base),
        ours: median(&row.ours),
        "ratio": row.ratio(),
        "spread": row.spread(),
        "samples": { base: row.base, ours: row.ours },
    });
    if judged {
        value["verdict"] = json!(row.verdict().map(|verdict| verdict.name()));
    }
    value
}

/// The first line that a program prints, for the record.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

fn host_cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(": ").map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::side;
    use super::super::stats::Unit;
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, quintet| Row {
            name: name.into(),
            unit: Unit::Nanoseconds,
            base: vec![Some(100.0)],
            ours: vec![quintet],
        };
        vec![row("null call", Some(50.0)), row("stat", None)]
    }

    #[test]
    fn the_table_shows_what_is_missing() {
        let suite = Measured { name: "micro", rows: rows(), releases: [None, None] };
        let text = table(&[suite], &side::both(None).expect("two sides"));
        let fields = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect("the row");
            line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(fields("null call"), ["100", "50", "ns", "0.50"]);
        assert_eq!(fields("stat"), ["100", "missing", "ns"]);
        assert!(text.contains("(1 missing, each counted as 10)"), "{text}");
    }

    #[test]
    fn a_missing_row_has_no_ratio_in_json() {
        let sides = side::both(None).expect("two sides");
        let values: Vec<Value> = rows().iter().map(|row| row_value(row, &sides, false)).collect();
        assert_eq!(values[0]["ratio"], 0.5);
        assert!(values[1]["ratio"].is_null() && values[1]["quintet"].is_null());
    }
}
