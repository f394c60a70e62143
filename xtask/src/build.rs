//! Builds the three programs of a run: the kernel, the guest's PID 1 and `quintet`.

use crate::workspace::{cargo, root};
use crate::{Failure, toolchain};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A build that takes longer says that it is at work.
const SILENCE: Duration = Duration::from_millis(1500);
/// Programs for the guest carry their C library with them: the root may have another, or none.
const STATIC: &str = "-Ctarget-feature=+crt-static";
pub(crate) const HOST: &str = "x86_64-unknown-linux-gnu";
pub(crate) const KERNEL_TARGET: &str = "x86_64-unknown-none";

/// Builds everything, side by side.
pub(crate) fn all() -> Result<(), Failure> {
    build(vec![("the kernel", kernel()?), ("guest-init", guest_program("guest-init")), ("quintet", cli())])
}

/// Builds what another kernel needs.
pub(crate) fn without_kernel() -> Result<(), Failure> {
    build(vec![("guest-init", guest_program("guest-init")), ("quintet", cli())])
}

/// Builds a static program for the guest and returns where it is.
pub(crate) fn for_guest(package: &'static str) -> Result<PathBuf, Failure> {
    build(vec![(package, guest_program(package))])?;
    Ok(root().join(format!("target/guest/{HOST}/release")).join(package))
}

/// Builds the kernel that checks the order of its locks, and returns where it is.
pub(crate) fn lockdep_kernel() -> Result<PathBuf, Failure> {
    const FOLDER: &str = "target/lockdep";
    let mut command = kernel_in(FOLDER)?;
    // It is quick to build, not fast.
    command.args(["--features", "lockdep"]).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    build(vec![("the kernel with lock checking", command)])?;
    Ok(root().join(FOLDER).join(KERNEL_TARGET).join("release/kernel"))
}

/// The `quintet` program.
pub(crate) fn quintet() -> PathBuf {
    root().join("target/release/quintet")
}

fn kernel() -> Result<Command, Failure> {
    kernel_in("target/kernel")
}

fn kernel_in(folder: &str) -> Result<Command, Failure> {
    let mut command = toolchain::kernel_cargo()?;
    command.args(["build", "--quiet", "--release", "--package", "kernel"]).args([
        "--target",
        KERNEL_TARGET,
        "--target-dir",
        folder,
    ]);
    Ok(command)
}

fn guest_program(package: &str) -> Command {
    let mut command = cargo();
    command
        .args(["build", "--quiet", "--release", "--package", package])
        .args(["--target", HOST, "--target-dir", "target/guest"])
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", STATIC);
    command
}

fn cli() -> Command {
    let mut command = cargo();
    command.args(["build", "--quiet", "--release", "--package", "quintet"]);
    command
}

/// Runs the builds side by side; shows what they say only if one fails, because standard error
/// belongs to the program that is about to run. `cargo xtask lint` shows the warnings.
fn build(builds: Vec<(&'static str, Command)>) -> Result<(), Failure> {
    let (sender, results) = channel();
    let mut pending: Vec<&str> = Vec::new();
    for (name, mut command) in builds {
        pending.push(name);
        let sender = sender.clone();
        thread::spawn(move || sender.send((name, command.output())));
    }
    let mut failures = Vec::new();
    let mut told = false;
    while !pending.is_empty() {
        let (name, output) = match results.recv_timeout(SILENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                if !told {
                    eprintln!("xtask: building {}", pending.join(", "));
                    told = true;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Err("a build vanished".into()),
        };
        pending.retain(|other| *other != name);
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                failures.push(format!("{}\nbuilding {name} failed", said.trim()));
            }
            Err(error) => failures.push(format!("cannot run cargo for {name}: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}
