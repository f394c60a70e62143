//! Page faults that a program resolves for itself or for another (userfaultfd(2)): who is told, and who waits.
//!
//! A [`Monitor`] belongs to one address space. Mappings that are registered with it carry a [`Watch`]; a fault there becomes a message, and the
//! thread waits until somebody has put a page in and wakes it ([`Monitor::wake`]), or the monitor is gone. Forking, moving, and taking away
//! memory become messages too where the monitor asks for that, and who does it waits until the message has been read.
//!
//! No thread waits here with a lock of the address space held.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Events, Result};
use bitflags::bitflags;
use hal::sync::{Once, SpinLock};
use hal::user::USER_END;
use sched::{Sleep, WaitQueue};

use crate::address_space::LOWEST;
use crate::{AddressSpace, FaultError};

bitflags! {
    /// What of a mapping is watched (UFFDIO_REGISTER_MODE_*).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Modes: u8 {
        /// Faults on pages that are not there.
        const MISSING = 1;
        /// Writes to pages that were protected ([`AddressSpace::guard`]).
        const WRITE_PROTECT = 2;
        /// Faults on pages that are in shared memory, but not mapped.
        const MINOR = 4;
    }
}

bitflags! {
    /// UFFD_FEATURE_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u64 {
        /// Write protection.
        const PAGEFAULT_FLAG_WP = 1 << 0;
        /// Forks are told.
        const EVENT_FORK = 1 << 1;
        /// Moves by mremap(2) are told.
        const EVENT_REMAP = 1 << 2;
        /// madvise(2) that drops pages is told.
        const EVENT_REMOVE = 1 << 3;
        /// Shared memory can be watched.
        const MISSING_SHMEM = 1 << 5;
        /// munmap(2) is told.
        const EVENT_UNMAP = 1 << 6;
        /// Faults give SIGBUS instead of a message.
        const SIGBUS = 1 << 7;
        /// Messages tell which thread faulted.
        const THREAD_ID = 1 << 8;
        /// Minor faults on shared memory.
        const MINOR_SHMEM = 1 << 10;
        /// Messages tell the address, not that of its page.
        const EXACT_ADDRESS = 1 << 11;
        /// Shared memory can be write-protected.
        const WP_SHMEM = 1 << 12;
    }
}

/// Why a page could not be had (UFFD_PAGEFAULT_FLAG_* are made of it).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// There is none.
    Missing,
    /// It is write-protected.
    WriteProtected,
    /// It is there, but not mapped.
    Minor,
}

/// What a monitor is told.
#[derive(Clone)]
pub enum Message {
    /// A thread waits for a page.
    Fault {
        /// Where.
        address: usize,
        /// It was a write.
        write: bool,
        /// Why.
        kind: Kind,
        /// The thread's number; 0 unless asked for.
        thread: i32,
    },
    /// The process forked: the child's memory has this monitor.
    Fork(Arc<Monitor>),
    /// `len` bytes moved.
    Remap {
        /// From here.
        from: usize,
        /// To here.
        to: usize,
        /// So many.
        len: usize,
    },
    /// Pages are about to be dropped.
    Remove(usize, usize),
    /// A range is mapped no more.
    Unmap(usize, usize),
}

/// A mapping's part in it.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) modes: Modes,
}

impl Watch {
    /// Is it the same watch?
    pub(crate) fn same(a: &Option<Watch>, b: &Option<Watch>) -> bool {
        match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(&a.monitor, &b.monitor) && a.modes == b.modes,
            _ => false,
        }
    }
}

/// A message, and whether what waits for its end may go on.
struct Posted {
    message: Message,
    done: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// Faults that nobody has read.
    faults: VecDeque<Arc<Posted>>,
    /// Faults that were read, and wait to be resolved.
    read: Vec<Arc<Posted>>,
    events: VecDeque<Arc<Posted>>,
    released: bool,
}

/// What is told of faults in parts of an address space.
pub struct Monitor {
    space: Weak<AddressSpace>,
    /// UFFD_USER_MODE_ONLY: faults of the kernel are not told, they fail.
    user_mode_only: bool,
    /// Features and [`ENABLED`].
    features: AtomicU64,
    queue: SpinLock<Queue>,
    /// Changes of the address space that were begun and not yet read of.
    changing: AtomicUsize,
    /// Woken when there is a message.
    pub readers: Arc<WaitQueue>,
    /// Threads that wait for pages, or for events to be read.
    stopped: WaitQueue,
}

