//! `cargo xtask lint`: what a reviewer should not have to say twice.

mod layers;
mod lengths;
mod unsafety;

use crate::workspace::{cargo, crates};
use crate::{Failure, Outcome, build, setup, toolchain};
use std::process::{Command, ExitCode};

/// Crates that run on the kernel's bare target only.
const KERNEL_ONLY: &[&str] = &["kernel"];

/// Runs every check, and fails if one does.
pub(crate) fn run() -> Outcome {
    setup::ensure(setup::RUN)?;
    let crates = crates()?;
    let mut failed: Vec<&str> = Vec::new();
    let mut check = |name: &'static str, outcome: Result<(), Failure>| match outcome {
        Ok(()) => println!("ok      {name}"),
        Err(why) => {
            println!("FAILED  {name}\n{}", why.trim_end());
            failed.push(name);
        }
    };
    check("layers", layers::check(&crates));
    check("unsafe", unsafety::check(&crates));
    check("names", lengths::check_names(&crates));
    check("format", succeed(cargo().args(["fmt", "--all", "--check"])));
    check("clippy, host", clippy_host());
    check("clippy, kernel", clippy_kernel());
    check("compatibility table", crate::compat::check());
    lengths::report(&crates);
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!("{} failed", failed.join(", ")))
}

fn clippy_host() -> Result<(), Failure> {
    let mut command = cargo();
    command.args(["clippy", "--quiet", "--keep-going", "--workspace", "--all-targets"]);
    for package in KERNEL_ONLY {
        command.args(["--exclude", package]);
    }
    succeed(command.args(["--", "-D", "warnings"]))
}

fn clippy_kernel() -> Result<(), Failure> {
    if toolchain::prefers_fallback() {
        println!("        (no clippy for the kernel: Debian's toolchain stands in for rustup's)");
        return Ok(());
    }
    succeed(cargo().args(["clippy", "--quiet", "--keep-going", "--release", "--package", "kernel"]).args([
        "--target",
        build::KERNEL_TARGET,
        "--target-dir",
        "target/kernel",
        "--",
        "-D",
        "warnings",
    ]))
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
        }
        Err(error) => Err(format!("cannot run {}: {error}", command.get_program().display())),
    }
}
