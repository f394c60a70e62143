//! `cargo xtask report`: runs the benchmark and the test-suites, and writes `docs/status.md`.

use crate::workspace::root;
use crate::{Failure, Outcome, bench, conformance};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitCode};

const PAGE: &str = "docs/status.md";
const PLOT: &str = "docs/status.svg";
const BENCH: &str = "target/report/bench.json";
const ICOUNT: &str = "target/report/icount.json";
const CONFORMANCE: &str = "target/report/conformance.json";

/// `cargo xtask report [--quick] [--no-run]`. Without running, the page is made of the last results.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (mut quick, mut runs) = (false, true);
    for word in arguments {
        match word.as_str() {
            "--quick" => quick = true,
            "--no-run" => runs = false,
            other => return Err(format!("report has no option {other}")),
        }
    }
    let mut good = true;
    if runs {
        good = measure(quick)?;
    }
    let read = |path: &str| -> Option<Value> {
        let text = std::fs::read_to_string(root().join(path)).ok()?;
        serde_json::from_str(&text).ok()
    };
    let [bench, icount, conformance] = [BENCH, ICOUNT, CONFORMANCE].map(read);
    let plot = root().join(PLOT).exists();
    let text =
        page(&said(&["date", "--utc", "+%-d %B %Y"]), bench.as_ref(), icount.as_ref(), conformance.as_ref(), plot);
    write(&root().join(PAGE), &text)?;
    println!("wrote {PAGE}");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs both commands; true if all tests ended as expected.
fn measure(quick: bool) -> Result<bool, Failure> {
    let folder = root().join("target/report");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = |path: &str| root().join(path).display().to_string();
    let words = |list: &[&str]| -> Vec<String> {
        let quick = quick.then_some("--quick");
        list.iter().copied().chain(quick).map(str::to_owned).collect()
    };
    bench::run(&words(&["--json", &path(BENCH)]))?;
    bench::run(&words(&["micro", "--icount", "--json", &path(ICOUNT), "--plot", &path(PLOT)]))?;
    let code = conformance::run(&words(&["--json", &path(CONFORMANCE)]))?;
    Ok(code == ExitCode::SUCCESS)
}

fn said(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).current_dir(root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn page(date: &str, bench: Option<&Value>, icount: Option<&Value>, conformance: Option<&Value>, plot: bool) -> String {
    let mut text = format!("# Where Quintet stands\n\nWritten by `cargo xtask report` on {date}.\n\n");
    text += "How the figures come about: [benchmarks.md](benchmarks.md).\n";
    text += "\n## Test-suites\n\n";
    text += &conformance.map_or_else(|| "Not run.\n".to_owned(), suites_table);
    if let Some(icount) = icount {
        text += "\n## Guest instructions\n\n";
        text += &versions(icount);
        if plot {
            text += "\n![ratios of the micro suite](status.svg)\n";
        }
        text += &bench_tables(icount);
    }
    if let Some(bench) = bench {
        text += "\n## Times\n\n";
        text += &versions(bench);
        text += &bench_tables(bench);
    }
    text
}

fn suites_table(value: &Value) -> String {
    let mut text =
        "| suite | passed on Linux | on both | only on Linux | expected to | share | revision |\n|---|--:|--:|--:|--:|--:|---|\n"
            .to_owned();
    let mut failures = String::new();
    for (name, suite) in value["suites"].as_object().into_iter().flatten() {
        let revision = suite["revision"].as_str().unwrap_or("unknown");
        if let Some(why) = suite["not_run"].as_str() {
            text += &format!("| {name} | not run: {} | | | | | {revision} |\n", why.lines().next().unwrap_or_default());
            continue;
        }
        let list = |key: &str| suite[key].as_array().cloned().unwrap_or_default();
        let (failed, expected) = (list("failures"), list("expected"));
        text += &format!(
            "| {name} | {} of {} items: {} | {} | {} | {} | {} | {revision} |\n",
            suite["items"],
            suite["items_there"],
            suite["linux_passed"],
            suite["both_passed"],
            failed.len() + expected.len(),
            expected.len(),
            percent(&suite["share"])
        );
        for failure in failed {
            let field = |key: &str| failure[key].as_str().unwrap_or_default().replace('|', "\\|").replace('`', "'");
            failures += &format!("| {name} | `{}` | {} |\n", field("name"), field("why"));
        }
    }
    text += &format!(
        "\nOf all tests that Linux passes in the same machine, Quintet passes {}.\n",
        percent(&value["share"])
    );
    if !failures.is_empty() {
        text += &format!("\n### Failed on Quintet only\n\n| suite | test | why |\n|---|---|---|\n{failures}");
    }
    text
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn versions(value: &Value) -> String {
    let version = |key: &str| value["versions"][key].as_str().unwrap_or("unknown").to_owned();
    format!("Linux {}, Quintet {}, {}.\n", version("linux"), version("quintet"), version("qemu"))
}

fn bench_tables(value: &Value) -> String {
    let mut text = String::new();
    for (name, suite) in value["suites"].as_object().into_iter().flatten() {
        let rounds = suite["rows"][0]["samples"]["quintet"].as_array().map_or(0, Vec::len);
        let mean = suite["geomean"].as_f64().map_or_else(|| "-".to_owned(), |mean| format!("{mean:.2}"));
        text += &format!(
            "\n`{name}`, geometric mean {mean}, rounds: {rounds}:\n\n| row | Linux | Quintet | | ratio |\n|---|--:|--:|---|--:|\n"
        );
        for row in suite["rows"].as_array().into_iter().flatten() {
            let number = |key: &str| match row[key].as_f64() {
                Some(value) if value < 100.0 => format!("{value:.2}"),
                Some(value) => format!("{value:.0}"),
                None => "missing".to_owned(),
            };
            let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            text += &format!(
                "| {} | {} | {} | {} | {} |\n",
                word("name"),
                number("linux"),
                number("quintet"),
                word("unit"),
                number("ratio")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_has_both_tables() {
        let row = json!({ "name": "stat", "unit": "ns", "linux": 200.0, "quintet": null, "ratio": null });
        let bench = json!({ "versions": { "linux": "6.1" }, "suites": { "micro": { "geomean": 0.5, "rows": [row] } } });
        let failure = json!({ "name": "a|b", "why": "x" });
        let suite = json!({ "items": 1, "items_there": 3, "linux_passed": 2, "both_passed": 1, "failures": [failure], "expected": [], "share": 0.5 });
        let conformance = json!({ "suites": { "cpython": suite }, "share": 0.5 });
        let text = page("1 May", Some(&bench), None, Some(&conformance), false);
        assert!(text.contains("| stat | 200 | missing | ns | missing |"), "{text}");
        assert!(text.contains("| cpython | 1 of 3 items: 2 | 1 | 1 | 0 | 50.0 % | unknown |"), "{text}");
        assert!(text.contains("a\\|b"), "{text}");
    }
}
