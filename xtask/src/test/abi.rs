//! The ABI tests: one static program, run on the host's Linux first and then in guests; a case
//! passes where it gives the same result.

use super::{Selection, Tally};
use crate::workspace::root;
use crate::{Failure, Outcome, build, setup};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

const IN_GUEST: &str = "/abi-tests";
const CPU_COUNTS: &[&str] = &["1", "2", "4"];
/// Under TCG everything takes longer.
const GUEST_TIME_SCALE: &str = "3";
const GUEST_LIMIT: &str = "280";
/// Modules of Debian's kernel that cases need.
const LINUX_MODULES: &[&str] = &["vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback"];

/// Each case's result on one kernel: nothing if it passed, else why not.
type Results = BTreeMap<String, Result<(), String>>;

/// The stage of `cargo xtask test`.
pub(super) fn run(selection: &Selection) -> Result<Tally, Failure> {
    let cpu_counts = if selection.quick { &["2"] } else { CPU_COUNTS };
    let mut columns: Vec<Column> = cpu_counts.iter().map(|cpus| Column::quintet(cpus)).collect();
    if !selection.quick {
        columns.push(Column::lockdep("2", &build::lockdep_kernel()?));
    }
    compare(selection.filter.as_deref(), &columns)
}

/// `cargo xtask abi [--linux | --lockdep] [--cpus N] [FILTER]`.
pub(crate) fn command(arguments: &[String]) -> Outcome {
    let mut filter = None;
    let (mut cpus, mut linux, mut lockdep) = (Vec::new(), false, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--linux" => linux = true,
            "--lockdep" => lockdep = true,
            "--cpus" => cpus.push(words.next().ok_or("--cpus needs a number")?.clone()),
            option if option.starts_with('-') => return Err(format!("abi has no option {option}")),
            text => filter = Some(text),
        }
    }
    if cpus.is_empty() {
        cpus.push("2".into());
    }
    setup::ensure(setup::RUN)?;
    if linux || lockdep { build::without_kernel() } else { build::all() }?;
    let checked = if lockdep { Some(build::lockdep_kernel()?) } else { None };
    let column = |cpus: &String| match &checked {
        Some(kernel) => Column::lockdep(cpus, kernel),
        None if linux => Column::linux(cpus),
        None => Column::quintet(cpus),
    };
    let columns: Vec<Column> = cpus.iter().map(column).collect();
    let tally = compare(filter, &columns)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One guest to run the cases in.
struct Column {
    title: String,
    options: Vec<String>,
}

impl Column {
    fn quintet(cpus: &str) -> Column {
        Column { title: format!("{cpus} CPU"), options: vec!["--cpus".into(), cpus.into()] }
    }

    /// With a kernel that panics where its locks could end in a deadlock.
    fn lockdep(cpus: &str, kernel: &Path) -> Column {
        let options = ["--cpus", cpus, "--kernel"].map(str::to_owned);
        let kernel = kernel.display().to_string();
        Column { title: format!("{cpus} CPU, locks checked"), options: options.into_iter().chain([kernel]).collect() }
    }

    fn linux(cpus: &str) -> Column {
        let options = ["--cpus", cpus, "--kernel", "linux"].into_iter();
        let modules = LINUX_MODULES.iter().flat_map(|module| ["--module", module]);
        Column { title: format!("Linux, {cpus} CPU"), options: options.chain(modules).map(str::to_owned).collect() }
    }

    fn run(&self, program: &Path, filter: Option<&str>) -> Results {
        let mut command = Command::new(build::quintet());
        command
            .args(["run", "--timeout", GUEST_LIMIT, "--copy"])
            .arg(format!("{}:{IN_GUEST}", program.display()))
            .args(&self.options)
            .args(["--", IN_GUEST, "--scale", GUEST_TIME_SCALE])
            .args(filter);
        let (results, end) = collect(command);
        if let Some(end) = end {
            println!("        {}: {end}", self.title);
        }
        results
    }
}

fn compare(filter: Option<&str>, columns: &[Column]) -> Result<Tally, Failure> {
    let program = build::for_guest("abi-tests")?;
    let mut on_host = Command::new(&program);
    on_host.args(filter);
    let (host, end) = collect(on_host);
    if let Some(end) = end {
        println!("        on this Linux: {end}");
    }
    let guests: Vec<Results> = columns.iter().map(|column| column.run(&program, filter)).collect();
    let expected = expected_failures()?;
    let mut tally = Tally::default();
    for (name, on_host) in &host {
        judge(name, on_host, columns, &guests, &expected, &mut tally);
    }
    if host.is_empty() && filter.is_none() {
        return Err("the ABI tests gave no result at all".into());
    }
    Ok(tally)
}

fn judge(
    name: &str,
    on_host: &Result<(), String>,
    columns: &[Column],
    guests: &[Results],
    expected: &BTreeSet<String>,
    tally: &mut Tally,
) {
    if let Err(why) = on_host {
        // A case that this Linux does not pass says nothing about Quintet.
        tally.failed += 1;
        println!("FAILED  {name} on this Linux: {why}");
        return;
    }
    let missing = Err("no result".to_owned());
    let mut bad = 0;
    for (column, results) in columns.iter().zip(guests) {
        match results.get(name).unwrap_or(&missing) {
            Ok(()) => tally.passed += 1,
            Err(_) if expected.contains(name) => {
                bad += 1;
                tally.skipped += 1;
            }
            Err(why) => {
                bad += 1;
                tally.failed += 1;
                println!("FAILED  {name}, {}: {why}", column.title);
            }
        }
    }
    if bad == 0 && expected.contains(name) {
        println!("note    {name} passes now: take it off tests/abi/expected_failures.txt");
    }
}

/// Runs the program and reads its results; says how it ended if not well.
fn collect(mut command: Command) -> (Results, Option<String>) {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return (Results::new(), Some(format!("cannot start: {error}"))),
    };
    let results = parse(&String::from_utf8_lossy(&output.stdout));
    // Status 1 says that cases failed, which the results show.
    let end = (!matches!(output.status.code(), Some(0 | 1)))
        .then(|| format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    (results, end)
}

fn parse(text: &str) -> Results {
    let line = |line: &str| {
        if let Some(name) = line.strip_prefix("ok ") {
            return Some((name.trim().to_owned(), Ok(())));
        }
        let (name, why) = line.strip_prefix("not ok ")?.split_once(": ")?;
        Some((name.to_owned(), Err(why.to_owned())))
    };
    text.lines().filter_map(line).collect()
}

fn expected_failures() -> Result<BTreeSet<String>, Failure> {
    let path = root().join("tests/abi/expected_failures.txt");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let results = parse("noise\nok a::b\nnot ok c::d: why: because\n");
        assert_eq!(results.len(), 2);
        assert_eq!(results["c::d"], Err("why: because".into()));
    }
}
