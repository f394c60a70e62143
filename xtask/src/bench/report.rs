//! The results as a table for people and as JSON for programs.

use super::Options;
use super::guest::Sample;
use super::stats::{Row, geometric_mean, median};
use crate::workspace::root;
use serde_json::{Value, json};
use std::process::Command;

/// All rows, suite by suite, and the means.
pub(super) fn table(suites: &[(&str, Vec<Row>)]) -> String {
    let mut text = line("", ["Linux", "Quintet", "", "ratio", "spread"]);
    for (suite, rows) in suites {
        text += &format!("== {suite}\n");
        for row in rows {
            text += &row_line(row);
        }
        text += &mean_line("geometric mean", rows.iter().collect());
    }
    if suites.len() > 1 {
        text += &mean_line("== overall", suites.iter().flat_map(|(_, rows)| rows).collect());
    }
    text + "ratio: Quintet's time to Linux's (bandwidths the other way round); below 1, Quintet is better\n"
}

fn line(name: &str, [linux, quintet, unit, ratio, spread]: [&str; 5]) -> String {
    let line = format!("{name:<22} {linux:>11} {quintet:>11} {unit:<4} {ratio:>7} {spread:>7}");
    format!("{}\n", line.trim_end())
}

fn row_line(row: &Row) -> String {
    let value = |values| match median(values) {
        Some(value) => format!("{value:.0}"),
        None => "missing".to_owned(),
    };
    let ratio = row.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    // One round has no spread.
    let spread = row.spread().filter(|_| row.linux.len() > 1);
    let spread = spread.map(|spread| format!("{:.0} %", spread * 100.0)).unwrap_or_default();
    line(&row.name, [&value(&row.linux), &value(&row.quintet), row.unit.name(), &ratio, &spread])
}

fn mean_line(name: &str, rows: Vec<&Row>) -> String {
    let missing = rows.iter().filter(|row| median(&row.linux).is_some() && row.ratio().is_none()).count();
    let Some(mean) = geometric_mean(rows.iter().copied()) else {
        return format!("{name}: nothing measured\n");
    };
    let mut text = line(name, ["", "", "", &format!("{mean:.2}"), ""]);
    if missing > 0 {
        text += &format!("  ({missing} missing, each counted as {:.0})\n", super::stats::MISSING);
    }
    text
}

/// `{machine, versions, options, suites: {NAME: {geomean, rows}}, geomean}`.
pub(super) fn json(suites: &[(&str, Vec<Row>)], options: &Options, samples: &[Vec<Sample>; 2]) -> String {
    let named: serde_json::Map<String, Value> = suites
        .iter()
        .map(|(suite, rows)| {
            let list: Vec<Value> = rows.iter().map(row_value).collect();
            (suite.to_string(), json!({ "geomean": geometric_mean(rows), "rows": list }))
        })
        .collect();
    let release = samples[0].iter().find_map(|sample| sample.release.clone());
    let document = json!({
        "machine": { "model": "q35", "memory": "1G", "cpus": options.cpus, "host_cpu": host_cpu() },
        "versions": {
            "linux": release,
            "quintet": said_by("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            "qemu": said_by("qemu-system-x86_64", &["--version"]),
        },
        "options": { "rounds": options.rounds, "accel": options.accel, "icount": options.icount },
        "suites": named,
        "geomean": geometric_mean(suites.iter().flat_map(|(_, rows)| rows)),
    });
    format!("{document:#}\n")
}

fn row_value(row: &Row) -> Value {
    json!({
        "name": row.name,
        "unit": row.unit.name(),
        "linux": median(&row.linux),
        "quintet": median(&row.quintet),
        "ratio": row.ratio(),
        "spread": row.spread(),
        "samples": { "linux": row.linux, "quintet": row.quintet },
    })
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
    use super::super::stats::Unit;
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, quintet| Row {
            name: name.into(),
            unit: Unit::Nanoseconds,
            linux: vec![Some(100.0)],
            quintet: vec![quintet],
        };
        vec![row("null call", Some(50.0)), row("stat", None)]
    }

    #[test]
    fn the_table_shows_what_is_missing() {
        let text = table(&[("micro", rows())]);
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
        let values: Vec<Value> = rows().iter().map(row_value).collect();
        assert_eq!(values[0]["ratio"], 0.5);
        assert!(values[1]["ratio"].is_null() && values[1]["quintet"].is_null());
    }
}
