//! A file system as a whole: opening it (with recovery), operations that succeed or change nothing, commits, and closing it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::allocate::Space;
use super::extent;
use super::superblock::{self, OFFSET, SIZE, Superblock, compat, field, incompat, state};
use crate::block::BlockIo;
use crate::bytes::{le16, le32, put_le16, put_le32};
use crate::jbd2::{Area, Commit, Log, Store};

/// What has to be done to a changed block before it is written: its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seal {
    /// The block bitmap of a group.
    BlockBitmap(u32),
    /// The inode bitmap of a group.
    InodeBitmap(u32),
    /// A block of a directory, with what its checksum begins with.
    Directory(u32),
    /// A block of an extent tree.
    Extents(u32),
}

/// What to do when the file system turns out to be damaged (`errors=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnError {
    /// Go on as well as may be.
    Continue,
    /// Change nothing any more.
    ReadOnly,
    /// Stop the machine.
    Panic,
}

/// How to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenOptions {
    /// Change nothing (but recover the journal, if the disk can be written).
    pub(crate) read_only: bool,
    /// Don't recover the journal; only with `read_only`.
    pub(crate) no_load: bool,
    /// What to do on errors; `None`: what the superblock says.
    pub(crate) on_error: Option<OnError>,
}

/// An open file system.
pub(crate) struct Volume {
    pub(crate) sb: Superblock,
    pub(super) store: Store,
    /// What the allocator knows of each group.
    pub(super) space: Vec<Option<Space>>,
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u64,
    /// Free, but only after the next commit.
    pub(crate) pending: u64,
    /// Allocated by the operation under way.
    pub(super) allocated: Vec<(u64, u64)>,
    /// Inodes without a name or with blocks past their end, the last one added first.
    pub(super) orphans: Vec<u32>,
    pub(super) unsealed: BTreeMap<u64, Seal>,
    read_only: bool,
    pub(crate) on_error: OnError,
    /// The error after which nothing is changed any more.
    failed: Option<Errno>,
    /// The contents of files go through the journal as well (data=journal).
    pub(crate) journals_data: bool,
    /// Blocks of the journal.
    journal_blocks: u64,
    /// For the generation numbers of new inodes.
    pub(super) next_generation: u32,
}

impl Volume {
    /// Opens the file system on `io`. `EINVAL` where there is none that can be used, `EROFS` where it can't be written, `EUCLEAN` and
    /// `EBADMSG` where it is damaged, `EIO`.
    pub(crate) fn open(io: Arc<dyn BlockIo>, options: OpenOptions, now: i64) -> Result<Volume> {
        let mut bytes = superblock::load(&*io)?;
        let mut sb = Superblock::parse(&bytes, io.size())?;
        if sb.block_size < io.logical_block() as usize {
            return Err(Errno::EINVAL);
        }
        if !options.read_only && io.is_read_only() {
            return Err(Errno::EROFS);
        }
        if !options.read_only && sb.unknown_ro_compat() != 0 {
            log::error!("ext4: features that can only be read: {:#x}", sb.unknown_ro_compat());
            return Err(Errno::EROFS);
        }
        let mut log = None;
        if sb.compat & compat::HAS_JOURNAL != 0 && !options.no_load {
            if sb.journal_inode == 0 {
                log::error!(
                    "ext4: the journal is on another device ({:#x}), which is not supported",
                    sb.journal_device
                );
                return Err(Errno::EINVAL);
            }
            let mut found = Log::open(&*io, journal_area(&io, &sb)?, sb.block_size)?;
            let mut sequence = found.sequence;
            if found.needs_recovery() {
                if io.is_read_only() {
                    return Err(Errno::EROFS);
                }
                sequence = found.recover(&*io)?;
                // What was recovered may be the superblock itself.
                bytes = superblock::load(&*io)?;
                sb = Superblock::parse(&bytes, io.size())?;
                found.activate(&*io, sequence, sb.has_checksums(), sb.has(incompat::WIDE))?;
                clear_recover(&*io)?;
            }
            log = Some((found, sequence));
        }
        // An image that asks for a panic does not get one: only who mounts it may decide that.
        let on_error = options.on_error.unwrap_or(match sb.errors {
            2 | 3 => OnError::ReadOnly,
            _ => OnError::Continue,
        });
        let mut volume = Volume { on_error, next_generation: (now / 1_000) as u32, ..Volume::unchecked(io, sb) };
        if volume.sb.compat & compat::HAS_JOURNAL != 0 && volume.sb.journal_inode != 0 {
            let inode = volume.inode(volume.sb.journal_inode)?;
            volume.journal_blocks = inode.size() / volume.sb.block_size as u64;
        }
        volume.check_groups()?;
        volume.count_free()?;
        let root = volume.checked_inode(super::inode::ROOT)?;
        if !root.is_dir() {
            return Err(Errno::EUCLEAN);
        }
        if !options.read_only {
            volume.begin_writing(log, now)?;
        }
        Ok(volume)
    }

