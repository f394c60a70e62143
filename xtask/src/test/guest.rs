//! Programs in the guest whose streams and status have to be exactly right.

use super::{Selection, Tally};
use crate::build;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

/// A program, how to run it, and what has to come out.
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    command: &'static [&'static str],
    stdin: &'static str,
    stdout: &'static str,
    stderr: &'static str,
    status: i32,
}

const PLAIN: Case = Case { name: "", options: &[], command: &[], stdin: "", stdout: "", stderr: "", status: 0 };

const CASES: &[Case] = &[
    Case {
        name: "streams and status",
        command: &["sh", "-c", "echo out; echo err >&2; exit 7"],
        stdout: "out\n",
        stderr: "err\n",
        status: 7,
        ..PLAIN
    },
    Case { name: "killed by a signal", command: &["sh", "-c", "kill -SEGV $$"], status: 139, ..PLAIN },
    Case {
        name: "standard input to its end",
        command: &["sh", "-c", "cat; echo end"],
        stdin: "a\nb",
        stdout: "a\nbend\n",
        ..PLAIN
    },
    Case {
        name: "no such command",
        command: &["no-such-command"],
        stderr: "quintet: no-such-command: not found in the guest's PATH\n",
        status: 127,
        ..PLAIN
    },
    Case {
        name: "not executable",
        command: &["/etc/passwd"],
        stderr: "quintet: /etc/passwd: cannot execute: Permission denied (os error 13)\n",
        status: 126,
        ..PLAIN
    },
    Case {
        name: "user, folder and environment",
        options: &["-u", "nobody", "-w", "/var/tmp", "-e", "A=b"],
        command: &["sh", "-c", "id -u; pwd; echo $A $HOME"],
        stdout: "65534\n/var/tmp\nb /nonexistent\n",
        ..PLAIN
    },
    Case {
        name: "a large output arrives whole",
        command: &[
            "sh",
            "-c",
            "dd if=/dev/zero bs=64k count=256 2>/dev/null | tr '\\0' x | md5sum; head -c 3000000 /dev/zero | wc -c",
        ],
        stdout: "d4760a6c6500b8c7fbb09e4c65bc558a  -\n3000000\n",
        ..PLAIN
    },
    Case {
        name: "pipelines and subshells",
        command: &[
            "sh",
            "-c",
            "seq 100 | sort -rn | head -1; (exit 3); echo $?; for i in 1 2 3; do (exit $i) & done; wait; echo ok",
        ],
        stdout: "100\n3\nok\n",
        ..PLAIN
    },
    Case { name: "CPUs are counted: 4", options: &["--cpus", "4"], command: &["nproc"], stdout: "4\n", ..PLAIN },
    Case {
        name: "CPUs are counted: 2, q35",
        options: &["--cpus", "2", "--machine", "q35"],
        command: &["nproc"],
        stdout: "2\n",
        ..PLAIN
    },
    Case {
        name: "q35 without ACPI",
        options: &["--machine", "q35", "--no-acpi"],
        command: &["echo", "up"],
        stdout: "up\n",
        ..PLAIN
    },
    Case { name: "microvm without ACPI", options: &["--no-acpi"], command: &["echo", "up"], stdout: "up\n", ..PLAIN },
    Case { name: "64 MiB of memory", options: &["--memory", "64M"], command: &["echo", "up"], stdout: "up\n", ..PLAIN },
    Case {
        name: "a time limit",
        options: &["--timeout", "2"],
        command: &["sleep", "100"],
        stderr: "quintet: the time allowed by --timeout is over\n",
        status: 124,
        ..PLAIN
    },
];

const ON_DEBIAN: &[&str] = &["--root", "debian", "--cpus", "2"];

/// Cases on the Debian root, which takes a minute to make the first time.
const DEBIAN: &[Case] = &[
    Case { name: "python", command: &["python3", "-c", "print(6*7)"], stdout: "42\n", ..PLAIN },
    Case { name: "perl", command: &["perl", "-e", "print 6*7, qq(\\n)"], stdout: "42\n", ..PLAIN },
    Case {
        name: "gcc",
        command: &["bash", "-c", "cd /tmp && echo 'int main(void){return 42;}' > a.c && gcc a.c && ./a.out"],
        status: 42,
        ..PLAIN
    },
    Case {
        name: "two hundred processes",
        command: &["bash", "-c", "for i in $(seq 200); do (exit $((i%7))) & done; wait; echo ok"],
        stdout: "ok\n",
        ..PLAIN
    },
];

const TERMINAL: &str = "a terminal of its own";

/// script(1) gives quintet a terminal here, so the program gets one there.
fn on_a_terminal() -> Result<(), String> {
    let program = "tty; test -t 0 -a -t 1 -a -t 2 && echo three; exit 3";
    let line = format!("{} run --timeout 90 -- sh -c '{program}'", build::quintet().display());
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run script: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(3) && stdout.contains("/dev/pts/0\r\nthree\r\n") {
        return Ok(());
    }
    Err(format!("{}; output {stdout:?}", output.status))
}

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut tally = Tally::default();
    first_run(&[])?;
    for case in CASES {
        check(case, &[], selection, &mut tally);
    }
    if selection.takes(TERMINAL) {
        tally.note(TERMINAL, &on_a_terminal());
    }
    if selection.quick {
        tally.skipped += DEBIAN.len();
        return Ok(tally);
    }
    first_run(ON_DEBIAN)?;
    for case in DEBIAN {
        check(case, ON_DEBIAN, selection, &mut tally);
    }
    Ok(tally)
}

/// Lets quintet make the root and find out how guests run here, and say so, before streams count.
fn first_run(options: &[&str]) -> Result<(), String> {
    let mut command = Command::new(build::quintet());
    command.arg("run").args(options).args(["--", "true"]).stdin(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`quintet run {} -- true`: {status}", options.join(" "))),
        Err(error) => Err(format!("cannot start quintet: {error}")),
    }
}

fn check(case: &Case, options: &[&str], selection: &Selection, tally: &mut Tally) {
    if !selection.takes(case.name) {
        return;
    }
    // The last --timeout counts, so a case may have its own.
    let mut command = Command::new(build::quintet());
    command.arg("run").args(options);
    if !case.options.contains(&"--timeout") {
        command.args(["--timeout", "90"]);
    }
    command.args(case.options).arg("--").args(case.command);
    tally.note(case.name, &judge(case, command));
}

fn judge(case: &Case, mut command: Command) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let stdin = child.stdin.take();
    let input = case.stdin;
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().map_err(|error| format!("quintet: {error}"))?;
    // A program may end without reading its input.
    let _ = writer.join();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(case.status) {
        return Err(format!("{} instead of {}; stderr:\n{stderr}", output.status, case.status));
    }
    for (name, got, expected) in [("stdout", stdout, case.stdout), ("stderr", stderr, case.stderr)] {
        if got != expected {
            return Err(format!("{name} is {got:?} instead of {expected:?}"));
        }
    }
    Ok(())
}
