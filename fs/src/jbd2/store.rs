//! The blocks of a file system's metadata as they are now, and the transaction that is changing them.
//!
//! A block's bytes are shared (`Arc`) and copied when they are changed while somebody else has them: a commit keeps the blocks as they
//! were when it began, an operation that fails gets the blocks back that it had found.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Errno, Result};
use hashbrown::HashMap;

use super::log::{Log, LogWrite};
use crate::block::BlockIo;

/// Clean blocks that are kept (16 MiB of 4 KiB blocks).
const KEEP: usize = 4096;

struct Cached {
    data: Arc<[u8]>,
    used: bool,
}

/// What an operation has changed so far, to be undone if it fails.
struct Undo {
    /// Of each block as it was first met: its bytes, and whether the transaction had it already.
    blocks: Vec<(u64, Option<Arc<[u8]>>, bool)>,
    touched: BTreeSet<u64>,
    revoked: Vec<u64>,
    freed: usize,
}

/// The metadata blocks of a file system.
pub(crate) struct Store {
    io: Arc<dyn BlockIo>,
    block_size: usize,
    blocks: HashMap<u64, Cached>,
    log: Option<Log>,
    /// Of the running transaction: the blocks it changes, and those it has freed.
    dirty: BTreeSet<u64>,
    revoked: BTreeSet<u64>,
    /// Ranges of blocks that it frees, to be used again only after it is committed.
    freed: Vec<(u64, u64)>,
    undo: Option<Undo>,
    /// Committed, but not yet in its place: the last committed contents.
    committed: BTreeMap<u64, (u32, Arc<[u8]>)>,
    sequence: u32,
}

/// A transaction that is being committed.
pub(crate) struct Commit {
    /// Its number.
    pub(crate) sequence: u32,
    pub(super) blocks: Vec<(u64, Arc<[u8]>)>,
    pub(super) revoked: Vec<u64>,
    freed: Vec<(u64, u64)>,
    pub(super) time: i64,
    place: Option<LogWrite>,
    block_size: usize,
}

impl Commit {
    /// Writes it, to the log if there is one, else to its place. Needs no lock on the store. `EIO`.
    pub(crate) fn write(&self, io: &dyn BlockIo) -> Result<()> {
        match &self.place {
            Some(place) => place.write(io, self),
            None => {
                let size = self.block_size as u64;
                let writes: Vec<(u64, &[u8])> = self.blocks.iter().map(|(b, data)| (b * size, &**data)).collect();
                io.write_many(&writes)?;
                io.flush()
            }
        }
    }
}

impl Store {
    /// The blocks of a file system; `log`: an active journal.
    pub(crate) fn new(io: Arc<dyn BlockIo>, block_size: usize, log: Option<Log>) -> Store {
        let sequence = log.as_ref().map_or(1, |log| log.sequence);
        Store {
            io,
            block_size,
            blocks: HashMap::new(),
            log,
            dirty: BTreeSet::new(),
            revoked: BTreeSet::new(),
            freed: Vec::new(),
            undo: None,
            committed: BTreeMap::new(),
            sequence,
        }
    }

    /// The storage.
    pub(crate) fn io(&self) -> &Arc<dyn BlockIo> {
        &self.io
    }

    /// Has it a journal?
    pub(crate) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Gives it a journal, before anything is changed.
    pub(crate) fn set_log(&mut self, log: Log) {
        self.sequence = log.sequence;
        self.log = Some(log);
    }

    /// The number of the running transaction.
    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Has the running transaction something to commit?
    pub(crate) fn has_changes(&self) -> bool {
        !self.dirty.is_empty() || !self.revoked.is_empty()
    }

    /// Is the running transaction so large that it should be committed before another operation begins?
    pub(crate) fn is_full(&self) -> bool {
        let max = self.log.as_ref().map_or(KEEP, |log| log.max_transaction());
        self.dirty.len() + self.revoked.len() / 64 > max / 2
    }

    /// Is the block part of the running transaction?
    pub(crate) fn is_dirty(&self, block: u64) -> bool {
        self.dirty.contains(&block)
    }

    fn offset(&self, block: u64) -> Result<u64> {
        block.checked_mul(self.block_size as u64).ok_or(Errno::EUCLEAN)
    }

