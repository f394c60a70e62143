//! A file that an epoll instance watches.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::AtomicBool;

use base::{Errno, Events, Result};
use bitflags::bitflags;
use fs::{OpenFile, PollTable};
use hal::sync::SpinLock;
use sched::Notify;

use super::queued::Queued;
use super::{Epoll, Occurred};

bitflags! {
    /// How events are reported, beside which.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct EventFlags: u32 {
        /// EPOLLEXCLUSIVE: a wake-up reaches one of the instances that watch the file.
        const EXCLUSIVE = 1 << 28;
        /// EPOLLWAKEUP: without effect here, nothing suspends.
        const WAKEUP = 1 << 29;
        /// EPOLLONESHOT: once, then not until modified.
        const ONESHOT = 1 << 30;
        /// EPOLLET: when something changes, not as long as it is so.
        const EDGE = 1 << 31;
    }
}

/// What is asked about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest {
    /// The events. Errors and hang-ups always are reported, unless a one-shot item is spent.
    pub events: Events,
    /// How they are reported.
    pub flags: EventFlags,
    /// A number that comes back with each event.
    pub data: u64,
}

impl Interest {
    /// From `struct epoll_event`.
    pub fn new(bits: u32, data: u64) -> Interest {
        let flags = EventFlags::from_bits_truncate(bits);
        Interest { events: Events::from_bits_truncate(bits) | Events::ALWAYS, flags, data }
    }

    /// As `struct epoll_event` has it.
    pub fn bits(self) -> u32 {
        self.events.bits() | self.flags.bits()
    }

    /// Does it use EPOLLEXCLUSIVE with flags or events that don't go with it?
    pub fn misuses_exclusive(self) -> bool {
        let allowed = Events::IN | Events::OUT | Events::ALWAYS;
        self.flags.contains(EventFlags::EXCLUSIVE)
            && (self.flags.contains(EventFlags::ONESHOT) || !allowed.contains(self.events))
    }
}

/// A watched file. It is in the file's wait queues until [`Item::stop`].
pub(super) struct Item {
    me: Weak<Item>,
    epoll: Weak<Epoll>,
    file: Weak<OpenFile>,
    interest: SpinLock<Interest>,
    /// It is on the ready list.
    queued: Queued,
    table: SpinLock<Option<PollTable>>,
}

impl Item {
    pub(super) fn new(epoll: &Weak<Epoll>, open: &Arc<OpenFile>, interest: Interest) -> Arc<Item> {
        Arc::new_cyclic(|me| Item {
            me: me.clone(),
            epoll: epoll.clone(),
            file: Arc::downgrade(open),
            interest: SpinLock::new(interest),
            queued: Queued::new(AtomicBool::new(false)),
            table: SpinLock::new(None),
        })
    }

    pub(super) fn file(&self) -> Option<Arc<OpenFile>> {
        self.file.upgrade()
    }

    pub(super) fn epoll(&self) -> Option<Arc<Epoll>> {
        self.epoll.upgrade()
    }

    pub(super) fn interest(&self) -> Interest {
        *self.interest.lock_irq()
    }

    /// Takes its place in the file's wait queues; queues itself if the file is ready already.
    pub(super) fn start(self: &Arc<Item>, open: &Arc<OpenFile>) {
        let interest = self.interest();
        let mut table = PollTable::new(self.clone(), interest.flags.contains(EventFlags::EXCLUSIVE));
        let ready = open.poll(&mut table) & interest.events;
        *self.table.lock() = Some(table);
        self.queue_if(!ready.is_empty());
    }

    fn queue_if(self: &Arc<Item>, ready: bool) {
        if ready && let Some(epoll) = self.epoll() {
            epoll.queue(self.clone());
        }
    }

    /// Leaves the file's wait queues.
    pub(super) fn stop(&self) {
        let table = self.table.lock().take();
        drop(table);
    }

    /// EPOLL_CTL_MOD. `EINVAL` for exclusive items.
    pub(super) fn change(self: &Arc<Item>, open: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        if self.interest().flags.contains(EventFlags::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        *self.interest.lock_irq() = interest;
        let ready = open.poll(&mut PollTable::ask()) & interest.events;
        self.queue_if(!ready.is_empty());
        Ok(())
    }

    /// Notes that it is on the ready list; false if it was.
    pub(super) fn mark_queued(&self) -> bool {
        self.queued.mark()
    }

    pub(super) fn unmark_queued(&self) {
        self.queued.unmark();
    }

    /// What there is to report now.
    #[inline]
    pub(super) fn occurred(&self) -> Option<Occurred> {
        let interest = self.interest();
        let ready = self.file()?.poll(&mut PollTable::ask()) & interest.events;
        (!ready.is_empty()).then_some(Occurred { events: ready.bits(), data: interest.data })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.occurred().is_some()
    }

    /// It was reported, which spends a one-shot item. Is it to be looked at again next time?
    #[inline]
    pub(super) fn reported(&self) -> bool {
        let mut interest = self.interest.lock_irq();
        let oneshot = interest.flags.contains(EventFlags::ONESHOT);
        if oneshot {
            interest.events = Events::empty();
        }
        !oneshot && !interest.flags.contains(EventFlags::EDGE)
    }
}

impl Notify for Item {
    fn notify(&self, events: Events) -> bool {
        if !self.interest().events.intersects(events) {
            return false;
        }
        match (self.me.upgrade(), self.epoll.upgrade()) {
            (Some(me), Some(epoll)) => epoll.queue(me),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_goes_with_few_events_only() {
        let exclusive = EventFlags::EXCLUSIVE.bits();
        assert!(!Interest::new(exclusive | 1, 0).misuses_exclusive());
        assert!(!Interest::new(exclusive | EventFlags::EDGE.bits() | 4, 0).misuses_exclusive());
        assert!(Interest::new(exclusive | EventFlags::ONESHOT.bits(), 0).misuses_exclusive());
        assert!(Interest::new(exclusive | Events::PRI.bits(), 0).misuses_exclusive());
    }
}
