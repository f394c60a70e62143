//! devpts: the slaves of pseudo-terminals as files of `/dev/pts`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use base::{Errno, Result};
use hal::sync::{Once, SpinLock};

use super::pty::{MasterFile, Pair};
use super::{Tty, TtyFile};
use crate::vfs::superblock::NoSuperOps;
use crate::{
    DeviceNumber, DirEntry, File, FileKind, FileSystem, Found, FsContext, Inode, InodeOps, IoctlContext, Mount,
    NewInode, OpenFile, OpenFlags, Path, SuperBlock,
};

/// The major number of the slaves.
pub const SLAVE_MAJOR: u32 = 136;
/// The most pairs at a time (`kernel.pty.max`).
const MAX: u32 = 4096;
/// `f_type` of devpts.
const MAGIC: u32 = 0x1cd1;
/// Group tty of Debian and everybody else.
const TTY_GROUP: u32 = 5;

struct Entry {
    slave: Arc<Tty>,
    pair: Weak<Pair>,
    inode: Arc<Inode>,
}

static PAIRS: SpinLock<BTreeMap<u32, Entry>> = SpinLock::new(BTreeMap::new());
static ROOT: Once<Arc<Inode>> = Once::new();
static MOUNT: Once<Arc<Mount>> = Once::new();

struct Root {
    ptmx: Arc<Inode>,
}

struct Node;

impl InodeOps for Node {}

fn device(superblock: &Arc<SuperBlock>, number: u64, mode: u32, owner: (u32, u32), rdev: DeviceNumber) -> Arc<Inode> {
    let new = NewInode { kind: FileKind::CharDevice, mode, uid: owner.0, gid: owner.1, rdev, target: b"" };
    Inode::new(superblock, number, &new, Box::new(Node))
}

fn root() -> &'static Arc<Inode> {
    ROOT.get_or_init(|| {
        let superblock = SuperBlock::new("devpts", MAGIC, Box::new(NoSuperOps));
        let ptmx = device(&superblock, 2, 0o666, (0, 0), DeviceNumber::new(5, 2));
        let new = NewInode {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: DeviceNumber::default(),
            target: b"",
        };
        Inode::new(&superblock, 1, &new, Box::new(Root { ptmx }))
    })
}

/// The index that a name stands for: digits without leading zeros.
fn index(name: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(name).ok()?;
    if text.len() > 1 && text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl InodeOps for Root {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        if name == b"ptmx" {
            return Ok(Found { inode: Some(self.ptmx.clone()), cacheable: true });
        }
        let inode = index(name).and_then(|i| PAIRS.lock().get(&i).map(|entry| entry.inode.clone()));
        Ok(Found { inode, cacheable: false })
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let mut next = position;
        if next <= 2 {
            if !emit(&DirEntry { name: b"ptmx", inode: 2, kind: FileKind::CharDevice, next: 3 }) {
                return Ok(next);
            }
            next = 3;
        }
        let from = u32::try_from(next - 3).unwrap_or(u32::MAX);
        let pairs = PAIRS.lock();
        for (at, entry) in pairs.range(from..) {
            let name = alloc::format!("{at}");
            let after = u64::from(*at) + 4;
            if !emit(&DirEntry {
                name: name.as_bytes(),
                inode: entry.inode.number(),
                kind: FileKind::CharDevice,
                next: after,
            }) {
                return Ok(next);
            }
            next = after;
        }
        Ok(next)
    }
}

/// Opens `/dev/ptmx`: makes a pair; the file is its master. `ENOSPC` where there are too many.
pub(super) fn open_master(cx: &FsContext) -> Result<Arc<dyn File>> {
    let superblock = root().superblock().clone();
    let mut pairs = PAIRS.lock();
    let free = (0..MAX).find(|i| !pairs.contains_key(i)).ok_or(Errno::ENOSPC)?;
    let (slave, master) = Pair::open(free);
    let rdev = DeviceNumber::new(SLAVE_MAJOR, free);
    let inode = device(&superblock, u64::from(free) + 3, 0o620, (cx.cred.fsuid, TTY_GROUP), rdev);
    pairs.insert(free, Entry { slave, pair: Arc::downgrade(&master.pair), inode });
    Ok(master)
}

/// The slave with that index, about to be opened. `EIO` while it is locked or once its master is gone, `ENXIO`.
pub(super) fn slave_to_open(index: u32) -> Result<Arc<Tty>> {
    let pairs = PAIRS.lock();
    let entry = pairs.get(&index).ok_or(Errno::ENXIO)?;
    let pair = entry.pair.upgrade().ok_or(Errno::EIO)?;
    MasterFile::admit(&pair)?;
    let slave = entry.slave.clone();
    drop(pairs);
    Ok(slave)
}

/// TIOCGPTPEER: opens the slave of a master, whatever is mounted where.
pub(super) fn open_peer(index: u32, cx: &IoctlContext, flags: OpenFlags) -> Result<Arc<OpenFile>> {
    let (inode, slave) = {
        let pairs = PAIRS.lock();
        let entry = pairs.get(&index).ok_or(Errno::EIO)?;
        (entry.inode.clone(), entry.slave.clone())
    };
    slave_to_open(index)?;
    // Where the caller sees it, if it does.
    let seen = cx.open.path().mount.namespace().map_or(alloc::vec::Vec::new(), |namespace| namespace.list());
    let internal = || MOUNT.get_or_init(|| Mount::internal(root().clone())).clone();
    let mount = seen.into_iter().find(|mount| mount.superblock.kind == "devpts").unwrap_or_else(internal);
    let dentry = mount.root.lookup(alloc::format!("{index}").as_bytes())?;
    let path = Path { mount, dentry };
    let place = path.clone();
    let context = FsContext { cred: Arc::new(cx.cred.clone()), cwd: place.clone(), root: place, umask: 0 };
    let file = TtyFile::open(&slave, &context, flags.contains(OpenFlags::NOCTTY))?;
    Ok(OpenFile::new(file, path, inode, flags, crate::open_file::Hold::None))
}

/// The master is gone: the slave's name goes.
pub(super) fn master_closed(index: u32) {
    let gone = PAIRS.lock().remove(&index);
    drop(gone);
}

/// The kind "devpts" for mount(2). All mounts show the same.
pub struct Kind;

impl FileSystem for Kind {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn mount(&self, _source: &[u8], _options: &[u8]) -> Result<Arc<Inode>> {
        Ok(root().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_are_names() {
        assert_eq!(index(b"0"), Some(0));
        assert_eq!(index(b"17"), Some(17));
        for bad in [&b"01"[..], b"", b"+1", b"1x", b"99999999999"] {
            assert_eq!(index(bad), None);
        }
    }
}
