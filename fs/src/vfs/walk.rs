//! Path walk: from a path's bytes to the file that it names.
//!
//! Steps through the cache of names, one component at a time, checking search permission, stepping into mounts and following symbolic
//! links. A component that the cache knows costs no allocation.

use alloc::sync::Arc;

use base::{Errno, Result};
use bitflags::bitflags;

use crate::vfs::{mount, permission};
use crate::{Access, Dentry, FileKind, FsContext, Inode, LinkTarget, MountFlags, Path};

/// How many symbolic links a walk follows before `ELOOP`.
const LINKS_MAX: u32 = 40;

bitflags! {
    /// RESOLVE_* of openat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Resolve: u64 {
        /// Don't leave the mount: `EXDEV`.
        const NO_XDEV = 1;
        /// Don't follow links like `/proc/PID/fd/N`: `ELOOP`.
        const NO_MAGICLINKS = 2;
        /// Don't follow any symbolic links: `ELOOP`.
        const NO_SYMLINKS = 4;
        /// Don't leave the directory that the walk starts in: `EXDEV`.
        const BENEATH = 8;
        /// Take that directory for the root.
        const IN_ROOT = 16;
        /// Only what is cached: `EAGAIN`.
        const CACHED = 32;
    }
}

/// What the last component of a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last<'p> {
    /// A name, in the directory that the walk reached.
    Name(&'p [u8]),
    /// `.`, or the path is all slashes: the directory that the walk reached.
    Here,
    /// `..`: the parent of the directory that the walk reached.
    Up,
}

/// The end of a walk to the parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail<'p> {
    /// The last component.
    pub last: Last<'p>,
    /// Slashes follow it: it must be a directory.
    pub slash: bool,
}

/// Cuts the first component off a path: it, and what follows its slashes.
fn split_first(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|&b| b == b'/').unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    (name, skip_slashes(rest))
}

fn skip_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    &path[start..]
}

/// A walk under way.
pub struct Walk<'c> {
    cx: &'c FsContext,
    root: &'c Path,
    resolve: Resolve,
    links: u32,
    /// Where it has come to.
    pub at: Path,
}

