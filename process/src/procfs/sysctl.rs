//! Settings of scheduling in `/proc/sys/kernel`.

use alloc::format;
use alloc::vec::Vec;

use base::{Errno, Nanos, Result};
use fs::procfs::{file_rw, register_sysctl};
use sched::realtime;

/// A number of microseconds that a program wrote. `EINVAL`.
fn micros(data: &[u8]) -> Result<i64> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    text.trim().parse().map_err(|_| Errno::EINVAL)
}

fn show(micros: i64) -> Result<Vec<u8>> {
    Ok(format!("{micros}\n").into_bytes())
}

/// What is shown for a runtime: -1 where it is no limit.
fn shown_runtime((runtime, period): (Nanos, Nanos)) -> i64 {
    if runtime >= period { -1 } else { (runtime / 1000) as i64 }
}

/// The runtime that a written number means. `EINVAL` beyond the period.
fn runtime(micros: i64, period: Nanos) -> Result<Nanos> {
    match u64::try_from(micros) {
        Ok(micros) => micros.checked_mul(1000).filter(|&runtime| runtime <= period).ok_or(Errno::EINVAL),
        Err(_) if micros == -1 => Ok(Nanos::MAX),
        Err(_) => Err(Errno::EINVAL),
    }
}

/// Adds them. Once, at boot, before procfs is set up.
pub(super) fn register() {
    let set_runtime = |data: &[u8]| {
        let (_, period) = realtime::limits();
        realtime::set_limits(runtime(micros(data)?, period)?, period);
        Ok(())
    };
    let set_period = |data: &[u8]| {
        let (runtime, _) = realtime::limits();
        let period = u64::try_from(micros(data)?).ok().and_then(|n| n.checked_mul(1000)).ok_or(Errno::EINVAL)?;
        if period == 0 || runtime != Nanos::MAX && runtime > period {
            return Err(Errno::EINVAL);
        }
        realtime::set_limits(runtime, period);
        Ok(())
    };
    register_sysctl("kernel", "sched_rt_runtime_us", file_rw(|| show(shown_runtime(realtime::limits())), set_runtime));
    register_sysctl("kernel", "sched_rt_period_us", file_rw(|| show((realtime::limits().1 / 1000) as i64), set_period));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_part_of_its_period() {
        assert_eq!(runtime(950_000, 1_000_000_000), Ok(950_000_000));
        assert_eq!(runtime(1_000_001, 1_000_000_000), Err(Errno::EINVAL));
        assert_eq!(runtime(-1, 1_000_000_000).map(|n| shown_runtime((n, 1_000_000_000))), Ok(-1));
        assert_eq!(runtime(-2, 1_000_000_000), Err(Errno::EINVAL));
    }
}