    fn unchecked(io: Arc<dyn BlockIo>, sb: Superblock) -> Volume {
        Volume {
            space: (0..sb.groups).map(|_| None).collect(),
            store: Store::new(io, sb.block_size, None),
            free_blocks: 0,
            free_inodes: 0,
            pending: 0,
            allocated: Vec::new(),
            orphans: Vec::new(),
            unsealed: BTreeMap::new(),
            read_only: true,
            on_error: OnError::Continue,
            failed: None,
            journals_data: false,
            next_generation: 0,
            journal_blocks: 0,
            sb,
        }
    }

    /// Begins to write: the journal is made ready, the superblock says so, and orphans are seen to.
    fn begin_writing(&mut self, log: Option<(Log, u32)>, now: i64) -> Result<()> {
        let io = self.store.io().clone();
        let has_journal = log.is_some();
        if let Some((mut log, sequence)) = log {
            log.activate(&*io, sequence, self.sb.has_checksums(), self.sb.has(incompat::WIDE))?;
            self.store.set_log(log);
        }
        // Not by the journal: the superblock must say that there is something to recover before there is.
        let mut bytes = superblock::load(&*io)?;
        let last_orphan = le32(&bytes, field::LAST_ORPHAN);
        let count = le16(&bytes, field::MOUNT_COUNT).saturating_add(1);
        put_le16(&mut bytes, field::MOUNT_COUNT, count);
        put_le32(&mut bytes, field::MOUNT_TIME, (now / 1_000_000_000) as u32);
        if has_journal {
            let features = le32(&bytes, field::INCOMPAT) | incompat::RECOVER;
            put_le32(&mut bytes, field::INCOMPAT, features);
        } else {
            let now_dirty = le16(&bytes, field::STATE) & !state::CLEAN;
            put_le16(&mut bytes, field::STATE, now_dirty);
        }
        write_superblock(&*io, &mut bytes)?;
        io.flush()?;
        self.store.forget(self.sb.place().0);
        self.read_only = false;
        self.load_orphans(last_orphan);
        self.clean_orphans(now)
    }

    /// Adds up what the groups have free.
    fn count_free(&mut self) -> Result<()> {
        let (mut blocks, mut inodes) = (0, 0);
        for number in 0..self.sb.groups {
            let group = self.group(number)?;
            blocks += u64::from(group.free_blocks());
            inodes += u64::from(group.free_inodes());
        }
        (self.free_blocks, self.free_inodes) = (blocks, inodes);
        Ok(())
    }

