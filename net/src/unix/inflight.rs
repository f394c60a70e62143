//! Counting descriptors under way: they are open although no table has them, so they count against what their sender may have open.

use alloc::collections::BTreeMap;

use base::{Capability, Errno, Result};
use hal::sync::SpinLock;

use crate::socket::Caller;

/// Descriptors under way, by the user who sent them.
static COUNTS: SpinLock<BTreeMap<u32, usize>> = SpinLock::new(BTreeMap::new());

/// Descriptors that count for their sender until this drops.
#[derive(Default)]
pub(super) struct Inflight {
    user: u32,
    count: usize,
}

impl Inflight {
    /// Counts `count` descriptors of the caller. `ETOOMANYREFS` above the caller's RLIMIT_NOFILE, unless it is privileged.
    pub(super) fn charge(caller: &Caller, count: usize) -> Result<Inflight> {
        if count == 0 {
            return Ok(Inflight::default());
        }
        let cred = &caller.fs.cred;
        let privileged = cred.capable(Capability::SysResource) || cred.capable(Capability::SysAdmin);
        let mut counts = COUNTS.lock();
        let held = counts.entry(cred.uid).or_default();
        if *held as u64 > caller.fd_limit && !privileged {
            return Err(Errno::ETOOMANYREFS);
        }
        *held += count;
        Ok(Inflight { user: cred.uid, count })
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut counts = COUNTS.lock();
        if let Some(held) = counts.get_mut(&self.user) {
            *held = held.saturating_sub(self.count);
            if *held == 0 {
                counts.remove(&self.user);
            }
        }
    }
}
