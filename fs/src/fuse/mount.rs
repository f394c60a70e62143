//! Mounting: the options, and the instance as a whole.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::Once;

use super::connection::Connection;
use super::device::Device;
use super::node;
use super::node::{Node, Tree};
use super::wire::{Answer, Attr, Fields, opcode};
use crate::inode_table::InodeTable;
use crate::{Fd, FileSystem, FsContext, FsStats, Inode, SuperBlock, SuperOps};

/// `f_type` of FUSE.
const MAGIC: u32 = 0x6573_5546;

/// The options of a mount.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Options {
    fd: Option<i32>,
    root_mode: Option<u32>,
    user: Option<u32>,
    group: Option<u32>,
    default_permissions: bool,
    allow_other: bool,
}

impl Options {
    /// Reads mount(2)'s data. `EINVAL`.
    fn parse(data: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        for option in data.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            let text = core::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let number = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            match name {
                "fd" => options.fd = Some(value.parse().map_err(|_| Errno::EINVAL)?),
                "rootmode" => {
                    options.root_mode = Some(u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)?);
                }
                "user_id" => options.user = Some(number()?),
                "group_id" => options.group = Some(number()?),
                "default_permissions" => options.default_permissions = true,
                "allow_other" => options.allow_other = true,
                "max_read" | "blksize" => drop(number()?),
                "source" | "subtype" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

/// An instance.
struct Instance {
    tree: Arc<Tree>,
    /// `None` where no program of this machine is behind it.
    options: Option<Options>,
}

impl Instance {
    fn ask(&self) -> Result<FsStats> {
        let reply = self.tree.connection.call(opcode::STATFS, node::ROOT, &Fields::new())?;
        let mut answer = Answer::new(&reply);
        let (blocks, free, available) = (answer.u64()?, answer.u64()?, answer.u64()?);
        let (files, free_files) = (answer.u64()?, answer.u64()?);
        let (size, _name, fragment) = (answer.u32()?, answer.u32()?, answer.u32()?);
        let unit = u128::from(if fragment == 0 { size } else { fragment });
        let pages = |n: u64| u64::try_from(u128::from(n) * unit / 4096).unwrap_or(u64::MAX);
        Ok(FsStats { blocks: pages(blocks), free: pages(free), available: pages(available), files, free_files })
    }
}

impl SuperOps for Instance {
    fn stats(&self) -> FsStats {
        self.ask().unwrap_or_default()
    }

    fn unmounted(&self) {
        if self.options.is_none() {
            // A server outlives the mount, and has to know that it is over.
            let _ = self.tree.connection.call(opcode::DESTROY, 0, &Fields::new());
        }
        self.tree.connection.abort();
    }

    fn revalidates(&self) -> bool {
        true
    }

    fn show_options(&self) -> Vec<u8> {
        let Some(options) = &self.options else { return Vec::new() };
        let (user, group) = (options.user.unwrap_or(0), options.group.unwrap_or(0));
        let mut text = alloc::format!(",user_id={user},group_id={group}").into_bytes();
        if options.default_permissions {
            text.extend_from_slice(b",default_permissions");
        }
        if options.allow_other {
            text.extend_from_slice(b",allow_other");
        }
        text
    }
}

/// The kind "fuse" for mount(2), also as "fuse.PROGRAM".
pub(crate) struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn mount_for(&self, _cx: &FsContext, _source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        let options = Options::parse(options)?;
        let (Some(fd), Some(mode)) = (options.fd, options.root_mode) else { return Err(Errno::EINVAL) };
        if options.user.is_none() || options.group.is_none() {
            return Err(Errno::EINVAL);
        }
        let open = crate::callers::get()?.descriptor(fd as Fd).map_err(|_| Errno::EINVAL)?;
        let device = open.file().downcast::<Device>().filter(|device| device.is_free()).ok_or(Errno::EINVAL)?;
        let connection = Connection::new()?;
        device.connect(&connection)?;
        let only = if options.allow_other { None } else { options.user };
        let attr = Attr { mode, nlink: 1, number: node::ROOT, ..Attr::default() };
        root_of("fuse", &connection, Some(options), only, &attr)
    }
}

/// Mounts what a server outside of the machine has: its root. `EIO`, `ENOMEM`, `ENOTCONN`.
pub(super) fn mount_server(connection: &Arc<Connection>) -> Result<Arc<Inode>> {
    let reply = connection.call(opcode::GETATTR, node::ROOT, &Fields::new().u32(0).u32(0).u64(0))?;
    root_of("virtiofs", connection, None, None, &Attr::out(&reply)?)
}

fn root_of(
    kind: &'static str,
    connection: &Arc<Connection>,
    options: Option<Options>,
    only: Option<u32>,
    attr: &Attr,
) -> Result<Arc<Inode>> {
    let connection = connection.clone();
    let tree = Arc::new(Tree { connection, superblock: Once::new(), known: InodeTable::new(), only });
    let superblock = SuperBlock::new(kind, MAGIC, Box::new(Instance { tree: tree.clone(), options }));
    let _ = tree.superblock.set(Arc::downgrade(&superblock) as Weak<SuperBlock>);
    Node::get(&tree, node::ROOT, attr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_fuse() {
        let right =
            Options::parse(b"fd=3,rootmode=40755,user_id=5,group_id=6,allow_other,max_read=4096").expect("right");
        assert_eq!((right.fd, right.root_mode, right.user, right.group), (Some(3), Some(0o40755), Some(5), Some(6)));
        for wrong in [&b"fd=x"[..], b"rootmode=9", b"what", b"max_read=big"] {
            assert_eq!(Options::parse(wrong), Err(Errno::EINVAL));
        }
    }
}
