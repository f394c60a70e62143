//! One guest that measures: how it is started, and what it says.

use super::host;
use super::options::Options;
use super::side::Side;
use super::stats::Unit;
use super::suites::Guest;
use crate::Failure;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// With `--icount`, whatever has to wait takes longer here.
const ICOUNT_FACTOR: u32 = 3;

/// A row's name, and its value if it has one.
pub(super) type RowValue = (String, Option<(f64, Unit)>);

/// What one guest gave.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) results: Vec<RowValue>,
    /// What the kernel calls itself.
    pub(super) release: Option<String>,
    pub(super) took: Duration,
    /// How it ended, if not well.
    pub(super) end: Option<String>,
}

impl Sample {
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        let (_, result) = self.results.iter().find(|(other, _)| other == name)?;
        result.map(|(value, _)| value)
    }

    /// A line about it for who waits.
    pub(super) fn summary(&self, log: &Path) -> String {
        let there = self.results.iter().filter(|(_, result)| result.is_some()).count();
        let mut text = format!("{there} rows in {:.0} s", self.took.as_secs_f64());
        if self.end.is_some() || there < self.results.len() {
            let end = self.end.as_deref().unwrap_or("some rows failed");
            text += &format!("; {end}: see {}", crate::workspace::shown(log));
        }
        text
    }
}

/// Starts a guest and reads what it measures; its standard error goes to the log.
pub(super) fn run(
    side: &Side,
    guest: &Guest,
    files: &[(PathBuf, &str)],
    options: &Options,
    log: &Path,
) -> Result<Sample, Failure> {
    let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let times = log.with_extension("times");
    // What an earlier guest wrote must not count.
    let _ = fs::remove_file(&times);
    let began = Instant::now();
    let mut child = command(side, guest, files, options, &times)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let mut first = None;
    let text = listen(&mut child, || first = Some(SystemTime::now()));
    let status = child.wait().map_err(|error| format!("quintet: {error}"))?;
    let mut results = parse(&text);
    if let Some(name) = guest.first_output.filter(|_| !options.icount) {
        results.splice(0..0, start(&times, first, name));
    }
    Ok(Sample {
        results,
        release: text.lines().find_map(|line| line.strip_prefix("# ")).map(str::to_owned),
        took: began.elapsed(),
        end: (!status.success()).then(|| format!("{status}")),
    })
}

fn command(
    side: &Side,
    guest: &Guest,
    files: &[(PathBuf, &str)],
    options: &Options,
    times: &Path,
) -> Result<Command, Failure> {
    let mut command = side.command();
    let limit = if options.icount { guest.limit * ICOUNT_FACTOR } else { guest.limit };
    command
        .args(["--timeout", &limit.to_string(), "--cpus", &options.cpus, "--accel", &options.accel])
        .args(["--root", guest.root, "--memory", guest.memory])
        .arg("--times")
        .arg(times);
    for (file, place) in files {
        command.arg("--copy").arg(format!("{}:{place}", file.display()));
    }
    if options.icount {
        command.args(["--qemu-arg=-icount", "--qemu-arg=shift=0,sleep=off"]);
    }
    if guest.equipped {
        let disk = times.with_extension("disk");
        host::make_disk(&disk)?;
        command.args(["--network", "user"]).arg("--disk").arg(disk);
    }
    command.arg("--").args(guest.command);
    Ok(command)
}

/// Reads the program's output to its end, a dot a line for who waits, and tells when the first came.
fn listen(child: &mut Child, first: impl FnOnce()) -> String {
    let mut text = String::new();
    let Some(stdout) = child.stdout.take() else { return text };
    let mut first = Some(first);
    // What cannot be read is the guest's end as well.
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(first) = first.take() {
            first();
        }
        eprint!(".");
        text += &line;
        text.push('\n');
    }
    text
}

/// The rows about a guest's start: milliseconds from QEMU's start to the program's first output, which is called `name`, and (in a
/// guest that only starts) to PID 1's first message, and the kernel's size.
fn start(times: &Path, first: Option<SystemTime>, name: &str) -> Vec<RowValue> {
    let text = fs::read_to_string(times).unwrap_or_default();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    let first = first.and_then(|first| first.duration_since(UNIX_EPOCH).ok());
    let output = first.zip(field("started")).map(|(first, started)| (first.as_secs_f64() - started) * 1000.0);
    let row = |name: &str, value: Option<f64>, unit| (name.to_owned(), value.map(|value| (value, unit)));
    vec![
        row("PID 1 ready", field("ready"), Unit::Milliseconds),
        row(name, output, Unit::Milliseconds),
        row("kernel image", field("image").map(|bytes| bytes / 1e6), Unit::Size),
    ]
}

/// Reads lines `name<TAB>value<TAB>unit`; whatever else there is says nothing.
pub(super) fn parse(text: &str) -> Vec<RowValue> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (name, value, unit) = (fields.next()?, fields.next()?, fields.next()?);
        let result = match (value.parse::<f64>(), Unit::named(unit)) {
            (Ok(value), Some(unit)) if value.is_finite() && value > 0.0 => Some((value, unit)),
            _ => None,
        };
        Some((name.to_owned(), result))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let results = parse("# 6.1\nnull call\t10.5\tns\nnoise\npipe\t9\tMB/s\nstat\t-\tsignal 6\nzero\t0.0\tns\n");
        let expected = [
            ("null call", Some((10.5, Unit::Nanoseconds))),
            ("pipe", Some((9.0, Unit::Megabytes))),
            ("stat", None),
            ("zero", None),
        ];
        assert_eq!(results, expected.map(|(name, result)| (name.to_owned(), result)));
    }

    #[test]
    fn start_is_counted_from_the_machine() {
        let file = std::env::temp_dir().join(format!("times-{}", std::process::id()));
        fs::write(&file, "started 100.5\nready 250\nimage 2000000\n").expect("a file");
        let rows = start(&file, Some(UNIX_EPOCH + Duration::from_millis(101_000)), "up");
        fs::remove_file(&file).expect("the file");
        let expected = [
            ("PID 1 ready", Some((250.0, Unit::Milliseconds))),
            ("up", Some((500.0, Unit::Milliseconds))),
            ("kernel image", Some((2.0, Unit::Size))),
        ];
        assert_eq!(rows, expected.map(|(name, result)| (name.to_owned(), result)));
    }
}
