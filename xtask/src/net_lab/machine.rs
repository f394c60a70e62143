//! A guest on the lab's link: a shell in it does what it is told, one command after the other.

use crate::Failure;
use crate::guest::{self, Kernel};
use crate::workspace::{root, shown};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a guest may take to come up.
const START: Duration = Duration::from_secs(120);
/// What a command's end looks like in the shell's output.
const END: &str = "@@end ";

/// How a machine is made.
pub(super) struct Plan<'a> {
    pub(super) kernel: Kernel,
    /// Its last number on the link: 10.5.0.N and fd05::N.
    pub(super) number: u8,
    pub(super) root: &'a str,
    /// Further options of `quintet run`.
    pub(super) options: &'a [&'a str],
    /// Files for the guest, and where they go.
    pub(super) files: &'a [(PathBuf, String)],
    /// Debian's modules that a Linux peer needs.
    pub(super) modules: &'a [&'a str],
}

/// A running guest. It ends when this is dropped.
pub(super) struct Machine {
    pub(super) name: String,
    child: Child,
    orders: ChildStdin,
    said: Receiver<String>,
    log: PathBuf,
}

impl Machine {
    /// Starts it; [`Machine::ready`] waits for it.
    pub(super) fn start(plan: &Plan, link: &str) -> Result<Machine, Failure> {
        let name = format!("{}-{}", plan.kernel.name().to_lowercase(), plan.number);
        let folder = root().join("target/net-lab");
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let log = folder.join(format!("{name}.log"));
        let errors = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = guest::run(plan.kernel);
        command
            .args(["--root", plan.root, "--hostname", &name, "--kernel-log"])
            .args(["--network", &format!("socket={link},10.5.0.{}/24", plan.number)])
            .args(plan.options);
        for (file, place) in plan.files {
            command.arg("--copy").arg(format!("{}:{place}", file.display()));
        }
        if plan.kernel == Kernel::Linux {
            plan.modules.iter().for_each(|module| {
                command.args(["--module", module]);
            });
        }
        let mut child = command
            .args(["--", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cannot start quintet: {error}"))?;
        let orders = child.stdin.take().ok_or("the guest has no input")?;
        let output = child.stdout.take().ok_or("the guest has no output")?;
        let (sender, said) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut machine = Machine { name, child, orders, said, log };
        let set_up = format!("ip -6 addr add fd05::{}/64 dev eth0", plan.number);
        machine.order(&set_up)?;
        Ok(machine)
    }

    /// Waits until the guest is there with its addresses.
    pub(super) fn ready(&mut self) -> Result<(), Failure> {
        self.answer(START).and_then(|answer| answer.good(self, "setting up"))?;
        // An IPv6 address that is still being probed cannot be used.
        self.ask("while ip -6 addr show dev eth0 | grep -q tentative; do sleep 0.2; done", 20).map(drop)
    }

    fn order(&mut self, command: &str) -> Result<(), Failure> {
        let wrapped = format!("( {command}\n) < /dev/null 2>&1; echo \"{END}$?\"\n");
        let sent = self.orders.write_all(wrapped.as_bytes()).and_then(|()| self.orders.flush());
        sent.map_err(|error| format!("{} is gone: {error}; see {}", self.name, shown(&self.log)))
    }

    fn answer(&mut self, patience: Duration) -> Result<Answer, Failure> {
        let end = Instant::now() + patience;
        let mut text = String::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.said.recv_timeout(left) else {
                let why =
                    format!("{} does not answer in {} s; see {}", self.name, patience.as_secs(), shown(&self.log));
                return Err(format!("{why}; so far:\n{text}"));
            };
            if let Some((before, status)) = line.split_once(END) {
                text += before;
                return Ok(Answer { text, status: status.parse().unwrap_or(-1) });
            }
            text += &line;
            text.push('\n');
        }
    }

    /// Has a command done that must succeed within so many seconds, and returns what it says.
    pub(super) fn ask(&mut self, command: &str, seconds: u64) -> Result<String, Failure> {
        self.order(command)?;
        self.answer(Duration::from_secs(seconds))?.good(self, command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said, and its status.
struct Answer {
    text: String,
    status: i32,
}

impl Answer {
    fn good(self, machine: &Machine, command: &str) -> Result<String, Failure> {
        if self.status == 0 {
            return Ok(self.text);
        }
        Err(format!("{}: `{command}` ended with {}:\n{}", machine.name, self.status, self.text))
    }
}
