//! Unpacking the initial file system: one or more cpio archives ("newc", also with checksums) behind one another.
//!
//! Where the boot loader put the archive in memory and a file's data begins at a page, the pages themselves become the file's, without
//! a copy. A malformed archive ends the unpacking with `EINVAL` and the offset where it went wrong; what came before stays.

mod cpio;
mod tree;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;

use crate::{FileKind, Inode};
use cpio::{HEADER_LEN, Header};
use tree::Tree;

/// Where the archive is read from.
pub trait InitrdReader {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// Is there nothing?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`. `EIO` past the end.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// The physical address of a byte, where the archive lies in memory as one piece.
    fn physical(&self, offset: u64) -> Option<usize>;
}

/// What was unpacked.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Unpacked {
    /// Files of all kinds.
    pub files: usize,
    /// Pages that were taken over without copying.
    pub pages_moved: usize,
    /// Pages that were copied.
    pub pages_copied: usize,
}

/// Why unpacking ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnpackError {
    /// Where in the archive.
    pub offset: u64,
    /// `EINVAL` (malformed), `ENOMEM`, `EIO`.
    pub errno: Errno,
}

/// Unpacks into the directory `root`, of a tmpfs.
pub fn unpack(reader: &dyn InitrdReader, root: &Arc<Inode>) -> Result<Unpacked, UnpackError> {
    let mut unpacker =
        Unpacker { reader, tree: Tree::new(root.clone()), links: BTreeMap::new(), at: 0, done: Unpacked::default() };
    unpacker.run().map_err(|errno| UnpackError { offset: unpacker.at, errno })?;
    Ok(unpacker.done)
}

/// The longest name or link target that is accepted (PATH_MAX).
const NAME_MAX: u32 = 4096;

struct Unpacker<'r> {
    reader: &'r dyn InitrdReader,
    tree: Tree,
    /// Files with several names that have been seen, by device and inode number in the archive.
    links: BTreeMap<(u32, u32, u32), Arc<Inode>>,
    at: u64,
    done: Unpacked,
}

impl Unpacker<'_> {
    fn run(&mut self) -> Result<()> {
        while self.skip_padding()? {
            let header = self.header()?;
            if let Some((header, name, data)) = header {
                self.entry(&header, &name, data)?;
                self.done.files += 1;
                sched::preempt_point();
            }
        }
        Ok(())
    }

    /// Skips the zeros between archives; false at the end.
    fn skip_padding(&mut self) -> Result<bool> {
        let len = self.reader.len();
        let mut word = [0; 4];
        while self.at + 4 <= len {
            self.reader.read(self.at, &mut word)?;
            if word != [0; 4] {
                return Ok(true);
            }
            self.at += 4;
        }
        Ok(false)
    }

    /// Reads a header and its name, and steps behind its data; `None` for the trailer of an archive.
    fn header(&mut self) -> Result<Option<(Header, Vec<u8>, u64)>> {
        let mut raw = [0; HEADER_LEN];
        if self.at + HEADER_LEN as u64 > self.reader.len() {
            return Err(Errno::EINVAL);
        }
        self.reader.read(self.at, &mut raw)?;
        let header = Header::parse(&raw).ok_or(Errno::EINVAL)?;
        if header.name_len == 0 || header.name_len > NAME_MAX {
            return Err(Errno::EINVAL);
        }
        let name_at = self.at + HEADER_LEN as u64;
        let data_at = (name_at + u64::from(header.name_len)).next_multiple_of(4);
        let end =
            data_at.checked_add(u64::from(header.size)).filter(|&end| end <= self.reader.len()).ok_or(Errno::EINVAL)?;
        let mut name = alloc::vec![0; header.name_len as usize];
        self.reader.read(name_at, &mut name)?;
        // The name ends at its first NUL: archives pad it with more so that the data begins at a page.
        name.truncate(name.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?);
        // The padding after the last file may be cut off.
        self.at = end.next_multiple_of(4).min(self.reader.len());
        if name == b"TRAILER!!!" {
            // Inode numbers mean something within one archive only.
            self.links.clear();
            return Ok(None);
        }
        Ok(Some((header, name, data_at)))
    }

    fn entry(&mut self, header: &Header, name: &[u8], data: u64) -> Result<()> {
        let kind = FileKind::from_mode(header.mode).ok_or(Errno::EINVAL)?;
        let key = (header.device.major, header.device.minor, header.inode);
        let shared = header.links > 1 && !matches!(kind, FileKind::Directory);
        if shared && let Some(first) = self.links.get(&key).cloned() {
            if kind == FileKind::Regular && header.size > 0 {
                self.fill(&first, header, data)?;
            }
            return self.tree.link(name, &first);
        }
        let mut target = Vec::new();
        if kind == FileKind::Symlink {
            if header.size > NAME_MAX {
                return Err(Errno::EINVAL);
            }
            target.resize(header.size as usize, 0);
            self.reader.read(data, &mut target)?;
        }
        let Some(inode) = self.tree.make(name, kind, header, &target)? else { return Ok(()) };
        if kind == FileKind::Regular {
            self.fill(&inode, header, data)?;
        }
        inode.set_times(header.mtime_nanos(), header.mtime_nanos());
        if shared {
            self.links.insert(key, inode);
        }
        Ok(())
    }

    /// Gives a file its content: whole pages of the archive where they lie right, else copies.
    fn fill(&mut self, inode: &Arc<Inode>, header: &Header, data: u64) -> Result<()> {
        let cache = inode.ops().page_cache().ok_or(Errno::EINVAL)?;
        let size = u64::from(header.size);
        cache.resize(size)?;
        let page = PAGE_SIZE as u64;
        for index in 0..size.div_ceil(page) {
            let from = data + index * page;
            let len = (size - index * page).min(page) as usize;
            let whole = len == PAGE_SIZE;
            let moved = if whole { self.reader.physical(from).and_then(Frame::from_initrd) } else { None };
            match moved {
                Some(frame) => {
                    cache.insert(index, frame);
                    self.done.pages_moved += 1;
                }
                None => {
                    cache.insert(index, self.copy_page(from, len)?);
                    self.done.pages_copied += 1;
                }
            }
        }
        Ok(())
    }

    fn copy_page(&self, from: u64, len: usize) -> Result<Frame> {
        let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
        let mut piece = [0; 512];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(piece.len());
            self.reader.read(from + done as u64, &mut piece[..step])?;
            frame.write(done, &piece[..step]);
            done += step;
        }
        frame.zero_range(len, PAGE_SIZE - len);
        Ok(frame)
    }
}
