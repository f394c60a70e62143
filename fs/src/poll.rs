//! Polling: asking a file what it is ready for, and being told when that changes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Events;
use sched::{Notify, WaitQueue};

/// Collects the wait queues of the files polled, so that a [`Notify`] hears of changes. Without one, polling only asks. Dropping the
/// table takes the notifier out of all queues.
pub struct PollTable {
    notify: Option<Arc<dyn Notify>>,
    registering: bool,
    exclusive: bool,
    /// The open file that is polled has O_NONBLOCK set.
    nonblocking: bool,
    queues: Vec<Arc<WaitQueue>>,
}

impl PollTable {
    /// A table that registers nothing: for asking once.
    pub const fn ask() -> PollTable {
        PollTable { notify: None, registering: false, exclusive: false, nonblocking: false, queues: Vec::new() }
    }

    /// A table that registers `notify` with each file polled; `exclusive` as for EPOLLEXCLUSIVE.
    pub fn new(notify: Arc<dyn Notify>, exclusive: bool) -> PollTable {
        PollTable { notify: Some(notify), registering: true, exclusive, nonblocking: false, queues: Vec::new() }
    }

    /// What a file calls before it looks at its state: from here on, changes that wake `queue` are heard.
    #[inline]
    pub fn register(&mut self, queue: &Arc<WaitQueue>) {
        if self.registering
            && let Some(notify) = &self.notify
            && self.queues.try_reserve(1).is_ok()
        {
            self.queues.push(queue.clone());
            queue.register(notify.clone(), self.exclusive);
        }
    }

    /// From now on only ask: what was registered stays. poll(2) does so once it has found a file that is ready.
    pub fn stop_registering(&mut self) {
        self.registering = false;
    }

    /// Notes whether the open file that is polled next has O_NONBLOCK set.
    #[inline]
    pub(crate) fn set_nonblocking(&mut self, nonblocking: bool) {
        self.nonblocking = nonblocking;
    }

    /// Has the open file that is polled O_NONBLOCK set?
    pub fn is_nonblocking(&self) -> bool {
        self.nonblocking
    }

    /// Does polling register now?
    pub fn registers(&self) -> bool {
        self.registering
    }
}

impl Drop for PollTable {
    fn drop(&mut self) {
        if let Some(notify) = self.notify.take() {
            for queue in self.queues.drain(..) {
                queue.unregister(&notify);
            }
        }
    }
}

/// The events that are always ready: regular files, directories and devices that never block.
pub const ALWAYS_READY: Events = Events::READABLE.union(Events::WRITABLE);
