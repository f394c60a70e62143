//! How guests are started for measuring and testing.

use crate::build;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The same machine for both kernels; neither takes it by default.
pub(crate) const MODEL: &str = "q35";

/// Which kernel a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Linux,
    Quintet,
}

impl Kernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kernel::Linux => "Linux",
            Kernel::Quintet => "Quintet",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Kernel::Linux => &["--kernel", "linux", "--append", "mitigations=off"],
            Kernel::Quintet => &[],
        }
    }
}

/// `quintet run` of a kernel. It ends when this process does, however that ends, and its QEMU with
/// it; a Ctrl-C here does not reach the program in the guest, which might not react to it.
pub(crate) fn run(kernel: Kernel) -> Command {
    let mut command = Command::new(build::quintet());
    command
        .args(["__guard", "--"])
        .arg(build::quintet())
        .args(["run", "--machine", MODEL])
        .args(kernel.options())
        .process_group(0);
    command
}
