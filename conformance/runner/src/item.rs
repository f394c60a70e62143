//! One item's life: started, listened to, ended, and started again if tests are left.

use crate::plan::{Item, Kind};
use crate::say;
use crate::tap::{self, Harness};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const WORK: &str = "/tmp/conformance";
/// Files in which a reporting program finds the tests to leave out, and those to run.
const DONE: &str = "/tmp/conformance-done";
const ONLY: &str = "/tmp/conformance-only";
/// How long the last lines of a program that has ended may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What happens to a running item.
enum Event {
    Line(String),
    LinesEnded,
    Ended(io::Result<ExitStatus>),
}

/// How one start of an item's program ended.
enum End {
    /// By itself.
    Status(ExitStatus),
    /// It took too long.
    Late,
    /// It could not be started or waited for.
    Lost(String),
}

/// Runs an item to its end, whatever that takes, and reports its tests.
pub(crate) fn run(item: &mut Item) {
    say(&["item", &item.name]);
    eprintln!("=== {}", item.name);
    match &item.kind {
        Kind::Status(skipping) | Kind::Tap(skipping) => {
            let skipping = skipping.clone();
            say(&["start", &item.name]);
            let (mut current, mut ended) = (None, Vec::new());
            let end = once(item, &mut current, &mut ended);
            if let Some(test) = current {
                say(&["fail", &test, &explain(&end, item.limit)]);
            }
            judge(item, end, &skipping, ended.first().map(String::as_str));
        }
        Kind::Report => while again(item) {},
    }
    say(&["end", &item.name]);
}

/// The result of an item that goes by its status, unless it said something of a test that failed.
fn judge(item: &Item, end: End, skipping: &[i32], complaint: Option<&str>) {
    match end {
        End::Status(status) if status.success() && complaint.is_some() => {
            say(&["fail", &item.name, complaint.unwrap_or_default()]);
        }
        End::Status(status) if status.success() => say(&["ok", &item.name]),
        End::Status(status) if status.code().is_some_and(|code| skipping.contains(&code)) => {
            say(&["skip", &item.name, &status.to_string()]);
        }
        end => say(&["fail", &item.name, &explain(&end, item.limit)]),
    }
}

/// Starts a reporting program once; true if it has to be started again, for the tests after one
/// that did not come to its end.
fn again(item: &mut Item) -> bool {
    let (mut current, mut ended) = (None, Vec::new());
    let end = once(item, &mut current, &mut ended);
    item.done.append(&mut ended);
    let fine = matches!(&end, End::Status(status) if status.success());
    match current {
        Some(test) => {
            say(&["fail", &test, &explain(&end, item.limit)]);
            item.done.push(test);
            true
        }
        None => {
            if !fine {
                say(&["fail", &item.name, &explain(&end, item.limit)]);
            }
            false
        }
    }
}

fn explain(end: &End, limit: Duration) -> String {
    match end {
        End::Status(status) => match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => status.to_string(),
        },
        End::Late => format!("took more than {} s", limit.as_secs()),
        End::Lost(why) => why.clone(),
    }
}

/// Starts the program, passes on its reports, and ends what it leaves behind. `current` is the test
/// that runs; `ended` gets those that have come to their ends, of a program that speaks TAP without
/// names the lines that tell of failures.
fn once(item: &Item, current: &mut Option<String>, ended: &mut Vec<String>) -> End {
    let (events, pid) = match start(item) {
        Ok(started) => started,
        Err(error) => return End::Lost(format!("cannot start {}: {error}", item.command[0])),
    };
    let end = listen(item, &events, current, ended);
    if matches!(end, End::Late) {
        show_waiting(pid);
    }
    end_all();
    drop(events);
    // A leftover folder that cannot be removed costs memory only.
    let _ = fs::remove_dir_all(WORK);
    end
}

