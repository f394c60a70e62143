//! procfs: a file system whose directories and files are made up when they are looked at.
//!
//! [`node`] is the frame: nodes made of small traits or closures, turned into inodes. Entries of the root come from [`register_root`];
//! numeric names, `self` and `thread-self` from the [`PidRoot`] that the process layer registers. [`system`] has the files that are about
//! the system as a whole.

mod cpuinfo;
mod inode;
mod node;
mod sysctl;
pub mod system;
mod view;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Result;
use hal::sync::{Once, SpinLock};

pub use inode::mount_node;
pub use node::{
    Check, FixedDir, Listed, Node, Opener, ProcDir, ProcFile, ProcLink, Shape, dir, file, file_rw, link, open_with,
};

pub use sysctl::{number, register_sysctl};
use view::{Instance, View};

use crate::{FileKind, FileSystem, Inode};

/// `f_type` of procfs.
pub const MAGIC: u32 = 0x9fa0;

/// Where the names of processes in `/proc` come from.
pub trait PidRoot: Send + Sync {
    /// The node under `name`: a process's directory, `self` or `thread-self`. None if there is no such process.
    fn lookup(&self, name: &[u8]) -> Option<Node>;
    /// The processes to list, ascending, from `from` on.
    fn list(&self, from: u32) -> Vec<u32>;
    /// Is `name` that of a process or thread into which the caller may look, as ptrace(2) rules?
    fn may_inspect(&self, name: &[u8]) -> bool;
}

static PIDS: Once<Arc<dyn PidRoot>> = Once::new();
static ENTRIES: SpinLock<Vec<(&'static str, Node)>> = SpinLock::new(Vec::new());

/// Registers the processes. Once, at boot.
pub fn register_pids(pids: Arc<dyn PidRoot>) {
    assert!(PIDS.set(pids).is_ok(), "the process root of procfs is set twice");
}

/// Adds an entry to `/proc`.
pub fn register_root(name: &'static str, node: Node) {
    ENTRIES.lock().push((name, node));
}

/// The root directory of a mount.
struct Root(Arc<View>);

/// Positions from here on are processes, before it the fixed entries.
const PIDS_AT: u64 = 1 << 16;

impl ProcDir for Root {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let shown = |entry: &&(&str, Node)| entry.0.as_bytes() == name && self.0.shows(entry.0);
        let fixed = ENTRIES.lock().iter().find(shown).map(|(_, node)| node.clone());
        if fixed.is_some() {
            return fixed;
        }
        let pids = PIDS.get()?;
        let node = pids.lookup(name)?;
        if matches!(node.shape, Shape::Link(_)) { Some(node) } else { self.0.guard(&**pids, name, node) }
    }

    fn is_fixed(&self, name: &[u8]) -> bool {
        ENTRIES.lock().iter().any(|(n, _)| n.as_bytes() == name)
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut entries = ENTRIES.lock().clone();
        entries.retain(|(name, _)| self.0.shows(name));
        let mut next = position;
        if position < PIDS_AT {
            for (at, (name, node)) in entries.iter().enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
                if !emit(&Listed { name: name.as_bytes(), kind: node.kind(), next: at as u64 + 1 }) {
                    return next;
                }
                next = at as u64 + 1;
            }
            for (at, name) in ["self", "thread-self"].iter().enumerate() {
                let position = PIDS_AT - 2 + at as u64;
                if next > position {
                    continue;
                }
                if !emit(&Listed { name: name.as_bytes(), kind: FileKind::Symlink, next: position + 1 }) {
                    return next;
                }
                next = position + 1;
            }
        }
        let Some(pids) = PIDS.get() else { return next };
        let from = u32::try_from(next.saturating_sub(PIDS_AT)).unwrap_or(u32::MAX);
        for pid in pids.list(from) {
            let after = PIDS_AT + u64::from(pid) + 1;
            let name = alloc::format!("{pid}");
            if !self.0.lists(&**pids, name.as_bytes()) {
                continue;
            }
            if !emit(&Listed { name: name.as_bytes(), kind: FileKind::Directory, next: after }) {
                return next;
            }
            next = after;
        }
        next
    }
}

/// The kind "proc" for mount(2). Each mount is a file system of its own, whose options say what it shows (proc(5)).
pub struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "proc"
    }

    fn mount(&self, _source: &[u8], options: &[u8]) -> Result<Arc<Inode>> {
        let view = Arc::new(View::new(options)?);
        let root = Node::dir_of(Root(view.clone())).mode(0o555);
        Ok(inode::mount_with("proc", MAGIC, root, Box::new(Instance(view))))
    }
}
