//! A mounted file system: locks around the [`Volume`], the thread that commits, and what the VFS asks of the whole.

mod kind;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use base::{Capability, Errno, Nanos, Result};
use hal::sync::{Once, SpinLock};
use hashbrown::HashMap;
use sched::{Mutex, MutexGuard, Sleep, WaitQueue};

use super::inode::ROOT;
use super::node::Node;
use super::options::{DataMode, Options};
use super::volume::{OpenOptions, Volume};
use crate::block::{BlockDev, BlockIo};
use crate::callers::{Caller, caller};
use crate::inode::realtime;
use crate::inode_table::InodeTable;
use crate::vfs::handle::Layout;
use crate::writeback::DirtyStore;
use crate::{FsStats, Inode, SuperBlock, SuperOps};

pub use kind::Kind;

/// `f_type` of ext2, ext3 and ext4.
const MAGIC: u32 = 0xef53;

/// An inode that has something to be written, and since when.
type Dirty = HashMap<u32, (Arc<Inode>, Nanos)>;

/// What all parts of a mounted file system share.
pub(super) struct Ext4 {
    pub(super) io: Arc<dyn BlockIo>,
    device: Option<Arc<BlockDev>>,
    volume: Mutex<Volume>,
    /// Held while a transaction is taken and written: one at a time.
    commit_lock: Mutex<()>,
    pub(super) block_size: usize,
    pub(super) options: SpinLock<Options>,
    read_only: AtomicBool,
    superblock: Once<Weak<SuperBlock>>,
    /// The inodes that are in memory.
    nodes: InodeTable<u32>,
    /// Those with attributes, and those with pages, that are not stored yet.
    touched: SpinLock<Dirty>,
    dirty: SpinLock<Dirty>,
    /// Inodes that nobody uses any more and that have no name: to be removed.
    doomed: SpinLock<Vec<u32>>,
    /// Blocks that delayed allocation will need, and how many there are for it.
    reserved: AtomicU64,
    room: AtomicU64,
    /// Blocks that are kept for some, and for whom unless the options say otherwise.
    kept: u64,
    kept_for: (u32, u32),
    /// The running transaction.
    sequence: AtomicU32,
    thread: WaitQueue,
    awake: AtomicBool,
    closed: AtomicBool,
}

impl Ext4 {
    fn open(io: Arc<dyn BlockIo>, device: Option<Arc<BlockDev>>, read_only: bool, options: Options) -> Result<Ext4> {
        let how = OpenOptions { read_only, no_load: options.no_load, on_error: options.on_error };
        if options.no_load && !read_only {
            return Err(Errno::EINVAL);
        }
        let mut volume = Volume::open(io.clone(), how, realtime())?;
        volume.journals_data = options.data == DataMode::Journal;
        let fs = Ext4 {
            block_size: volume.sb.block_size,
            io,
            device,
            commit_lock: Mutex::new(()),
            options: SpinLock::new(options),
            read_only: AtomicBool::new(read_only),
            superblock: Once::new(),
            nodes: InodeTable::new(),
            touched: SpinLock::new(HashMap::new()),
            dirty: SpinLock::new(HashMap::new()),
            doomed: SpinLock::new(Vec::new()),
            reserved: AtomicU64::new(0),
            room: AtomicU64::new(0),
            kept: volume.sb.reserved_blocks,
            kept_for: volume.sb.reserved_for,
            sequence: AtomicU32::new(volume.transaction().0),
            thread: WaitQueue::new(),
            awake: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            volume: Mutex::new(volume),
        };
        fs.note_room(&fs.volume.lock());
        Ok(fs)
    }

