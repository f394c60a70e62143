//! `cargo xtask test`: host tests, then programs in the guest, then the ABI tests on both kernels.

pub(crate) mod abi;
mod alone;
mod debian_root;
mod disk;
mod file_systems;
mod guest;
mod host;
mod inquiry;

use crate::{Outcome, build, net_lab, setup};
use std::process::ExitCode;
use std::time::Instant;

/// What a stage found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Counts one case and says how it went.
    pub(crate) fn note(&mut self, name: &str, outcome: &Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {name}");
            }
            Err(why) => {
                self.failed += 1;
                println!("FAILED  {name}: {why}");
            }
        }
    }
}

/// What to test.
pub(crate) struct Selection {
    pub(crate) filter: Option<String>,
    pub(crate) quick: bool,
}

impl Selection {
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }
}

/// Runs every stage and prints the sum.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut selection = Selection { filter: None, quick: false };
    for argument in arguments {
        match argument.as_str() {
            "--quick" => selection.quick = true,
            option if option.starts_with('-') => {
                return Err(format!("test has no option {option}"));
            }
            filter => selection.filter = Some(filter.to_owned()),
        }
    }
    setup::ensure(setup::RUN)?;
    setup::ensure(setup::DISKS)?;
    let mut tally = Tally::default();
    let started = Instant::now();
    stage("host tests", &mut tally, || host::run(&selection))?;
    build::all()?;
    stage("programs in the guest", &mut tally, || guest::run(&selection))?;
    stage("questions about a guest", &mut tally, || inquiry::run(&selection))?;
    stage("machines of one's own", &mut tally, || alone::run(&selection))?;
    stage("disks in the guest", &mut tally, || disk::run(&selection))?;
    stage("file systems in the guest", &mut tally, || file_systems::run(&selection))?;
    stage("machines on one link", &mut tally, || Ok(network(&selection)))?;
    stage("the Debian root", &mut tally, || debian_root::run(&selection))?;
    stage("ABI tests on Linux and Quintet", &mut tally, || abi::run(&selection))?;
    println!("\n{} s", started.elapsed().as_secs());
    let skipped = match tally.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    println!("{} passed, {} failed{skipped}", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn network(selection: &Selection) -> Tally {
    let mut tally = Tally::default();
    if selection.takes(net_lab::SHORT) {
        tally.note(net_lab::SHORT, &net_lab::short());
    }
    tally
}

fn stage(name: &str, tally: &mut Tally, run: impl FnOnce() -> Result<Tally, String>) -> Result<(), String> {
    println!("\n== {name}");
    let started = Instant::now();
    tally.add(run()?);
    println!("   ({} s)", started.elapsed().as_secs());
    Ok(())
}
