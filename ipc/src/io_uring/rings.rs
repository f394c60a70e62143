//! The rings in shared pages.
//!
//! One region holds the heads, tails and sizes, then the completions, then the array of indices into the submissions; a second one the
//! submissions. Both are pages of one cache, at the offsets that mmap(2) uses for them; the region of the rings shows at two.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use mm::PageCache;
use zerocopy::IntoBytes;

use super::abi::{Cqe, Params, Setup, Sqe};

/// The most submissions that a ring holds.
pub const MAX_ENTRIES: u32 = 32768;
/// The most completions that a ring holds.
pub const MAX_CQ_ENTRIES: u32 = 2 * MAX_ENTRIES;

/// Where mmap(2) finds the rings, the rings again, and the submissions.
const OFFSET_SQ: u64 = 0;
const OFFSET_CQ: u64 = 0x800_0000;
const OFFSET_SQES: u64 = 0x1000_0000;

// Offsets in the region of the rings.
const SQ_HEAD: usize = 0;
const SQ_TAIL: usize = 4;
const CQ_HEAD: usize = 8;
const CQ_TAIL: usize = 12;
const SQ_MASK: usize = 16;
const CQ_MASK: usize = 20;
const SQ_ENTRIES: usize = 24;
const CQ_ENTRIES: usize = 28;
const SQ_DROPPED: usize = 32;
const SQ_FLAGS: usize = 36;
const CQ_FLAGS: usize = 40;
const CQ_OVERFLOW: usize = 44;
const CQES: usize = 64;

/// IORING_SQ_*: what the kernel tells in the submission ring's flags.
pub mod sq_flag {
    /// The polling thread sleeps: enter to wake it.
    pub const NEED_WAKEUP: u32 = 1;
    /// Completions wait for room.
    pub const CQ_OVERFLOW: u32 = 2;
    /// Enter, so that what became ready is carried on.
    pub const TASKRUN: u32 = 4;
}

/// IORING_CQ_EVENTFD_DISABLED: the program wants no events for now.
const CQ_EVENTFD_DISABLED: u32 = 1;

/// Frames that follow each other as offsets do.
struct Region(Vec<Frame>);

impl Region {
    fn new(bytes: usize) -> Result<Region> {
        let count = bytes.div_ceil(PAGE_SIZE);
        let mut frames = Vec::new();
        frames.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..count {
            frames.push(Frame::alloc_zeroed().ok_or(Errno::ENOMEM)?);
        }
        Ok(Region(frames))
    }

    fn load(&self, at: usize) -> u32 {
        self.0[at / PAGE_SIZE].load_u32(at % PAGE_SIZE)
    }

    fn store(&self, at: usize, value: u32) {
        self.0[at / PAGE_SIZE].store_u32(at % PAGE_SIZE, value);
    }

    /// Shows it in the cache from `offset` on.
    fn insert(&self, cache: &PageCache, offset: u64) {
        for (index, frame) in self.0.iter().enumerate() {
            cache.insert(offset / PAGE_SIZE as u64 + index as u64, frame.clone());
        }
    }
}

/// The shared memory of a ring. All sizes are as they were made: what the program writes over them is not looked at.
pub struct Rings {
    shared: Region,
    sqes: Region,
    cache: Arc<PageCache>,
    sq_entries: u32,
    cq_entries: u32,
    /// Where the array of indices begins; `None` with NO_SQARRAY.
    array: Option<usize>,
    sqe_size: usize,
    cqe_size: usize,
}

/// How many entries the rings of a call with these parameters get. `EINVAL`.
pub fn sizes(entries: u32, params: &Params, flags: Setup) -> Result<(u32, u32)> {
    let clamp = flags.contains(Setup::CLAMP);
    let bounded = |wanted: u32, most: u32| match wanted {
        0 => Err(Errno::EINVAL),
        n if n <= most => Ok(n),
        _ if clamp => Ok(most),
        _ => Err(Errno::EINVAL),
    };
    let sq = bounded(entries, MAX_ENTRIES)?.next_power_of_two();
    let cq = if flags.contains(Setup::CQSIZE) {
        let cq = bounded(params.cq_entries, MAX_CQ_ENTRIES)?.next_power_of_two();
        if cq < sq {
            return Err(Errno::EINVAL);
        }
        cq
    } else {
        2 * sq
    };
    Ok((sq, cq))
}

