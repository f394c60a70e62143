//! `pagemap` and `clear_refs`: which pages of a process are there, used, and changed (the kernel's pagemap and soft-dirty documents).

use alloc::sync::Arc;

use abi::PAGE_SIZE;
use base::{Capability, Errno, Result};
use fs::procfs::{Node, open_with};
use fs::{File, Io, SeekFrom};
use hal::user::USER_END;
use mm::{AddressSpace, PageState, Pages, Sink};

use super::Subject;
use crate::{inspect, try_current};

/// Bytes of an entry.
const ENTRY: usize = 8;
/// Entries that are made at a time.
const CHUNK: usize = 512;
const CHANGED: u64 = 1 << 55;
const ALONE: u64 = 1 << 56;
const GUARDED: u64 = 1 << 57;
const FILE: u64 = 1 << 61;
const PRESENT: u64 = 1 << 63;

/// The entry of a page; `numbers`: with its frame's number.
fn entry(page: &PageState, numbers: bool) -> u64 {
    let mark = |is: bool, bit: u64| if is { bit } else { 0 };
    let Some(frame) = page.frame else { return mark(page.changed, CHANGED) };
    PRESENT
        | mark(page.changed, CHANGED)
        | mark(page.alone, ALONE)
        | mark(page.guarded, GUARDED)
        | mark(page.file, FILE)
        | mark(numbers, frame as u64)
}

/// An open `pagemap`: of the memory that the process had then.
struct PageMap {
    space: Option<Arc<AddressSpace>>,
    /// Who opened it may see where pages lie.
    numbers: bool,
}

impl File for PageMap {
    /// `EINVAL` unless position and length are whole entries.
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let Some(space) = &self.space else { return Ok(0) };
        if !io.offset.is_multiple_of(ENTRY as u64) || !sink.remaining().is_multiple_of(ENTRY) {
            return Err(Errno::EINVAL);
        }
        let end = USER_END / PAGE_SIZE;
        let mut page = usize::try_from(io.offset / ENTRY as u64).unwrap_or(end);
        let mut done = 0;
        let killed = || try_current().is_some_and(|task| task.is_dying());
        while sink.remaining() > 0 && page < end && !killed() {
            let count = (sink.remaining() / ENTRY).min(CHUNK).min(end - page);
            for state in space.page_states(page * PAGE_SIZE, (page + count) * PAGE_SIZE)? {
                done += sink.put(&entry(&state, self.numbers).to_ne_bytes())?;
            }
            page += count;
            sched::preempt_point();
        }
        Ok(done)
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        to.in_endless(position)
    }
}

/// The node of `pagemap`; the right to look is checked when it is opened.
pub(super) fn node(subject: &Subject) -> Node {
    let subject = subject.clone();
    let open = move |_, _: &fs::FsContext| -> Result<Arc<dyn File>> {
        inspect::check_current(&subject.task)?;
        let numbers = try_current().is_none_or(|task| task.cred().capable(Capability::SysAdmin));
        Ok(Arc::new(PageMap { space: subject.process().address_space(), numbers }))
    };
    open_with(open).mode(0o400)
}

/// A write to `clear_refs`: 1 to 3 forget which pages were used, 4 watches for changes, 5 forgets the peak of VmHWM. `EINVAL`, `ENOMEM`.
pub(super) fn clear(subject: &Subject, data: &[u8]) -> Result<()> {
    let what = super::settings::parse(data)?;
    if !(1..=5).contains(&what) {
        return Err(Errno::EINVAL);
    }
    let Some(space) = subject.process().address_space() else { return Ok(()) };
    match what {
        1 => space.forget_accesses(Pages::All),
        2 => space.forget_accesses(Pages::Anonymous),
        3 => space.forget_accesses(Pages::File),
        4 => space.watch_changes(),
        _ => {
            space.forget_peak();
            Ok(())
        }
    }
}