/// Time counts from the last report of a test; noise does not prolong it.
fn listen(item: &Item, events: &Receiver<Event>, current: &mut Option<String>, ended: &mut Vec<String>) -> End {
    let (mut status, mut lines_ended) = (None, false);
    let mut harness = Harness::default();
    let mut deadline = Instant::now() + item.limit;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Line(line)) => {
                let news = match item.kind {
                    Kind::Report => report(&line, current, ended),
                    _ => overhear(&line, item, &mut harness, current, ended),
                };
                if news && status.is_none() {
                    deadline = Instant::now() + item.limit;
                }
            }
            Ok(Event::LinesEnded) => lines_ended = true,
            Ok(Event::Ended(Ok(exit))) => {
                status = Some(exit);
                deadline = Instant::now() + LAST_LINES;
            }
            Ok(Event::Ended(Err(error))) => return End::Lost(error.to_string()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return status.map_or(End::Late, End::Status);
            }
        }
        if let Some(status) = status.filter(|_| lines_ended) {
            return End::Status(status);
        }
    }
}

/// A line of a program that does not report to us; true if it tells of a test all the same.
fn overhear(
    line: &str,
    item: &Item,
    harness: &mut Harness,
    current: &mut Option<String>,
    ended: &mut Vec<String>,
) -> bool {
    eprintln!("{line}");
    let Some(said) = harness.hear(line) else {
        if tap::is_failure(line) {
            ended.push(line.to_owned());
        }
        return false;
    };
    *current = said.current(&item.name);
    said.pass_on(&item.name);
    true
}

/// Passes on a line about a test; anything else is noise, and false.
fn report(line: &str, current: &mut Option<String>, ended: &mut Vec<String>) -> bool {
    let fields: Vec<&str> = line.split('\t').collect();
    match fields.as_slice() {
        ["@start", test] => {
            *current = Some((*test).to_owned());
            say(&["start", test]);
        }
        [verdict @ ("@ok" | "@skip" | "@fail"), test, reason @ ..] => {
            *current = None;
            ended.push((*test).to_owned());
            say(&[&verdict[1..], test, &reason.join(" ")]);
        }
        _ => {
            eprintln!("{line}");
            return false;
        }
    }
    true
}

fn start(item: &Item) -> io::Result<(Receiver<Event>, u32)> {
    fs::create_dir_all(WORK)?;
    fs::write(DONE, item.done.join("\n"))?;
    fs::write(ONLY, item.only.join("\n"))?;
    let reports = !matches!(item.kind, Kind::Status(_));
    let mut command = Command::new(&item.command[0]);
    command
        .args(&item.command[1..])
        .current_dir(item.folder.as_deref().unwrap_or(WORK))
        .env("CONFORMANCE_DONE", DONE)
        .env("CONFORMANCE_ONLY", ONLY)
        .stdin(Stdio::null())
        // Tests kill their process group.
        .process_group(0);
    command.stdout(if reports { Stdio::piped() } else { Stdio::from(io::stderr()) });
    let mut child = command.spawn()?;
    let pid = child.id();
    let (sender, events) = channel();
    match child.stdout.take() {
        Some(stdout) => read_lines(stdout, sender.clone()),
        // If nobody listens any more, nobody misses it: here and below.
        None => drop(sender.send(Event::LinesEnded)),
    }
    wait_for(child, sender);
    Ok((events, pid))
}

fn read_lines(stdout: ChildStdout, events: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            drop(events.send(Event::Line(line)));
        }
        drop(events.send(Event::LinesEnded));
    });
}

fn wait_for(mut child: Child, events: Sender<Event>) {
    thread::spawn(move || drop(events.send(Event::Ended(child.wait()))));
}

/// Says in the log where the threads of the item's first process wait.
fn show_waiting(pid: u32) {
    let folder = format!("/proc/{pid}/task");
    for thread in fs::read_dir(Path::new(&folder)).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        eprintln!("late: thread {:?} {} syscall {}", thread.file_name(), read("stat").trim(), read("syscall").trim());
    }
}

/// Ends all other processes: in this guest there are none but tests and PID 1, which is exempt.
fn end_all() {
    // ESRCH: there is none left.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}
