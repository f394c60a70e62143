//! Times as user space lays them out.

use base::{Errno, NANOS_PER_SEC, Nanos, Result};
use hal::user::UserPtr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `struct timespec`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub(crate) struct Timespec {
    pub(crate) sec: i64,
    pub(crate) nsec: i64,
}

/// `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub(crate) struct Timeval {
    pub(crate) sec: i64,
    pub(crate) usec: i64,
}

impl Timespec {
    /// Nanoseconds as a `timespec`.
    pub(crate) fn from_nanos(nanos: Nanos) -> Timespec {
        Timespec { sec: (nanos / NANOS_PER_SEC) as i64, nsec: (nanos % NANOS_PER_SEC) as i64 }
    }

    /// As nanoseconds, at most `u64::MAX`. `EINVAL` (negative, or a second or more of nanoseconds).
    pub(crate) fn to_nanos(self) -> Result<Nanos> {
        if self.sec < 0 || !(0..NANOS_PER_SEC as i64).contains(&self.nsec) {
            return Err(Errno::EINVAL);
        }
        Ok((self.sec as u64).saturating_mul(NANOS_PER_SEC).saturating_add(self.nsec as u64))
    }

    /// Reads one and gives it as nanoseconds; `None` for NULL. `EFAULT`, `EINVAL`.
    pub(crate) fn read_optional(at: UserPtr<Timespec>) -> Result<Option<Nanos>> {
        at.non_null().map(|at| at.read()?.to_nanos()).transpose()
    }
}

impl Timeval {
    /// Nanoseconds as a `timeval`.
    pub(crate) fn from_nanos(nanos: Nanos) -> Timeval {
        Timeval { sec: (nanos / NANOS_PER_SEC) as i64, usec: (nanos % NANOS_PER_SEC / 1000) as i64 }
    }

    /// As nanoseconds. `EINVAL`.
    pub(crate) fn to_nanos(self) -> Result<Nanos> {
        if !(0..1_000_000).contains(&self.usec) {
            return Err(Errno::EINVAL);
        }
        Timespec { sec: self.sec, nsec: self.usec * 1000 }.to_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_are_refused() {
        let of = |sec, nsec| Timespec { sec, nsec }.to_nanos();
        assert_eq!(of(1, 5), Ok(1_000_000_005));
        assert_eq!(of(-1, 0), Err(Errno::EINVAL));
        assert_eq!(of(0, 1_000_000_000), Err(Errno::EINVAL));
        assert_eq!(of(i64::MAX, 0), Ok(u64::MAX));
        assert_eq!(Timeval { sec: 0, usec: 1_000_000 }.to_nanos(), Err(Errno::EINVAL));
        assert_eq!(Timespec::from_nanos(1_000_000_005), Timespec { sec: 1, nsec: 5 });
    }
}
