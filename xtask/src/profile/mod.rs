//! `cargo xtask profile -- CMD`: where the kernel's time goes while a command runs.
//!
//! QEMU's debugger interface ([`gdb`]) stops the guest every few milliseconds; while it is stopped, its
//! own clock stands still. [`stacks`] follows the frame pointers and names the functions, [`flame`]
//! draws what was seen. The time before the command starts is not sampled.
//!
//! Under TCG the guest stops at the end of a block of instructions: a sample names the right function,
//! not the right instruction.

mod flame;
mod gdb;
mod stacks;

use crate::workspace::{root, shown};
use crate::{Failure, Outcome, build, setup};
use gdb::Gdb;
use stacks::{Names, Stacks};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(2);
/// Lines of the list of functions.
const LISTED: usize = 25;

struct Options {
    svg: PathBuf,
    folded: PathBuf,
    /// For `quintet run`: options and, behind `--`, the command.
    run: Vec<String>,
}

/// Runs the command and shows what the kernel did.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    setup::ensure(setup::RUN)?;
    build::all()?;
    let kernel = root().join("target/kernel").join(build::KERNEL_TARGET).join("release/kernel");
    let names = Names::open(&kernel)?;
    let port = free_port().map_err(|error| format!("no free port: {error}"))?;
    let times = root().join("target/profile.times");
    // What an earlier run wrote must not count.
    let _ = std::fs::remove_file(&times);
    let mut child = Command::new(build::quintet())
        .args(["run", "--accel", "tcg", &format!("--gdb={port}"), "--times"])
        .arg(&times)
        .args(&options.run)
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let mut stacks = Stacks::default();
    let sampled = sample(port, &mut child, &times, &names, &mut stacks);
    let status = child.wait().map_err(|error| format!("quintet: {error}"))?;
    if let Err(error) = sampled {
        // That the connection ends with the guest is how it should be.
        if stacks.total() == 0 {
            return Err(format!("no sample: {error} ({status})"));
        }
    }
    write(&options.folded, &stacks.folded())?;
    write(&options.svg, &flame::svg(&stacks))?;
    eprint!("{}", stacks.list(LISTED));
    eprintln!("{} samples; {} and {}", stacks.total(), shown(&options.svg), shown(&options.folded));
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Samples until the guest ends, which shows as an error of the connection.
fn sample(port: u16, child: &mut Child, times: &Path, names: &Names, stacks: &mut Stacks) -> io::Result<()> {
    let mut gdb = Gdb::connect(port)?;
    let cpus = gdb.cpus()?;
    gdb.go_on()?;
    while child.try_wait()?.is_none() {
        std::thread::sleep(INTERVAL);
        // Before quintet writes this the guest still starts.
        if !times.exists() {
            continue;
        }
        gdb.stop()?;
        for cpu in &cpus {
            let registers = gdb.registers(cpu)?;
            let words = if registers.user { Vec::new() } else { gdb.stack(registers.rsp)? };
            stacks.add(names, &registers, &words);
        }
        gdb.go_on()?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options {
        svg: root().join("target/profile.svg"),
        folded: root().join("target/profile.folded"),
        run: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--svg" => options.svg = value()?.into(),
            "--folded" => options.folded = value()?.into(),
            "--" => {
                options.run.push("--".into());
                options.run.extend(words.by_ref().cloned());
            }
            option => {
                options.run.extend([option.to_owned()]);
            }
        }
    }
    if options.run.iter().skip_while(|word| *word != "--").nth(1).is_none() {
        return Err("what shall run? cargo xtask profile [OPTIONS of quintet run] -- CMD ARGS...".into());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_to_whom_they_belong() {
        let parsed = |line: &str| parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let options = parsed("--svg x --cpus 2 -- ls --svg").expect("good options");
        assert_eq!(options.svg, Path::new("x"));
        assert_eq!(options.run, ["--cpus", "2", "--", "ls", "--svg"]);
        for bad in ["ls", "--svg", "--", "--cpus 2"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
