//! Mounting: finds the layers, checks them, and makes the root directory.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

use base::{Errno, Result};
use hal::sync::Once;

use super::node::{Node, Parts};
use super::options::{Options, Xino};
use super::{Below, Layer, MAGIC, Overlay, STACK_MAX, Super, Upper, real};
use crate::inode_table::InodeTable;
use crate::vfs::superblock::anonymous_device;
use crate::vfs::walk;
use crate::xattr::SetMode;
use crate::{Dentry, DeviceNumber, FileKind, FsContext, Inode, Mount, NewInode, Path, SuperBlock};

/// How deep what an earlier mount left in the work directory may be.
const CLEAN_DEPTH: usize = 64;

/// The directory at `path`. `ENOENT`, `ENOTDIR`, `EACCES`; `EINVAL` where it is none, or file systems lie on one another too deep.
fn directory(cx: &FsContext, path: &[u8]) -> Result<Path> {
    let found = walk::lookup(cx, None, path, true)?;
    if !found.inode()?.is_dir() || found.mount.superblock.ops.stacked() >= STACK_MAX {
        return Err(Errno::EINVAL);
    }
    Ok(found)
}

fn layer(below: &mut Vec<Below>, path: &Path) -> Layer {
    let superblock = path.mount.superblock.clone();
    let is_it = |below: &Below| below.superblock.as_ref().is_some_and(|known| Arc::ptr_eq(known, &superblock));
    if !below.iter().any(is_it) {
        below.push(Below { superblock: Some(superblock.clone()), pseudo: anonymous_device() });
    }
    Layer { root: path.dentry.clone(), mount: Mount::private(path) }
}

/// `ELOOP` where a lower layer is part of another layer, or twice there. What changes may be part of what is only read.
fn check_overlap(upper: Option<&(Path, Path)>, lowers: &[Path]) -> Result<()> {
    let changing = upper.into_iter().flat_map(|(upper, work)| [upper, work]);
    let all: Vec<&Path> = lowers.iter().chain(changing).collect();
    let within = |lower: usize| (0..all.len()).any(|i| i != lower && lowers[lower].dentry.is_below(&all[i].dentry));
    if (0..lowers.len()).any(within) { Err(Errno::ELOOP) } else { Ok(()) }
}

/// The upper layer's directories. `EINVAL` where they are on different mounts, the one is in the other, or nothing can be written.
fn upper_paths(cx: &FsContext, options: &Options) -> Result<Option<(Path, Path)>> {
    let (Some(upper), Some(work)) = (&options.upper, &options.work) else { return Ok(None) };
    let (upper, work) = (directory(cx, upper)?, directory(cx, work)?);
    if !Arc::ptr_eq(&upper.mount, &work.mount) {
        return Err(Errno::EINVAL);
    }
    if upper.dentry.is_below(&work.dentry) || work.dentry.is_below(&upper.dentry) {
        return Err(Errno::EINVAL);
    }
    if crate::vfs::permission::writable_mount(&upper).is_err() {
        return Err(Errno::EINVAL);
    }
    Ok(Some((upper, work)))
}

/// The directory `work` in the work directory, empty. `EIO`, `ENOSPC`, ...
fn prepare_work(dir: &Arc<Dentry>) -> Result<Arc<Dentry>> {
    const NAME: &[u8] = b"work";
    if let Some(old) = real::lookup(dir, NAME)? {
        remove_tree(&old, CLEAN_DEPTH)?;
        real::remove(dir, NAME)?;
    }
    let new =
        NewInode { kind: FileKind::Directory, mode: 0, uid: 0, gid: 0, rdev: DeviceNumber::default(), target: b"" };
    real::create(dir, NAME, &new)
}

/// Removes what is in a directory. `ELOOP` where it is too deep to.
fn remove_tree(dir: &Arc<Dentry>, depth: usize) -> Result<()> {
    let inode = real::inode(dir)?;
    if !inode.is_dir() {
        return Ok(());
    }
    let depth = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
    loop {
        let mut names: Vec<Vec<u8>> = Vec::new();
        {
            let _held = inode.content.lock();
            inode.ops().list(inode, 2, &mut |entry| {
                names.push(entry.name.to_vec());
                names.len() < 128
            })?;
        }
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if let Some(entry) = real::lookup(dir, &name)? {
                remove_tree(&entry, depth)?;
                real::remove(dir, &name)?;
            }
        }
    }
}

