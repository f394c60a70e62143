//! Waiting for several files at once: what poll(2) and select(2) have in common.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Events, Nanos, Result};
use fs::{OpenFile, PollTable};
use sched::{Notify, Sleep, SleepEnd, Thread};

/// Wakes the thread that polls.
struct Waiter {
    thread: Arc<Thread>,
    /// Something happened since the thread last looked.
    told: AtomicBool,
}

impl Notify for Waiter {
    fn notify(&self, _events: Events) -> bool {
        self.told.store(true, Ordering::SeqCst);
        self.thread.wake();
        true
    }
}

/// A file to wait for.
pub struct Polled {
    /// The file; `None` for a descriptor that is not to be looked at.
    pub open: Option<Arc<OpenFile>>,
    /// What is asked about; errors and hang-ups always are.
    pub wanted: Events,
    /// What it is ready for. Set beforehand for what is no file (`NVAL`).
    pub ready: Events,
}

/// When waiting ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// At once: only look.
    Now,
    /// Then, on the monotonic clock.
    Deadline(Nanos),
    /// When something is ready.
    Forever,
}

/// Waits until a file is ready: how many are; 0 when time ran out. `EINTR` at a signal.
pub fn wait(files: &mut [Polled], until: Until) -> Result<usize> {
    if until == Until::Now {
        return Ok(look(files, &mut PollTable::ask()));
    }
    let thread = sched::current();
    let waiter = Arc::new(Waiter { thread: thread.clone(), told: AtomicBool::new(false) });
    let mut table = PollTable::new(waiter.clone(), false);
    let deadline = match until {
        Until::Deadline(nanos) => Some(nanos),
        _ => None,
    };
    let mut late = false;
    loop {
        let ready = look(files, &mut table);
        // From the second look on, all files are registered.
        table.stop_registering();
        if ready > 0 || late {
            return Ok(ready);
        }
        if thread.interrupted() {
            return Err(Errno::EINTR);
        }
        thread.prepare_to_sleep(Sleep::Interruptible);
        if waiter.told.swap(false, Ordering::SeqCst) {
            thread.cancel_sleep();
            continue;
        }
        match thread.sleep(deadline) {
            SleepEnd::Woken | SleepEnd::Interrupted => {}
            SleepEnd::TimedOut => late = true,
        }
        waiter.told.store(false, Ordering::SeqCst);
    }
}

/// Looks at all files once, registering with each until one is ready.
fn look(files: &mut [Polled], table: &mut PollTable) -> usize {
    let mut count = 0;
    for polled in files {
        if let Some(open) = &polled.open {
            polled.ready = open.poll(table) & (polled.wanted | Events::ALWAYS);
        }
        if !polled.ready.is_empty() {
            count += 1;
            table.stop_registering();
        }
    }
    count
}
