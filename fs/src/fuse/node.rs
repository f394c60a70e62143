//! Inodes: what is asked of the program about a file, and how long that holds.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::sync::{Once, SpinLock};
use mm::{PageCache, Pager};

use super::connection::Connection;
use super::handle;
use super::wire::{Answer, Attr, EntryOut, Fields, opcode};
use crate::callers::caller;
use crate::image::buffer;
use crate::inode_table::InodeTable;
use crate::remote::filter_names;
use crate::xattr::{SIZE_MAX, SetMode, XattrStore};
use crate::{
    Access, Attributes, DeviceNumber, DirEntry, File, FileKind, Found, FsContext, Inode, InodeOps, LinkTarget,
    NewInode, OpenFlags, SetAttributes, SetTime, SuperBlock,
};

/// The program's number of the root.
pub(super) const ROOT: u64 = 1;
const PAGE: u64 = PAGE_SIZE as u64;

/// Bits of SETATTR.
mod valid {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 2;
    pub(super) const GID: u32 = 4;
    pub(super) const SIZE: u32 = 8;
    pub(super) const ATIME: u32 = 16;
    pub(super) const MTIME: u32 = 32;
    pub(super) const ATIME_NOW: u32 = 128;
    pub(super) const MTIME_NOW: u32 = 256;
}

/// What the inodes of a mount share.
pub(super) struct Tree {
    pub(super) connection: Arc<Connection>,
    pub(super) superblock: Once<Weak<SuperBlock>>,
    pub(super) known: InodeTable<u64>,
    /// The only user that may look, unless all may.
    pub(super) only: Option<u32>,
}

/// FUSE's part of an inode.
pub(super) struct Node {
    pub(super) tree: Arc<Tree>,
    /// The program's number.
    pub(super) id: u64,
    cache: Option<Arc<PageCache>>,
    size: AtomicU64,
    blocks: AtomicU64,
    /// How often the program was asked for it, which it counts.
    lookups: AtomicU64,
    /// Until when, on the monotonic clock, names that lead here and attributes hold.
    name_until: AtomicU64,
    attributes_until: AtomicU64,
    /// Handles that are open for writing, for what mappings change.
    writers: SpinLock<Vec<u64>>,
}

/// Reads and writes a file's pages.
struct FilePager(Once<Weak<Inode>>);

fn until(valid: u64) -> u64 {
    sched::time::now().saturating_add(valid)
}

impl Node {
    /// Our part of an inode of ours. `EXDEV` for others.
    pub(super) fn of(inode: &Inode) -> Result<&Node> {
        inode.ops_as::<Node>().ok_or(Errno::EXDEV)
    }

    /// The inode of the program's number `id`.
    pub(super) fn get(tree: &Arc<Tree>, id: u64, attr: &Attr) -> Result<Arc<Inode>> {
        let kind = FileKind::from_mode(attr.mode).ok_or(Errno::EIO)?;
        // A number whose file was of another type is a new file's.
        if let Some(inode) = tree.known.get(id).filter(|inode| inode.kind() == kind) {
            Node::of(&inode)?.update(&inode, attr);
            return Ok(inode);
        }
        let superblock = tree.superblock.get().and_then(Weak::upgrade).ok_or(Errno::EIO)?;
        let pager = Arc::new(FilePager(Once::new()));
        let cache = (kind == FileKind::Regular).then(|| PageCache::with_pager(pager.clone(), attr.size));
        let node = Node {
            tree: tree.clone(),
            id,
            cache,
            size: AtomicU64::new(attr.size),
            blocks: AtomicU64::new(attr.blocks),
            lookups: AtomicU64::new(0),
            name_until: AtomicU64::new(0),
            attributes_until: AtomicU64::new(until(attr.valid)),
            writers: SpinLock::new(Vec::new()),
        };
        let number = if attr.number == 0 { id } else { attr.number };
        let identity = (kind, DeviceNumber::decode(attr.rdev));
        let inode = Inode::stored(&superblock, number, identity, &attributes(attr), Box::new(node));
        let _ = pager.0.set(Arc::downgrade(&inode));
        tree.known.add(id, inode, |other| other.kind() == kind)
    }