/// Can files of the upper layer have our attributes?
fn has_xattrs(work: &Arc<Dentry>, prefix: &[u8]) -> bool {
    let name = [prefix, b"opaque"].concat();
    let store = work.inode().and_then(|inode| inode.ops().xattrs());
    store.is_some_and(|store| store.set(&name, b"0", SetMode::Any).and_then(|()| store.remove(&name)).is_ok())
}

/// The bits of inode numbers that tell `count` file systems apart.
fn xino_bits(options: &Options, below: &[Below]) -> u32 {
    let count = below.iter().filter(|below| below.superblock.is_some()).count();
    let small = |below: &Below| {
        below.superblock.as_ref().is_none_or(|s| matches!(s.kind, "ext2" | "ext3" | "ext4" | "squashfs" | "erofs"))
    };
    let wanted = match options.xino {
        Xino::Off => false,
        Xino::On => true,
        Xino::Auto => below.iter().all(small),
    };
    if wanted && count > 1 { (below.len() - 1).ilog2() + 2 } else { 0 }
}

/// Not more than this on top of each other, as on Linux.
const HIGHEST_RANK: u8 = 2;

/// Makes an instance: its root directory. `EINVAL` (also for too many on top of each other), `ELOOP`, and the errors of finding the layers.
pub(super) fn mount(cx: &FsContext, options: Options) -> Result<Arc<Inode>> {
    let paths = upper_paths(cx, &options)?;
    let lowers = options.lowers.iter().map(|path| directory(cx, path)).collect::<Result<Vec<Path>>>()?;
    if paths.is_none() && lowers.len() < 2 {
        return Err(Errno::EINVAL);
    }
    check_overlap(paths.as_ref(), &lowers)?;
    let layers = paths.iter().map(|(upper, _)| upper).chain(&lowers);
    let rank = 1 + layers.map(|path| path.mount.superblock.rank()).max().unwrap_or(0);
    if rank > HIGHEST_RANK {
        return Err(Errno::EINVAL);
    }
    // The first place is the upper layer's, even where there is none.
    let mut below = Vec::new();
    let upper = match &paths {
        Some((path, work)) => {
            let layer = layer(&mut below, path);
            let work = prepare_work(&work.dentry)?;
            let prefix: &[u8] = if options.user_xattr { b"user.overlay." } else { b"trusted.overlay." };
            Some(Upper { layer, xattrs: has_xattrs(&work, prefix), work })
        }
        None => {
            below.push(Below { superblock: None, pseudo: anonymous_device() });
            None
        }
    };
    let lowers: Vec<Layer> = lowers.iter().map(|path| layer(&mut below, path)).collect();
    let bits = xino_bits(&options, &below);
    let overlay = Arc::new(Overlay {
        options,
        upper,
        lowers,
        below,
        xino_bits: bits,
        rank,
        changes: sched::Mutex::ranked(rank, ()),
        next_temporary: AtomicU32::new(1),
        known: InodeTable::new(),
        superblock: Once::new(),
    });
    root(&overlay)
}

fn root(overlay: &Arc<Overlay>) -> Result<Arc<Inode>> {
    let first = overlay.upper.as_ref().map(|upper| &upper.layer).or(overlay.lowers.first()).ok_or(Errno::EINVAL)?;
    let below = &first.mount.superblock;
    let superblock = SuperBlock::on_device(
        "overlay",
        MAGIC,
        anonymous_device(),
        (below.block_size, below.fsid),
        Box::new(Super(overlay.clone())),
    );
    let _ = overlay.superblock.set(Arc::downgrade(&superblock) as Weak<SuperBlock>);
    let upper = overlay.upper.as_ref().map(|upper| upper.layer.root.clone());
    let lowers = overlay.lowers.iter().map(|layer| layer.root.clone()).collect();
    let copied = upper.is_some();
    Node::get(overlay, Parts { upper, lowers, copied }, None)
}