    /// The volume, locked.
    pub(super) fn volume(&self) -> MutexGuard<'_, Volume> {
        self.volume.lock()
    }

    /// Does one operation on the volume; commits before where the transaction is full, and tries again after removing what is doomed
    /// where there is no space. `EROFS`, and what the operation gives.
    pub(super) fn operation<R>(&self, mut f: impl FnMut(&mut Volume) -> Result<R>) -> Result<R> {
        let mut tried = false;
        loop {
            let mut volume = self.volume.lock();
            if volume.is_full() {
                drop(volume);
                self.commit()?;
                continue;
            }
            let result = volume.operation(&mut f);
            self.note_room(&volume);
            let pending = volume.pending > 0;
            drop(volume);
            let doomed = !self.doomed.lock().is_empty();
            match result {
                Err(Errno::ENOSPC) if !tried && (pending || doomed) => {
                    tried = true;
                    self.reap();
                    self.commit()?;
                }
                result => return result,
            }
        }
    }

    /// Looks something up.
    pub(super) fn query<R>(&self, f: impl FnOnce(&mut Volume) -> Result<R>) -> Result<R> {
        self.volume.lock().query(f)
    }

    /// Remembers what [`Ext4::reserve`] needs to know without the lock.
    fn note_room(&self, volume: &Volume) {
        self.room.store(Ext4::room_in(volume), Ordering::Relaxed);
        self.sequence.store(volume.transaction().0, Ordering::Relaxed);
    }

    /// Blocks that may be given to data: without what is freed but not committed, and what changes of metadata may need.
    fn room_in(volume: &Volume) -> u64 {
        let margin = (volume.sb.blocks / 50).min(4096);
        volume.free_blocks.saturating_sub(volume.pending + margin)
    }

    /// Blocks that the caller may take now without having reserved them.
    pub(super) fn left(&self, volume: &Volume) -> u64 {
        let taken = self.reserved.load(Ordering::Relaxed) + if self.may_use_kept() { 0 } else { self.kept };
        Ext4::room_in(volume).saturating_sub(taken)
    }

    /// May the caller use the blocks that are kept for root?
    fn may_use_kept(&self) -> bool {
        let Some(Caller { cred, .. }) = caller() else { return true };
        let options = *self.options.lock();
        let (user, group) =
            (options.reserved_user.unwrap_or(self.kept_for.0), options.reserved_group.unwrap_or(self.kept_for.1));
        cred.fsuid == user || group != 0 && cred.in_group(group) || cred.capable(Capability::SysResource)
    }

    /// Is there room for `reserved` blocks in all, as far as the caller is concerned?
    fn has_room(&self, reserved: u64) -> bool {
        let room = self.room.load(Ordering::Relaxed);
        reserved + self.kept <= room || reserved <= room && self.may_use_kept()
    }

    /// The number of the running transaction.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// Reserves blocks for later. `ENOSPC`, `EROFS`.
    pub(super) fn reserve(&self, blocks: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::EROFS);
        }
        let reserved = self.reserved.fetch_add(blocks, Ordering::Relaxed) + blocks;
        if self.has_room(reserved) {
            return Ok(());
        }
        // There may be more room than is known: what is deleted but not committed, or not even removed.
        self.reap();
        if self.volume.lock().pending > 0 {
            self.commit()?;
        }
        self.note_room(&self.volume.lock());
        if self.has_room(self.reserved.load(Ordering::Relaxed)) {
            return Ok(());
        }
        self.release(blocks);
        Err(Errno::ENOSPC)
    }

    /// Takes back what [`Ext4::reserve`] gave.
    pub(super) fn release(&self, blocks: u64) {
        let _ = self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(blocks)));
    }

    /// Commits the running transaction, with the attributes that have changed. True if there was something. `EIO`.
    pub(super) fn commit(&self) -> Result<bool> {
        let mut touched = HashMap::new();
        let result = self.commit_locked(&mut touched);
        // With the last reference to an inode the whole file system may end, which takes the locks.
        drop(touched);
        result
    }

    fn commit_locked(&self, touched: &mut Dirty) -> Result<bool> {
        let _held = self.commit_lock.lock();
        *touched = core::mem::take(&mut *self.touched.lock());
        let commit = {
            let mut volume = self.volume.lock();
            let stored = touched.values().try_for_each(|(inode, _)| store_attributes(&mut volume, inode));
            if let Err(error) = stored {
                volume.note(error);
            }
            volume.begin_commit(realtime())?
        };
        let Some(commit) = commit else { return Ok(false) };
        let written = commit.write(&*self.io);
        let mut volume = self.volume.lock();
        let result = volume.end_commit(commit, written);
        self.note_room(&volume);
        result.map(|()| true)
    }

    /// Makes everything that was written to the disk, and everything that is committed or running, last. `EIO`.
    pub(super) fn commit_and_flush(&self) -> Result<()> {
        // A commit ends with a flush.
        if self.commit()? { Ok(()) } else { self.flush() }
    }

    /// Makes what was written to the disk last. `EIO`.
    pub(super) fn flush(&self) -> Result<()> {
        if self.options.lock().barrier { self.io.flush() } else { Ok(()) }
    }

    /// Removes the inodes that nobody uses any more.
    pub(super) fn reap(&self) {
        loop {
            let Some(number) = self.doomed.lock().pop() else { return };
            loop {
                let step = self.operation_without_reaping(|volume| volume.delete_step(number, realtime()));
                match step {
                    Ok(false) => sched::preempt_point(),
                    Ok(true) => break,
                    Err(error) => {
                        if error != Errno::EROFS {
                            log::warn!("ext4: inode {number} can't be removed: {error}");
                        }
                        break;
                    }
                }
            }
        }
    }

    fn operation_without_reaping<R>(&self, mut f: impl FnMut(&mut Volume) -> Result<R>) -> Result<R> {
        loop {
            let mut volume = self.volume.lock();
            if volume.is_full() {
                drop(volume);
                self.commit()?;
                continue;
            }
            let result = volume.operation(&mut f);
            self.note_room(&volume);
            return result;
        }
    }

    /// An inode without a name has lost its last user.
    pub(super) fn doom(&self, number: u32) {
        self.doomed.lock().push(number);
        self.wake();
    }

    fn wake(&self) {
        self.awake.store(true, Ordering::Release);
        self.thread.wake_all();
    }

    /// The inode is no longer in memory.
    pub(super) fn forget(&self, number: u32) {
        self.nodes.remove(number);
    }

    /// The inode in memory, if it is.
    pub(super) fn known(&self, number: u32) -> Option<Arc<Inode>> {
        self.nodes.get(number)
    }

    /// Makes the inode known, in place of what had its number before. `ENOMEM`.
    pub(super) fn remember(&self, number: u32, inode: Arc<Inode>) -> Result<Arc<Inode>> {
        self.nodes.add(number, inode, |_| false)
    }

    pub(super) fn superblock(&self) -> Result<Arc<SuperBlock>> {
        self.superblock.get().and_then(Weak::upgrade).ok_or(Errno::EIO)
    }

    /// The inode's attributes have to be stored.
    pub(super) fn note_touched(&self, number: u32, inode: Arc<Inode>) {
        let old = self.touched.lock().insert(number, (inode, sched::time::now()));
        drop(old);
    }

    /// The inode's pages have to be written.
    pub(super) fn note_dirty(&self, number: u32, inode: Arc<Inode>) {
        let mut dirty = self.dirty.lock();
        let old = if dirty.contains_key(&number) {
            Some(inode)
        } else {
            dirty.insert(number, (inode, sched::time::now())).map(|d| d.0)
        };
        drop(dirty);
        drop(old);
    }

    /// The inode has lost its last name: what waits to be stored of it need not be.
    pub(super) fn let_go(&self, number: u32) {
        let gone = (self.touched.lock().remove(&number), self.dirty.lock().remove(&number));
        drop(gone);
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Notices that an error has made it read-only.
    pub(super) fn check_failure(&self) {
        if self.volume.lock().failure().is_some() {
            self.read_only.store(true, Ordering::Relaxed);
        }
    }

    /// Writes the pages of inodes that have been dirty since before `older_than`; all, if `None`. The first error.
    fn write_pages(&self, older_than: Option<Nanos>) -> Result<()> {
        let due = |since: &Nanos| older_than.is_none_or(|limit| *since <= limit);
        let taken: Vec<(u32, (Arc<Inode>, Nanos))> = self.dirty.lock().extract_if(|_, (_, since)| due(since)).collect();
        let mut result = Ok(());
        for (number, (inode, _)) in taken {
            let Some(cache) = inode.ops().page_cache() else { continue };
            // Nobody else has it, and it has no name: nobody will read it.
            if Arc::strong_count(&inode) == 1 && inode.nlink() == 0 {
                let _ = cache.resize(0);
                continue;
            }
            let written = cache.write_back(0, u64::MAX, usize::MAX);
            if cache.is_dirty() {
                self.note_dirty(number, inode.clone());
            }
            result = result.and(written.map(drop));
            sched::preempt_point();
        }
        result
    }

    /// Writes everything and marks the disk as clean; the end.
    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.wake();
        if let Err(error) = self.settle() {
            log::error!("ext4: files could not be written at the end: {error}");
        }
        let _held = self.commit_lock.lock();
        let closed = self.volume.lock().close(realtime());
        if let Err(error) = closed {
            log::error!("ext4: the file system is not clean at the end: {error}");
        }
        self.read_only.store(true, Ordering::Relaxed);
        if let Some(device) = &self.device {
            device.cache().drop_clean(0, u64::MAX);
            device.unclaim();
        }
    }

    /// Writes everything that is only in memory, and removes what nobody uses: the file system is about to be left alone.
    fn settle(&self) -> Result<()> {
        let written = self.write_pages(None);
        // Changed attributes keep their inodes until they are stored, also those of removed files.
        let stored = self.commit().map(drop);
        self.reap();
        written.and(stored)
    }

    /// What the thread does: commits every few seconds, and removes what nobody uses.
    fn run(fs: Weak<Ext4>) {
        loop {
            let Some(fs) = fs.upgrade() else { return };
            let deadline = sched::time::now() + fs.options.lock().commit;
            let _ = fs.thread.wait_until(Sleep::Uninterruptible, Some(deadline), || {
                fs.awake.swap(false, Ordering::AcqRel).then_some(())
            });
            if fs.closed.load(Ordering::Acquire) {
                return;
            }
            fs.reap();
            if sched::time::now() >= deadline
                && let Err(error) = fs.commit()
            {
                log::error!("ext4: the journal can't be committed: {error}");
            }
            fs.check_failure();
        }
    }
}

