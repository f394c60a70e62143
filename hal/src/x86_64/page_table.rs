//! The four-level page tables of x86-64 (Intel SDM volume 3, chapter 4).
//!
//! Invariants: a user entry that is not zero owns one reference to the frame it names; the upper three levels belong to one
//! [`PageTable`] alone; a last-level table may hang in several, each owning a reference to its frame, and is then write-protected in
//! all of their page directories and changed by none.
//!
//! Tables are sparse, so each keeps (in its frame's metadata) which of its cache lines may hold entries: fork and exit read those alone.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::tlb;
use crate::cpu;
use crate::frame::Frame;
use crate::paging::{Batch, MapFlags, OutOfFrames};
use crate::sync::{SpinGuard, SpinLock};
use crate::user::USER_END;

mod ranges;

pub(super) const P: u64 = 1;
pub(super) const W: u64 = 2;
pub(super) const U: u64 = 4;
pub(super) const A: u64 = 0x20;
pub(super) const D: u64 = 0x40;
pub(super) const PS: u64 = 0x80;
pub(super) const G: u64 = 0x100;
/// Software: belongs to a shared mapping.
const SHARED: u64 = 1 << 9;
/// Software: a file's page.
const FILE: u64 = 1 << 10;
/// Software: names a frame (so that an entry without P is not taken for an empty one).
const HELD: u64 = 1 << 11;
/// Software: write-protected for a watcher.
const GUARDED: u64 = 1 << 52;
/// Software: write-protected to see whether it is written.
const UNCHANGED: u64 = 1 << 53;
/// Software: the shared page of zeros.
const ZEROS: u64 = 1 << 54;
/// Software: a page of shared memory.
const SHMEM: u64 = 1 << 55;
pub(super) const NX: u64 = 1 << 63;
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const ENTRIES: usize = 512;
/// Entries in 64 bytes.
const ENTRIES_IN_LINE: usize = 8;
/// Bytes that a last-level table maps.
const TABLE_SPAN: usize = 2 << 20;

/// One table, seen through the direct map.
#[derive(Clone, Copy)]
pub(super) struct Table(*const AtomicU64);

impl Table {
    /// The table in `frame`, valid as long as the frame is.
    pub(super) fn of(frame: &Frame) -> Table {
        Table(frame.as_ptr().cast())
    }

    /// The table that an upper entry points to.
    fn below(entry: u64) -> Table {
        Table(super::phys_to_virt((entry & ADDRESS) as usize).cast())
    }

