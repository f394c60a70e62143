//! Memory of an address space that is not the current one, and what identifies a word for futexes.

use alloc::sync::Arc;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::user::USER_END;

use super::fault::Populate;
use super::{AddressSpace, FaultError};
use crate::Prot;

impl AddressSpace {
    /// Reads memory of this address space from a thread that lives elsewhere: how many bytes before the first that can't be read.
    pub fn read_remote(&self, addr: usize, dst: &mut [u8]) -> usize {
        let mut done = 0;
        while done < dst.len() {
            let Some(at) = addr.checked_add(done).filter(|&a| a < USER_END) else {
                break;
            };
            let within = at % PAGE_SIZE;
            let len = (PAGE_SIZE - within).min(dst.len() - done);
            let Some(frame) = self.remote_page(at - within, false, false) else {
                break;
            };
            frame.read(within, &mut dst[done..done + len]);
            done += len;
        }
        done
    }

    /// Writes memory of this address space from a thread that lives elsewhere: how many bytes before the first that can't be written.
    /// `force` also writes, by a copy, to private mappings that are read-only (ptrace).
    pub fn write_remote(&self, addr: usize, src: &[u8], force: bool) -> usize {
        let mut done = 0;
        while done < src.len() {
            let Some(at) = addr.checked_add(done).filter(|&a| a < USER_END) else {
                break;
            };
            let within = at % PAGE_SIZE;
            let len = (PAGE_SIZE - within).min(src.len() - done);
            let Some(frame) = self.remote_page(at - within, true, force) else {
                break;
            };
            frame.write(within, &src[done..done + len]);
            done += len;
        }
        done
    }

    /// The frame at `page`, brought in; for a write, one that is this address space's to write.
    fn remote_page(&self, page: usize, write: bool, force: bool) -> Option<Frame> {
        // A page may be taken out again between bringing it in and looking it up.
        for _ in 0..8 {
            let layout = self.layout.read();
            let (start, mapping) = layout.find(page)?;
            let mut seen = mapping.clone();
            if force {
                seen.prot |= Prot::READ;
            }
            if write && !seen.prot.contains(Prot::WRITE) {
                if !force || seen.shared {
                    return None;
                }
                seen.prot |= Prot::WRITE;
            }
            if seen.prot.is_empty() {
                return None;
            }
            if let Some(stop) = self.intercept(start, &seen, page, (write, false)).ok()? {
                drop(layout);
                stop.wait(false).ok()?;
                continue;
            }
            self.bring_in(start, &seen, page, write).ok()?;
            if let Some((frame, _)) = self.page_table.lock().get(page) {
                return Some(frame);
            }
        }
        None
    }

    /// What identifies the word at `addr` for futexes: for memory that is shared, the cache's identity, page index and offset; for private
    /// memory (or with `private`), this address space's identity, page number and offset. `EFAULT`.
    pub fn futex_key(&self, addr: usize, private: bool) -> Result<(usize, u64, u32)> {
        if addr >= USER_END {
            return Err(Errno::EFAULT);
        }
        let (page, offset) = (addr / PAGE_SIZE, (addr % PAGE_SIZE) as u32);
        // Bit 0 tells an address space's number from a cache's address.
        let own = (self.id as usize) << 1 | 1;
        if private {
            return Ok((own, page as u64, offset));
        }
        let layout = self.layout.read();
        let (start, mapping) = layout.find(addr).ok_or(Errno::EFAULT)?;
        match mapping.cache.as_ref().filter(|_| mapping.shared) {
            Some((cache, first)) => {
                let index = first + ((addr - start) / PAGE_SIZE) as u64;
                Ok((Arc::as_ptr(cache).addr(), index, offset))
            }
            None => Ok((own, page as u64, offset)),
        }
    }

    /// Can the range be read (or written), page by page, after bringing it in? For calls that must not fail halfway. The error of the first page that can't.
    pub fn prepare(&self, addr: usize, len: usize, write: bool) -> Result<(), FaultError> {
        let start = addr & !(PAGE_SIZE - 1);
        let end = addr.checked_add(len).filter(|&end| end <= USER_END).ok_or(FaultError::NotMapped)?;
        self.populate(start, end, if write { Populate::Write } else { Populate::Fully })
    }
}
