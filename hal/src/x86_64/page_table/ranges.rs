//! What is done to all entries of a range of addresses, which may be terabytes of which little is there.

use core::sync::atomic::Ordering;

use super::{
    A, D, FILE, PageTable, SHMEM, TABLE_SPAN, Table, Tables, UNCHANGED, ZEROS, clone_frame, decode, encode, frame_of,
    index, take_frame, try_unwrap_shared,
};
use crate::paging::{Batch, MapFlags, Mapped, OutOfFrames};
use crate::user::USER_END;

impl PageTable {
    /// Calls `f` on each part of `start..end` that a last-level table maps, taking the lock for each anew: others wait for one table
    /// at most.
    fn for_each_table(
        &self,
        start: usize,
        end: usize,
        mut f: impl FnMut(&mut Tables<'_>, usize, usize) -> Result<(), OutOfFrames>,
    ) -> Result<(), OutOfFrames> {
        let mut va = start;
        loop {
            let mut tables = self.lock();
            let Some((from, to)) = tables.next_table(va, end) else { return Ok(()) };
            f(&mut tables, from, to)?;
            va = to;
        }
    }

    /// Calls `f` on every last-level entry of `start..end` that is in use.
    pub fn for_each(&self, start: usize, end: usize, mut f: impl FnMut(&Mapped<'_>)) {
        let done = self.for_each_table(start, end, |tables, from, to| {
            let Some((table, _)) = tables.find(from) else { return Ok(()) };
            let holders = super::super::frame_refs(super::super::virt_to_phys(table.0.cast()) / abi::PAGE_SIZE);
            for va in (from..to).step_by(abi::PAGE_SIZE) {
                let entry = table.load(index(va, 1));
                if entry != 0 {
                    f(&Mapped { va, flags: decode(entry), holders, frame: &|| clone_frame(entry) });
                }
            }
            Ok(())
        });
        debug_assert!(done.is_ok(), "looking makes no tables");
    }

    /// Restricts or widens the flags of everything in `start..end`: `change(old flags) -> new flags`.
    pub fn protect(
        &self,
        start: usize,
        end: usize,
        batch: &mut Batch,
        mut change: impl FnMut(MapFlags) -> MapFlags,
    ) -> Result<(), OutOfFrames> {
        self.for_each_table(start, end, |tables, from, to| {
            let table = tables.own(from)?;
            for slot in (from..to).step_by(abi::PAGE_SIZE).map(|page| index(page, 1)) {
                let old = table.load(slot);
                if old != 0 {
                    let flags = change(decode(old));
                    let new = encode(frame_of(old), flags.without(MapFlags::DIRTY)) & !A | old & (D | A);
                    table.store(slot, new);
                }
            }
            batch.touch(from, to);
            Ok(())
        })
    }

    /// Makes pages of `start..end` that `which` chooses look as if nobody had used them.
    pub fn forget_accesses(
        &self,
        start: usize,
        end: usize,
        batch: &mut Batch,
        which: impl Fn(MapFlags) -> bool,
    ) -> Result<(), OutOfFrames> {
        self.for_each_table(start, end, |tables, from, to| {
            let table = tables.own(from)?;
            for slot in (from..to).step_by(abi::PAGE_SIZE).map(|page| index(page, 1)) {
                if which(decode(table.load(slot))) {
                    table.entry(slot).fetch_and(!A, Ordering::AcqRel);
                }
            }
            batch.touch(from, to);
            Ok(())
        })
    }
}

impl Tables<'_> {
    /// The first part of `start..end` that a last-level table maps, passing over what the upper levels leave out.
    fn next_table(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let end = end.min(USER_END);
        let mut va = start;
        'next: while va < end {
            let mut table = Table::of(&self.table.root);
            for level in [4, 3, 2] {
                let entry = table.load(index(va, level));
                if entry == 0 {
                    let span = 1 << (12 + 9 * (level - 1));
                    va = (va & !(span - 1)) + span;
                    continue 'next;
                }
                table = Table::below(entry);
            }
            return Some((va, ((va & !(TABLE_SPAN - 1)) + TABLE_SPAN).min(end)));
        }
        None
    }

    /// Takes out everything in `start..end` (page-aligned), into `batch`. Whole last-level tables go without being copied first.
    /// Stops early when the batch is large: gives the address to go on from (`end` when done).
    pub fn unmap(&mut self, start: usize, end: usize, batch: &mut Batch) -> Result<usize, OutOfFrames> {
        let mut va = start;
        while !batch.is_large() {
            let Some((from, to)) = self.next_table(va, end) else { return Ok(end) };
            if to - from == TABLE_SPAN {
                self.unmap_table(from, batch);
            } else {
                let table = self.own(from)?;
                (from..to).step_by(abi::PAGE_SIZE).for_each(|page| unmap_entry(&table, index(page, 1), batch));
            }
            batch.touch(from, to);
            va = to;
        }
        Ok(va)
    }

    /// Takes out the whole last-level table at `va`.
    fn unmap_table(&mut self, va: usize, batch: &mut Batch) {
        let Ok(Some(directory)) = self.directory(va, false) else { return };
        let entry = directory.load(index(va, 2));
        let table = Table::below(entry);
        directory.store(index(va, 2), 0);
        // SAFETY: the directory entry that owned this reference was just cleared.
        let frame = unsafe { take_frame(entry) };
        let shared = if frame.refs() == 1 { Some(frame) } else { try_unwrap_shared(frame) };
        let last = shared.is_some();
        table.for_each(|_, entry| {
            count(entry, batch);
            if last {
                // SAFETY: the table is ours alone and about to be freed, so the reference passes to us.
                batch.frames.push(unsafe { take_frame(entry) });
            }
        });
        batch.frames.extend(shared);
    }

    /// Moves the entries of `len` bytes from `old` to `new` (both page-aligned, not overlapping, nothing mapped at `new`).
    pub fn relocate(&mut self, old: usize, new: usize, len: usize, batch: &mut Batch) -> Result<(), OutOfFrames> {
        let mut va = old;
        while let Some((from, to)) = self.next_table(va, old + len) {
            for page in (from..to).step_by(abi::PAGE_SIZE) {
                if self.flags(page).is_none() {
                    continue;
                }
                let moved = new + (page - old);
                let target = self.own(moved)?;
                let source = self.own(page)?;
                let entry = source.entry(index(page, 1)).swap(0, Ordering::AcqRel);
                // What moves counts as written.
                target.put(index(moved, 1), entry & !UNCHANGED);
            }
            va = to;
        }
        batch.touch(old, old + len);
        Ok(())
    }
}

fn unmap_entry(table: &Table, slot: usize, batch: &mut Batch) {
    let entry = table.entry(slot).swap(0, Ordering::AcqRel);
    if entry != 0 {
        count(entry, batch);
        // SAFETY: the entry was just taken out.
        batch.frames.push(unsafe { take_frame(entry) });
    }
}

/// As [`Batch::count`]: exits do little else, so only the bits that matter are looked at.
#[inline]
fn count(entry: u64, batch: &mut Batch) {
    match entry & (FILE | SHMEM | ZEROS) {
        0 => batch.anonymous += 1,
        FILE => batch.file += 1,
        ZEROS => {}
        _ => batch.shmem += 1,
    }
}
