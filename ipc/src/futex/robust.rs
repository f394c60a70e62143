//! Robust futexes: locks whose owner died are marked, and one waiter is told (get_robust_list(2)).

use base::Result;
use hal::user::{self, UserPtr};
use mm::AddressSpace;

pub(super) const FUTEX_WAITERS: u32 = 0x8000_0000;
pub(super) const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
pub(super) const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
/// The list is the program's: it may be circular.
const LIST_LIMIT: usize = 2048;

/// Walks the list of locks that the calling thread, which is exiting, holds. `head` is what it registered (not 0), `tid` its number.
/// A list that can't be read ends the walk: the program's loss.
pub fn exit(space: &AddressSpace, head: usize, tid: u32) {
    let _ = walk(space, head, tid);
}

/// The lowest bit of an entry's address says that the lock is a PI lock.
fn split(entry: usize) -> (usize, bool) {
    (entry & !1, entry & 1 != 0)
}

fn walk(space: &AddressSpace, head: usize, tid: u32) -> Result<()> {
    // struct robust_list_head: first entry, offset from an entry to its word, the entry that was about to be (un)locked.
    let [first, offset, pending]: [usize; 3] = UserPtr::new(head).read()?;
    let (pending, pending_pi) = split(pending);
    let (mut entry, mut pi) = split(first);
    for _ in 0..LIST_LIMIT {
        if entry == head {
            break;
        }
        // Read on before the lock is given away, since its new owner may unlink it.
        let next = UserPtr::<usize>::new(entry).read();
        if entry != pending {
            died(space, entry.wrapping_add(offset), tid, pi, false)?;
        }
        (entry, pi) = split(next?);
    }
    if pending != 0 {
        died(space, pending.wrapping_add(offset), tid, pending_pi, true)?;
    }
    Ok(())
}

/// The owner of the lock at `word` has died, if that is `tid`.
fn died(space: &AddressSpace, word: usize, tid: u32, pi: bool, pending: bool) -> Result<()> {
    let mut value = user::load_u32(word)?;
    loop {
        // It died between unlocking and waking: the wake-up is made up for.
        if pending && !pi && value == 0 {
            super::wake(space, word, true, 1, u32::MAX)?;
            return Ok(());
        }
        if value & FUTEX_TID_MASK != tid {
            return Ok(());
        }
        let seen = user::compare_exchange_u32(word, value, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)?;
        if seen == value {
            break;
        }
        value = seen;
    }
    if value & FUTEX_WAITERS != 0 {
        if pi {
            super::pi::owner_died(space, tid, word)?;
        } else {
            super::wake(space, word, true, 1, u32::MAX)?;
        }
    }
    Ok(())
}
