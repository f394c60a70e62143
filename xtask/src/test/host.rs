//! The unit tests of every crate that can run on the host.

use super::{Selection, Tally};
use crate::workspace::cargo;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Crates without tests that could run here.
const NOT_HERE: &[&str] = &["kernel", "abi-tests"];

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut command = cargo();
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]);
    for package in NOT_HERE {
        command.args(["--exclude", package]);
    }
    command.args(&selection.filter);
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot run cargo test: {error}"))?;
    let mut tally = Tally::default();
    let output = child.stdout.take().ok_or("cargo test has no output")?;
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        match result(&line) {
            Some(found) => tally.add(found),
            None if line.trim().is_empty() || line.starts_with("running ") => {}
            None if line.chars().all(|c| "./0123456789 ".contains(c)) => {}
            None => println!("{line}"),
        }
    }
    let status = child.wait().map_err(|error| format!("cargo test: {error}"))?;
    if !status.success() && tally.failed == 0 {
        // It did not build, or a test process died.
        tally.failed = 1;
    }
    println!("{} passed, {} failed on the host", tally.passed, tally.failed);
    Ok(tally)
}

/// The numbers in `test result: ok. 5 passed; 0 failed; 0 ignored; ...`.
fn result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let (number, what) = part.split_once(' ')?;
        let number = number.parse().unwrap_or(0);
        match what {
            "passed" => tally.passed = number,
            "failed" => tally.failed = number,
            "ignored" => tally.skipped = number,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out";
        let tally = result(line).expect("a result");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (5, 2, 1));
        assert!(result("running 5 tests").is_none());
    }
}