/// The features have been chosen.
const ENABLED: u64 = 1 << 63;

/// The end of a range that requests name: page-aligned, in the user half and not empty. `EINVAL`.
pub fn end_of(start: usize, len: usize) -> Result<usize> {
    let aligned = start.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE) && len > 0 && start >= LOWEST;
    let end = start.checked_add(len).filter(|&end| end <= USER_END);
    end.filter(|_| aligned).ok_or(Errno::EINVAL)
}

/// Tells the number of the running thread.
static THREAD_NUMBER: Once<fn() -> i32> = Once::new();

/// Sets who knows the number of the running thread. Once, at boot.
pub fn set_thread_number(number: fn() -> i32) {
    assert!(THREAD_NUMBER.set(number).is_ok(), "the numbers of threads are set twice");
}

impl Monitor {
    /// A monitor of `space`, which is asked for nothing yet.
    pub fn new(space: &Arc<AddressSpace>, user_mode_only: bool) -> Arc<Monitor> {
        Monitor::with(Arc::downgrade(space), user_mode_only, 0)
    }

    fn with(space: Weak<AddressSpace>, user_mode_only: bool, features: u64) -> Arc<Monitor> {
        Arc::new(Monitor {
            space,
            user_mode_only,
            features: AtomicU64::new(features),
            queue: SpinLock::default(),
            changing: AtomicUsize::new(0),
            readers: Arc::new(WaitQueue::new()),
            stopped: WaitQueue::new(),
        })
    }

    /// One like it, for the memory of a child.
    pub(crate) fn for_child(&self, space: Weak<AddressSpace>) -> Arc<Monitor> {
        Monitor::with(space, self.user_mode_only, self.features.load(Ordering::Relaxed))
    }

    /// The memory it is about. `ESRCH` where that is gone.
    pub fn space(&self) -> Result<Arc<AddressSpace>> {
        self.space.upgrade().ok_or(Errno::ESRCH)
    }

    /// Chooses features, once. `EINVAL`.
    pub fn enable(&self, features: Features) -> Result<()> {
        let new = features.bits() | ENABLED;
        let chosen = self.features.compare_exchange(0, new, Ordering::SeqCst, Ordering::SeqCst);
        chosen.map(drop).map_err(|_| Errno::EINVAL)
    }

    /// The chosen features; `None` before they are.
    pub fn features(&self) -> Option<Features> {
        let bits = self.features.load(Ordering::SeqCst);
        (bits & ENABLED != 0).then(|| Features::from_bits_truncate(bits))
    }

    pub(crate) fn has(&self, features: Features) -> bool {
        self.features.load(Ordering::Relaxed) & features.bits() == features.bits()
    }

