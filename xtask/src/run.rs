//! `cargo xtask run`: a stale-free `quintet run`.

use crate::{Outcome, build, setup};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Builds what the run needs and becomes `quintet run`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    setup::ensure(setup::RUN)?;
    let options = arguments.split(|word| word == "--").next().unwrap_or_default();
    let other_kernel = options.iter().any(|word| word == "--kernel" || word.starts_with("--kernel="));
    if other_kernel { build::without_kernel() } else { build::all() }?;
    let error = Command::new(build::quintet()).arg("run").args(arguments).exec();
    Err(format!("cannot start quintet: {error}"))
}
