//! Mounting: the options, and the instance as a whole.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::Once;

use super::node::{Node, Tree};
use super::session::{Fid, Session};
use super::wire::Reader;
use crate::inode_table::InodeTable;
use crate::{FileSystem, FsStats, Inode, SuperBlock, SuperOps};

/// `f_type` of 9P (V9FS_MAGIC).
const MAGIC: u32 = 0x0102_1997;
/// The message size where none is asked for: as much as one message can have.
const MESSAGE: u32 = 132 << 10;

/// The options of a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Options {
    message: u32,
    cached: bool,
    user: Vec<u8>,
    tree: Vec<u8>,
    uid: u32,
}

impl Options {
    /// Reads mount(2)'s data. `EINVAL`; what is unknown is ignored, as Linux does.
    fn parse(data: &[u8]) -> Result<Options> {
        let mut options =
            Options { message: MESSAGE, cached: false, user: b"nobody".to_vec(), tree: Vec::new(), uid: 0 };
        let number =
            |text: &[u8]| core::str::from_utf8(text).ok().and_then(|t| t.parse::<u32>().ok()).ok_or(Errno::EINVAL);
        for option in data.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            let cut = option.iter().position(|&b| b == b'=').unwrap_or(option.len());
            let (name, value) = (&option[..cut], option.get(cut + 1..).unwrap_or_default());
            match name {
                b"trans" if value != b"virtio" => return Err(Errno::EINVAL),
                b"version" if value != b"9p2000.L" => return Err(Errno::EINVAL),
                b"msize" => options.message = Some(number(value)?).filter(|&n| n >= 4096).ok_or(Errno::EINVAL)?,
                b"cache" => {
                    options.cached = match value {
                        b"none" | b"mmap" | b"0" => false,
                        b"loose" | b"fscache" | b"readahead" => true,
                        _ => return Err(Errno::EINVAL),
                    }
                }
                b"loose" => options.cached = true,
                b"uname" => options.user = value.to_vec(),
                b"aname" => options.tree = value.to_vec(),
                b"dfltuid" => options.uid = number(value)?,
                b"access" if !matches!(value, b"user" | b"any" | b"client") => {
                    number(value)?;
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// An instance.
struct Instance {
    tree: Arc<Tree>,
    root: Arc<Fid>,
    options: Options,
}

impl Instance {
    fn ask(&self) -> Result<FsStats> {
        let reply = self.root.statfs()?;
        let mut reader = Reader::new(&reply);
        let (_kind, size) = (reader.u32()?, u64::from(reader.u32()?));
        let blocks = |n: u64| (u128::from(n) * u128::from(size) / 4096).min(u128::from(u64::MAX)) as u64;
        let (total, free, available) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (files, free_files) = (reader.u64()?, reader.u64()?);
        Ok(FsStats { blocks: blocks(total), free: blocks(free), available: blocks(available), files, free_files })
    }

    fn write_back(&self) -> Result<()> {
        let mut result = Ok(());
        for inode in self.tree.known.all() {
            if let Some(cache) = inode.ops().page_cache().filter(|cache| cache.is_dirty()) {
                result = cache.sync_range(0, u64::MAX).and(result);
            }
        }
        result
    }
}

impl SuperOps for Instance {
    fn stats(&self) -> FsStats {
        self.ask().unwrap_or_default()
    }

    fn sync(&self) -> Result<()> {
        self.write_back()
    }

    fn unmounted(&self) {
        if let Err(error) = self.write_back() {
            log::warn!("9p: {error} while writing back");
        }
    }

    fn revalidates(&self) -> bool {
        !self.tree.cached
    }

    fn show_options(&self) -> Vec<u8> {
        let mut text = b",access=client".to_vec();
        if self.options.cached {
            text.extend_from_slice(b",cache=loose");
        }
        text.extend_from_slice(b",trans=virtio");
        text
    }
}

/// The kind "9p" for mount(2), whose source is a server's tag.
pub(crate) struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "9p"
    }

    fn mount(&self, source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        let options = Options::parse(options)?;
        let session = Session::new(super::server(source)?, options.message)?;
        let root = session.attach(&options.user, &options.tree, options.uid)?;
        let stat = root.stat()?;
        let tree = Arc::new(Tree { cached: options.cached, superblock: Once::new(), known: InodeTable::new() });
        let instance = Instance { tree: tree.clone(), root: root.walk(None)?, options };
        let superblock = SuperBlock::new("9p", MAGIC, Box::new(instance));
        let _ = tree.superblock.set(Arc::downgrade(&superblock));
        let inode = Node::get(&tree, root, &stat)?;
        if inode.is_dir() { Ok(inode) } else { Err(Errno::ENOTDIR) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_choose_what_is_kept() {
        let parse = |data: &[u8]| Options::parse(data);
        assert!(!parse(b"trans=virtio,version=9p2000.L").expect("right").cached);
        assert!(parse(b"cache=loose,msize=8192").expect("right").cached);
        assert_eq!(parse(b"msize=8192").expect("right").message, 8192);
        for wrong in [&b"trans=tcp"[..], b"version=9p2000.u", b"msize=12", b"cache=what", b"access=x"] {
            assert_eq!(parse(wrong), Err(Errno::EINVAL));
        }
    }
}
