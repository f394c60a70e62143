//! poll, ppoll, select, pselect6.

use alloc::vec::Vec;

use base::{Errno, Events, Nanos, Result};
use fs::Fd;
use hal::user::UserPtr;
use ipc::poll::{Polled, Until, wait};
use process::signal::{Restart, SigSet, with_temporary_mask};
use process::{Resource, Task};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::timespec::{Timespec, Timeval};

/// `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

/// A timeout as an end on the monotonic clock; `None` waits for ever.
pub(crate) fn until(timeout: Option<Nanos>) -> Until {
    match timeout {
        None => Until::Forever,
        Some(0) => Until::Now,
        Some(nanos) => Until::Deadline(sched::time::now().saturating_add(nanos)),
    }
}

/// Reads the array, waits, and stores the results: how many descriptors are ready. `EINTR`, `EINVAL`, `EFAULT`, `ENOMEM`.
fn poll_array(task: &Task, array: UserPtr<PollFd>, count: u32, until: Until) -> Result<usize> {
    if u64::from(count) > task.rlimit(Resource::NoFile).0 {
        return Err(Errno::EINVAL);
    }
    let count = count as usize;
    let (mut raw, mut files) = (Vec::<PollFd>::new(), Vec::new());
    raw.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    files.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    raw.resize(count, PollFd::default());
    hal::user::copy_in(raw.as_mut_slice().as_mut_bytes(), array.addr())?;
    let mut entries = raw.iter();
    task.files().for_each(raw.iter().map(|entry| entry.fd), |fd, open| {
        let Some(entry) = entries.next() else { return };
        let wanted = Events::from_bits_truncate(entry.events as u16 as u32);
        let ready = if open.is_none() && fd >= 0 { Events::NVAL } else { Events::empty() };
        files.push(Polled { open: open.cloned(), wanted, ready });
    });
    let result = wait(&mut files, until);
    for (index, polled) in files.iter().enumerate() {
        let revents = array.at(index).addr().wrapping_add(6);
        UserPtr::<i16>::new(revents).write(&(polled.ready.bits() as i16))?;
    }
    result
}

pub(crate) fn poll(cx: &mut Context, a: Args) -> Result<usize> {
    let timeout = u64::try_from(a.int(2)).ok().map(|millis| millis * 1_000_000);
    poll_until(cx, a.ptr(0), a.uint(1), until(timeout))
}

fn poll_until(cx: &Context, array: UserPtr<PollFd>, count: u32, until: Until) -> Result<usize> {
    match poll_array(cx.task, array, count, until) {
        Err(Errno::EINTR) => {
            let deadline = if let Until::Deadline(nanos) = until { Some(nanos) } else { None };
            cx.task.set_restart(Restart::Poll { fds: array.addr(), count, deadline });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        other => other,
    }
}

/// restart_syscall(2) for poll(2).
pub(crate) fn poll_again(cx: &Context, fds: usize, count: u32, deadline: Option<Nanos>) -> Result<usize> {
    poll_until(cx, UserPtr::new(fds), count, deadline.map_or(Until::Forever, Until::Deadline))
}

/// A signal mask argument of `size` bytes. `EINVAL`, `EFAULT`.
pub(crate) fn mask(pointer: UserPtr<u64>, size: usize) -> Result<Option<SigSet>> {
    let Some(pointer) = pointer.non_null() else { return Ok(None) };
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SigSet(pointer.read()?)))
}

/// What is left until the end.
fn remaining(until: Until) -> Option<Nanos> {
    match until {
        Until::Now => Some(0),
        Until::Deadline(end) => Some(end.saturating_sub(sched::time::now())),
        Until::Forever => None,
    }
}

/// The end of a wait whose timeout is updated to what is left: where it can't be stored, the call is not restarted.
fn finish(result: Result<usize>, store: impl FnOnce() -> Result<()>) -> Result<usize> {
    let result = if result == Err(Errno::EINTR) { Err(Errno::ERESTARTNOHAND) } else { result };
    match (store(), result) {
        (Err(_), Err(Errno::ERESTARTNOHAND)) => Err(Errno::EINTR),
        (_, result) => result,
    }
}

fn store_timespec(pointer: UserPtr<Timespec>, until: Until) -> Result<()> {
    match (pointer.non_null(), remaining(until)) {
        (Some(pointer), Some(left)) => pointer.write(&Timespec::from_nanos(left)),
        _ => Ok(()),
    }
}

pub(crate) fn ppoll(cx: &mut Context, a: Args) -> Result<usize> {
    let until = until(Timespec::read_optional(a.ptr(2))?);
    let mask = mask(a.ptr(3), a.size(4))?;
    let result = with_temporary_mask(cx.task, mask, || poll_array(cx.task, a.ptr(0), a.uint(1), until));
    finish(result, || store_timespec(a.ptr(2), until))
}

/// The three sets of select(2): words of 64 descriptors each, one set behind the other.
struct Sets {
    words: Vec<u64>,
    /// How many a set has.
    each: usize,
    pointers: [usize; 3],
}

/// What the sets ask about, and what counts as ready in each.
const SET_EVENTS: [Events; 3] = [
    Events::IN.union(Events::RDNORM).union(Events::RDBAND).union(Events::HUP).union(Events::ERR).union(Events::NVAL),
    Events::OUT.union(Events::WRNORM).union(Events::WRBAND).union(Events::ERR).union(Events::NVAL),
    Events::PRI.union(Events::NVAL),
];

