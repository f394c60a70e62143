//! What `/proc`'s system-wide files need to know of processes and names.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::procfs::system::{SystemNumbers, set_numbers};
use process::tree;

use crate::system;

struct Numbers;

impl SystemNumbers for Numbers {
    fn forks(&self) -> u64 {
        // Numbers are given out one after the other, so until they wrap around the last one is how many there were.
        tree::count().1.unsigned_abs().into()
    }

    fn threads(&self) -> usize {
        tree::count().0
    }

    fn last_pid(&self) -> i32 {
        tree::count().1
    }

    fn pid_max(&self) -> i32 {
        tree::pid_max()
    }

    fn host_name(&self) -> Vec<u8> {
        system::host_name()
    }

    fn set_host_name(&self, name: &[u8]) -> Result<()> {
        if name.len() > 64 {
            return Err(Errno::EINVAL);
        }
        system::set_host_name(name);
        Ok(())
    }

    fn release(&self) -> &'static str {
        system::RELEASE
    }

    fn version(&self) -> &'static str {
        system::VERSION
    }
}

/// Makes them known, and what ends asynchronous I/O. Once, at boot.
pub fn register() {
    crate::io_uring::register_hooks();
    set_numbers(Arc::new(Numbers));
}
