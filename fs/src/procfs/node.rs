//! What files of procfs and sysfs are made of.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use sched::WaitQueue;

use crate::{Access, File, FileKind, FsContext, LinkTarget, OpenFlags};

/// An entry of a listing.
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The type.
    pub kind: FileKind,
    /// The position after it.
    pub next: u64,
}

/// A directory.
pub trait ProcDir: Send + Sync {
    /// The node under a name.
    fn lookup(&self, name: &[u8]) -> Option<Node>;

    /// Lists from a position on (0 at first) until `emit` gives false; the position after the last entry taken.
    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64;

    /// Will `name` always lead to the same node? Then it may be cached, and mounted upon.
    fn is_fixed(&self, name: &[u8]) -> bool {
        let _ = name;
        false
    }
}

/// A file whose content is made when it is read.
pub trait ProcFile: Send + Sync {
    /// The whole content. Asked for when a reader starts at the beginning.
    fn read(&self) -> Result<Vec<u8>>;

    /// A write; all of what one write(2) gave (at most a page). `EINVAL`.
    fn write(&self, data: &[u8]) -> Result<()> {
        let _ = data;
        Err(Errno::EIO)
    }

    /// A check when it is opened, beside the mode bits.
    fn may_open(&self, flags: OpenFlags, cx: &FsContext) -> Result<()> {
        let _ = (flags, cx);
        Ok(())
    }

    /// For content whose changes poll(2) tells: what is woken then, and a number that changes with it.
    fn news(&self) -> Option<(Arc<WaitQueue>, u64)> {
        None
    }
}

/// A symbolic link.
pub trait ProcLink: Send + Sync {
    /// Where it leads. `ENOENT`, `EACCES`.
    fn target(&self, cx: &FsContext) -> Result<LinkTarget>;

    /// What readlink(2) shows, where that differs from the path of the target (` (deleted)`, `socket:[7]`).
    fn text(&self, cx: &FsContext) -> Result<Vec<u8>> {
        match self.target(cx)? {
            LinkTarget::Path(path) => Ok(path),
            LinkTarget::File(path) => Ok(path.name_for_display(&cx.root)),
        }
    }
}

/// Opens a file in a way of its own.
pub type Opener = dyn Fn(OpenFlags, &FsContext) -> Result<Arc<dyn File>> + Send + Sync;

/// What a node is.
#[derive(Clone)]
pub enum Shape {
    /// A directory.
    Dir(Arc<dyn ProcDir>),
    /// A file with content.
    File(Arc<dyn ProcFile>),
    /// A symbolic link.
    Link(Arc<dyn ProcLink>),
    /// A file that opens as an object of its own (`/proc/PID/mem`, `/proc/kmsg`).
    Open(Arc<Opener>),
}

/// A check on each use of a node beside its mode bits.
pub type Check = dyn Fn(Access) -> Result<()> + Send + Sync;

/// A node: what it is, and its attributes.
#[derive(Clone)]
pub struct Node {
    /// What it is.
    pub shape: Shape,
    /// The permission bits.
    pub mode: u32,
    /// The owner and group.
    pub owner: (u32, u32),
    /// The inode number; 0 for one that is made up.
    pub inode: u64,
    /// A check beside the mode bits.
    pub check: Option<Arc<Check>>,
}

impl Node {
    /// A node of root's, with the usual mode for its shape (directories 0555, files 0444, links 0777).
    pub fn new(shape: Shape) -> Node {
        let mode = match shape {
            Shape::Dir(_) => 0o555,
            Shape::File(_) | Shape::Open(_) => 0o444,
            Shape::Link(_) => 0o777,
        };
        Node { shape, mode, owner: (0, 0), inode: 0, check: None }
    }

    /// A directory.
    pub fn dir_of(dir: impl ProcDir + 'static) -> Node {
        Node::new(Shape::Dir(Arc::new(dir)))
    }

    /// A file.
    pub fn file_of(file: impl ProcFile + 'static) -> Node {
        Node::new(Shape::File(Arc::new(file)))
    }

    /// A symbolic link.
    pub fn link_of(link: impl ProcLink + 'static) -> Node {
        Node::new(Shape::Link(Arc::new(link)))
    }

    /// The same with other permission bits.
    pub fn mode(mut self, mode: u32) -> Node {
        self.mode = mode;
        self
    }

    /// The same with another owner and group.
    pub fn owner(mut self, uid: u32, gid: u32) -> Node {
        self.owner = (uid, gid);
        self
    }

    /// The same with an inode number that stays.
    pub fn inode(mut self, number: u64) -> Node {
        self.inode = number;
        self
    }

    /// The same with a check beside the mode bits.
    pub fn check(mut self, check: impl Fn(Access) -> Result<()> + Send + Sync + 'static) -> Node {
        self.check = Some(Arc::new(check));
        self
    }

    /// The type of file that it shows as.
    pub fn kind(&self) -> FileKind {
        match self.shape {
            Shape::Dir(_) => FileKind::Directory,
            Shape::File(_) | Shape::Open(_) => FileKind::Regular,
            Shape::Link(_) => FileKind::Symlink,
        }
    }
}

struct ReadWith<R>(R);

impl<R: Fn() -> Result<Vec<u8>> + Send + Sync> ProcFile for ReadWith<R> {
    fn read(&self) -> Result<Vec<u8>> {
        (self.0)()
    }
}

struct ReadWriteWith<R, W>(R, W);

impl<R, W> ProcFile for ReadWriteWith<R, W>
where
    R: Fn() -> Result<Vec<u8>> + Send + Sync,
    W: Fn(&[u8]) -> Result<()> + Send + Sync,
{
    fn read(&self) -> Result<Vec<u8>> {
        (self.0)()
    }

    fn write(&self, data: &[u8]) -> Result<()> {
        (self.1)(data)
    }
}

struct LinkWith<T>(T);

impl<T: Fn(&FsContext) -> Result<LinkTarget> + Send + Sync> ProcLink for LinkWith<T> {
    fn target(&self, cx: &FsContext) -> Result<LinkTarget> {
        (self.0)(cx)
    }
}

/// A file that a function makes.
pub fn file(read: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Node {
    Node::file_of(ReadWith(read))
}

/// A file that functions read and write; mode 0644.
pub fn file_rw(
    read: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static,
    write: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
) -> Node {
    Node::file_of(ReadWriteWith(read, write)).mode(0o644)
}

/// A link whose target a function gives.
pub fn link(target: impl Fn(&FsContext) -> Result<LinkTarget> + Send + Sync + 'static) -> Node {
    Node::link_of(LinkWith(target))
}

/// A file that a function opens.
pub fn open_with(open: impl Fn(OpenFlags, &FsContext) -> Result<Arc<dyn File>> + Send + Sync + 'static) -> Node {
    Node::new(Shape::Open(Arc::new(open)))
}

/// A directory with entries that don't change.
pub struct FixedDir(pub Vec<(&'static str, Node)>);

impl ProcDir for FixedDir {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        self.0.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, node)| node.clone())
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut next = position;
        for (at, (name, node)) in self.0.iter().enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            if !emit(&Listed { name: name.as_bytes(), kind: node.kind(), next: at as u64 + 1 }) {
                break;
            }
            next = at as u64 + 1;
        }
        next
    }

    fn is_fixed(&self, _name: &[u8]) -> bool {
        true
    }
}

/// A directory with entries that don't change.
pub fn dir(entries: Vec<(&'static str, Node)>) -> Node {
    Node::dir_of(FixedDir(entries))
}
