//! Runs the items of a test-suite in a guest, one after the other, and reports each test as it
//! ends, so that whoever listens outside knows what ran when the guest stops talking.
//!
//! The plan comes on standard input ([`plan`]). What goes out on standard output is a line each:
//!
//! ```text
//! item<TAB>NAME                begins
//! start<TAB>TEST               begins
//! ok<TAB>TEST                  passed
//! skip<TAB>TEST<TAB>REASON     does not apply here
//! fail<TAB>TEST<TAB>REASON
//! end<TAB>NAME                 the item has no more tests
//! ```
//!
//! Everything that the tests say goes to standard error. An item is one program: its status is its
//! result, or it reports many tests itself, with the lines above behind an `@`, of which one that
//! hangs or dies costs that test only: the item starts again with the others.
//!
//! May depend on nothing of the workspace. Takes no lock.

mod item;
mod plan;
mod tap;

use std::io::{Read, Write};
use std::process::ExitCode;

/// Set by who starts this in a guest of its own.
const MARK: &str = "CONFORMANCE_GUEST";

fn main() -> ExitCode {
    // Between items it ends every process that it may.
    if nix::unistd::getppid().as_raw() != 1 || std::env::var_os(MARK).is_none() {
        eprintln!("conformance-runner runs in a guest of its own: `cargo xtask conformance` starts it there.");
        return ExitCode::FAILURE;
    }
    let mut text = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut text) {
        eprintln!("conformance-runner: cannot read the plan: {error}");
        return ExitCode::FAILURE;
    }
    let items = match plan::parse(&text) {
        Ok(items) => items,
        Err(error) => {
            eprintln!("conformance-runner: {error}");
            return ExitCode::FAILURE;
        }
    };
    for mut item in items {
        item::run(&mut item);
    }
    ExitCode::SUCCESS
}

/// Tells the world outside of the guest.
fn say(fields: &[&str]) {
    let clean: Vec<String> = fields.iter().map(|field| field.replace(['\n', '\t', '\r'], " ")).collect();
    let mut out = std::io::stdout().lock();
    // Nobody to tell if standard output is gone.
    let _ = writeln!(out, "{}", clean.join("\t")).and_then(|()| out.flush());
}
