//! Extended attributes: those of the file, without overlayfs's own.

use alloc::vec::Vec;

use base::{Errno, Result};

use super::{Node, Overlay};
use crate::Inode;
use crate::xattr::{SetMode, XattrStore};

impl Overlay {
    fn own_name(&self, name: &[u8]) -> Vec<u8> {
        [self.prefix(), name].concat()
    }

    /// An attribute of ours on a layer's file.
    pub(super) fn own(&self, inode: &Inode, name: &[u8]) -> Option<Vec<u8>> {
        inode.ops().xattrs()?.get(&self.own_name(name)).ok()
    }

    /// Sets an attribute of ours. `EOPNOTSUPP` where the upper layer has none, `ENOSPC`, `EIO`.
    pub(super) fn set_own(&self, inode: &Inode, name: &[u8], value: &[u8]) -> Result<()> {
        if !self.upper.as_ref().is_some_and(|upper| upper.xattrs) {
            return Err(Errno::EOPNOTSUPP);
        }
        inode.ops().xattrs().ok_or(Errno::EOPNOTSUPP)?.set(&self.own_name(name), value, SetMode::Any)
    }

    /// Is it an attribute of ours?
    pub(super) fn is_own(&self, name: &[u8]) -> bool {
        name.starts_with(self.prefix())
    }

    /// Does the directory hide those of its name in the layers below?
    pub(super) fn is_opaque(&self, dir: &Inode) -> bool {
        self.own(dir, b"opaque").is_some_and(|value| value == b"y")
    }

    /// Makes it hide them. Those that can't have the attribute can't be told from others after the next mount: `EIO`.
    pub(super) fn make_opaque(&self, dir: &Inode) -> Result<()> {
        self.set_own(dir, b"opaque", b"y").map_err(|_| Errno::EIO)
    }
}

impl XattrStore for Node {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        if self.fs.is_own(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.real().ops().xattrs().ok_or(Errno::EOPNOTSUPP)?.get(name)
    }

    fn set(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        if self.fs.is_own(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let upper = self.copy_up(None)?;
        upper.ops().xattrs().ok_or(Errno::EOPNOTSUPP)?.set(name, value, mode)?;
        upper.acls.forget();
        upper.changed();
        Ok(())
    }

    fn remove(&self, name: &[u8]) -> Result<()> {
        if self.fs.is_own(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        // What is not there needs no copy to be missed.
        self.real().ops().xattrs().ok_or(Errno::EOPNOTSUPP)?.get(name)?;
        let upper = self.copy_up(None)?;
        upper.ops().xattrs().ok_or(Errno::EOPNOTSUPP)?.remove(name)?;
        upper.acls.forget();
        upper.changed();
        Ok(())
    }

    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let store = self.real().ops().xattrs().ok_or(Errno::EOPNOTSUPP)?;
        store.list(&|name| !self.fs.is_own(name) && keep(name))
    }
}
