//! `quintet deadlocks` asked about a guest in which two processes wait for each other.

use super::{Selection, Tally};
use crate::build;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const NAME: &str = "a deadlock is told to the host";
/// Each takes one file's lock, and then wants the other's.
const PROGRAM: &str = "cd /tmp; touch a b
    flock a sh -c 'touch 1; while test ! -e 2; do sleep 0.1; done; flock b true' &
    flock b sh -c 'touch 2; while test ! -e 1; do sleep 0.1; done; flock a true' &
    wait";
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut tally = Tally::default();
    if selection.quick {
        tally.skipped += 1;
    } else if selection.takes(NAME) {
        let mut guest = Command::new(build::quintet())
            .args(["run", "--root", "debian", "--timeout", "90", "--", "sh", "-c", PROGRAM])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start quintet: {error}"))?;
        tally.note(NAME, &is_told(&guest.id().to_string()));
        // It has ended already at worst.
        let _ = guest.kill();
        guest.wait().map_err(|error| format!("quintet: {error}"))?;
    }
    Ok(tally)
}

fn is_told(guest: &str) -> Result<(), String> {
    let started = Instant::now();
    let mut text = String::new();
    while !text.contains("deadlock:") {
        if started.elapsed() > PATIENCE {
            return Err(format!("no deadlock in {text:?}"));
        }
        thread::sleep(Duration::from_millis(200));
        text = ask(&[guest])?;
    }
    let members = text.lines().filter(|line| line.starts_with("  thread") && line.contains("file lock (flock")).count();
    if members != 2 {
        return Err(format!("{members} members instead of two in {text:?}"));
    }
    let graph = ask(&[guest, "--graph"])?;
    if graph.contains("color=red") { Ok(()) } else { Err(format!("no circle in {graph:?}")) }
}

/// What `quintet deadlocks` prints: nothing before the guest is up.
fn ask(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(build::quintet()).arg("deadlocks").args(arguments).output();
    let output = output.map_err(|error| format!("cannot start quintet: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