    /// Is nothing changed here?
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only || self.failed.is_some()
    }

    /// The error that made it read-only.
    pub(crate) fn failure(&self) -> Option<Errno> {
        self.failed
    }

    /// Does one operation: it succeeds as a whole or changes nothing. It becomes part of the running transaction, which should not be
    /// full ([`Volume::is_full`]). `EROFS`, and what the operation gives.
    pub(crate) fn operation<R>(&mut self, f: impl FnOnce(&mut Volume) -> Result<R>) -> Result<R> {
        if self.is_read_only() {
            return Err(Errno::EROFS);
        }
        self.store.begin();
        self.allocated.clear();
        let pending = self.pending;
        let orphans = self.orphans.clone();
        match f(self) {
            Ok(value) => {
                self.store.keep();
                Ok(value)
            }
            Err(error) => {
                self.store.undo();
                self.pending = pending;
                self.orphans = orphans;
                for (first, count) in core::mem::take(&mut self.allocated) {
                    self.give_back(first, count);
                }
                let counted = self.count_free();
                self.note(error);
                counted?;
                Err(error)
            }
        }
    }

    /// Looks something up, and notes what turns out to be damaged.
    pub(crate) fn query<R>(&mut self, f: impl FnOnce(&mut Volume) -> Result<R>) -> Result<R> {
        let result = f(self);
        if let Err(error) = result {
            self.note(error);
        }
        result
    }

    /// Acts upon an error that says that the file system is damaged.
    pub(crate) fn note(&mut self, error: Errno) {
        let damaged = error == Errno::EUCLEAN || error == Errno::EBADMSG;
        if !damaged || self.is_read_only() {
            return;
        }
        match self.on_error {
            OnError::Continue => {
                let now = 0;
                // Best effort: that it can't be noted changes nothing.
                let _ = self.mark_errors(now);
            }
            OnError::ReadOnly => self.fail(error),
            OnError::Panic => panic!("ext4: the file system is damaged ({error}), and errors=panic"),
        }
    }

    /// Gives up: nothing is changed any more, and what was not committed is lost. The disk is told that it needs a check.
    pub(crate) fn fail(&mut self, error: Errno) {
        if self.failed.is_some() {
            return;
        }
        log::error!("ext4: {error}: nothing is written any more (remounted read-only)");
        self.failed = Some(error);
        let _ = self.store.note_error(error);
        let io = self.store.io().clone();
        if let Ok(mut bytes) = superblock::load(&*io) {
            let now = le16(&bytes, field::STATE) | state::ERRORS;
            put_le16(&mut bytes, field::STATE, now);
            count_error(&mut bytes, 0);
            let _ = write_superblock(&*io, &mut bytes);
            let _ = io.flush();
        }
    }

    fn mark_errors(&mut self, now: u32) -> Result<()> {
        self.change_superblock(|bytes| {
            let state = le16(bytes, field::STATE) | state::ERRORS;
            put_le16(bytes, field::STATE, state);
            count_error(bytes, now);
        })
    }

    /// Changes the superblock as part of the running transaction.
    pub(super) fn change_superblock(&mut self, f: impl FnOnce(&mut [u8])) -> Result<()> {
        let (block, offset) = self.sb.place();
        self.store.change(block, |data| {
            if let Some(bytes) = data.get_mut(offset..offset + SIZE) {
                f(bytes);
                superblock::seal(bytes);
            }
        })
    }

    /// Should the running transaction be committed before another operation begins?
    pub(crate) fn is_full(&self) -> bool {
        self.store.is_full()
    }

    /// The number of the running transaction, and whether it has changes.
    pub(crate) fn transaction(&self) -> (u32, bool) {
        (self.store.sequence(), self.store.has_changes())
    }

    /// Takes the running transaction to be committed: to be written without a lock, and given to [`Volume::end_commit`]. `EIO`.
    pub(crate) fn begin_commit(&mut self, now: i64) -> Result<Option<Commit>> {
        if self.is_read_only() || !self.store.has_changes() {
            return Ok(None);
        }
        let (blocks, inodes) = (self.free_blocks, self.free_inodes);
        let taken = self.seal(now, blocks, inodes).and_then(|()| self.store.begin_commit(now));
        if let Err(error) = taken {
            self.fail(error);
        }
        taken
    }

    /// Puts the checksums into what was changed, and the totals into the superblock.
    fn seal(&mut self, now: i64, blocks: u64, inodes: u64) -> Result<()> {
        self.change_superblock(|bytes| {
            put_le32(bytes, field::FREE_BLOCKS_LOW, blocks as u32);
            put_le32(bytes, field::FREE_INODES, inodes as u32);
            put_le32(bytes, field::WRITE_TIME, (now / 1_000_000_000) as u32);
            if le32(bytes, field::INCOMPAT) & incompat::WIDE != 0 {
                put_le32(bytes, field::FREE_BLOCKS_HIGH, (blocks >> 32) as u32);
            }
        })?;
        let unsealed = core::mem::take(&mut self.unsealed);
        if !self.sb.has_checksums() {
            return Ok(());
        }
        for (block, seal) in unsealed {
            if !self.store.is_dirty(block) {
                continue;
            }
            match seal {
                Seal::BlockBitmap(group) => self.seal_bitmap(group, false)?,
                Seal::InodeBitmap(group) => self.seal_bitmap(group, true)?,
                Seal::Directory(seed) => self.store.change(block, |data| super::directory::seal(data, seed))?,
                Seal::Extents(seed) => self.store.change(block, |data| extent::seal(data, seed))?,
            }
        }
        Ok(())
    }

    /// The commit was written, or not: then this is the end of writing.
    pub(crate) fn end_commit(&mut self, commit: Commit, written: Result<()>) -> Result<()> {
        if let Err(error) = written {
            self.fail(error);
            return Err(error);
        }
        for (first, count) in self.store.end_commit(commit) {
            self.give_back(first, count);
            self.pending = self.pending.saturating_sub(count);
        }
        Ok(())
    }

    /// Commits the running transaction, all at once. `EIO`.
    pub(crate) fn commit(&mut self, now: i64) -> Result<()> {
        let Some(commit) = self.begin_commit(now)? else { return Ok(()) };
        let io = self.store.io().clone();
        let written = commit.write(&*io);
        self.end_commit(commit, written)
    }

    /// Writes everything to its place and says on the disk that it is clean. No commit may be under way. `EIO`.
    pub(crate) fn close(&mut self, now: i64) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.commit(now)?;
        self.store.checkpoint().inspect_err(|error| self.fail(*error))?;
        let io = self.store.io().clone();
        io.flush()?;
        let mut bytes = superblock::load(&*io)?;
        let features = le32(&bytes, field::INCOMPAT) & !incompat::RECOVER;
        put_le32(&mut bytes, field::INCOMPAT, features);
        if !self.store.has_log() && self.sb.state & state::CLEAN != 0 {
            let clean = le16(&bytes, field::STATE) | state::CLEAN;
            put_le16(&mut bytes, field::STATE, clean);
        }
        write_superblock(&*io, &mut bytes)?;
        self.read_only = true;
        io.flush()
    }

    /// Sets the contents of a block of a file as part of the running transaction (data=journal).
    pub(crate) fn put_block(&mut self, block: u64, data: Vec<u8>) {
        self.store.put(block, data);
    }

    /// Blocks that files can have: what statfs(2) tells as the size, without the tables.
    pub(crate) fn data_blocks(&self) -> u64 {
        let table = u64::from(self.sb.inodes_per_group) * self.sb.inode_size as u64 / self.sb.block_size as u64;
        let overhead: u64 = (0..self.sb.groups).map(|group| self.copies_len(group) + 2 + table).sum();
        self.sb.blocks.saturating_sub(overhead + self.sb.first_data_block + self.journal_blocks)
    }

    /// The bytes of a block, for who reads data that may be in the journal only (data=journal).
    pub(crate) fn journaled(&mut self, block: u64) -> Option<Arc<[u8]>> {
        self.store.cached(block)
    }
}

