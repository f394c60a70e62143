//! Numbers for tasks: ascending, starting again after the highest, as Linux gives them out.

use alloc::vec::Vec;

use base::{Errno, Result};

use crate::Pid;

/// The highest that `kernel.pid_max` can be.
pub(crate) const PID_MAX_LIMIT: Pid = 4_194_304;
/// After the highest number, start here: low numbers stay with the daemons of the system's start.
const RESTART_AT: Pid = 300;

/// Which number comes next.
pub(crate) struct Ids {
    pub(crate) last: Pid,
    pub(crate) max: Pid,
    /// Given out, but not yet in the tree.
    pub(crate) reserved: Vec<Pid>,
}

impl Default for Ids {
    fn default() -> Self {
        Ids::new()
    }
}

impl Ids {
    pub(crate) const fn new() -> Ids {
        Ids { last: 0, max: 32768, reserved: Vec::new() }
    }

    /// The next number that is not used. `EAGAIN` where all are.
    pub(crate) fn allocate(&mut self, is_used: impl Fn(Pid) -> bool) -> Result<Pid> {
        let mut id = self.last;
        for _ in 0..self.max {
            id += 1;
            if id >= self.max {
                id = RESTART_AT;
            }
            if !is_used(id) && !self.reserved.contains(&id) {
                self.last = id;
                self.reserved.push(id);
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_wrap_around_past_those_in_use() {
        let mut ids = Ids { max: 304, ..Ids::new() };
        ids.last = 301;
        assert_eq!(ids.allocate(|_| false), Ok(302));
        assert_eq!(ids.allocate(|_| false), Ok(303));
        assert_eq!(ids.allocate(|id| id == 300), Ok(301));
        ids.reserved.clear();
        assert_eq!(ids.allocate(|id| id == 302), Ok(303));
        assert_eq!(ids.allocate(|_| true), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_number_is_not_given_out_twice_before_it_is_used() {
        let mut ids = Ids { max: 303, ..Ids::new() };
        ids.last = 299;
        let all: Vec<Pid> = (0..3).filter_map(|_| ids.allocate(|_| false).ok()).collect();
        assert_eq!(all, [300, 301, 302]);
        assert_eq!(ids.allocate(|_| false), Err(Errno::EAGAIN));
    }
}
