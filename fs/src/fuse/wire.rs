//! The format of requests and answers.

use alloc::vec::Vec;

use base::{Errno, Result};

/// What is asked for.
pub(super) mod opcode {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const RENAME2: u32 = 45;
}

/// Bytes in front of a request's fields, and of an answer's.
pub(super) const IN_HEADER: usize = 40;
pub(super) const OUT_HEADER: usize = 16;
/// Bytes of `struct fuse_attr`.
const ATTR: usize = 88;

/// A request's fields.
#[derive(Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub(super) fn new() -> Fields {
        Fields(Vec::new())
    }

    pub(super) fn u32(mut self, value: u32) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Fields {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A name, which a NUL ends.
    pub(super) fn name(mut self, name: &[u8]) -> Fields {
        self.0.extend_from_slice(name);
        self.0.push(0);
        self
    }

    /// Bytes as they are. `ENOMEM`.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Result<Fields> {
        self.0.try_reserve(bytes.len()).map_err(|_| Errno::ENOMEM)?;
        self.0.extend_from_slice(bytes);
        Ok(self)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An answer's fields. `EIO` where they end early.
pub(super) struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Answer<'a> {
        Answer(bytes)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Errno::EIO)?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Errno::EIO)?))
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }
}

/// `struct fuse_attr`, and how long it holds in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attr {
    pub(super) valid: u64,
    pub(super) number: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) times: [i64; 3],
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
}

/// What LOOKUP and its kin give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryOut {
    pub(super) node: u64,
    pub(super) valid: u64,
    pub(super) attr: Attr,
}

fn duration(seconds: u64, nanos: u32) -> u64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos.into())
}

impl Attr {
    fn read(answer: &mut Answer, valid: u64) -> Result<Attr> {
        let mut bytes = Answer::new(answer.take(ATTR)?);
        let (number, size, blocks) = (bytes.u64()?, bytes.u64()?, bytes.u64()?);
        let seconds = [bytes.u64()?, bytes.u64()?, bytes.u64()?];
        let nanos = [bytes.u32()?, bytes.u32()?, bytes.u32()?];
        let time = |i: usize| (seconds[i] as i64).saturating_mul(1_000_000_000).saturating_add(nanos[i].into());
        Ok(Attr {
            valid,
            number,
            size: size.min(i64::MAX as u64),
            blocks,
            times: [time(0), time(1), time(2)],
            mode: bytes.u32()?,
            nlink: bytes.u32()?,
            uid: bytes.u32()?,
            gid: bytes.u32()?,
            rdev: bytes.u32()?,
        })
    }

    /// Reads `struct fuse_attr_out`.
    pub(super) fn out(bytes: &[u8]) -> Result<Attr> {
        let mut answer = Answer::new(bytes);
        let (seconds, nanos) = (answer.u64()?, answer.u32()?);
        answer.u32()?;
        Attr::read(&mut answer, duration(seconds, nanos))
    }
}

impl EntryOut {
    /// Reads `struct fuse_entry_out`.
    pub(super) fn read(bytes: &[u8]) -> Result<EntryOut> {
        let mut answer = Answer::new(bytes);
        let (node, _generation) = (answer.u64()?, answer.u64()?);
        let (entry, attr) = (answer.u64()?, answer.u64()?);
        let (entry_nanos, attr_nanos) = (answer.u32()?, answer.u32()?);
        let attr = Attr::read(&mut answer, duration(attr, attr_nanos))?;
        Ok(EntryOut { node, valid: duration(entry, entry_nanos), attr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_length_are_read_or_refused() {
        let mut fields = Fields::new().u64(7).u64(0).u64(1).u64(2).u32(5).u32(6);
        for n in 0..6 {
            fields = fields.u64(n);
        }
        for n in 0..10 {
            fields = fields.u32(n);
        }
        let bytes = fields.as_bytes();
        assert_eq!(bytes.len(), 128);
        let entry = EntryOut::read(bytes).expect("whole");
        assert_eq!((entry.node, entry.valid, entry.attr.valid), (7, 1_000_000_005, 2_000_000_006));
        assert_eq!((entry.attr.size, entry.attr.times[1], entry.attr.mode), (1, 4_000_000_001, 3));
        for len in 0..bytes.len() {
            assert_eq!(EntryOut::read(&bytes[..len]), Err(Errno::EIO));
        }
    }
}
