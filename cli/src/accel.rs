//! Chooses between KVM and TCG.
//!
//! That `/dev/kvm` is there does not mean that an ordinary guest runs under it: some hosts offer
//! only a paravirtual kind. So the first run tries, and its verdict holds until the host restarts.

use crate::cache::Cache;
use clap::ValueEnum;
use rustix::fs::{Access, access};
use std::fs;
use std::time::Duration;

/// What `--accel` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// KVM where the guest comes up under it, TCG otherwise.
    Auto,
    /// The host's hardware virtualization.
    Kvm,
    /// QEMU's translator, which runs everywhere.
    Tcg,
}

/// One way to run the guest's CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's hardware virtualization.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// A way to run the guest, and how long to wait for a sign of life before trying the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How the CPUs run.
    pub accel: Accel,
    /// None: for ever.
    pub patience: Option<Duration>,
}

const PATIENCE: Duration = Duration::from_millis(1000);
const VERDICT: &str = "accel";

/// What to try, in order.
pub fn attempts(choice: Choice, cache: &Cache) -> Vec<Attempt> {
    let tcg = Attempt { accel: Accel::Tcg, patience: None };
    match choice {
        Choice::Tcg => vec![tcg],
        Choice::Kvm => vec![Attempt { accel: Accel::Kvm, patience: None }],
        Choice::Auto if access("/dev/kvm", Access::READ_OK | Access::WRITE_OK).is_err() => {
            vec![tcg]
        }
        Choice::Auto if failed_before(cache) => vec![tcg],
        Choice::Auto => vec![Attempt { accel: Accel::Kvm, patience: Some(PATIENCE) }, tcg],
    }
}

/// Tells the user, and later runs, that KVM does not work here.
pub fn kvm_failed(cache: &Cache, why: &str) {
    eprintln!("quintet: KVM does not run the guest here ({why}); using the slower TCG from now on");
    // Without the file the next run only tries again.
    let _ = fs::write(cache.path(VERDICT), verdict());
}

fn failed_before(cache: &Cache) -> bool {
    fs::read_to_string(cache.path(VERDICT)).is_ok_and(|text| text == verdict())
}

/// Holds until the host restarts.
fn verdict() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("kvm fails since boot {boot}")
}