    /// The inode of an answer to LOOKUP and its kin.
    fn entry(&self, reply: &[u8]) -> Result<Arc<Inode>> {
        let entry = EntryOut::read(reply)?;
        if entry.node == 0 || entry.node == ROOT {
            return Err(Errno::EIO);
        }
        let inode = Node::get(&self.tree, entry.node, &entry.attr)?;
        let node = Node::of(&inode)?;
        node.lookups.fetch_add(1, Ordering::AcqRel);
        node.name_until.store(until(entry.valid), Ordering::Release);
        Ok(inode)
    }

    pub(super) fn call(&self, opcode: u32, fields: &Fields) -> Result<Vec<u8>> {
        self.tree.connection.call(opcode, self.id, fields)
    }

    /// Attributes have changed: they are asked for anew.
    pub(super) fn expire(&self) {
        self.attributes_until.store(0, Ordering::Release);
    }

    fn update(&self, inode: &Inode, attr: &Attr) {
        inode.mirror(&attributes(attr));
        self.blocks.store(attr.blocks, Ordering::Relaxed);
        self.size.store(attr.size, Ordering::Relaxed);
        self.attributes_until.store(until(attr.valid), Ordering::Release);
        if let Some(cache) = self.cache.as_ref().filter(|cache| !cache.is_dirty() && cache.size() != attr.size) {
            cache.set_size(attr.size);
            cache.forget(0, u64::MAX);
        }
    }

    /// Asks the program about the file.
    pub(super) fn ask(&self, inode: &Inode) -> Result<()> {
        let reply = self.call(opcode::GETATTR, &Fields::new().u32(0).u32(0).u64(0))?;
        let attr = Attr::out(&reply)?;
        if FileKind::from_mode(attr.mode) != Some(inode.kind()) {
            return Err(Errno::EIO);
        }
        self.update(inode, &attr);
        Ok(())
    }

    pub(super) fn add_writer(&self, handle: u64) {
        self.writers.lock().push(handle);
    }

    pub(super) fn remove_writer(&self, handle: u64) {
        let mut writers = self.writers.lock();
        if let Some(at) = writers.iter().position(|other| *other == handle) {
            writers.swap_remove(at);
        }
    }

    fn change(&self, inode: &Inode, bits: u32, size: u64, change: &SetAttributes) -> Result<()> {
        let at = |time: Option<SetTime>| match time {
            Some(SetTime::At(nanos)) => {
                (nanos.div_euclid(1_000_000_000) as u64, nanos.rem_euclid(1_000_000_000) as u32)
            }
            _ => (0, 0),
        };
        let (atime, mtime) = (at(change.atime), at(change.mtime));
        let mode = change.mode.map_or(0, |mode| inode.kind().mode_bits() | mode);
        let fields = Fields::new().u32(bits).u32(0).u64(0).u64(size).u64(0).u64(atime.0).u64(mtime.0).u64(0);
        let fields = fields.u32(atime.1).u32(mtime.1).u32(0).u32(mode).u32(0);
        let fields = fields.u32(change.uid.unwrap_or(0)).u32(change.gid.unwrap_or(0)).u32(0);
        let attr = Attr::out(&self.call(opcode::SETATTR, &fields)?)?;
        if FileKind::from_mode(attr.mode) != Some(inode.kind()) {
            return Err(Errno::EIO);
        }
        self.update(inode, &attr);
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tree.known.remove(self.id);
        let lookups = *self.lookups.get_mut();
        if lookups > 0 {
            self.tree.connection.tell(opcode::FORGET, self.id, &Fields::new().u64(lookups));
        }
    }
}

fn attributes(attr: &Attr) -> Attributes {
    let [atime, mtime, ctime] = attr.times;
    Attributes {
        mode: attr.mode & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        atime,
        mtime,
        ctime,
        btime: 0,
    }
}

impl InodeOps for Node {
    fn lookup(&self, _dir: &Arc<Inode>, name: &[u8]) -> Result<Found> {
        let none = Found { inode: None, cacheable: true };
        match self.call(opcode::LOOKUP, &Fields::new().name(name)) {
            // Number 0: there is nothing, and that holds for a while.
            Ok(reply) if EntryOut::read(&reply)?.node == 0 => Ok(none),
            Ok(reply) => Ok(Found { inode: Some(self.entry(&reply)?), cacheable: true }),
            Err(Errno::ENOENT) => Ok(none),
            Err(error) => Err(error),
        }
    }