/// Stores the attributes of an inode that the VFS has changed.
fn store_attributes(volume: &mut Volume, inode: &Inode) -> Result<()> {
    if !inode.take_touched() {
        return Ok(());
    }
    let now = inode.attributes();
    volume.operation(|volume| {
        volume.change_inode(inode.number() as u32, |raw| {
            raw.set_mode(raw.mode() & !0o7777 | now.mode & 0o7777);
            raw.set_owner(now.uid, now.gid);
            raw.set_times([now.atime, now.mtime, now.ctime]);
        })
    })
}

impl DirtyStore for Ext4 {
    fn write_back(&self, older_than: Option<Nanos>) -> Result<()> {
        self.write_pages(older_than)
    }

    fn sync(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        let written = self.write_pages(None);
        self.reap();
        let committed = self.commit_and_flush();
        self.check_failure();
        written.and(committed)
    }

    fn prune(&self) -> usize {
        self.superblock().map_or(0, |superblock| superblock.prune())
    }
}

/// The file system as its superblock keeps it; with it the file system ends.
struct Ext4Super(Arc<Ext4>);

impl SuperOps for Ext4Super {
    fn stats(&self) -> FsStats {
        self.0.reap();
        let volume = self.0.volume();
        let reserved = self.0.reserved.load(Ordering::Relaxed);
        let free = volume.free_blocks.saturating_sub(reserved);
        FsStats {
            blocks: volume.data_blocks(),
            free,
            available: free.saturating_sub(volume.sb.reserved_blocks),
            files: u64::from(volume.sb.inodes),
            free_files: volume.free_inodes,
        }
    }

