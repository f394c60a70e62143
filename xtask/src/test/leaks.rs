//! Whether the kernel holds more after processes have ended than before: `abi-tests leaks` in a guest.

use super::{Selection, Tally};
use crate::build;
use std::process::{Command, Stdio};

const NAME: &str = "nothing is left of processes that talked";
const IN_GUEST: &str = "/abi-tests";

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut tally = Tally::default();
    if selection.quick {
        tally.skipped += 1;
    } else if selection.takes(NAME) {
        let program = build::for_guest("abi-tests")?;
        let output = Command::new(build::quintet())
            .args(["run", "--cpus", "2", "--timeout", "280", "--copy"])
            .arg(format!("{}:{IN_GUEST}", program.display()))
            .args(["--", IN_GUEST, "leaks"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start quintet: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let failures: Vec<&str> = said.lines().filter(|line| line.starts_with("not ok")).collect();
        let why = || format!("{}\n{}\n{}", output.status, failures.join("\n"), String::from_utf8_lossy(&output.stderr));
        tally.note(NAME, &if output.status.success() { Ok(()) } else { Err(why()) });
    }
    Ok(tally)
}
