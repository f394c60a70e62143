//! mlock(2), mlockall(2): memory that stays.

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::user::USER_END;

use super::fault::Populate;
use super::layout::{Layout, range_end};
use super::{AddressSpace, FaultError};
use crate::Lock;

impl Layout {
    /// Bytes of `start..end` that are locked already.
    fn locked_in(&self, start: usize, end: usize) -> usize {
        let length = |at: usize| match self.mappings.get(&at).filter(|m| m.lock.is_locked()) {
            Some(mapping) => mapping.end.min(end).saturating_sub(at.max(start)),
            None => 0,
        };
        self.starts_in(start, end).into_iter().map(length).sum()
    }

    /// The end of what is mapped without a hole from `start` on, `end` at most.
    fn mapped_until(&self, start: usize, end: usize) -> usize {
        let mut at = start;
        while at < end
            && let Some((_, mapping)) = self.find(at)
        {
            at = mapping.end;
        }
        at.min(end)
    }
}

impl AddressSpace {
    /// mlock2(2), or munlock(2) with [`Lock::No`]. With `unlimited` (CAP_IPC_LOCK), RLIMIT_MEMLOCK does not count. As on Linux, what comes
    /// before a hole is locked. `ENOMEM` (the limit, a hole, or pages that can't be had), `EAGAIN` (no memory), `EINVAL` (overflow).
    pub fn lock(&self, addr: usize, len: usize, mode: Lock, unlimited: bool) -> Result<()> {
        let start = addr & !(PAGE_SIZE - 1);
        let len = len.checked_add(addr - start).and_then(|len| len.checked_next_multiple_of(PAGE_SIZE));
        let end = len.and_then(|len| range_end(start, len)).ok_or(Errno::EINVAL)?;
        if start == end {
            return Ok(());
        }
        {
            let mut layout = self.layout.write();
            if mode.is_locked() && !unlimited {
                let after = layout.locked + (end - start) - layout.locked_in(start, end);
                if after as u64 > layout.limits.locked {
                    return Err(Errno::ENOMEM);
                }
            }
            let until = layout.mapped_until(start, end);
            if until > start {
                layout.change(start, until, |m| m.lock = if m.is_special() { Lock::No } else { mode });
            }
            if until < end {
                return Err(Errno::ENOMEM);
            }
        }
        if mode != Lock::Now {
            return Ok(());
        }
        self.populate(start, end, Populate::Fully).map_err(|error| match error {
            FaultError::NoMemory => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        })
    }

    /// mlockall(2), and munlockall(2) with [`Lock::No`] for both: how what is there is locked (`None`: as it is), and what comes. With
    /// `unlimited`, RLIMIT_MEMLOCK does not count. `ENOMEM`.
    pub fn lock_all(&self, current: Option<Lock>, future: Lock, unlimited: bool) -> Result<()> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        {
            let mut layout = self.layout.write();
            let locks = current.is_some_and(Lock::is_locked);
            if locks && !unlimited && layout.total as u64 > layout.limits.locked {
                return Err(Errno::ENOMEM);
            }
            layout.future = future;
            let Some(mode) = current else { return Ok(()) };
            layout.change(0, USER_END, |m| m.lock = if m.is_special() { Lock::No } else { mode });
            if mode == Lock::Now {
                ranges.try_reserve(layout.mappings.len()).map_err(|_| Errno::ENOMEM)?;
                ranges.extend(layout.mappings.iter().map(|(&start, mapping)| (start, mapping.end)));
            }
        }
        for (start, end) in ranges {
            // What can't be brought in (no access, past a file's end) is left, as on Linux.
            let _ = self.populate(start, end, Populate::Fully);
        }
        Ok(())
    }
}