    /// The block's bytes if they need not be read from the disk.
    pub(crate) fn cached(&mut self, block: u64) -> Option<Arc<[u8]>> {
        if let Some(cached) = self.blocks.get_mut(&block) {
            cached.used = true;
            return Some(cached.data.clone());
        }
        self.committed.get(&block).map(|(_, data)| data.clone())
    }

    /// The block, and whether it was read from the disk just now (so that its checksum is yet to be verified). `EIO`, `ENOMEM`.
    pub(crate) fn read(&mut self, block: u64) -> Result<(Arc<[u8]>, bool)> {
        if let Some(data) = self.cached(block) {
            return Ok((data, false));
        }
        let mut data = Vec::new();
        data.try_reserve_exact(self.block_size).map_err(|_| Errno::ENOMEM)?;
        data.resize(self.block_size, 0);
        self.io.read(self.offset(block)?, &mut data)?;
        let data: Arc<[u8]> = data.into();
        self.trim();
        self.blocks.insert(block, Cached { data: data.clone(), used: true });
        Ok((data, true))
    }

    /// Reads `count` blocks from `first` on at once, if `wanted`, one of them, is not known. What can't be read is left for who
    /// asks for it.
    pub(crate) fn read_ahead(&mut self, wanted: u64, first: u64, count: u64) {
        if self.cached(wanted).is_some() {
            return;
        }
        let (mut data, len) = (Vec::new(), count as usize * self.block_size);
        let Ok(offset) = self.offset(first) else { return };
        if data.try_reserve_exact(len).is_err() {
            return;
        }
        data.resize(len, 0);
        if self.io.read(offset, &mut data).is_err() {
            return;
        }
        self.trim();
        for (block, bytes) in (first..).zip(data.chunks_exact(self.block_size)) {
            if !self.blocks.contains_key(&block) && !self.committed.contains_key(&block) {
                self.blocks.insert(block, Cached { data: bytes.into(), used: block == wanted });
            }
        }
    }

    /// Forgets a block that was read and found damaged.
    pub(crate) fn forget(&mut self, block: u64) {
        if !self.dirty.contains(&block) {
            self.blocks.remove(&block);
        }
    }

    /// Changes a block. `EIO`, `ENOMEM`.
    pub(crate) fn change<R>(&mut self, block: u64, f: impl FnOnce(&mut [u8]) -> R) -> Result<R> {
        self.read(block)?;
        self.remember(block);
        let cached = self.blocks.entry(block).or_insert_with(|| {
            // It is committed, but no longer cached.
            let data = self.committed.get(&block).map_or_else(|| vec![0; self.block_size].into(), |c| c.1.clone());
            Cached { data, used: true }
        });
        if Arc::get_mut(&mut cached.data).is_none() {
            cached.data = Arc::from(&cached.data[..]);
        }
        let data = Arc::get_mut(&mut cached.data).ok_or(Errno::ENOMEM)?;
        self.dirty.insert(block);
        Ok(f(data))
    }

    /// Sets the contents of a block, whatever they were.
    pub(crate) fn put(&mut self, block: u64, data: Vec<u8>) {
        debug_assert_eq!(data.len(), self.block_size);
        self.remember(block);
        self.trim();
        self.blocks.insert(block, Cached { data: data.into(), used: true });
        self.dirty.insert(block);
        self.revoked.remove(&block);
    }

    /// The blocks `first..first + count` are freed by the running transaction. `metadata`: they may be in the journal.
    pub(crate) fn free(&mut self, first: u64, count: u64, metadata: bool) {
        self.freed.push((first, count));
        if !metadata {
            return;
        }
        for block in first..first + count {
            self.remember(block);
            self.blocks.remove(&block);
            self.dirty.remove(&block);
            if self.log.as_ref().is_some_and(Log::can_revoke)
                && self.revoked.insert(block)
                && let Some(undo) = &mut self.undo
            {
                undo.revoked.push(block);
            }
        }
    }

    fn remember(&mut self, block: u64) {
        let Some(undo) = &mut self.undo else { return };
        if undo.touched.insert(block) {
            let data = self.blocks.get(&block).map(|cached| cached.data.clone());
            undo.blocks.push((block, data, self.dirty.contains(&block)));
        }
    }

    /// An operation begins: until [`Store::keep`], it can be undone.
    pub(crate) fn begin(&mut self) {
        let freed = self.freed.len();
        self.undo = Some(Undo { blocks: Vec::new(), touched: BTreeSet::new(), revoked: Vec::new(), freed });
    }

