//! Runs items of a suite in guests of one kernel. A guest that hangs or panics costs the test that
//! ran; the next guest goes on behind it.

use super::suites::{Item, Suite};
use super::verdict::{Tests, Verdict, Verdicts, note};
use crate::Failure;
use crate::guest::Kernel;
use crate::workspace::{root, shown};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

const RUNNER: &str = "/conformance-runner";
/// How much longer than the slowest test a guest may be silent.
const GRACE: u64 = 90;
const CPUS: &str = "2";
/// Guests in a row that may end before they ran a test.
const VAIN_STARTS: u32 = 2;

/// What a suite's guests have in common.
pub(super) struct Machine<'a> {
    pub(super) suite: &'a Suite,
    /// The program that runs the items.
    pub(super) runner: &'a Path,
}

/// Told of each item that has come to its end.
pub(super) type Watcher<'a> = dyn FnMut(&str, &Tests) + 'a;

/// Runs the items, in as many guests as it takes. The logs' names have the attempt.
pub(super) fn run(
    machine: &Machine,
    kernel: Kernel,
    attempt: &str,
    items: &[Item],
    watcher: &mut Watcher,
) -> Result<Verdicts, Failure> {
    let mut state = State {
        title: format!("{} on {}", machine.suite.name, kernel.name()),
        items,
        verdicts: Verdicts::new(),
        finished: BTreeSet::new(),
        item: None,
        test: None,
        began: Instant::now(),
        vain: 0,
    };
    let folder = root().join("target/conformance").join(machine.suite.name);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut number = 0;
    while state.finished.len() < items.len() {
        number += 1;
        let log = folder.join(format!("{}-{attempt}-{number}.log", kernel.name().to_lowercase()));
        eprintln!("{}: guest {number}, log in {}", state.title, shown(&log));
        let end = one_guest(machine, kernel, &mut state, &log, watcher)?;
        if state.finished.len() < items.len() {
            state.lose(&end, watcher);
        }
        if state.vain >= VAIN_STARTS {
            return Err(format!("{}: the guest runs no test: {end}; see {}", state.title, shown(&log)));
        }
    }
    Ok(state.verdicts)
}

/// How far a run has come.
struct State<'a> {
    title: String,
    items: &'a [Item],
    verdicts: Verdicts,
    finished: BTreeSet<String>,
    /// The item and the test that run now.
    item: Option<String>,
    test: Option<String>,
    began: Instant,
    vain: u32,
}

impl State<'_> {
    /// What is left to run, for the runner.
    fn plan(&self) -> String {
        let mut plan = String::new();
        for item in self.items.iter().filter(|item| !self.finished.contains(&item.name)) {
            let folder = item.folder.as_deref().unwrap_or("-");
            let command = item.command.join("\t");
            plan += &format!("item\t{}\t{}\t{}\t{folder}\t{command}\n", item.name, item.kind, item.limit);
            for test in self.verdicts.get(&item.name).into_iter().flat_map(|tests| tests.keys()) {
                plan += &format!("done\t{test}\n");
            }
            let reports = item.kind == "report";
            item.only.iter().filter(|_| reports).for_each(|test| plan += &format!("only\t{test}\n"));
        }
        plan
    }

    /// Takes in a line of the runner's.
    fn hear(&mut self, line: &str, watcher: &mut Watcher) {
        let fields: Vec<&str> = line.split('\t').collect();
        let why = fields.get(2).copied().unwrap_or_default().to_owned();
        match fields.as_slice() {
            ["item", name] => {
                self.item = Some((*name).to_owned());
                self.verdicts.entry((*name).to_owned()).or_default();
                self.began = Instant::now();
            }
            ["start", test] => self.test = Some((*test).to_owned()),
            ["ok", test, ..] => self.note(test, Verdict::Passed),
            ["skip", test, ..] => self.note(test, Verdict::Skipped(why)),
            ["fail", test, ..] => self.note(test, Verdict::Failed(why)),
            ["end", _] => self.finish(watcher),
            _ => eprintln!("{}: the runner says: {line}", self.title),
        }
    }

    fn note(&mut self, test: &str, verdict: Verdict) {
        self.test = None;
        self.vain = 0;
        if let Some(tests) = self.item.as_ref().and_then(|item| self.verdicts.get_mut(item)) {
            note(tests, test, verdict);
        }
    }

    fn finish(&mut self, watcher: &mut Watcher) {
        let Some(item) = self.item.take() else { return };
        self.finished.insert(item.clone());
        let Some(tests) = self.verdicts.get(&item) else { return };
        let count = |which: fn(&Verdict) -> bool| tests.values().filter(|verdict| which(verdict)).count();
        eprintln!(
            "{}: {}/{} {item}: {} passed, {} failed, {} skipped, {:.0} s",
            self.title,
            self.finished.len(),
            self.items.len(),
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
            self.began.elapsed().as_secs_f64()
        );
        watcher(&item, tests);
    }

    /// A guest ended with items left: the test that ran has failed. Where none ran, the item has.
    fn lose(&mut self, end: &str, watcher: &mut Watcher) {
        let Some(item) = self.item.clone() else {
            self.vain += 1;
            return;
        };
        let test = self.test.take();
        eprintln!("{}: {end}, at {}", self.title, test.as_deref().unwrap_or(&item));
        let whole = test.is_none() || test.as_ref() == Some(&item);
        self.note(&test.unwrap_or(item), Verdict::Failed(end.to_owned()));
        if whole {
            self.finish(watcher);
        }
        self.item = None;
    }
}