impl Rings {
    /// Rings of these sizes; fills in what the program is told of them. `ENOMEM`.
    pub fn new((sq_entries, cq_entries): (u32, u32), flags: Setup, params: &mut Params) -> Result<Rings> {
        let cqe_size = if flags.contains(Setup::CQE32) { 32 } else { 16 };
        let sqe_size = if flags.contains(Setup::SQE128) { 128 } else { 64 };
        let after_cqes = CQES + cq_entries as usize * cqe_size;
        let array = (!flags.contains(Setup::NO_SQARRAY)).then_some(after_cqes);
        let bytes = after_cqes + if array.is_some() { sq_entries as usize * 4 } else { 0 };
        let shared = Region::new(bytes)?;
        let sqes = Region::new(sq_entries as usize * sqe_size)?;
        for (at, value) in
            [(SQ_MASK, sq_entries - 1), (CQ_MASK, cq_entries - 1), (SQ_ENTRIES, sq_entries), (CQ_ENTRIES, cq_entries)]
        {
            shared.store(at, value);
        }
        let cache = PageCache::new();
        shared.insert(&cache, OFFSET_SQ);
        shared.insert(&cache, OFFSET_CQ);
        sqes.insert(&cache, OFFSET_SQES);
        cache.set_size(OFFSET_SQES + (sqes.0.len() * PAGE_SIZE) as u64);
        (params.sq_entries, params.cq_entries) = (sq_entries, cq_entries);
        params.sq.head = SQ_HEAD as u32;
        params.sq.tail = SQ_TAIL as u32;
        params.sq.ring_mask = SQ_MASK as u32;
        params.sq.ring_entries = SQ_ENTRIES as u32;
        params.sq.flags = SQ_FLAGS as u32;
        params.sq.dropped = SQ_DROPPED as u32;
        params.sq.array = array.unwrap_or(0) as u32;
        params.cq.head = CQ_HEAD as u32;
        params.cq.tail = CQ_TAIL as u32;
        params.cq.ring_mask = CQ_MASK as u32;
        params.cq.ring_entries = CQ_ENTRIES as u32;
        params.cq.overflow = CQ_OVERFLOW as u32;
        params.cq.cqes = CQES as u32;
        params.cq.flags = CQ_FLAGS as u32;
        Ok(Rings { shared, sqes, cache, sq_entries, cq_entries, array, sqe_size, cqe_size })
    }

    /// What mmap(2) maps of it, if the range lies in one of the regions. `EINVAL`.
    pub fn mapping(&self, offset: u64, len: usize) -> Result<Arc<PageCache>> {
        let region = match offset {
            OFFSET_SQ | OFFSET_CQ => &self.shared,
            OFFSET_SQES => &self.sqes,
            _ => return Err(Errno::EINVAL),
        };
        if len > region.0.len() * PAGE_SIZE { Err(Errno::EINVAL) } else { Ok(self.cache.clone()) }
    }

    /// How many submissions it holds.
    pub fn sq_entries(&self) -> u32 {
        self.sq_entries
    }

    /// How many completions it holds.
    pub fn cq_entries(&self) -> u32 {
        self.cq_entries
    }

    /// How many submissions wait, given how many were taken: at most as many as the ring holds.
    pub fn submitted(&self, head: u32) -> u32 {
        self.shared.load(SQ_TAIL).wrapping_sub(head).min(self.sq_entries)
    }

