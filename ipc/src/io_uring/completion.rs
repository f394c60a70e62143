//! Posting completions.
//!
//! A completion that finds the ring full is kept in a list, and goes in when there is room: none is lost unless memory is.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::Events;
use fs::OpenFile;
use hal::sync::SpinLock;
use sched::WaitQueue;

use super::abi::Cqe;
use super::rings::{Rings, sq_flag};
use crate::eventfd;

/// The most completions that are kept for want of room in the ring; what comes on top of them is lost, and counted.
const KEPT_MAX: usize = 1 << 17;

struct Posted {
    tail: u32,
    /// Those that did not fit, oldest first.
    overflow: VecDeque<Cqe>,
    eventfd: Option<(Arc<OpenFile>, bool)>,
}

/// The completion side of a ring.
pub struct Completions {
    posted: SpinLock<Posted>,
    /// Copy of `Posted::tail`.
    tail: AtomicU32,
    /// Copy of whether there is `Posted::eventfd`.
    has_eventfd: AtomicBool,
    /// Woken when completions were posted.
    pub waiters: Arc<WaitQueue>,
}

impl Completions {
    /// Nothing has completed yet.
    #[allow(clippy::new_without_default, reason = "it belongs to rings")]
    pub fn new() -> Completions {
        Completions {
            posted: SpinLock::new(Posted { tail: 0, overflow: VecDeque::new(), eventfd: None }),
            tail: AtomicU32::new(0),
            has_eventfd: AtomicBool::new(false),
            waiters: Arc::new(WaitQueue::new()),
        }
    }

    /// Posts one; `from_submitter` where the program is in the kernel submitting (no event for those if it wants asynchronous ones only).
    /// In thread context.
    pub fn post(&self, rings: &Rings, cqe: Cqe, from_submitter: bool) {
        let mut posted = self.posted.lock();
        if posted.overflow.is_empty() && rings.unread(posted.tail) < rings.cq_entries() {
            rings.put(posted.tail, &cqe);
            self.advance(&mut posted);
        } else if posted.overflow.len() < KEPT_MAX && posted.overflow.try_reserve(1).is_ok() {
            posted.overflow.push_back(cqe);
            rings.change_sq_flags(sq_flag::CQ_OVERFLOW, 0);
        } else {
            rings.count_lost();
        }
        let event = posted.eventfd.clone().filter(|(_, asynchronous)| !(*asynchronous && from_submitter));
        drop(posted);
        self.waiters.wake_for(Events::READABLE, usize::MAX);
        if let Some((event, _)) = event
            && rings.wants_events()
        {
            eventfd::signal(&event);
        }
    }

    fn advance(&self, posted: &mut Posted) {
        posted.tail = posted.tail.wrapping_add(1);
        self.tail.store(posted.tail, Ordering::Release);
    }

    /// Is there room for another that need not be kept aside?
    pub fn has_room(&self, rings: &Rings) -> bool {
        let posted = self.posted.lock();
        posted.overflow.is_empty() && rings.unread(posted.tail) < rings.cq_entries()
    }

    /// Puts those that did not fit into the ring, as far as they fit now.
    pub fn flush(&self, rings: &Rings) {
        let mut posted = self.posted.lock();
        if posted.overflow.is_empty() {
            return;
        }
        while rings.unread(posted.tail) < rings.cq_entries()
            && let Some(cqe) = posted.overflow.pop_front()
        {
            rings.put(posted.tail, &cqe);
            self.advance(&mut posted);
        }
        if posted.overflow.is_empty() {
            rings.change_sq_flags(0, sq_flag::CQ_OVERFLOW);
        }
        drop(posted);
        self.waiters.wake_for(Events::READABLE, usize::MAX);
    }

    /// Do completions wait for room?
    pub fn has_overflow(&self) -> bool {
        !self.posted.lock().overflow.is_empty()
    }

    /// How many were ever put into the ring, wrapping round.
    pub fn tail(&self) -> u32 {
        self.tail.load(Ordering::Acquire)
    }

    /// How many the program can read now.
    pub fn ready(&self, rings: &Rings) -> u32 {
        rings.unread(self.tail())
    }

    /// Registers an eventfd (only for what completes asynchronously, if so) or none; the old one.
    pub fn set_eventfd(&self, event: Option<(Arc<OpenFile>, bool)>) -> Option<(Arc<OpenFile>, bool)> {
        let mut posted = self.posted.lock();
        self.has_eventfd.store(event.is_some(), Ordering::SeqCst);
        core::mem::replace(&mut posted.eventfd, event)
    }

    /// Is an eventfd registered?
    pub fn has_eventfd(&self) -> bool {
        self.has_eventfd.load(Ordering::SeqCst)
    }

    /// Tells the eventfd that there is something to be had by io_uring_enter(2).
    pub fn signal(&self, rings: &Rings) {
        let event = self.posted.lock().eventfd.clone();
        if let Some((event, _)) = event
            && rings.wants_events()
        {
            eventfd::signal(&event);
        }
    }
}