impl Sets {
    /// Copies the sets of `count` descriptors in. `EFAULT`, `ENOMEM`.
    fn read(count: usize, pointers: [usize; 3]) -> Result<Sets> {
        let each = count.div_ceil(64);
        let mut words = Vec::new();
        words.try_reserve_exact(3 * each).map_err(|_| Errno::ENOMEM)?;
        words.resize(3 * each, 0u64);
        for (index, &pointer) in pointers.iter().enumerate() {
            if pointer != 0 {
                let set = &mut words[index * each..(index + 1) * each];
                hal::user::copy_in(set.as_mut_bytes(), pointer)?;
                if !count.is_multiple_of(64) {
                    set[each - 1] &= (1 << (count % 64)) - 1;
                }
            }
        }
        Ok(Sets { words, each, pointers })
    }

    /// The words of the three sets that hold descriptors from `64 * index` on.
    fn row(&self, index: usize) -> [u64; 3] {
        [self.words[index], self.words[self.each + index], self.words[2 * self.each + index]]
    }

    /// The descriptors that are asked about.
    fn numbers(&self) -> impl Iterator<Item = Fd> {
        (0..self.each).flat_map(|index| {
            let [a, b, c] = self.row(index);
            Bits(a | b | c).map(move |bit| (index * 64 + bit) as Fd)
        })
    }

    /// What is asked about descriptor `fd`.
    fn wanted(&self, fd: usize) -> Events {
        let row = self.row(fd / 64);
        let asked = |set: usize| if row[set] >> (fd % 64) & 1 != 0 { SET_EVENTS[set] } else { Events::empty() };
        asked(0) | asked(1) | asked(2)
    }

    /// Keeps the bits of what is ready, and counts them. `polled` are those of [`Sets::numbers`].
    fn keep(&mut self, polled: &[Polled]) -> usize {
        let mut polled = polled.iter();
        let mut total = 0;
        for index in 0..self.each {
            let row = self.row(index);
            let mut ready = [0; 3];
            for (bit, polled) in Bits(row[0] | row[1] | row[2]).zip(&mut polled) {
                if !polled.ready.is_empty() {
                    for (ready, events) in ready.iter_mut().zip(SET_EVENTS) {
                        *ready |= u64::from(polled.ready.intersects(events)) << bit;
                    }
                }
            }
            for (set, ready) in ready.iter().enumerate() {
                self.words[set * self.each + index] &= ready;
                total += (row[set] & ready).count_ones() as usize;
            }
        }
        total
    }

    fn store(&self) -> Result<()> {
        for (index, &pointer) in self.pointers.iter().enumerate() {
            if pointer != 0 {
                hal::user::copy_out(pointer, self.words[index * self.each..(index + 1) * self.each].as_bytes())?;
            }
        }
        Ok(())
    }
}

/// The numbers of the bits that are set, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.checked_sub(1)?;
        Some(bit as usize)
    }
}

fn select_sets(task: &Task, count: i32, pointers: [usize; 3], until: Until) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let table = task.files();
    // Numbers that the table does not reach can't be open; Linux ignores their bits.
    let count = count.min(table.capacity());
    let mut sets = Sets::read(count, pointers)?;
    let mut files = Vec::new();
    files
        .try_reserve_exact(sets.words.iter().map(|word| word.count_ones() as usize).sum())
        .map_err(|_| Errno::ENOMEM)?;
    let mut missing = false;
    table.for_each(sets.numbers(), |fd, open| match open {
        Some(open) => {
            files.push(Polled { open: Some(open.clone()), wanted: sets.wanted(fd as usize), ready: Events::empty() })
        }
        None => missing = true,
    });
    if missing {
        return Err(Errno::EBADF);
    }
    wait(&mut files, until)?;
    let ready = sets.keep(&files);
    sets.store()?;
    Ok(ready)
}

pub(crate) fn select(cx: &mut Context, a: Args) -> Result<usize> {
    let pointer: UserPtr<Timeval> = a.ptr(4);
    let timeout = match pointer.non_null() {
        None => None,
        Some(pointer) => {
            let raw = pointer.read()?;
            if raw.sec < 0 || raw.usec < 0 {
                return Err(Errno::EINVAL);
            }
            // Unlike everywhere else, a million microseconds and more are taken.
            let micros = (raw.sec as u64).saturating_mul(1_000_000).saturating_add(raw.usec as u64);
            Some(micros.saturating_mul(1000))
        }
    };
    let until = until(timeout);
    let result = select_sets(cx.task, a.int(0), [a.0[1], a.0[2], a.0[3]], until);
    finish(result, || match (pointer.non_null(), remaining(until)) {
        (Some(pointer), Some(left)) => pointer.write(&Timeval::from_nanos(left)),
        _ => Ok(()),
    })
}

pub(crate) fn pselect6(cx: &mut Context, a: Args) -> Result<usize> {
    let until = until(Timespec::read_optional(a.ptr(4))?);
    let mask = match a.ptr::<[usize; 2]>(5).non_null() {
        None => None,
        Some(pointer) => {
            let [set, size] = pointer.read()?;
            mask(UserPtr::new(set), size)?
        }
    };
    let result = with_temporary_mask(cx.task, mask, || select_sets(cx.task, a.int(0), [a.0[1], a.0[2], a.0[3]], until));
    finish(result, || store_timespec(a.ptr(4), until))
}