    /// Is the address space being changed in a way that has not been read of? Then pages can't be put in.
    pub fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) > 0
    }

    /// Must a fault fail that nobody may wait for? `Bus`.
    pub(crate) fn check(&self, from_user: bool) -> Result<(), FaultError> {
        let fails = self.has(Features::SIGBUS) || self.user_mode_only && !from_user;
        if fails { Err(FaultError::Bus) } else { Ok(()) }
    }

    /// Posts a fault of the running thread, which is then to wait for it; `None` where the monitor has gone.
    pub(crate) fn post(self: &Arc<Monitor>, address: usize, write: bool, kind: Kind) -> Option<Stop> {
        let exact = self.has(Features::EXACT_ADDRESS);
        let address = if exact { address } else { address & !(PAGE_SIZE - 1) };
        let number = if self.has(Features::THREAD_ID) { THREAD_NUMBER.get() } else { None };
        let thread = number.map_or(0, |number| number());
        self.put(Message::Fault { address, write, kind, thread })
    }

    fn put(self: &Arc<Monitor>, message: Message) -> Option<Stop> {
        let posted = Arc::new(Posted { message, done: AtomicBool::new(false) });
        let mut queue = self.queue.lock();
        if queue.released {
            return None;
        }
        match posted.message {
            Message::Fault { .. } => queue.faults.push_back(posted.clone()),
            _ => queue.events.push_back(posted.clone()),
        }
        drop(queue);
        self.readers.wake_for(Events::READABLE, usize::MAX);
        Some(Stop { monitor: self.clone(), posted })
    }

    /// The next message, faults first; waits unless `nonblock`. `EAGAIN`, `ERESTARTSYS`.
    pub fn next(&self, nonblock: bool) -> Result<Message> {
        let take = || {
            let mut queue = self.queue.lock();
            if let Some(fault) = queue.faults.pop_front() {
                let message = fault.message.clone();
                queue.read.push(fault);
                return Some(message);
            }
            let event = queue.events.pop_front()?;
            drop(queue);
            let message = event.message.clone();
            event.done.store(true, Ordering::SeqCst);
            self.stopped.wake_all();
            Some(message)
        };
        if nonblock {
            return take().ok_or(Errno::EAGAIN);
        }
        Ok(self.readers.wait_until(Sleep::Interruptible, None, take)?)
    }

    /// Is there something to be read?
    pub fn is_ready(&self) -> bool {
        let queue = self.queue.lock();
        !queue.faults.is_empty() || !queue.events.is_empty()
    }

    /// How many faults have not been read, and how many there are.
    pub fn counts(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.faults.len(), queue.faults.len() + queue.read.len())
    }

    /// Lets the threads go on that wait for pages in `start..end`.
    pub fn wake(&self, start: usize, end: usize) {
        let hit = |posted: &Posted| match posted.message {
            Message::Fault { address, .. } => (start..end).contains(&address),
            _ => false,
        };
        let mut queue = self.queue.lock();
        let mut any = false;
        for posted in queue.faults.iter().chain(&queue.read).filter(|posted| hit(posted)) {
            posted.done.store(true, Ordering::SeqCst);
            any = true;
        }
        // Those who waited take their messages off the lists themselves, unless they were never read.
        queue.faults.retain(|posted| !hit(posted));
        drop(queue);
        if any {
            self.stopped.wake_all();
        }
    }

    /// Nobody reads any more: all who wait go on, and nothing is watched for it.
    pub fn release(self: &Arc<Monitor>) {
        let mut queue = self.queue.lock();
        queue.released = true;
        for posted in queue.faults.iter().chain(&queue.read).chain(&queue.events) {
            posted.done.store(true, Ordering::SeqCst);
        }
        let events = core::mem::take(&mut queue.events);
        drop(queue);
        // A child whose fork is never read of is watched by nobody.
        for event in &events {
            if let Message::Fork(child) = &event.message {
                child.release();
            }
        }
        if let Some(space) = self.space.upgrade() {
            space.unwatch(self);
        }
        self.stopped.wake_all();
    }
}

/// A thread's place among those that wait; it leaves it when this drops.
pub(crate) struct Stop {
    monitor: Arc<Monitor>,
    posted: Arc<Posted>,
}

impl Stop {
    /// Waits until it may go on. `Interrupted` by a signal, one that kills unless the fault comes from user mode.
    pub(crate) fn wait(self, from_user: bool) -> Result<(), FaultError> {
        let how = if from_user { Sleep::Interruptible } else { Sleep::Killable };
        let done = || self.posted.done.load(Ordering::SeqCst).then_some(());
        self.monitor.stopped.wait_until(how, None, done).map_err(|_| FaultError::Interrupted)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let mut queue = self.monitor.queue.lock();
        let other = |posted: &Arc<Posted>| !Arc::ptr_eq(posted, &self.posted);
        queue.faults.retain(other);
        queue.read.retain(other);
        queue.events.retain(other);
    }
}

/// A change of the address space that its monitor is to be told of. Until it has been read of, no pages are put in.
struct Change {
    monitor: Arc<Monitor>,
    message: Message,
}

