//! The messages: little-endian fields, strings with a length of 16 bits in front (Linux's 9P2000.L, and 9P2000's intro(5)).

use alloc::vec::Vec;

use base::{Errno, Result};

/// Message types; an answer's is one more than its request's.
#[allow(missing_docs, reason = "the protocol names them")]
pub(super) mod kind {
    pub(in super::super) const ERROR_REPLY: u8 = 7;
    pub(in super::super) const STATFS: u8 = 8;
    pub(in super::super) const LOPEN: u8 = 12;
    pub(in super::super) const LCREATE: u8 = 14;
    pub(in super::super) const SYMLINK: u8 = 16;
    pub(in super::super) const MKNOD: u8 = 18;
    pub(in super::super) const READLINK: u8 = 22;
    pub(in super::super) const GETATTR: u8 = 24;
    pub(in super::super) const SETATTR: u8 = 26;
    pub(in super::super) const XATTRWALK: u8 = 30;
    pub(in super::super) const XATTRCREATE: u8 = 32;
    pub(in super::super) const READDIR: u8 = 40;
    pub(in super::super) const FSYNC: u8 = 50;
    pub(in super::super) const LINK: u8 = 70;
    pub(in super::super) const MKDIR: u8 = 72;
    pub(in super::super) const RENAMEAT: u8 = 74;
    pub(in super::super) const UNLINKAT: u8 = 76;
    pub(in super::super) const VERSION: u8 = 100;
    pub(in super::super) const ATTACH: u8 = 104;
    pub(in super::super) const WALK: u8 = 110;
    pub(in super::super) const READ: u8 = 116;
    pub(in super::super) const WRITE: u8 = 118;
    pub(in super::super) const CLUNK: u8 = 120;
}

/// Bytes of size, type and tag.
pub(super) const HEADER: usize = 7;

/// A message's fields, to be written.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Writer {
        Writer(Vec::new())
    }

    pub(super) fn u16(mut self, value: u16) -> Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A string; what is longer than a length can say is cut, which no name or path here is.
    pub(super) fn string(self, text: &[u8]) -> Writer {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let mut writer = self.u16(len);
        writer.0.extend_from_slice(&text[..usize::from(len)]);
        writer
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message's fields, to be read. `EIO` where they end early.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Errno::EIO)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A qid: the number that the server gives the file, of which we need the last field only.
    pub(super) fn qid(&mut self) -> Result<u64> {
        self.take(5)?;
        self.u64()
    }
}

/// What Tgetattr gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "stat(3type) names them")]
pub(super) struct Stat {
    pub(super) path: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u64,
    pub(super) rdev: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) atime: i64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

impl Stat {
    /// Reads Rgetattr.
    pub(super) fn read(reader: &mut Reader) -> Result<Stat> {
        let _valid = reader.u64()?;
        let path = reader.qid()?;
        let (mode, uid, gid) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (nlink, rdev, size) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (_block_size, blocks) = (reader.u64()?, reader.u64()?);
        let mut time = || -> Result<i64> {
            let (seconds, nanos) = (reader.u64()? as i64, reader.u64()? as i64);
            Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos.clamp(0, 999_999_999)))
        };
        let (atime, mtime, ctime) = (time()?, time()?, time()?);
        let size = size.min(i64::MAX as u64);
        Ok(Stat { path, mode, uid, gid, nlink, rdev, size, blocks, atime, mtime, ctime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let message = Writer::new().u16(7).u32(9).string(b"name").u64(u64::MAX);
        let mut reader = Reader::new(message.bytes());
        assert_eq!((reader.u16(), reader.u32(), reader.string()), (Ok(7), Ok(9), Ok(&b"name"[..])));
        assert_eq!((reader.u64(), reader.u8(), reader.is_empty()), (Ok(u64::MAX), Err(Errno::EIO), true));
    }

    #[test]
    fn answers_that_end_early_are_errors_at_every_length() {
        let mut whole = Writer::new().u64(0x7ff);
        whole = whole.u32(0).u32(0).u32(0).u32(0);
        for field in 0..17 {
            whole = whole.u64(field);
        }
        let bytes = whole.bytes();
        assert!(Stat::read(&mut Reader::new(bytes)).is_ok());
        for len in 0..60 {
            assert_eq!(Stat::read(&mut Reader::new(&bytes[..len])), Err(Errno::EIO));
        }
        assert_eq!(Reader::new(&[200, 0, 1, 2]).string(), Err(Errno::EIO));
    }
}