    fn still_leads(&self, dir: &Arc<Inode>, name: &[u8], known: Option<&Arc<Inode>>) -> bool {
        let fresh = |inode: &Arc<Inode>| {
            Node::of(inode).is_ok_and(|node| node.name_until.load(Ordering::Acquire) > sched::time::now())
        };
        if known.is_some_and(fresh) {
            return true;
        }
        match (self.lookup(dir, name), known) {
            (Ok(Found { inode: Some(now), .. }), Some(known)) => Arc::ptr_eq(&now, known),
            (Ok(found), None) => found.inode.is_none(),
            _ => false,
        }
    }

    fn create(&self, _dir: &Arc<Inode>, name: &[u8], new: &NewInode) -> Result<Arc<Inode>> {
        let mode = new.kind.mode_bits() | new.mode & 0o7777;
        let reply = match new.kind {
            FileKind::Directory => self.call(opcode::MKDIR, &Fields::new().u32(mode).u32(0).name(name))?,
            FileKind::Symlink => self.call(opcode::SYMLINK, &Fields::new().name(name).name(new.target))?,
            FileKind::Regular => {
                let flags = abi::general::O_CREAT | abi::general::O_EXCL | abi::general::O_RDWR;
                let fields = Fields::new().u32(flags).u32(mode).u32(0).u32(0).name(name);
                match self.call(opcode::CREATE, &fields) {
                    Ok(reply) => {
                        let inode = self.entry(&reply)?;
                        let handle = Answer::new(reply.get(128..).unwrap_or_default()).u64()?;
                        Node::of(&inode)?.close_handle(handle, abi::general::O_RDWR);
                        return Ok(inode);
                    }
                    Err(Errno::ENOSYS) => {
                        self.call(opcode::MKNOD, &Fields::new().u32(mode).u32(0).u32(0).u32(0).name(name))?
                    }
                    Err(error) => return Err(error),
                }
            }
            _ => {
                let rdev = new.rdev.encode() as u32;
                self.call(opcode::MKNOD, &Fields::new().u32(mode).u32(rdev).u32(0).u32(0).name(name))?
            }
        };
        self.entry(&reply)
    }

    fn link(&self, _dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let node = Node::of(inode)?;
        let reply = self.call(opcode::LINK, &Fields::new().u64(node.id).name(name))?;
        self.entry(&reply).map(drop)
    }

    fn unlink(&self, _dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        let opcode = if victim.is_dir() { opcode::RMDIR } else { opcode::UNLINK };
        self.call(opcode, &Fields::new().name(name))?;
        Node::of(victim)?.expire();
        Ok(())
    }

    fn rename(
        &self,
        (_, old_name, _): (&Arc<Inode>, &[u8], &Arc<Inode>),
        (to, new_name, _): (&Arc<Inode>, &[u8], Option<&Arc<Inode>>),
        exchange: bool,
    ) -> Result<()> {
        const EXCHANGE: u32 = 2;
        let to = Node::of(to)?.id;
        if exchange {
            let fields = Fields::new().u64(to).u32(EXCHANGE).u32(0).name(old_name).name(new_name);
            return self.call(opcode::RENAME2, &fields).map(drop).map_err(|error| match error {
                Errno::ENOSYS => Errno::EINVAL,
                error => error,
            });
        }
        self.call(opcode::RENAME, &Fields::new().u64(to).name(old_name).name(new_name)).map(drop)
    }

    fn list(&self, _dir: &Arc<Inode>, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        self.list_entries(position, emit)
    }

    fn read_link(&self, _cx: &FsContext) -> Result<LinkTarget> {
        let target = self.call(opcode::READLINK, &Fields::new())?;
        if target.len() >= PAGE_SIZE || target.contains(&0) { Err(Errno::EIO) } else { Ok(LinkTarget::Path(target)) }
    }

    fn open(&self, inode: &Arc<Inode>, flags: OpenFlags, cx: &FsContext) -> Result<Option<Arc<dyn File>>> {
        if inode.kind() != FileKind::Regular {
            return Ok(None);
        }
        handle::open(inode, flags, &cx.cred).map(Some)
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.cache.as_ref()
    }

    fn set_size(&self, inode: &Inode, size: u64) -> Result<()> {
        if let Some(cache) = &self.cache {
            cache.sync_range(0, u64::MAX)?;
        }
        self.change(inode, valid::SIZE, size, &SetAttributes::default())
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        let size = self.size();
        Ok(if offset >= size { None } else { Some(if data { offset } else { size }) })
    }

