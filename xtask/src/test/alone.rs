//! What `abi-tests` looks for in a machine of its own: whether the kernel holds more after processes have ended than before, and whether waits
//! follow the clock when it is set.

use super::{Selection, Tally};
use crate::build;
use std::process::{Command, Stdio};

const PARTS: &[(&str, &str)] =
    &[("nothing is left of processes that talked", "leaks"), ("waits follow the real-time clock", "clock")];
const IN_GUEST: &str = "/abi-tests";

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for (name, part) in PARTS {
        if selection.quick {
            tally.skipped += 1;
        } else if selection.takes(name) {
            tally.note(name, &passes(part)?);
        }
    }
    Ok(tally)
}

/// Runs a part in a guest; why it failed.
fn passes(part: &str) -> Result<Result<(), String>, String> {
    let program = build::for_guest("abi-tests")?;
    let output = Command::new(build::quintet())
        .args(["run", "--cpus", "2", "--timeout", "280", "--copy"])
        .arg(format!("{}:{IN_GUEST}", program.display()))
        .args(["--", IN_GUEST, part])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let failures: Vec<&str> = said.lines().filter(|line| line.starts_with("not ok")).collect();
    Ok(Err(format!("{}\n{}\n{}", output.status, failures.join("\n"), String::from_utf8_lossy(&output.stderr))))
}
