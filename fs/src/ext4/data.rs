//! The pages of files: reading them, and writing them back, which is when blocks are chosen (delayed allocation).
//!
//! Write-back of pages without blocks goes in three steps: blocks are chosen (nobody else can have them, but the disk knows nothing); the
//! data is written; then one operation takes the blocks, gives them to the file and sets its size. A crash in between leaves the file as
//! it was, so a file never shows what others had written to its blocks (data=ordered).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use hal::sync::Once;
use mm::{PageCache, Pager};

use super::inode::RawInode;
use super::mount::Ext4;
use super::node::Node;
use super::volume::Volume;
use crate::Inode;
use crate::block::{Direction, Piece};

pub(super) const PAGE: u64 = PAGE_SIZE as u64;

/// The storage behind a file's pages.
pub(super) struct FilePager {
    fs: Arc<Ext4>,
    inode: Once<Weak<Inode>>,
}

/// Blocks of the file that have a new place on the disk.
struct Placed {
    at: u32,
    block: u64,
    len: u32,
}

/// What writing some pages takes.
#[derive(Default)]
struct Plan {
    pieces: Vec<Piece>,
    placed: Vec<Placed>,
    /// Blocks that were allocated but not written before: first and count.
    written: Vec<(u32, u32)>,
}

/// A block of a page that is to be written.
#[derive(Clone)]
struct Block {
    at: u32,
    frame: Frame,
    within: usize,
}

impl FilePager {
    pub(super) fn new(fs: &Arc<Ext4>) -> Arc<FilePager> {
        Arc::new(FilePager { fs: fs.clone(), inode: Once::new() })
    }

    /// Tells it the inode, when that is made.
    pub(super) fn connect(&self, inode: Weak<Inode>) {
        let _ = self.inode.set(inode);
    }

    fn inode(&self) -> Result<Arc<Inode>> {
        self.inode.get().and_then(Weak::upgrade).ok_or(Errno::EIO)
    }

    fn blocks_per_page(&self) -> u64 {
        PAGE / self.fs.block_size as u64
    }
}

impl Pager for FilePager {
    fn read(&self, first: u64, frames: &[Frame]) -> Result<()> {
        let inode = self.inode()?;
        let node = inode.ops_as::<Node>().ok_or(Errno::EIO)?;
        let mut pieces = Vec::new();
        self.fs.query(|volume| {
            let raw = volume.inode(node.number)?;
            pieces = plan_read(volume, &raw, first, frames)?;
            Ok(())
        })?;
        self.fs.io.transfer(Direction::Read, &pieces)
    }

    fn is_prompt(&self) -> bool {
        true
    }

    fn write(&self, pages: &[(u64, Frame)]) -> Result<()> {
        let inode = self.inode()?;
        let node = inode.ops_as::<Node>().ok_or(Errno::EIO)?;
        let result = node.write_pages(pages);
        if result.is_err() {
            self.fs.check_failure();
        }
        result
    }

    fn reserve(&self, _index: u64) -> Result<()> {
        self.fs.reserve(self.blocks_per_page())
    }

    fn release(&self, count: usize) {
        self.fs.release(count as u64 * self.blocks_per_page());
    }

    fn dirtied(&self) {
        if let Ok(inode) = self.inode()
            && let Some(node) = inode.ops_as::<Node>()
            && !node.is_unlinked()
        {
            self.fs.note_dirty(node.number, inode.clone());
        }
    }
}