impl Change {
    /// Tells, and waits until it has been read, or the thread is killed.
    fn tell(self) {
        let told = match self.monitor.put(self.message.clone()) {
            Some(stop) => {
                let posted = stop.posted.clone();
                let _ = stop.wait(false);
                posted.done.load(Ordering::SeqCst) && !self.monitor.queue.lock().released
            }
            None => false,
        };
        if let Message::Fork(child) = &self.message
            && !told
        {
            // Nobody will ever read what it is told.
            child.release();
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.monitor.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Changes that were begun under the lock of an address space, to be told without it.
#[derive(Default)]
pub(crate) struct Changes(Vec<Change>);

impl Clone for Changes {
    /// A copy of an address space has changed nothing.
    fn clone(&self) -> Changes {
        Changes::default()
    }
}

impl Changes {
    /// A change begins.
    pub(crate) fn begin(&mut self, monitor: &Arc<Monitor>, message: Message) {
        monitor.changing.fetch_add(1, Ordering::SeqCst);
        self.0.push(Change { monitor: monitor.clone(), message });
    }

    /// A watched mapping was taken out together with all of `start..end`, which is told once to each monitor that asks for it.
    pub(crate) fn unmapped(&mut self, watch: Option<&Watch>, start: usize, end: usize) {
        let Some(Watch { monitor, .. }) = watch.filter(|watch| watch.monitor.has(Features::EVENT_UNMAP)) else {
            return;
        };
        let is_same = |message: &Message| matches!(*message, Message::Unmap(from, to) if (from, to) == (start, end));
        if !self.0.iter().any(|change| Arc::ptr_eq(&change.monitor, monitor) && is_same(&change.message)) {
            self.begin(monitor, Message::Unmap(start, end));
        }
    }

    /// The child's monitor in the place of the parent's, made by `make` the first time.
    pub(crate) fn fork_of(&mut self, monitor: &Arc<Monitor>, make: impl FnOnce() -> Arc<Monitor>) -> Arc<Monitor> {
        let known = self.0.iter().find_map(|change| match &change.message {
            Message::Fork(child) if Arc::ptr_eq(&change.monitor, monitor) => Some(child.clone()),
            _ => None,
        });
        known.unwrap_or_else(|| {
            let child = make();
            self.begin(monitor, Message::Fork(child.clone()));
            child
        })
    }

    /// Tells none of them.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Tells them all. Without locks.
    pub(crate) fn tell(self) {
        self.0.into_iter().for_each(Change::tell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(features: Features) -> Arc<Monitor> {
        let monitor = Monitor::with(Weak::new(), false, 0);
        monitor.enable(features).unwrap();
        monitor
    }

    fn address(message: &Message) -> usize {
        let Message::Fault { address, .. } = message else { panic!("not a fault") };
        *address
    }

    #[test]
    fn faults_are_read_in_turn_and_woken_by_range() {
        let monitor = monitor(Features::empty());
        assert_eq!(monitor.enable(Features::empty()), Err(Errno::EINVAL));
        let stops: Vec<_> =
            [0x5123, 0x7000].map(|at| monitor.post(at, true, Kind::Missing).unwrap()).into_iter().collect();
        assert_eq!(address(&monitor.next(true).unwrap()), 0x5000);
        assert_eq!(monitor.counts(), (1, 2));
        // Woken before it was read, a fault is read no more.
        monitor.wake(0x7000, 0x8000);
        assert!(monitor.next(true).is_err() && !monitor.is_ready());
        let done = |stop: &Stop| stop.posted.done.load(Ordering::SeqCst);
        assert_eq!(stops.iter().map(done).collect::<Vec<_>>(), [false, true]);
        monitor.wake(0x4000, 0x5000);
        assert!(!done(&stops[0]));
        monitor.wake(0x5000, 0x6000);
        assert!(done(&stops[0]));
        drop(stops);
        assert_eq!(monitor.counts(), (0, 0));
    }

    #[test]
    fn who_waits_goes_on_when_the_monitor_goes() {
        let monitor = monitor(Features::EXACT_ADDRESS);
        let stop = monitor.post(0x5123, false, Kind::Minor).unwrap();
        assert_eq!(address(&stop.posted.message), 0x5123);
        monitor.release();
        assert!(stop.posted.done.load(Ordering::SeqCst));
        assert!(monitor.post(0x5123, false, Kind::Minor).is_none());
    }

    #[test]
    fn changes_are_begun_once_for_each_range_and_end_when_forgotten() {
        let monitor = monitor(Features::EVENT_UNMAP);
        let watch = Watch { monitor: monitor.clone(), modes: Modes::MISSING };
        let mut changes = Changes::default();
        for range in [(1, 2), (1, 2), (3, 4)] {
            changes.unmapped(Some(&watch), range.0, range.1);
        }
        changes.unmapped(None, 5, 6);
        assert_eq!(changes.0.len(), 2);
        assert!(monitor.is_changing() && changes.clone().0.is_empty());
        changes.forget();
        assert!(!monitor.is_changing());
    }
}
