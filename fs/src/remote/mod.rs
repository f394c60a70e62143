//! Files whose content is elsewhere, at a server ([`crate::ninep`]) or a program ([`crate::fuse`]): reads and writes go there as they are,
//! and pages are kept for mappings only.

mod file;

use alloc::vec::Vec;

use base::{Errno, Result};
use mm::{Sink, Source};

use crate::Inode;
pub(crate) use file::RemoteFile;

/// What one message moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) bytes: usize,
    /// All that was asked for: there may be more.
    pub(crate) whole: bool,
}

/// A handle by which the other side knows an open file.
pub(crate) trait Remote: Send + Sync + 'static {
    /// Reads as much as one message takes. What the other side says, `EFAULT`, `ENOMEM`.
    fn read_some(&self, sink: &mut Sink, offset: u64) -> Result<Moved>;

    /// Writes as much as one message takes. What the other side says, `EFAULT`, `ENOMEM`.
    fn write_some(&self, source: &mut Source, offset: u64) -> Result<Moved>;

    /// Brings attributes and size of the inode up to what they are at the other side.
    fn ask(&self, inode: &Inode) -> Result<()>;

    /// Makes what was written last.
    fn sync(&self, data_only: bool) -> Result<()>;

    /// fallocate(2). `EOPNOTSUPP`.
    fn allocate(&self, inode: &Inode, mode: u32, offset: u64, len: u64) -> Result<()> {
        let _ = (inode, mode, offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// The content was changed through the handle: attributes that are kept no longer hold.
    fn changed(&self) {}

    /// A descriptor in the table with that number was closed.
    fn flush(&self, table: u64) {
        let _ = table;
    }

    /// Gives the handle back: nobody uses it any more.
    fn release(&self) {}
}

/// Of names that NULs end, those that `keep` wants, as listxattr(2) gives them.
pub(crate) fn filter_names(all: &[u8], keep: &dyn Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut kept = Vec::new();
    for name in all.split(|&b| b == 0).filter(|name| !name.is_empty() && keep(name)) {
        kept.extend_from_slice(name);
        kept.push(0);
    }
    kept
}