/// What has to be read for pages from `first` on; what has no data is zeroed.
fn plan_read(volume: &mut Volume, raw: &RawInode, first: u64, frames: &[Frame]) -> Result<Vec<Piece>> {
    let size = volume.sb.block_size;
    let per_page = (PAGE_SIZE / size) as u64;
    let end = raw.size().div_ceil(size as u64);
    let mut pieces = Vec::new();
    let start = first.saturating_mul(per_page);
    let total = frames.len() as u64 * per_page;
    let mut done = 0;
    while done < total {
        let at = start + done;
        let left = end.saturating_sub(at).min(total - done);
        let (block, len) = match u32::try_from(at).ok().filter(|_| left > 0) {
            Some(at) => {
                let found = volume.map(raw, at, left as u32)?;
                (found.readable(), u64::from(found.len).min(left))
            }
            None => (None, total - done),
        };
        for i in 0..len {
            let n = done + i;
            let (frame, within) = (&frames[(n / per_page) as usize], (n % per_page) as usize * size);
            match block {
                None => frame.zero_range(within, size),
                Some(block) => match volume.journaled(block + i) {
                    // Written by data=journal, and perhaps nowhere but in the journal.
                    Some(data) => frame.write(within, &data),
                    None => pieces.push(Piece {
                        offset: (block + i) * size as u64,
                        frame: frame.clone(),
                        within,
                        len: size,
                    }),
                },
            }
        }
        done += len;
    }
    Ok(join(pieces))
}

/// Joins pieces that follow each other on the disk and in the same frame.
fn join(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match joined.last_mut() {
            Some(last)
                if last.frame == piece.frame
                    && last.offset + last.len as u64 == piece.offset
                    && last.within + last.len == piece.within =>
            {
                last.len += piece.len;
            }
            _ => joined.push(piece),
        }
    }
    joined
}

impl Node {
    pub(super) fn cache(&self) -> Result<&Arc<PageCache>> {
        self.cache.as_ref().ok_or(Errno::EINVAL)
    }

    /// Writes pages, by ascending index.
    fn write_pages(&self, pages: &[(u64, Frame)]) -> Result<()> {
        let _held = self.mapping.lock();
        let size = self.cache()?.size();
        let block_size = self.fs.block_size;
        let mut blocks = Vec::new();
        for (index, frame) in pages {
            let start = index * PAGE;
            let len = size.saturating_sub(start).min(PAGE) as usize;
            // What is past the end may have been written through a mapping, and must not show when the file grows.
            frame.zero_range(len, PAGE_SIZE - len);
            for within in (0..len).step_by(block_size) {
                let at = u32::try_from((start + within as u64) / block_size as u64).map_err(|_| Errno::EFBIG)?;
                blocks.push(Block { at, frame: frame.clone(), within });
            }
        }
        let Some(last) = blocks.last() else { return Ok(()) };
        let end = ((u64::from(last.at) + 1) * block_size as u64).min(size);
        if self.fs.query(|volume| Ok(volume.journals_data))? {
            return self.journal_blocks(&blocks, end);
        }
        let mut plan = Plan::default();
        let planned = self.fs.query(|volume| {
            let raw = volume.inode(self.number)?;
            plan_write(volume, &raw, &blocks, &mut plan).map(|()| raw.size())
        });
        let placed = planned.and_then(|old_size| {
            self.fs.io.transfer(Direction::Write, &core::mem::take(&mut plan.pieces))?;
            if plan.placed.is_empty() && plan.written.is_empty() && old_size >= end {
                return Ok(());
            }
            self.take_placed(&plan, end)
        });
        if placed.is_err() {
            let mut volume = self.fs.volume();
            plan.placed.iter().for_each(|placed| volume.give_back(placed.block, u64::from(placed.len)));
        }
        placed
    }

    /// The blocks that were written become the file's.
    fn take_placed(&self, plan: &Plan, end: u64) -> Result<()> {
        self.fs.operation(|volume| {
            let mut raw = volume.inode(self.number)?;
            for placed in &plan.placed {
                volume.take_blocks(placed.block, placed.len)?;
                volume.insert(&mut raw, placed.at, placed.block, placed.len, false)?;
            }
            for (at, len) in &plan.written {
                volume.mark_written(&mut raw, *at, *len)?;
            }
            raw.set_size(raw.size().max(end));
            volume.put_inode(raw)
        })?;
        self.note_changed();
        Ok(())
    }

