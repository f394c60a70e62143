//! Copying a file of a lower layer to the upper one, before it is changed.
//!
//! The copy is made in the work directory and then moved to its place, so that it appears whole or not at all.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;

use core::sync::atomic::Ordering;

use base::{Cred, Errno, Result};
use mm::{Sink, Source};

use super::node::Place;
use super::{Node, Upper, real};
use crate::vfs::open;
use crate::xattr::SetMode;
use crate::{Dentry, File, FileKind, FsContext, Inode, Io, LinkTarget, NewInode, OpenFlags, SetAttributes, SetTime};

/// Bytes that are copied at a time.
const CHUNK: usize = 64 << 10;

/// The kernel's own context. `EIO` before there is a root.
fn kernel_context() -> Result<FsContext> {
    let root = crate::vfs::mount::root().ok_or(Errno::EIO)?;
    Ok(FsContext { cred: Arc::new(Cred::root()), cwd: root.clone(), root, umask: 0 })
}

impl Node {
    /// The file in the upper layer, copied there if need be with the directories that lead to it; of a regular file's content the first
    /// `limit` bytes. `EROFS` where there is no upper layer, `ENOSPC`, `EIO`, ...
    pub(super) fn copy_up(&self, limit: Option<u64>) -> Result<&Arc<Inode>> {
        loop {
            if let Some(upper) = self.upper_inode() {
                return Ok(upper);
            }
            // From the top: the uppermost directory that is not there yet, until it is our turn.
            let mut next: Option<Arc<Inode>> = None;
            loop {
                let node = match &next {
                    None => self,
                    Some(inode) => Node::of(inode)?,
                };
                let Some(place) = node.place.lock().clone() else { break };
                if Node::of(&place.parent)?.upper.get().is_some() {
                    break;
                }
                next = Some(place.parent);
            }
            match next {
                Some(inode) => Node::of(&inode)?.copy_one(None)?,
                None => self.copy_one(limit)?,
            }
        }
    }

    /// Copies this file, whose directory is in the upper layer.
    fn copy_one(&self, limit: Option<u64>) -> Result<()> {
        let upper = self.fs.upper.as_ref().ok_or(Errno::EROFS)?;
        let _copying = self.copying.lock();
        if self.upper.get().is_some() {
            return Ok(());
        }
        let lower = self.real().clone();
        let name = self.fs.temporary_name();
        let copy = make_copy(upper, &name, &lower)?;
        let made = self.fill(upper, &copy, &lower, limit).and_then(|()| self.install(upper, &name, &lower));
        if made.is_err() {
            // It stays in the work directory at worst, which the next mount clears.
            let _ = real::remove(&upper.work, &name);
        }
        made
    }

    /// Gives the copy content, extended attributes and times.
    fn fill(&self, upper: &Upper, copy: &Arc<Dentry>, lower: &Arc<Inode>, limit: Option<u64>) -> Result<()> {
        let to = real::inode(copy)?;
        if lower.kind() == FileKind::Regular {
            copy_content(lower, to, limit)?;
        }
        if upper.xattrs {
            self.copy_xattrs(lower, to)?;
            self.fs.set_origin(to, lower);
        }
        let of = lower.attributes();
        to.set_attributes(&SetAttributes {
            mode: (lower.kind() != FileKind::Symlink).then_some(of.mode),
            uid: None,
            gid: None,
            atime: Some(SetTime::At(of.atime)),
            mtime: Some(SetTime::At(of.mtime)),
        })?;
        if lower.kind() == FileKind::Regular && !self.fs.options.volatile {
            to.ops().sync(to, false)?;
        }
        Ok(())
    }

