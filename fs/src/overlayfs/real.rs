//! What is done to the layers: lookups and changes through their own caches of names, with the kernel's rights.

use alloc::sync::Arc;

use base::{Errno, Result};

use crate::{Dentry, DeviceNumber, FileKind, Inode, NewInode};

/// The inode of an entry that is known to be there. `ENOENT`.
pub(super) fn inode(dentry: &Arc<Dentry>) -> Result<&Arc<Inode>> {
    dentry.inode().ok_or(Errno::ENOENT)
}

/// The entry under `name`, if there is one. `EIO`, `ENAMETOOLONG`.
pub(super) fn lookup(dir: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
    let found = dir.lookup(name)?;
    Ok(found.inode().is_some().then_some(found))
}

/// Is it a whiteout: a character device 0:0?
pub(super) fn is_whiteout(inode: &Inode) -> bool {
    inode.kind() == FileKind::CharDevice && inode.rdev() == DeviceNumber::default()
}

/// Makes a file under a free name. `EEXIST`, `ENOSPC`, ...
pub(super) fn create(dir: &Arc<Dentry>, name: &[u8], new: &NewInode) -> Result<Arc<Dentry>> {
    let parent = inode(dir)?;
    let _held = parent.content.lock();
    free(dir, name)?;
    let made = parent.ops().create(parent, name, new)?;
    if new.kind == FileKind::Directory {
        parent.add_link();
    }
    parent.modified();
    Ok(dir.instantiate(name, made))
}

fn free(dir: &Arc<Dentry>, name: &[u8]) -> Result<()> {
    if dir.is_gone() {
        return Err(Errno::ENOENT);
    }
    if dir.lookup_locked(name)?.inode().is_some() { Err(Errno::EEXIST) } else { Ok(()) }
}

/// Gives a file another name. `EEXIST`, `EMLINK`, ...
pub(super) fn link(dir: &Arc<Dentry>, name: &[u8], file: &Arc<Inode>) -> Result<Arc<Dentry>> {
    let parent = inode(dir)?;
    let _held = parent.content.lock();
    free(dir, name)?;
    parent.ops().link(parent, name, file)?;
    file.add_link();
    parent.modified();
    Ok(dir.instantiate(name, file.clone()))
}

/// Takes a name away, of a directory too if it is empty. `ENOTEMPTY`, `ENOENT`.
pub(super) fn remove(dir: &Arc<Dentry>, name: &[u8]) -> Result<()> {
    let parent = inode(dir)?;
    let victim = {
        let _held = parent.content.lock();
        let entry = dir.lookup_locked(name)?;
        let victim = inode(&entry)?.clone();
        if victim.is_dir() {
            let _victim_held = victim.content.lock();
            parent.ops().unlink(parent, name, &victim)?;
            victim.set_nlink(0);
            victim.changed();
            parent.drop_link();
        } else {
            parent.ops().unlink(parent, name, &victim)?;
            victim.drop_link();
        }
        dir.remove_child(&entry);
        parent.modified();
        victim
    };
    drop(victim);
    Ok(())
}

/// One end of a move: the directory and the name in it.
pub(super) type End<'a> = (&'a Arc<Dentry>, &'a [u8]);

/// Moves an entry, in place of one that is there (a directory of an empty directory), or exchanges the two. `ENOTEMPTY`, `ENOSPC`, ...;
/// `EINVAL` where a directory would come to lie in itself, to which somebody must have moved the layer's directories meanwhile.
pub(super) fn rename(from: End, to: End, exchange: bool) -> Result<()> {
    let (from_inode, to_inode) = (inode(from.0)?.clone(), inode(to.0)?.clone());
    if Arc::ptr_eq(&from_inode, &to_inode) {
        let _held = from_inode.content.lock();
        return rename_locked(from, to, exchange);
    }
    let _moving = from_inode.superblock().moving.lock();
    // Ancestors first; between strangers, by address.
    let from_first = to.0.is_below(from.0)
        || !from.0.is_below(to.0) && Arc::as_ptr(&from_inode).addr() < Arc::as_ptr(&to_inode).addr();
    let (first, second) = if from_first { (&from_inode, &to_inode) } else { (&to_inode, &from_inode) };
    let _first = first.content.lock();
    let _second = second.content.lock();
    rename_locked(from, to, exchange)
}

fn rename_locked(from: End, to: End, exchange: bool) -> Result<()> {
    let (from_dir, to_dir) = (inode(from.0)?, inode(to.0)?);
    if from.0.is_gone() || to.0.is_gone() {
        return Err(Errno::ENOENT);
    }
    let old = from.0.lookup_locked(from.1)?;
    let new = to.0.lookup_locked(to.1)?;
    let moved = inode(&old)?.clone();
    let target = new.inode().cloned();
    if to.0.is_below(&old) || from.0.is_below(&new) {
        return Err(Errno::EINVAL);
    }
    if exchange && target.is_none() {
        return Err(Errno::ENOENT);
    }
    from_dir.ops().rename((from_dir, from.1, &moved), (to_dir, to.1, target.as_ref()), exchange)?;
    let (moved_dir, target_dir) = (moved.is_dir(), target.as_ref().is_some_and(|target| target.is_dir()));
    let other_parent = !Arc::ptr_eq(from_dir, to_dir);
    if exchange {
        Dentry::exchange(&old, &new);
        if other_parent && moved_dir != target_dir {
            let (loses, gains) = if moved_dir { (from_dir, to_dir) } else { (to_dir, from_dir) };
            loses.drop_link();
            gains.add_link();
        }
    } else {
        from.0.move_child(&old, to.0, to.1);
        match &target {
            Some(target) if target_dir => {
                target.set_nlink(0);
                to_dir.drop_link();
            }
            Some(target) => target.drop_link(),
            None => {}
        }
        if other_parent && moved_dir {
            from_dir.drop_link();
            to_dir.add_link();
        }
    }
    from_dir.modified();
    to_dir.modified();
    moved.changed();
    Ok(())
}
