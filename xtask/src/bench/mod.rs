//! `cargo xtask bench`: Quintet beside Debian's Linux, or beside an older Quintet, in the same QEMU
//! with the same root.
//!
//! Guests of both sides alternate, so that whatever else the machine does meets both ([`side`],
//! [`guest`]); what they run is in [`suites`]; [`stats`] makes rows of their samples, [`report`] and
//! [`plot`] show them.

mod against;
mod guest;
mod host;
mod options;
mod plot;
mod report;
mod side;
mod stats;
mod suites;

use crate::workspace::root;
use crate::{Failure, Outcome, build, setup};
use guest::Sample;
use options::Options;
use side::Side;
use stats::{Row, Unit};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use suites::{Guest, Suite};

/// What one suite gave.
struct Measured {
    name: &'static str,
    rows: Vec<Row>,
    /// What the two sides' kernels call themselves.
    releases: [Option<String>; 2],
}

/// Measures the suites and prints the table.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = options::parse(arguments)?;
    setup::ensure(setup::RUN)?;
    if suites::ALL.iter().any(|suite| options.takes(suite.name) && suite.guests.iter().any(|guest| guest.equipped)) {
        setup::ensure(setup::DISKS)?;
        setup::ensure(setup::PEERS)?;
    }
    build::all()?;
    let sides = side::both(options.against.as_deref())?;
    let logs = root().join("target/bench");
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let mut measured = Vec::new();
    for suite in suites::ALL.iter().filter(|suite| options.takes(suite.name)) {
        measured.push(measure(suite, &sides, &options, &logs)?);
    }
    print!("{}", report::table(&measured, &sides));
    if let Some(path) = &options.json {
        write(path, &report::json(&measured, &sides, &options))?;
    }
    if let Some(path) = &options.plot {
        write(path, &plot::svg(&measured, &sides))?;
    }
    let complete = measured.iter().flat_map(|suite| &suite.rows).any(|row| row.ratio().is_some());
    if complete { Ok(ExitCode::SUCCESS) } else { Err("no row was measured on both sides".into()) }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a suite's guests in turn, A B A B.
fn measure(suite: &Suite, sides: &[Side; 2], options: &Options, logs: &Path) -> Result<Measured, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    let mut releases = [None, None];
    for (at, guest) in suite.guests.iter().enumerate() {
        let name = if at == 0 { suite.name.to_owned() } else { format!("{}{}", suite.name, at + 1) };
        let samples = sample(&name, guest, options.rounds_of(suite), sides, options, logs)?;
        for (release, samples) in releases.iter_mut().zip(&samples) {
            *release = release.take().or_else(|| samples.iter().find_map(|sample| sample.release.clone()));
        }
        // What every guest tells counts once.
        let new = self::rows(&samples).into_iter().filter(|row| rows.iter().all(|known| known.name != row.name));
        rows.extend(new.collect::<Vec<_>>());
    }
    Ok(Measured { name: suite.name, rows, releases })
}

/// Runs one guest on both sides, round by round.
fn sample(
    name: &str,
    guest: &Guest,
    rounds: usize,
    sides: &[Side; 2],
    options: &Options,
    logs: &Path,
) -> Result<[Vec<Sample>; 2], Failure> {
    let files = guest.files()?;
    let _server = guest.equipped.then(host::Server::start).transpose()?;
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for round in 1..=rounds {
        for (number, (side, samples)) in sides.iter().zip(&mut samples).enumerate() {
            eprint!("{name}, round {round} of {rounds}, {}: ", side.title);
            let log = logs.join(format!("{name}-{}-{round}.log", ["a", "b"][number]));
            let sample = guest::run(side, guest, &files, options, &log)?;
            eprintln!(" {}", sample.summary(&log));
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// The rows of a suite, in the order in which the guests gave them.
fn rows(samples: &[Vec<Sample>; 2]) -> Vec<Row> {
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
        let [base, ours] = samples.each_ref().map(values);
        let unit = units.get(name).copied().unwrap_or(Unit::Nanoseconds);
        Row { name: name.into(), unit, base, ours }
    };
    order.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_holes() {
        let sample = |text: &str| Sample { results: guest::parse(text), ..Sample::default() };
        let base = vec![sample("b\t1\tns\na\t2\tMB/s\n"), sample("b\t3\tns\n")];
        let ours = vec![sample("b\t-\tsignal 6\n"), sample("")];
        let rows = rows(&[base, ours]);
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(rows[0].base, [Some(1.0), Some(3.0)]);
        assert_eq!(rows[0].ours, [None, None]);
        assert!(rows[1].unit == Unit::Megabytes && rows[1].base == [Some(2.0), None]);
    }
}