    #[inline]
    pub(super) fn entry(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < ENTRIES);
        // SAFETY: the pointer is to a page of 512 entries that the owner of this view keeps alive; the index is masked to it.
        unsafe { &*self.0.add(index & (ENTRIES - 1)) }
    }

    #[inline]
    pub(super) fn load(&self, index: usize) -> u64 {
        self.entry(index).load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn store(&self, index: usize, value: u64) {
        self.entry(index).store(value, Ordering::Release);
    }

    /// Which lines may hold entries: bit n stands for entries 8n to 8n + 7.
    #[inline]
    fn lines(&self) -> &'static AtomicU64 {
        let number = super::virt_to_phys(self.0.cast()) / abi::PAGE_SIZE;
        &crate::frame::meta(number).expect("tables lie in frames").data
    }

    /// As [`Table::store`], of an entry that is in use, noting where. Only for tables that nobody else changes.
    #[inline]
    fn put(&self, index: usize, value: u64) {
        self.store(index, value);
        let (lines, line) = (self.lines(), 1 << (index / ENTRIES_IN_LINE));
        let noted = lines.load(Ordering::Relaxed);
        if noted & line == 0 {
            lines.store(noted | line, Ordering::Relaxed);
        }
    }

    /// Calls `f` on each entry that is in use, with its index, until it fails.
    #[inline]
    fn try_for_each<E>(&self, mut f: impl FnMut(usize, u64) -> Result<(), E>) -> Result<(), E> {
        let mut lines = self.lines().load(Ordering::Relaxed);
        while lines != 0 {
            let first = lines.trailing_zeros() as usize * ENTRIES_IN_LINE;
            lines &= lines - 1;
            for index in first..first + ENTRIES_IN_LINE {
                let entry = self.load(index);
                if entry != 0 {
                    f(index, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Calls `f` on each entry that is in use, with its index.
    #[inline]
    fn for_each(&self, mut f: impl FnMut(usize, u64)) {
        let done: Result<(), core::convert::Infallible> = self.try_for_each(|index, entry| {
            f(index, entry);
            Ok(())
        });
        match done {
            Ok(()) => {}
        }
    }
}

/// A frame for a table of a user address space, with no entry in use.
fn new_table(frame: Option<Frame>) -> Result<Frame, OutOfFrames> {
    let frame = frame.ok_or(OutOfFrames)?;
    frame.meta().data.store(0, Ordering::Relaxed);
    Ok(frame)
}

#[inline]
pub(super) fn index(va: usize, level: u32) -> usize {
    va >> (12 + 9 * (level - 1)) & (ENTRIES - 1)
}

fn frame_of(entry: u64) -> usize {
    ((entry & ADDRESS) >> 12) as usize
}

/// Takes up the reference that an entry owned.
///
/// # Safety
/// The entry was just taken out of a table (or its table is being dropped), so nobody else will.
unsafe fn take_frame(entry: u64) -> Frame {
    // SAFETY: the caller's promise: the entry's reference is now ours.
    unsafe { Frame::from_number(frame_of(entry)) }
}

/// Another reference to an entry's frame, while the entry stays.
fn clone_frame(entry: u64) -> Frame {
    // SAFETY: the entry owns a reference, which we only look through: the handle is forgotten, its clone given out.
    let owned = core::mem::ManuallyDrop::new(unsafe { Frame::from_number(frame_of(entry)) });
    (*owned).clone()
}

/// Flags that a bit of the entry stands for, whatever the others say.
const MARKS: [(u64, MapFlags); 8] = [
    (W, MapFlags::WRITE),
    (D, MapFlags::DIRTY),
    (SHARED, MapFlags::SHARED),
    (FILE, MapFlags::FILE),
    (GUARDED, MapFlags::GUARDED),
    (UNCHANGED, MapFlags::UNCHANGED),
    (ZEROS, MapFlags::ZEROS),
    (SHMEM, MapFlags::SHMEM),
];

#[inline]
fn encode(frame: usize, flags: MapFlags) -> u64 {
    let mut entry = (frame as u64) << 12 | HELD | U;
    if flags.has(MapFlags::READ) || flags.has(MapFlags::WRITE) || flags.has(MapFlags::EXEC) {
        entry |= P | A;
    }
    if !flags.has(MapFlags::EXEC) {
        entry |= super::nx_bit();
    }
    let mark = |(bit, flag): (u64, MapFlags)| if flags.has(flag) { bit } else { 0 };
    let [a, b, c, d, e, f, g, h] = MARKS.map(mark);
    entry | a | b | c | d | e | f | g | h
}

#[inline]
fn decode(entry: u64) -> MapFlags {
    let flag = |is: bool, flag: MapFlags| if is { flag } else { MapFlags::NONE };
    let flags = flag(entry & P != 0, MapFlags::READ)
        .with(flag(entry & (P | NX) == P, MapFlags::EXEC))
        .with(flag(entry & A != 0, MapFlags::ACCESSED));
    let [a, b, c, d, e, f, g, h] = MARKS.map(|(bit, mark)| flag(entry & bit != 0, mark));
    flags.with(a).with(b).with(c).with(d).with(e).with(f).with(g).with(h)
}

/// The page table of a user address space.
pub struct PageTable {
    root: Frame,
    /// Changing entries goes through here.
    lock: SpinLock<()>,
    /// The processors whose TLB may hold something of it.
    pub(super) cpus: AtomicU64,
}

impl PageTable {
    /// An empty one, sharing the kernel's half. `None` when memory is exhausted.
    pub fn new() -> Option<Arc<PageTable>> {
        let root = new_table(Frame::alloc_zeroed()).ok()?;
        let (table, kernel) = (Table::of(&root), super::kernel_map::root());
        for slot in 256..ENTRIES {
            table.store(slot, kernel.load(slot));
        }
        Some(Arc::new(PageTable { root, lock: SpinLock::ranked(0, ()), cpus: AtomicU64::new(0) }))
    }

    pub(super) fn physical(&self) -> usize {
        self.root.physical()
    }

    /// Takes the lock to change entries.
    #[inline]
    pub fn lock(&self) -> Tables<'_> {
        Tables { table: self, _guard: self.lock.lock() }
    }

    /// Makes every processor forget what `batch` changed, then frees its frames. Interrupts must be on.
    pub fn flush(&self, batch: &mut Batch) {
        if batch.start < batch.end {
            tlb::flush(self, batch.start, batch.end);
        }
        batch.frames.clear();
        (batch.start, batch.end) = (usize::MAX, 0);
    }

    /// Makes this processor forget the page at `va`, after an entry was changed to allow more than before: others find out by a fault.
    #[inline]
    pub fn flush_local(&self, va: usize) {
        tlb::flush_page_here(va);
    }

    /// Is it loaded on any processor but this one?
    pub fn used_elsewhere(&self) -> bool {
        self.cpus.load(Ordering::Acquire) & !(1 << cpu::id()) != 0
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        drop_level(Table::of(&self.root), 4);
    }
}

/// Frees what hangs below a table of `level`.
fn drop_level(table: Table, level: u32) {
    table.for_each(|_, entry| {
        // SAFETY: the table is being dropped with its owner, so each entry's reference passes to us.
        let frame = unsafe { take_frame(entry) };
        match level {
            1 => drop(frame),
            2 => release_table(frame),
            _ => {
                drop_level(Table::below(entry), level - 1);
                drop(frame);
            }
        }
    });
}

/// Gives up one reference to a last-level table; with the last, what its entries own.
fn release_table(table: Frame) {
    if table.refs() == 1 {
        drop_level(Table::of(&table), 1);
    } else if let Some(last) = try_unwrap_shared(table) {
        drop_level(Table::of(&last), 1);
    }
}

/// Drops a shared table's reference; gives it back if it turned out to be the last.
fn try_unwrap_shared(table: Frame) -> Option<Frame> {
    let meta = table.meta();
    let number = table.into_number();
    if meta.drop_unless_last() {
        return None;
    }
    // SAFETY: `into_number` above gave up this very reference, and `drop_unless_last` kept it.
    Some(unsafe { Frame::from_number(number) })
}

/// A locked page table.
pub struct Tables<'a> {
    table: &'a PageTable,
    _guard: SpinGuard<'a, ()>,
}

impl Tables<'_> {
    /// The last-level table that maps `va`, for reading, and whether the processor lets its pages be written.
    #[inline]
    fn find(&self, va: usize) -> Option<(Table, bool)> {
        if va >= USER_END {
            return None;
        }
        let mut table = Table::of(&self.table.root);
        let mut entry = 0;
        for level in [4, 3, 2] {
            entry = table.load(index(va, level));
            if entry == 0 {
                return None;
            }
            table = Table::below(entry);
        }
        Some((table, entry & W != 0))
    }

    /// What is mapped at `va`: the entry and its flags, a page in a shared table not being writable.
    #[inline]
    fn entry(&self, va: usize) -> Option<(u64, MapFlags)> {
        let (table, writable) = self.find(va)?;
        let entry = table.load(index(va, 1));
        let flags = decode(entry);
        (entry != 0).then_some((entry, if writable { flags } else { flags.without(MapFlags::WRITE) }))
    }

    /// The page directory that covers `va`.
    fn directory(&self, va: usize, create: bool) -> Result<Option<Table>, OutOfFrames> {
        let mut table = Table::of(&self.table.root);
        for level in [4, 3] {
            let slot = index(va, level);
            let mut entry = table.load(slot);
            if entry == 0 {
                if !create {
                    return Ok(None);
                }
                let frame = new_table(Frame::alloc_zeroed())?;
                entry = frame.physical() as u64 | P | W | U | A;
                frame.into_number();
                table.put(slot, entry);
            }
            table = Table::below(entry);
        }
        Ok(Some(table))
    }

    /// The last-level table for `va`, ours alone, to change entries in.
    fn own(&mut self, va: usize) -> Result<Table, OutOfFrames> {
        assert!(va < USER_END, "mapping {va:#x} outside the user half");
        let directory = self.directory(va, true)?.ok_or(OutOfFrames)?;
        let slot = index(va, 2);
        let entry = directory.load(slot);
        if entry == 0 {
            let frame = new_table(Frame::alloc_zeroed())?;
            directory.put(slot, frame.physical() as u64 | P | W | U | A);
            return Ok(Table::below((frame.into_number() as u64) << 12));
        }
        if entry & W == 0 {
            return self.unshare(&directory, slot, entry);
        }
        Ok(Table::below(entry))
    }

    /// Replaces a shared last-level table by a copy, in which (as in the original) private pages are write-protected.
    fn unshare(&mut self, directory: &Table, slot: usize, entry: u64) -> Result<Table, OutOfFrames> {
        let shared = Table::below(entry);
        if super::frame_refs(frame_of(entry)) == 1 {
            // The others have gone, and it is ours again. A page that one of them copied out of it was write-protected here by that.
            directory.store(slot, entry | W);
            return Ok(shared);
        }
        let copy = new_table(Frame::alloc_table())?;
        let table = Table::of(&copy);
        shared.for_each(|i, mut old| {
            if old & (W | SHARED) == W {
                old = shared.entry(i).fetch_and(!W, Ordering::AcqRel) & !W;
            }
            clone_frame(old).into_number();
            table.put(i, old);
        });
        directory.store(slot, copy.physical() as u64 | P | W | U | A);
        copy.into_number();
        // SAFETY: the directory entry that owned this reference was just overwritten.
        release_table(unsafe { take_frame(entry) });
        Ok(table)
    }

    /// What is mapped at `va`: another reference to the frame, and its flags.
    #[inline]
    pub fn get(&self, va: usize) -> Option<(Frame, MapFlags)> {
        self.entry(va).map(|(entry, flags)| (clone_frame(entry), flags))
    }

    /// The flags at `va`, without a reference to the frame; a page in a shared table is not writable.
    #[inline]
    pub fn flags(&self, va: usize) -> Option<MapFlags> {
        self.entry(va).map(|(_, flags)| flags)
    }

    /// Maps `frame` at `va` (page-aligned, in the user half); gives what was mapped there, which the caller keeps until after a flush.
    #[inline]
    pub fn map(&mut self, va: usize, frame: Frame, flags: MapFlags) -> Result<Option<Frame>, OutOfFrames> {
        let table = self.own(va)?;
        let old = table.load(index(va, 1));
        table.put(index(va, 1), encode(frame.into_number(), flags));
        // SAFETY: the entry was just overwritten under the lock.
        Ok((old != 0).then(|| unsafe { take_frame(old) }))
    }

    /// Maps `frame` at `va` only if nothing is there and no table has to be made or copied for it: for fault-around. True if mapped.
    #[inline]
    pub fn map_if_easy(&mut self, va: usize, frame: &Frame, flags: MapFlags) -> bool {
        let Ok(Some(directory)) = self.directory(va, false) else {
            return false;
        };
        let entry = directory.load(index(va, 2));
        if entry & W == 0 || va >= USER_END {
            return false;
        }
        let table = Table::below(entry);
        if table.load(index(va, 1)) != 0 {
            return false;
        }
        table.put(index(va, 1), encode(frame.clone().into_number(), flags) & !A);
        true
    }

    /// Is the page at `va` mapped by this entry alone, so that a private page may be made writable without a copy? Copies a shared table first.
    pub fn exclusive(&mut self, va: usize) -> Result<bool, OutOfFrames> {
        let entry = self.own(va)?.load(index(va, 1));
        Ok(entry != 0 && super::frame_refs(frame_of(entry)) == 1)
    }

    /// Changes the flags at `va` if something is mapped. The caller flushes.
    pub fn set_flags(&mut self, va: usize, flags: MapFlags) -> Result<(), OutOfFrames> {
        let table = self.own(va)?;
        let old = table.load(index(va, 1));
        if old != 0 {
            table.store(index(va, 1), encode(frame_of(old), flags) | old & D);
        }
        Ok(())
    }

    /// Gives `child` (empty) all that is mapped here, sharing the last-level tables, write-protected in both. The caller flushes this one.
    pub fn share_with(&mut self, child: &mut Tables<'_>) -> Result<(), OutOfFrames> {
        share_level(Table::of(&self.table.root), Table::of(&child.table.root), 4)
    }
}

fn share_level(from: Table, to: Table, level: u32) -> Result<(), OutOfFrames> {
    from.try_for_each(|i, entry| {
        if level == 2 {
            clone_frame(entry).into_number();
            from.entry(i).fetch_and(!W, Ordering::AcqRel);
            to.put(i, entry & !W);
            return Ok(());
        }
        let frame = new_table(Frame::alloc_table())?;
        let below = Table::of(&frame);
        to.put(i, frame.physical() as u64 | P | W | U | A);
        frame.into_number();
        share_level(Table::below(entry), below, level - 1)
    })
}
