//! What is under a name: the uppermost layer that has it decides, and directories are merged with those below.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::node::{Parts, Place};
use super::{Node, Overlay, real};
use crate::vfs::dentry::NAME_MAX;
use crate::{Dentry, Inode};

/// The longest path that a redirection names.
const REDIRECT_MAX: usize = 4096;
/// The most components of such a path.
const COMPONENTS_MAX: usize = 512;

/// Where the layers below are asked next.
enum Below {
    /// Nowhere: the search is over.
    Nothing,
    /// For this name in the directories that the parent merges.
    Name(Vec<u8>),
    /// For this path from each layer's root.
    Path(Vec<u8>),
}

impl Node {
    /// The inode under `name`; the directory is locked. `EIO`, `ENAMETOOLONG`, `EPERM` (what we can't read).
    pub(super) fn find(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Option<Arc<Inode>>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let Some(parts) = self.parts_of(name)? else { return Ok(None) };
        let place = Place { parent: dir.clone(), name: name.into() };
        Node::get(&self.fs, parts, Some(place)).map(Some)
    }

    /// The layers' files under `name`.
    fn parts_of(&self, name: &[u8]) -> Result<Option<Parts>> {
        let mut below = Below::Name(name.to_vec());
        let upper = match self.upper.get() {
            Some(upper) => real::lookup(upper, name)?,
            None => None,
        };
        if let Some(found) = &upper {
            let inode = real::inode(found)?;
            if real::is_whiteout(inode) {
                return Ok(None);
            }
            if !inode.is_dir() {
                return self.upper_file(name, found.clone()).map(Some);
            }
            below = self.fs.below(inode, name)?;
        }
        let lowers = self.lower_parts(upper.is_some(), below)?;
        if upper.is_none() && lowers.is_empty() {
            return Ok(None);
        }
        let copied = upper.is_some() && !lowers.is_empty();
        Ok(Some(Parts { upper, lowers, copied }))
    }

    /// A file of the upper layer that is no directory; the lower one of its name may be what it was copied from.
    fn upper_file(&self, name: &[u8], upper: Arc<Dentry>) -> Result<Parts> {
        let inode = real::inode(&upper)?;
        if self.fs.own(inode, b"metacopy").is_some() {
            // Its content is elsewhere, where we don't look for it.
            return Err(Errno::EPERM);
        }
        if self.fs.own(inode, b"origin").is_some()
            && let Some(lower) = self.lower_file(name)?
            && self.fs.is_origin(inode, real::inode(&lower)?)
        {
            return Ok(Parts { upper: Some(upper), lowers: alloc::vec![lower], copied: true });
        }
        Ok(Parts { upper: Some(upper), lowers: Vec::new(), copied: false })
    }

    /// The file that the lower layers show under `name`.
    pub(super) fn lower_file(&self, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        for dir in self.merged_lowers() {
            if let Some(found) = real::lookup(dir, name)? {
                return Ok((!real::is_whiteout(real::inode(&found)?)).then_some(found));
            }
        }
        Ok(None)
    }

    /// The lower directories that it merges; none for a file.
    pub(super) fn merged_lowers(&self) -> &[Arc<Dentry>] {
        if self.real().is_dir() { &self.lowers } else { &[] }
    }

    /// The lower layers' files: directories until one hides those below, or one other file. `have_dir`: there is a directory above.
    fn lower_parts(&self, have_dir: bool, mut below: Below) -> Result<Vec<Arc<Dentry>>> {
        let mut found: Vec<Arc<Dentry>> = Vec::new();
        let parents = self.merged_lowers();
        let layers: Vec<Arc<Dentry>> = match below {
            Below::Nothing => return Ok(found),
            Below::Name(_) => parents.to_vec(),
            Below::Path(_) => self.fs.lowers.iter().map(|layer| layer.root.clone()).collect(),
        };
        let mut at = layers.into_iter();
        while let Some(dir) = at.next() {
            let entry = match &below {
                Below::Nothing => break,
                Below::Name(name) => real::lookup(&dir, name)?,
                Below::Path(path) => walk(&dir, path)?,
            };
            let Some(entry) = entry else { continue };
            let inode = real::inode(&entry)?;
            if real::is_whiteout(inode) {
                break;
            }
            if !inode.is_dir() {
                if !have_dir && found.is_empty() {
                    found.push(entry);
                }
                break;
            }
            let name = entry.name();
            let next = self.fs.below(inode, &name)?;
            // A redirection to elsewhere goes on from the roots of the layers below this one.
            if let Below::Path(_) = next {
                let of = entry_layer(&self.fs, &entry);
                at = self.fs.lowers.iter().skip(of + 1).map(|layer| layer.root.clone()).collect::<Vec<_>>().into_iter();
            }
            let over = matches!(next, Below::Nothing);
            if matches!(next, Below::Path(_)) || matches!(below, Below::Name(_)) {
                below = next;
            }
            found.push(entry);
            if over {
                break;
            }
        }
        Ok(found)
    }
}

/// The layer that an entry is in, by its file system and place. The first where that can't be told.
fn entry_layer(fs: &Overlay, entry: &Arc<Dentry>) -> usize {
    fs.lowers.iter().position(|layer| entry.is_below(&layer.root)).unwrap_or(0)
}

/// The entry at `path` (components separated by slashes) below `root`.
fn walk(root: &Arc<Dentry>, path: &[u8]) -> Result<Option<Arc<Dentry>>> {
    let mut at = root.clone();
    for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()).take(COMPONENTS_MAX) {
        let inode = real::inode(&at)?;
        if !inode.is_dir() || name == b"." || name == b".." {
            return Ok(None);
        }
        match real::lookup(&at, name)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

impl Overlay {
    /// Where the layers below a directory called `name` are asked: where it says, nowhere if it is opaque. `EPERM` for a redirection
    /// that is not to be followed.
    fn below(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Below> {
        if self.is_opaque(dir) {
            return Ok(Below::Nothing);
        }
        let Some(redirect) = self.own(dir, b"redirect") else { return Ok(Below::Name(name.to_vec())) };
        if !self.options.follows() {
            return Err(Errno::EPERM);
        }
        let well_formed = !redirect.is_empty() && redirect.len() < REDIRECT_MAX && !redirect.contains(&0);
        match redirect.first() {
            Some(b'/') if well_formed => Ok(Below::Path(redirect)),
            Some(_) if well_formed && !redirect.contains(&b'/') => Ok(Below::Name(redirect)),
            _ => Err(Errno::EINVAL),
        }
    }
}