impl<'c> Walk<'c> {
    /// A walk that starts in `base` (None: the working directory).
    pub fn new(cx: &'c FsContext, base: Option<&'c Path>, resolve: Resolve) -> Walk<'c> {
        let base = base.unwrap_or(&cx.cwd);
        let scoped = resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
        Walk { cx, root: if scoped { base } else { &cx.root }, resolve, links: 0, at: base.clone() }
    }

    /// Walks all of `path`; the last component's symbolic link is followed if `follow` or if slashes follow it.
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, `EXDEV`.
    pub fn to_end(&mut self, path: &[u8], follow: bool) -> Result<()> {
        let tail = self.to_parent(path)?;
        self.finish(tail, follow)
    }

    /// Takes the last step after [`Walk::to_parent`].
    pub fn finish(&mut self, tail: Tail, follow: bool) -> Result<()> {
        match tail.last {
            Last::Here => self.must_be_dir(),
            Last::Up => self.up(),
            Last::Name(name) => self.step(name, follow || tail.slash, tail.slash),
        }
    }

    /// Walks to the directory that has the last component.
    pub fn to_parent<'p>(&mut self, path: &'p [u8]) -> Result<Tail<'p>> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path[0] == b'/' {
            self.go_to_root()?;
        }
        let mut rest = skip_slashes(path);
        if rest.is_empty() {
            return Ok(Tail { last: Last::Here, slash: true });
        }
        loop {
            let (name, after) = split_first(rest);
            self.may_search()?;
            if after.is_empty() {
                let slash = rest.len() > name.len();
                let last = match name {
                    b"." => Last::Here,
                    b".." => Last::Up,
                    _ => Last::Name(name),
                };
                return Ok(Tail { last, slash });
            }
            match name {
                b"." => {}
                b".." => self.up()?,
                _ => self.step(name, true, true)?,
            }
            rest = after;
        }
    }

    fn go_to_root(&mut self) -> Result<()> {
        if self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        self.go(self.root.clone())
    }

    /// Moves to another path, if it may be in that mount.
    fn go(&mut self, to: Path) -> Result<()> {
        if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&to.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = to;
        Ok(())
    }

    fn must_be_dir(&self) -> Result<()> {
        if self.at.inode()?.is_dir() { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    fn may_search(&self) -> Result<()> {
        let inode = self.at.inode()?;
        if !inode.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        permission::check(&self.cx.cred, inode, Access::EXEC)
    }

    /// One step up, out of mounts, but not out of the root.
    fn up(&mut self) -> Result<()> {
        let mut at = self.at.clone();
        loop {
            if at == *self.root {
                return if self.resolve.contains(Resolve::BENEATH) { Err(Errno::EXDEV) } else { self.go(at) };
            }
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(place) => at = place,
                    None => return self.go(at),
                }
                continue;
            }
            if let Some(parent) = at.dentry.parent() {
                at.dentry = parent;
            }
            // Moved out from under a bind mount: what is above it is not for those who see that mount.
            if at.mount.root.parent().is_some() && !at.dentry.is_below(&at.mount.root) {
                return Err(Errno::ENOENT);
            }
            return self.go(mount::enter(at));
        }
    }

    /// What is under `name` in the directory that the walk is in; a negative entry where there is nothing.
    pub fn child(&self, name: &[u8]) -> Result<Arc<Dentry>> {
        match self.at.dentry.valid(name) {
            Some(known) => Ok(known),
            None if self.resolve.contains(Resolve::CACHED) => Err(Errno::EAGAIN),
            None => self.at.dentry.lookup(name),
        }
    }

    /// One step down to `name` (search permission was checked); follows a symbolic link if `follow`.
    fn step(&mut self, name: &[u8], follow: bool, need_dir: bool) -> Result<()> {
        let dentry = self.child(name)?;
        let Some(inode) = dentry.inode().cloned() else { return Err(Errno::ENOENT) };
        if follow && inode.kind() == FileKind::Symlink {
            self.follow(&inode)?;
        } else {
            let to = mount::enter(Path { mount: self.at.mount.clone(), dentry });
            self.go(to)?;
        }
        if need_dir { self.must_be_dir() } else { Ok(()) }
    }

    /// Counts a link that is about to be followed. `ELOOP`.
    pub fn count_link(&mut self) -> Result<()> {
        self.links += 1;
        let forbidden = self.resolve.contains(Resolve::NO_SYMLINKS);
        if self.links > LINKS_MAX || forbidden { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Where the link leads, counting it.
    pub fn read_link(&mut self, link: &Arc<Inode>) -> Result<LinkTarget> {
        self.count_link()?;
        if self.at.mount.flags().contains(MountFlags::NOSYMFOLLOW) {
            return Err(Errno::ELOOP);
        }
        let target = link.ops().read_link(self.cx)?;
        if matches!(target, LinkTarget::File(_)) {
            if self.resolve.contains(Resolve::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
        }
        Ok(target)
    }

    /// Follows a link of the directory that the walk is in, all the way.
    fn follow(&mut self, link: &Arc<Inode>) -> Result<()> {
        match self.read_link(link)? {
            LinkTarget::File(path) => self.go(path),
            LinkTarget::Path(target) => self.to_end(&target, true),
        }
    }

    /// Jumps to where a link like `/proc/PID/fd/N` leads.
    pub fn jump(&mut self, to: Path) -> Result<()> {
        self.go(to)
    }
}

/// The file that `path` names, seen from `base` (None: the working directory). An empty path is `ENOENT`.
pub fn lookup(cx: &FsContext, base: Option<&Path>, path: &[u8], follow: bool) -> Result<Path> {
    let mut walk = Walk::new(cx, base, Resolve::empty());
    walk.to_end(path, follow)?;
    Ok(walk.at)
}

/// As [`lookup`], but an empty path names `base` itself if `empty_ok` (AT_EMPTY_PATH).
pub fn lookup_at(cx: &FsContext, base: Option<&Path>, path: &[u8], follow: bool, empty_ok: bool) -> Result<Path> {
    if path.is_empty() && empty_ok {
        return Ok(base.unwrap_or(&cx.cwd).clone());
    }
    lookup(cx, base, path, follow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_runs_of_slashes() {
        assert_eq!(split_first(b"a/b"), (&b"a"[..], &b"b"[..]));
        assert_eq!(split_first(b"a///b//"), (&b"a"[..], &b"b//"[..]));
        assert_eq!(split_first(b"a//"), (&b"a"[..], &b""[..]));
        assert_eq!(split_first(b"a"), (&b"a"[..], &b""[..]));
        assert_eq!(skip_slashes(b"///"), b"");
    }
}
