//! The state that the threads of a process share and that signals change: one lock per process.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::accounting::Used;
use crate::signal::queue::Queue;
use crate::signal::{SigSet, Signal};
use crate::{Pid, Task};

/// Whether a process lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It has threads.
    Alive,
    /// All threads are gone; its parent has not waited for it.
    Zombie,
    /// Waited for: gone from the tree.
    Reaped,
}

/// A stop by job control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    /// The signal that stopped it.
    pub(crate) signal: Signal,
    /// All threads have stopped and the parent has been told.
    pub(crate) complete: bool,
}

/// What the group lock protects.
pub(crate) struct Group {
    /// The threads that have not exited; the leader first, while it lives.
    pub(crate) threads: Vec<Arc<Task>>,
    /// Signals for the process as a whole.
    pub(crate) queue: Queue,
    /// The process is ending with this wait status.
    pub(crate) exit: Option<i32>,
    /// The wait status that the leader exited with, if it did.
    pub(crate) leader_status: i32,
    /// This thread is in exec and waits for the others to go.
    pub(crate) exec: Option<Pid>,
    pub(crate) stop: Option<Stop>,
    /// Not yet reported to wait(2): a stop, a continue.
    pub(crate) stop_to_report: Option<Signal>,
    pub(crate) continue_to_report: bool,
    /// No SIGCONT came since a stop signal was taken out of a queue.
    pub(crate) stop_allowed: bool,
    /// The first thread to go on tells the parent that the process continued.
    pub(crate) tell_continued: bool,
    pub(crate) life: Life,
    /// What dead threads have used.
    pub(crate) used: Used,
    /// What waited-for children have used.
    pub(crate) children_used: Used,
}

impl Group {
    pub(crate) const fn new() -> Group {
        Group {
            threads: Vec::new(),
            queue: Queue::new(),
            exit: None,
            leader_status: 0,
            exec: None,
            stop: None,
            stop_to_report: None,
            continue_to_report: false,
            stop_allowed: false,
            tell_continued: false,
            life: Life::Alive,
            used: Used::NONE,
            children_used: Used::NONE,
        }
    }

    /// Throws `signals` away wherever they are pending in the process; how many entries that were.
    pub(crate) fn discard(&mut self, signals: SigSet) -> usize {
        let shared = self.queue.discard(signals);
        shared + self.threads.iter().map(|task| task.discard_pending(signals)).sum::<usize>()
    }
}
