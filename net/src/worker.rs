//! The network's own thread: work that interrupts leave behind (alarms, received frames).

use core::sync::atomic::{AtomicU32, Ordering};

use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use crate::{alarm, backlog, link};

/// Alarms are due.
pub(crate) const ALARMS: u32 = 1;
/// Devices have frames.
pub(crate) const FRAMES: u32 = 2;
/// Senders left packets to this machine.
pub(crate) const BACKLOGS: u32 = 4;

static PENDING: AtomicU32 = AtomicU32::new(0);
static QUEUE: WaitQueue = WaitQueue::new();
static STARTED: SpinLock<bool> = SpinLock::new(false);

/// Leaves work. From any context.
pub(crate) fn wake(work: u32) {
    if PENDING.fetch_or(work, Ordering::AcqRel) & work != work {
        QUEUE.wake_one();
    }
}

/// Starts the thread. Once, at boot.
pub(crate) fn start() {
    let mut started = STARTED.lock();
    if !core::mem::replace(&mut *started, true) {
        drop(started);
        sched::thread::spawn_kernel("net", run);
    }
}

fn run() {
    loop {
        let work = QUEUE.wait_until(Sleep::Uninterruptible, None, || {
            let work = PENDING.swap(0, Ordering::AcqRel);
            (work != 0).then_some(work)
        });
        let work = work.unwrap_or(0);
        if work & FRAMES != 0 {
            link::poll();
        }
        if work & ALARMS != 0 {
            alarm::work_off(sched::time::now());
        }
        if work & BACKLOGS != 0 {
            backlog::run_deferred();
        }
        backlog::run();
        sched::preempt_point();
    }
}