    fn sync(&self) -> Result<()> {
        DirtyStore::sync(&*self.0)
    }

    fn show_options(&self) -> Vec<u8> {
        self.0.options.lock().show()
    }

    fn reconfigure(&self, read_only: bool, data: &[u8]) -> Result<()> {
        let fs = &self.0;
        let old = *fs.options.lock();
        let options = old.parse(data)?;
        if options.data != old.data {
            return Err(Errno::EINVAL);
        }
        if read_only && !fs.is_read_only() {
            fs.settle()?;
            let _held = fs.commit_lock.lock();
            let mut volume = fs.volume();
            if !volume.orphans.is_empty() {
                // Files without a name are open, and could not be removed later.
                return Err(Errno::EBUSY);
            }
            volume.close(realtime())?;
            drop(volume);
            fs.read_only.store(true, Ordering::Relaxed);
        } else if !read_only && fs.is_read_only() {
            let _held = fs.commit_lock.lock();
            let mut volume = fs.volume();
            // After an error only a new mount helps, as on Linux.
            if volume.failure().is_some() {
                return Err(Errno::EROFS);
            }
            let how = OpenOptions { read_only: false, no_load: false, on_error: options.on_error };
            *volume = Volume::open(fs.io.clone(), how, realtime())?;
            volume.journals_data = options.data == DataMode::Journal;
            fs.note_room(&volume);
            fs.read_only.store(false, Ordering::Relaxed);
        }
        *fs.options.lock() = options;
        Ok(())
    }

    fn unmounted(&self) {
        self.0.close();
    }

    fn handle_layout(&self) -> Option<Layout> {
        Some(Layout::Short)
    }

    fn generation(&self, inode: &Inode) -> u32 {
        inode.ops_as::<Node>().map_or(0, Node::generation)
    }

    fn inode(&self, number: u64) -> Result<Arc<Inode>> {
        /// Lower numbers are the file system's own, such as the journal's.
        const FIRST: u32 = 11;
        let number = u32::try_from(number).map_err(|_| Errno::ESTALE)?;
        if number < FIRST && number != ROOT {
            return Err(Errno::ESTALE);
        }
        Node::get(&self.0, number).map_err(|_| Errno::ESTALE)
    }

    fn has_acls(&self) -> bool {
        true
    }

    fn is_read_only(&self) -> bool {
        self.0.is_read_only()
    }
}

impl Drop for Ext4Super {
    fn drop(&mut self) {
        self.0.close();
    }
}
