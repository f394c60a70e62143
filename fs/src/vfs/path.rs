//! Paths: places in the tree of mounts.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use crate::{Dentry, Inode, Mount};

/// A file or directory as a name led to it: which mount, and where in it.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The entry in the mounted file system.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }
}

/// How a path is related to the root that it is to be shown from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Below the root.
    Below,
    /// In a mount that is not attached to the tree of that root.
    Detached,
    /// A file that never had a name in a directory.
    Nameless,
}

impl Path {
    /// The inode. `ENOENT` where the path names nothing (a negative entry; operations don't hand those out).
    #[inline]
    pub fn inode(&self) -> Result<&Arc<Inode>> {
        self.dentry.inode().ok_or(Errno::ENOENT)
    }

    /// Is it the root of its mount?
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// The name from `root` on, and how it is to be read.
    fn name_from(&self, root: &Path) -> (Vec<u8>, Reach) {
        let mut components: Vec<Vec<u8>> = Vec::new();
        let mut at = self.clone();
        let reach = loop {
            if at == *root {
                break Reach::Below;
            }
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(place) => at = place,
                    None => break if at.mount.is_internal() { Reach::Nameless } else { Reach::Detached },
                }
                continue;
            }
            match at.dentry.place() {
                Some((parent, name)) => {
                    components.push(name);
                    at.dentry = parent;
                }
                None => break Reach::Nameless,
            }
        };
        if reach == Reach::Nameless && components.is_empty() {
            return (self.dentry.name(), reach);
        }
        let mut name = Vec::new();
        for component in components.iter().rev() {
            name.push(b'/');
            name.extend_from_slice(component);
        }
        if name.is_empty() {
            name.push(b'/');
        }
        (name, reach)
    }

    /// The name as links in `/proc` show it: from `root` if it is below, ` (deleted)` added where the name is gone.
    pub fn name_for_display(&self, root: &Path) -> Vec<u8> {
        let (mut name, reach) = self.name_from(root);
        let unlinked = self.dentry.is_gone() || reach == Reach::Nameless && name.starts_with(b"/");
        if unlinked {
            name.extend_from_slice(b" (deleted)");
        }
        name
    }

    /// The name for getcwd(2): `ENOENT` where the directory was removed; `(unreachable)` in front where it isn't below `root`.
    pub fn name_for_cwd(&self, root: &Path) -> Result<Vec<u8>> {
        if self.dentry.is_gone() {
            return Err(Errno::ENOENT);
        }
        let (name, reach) = self.name_from(root);
        if reach == Reach::Below {
            return Ok(name);
        }
        let mut marked = b"(unreachable)".to_vec();
        marked.extend_from_slice(&name);
        Ok(marked)
    }

    /// The name within the mounted file system, for `/proc/PID/mountinfo`.
    pub fn name_in_mount(&self) -> Vec<u8> {
        let mut components = Vec::new();
        let mut at = self.dentry.clone();
        while let Some((parent, name)) = at.place() {
            components.push(name);
            at = parent;
        }
        let mut name = Vec::new();
        for component in components.iter().rev() {
            name.push(b'/');
            name.extend_from_slice(component);
        }
        if name.is_empty() {
            name.push(b'/');
        }
        name
    }
}