fn count_error(bytes: &mut [u8], now: u32) {
    let count = le32(bytes, field::ERROR_COUNT).saturating_add(1);
    put_le32(bytes, field::ERROR_COUNT, count);
    if count == 1 {
        put_le32(bytes, field::FIRST_ERROR_TIME, now);
    }
    put_le32(bytes, field::LAST_ERROR_TIME, now);
}

/// Writes the superblock to its place, past the journal.
fn write_superblock(io: &dyn BlockIo, bytes: &mut [u8]) -> Result<()> {
    superblock::seal(bytes);
    let block = u64::from(io.logical_block()).max(1024);
    let start = OFFSET / block * block;
    let mut whole = alloc::vec![0; block as usize];
    io.read(start, &mut whole)?;
    let at = (OFFSET - start) as usize;
    whole[at..at + SIZE].copy_from_slice(bytes);
    io.write(start, &whole)
}

fn clear_recover(io: &dyn BlockIo) -> Result<()> {
    let mut bytes = superblock::load(io)?;
    let features = le32(&bytes, field::INCOMPAT) & !incompat::RECOVER;
    put_le32(&mut bytes, field::INCOMPAT, features);
    write_superblock(io, &mut bytes)?;
    io.flush()
}

/// Where the journal is, as its inode says.
fn journal_area(io: &Arc<dyn BlockIo>, sb: &Superblock) -> Result<Area> {
    let mut volume = Volume::unchecked(io.clone(), sb.clone());
    let inode = volume.inode(sb.journal_inode)?;
    let blocks = u32::try_from(inode.size() / sb.block_size as u64).map_err(|_| Errno::EUCLEAN)?;
    let mut area = Vec::new();
    let mut at = 0;
    while at < blocks {
        let mapped = volume.map(&inode, at, blocks - at)?;
        let block = mapped.block.filter(|_| mapped.len > 0).ok_or(Errno::EUCLEAN)?;
        area.push((at, block, mapped.len));
        at += mapped.len;
    }
    Ok(Area(area))
}
