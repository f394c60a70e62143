//! Finds the kernel and the guest's PID 1 that belong to this `quintet`.

use crate::failure::Failure;
use std::env;
use std::path::{Path, PathBuf};

/// The kernel: as given, else `$QUINTET_KERNEL`, else next to this program.
pub fn kernel(given: Option<&Path>) -> Result<PathBuf, Failure> {
    find(
        "the kernel",
        given,
        "QUINTET_KERNEL",
        &["../kernel/x86_64-unknown-none/release/kernel", "../lib/quintet/kernel"],
    )
}

/// The guest's PID 1: as given, else `$QUINTET_INIT`, else next to this program.
pub fn init(given: Option<&Path>) -> Result<PathBuf, Failure> {
    find(
        "the guest's init",
        given,
        "QUINTET_INIT",
        &["../guest/x86_64-unknown-linux-gnu/release/guest-init", "../lib/quintet/guest-init"],
    )
}

fn find(what: &str, given: Option<&Path>, variable: &str, places: &[&str]) -> Result<PathBuf, Failure> {
    if let Some(path) = given.map(Path::to_owned).or_else(|| env::var_os(variable).map(Into::into)) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Failure::new(format!("{what} {} is not a file", path.display())))
        };
    }
    let program = env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or(Path::new("."));
    // The tidied path is what users see in messages.
    places.iter().find_map(|place| folder.join(place).canonicalize().ok()).ok_or_else(|| {
        Failure::new(format!("{what} is not built"))
            .because(format!("it is not at {} from {}", places.join(" or "), folder.display()))
            .advise(format!("`cargo xtask run` builds it; or set {variable}."))
    })
}
