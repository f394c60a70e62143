//! Files without a name: pipes, sockets, event counters, ... They live on mounts that the kernel keeps to itself.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use hal::sync::Once;

use crate::open_file::Hold;
use crate::vfs::superblock::NoSuperOps;
use crate::{
    Dentry, DeviceNumber, File, FileKind, FsContext, Inode, InodeOps, Mount, NewInode, OpenFile, OpenFlags, Path,
    SuperBlock,
};

/// A family of nameless files: what `/proc/PID/fd` calls them, `statfs` tells and `stat` shows.
pub struct Family {
    kind: &'static str,
    magic: u32,
    mount: Once<Arc<Mount>>,
}

/// Pipes.
pub static PIPES: Family = Family::new("pipefs", 0x5049_5045);
/// Sockets.
pub static SOCKETS: Family = Family::new("sockfs", 0x534F_434B);
/// eventfd, epoll and the like, which share one inode.
pub static ANONYMOUS: Family = Family::new("anon_inodefs", 0x0904_1934);
/// The files of `/proc/PID/ns`.
pub static NAMESPACES: Family = Family::new("nsfs", 0x6e73_6673);
/// memfd_create(2) and shared anonymous memory.
pub static MEMORY: Family = Family::new("tmpfs", 0x0102_1994);

struct Plain;

impl InodeOps for Plain {}

impl Family {
    const fn new(kind: &'static str, magic: u32) -> Family {
        Family { kind, magic, mount: Once::new() }
    }

    /// What `statfs` tells of it.
    pub fn magic(&self) -> u32 {
        self.magic
    }

    fn mount(&self) -> &Arc<Mount> {
        self.mount.get_or_init(|| {
            let superblock = SuperBlock::new(self.kind, self.magic, Box::new(NoSuperOps));
            let new = new_inode(FileKind::Directory, 0o600, 0, 0);
            let number = superblock.new_inode_number();
            Mount::internal(Inode::new(&superblock, number, &new, Box::new(Plain)))
        })
    }

    /// A new inode of the family.
    pub fn inode(
        &self,
        kind: FileKind,
        mode: u32,
        cx: Option<&FsContext>,
        ops: Option<Box<dyn InodeOps>>,
    ) -> Arc<Inode> {
        let superblock = &self.mount().superblock;
        let (uid, gid) = cx.map_or((0, 0), |cx| (cx.cred.fsuid, cx.cred.fsgid));
        let ops = ops.unwrap_or_else(|| Box::new(Plain));
        Inode::new(superblock, superblock.new_inode_number(), &new_inode(kind, mode, uid, gid), ops)
    }

    /// A new inode of the family, root's, with that number.
    pub fn inode_with(&self, number: u64, kind: FileKind, mode: u32, ops: Box<dyn InodeOps>) -> Arc<Inode> {
        Inode::new(&self.mount().superblock, number, &new_inode(kind, mode, 0, 0), ops)
    }

    /// The path that names such an inode `name`.
    pub fn path(&self, inode: &Arc<Inode>, name: &[u8]) -> Path {
        Path { mount: self.mount().clone(), dentry: Dentry::root(inode.clone(), name) }
    }

    /// The path that names such an inode `label:[number]`.
    pub fn numbered_path(&self, inode: &Arc<Inode>, label: &str) -> Path {
        self.path(inode, format!("{label}:[{}]", inode.number()).as_bytes())
    }
}

fn new_inode(kind: FileKind, mode: u32, uid: u32, gid: u32) -> NewInode<'static> {
    NewInode { kind, mode, uid, gid, rdev: DeviceNumber::default(), target: b"" }
}

/// An open file on an object like an event counter, shown as `anon_inode:NAME`.
pub fn open_anonymous(file: Arc<dyn File>, name: &str, flags: OpenFlags) -> Arc<OpenFile> {
    static SHARED: Once<Arc<Inode>> = Once::new();
    let inode = SHARED.get_or_init(|| ANONYMOUS.inode(FileKind::None, 0o600, None, None));
    let path = ANONYMOUS.path(inode, format!("anon_inode:{name}").as_bytes());
    OpenFile::new(file, path, inode.clone(), flags, Hold::None)
}