/// Runs one guest to its end, and says how that came.
fn one_guest(
    machine: &Machine,
    kernel: Kernel,
    state: &mut State,
    log: &Path,
    watcher: &mut Watcher,
) -> Result<String, Failure> {
    let mut child = start(machine, kernel, state.plan(), log)?;
    let lines = read_lines(&mut child);
    let patience = state.items.iter().map(|item| u64::from(item.limit)).max().unwrap_or(0) + GRACE;
    let hung = loop {
        match lines.recv_timeout(Duration::from_secs(patience)) {
            Ok(line) => state.hear(&line, watcher),
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break false,
        }
    };
    if hung {
        // It has ended already at worst.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("quintet: {error}"))?;
    Ok(match status.code() {
        _ if hung => format!("the guest hung: no word for {patience} s"),
        Some(123) => format!("the kernel panicked: {}", panic_message(log)),
        _ => format!("the guest ended: {status}"),
    })
}

/// What the kernel said when it panicked, as quintet shows it.
fn panic_message(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| line.contains("panic"));
    line.unwrap_or("see the log").trim().to_owned()
}

fn start(machine: &Machine, kernel: Kernel, plan: String, log: &Path) -> Result<Child, Failure> {
    let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut command = crate::guest::run(kernel);
    command
        .args(["--root", machine.suite.root, "--cpus", CPUS, "--accel", "tcg"])
        .args(["--memory", &format!("{}M", machine.suite.memory)])
        .args(["-e", "CONFORMANCE_GUEST=1", "-e", "LC_ALL=C.UTF-8"]);
    let runner = (machine.runner.to_owned(), RUNNER);
    for (path, place) in copies(machine, runner)? {
        command.arg("--copy").arg(format!("{}:{place}", path.display()));
    }
    if let Some(disk) = empty_disk(machine.suite)? {
        command.arg("--disk").arg(format!("{}:snapshot", disk.display()));
    }
    let mut child = command
        .args(["--", RUNNER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A guest that does not come up does not read.
        thread::spawn(move || drop(stdin.write_all(plan.as_bytes())));
    }
    Ok(child)
}

/// The image of the suite's disk, which stays empty.
fn empty_disk(suite: &Suite) -> Result<Option<PathBuf>, Failure> {
    let Some(mib) = suite.disk else { return Ok(None) };
    let path = root().join("target/conformance").join(suite.name).join("disk.img");
    let made = File::create(&path).and_then(|file| file.set_len(mib << 20));
    made.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(path))
}

fn copies(machine: &Machine, runner: (PathBuf, &'static str)) -> Result<Vec<(PathBuf, &'static str)>, Failure> {
    let mut copies = (machine.suite.files)()?;
    copies.push(runner);
    Ok(copies)
}

fn read_lines(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // If nobody listens any more, nobody misses it.
                drop(sender.send(line));
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(items: &[Item]) -> State<'_> {
        State {
            title: "test".into(),
            items,
            verdicts: Verdicts::new(),
            finished: BTreeSet::new(),
            item: None,
            test: None,
            began: Instant::now(),
            vain: 0,
        }
    }

    #[test]
    fn a_lost_guest_costs_the_test_that_ran() {
        let items = [Item { kind: "report", ..Item::program("m", "p m") }, Item::program("n", "p n")];
        let mut state = state(&items);
        let mut ended = Vec::new();
        let mut watcher = |item: &str, _: &Tests| ended.push(item.to_owned());
        for line in ["item\tm", "start\ta", "ok\ta", "start\tb"] {
            state.hear(line, &mut watcher);
        }
        state.lose("panic", &mut watcher);
        assert_eq!(state.plan(), "item\tm\treport\t60\t-\tp\tm\ndone\ta\ndone\tb\nitem\tn\tstatus\t60\t-\tp\tn\n");
        for line in ["item\tm", "start\tc", "skip\tc\twhy", "end\tm", "item\tn", "start\tn"] {
            state.hear(line, &mut watcher);
        }
        state.lose("hang", &mut watcher);
        assert_eq!(ended, ["m", "n"]);
        assert_eq!(state.verdicts["m"]["b"], Verdict::Failed("panic".into()));
        assert_eq!(state.verdicts["m"]["c"], Verdict::Skipped("why".into()));
        assert_eq!(state.verdicts["n"]["n"], Verdict::Failed("hang".into()));
    }

    #[test]
    fn guests_that_run_nothing_are_counted() {
        let items = [Item::program("n", "p")];
        let mut state = state(&items);
        state.lose("no boot", &mut |_, _| {});
        assert_eq!(state.vain, 1);
    }
}