    /// The operation has succeeded.
    pub(crate) fn keep(&mut self) {
        self.undo = None;
    }

    /// The operation has failed: everything is as it was before.
    pub(crate) fn undo(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        for (block, data, was_dirty) in undo.blocks {
            match data {
                Some(data) => drop(self.blocks.insert(block, Cached { data, used: true })),
                None => drop(self.blocks.remove(&block)),
            }
            if was_dirty {
                self.dirty.insert(block);
            } else {
                self.dirty.remove(&block);
            }
        }
        for block in undo.revoked {
            self.revoked.remove(&block);
        }
        self.freed.truncate(undo.freed);
    }

    /// Drops clean blocks that were not used lately when there are too many.
    fn trim(&mut self) {
        if self.blocks.len() < KEEP + self.dirty.len() {
            return;
        }
        let (dirty, undo) = (&self.dirty, &self.undo);
        self.blocks.retain(|block, cached| {
            let pinned = dirty.contains(block) || undo.as_ref().is_some_and(|undo| undo.touched.contains(block));
            core::mem::take(&mut cached.used) || pinned
        });
        if self.blocks.len() >= KEEP + self.dirty.len() {
            let dirty = &self.dirty;
            self.blocks.retain(|block, _| dirty.contains(block));
        }
    }

    /// Takes the running transaction to be committed; a new one begins. `None` where there is nothing. `EIO`: the journal can't go on.
    pub(crate) fn begin_commit(&mut self, time: i64) -> Result<Option<Commit>> {
        if !self.has_changes() {
            return Ok(None);
        }
        let room = self.log.as_ref().map(|log| (log.room_for(self.dirty.len(), self.revoked.len()), log.free()));
        let full = room.is_some_and(|(needed, free)| needed > free);
        if full || self.committed.len() > KEEP / 2 {
            self.checkpoint()?;
        }
        let mut blocks = Vec::with_capacity(self.dirty.len());
        for block in core::mem::take(&mut self.dirty) {
            if let Some(cached) = self.blocks.get(&block) {
                blocks.push((block, cached.data.clone()));
            }
        }
        let mut commit = Commit {
            sequence: self.sequence,
            blocks,
            revoked: core::mem::take(&mut self.revoked).into_iter().collect(),
            freed: core::mem::take(&mut self.freed),
            time,
            place: None,
            block_size: self.block_size,
        };
        if let Some(log) = &mut self.log {
            if log.room_for(commit.blocks.len(), commit.revoked.len()) > log.free() {
                return Err(Errno::EIO);
            }
            commit.place = Some(log.begin(&*self.io, &commit)?);
            log.sequence = self.sequence.wrapping_add(1);
        }
        // Until they are in their places, they are not read from there.
        for (block, data) in &commit.blocks {
            self.committed.insert(*block, (commit.sequence, data.clone()));
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some(commit))
    }

    /// The commit was written: the ranges that may be used again.
    pub(crate) fn end_commit(&mut self, commit: Commit) -> Vec<(u64, u64)> {
        for block in &commit.revoked {
            // What was logged before it was freed must not be written to its place: something else will be there.
            self.committed.remove(block);
        }
        if commit.place.is_none() {
            for (block, _) in &commit.blocks {
                if self.committed.get(block).is_some_and(|(sequence, _)| *sequence == commit.sequence) {
                    self.committed.remove(block);
                }
            }
        }
        commit.freed
    }

    /// Writes everything that is committed to its place and empties the log. No commit may be under way. `EIO`.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        if self.log.is_none() {
            return Ok(());
        }
        let size = self.block_size as u64;
        let writes: Vec<(u64, &[u8])> =
            self.committed.iter().map(|(block, (_, data))| (block * size, &**data)).collect();
        if !writes.is_empty() {
            self.io.write_many(&writes)?;
            self.io.flush()?;
        }
        self.committed.clear();
        if let Some(log) = &mut self.log {
            log.empty(&*self.io)?;
            self.io.flush()?;
        }
        Ok(())
    }

    /// Notes in the journal that the file system has an error.
    pub(crate) fn note_error(&mut self, error: Errno) -> Result<()> {
        match &mut self.log {
            Some(log) => log.note_error(&*self.io, error.code().unsigned_abs()),
            None => Ok(()),
        }
    }
}
