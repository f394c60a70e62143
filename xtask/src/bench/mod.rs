//! `cargo xtask bench`: Quintet beside Debian's Linux, in the same QEMU with the same root.
//!
//! Guests of both kernels alternate, so that whatever else the machine does meets both
//! ([`guest`]); [`stats`] makes rows of their samples, [`report`] shows them.

mod guest;
mod report;
mod stats;

use crate::workspace::root;
use crate::{Failure, Outcome, build, setup};
use guest::{Kernel, Sample};
use stats::{Row, Unit};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 3;
/// The suites there are.
const SUITES: &[&str] = &["micro", "boot"];

/// What to measure, and how.
struct Options {
    suites: Vec<String>,
    rounds: usize,
    cpus: String,
    accel: String,
    icount: bool,
    json: Option<PathBuf>,
}

impl Options {
    fn takes(&self, suite: &str) -> bool {
        self.suites.iter().any(|taken| taken == suite)
    }
}

/// Measures the suites and prints the table.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    setup::ensure(setup::RUN)?;
    build::all()?;
    let program = build::for_guest("bench-micro")?;
    let logs = root().join("target/bench");
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for round in 1..=options.rounds {
        for (kernel, samples) in [Kernel::Linux, Kernel::Quintet].into_iter().zip(&mut samples) {
            eprint!("round {round} of {}, {}: ", options.rounds, kernel.name());
            let log = logs.join(format!("{}-{round}.log", kernel.name()));
            let sample = guest::run(kernel, &program, &options, &log)?;
            eprintln!(" {}", sample.summary(&log));
            samples.push(sample);
        }
    }
    let suites: Vec<(&str, Vec<Row>)> =
        SUITES.iter().filter(|suite| options.takes(suite)).map(|suite| (*suite, rows(suite, &samples))).collect();
    print!("{}", report::table(&suites));
    if let Some(path) = &options.json {
        let text = report::json(&suites, &options, &samples);
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let complete = suites.iter().flat_map(|(_, rows)| rows).any(|row| row.ratio().is_some());
    if complete { Ok(ExitCode::SUCCESS) } else { Err("no row was measured on both kernels".into()) }
}

/// The rows of a suite, in the order in which the guests gave them.
fn rows(suite: &str, samples: &[Vec<Sample>; 2]) -> Vec<Row> {
    if suite == "boot" {
        let starts = samples.each_ref().map(|of| of.iter().map(|sample| sample.start).collect());
        let [linux, quintet] = starts;
        return vec![Row { name: "first output".into(), unit: Unit::Milliseconds, linux, quintet }];
    }
    let mut order: Vec<&str> = Vec::new();
    let mut units = BTreeMap::new();
    for (name, result) in samples.iter().flatten().flat_map(|sample| &sample.results) {
        if !order.contains(&name.as_str()) {
            order.push(name);
        }
        if let Some((_, unit)) = result {
            units.insert(name.as_str(), *unit);
        }
    }
    let row = |name: &str| {
        let values = |of: &Vec<Sample>| of.iter().map(|sample| sample.value(name)).collect();
        let [linux, quintet] = samples.each_ref().map(values);
        let unit = units.get(name).copied().unwrap_or(Unit::Nanoseconds);
        Row { name: name.into(), unit, linux, quintet }
    };
    order.into_iter().map(row).collect()
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let (mut quick, mut rounds, mut suites) = (false, None, Vec::new());
    let (mut cpus, mut accel, mut icount, mut json) = (None, None, false, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--quick" => quick = true,
            "--icount" => icount = true,
            "--rounds" => rounds = Some(number(&value()?)?),
            "--cpus" => cpus = Some(number(&value()?)?),
            "--accel" => accel = Some(value()?),
            "--json" => json = Some(value()?.into()),
            option if option.starts_with('-') => return Err(format!("bench has no option {option}")),
            suite if SUITES.contains(&suite) => suites.push(suite.to_owned()),
            other => return Err(format!("no suite {other}; there are: {}", SUITES.join(", "))),
        }
    }
    if icount {
        if cpus.is_some_and(|cpus| cpus != 1) || accel.as_ref().is_some_and(|accel| accel != "tcg") {
            return Err("--icount has one CPU, and needs --accel tcg".into());
        }
        if suites.iter().any(|suite| suite == "boot") {
            return Err("--icount does not suit boot, which is timed from outside of the guest".into());
        }
        suites.push("micro".into());
    }
    if suites.is_empty() {
        suites = SUITES.iter().map(|&suite| suite.to_owned()).collect();
    }
    let usual = match (icount, quick) {
        (true, _) => 1,
        (false, true) => QUICK_ROUNDS,
        (false, false) => ROUNDS,
    };
    Ok(Options {
        suites,
        rounds: rounds.unwrap_or(usual),
        cpus: cpus.unwrap_or(1).to_string(),
        // Whether there is KVM must not change from one guest to the next.
        accel: accel.unwrap_or("tcg".into()),
        icount,
        json,
    })
}

fn number(text: &str) -> Result<usize, Failure> {
    text.parse().ok().filter(|number| *number > 0).ok_or(format!("{text} is not a number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Failure> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parsed("--quick").expect("good options");
        assert!(options.rounds == QUICK_ROUNDS && options.takes("micro") && options.takes("boot"));
        let options = parsed("--icount --json x").expect("good options");
        assert!(options.rounds == 1 && options.cpus == "1" && !options.takes("boot"));
        for bad in ["--rounds 0", "--rounds", "nano", "--fast", "--icount --cpus 2", "boot --icount"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_keep_their_order_and_holes() {
        let sample = |text: &str| Sample { results: guest::parse(text), ..Sample::default() };
        let linux = vec![sample("b\t1\tns\na\t2\tMB/s\n"), sample("b\t3\tns\n")];
        let quintet = vec![sample("b\t-\tsignal 6\n"), sample("")];
        let rows = rows("micro", &[linux, quintet]);
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(rows[0].linux, [Some(1.0), Some(3.0)]);
        assert_eq!(rows[0].quintet, [None, None]);
        assert!(matches!(rows[1].unit, Unit::Megabytes) && rows[1].linux == [Some(2.0), None]);
    }
}