    /// Takes a copy of the submission at `head`; `None` (and counts it as dropped) where the array names none.
    pub fn take(&self, head: u32) -> Option<Sqe> {
        let slot = head & (self.sq_entries - 1);
        let index = match self.array {
            Some(array) => self.shared.load(array + slot as usize * 4),
            None => slot,
        };
        if index >= self.sq_entries {
            self.shared.store(SQ_DROPPED, self.shared.load(SQ_DROPPED).wrapping_add(1));
            return None;
        }
        let at = index as usize * self.sqe_size;
        let mut sqe = Sqe::default();
        self.sqes.0[at / PAGE_SIZE].read(at % PAGE_SIZE, sqe.as_mut_bytes());
        Some(sqe)
    }

    /// Tells the program how many submissions have been taken.
    pub fn set_sq_head(&self, head: u32) {
        self.shared.store(SQ_HEAD, head);
    }

    /// Sets and clears bits of [`sq_flag`].
    pub fn change_sq_flags(&self, set: u32, clear: u32) {
        self.shared.0[0].change_u32(SQ_FLAGS, set, clear);
    }

    /// Does the program want events for completions?
    pub fn wants_events(&self) -> bool {
        self.shared.load(CQ_FLAGS) & CQ_EVENTFD_DISABLED == 0
    }

    /// How far the program has read completions, as it says.
    pub fn cq_head(&self) -> u32 {
        self.shared.load(CQ_HEAD)
    }

    /// How many completions the program has not read, `tail` having been written.
    pub fn unread(&self, tail: u32) -> u32 {
        tail.wrapping_sub(self.cq_head())
    }

    /// Stores a completion as number `tail`, and shows it to the program.
    pub fn put(&self, tail: u32, cqe: &Cqe) {
        let at = CQES + (tail & (self.cq_entries - 1)) as usize * self.cqe_size;
        let frame = &self.shared.0[at / PAGE_SIZE];
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&cqe.user_data.to_ne_bytes());
        bytes[8..12].copy_from_slice(&cqe.result.to_ne_bytes());
        bytes[12..16].copy_from_slice(&cqe.flags.to_ne_bytes());
        bytes[16..24].copy_from_slice(&cqe.extra[0].to_ne_bytes());
        bytes[24..].copy_from_slice(&cqe.extra[1].to_ne_bytes());
        frame.write(at % PAGE_SIZE, &bytes[..16]);
        if self.cqe_size == 32 {
            let at = at + 16;
            self.shared.0[at / PAGE_SIZE].write(at % PAGE_SIZE, &bytes[16..]);
        }
        self.shared.store(CQ_TAIL, tail.wrapping_add(1));
    }

    /// Counts a completion that was lost.
    pub fn count_lost(&self) {
        self.shared.store(CQ_OVERFLOW, self.shared.load(CQ_OVERFLOW).wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(entries: u32, cq: u32, flags: Setup) -> Result<(u32, u32)> {
        sizes(entries, &Params { cq_entries: cq, ..Params::default() }, flags)
    }

    #[test]
    fn sizes_are_powers_of_two_within_bounds() {
        assert_eq!(sized(5, 0, Setup::empty()), Ok((8, 16)));
        assert_eq!(sized(0, 0, Setup::empty()), Err(Errno::EINVAL));
        assert_eq!(sized(MAX_ENTRIES + 1, 0, Setup::empty()), Err(Errno::EINVAL));
        assert_eq!(sized(MAX_ENTRIES + 1, 0, Setup::CLAMP), Ok((MAX_ENTRIES, MAX_CQ_ENTRIES)));
        assert_eq!(sized(8, 4, Setup::CQSIZE), Err(Errno::EINVAL));
        assert_eq!(sized(8, 9, Setup::CQSIZE), Ok((8, 16)));
        assert_eq!(sized(8, 0, Setup::CQSIZE), Err(Errno::EINVAL));
        assert_eq!(sized(8, u32::MAX, Setup::CQSIZE | Setup::CLAMP), Ok((8, MAX_CQ_ENTRIES)));
    }
}
