//! Listing a directory. The server's positions are its own affair; ours are two more, for `.` and `..`.

use alloc::sync::Arc;

use base::{Errno, Result};

use super::node::Node;
use super::session::Fid;
use super::wire::Reader;
use crate::vfs::dentry::NAME_MAX;
use crate::{DirEntry, FileKind};

/// Our position of the server's first.
const FIRST: u64 = 2;

impl Node {
    /// The handle that lists, opened anew for a listing that begins.
    fn lister(&self, begins: bool) -> Result<Arc<Fid>> {
        let mut listing = self.listing.lock();
        if let Some(fid) = listing.as_ref().filter(|_| !begins) {
            return Ok(fid.clone());
        }
        let fid = self.fid().walk(None)?;
        fid.open(abi::general::O_RDONLY | abi::general::O_DIRECTORY)?;
        *listing = Some(fid.clone());
        Ok(fid)
    }

    /// Lists from `position` on: the position after the last entry that was taken. `EIO` for a server that does not get on.
    pub(super) fn list_entries(&self, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let fid = self.lister(position <= FIRST)?;
        let mut at = position.max(FIRST);
        loop {
            let bytes = fid.read_dir(at - FIRST)?;
            if bytes.is_empty() {
                *self.listing.lock() = None;
                return Ok(at);
            }
            let mut reader = Reader::new(&bytes);
            let before = at;
            while !reader.is_empty() {
                let inode = reader.qid()?;
                let (next, kind, name) = (reader.u64()?, reader.u8()?, reader.string()?);
                let next = next.saturating_add(FIRST);
                if name == b"." || name == b".." {
                    at = next;
                    continue;
                }
                if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') || name.contains(&0) {
                    return Err(Errno::EIO);
                }
                let kind = FileKind::from_mode(u32::from(kind) << 12).unwrap_or(FileKind::None);
                if !emit(&DirEntry { name, inode, kind, next }) {
                    return Ok(at);
                }
                at = next;
            }
            if at == before {
                return Err(Errno::EIO);
            }
            sched::preempt_point();
        }
    }
}
