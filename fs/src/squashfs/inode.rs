//! Inodes: eight types, each in a short and a long form.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::metadata::Position;
use super::{NONE, Squashfs, u16_at, u32_at, u64_at};
use crate::image::Stat;
use crate::{Attributes, DeviceNumber, FileKind};

/// Bytes that all inodes begin with.
const HEADER: usize = 16;
/// Types of the long form are this much more than of the short one.
const LONG: u16 = 7;
/// No fragment, no attributes.
pub(super) const NO_INDEX: u32 = u32::MAX;
/// The longest target of a symbolic link.
const TARGET_MAX: u32 = 65535;
/// The most blocks of a file: 2 TiB with the usual block size.
const BLOCKS_MAX: u64 = 1 << 24;

/// What follows, by type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Where its entries are, and how many bytes of them.
    Directory { position: Position, len: u32 },
    /// Where its blocks begin, the list of their sizes, and the fragment with its end.
    Regular { start: u64, sizes: Position, blocks: u64, fragment: u32, fragment_offset: u32 },
    /// Where its target is.
    Symlink { position: Position },
    /// Nothing.
    Other,
}

/// A file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    pub(super) stat: Stat,
    pub(super) body: Body,
    /// Its place in the table of extended attributes.
    pub(super) xattrs: u32,
}

/// The type of the short form.
pub(super) fn kind_of(short: u16) -> Result<FileKind> {
    Ok(match short {
        1 => FileKind::Directory,
        2 => FileKind::Regular,
        3 => FileKind::Symlink,
        4 => FileKind::BlockDevice,
        5 => FileKind::CharDevice,
        6 => FileKind::Fifo,
        7 => FileKind::Socket,
        _ => return Err(Errno::EIO),
    })
}

/// Fields that differ between types, as they are collected.
struct Fields {
    nlink: u32,
    size: u64,
    rdev: u32,
    body: Body,
    xattrs: u32,
}

impl Fields {
    fn plain(nlink: u32) -> Fields {
        Fields { nlink, size: 0, rdev: 0, body: Body::Other, xattrs: NO_INDEX }
    }
}

impl Squashfs {
    /// Reads the inode that a reference names: a block of the table of inodes, and a byte in it. `EIO`, `ENOMEM`.
    pub(super) fn read_inode(&self, reference: u64) -> Result<File> {
        let block = self.layout.inode_table.checked_add(reference >> 16).ok_or(Errno::EIO)?;
        let mut at = Position { block, offset: (reference & 0xffff) as usize };
        let header = self.read_metadata(&mut at, HEADER)?;
        let kind = u16_at(&header, 0)?;
        let long = kind > LONG;
        let kind = kind_of(if long { kind - LONG } else { kind })?;
        let fields = match kind {
            FileKind::Directory => self.directory(&mut at, long)?,
            FileKind::Regular => self.regular(&mut at, long)?,
            FileKind::Symlink => self.symlink(&mut at, long)?,
            _ => self.special(&mut at, long, kind)?,
        };
        let time = i64::from(u32_at(&header, 8)?) * 1_000_000_000;
        let attributes = Attributes {
            mode: u32::from(u16_at(&header, 2)?) & 0o7777,
            uid: self.id(u16_at(&header, 4)?)?,
            gid: self.id(u16_at(&header, 6)?)?,
            nlink: fields.nlink,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        };
        let size = fields.size.min(i64::MAX as u64);
        let number = u32_at(&header, 12)?.into();
        let stat = Stat {
            number,
            kind,
            rdev: DeviceNumber::decode(fields.rdev),
            attributes,
            size,
            sectors: size.div_ceil(512),
        };
        Ok(File { stat, body: fields.body, xattrs: fields.xattrs })
    }