    /// data=journal: the blocks go through the journal like metadata, a few at a time.
    fn journal_blocks(&self, blocks: &[Block], end: u64) -> Result<()> {
        for chunk in blocks.chunks(32) {
            self.fs.operation(|volume| {
                let mut raw = volume.inode(self.number)?;
                for block in chunk {
                    let found = volume.map(&raw, block.at, 1)?;
                    let place = match found.block {
                        Some(place) => place,
                        None => {
                            let goal = volume.goal(&raw, block.at);
                            let (place, _) = volume.allocate_blocks(goal, 1)?;
                            volume.insert(&mut raw, block.at, place, 1, false)?;
                            place
                        }
                    };
                    if found.unwritten {
                        volume.mark_written(&mut raw, block.at, 1)?;
                    }
                    let mut data = alloc::vec![0; volume.sb.block_size];
                    block.frame.read(block.within, &mut data);
                    volume.put_block(place, data);
                }
                raw.set_size(raw.size().max(end));
                volume.put_inode(raw)
            })?;
        }
        self.note_changed();
        Ok(())
    }

    /// fsync(2) and fdatasync(2).
    pub(super) fn sync_file(&self, inode: &Inode, data_only: bool) -> Result<()> {
        if self.fs.is_read_only() {
            return Ok(());
        }
        if let Some(cache) = &self.cache {
            cache.sync_range(0, u64::MAX)?;
        }
        // A directory's names are in the running transaction if in any; a file's blocks and size are if they have changed since.
        let uncommitted = self.cache.is_none()
            || self.changed_in.load(core::sync::atomic::Ordering::Relaxed) == self.fs.sequence()
            || !data_only && inode.is_touched()
            || self.fs.query(|volume| Ok(volume.journals_data))?;
        let result = if uncommitted { self.fs.commit_and_flush() } else { self.fs.flush() };
        if result.is_err() {
            self.fs.check_failure();
        }
        result
    }

    /// Sets the size. The inode's content is locked.
    pub(super) fn resize(&self, size: u64) -> Result<()> {
        let cache = self.cache()?;
        let now = crate::inode::realtime();
        cache.resize(size)?;
        let _held = self.mapping.lock();
        self.fs.operation(|volume| volume.begin_truncate(self.number, size, now))?;
        while !self.fs.operation(|volume| volume.truncate_step(self.number))? {
            sched::preempt_point();
        }
        self.note_changed();
        Ok(())
    }

    /// The largest size that a file can have.
    pub(super) fn max_size(&self) -> u64 {
        // With extents, 2^32 - 1 blocks; with block maps, what three levels reach, and 2^32 sectors.
        let size = self.fs.block_size as u64;
        let per_block = size / 4;
        if self.has_extents {
            return u64::from(u32::MAX) * size;
        }
        let blocks = 12 + per_block + per_block * per_block + per_block * per_block * per_block;
        (blocks * size).min((1 << 41) - size)
    }
}

/// Where each block goes; places for those that have none are chosen.
fn plan_write(volume: &mut Volume, raw: &RawInode, blocks: &[Block], plan: &mut Plan) -> Result<()> {
    let size = volume.sb.block_size as u64;
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let run = rest.iter().zip(0u32..).take_while(|(block, i)| block.at.checked_sub(*i) == Some(first.at)).count();
        let found = volume.map(raw, first.at, run as u32)?;
        let (mut place, mut len) = (found.block.unwrap_or(0), found.len.min(run as u32));
        if found.block.is_none() {
            let goal = match plan.placed.last() {
                Some(last) if last.at + last.len == first.at => last.block + u64::from(last.len),
                _ => volume.goal(raw, first.at),
            };
            (place, len) = volume.choose_blocks(goal, len)?;
            plan.placed.push(Placed { at: first.at, block: place, len });
        } else if found.unwritten {
            plan.written.push((first.at, len));
        }
        for (block, i) in rest.iter().take(len as usize).zip(0u64..) {
            let offset = (place + i) * size;
            let piece = Piece { offset, frame: block.frame.clone(), within: block.within, len: size as usize };
            plan.pieces.push(piece);
        }
        rest = rest.get(len as usize..).unwrap_or(&[]);
    }
    plan.pieces = join(core::mem::take(&mut plan.pieces));
    Ok(())
}
