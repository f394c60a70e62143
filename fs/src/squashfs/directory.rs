//! Directories: runs of entries whose inodes are in one block of the table of inodes.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::{Body, File};
use super::{Squashfs, u16_at, u32_at};
use crate::{DirEntry, FileKind};

/// The position of the first entry; an entry's is where it begins, this much further.
const FIRST: u64 = 2;
/// The most entries of a run.
const RUN_MAX: u32 = 256;

/// An entry.
struct Entry {
    name: Vec<u8>,
    reference: u64,
    number: u64,
    kind: FileKind,
    /// The byte of the listing after it.
    end: u64,
}

impl Squashfs {
    /// Calls `each` for every entry until it gives false. `EIO`, `ENOTDIR`.
    fn walk(&self, dir: &File, each: &mut dyn FnMut(&Entry) -> bool) -> Result<()> {
        let Body::Directory { mut position, len } = dir.body else { return Err(Errno::ENOTDIR) };
        let mut done = 0u64;
        while done < u64::from(len) {
            let header = self.read_metadata(&mut position, 12)?;
            done += 12;
            let (count, block, base) = (u32_at(&header, 0)?, u32_at(&header, 4)?, u32_at(&header, 8)?);
            if count >= RUN_MAX {
                return Err(Errno::EIO);
            }
            for _ in 0..=count {
                let fixed = self.read_metadata(&mut position, 8)?;
                let name = self.read_metadata(&mut position, usize::from(u16_at(&fixed, 6)?) + 1)?;
                done += 8 + name.len() as u64;
                if name.len() > 256 || done > u64::from(len) || name.contains(&b'/') || name.contains(&0) {
                    return Err(Errno::EIO);
                }
                let number = u64::from(base.wrapping_add_signed(u16_at(&fixed, 2)?.cast_signed().into()));
                let entry = Entry {
                    name,
                    reference: u64::from(block) << 16 | u64::from(u16_at(&fixed, 0)?),
                    number,
                    kind: super::inode::kind_of(u16_at(&fixed, 4)?)?,
                    end: done,
                };
                if !each(&entry) {
                    return Ok(());
                }
            }
            sched::preempt_point();
        }
        Ok(())
    }

    pub(super) fn find_entry(&self, dir: &File, name: &[u8]) -> Result<Option<u64>> {
        let mut found = None;
        self.walk(dir, &mut |entry| {
            // They are sorted: what comes later is none of it.
            match entry.name.as_slice().cmp(name) {
                core::cmp::Ordering::Less => true,
                core::cmp::Ordering::Equal => {
                    found = Some(entry.reference);
                    false
                }
                core::cmp::Ordering::Greater => false,
            }
        })?;
        Ok(found)
    }

    pub(super) fn list_entries(
        &self,
        dir: &File,
        position: u64,
        emit: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<u64> {
        let mut at = position.max(FIRST);
        self.walk(dir, &mut |entry| {
            let next = entry.end + FIRST;
            if next <= at {
                return true;
            }
            let taken = emit(&DirEntry { name: &entry.name, inode: entry.number, kind: entry.kind, next });
            if taken {
                at = next;
            }
            taken
        })?;
        Ok(at)
    }
}