    fn directory(&self, at: &mut Position, long: bool) -> Result<Fields> {
        let bytes = self.read_metadata(at, if long { 24 } else { 16 })?;
        let (start, nlink, size, offset, xattrs) = if long {
            let (nlink, size, start) = (u32_at(&bytes, 0)?, u32_at(&bytes, 4)?, u32_at(&bytes, 8)?);
            (start, nlink, size, u16_at(&bytes, 18)?, u32_at(&bytes, 20)?)
        } else {
            let (start, nlink) = (u32_at(&bytes, 0)?, u32_at(&bytes, 4)?);
            (start, nlink, u32::from(u16_at(&bytes, 8)?), u16_at(&bytes, 10)?, NO_INDEX)
        };
        let block = self.layout.directory_table.checked_add(start.into()).ok_or(Errno::EIO)?;
        // The size counts three bytes for `.` and `..`, which are not there.
        let body = Body::Directory { position: Position { block, offset: offset.into() }, len: size.saturating_sub(3) };
        Ok(Fields { size: size.into(), body, xattrs, ..Fields::plain(nlink) })
    }

    fn regular(&self, at: &mut Position, long: bool) -> Result<Fields> {
        let bytes = self.read_metadata(at, if long { 40 } else { 16 })?;
        let (start, size, nlink, fragment, fragment_offset, xattrs) = if long {
            let (nlink, fragment, offset) = (u32_at(&bytes, 24)?, u32_at(&bytes, 28)?, u32_at(&bytes, 32)?);
            (u64_at(&bytes, 0)?, u64_at(&bytes, 8)?, nlink, fragment, offset, u32_at(&bytes, 36)?)
        } else {
            let (fragment, offset) = (u32_at(&bytes, 4)?, u32_at(&bytes, 8)?);
            (u32_at(&bytes, 0)?.into(), u32_at(&bytes, 12)?.into(), 1, fragment, offset, NO_INDEX)
        };
        let block_size = u64::from(self.layout.block_size);
        let blocks = if fragment == NO_INDEX { size.div_ceil(block_size) } else { size / block_size };
        if blocks > BLOCKS_MAX {
            return Err(Errno::EIO);
        }
        let body = Body::Regular { start, sizes: *at, blocks, fragment, fragment_offset };
        Ok(Fields { size, body, xattrs, ..Fields::plain(nlink) })
    }

    fn symlink(&self, at: &mut Position, long: bool) -> Result<Fields> {
        let bytes = self.read_metadata(at, 8)?;
        let (nlink, size) = (u32_at(&bytes, 0)?, u32_at(&bytes, 4)?);
        if size == 0 || size > TARGET_MAX {
            return Err(Errno::EIO);
        }
        let body = Body::Symlink { position: *at };
        let mut xattrs = NO_INDEX;
        if long {
            self.read_metadata(at, size as usize)?;
            xattrs = u32_at(&self.read_metadata(at, 4)?, 0)?;
        }
        Ok(Fields { size: size.into(), body, xattrs, ..Fields::plain(nlink) })
    }

    fn special(&self, at: &mut Position, long: bool, kind: FileKind) -> Result<Fields> {
        let is_device = matches!(kind, FileKind::BlockDevice | FileKind::CharDevice);
        let len = 4 + if is_device { 4 } else { 0 } + if long { 4 } else { 0 };
        let bytes = self.read_metadata(at, len)?;
        let rdev = if is_device { u32_at(&bytes, 4)? } else { 0 };
        let xattrs = if long { u32_at(&bytes, len - 4)? } else { NO_INDEX };
        Ok(Fields { rdev, xattrs, ..Fields::plain(u32_at(&bytes, 0)?) })
    }

    /// Where a symbolic link leads. `EINVAL`, `EIO`.
    pub(super) fn read_target(&self, file: &File) -> Result<Vec<u8>> {
        let Body::Symlink { mut position } = file.body else { return Err(Errno::EINVAL) };
        self.read_metadata(&mut position, file.stat.size as usize)
    }
}

/// Is there such a table?
pub(super) fn is_there(table: u64) -> bool {
    table != NONE
}
