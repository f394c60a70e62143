//! Listing a directory. The program's positions are its own affair; ours are two more, for `.` and `..`.

use base::{Errno, Result};

use super::node::Node;
use super::wire::{Answer, Fields, opcode};
use crate::vfs::dentry::NAME_MAX;
use crate::{DirEntry, FileKind};

/// Our position of the program's first.
const FIRST: u64 = 2;
/// Bytes of entries that are asked for at a time.
const ROOM: u32 = 32 << 10;

impl Node {
    /// Lists from `position` on: the position after the last entry that was taken. `EIO` for a program that does not get on.
    pub(super) fn list_entries(&self, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let connection = &self.tree.connection;
        let open = connection.call(opcode::OPENDIR, self.id, &Fields::new().u32(0).u32(0));
        // A program that does not open directories can list them all the same.
        let handle = match open {
            Ok(reply) => Some(Answer::new(&reply).u64()?),
            Err(Errno::ENOSYS) => None,
            Err(error) => return Err(error),
        };
        let result = self.list_open(handle.unwrap_or(0), position, emit);
        if let Some(handle) = handle {
            connection.ask_later(opcode::RELEASEDIR, self.id, &Fields::new().u64(handle).u32(0).u32(0).u64(0));
        }
        result
    }

    fn list_open(&self, handle: u64, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let mut at = position.max(FIRST);
        loop {
            let ask = Fields::new().u64(handle).u64(at - FIRST).u32(ROOM).u32(0).u64(0).u32(0).u32(0);
            let reply = self.tree.connection.call(opcode::READDIR, self.id, &ask)?;
            if reply.len() > ROOM as usize {
                return Err(Errno::EIO);
            }
            let mut answer = Answer::new(&reply);
            let before = at;
            while answer.left() >= 24 {
                let (inode, next) = (answer.u64()?, answer.u64()?.saturating_add(FIRST));
                let (len, kind) = (answer.u32()? as usize, answer.u32()?);
                let name = answer.take(len)?;
                let padding = len.next_multiple_of(8) - len;
                answer.take(padding.min(answer.left()))?;
                if name.is_empty() || len > NAME_MAX || name.contains(&b'/') || name.contains(&0) {
                    return Err(Errno::EIO);
                }
                if name != b"." && name != b".." {
                    let kind = FileKind::from_mode((kind & 0xf) << 12).unwrap_or(FileKind::None);
                    if !emit(&DirEntry { name, inode, kind, next }) {
                        return Ok(at);
                    }
                }
                at = next;
            }
            if at == before {
                return if reply.is_empty() { Ok(at) } else { Err(Errno::EIO) };
            }
            sched::preempt_point();
        }
    }
}
