//! `cargo xtask fuzz-syscalls`: random system calls in a guest, for a time; only the kernel's survival
//! counts. The calls themselves are made by `abi-tests fuzz` (tests/abi/src/fuzz.rs).

use crate::guest::Kernel;
use crate::workspace::{root, shown};
use crate::{Failure, Outcome, build, guest, setup};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const IN_GUEST: &str = "/abi-tests";
const MINUTES: u64 = 5;
/// How much longer the guest may take than the calls are to.
const GRACE: u64 = 120;
/// The seeds that are named when the kernel dies: workers of the last rounds.
const LAST: usize = 8;
/// How often to say that all is well.
const NEWS: Duration = Duration::from_secs(30);

/// `cargo xtask fuzz-syscalls [--minutes N] [--seed S] [--cpus N]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (mut minutes, mut seed, mut cpus) = (MINUTES, clock_seed(), 2);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, Failure> {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value.parse().ok().filter(|number| *number > 0).ok_or(format!("{value} is not a number above 0"))
        };
        match word.as_str() {
            "--minutes" => minutes = number()?,
            "--seed" => seed = number()?,
            "--cpus" => cpus = number()?,
            other => return Err(format!("fuzz-syscalls has no option {other}")),
        }
    }
    setup::ensure(setup::RUN)?;
    build::all()?;
    let again = format!("cargo xtask fuzz-syscalls --minutes {minutes} --seed {seed} --cpus {cpus}");
    println!("{minutes} minutes from seed {seed}; the same again: {again}");
    let seeds = in_guest(minutes * 60, seed, cpus)?;
    println!("the kernel survived {seeds} workers' random calls");
    Ok(ExitCode::SUCCESS)
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()).max(1)
}

/// Runs the guest; how many workers it started. A failure says with which seeds to find it again.
fn in_guest(seconds: u64, seed: u64, cpus: u64) -> Result<usize, Failure> {
    let program = build::for_guest("abi-tests")?;
    let log = root().join("target/fuzz-syscalls.log");
    let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut child = guest::run(Kernel::Quintet)
        .args(["--cpus", &cpus.to_string(), "--timeout", &(seconds + GRACE).to_string(), "--copy"])
        .arg(format!("{}:{IN_GUEST}", program.display()))
        .args(["--", IN_GUEST, "fuzz", &seconds.to_string(), &seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let mut seeds: Vec<String> = Vec::new();
    let mut said = Instant::now();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(seed) = line.strip_prefix("seed ") {
                seeds.push(seed.to_owned());
            }
            if said.elapsed() > NEWS {
                said = Instant::now();
                eprintln!("{} workers so far", seeds.len());
            }
        }
    }
    let status = child.wait().map_err(|error| format!("quintet: {error}"))?;
    if status.success() {
        return Ok(seeds.len());
    }
    let report = std::fs::read(&log).unwrap_or_default();
    // What the guest's programs and its kernel said last.
    let _ = std::io::stderr().write_all(&report[report.len().saturating_sub(8 << 10)..]);
    let last = seeds[seeds.len().saturating_sub(LAST)..].join(" ");
    Err(format!(
        "the guest ended: {status}, after {} workers; the last seeds: {last}; see {}",
        seeds.len(),
        shown(&log)
    ))
}
