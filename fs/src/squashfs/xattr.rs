//! Extended attributes: runs of names and values in metadata of their own.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::inode::{File, NO_INDEX, is_there};
use super::metadata::Position;
use super::{Squashfs, u16_at, u32_at, u64_at};

/// The value is elsewhere: a reference stands for it.
const ELSEWHERE: u16 = 0x100;
/// Bytes of the table's header, and of an entry.
const HEADER: u64 = 16;
const ENTRY: usize = 16;
/// The most attributes of a file.
const COUNT_MAX: u32 = 1024;

impl Squashfs {
    /// Names and values of a file's attributes. `EIO`, `ENOMEM`.
    pub(super) fn read_xattrs(&self, file: &File) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        if file.xattrs == NO_INDEX || !is_there(self.layout.xattr_table) {
            return Ok(found);
        }
        let header = self.storage.read(self.layout.xattr_table, HEADER as usize)?;
        let (values, count) = (u64_at(&header, 0)?, u32_at(&header, 8)?);
        if file.xattrs >= count {
            return Err(Errno::EIO);
        }
        let table = self.layout.xattr_table.checked_add(HEADER).ok_or(Errno::EIO)?;
        let entry = self.table_entry(table, file.xattrs, ENTRY)?;
        let place = |reference: u64| {
            let block = values.checked_add(reference >> 16).ok_or(Errno::EIO)?;
            Ok::<_, Errno>(Position { block, offset: (reference & 0xffff) as usize })
        };
        let mut at = place(u64_at(&entry, 0)?)?;
        let count = u32_at(&entry, 8)?;
        if count > COUNT_MAX {
            return Err(Errno::EIO);
        }
        for _ in 0..count {
            let fixed = self.read_metadata(&mut at, 4)?;
            let (kind, len) = (u16_at(&fixed, 0)?, u16_at(&fixed, 2)?);
            let prefix: &[u8] = match kind & !ELSEWHERE {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                _ => return Err(Errno::EIO),
            };
            let name = [prefix, &self.read_metadata(&mut at, len.into())?].concat();
            let mut value = self.read_value(&mut at)?;
            if kind & ELSEWHERE != 0 {
                value = self.read_value(&mut place(u64_at(&value, 0)?)?)?;
            }
            found.push((name, value));
        }
        Ok(found)
    }

    fn read_value(&self, at: &mut Position) -> Result<Vec<u8>> {
        let len = u32_at(&self.read_metadata(at, 4)?, 0)? as usize;
        if len > crate::xattr::SIZE_MAX {
            return Err(Errno::EIO);
        }
        self.read_metadata(at, len)
    }
}
