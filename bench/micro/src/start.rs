//! What the guest's start cost, seen from inside.

use crate::say;
use std::fs;
use std::time::Duration;

/// What the host gave the machine, in kB.
const MACHINE: f64 = (1 << 20) as f64;
/// In which the kernel ends what it does in the background after its start.
const SETTLE: Duration = Duration::from_millis(500);

/// Prints a row with the time-stamp counter: with QEMU's `-icount` the number of guest instructions since the machine's start, idle
/// time included.
pub(crate) fn counter(name: &str) {
    let counter = unsafe { core::arch::x86_64::_rdtsc() };
    say(&format!("# {}", crate::sys::kernel_release()));
    say(&format!("{name}\t{:.1}\tms", counter as f64 / 1e6));
}

/// Prints the rows: the time-stamp counter at the program's start, and the memory that is in use.
pub(crate) fn report() {
    counter("TSC at the program");
    std::thread::sleep(SETTLE);
    match free_memory() {
        Some(free) => say(&format!("memory in use\t{:.2}\tMB", (MACHINE - free) * 1024.0 / 1e6)),
        None => say("memory in use\t-\tno MemFree"),
    }
}

/// MemFree of `/proc/meminfo`, in kB.
fn free_memory() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"))?;
    line.split_whitespace().next()?.parse().ok()
}