    fn sync(&self, _inode: &Inode, _data_only: bool) -> Result<()> {
        self.cache.as_ref().map_or(Ok(()), |cache| cache.sync_range(0, u64::MAX))
    }

    fn size(&self) -> u64 {
        self.cache.as_ref().map_or(self.size.load(Ordering::Relaxed), |cache| cache.size())
    }

    fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    fn set_attributes(&self, inode: &Inode, change: &SetAttributes) -> Result<()> {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let time = |time: Option<SetTime>, at: u32, now: u32| match time {
            Some(SetTime::Now) => at | now,
            Some(SetTime::At(_)) => at,
            None => 0,
        };
        let bits = bit(change.mode.is_some(), valid::MODE)
            | bit(change.uid.is_some(), valid::UID)
            | bit(change.gid.is_some(), valid::GID)
            | time(change.atime, valid::ATIME, valid::ATIME_NOW)
            | time(change.mtime, valid::MTIME, valid::MTIME_NOW);
        self.change(inode, bits, 0, change)
    }

    fn refresh(&self, inode: &Inode) {
        if self.attributes_until.load(Ordering::Acquire) <= sched::time::now() {
            // What a program that is gone knew stays as it was known.
            let _ = self.ask(inode);
        }
    }

    fn permission(&self, _inode: &Inode, _access: Access) -> Result<()> {
        match self.tree.only {
            Some(user) if caller().is_none_or(|who| who.cred.fsuid != user) => Err(Errno::EACCES),
            _ => Ok(()),
        }
    }

    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(self)
    }
}

/// What a program without attributes says.
fn unsupported(error: Errno) -> Errno {
    if error == Errno::ENOSYS { Errno::EOPNOTSUPP } else { error }
}

impl XattrStore for Node {
    fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let fields = Fields::new().u32(SIZE_MAX as u32).u32(0).name(name);
        self.call(opcode::GETXATTR, &fields).map_err(unsupported)
    }

    fn set(&self, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
        let fields = Fields::new().u32(value.len() as u32).u32(mode.flags()).name(name).bytes(value)?;
        self.call(opcode::SETXATTR, &fields).map(drop).map_err(unsupported)
    }

    fn remove(&self, name: &[u8]) -> Result<()> {
        self.call(opcode::REMOVEXATTR, &Fields::new().name(name)).map(drop).map_err(unsupported)
    }

    fn list(&self, keep: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let fields = Fields::new().u32(SIZE_MAX as u32).u32(0);
        let all = self.call(opcode::LISTXATTR, &fields).map_err(unsupported)?;
        Ok(filter_names(&all, keep))
    }
}

impl FilePager {
    fn inode(&self) -> Result<Arc<Inode>> {
        self.0.get().and_then(Weak::upgrade).ok_or(Errno::EIO)
    }
}

impl Pager for FilePager {
    fn read(&self, first: u64, frames: &[Frame]) -> Result<()> {
        let inode = self.inode()?;
        let node = Node::of(&inode)?;
        let handle = node.open_handle(abi::general::O_RDONLY)?;
        let mut bytes = buffer(frames.len() * PAGE_SIZE)?;
        let mut done = 0;
        let result = loop {
            let wanted = (bytes.len() - done).min(node.tree.connection.read_max());
            match node.read(handle, first * PAGE + done as u64, wanted) {
                Ok(got) if !got.is_empty() => {
                    bytes[done..done + got.len()].copy_from_slice(&got);
                    done += got.len();
                    if got.len() < wanted || done == bytes.len() {
                        break Ok(());
                    }
                }
                result => break result.map(drop),
            }
        };
        node.close_handle(handle, abi::general::O_RDONLY);
        result?;
        for (frame, page) in frames.iter().zip(bytes.chunks(PAGE_SIZE)) {
            frame.write(0, page);
        }
        Ok(())
    }

    fn write(&self, pages: &[(u64, Frame)]) -> Result<()> {
        let inode = self.inode()?;
        let node = Node::of(&inode)?;
        let handle = node.writers.lock().first().copied().ok_or(Errno::EIO)?;
        let size = node.size();
        let mut page = [0; PAGE_SIZE];
        for (index, frame) in pages {
            let len = size.saturating_sub(index * PAGE).min(PAGE) as usize;
            frame.read(0, &mut page[..len]);
            let mut done = 0;
            while done < len {
                done += node.write(handle, index * PAGE + done as u64, &page[done..len])?;
            }
        }
        Ok(())
    }
}
