//! What is compared: Quintet as it is here, with Debian's Linux or with Quintet at a revision.

use super::against;
use crate::Failure;
use crate::guest::{self, Kernel};
use std::path::PathBuf;
use std::process::Command;

/// One of the two.
pub(super) struct Side {
    pub(super) title: String,
    /// Its name in the JSON.
    pub(super) key: &'static str,
    kernel: Kernel,
    /// Another kernel than the one that was built here.
    file: Option<PathBuf>,
}

impl Side {
    fn of(kernel: Kernel) -> Side {
        let key = if kernel == Kernel::Linux { "linux" } else { "quintet" };
        Side { title: kernel.name().into(), key, kernel, file: None }
    }

    /// `quintet run` of this side's kernel.
    pub(super) fn command(&self) -> Command {
        let mut command = guest::run(self.kernel);
        if let Some(file) = &self.file {
            command.arg("--kernel").arg(file);
        }
        command
    }
}

/// The base, and what is compared with it.
pub(super) fn both(revision: Option<&str>) -> Result<[Side; 2], Failure> {
    let base = match revision {
        None => Side::of(Kernel::Linux),
        Some(revision) => {
            let built = against::kernel(revision)?;
            Side { title: built.name, key: "base", kernel: Kernel::Quintet, file: Some(built.file) }
        }
    };
    Ok([base, Side::of(Kernel::Quintet)])
}