    fn copy_xattrs(&self, from: &Inode, to: &Inode) -> Result<()> {
        let (Some(from), Some(to)) = (from.ops().xattrs(), to.ops().xattrs()) else { return Ok(()) };
        let names = match from.list(&|name| !self.fs.is_own(name)) {
            Ok(names) => names,
            Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
            let value = match from.get(name) {
                Ok(value) => value,
                Err(Errno::ENODATA | Errno::EOPNOTSUPP) => continue,
                Err(error) => return Err(error),
            };
            match to.set(name, &value, SetMode::Any) {
                // What the upper layer can't keep is lost, but for what protects the file.
                Err(Errno::EOPNOTSUPP) if !name.starts_with(b"security.") && !name.starts_with(b"system.") => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Moves the copy to its place.
    fn install(&self, upper: &Upper, name: &[u8], lower: &Arc<Inode>) -> Result<()> {
        let _changes = self.fs.changes.lock();
        let entry = real::lookup(&upper.work, name)?.ok_or(Errno::EIO)?;
        let place = self.place.lock().clone();
        let Some(Place { parent, name: wanted }) = place.filter(|_| !self.gone.load(Ordering::Acquire)) else {
            // It was removed meanwhile, but is open: the copy has no name either.
            real::remove(&upper.work, name)?;
            let nameless = Dentry::root(real::inode(&entry)?.clone(), b"");
            self.set_upper(nameless);
            return Ok(());
        };
        let parent = Node::of(&parent)?.upper.get().ok_or(Errno::EIO)?;
        let dir = real::inode(parent)?;
        let before = dir.attributes();
        real::rename((&upper.work, name), (parent, &wanted), false)?;
        // Nothing has changed for who looks at the directory here.
        let _ = dir.set_attributes(&SetAttributes {
            atime: Some(SetTime::At(before.atime)),
            mtime: Some(SetTime::At(before.mtime)),
            ..SetAttributes::default()
        });
        let _ = self.fs.set_own(dir, b"impure", b"y");
        let _ = lower;
        self.set_upper(entry);
        Ok(())
    }
}

/// Makes an empty file of the same type, owner and permissions in the work directory.
fn make_copy(upper: &Upper, name: &[u8], lower: &Arc<Inode>) -> Result<Arc<Dentry>> {
    let target: Box<[u8]> = match lower.kind() {
        FileKind::Symlink => match lower.ops().read_link(&kernel_context()?)? {
            LinkTarget::Path(path) => path.into_boxed_slice(),
            LinkTarget::File(_) => return Err(Errno::EINVAL),
        },
        _ => Box::default(),
    };
    let new = NewInode {
        kind: lower.kind(),
        mode: if lower.kind() == FileKind::Symlink { 0o777 } else { lower.mode() },
        uid: lower.uid(),
        gid: lower.gid(),
        rdev: lower.rdev(),
        target: &target,
    };
    real::create(&upper.work, name, &new)
}

/// Copies the first `limit` bytes, leaving holes where there are some.
fn copy_content(from: &Arc<Inode>, to: &Arc<Inode>, limit: Option<u64>) -> Result<()> {
    let size = from.ops().size().min(limit.unwrap_or(u64::MAX));
    let cx = kernel_context()?;
    let source = open::open_regular(&cx, from, OpenFlags::NOATIME)?;
    let sink = open::open_regular(&cx, to, OpenFlags::RDWR)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        at = match from.ops().seek(at, true)? {
            Some(data) if data < size => data,
            _ => break,
        };
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(CHUNK);
        let mut io = Io { offset: at, flags: OpenFlags::NOATIME };
        let n = source.read(&mut Sink::kernel(&mut buffer[..len]), &mut io)?;
        if n == 0 {
            break;
        }
        write_all(&*sink, at, &buffer[..n])?;
        at += n as u64;
        sched::preempt_point();
    }
    if to.ops().size() < size {
        sink.truncate(size)?;
    }
    Ok(())
}

fn write_all(file: &dyn File, mut at: u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let mut io = Io { offset: at, flags: OpenFlags::RDWR };
        let n = file.write(&mut Source::kernel(bytes), &mut io)?;
        if n == 0 {
            return Err(Errno::ENOSPC);
        }
        bytes = &bytes[n..];
        at += n as u64;
    }
    Ok(())
}
