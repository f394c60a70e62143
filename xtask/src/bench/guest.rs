//! One guest that measures: how it is started, and what it says.

use super::Options;
use super::stats::Unit;
use crate::{Failure, build};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const IN_GUEST: &str = "/bench-micro";
/// Seconds after which a guest hangs.
const LIMIT: &str = "280";
const LIMIT_ICOUNT: &str = "900";
/// Neither is what `quintet` takes by default for both kernels, and both have to have the same.
const MACHINE: &[&str] = &["--machine", "q35", "--memory", "1G"];
/// Two milliseconds of the start do not show.
const GLANCE: Duration = Duration::from_millis(2);

/// Which kernel a guest runs.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Linux,
    Quintet,
}

impl Kernel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kernel::Linux => "Linux",
            Kernel::Quintet => "Quintet",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Kernel::Linux => &["--kernel", "linux", "--append", "mitigations=off"],
            Kernel::Quintet => &[],
        }
    }
}

/// A row's name, and its value if it has one.
pub(super) type Measured = (String, Option<(f64, Unit)>);

/// What one guest gave.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) results: Vec<Measured>,
    /// What the kernel calls itself.
    pub(super) release: Option<String>,
    /// Milliseconds from QEMU's start to the program's first output.
    pub(super) start: Option<f64>,
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
pub(super) fn run(kernel: Kernel, program: &Path, options: &Options, log: &Path) -> Result<Sample, Failure> {
    let log = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let began = Instant::now();
    let mut child = command(kernel, program, options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let machine = watch_for_machine(child.id());
    let mut sample = Sample::default();
    let text = listen(&mut child, |first| {
        let started = machine.try_iter().last();
        sample.start = started.map(|at| first.duration_since(at).as_secs_f64() * 1000.0);
    });
    let status = child.wait().map_err(|error| format!("quintet: {error}"))?;
    sample.results = parse(&text);
    sample.release = text.lines().find_map(|line| line.strip_prefix("# ")).map(str::to_owned);
    sample.took = began.elapsed();
    sample.end = (!status.success()).then(|| format!("{status}"));
    Ok(sample)
}

fn command(kernel: Kernel, program: &Path, options: &Options) -> Command {
    let mut command = Command::new(build::quintet());
    let limit = if options.icount { LIMIT_ICOUNT } else { LIMIT };
    command
        .args(["run", "--timeout", limit, "--cpus", &options.cpus, "--accel", &options.accel])
        .args(MACHINE)
        .arg("--copy")
        .arg(format!("{}:{IN_GUEST}", program.display()))
        .args(kernel.options());
    if options.icount {
        command.args(["--qemu-arg=-icount", "--qemu-arg=shift=0,sleep=off"]);
    }
    command.args(["--", IN_GUEST]);
    if !options.takes("micro") {
        // No row has such a name.
        command.arg("no row");
    }
    command
}

/// Reads the program's output to its end, a dot a line for who waits, and tells when the first came.
fn listen(child: &mut Child, mut first: impl FnMut(Instant)) -> String {
    let mut text = String::new();
    let Some(stdout) = child.stdout.take() else { return text };
    // What cannot be read is the guest's end as well.
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if text.is_empty() {
            first(Instant::now());
        }
        eprint!(".");
        text += &line;
        text.push('\n');
    }
    text
}

/// Says when QEMU was first seen below a process, until that ends.
fn watch_for_machine(parent: u32) -> Receiver<Instant> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        while Path::new(&format!("/proc/{parent}/task")).exists() {
            if runs_machine(parent) {
                // If nobody listens any more, nobody misses it.
                let _ = sender.send(Instant::now());
                return;
            }
            thread::sleep(GLANCE);
        }
    });
    receiver
}

fn runs_machine(parent: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .any(|name| name.starts_with("qemu"))
}

/// Reads lines `name<TAB>value<TAB>unit`; whatever else there is says nothing.
pub(super) fn parse(text: &str) -> Vec<Measured> {
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
}
