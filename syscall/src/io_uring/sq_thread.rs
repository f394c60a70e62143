//! The thread that submits for a program (IORING_SETUP_SQPOLL).

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Nanos, Result};
use ipc::io_uring::abi::{Params, Setup};
use ipc::io_uring::rings::sq_flag;
use sched::{Sleep, WaitQueue};

use super::cancel;
use super::ring::Ring;
use super::submit;
use super::workers::Workers;
use crate::context::Context;

/// How long it looks for submissions in vain before it sleeps, unless the program says (`HZ` ticks, one second).
const IDLE: Nanos = 1_000_000_000;

/// The thread.
pub(super) struct SqThread {
    workers: Arc<Workers>,
    wanted: WaitQueue,
    awake: AtomicBool,
    ending: AtomicBool,
    ended: AtomicBool,
    gone: WaitQueue,
    /// Woken when it has taken submissions.
    pub(super) taken: WaitQueue,
}

/// Starts the thread of a ring. `ENOMEM`.
pub(super) fn start(cx: &Context, ring: &Arc<Ring>, params: &Params) -> Result<()> {
    let idle = if params.sq_thread_idle == 0 { IDLE } else { Nanos::from(params.sq_thread_idle) * 1_000_000 };
    let workers = Workers::of(cx.task);
    let thread = Arc::new(SqThread {
        workers: workers.clone(),
        wanted: WaitQueue::new(),
        awake: AtomicBool::new(true),
        ending: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        gone: WaitQueue::new(),
        taken: WaitQueue::new(),
    });
    *ring.sq_thread.lock() = Some(thread.clone());
    let affinity = ring.flags.contains(Setup::SQ_AFF).then_some(1u64 << params.sq_thread_cpu);
    let (weak, me) = (Arc::downgrade(ring), thread);
    workers.spawn(cx.task, b"iou-sqp", move |task, regs| {
        if let Some(mask) = affinity {
            sched::current().set_affinity(mask);
        }
        me.run(&mut Context { task, regs }, &weak, idle);
        me.ended.store(true, Ordering::SeqCst);
        me.gone.wake_all();
        me.taken.wake_all();
    })
}

impl SqThread {
    fn run(&self, cx: &mut Context, ring: &Weak<Ring>, idle: Nanos) {
        let mut since = sched::time::now();
        while !self.ending.load(Ordering::SeqCst) {
            let Some(ring) = ring.upgrade() else { return };
            let waits = ring.rings.submitted(ring.head.load(Ordering::Relaxed));
            if waits > 0 && !ring.disabled.load(Ordering::SeqCst) {
                // What can't be taken for want of memory is tried again.
                let _ = submit::submit(cx, &ring, u32::MAX);
                self.taken.wake_all();
                if ring.closed.load(Ordering::SeqCst) {
                    // It was closed meanwhile: what came too late for that ends as the rest has.
                    cancel::close(&ring);
                }
                since = sched::time::now();
            } else if sched::time::now() < since.saturating_add(idle) {
                drop(ring);
                sched::yield_now();
                core::hint::spin_loop();
            } else {
                self.sleep(&ring);
                since = sched::time::now();
            }
        }
    }

    /// Sleeps until it is told that there are submissions.
    fn sleep(&self, ring: &Arc<Ring>) {
        self.awake.store(false, Ordering::SeqCst);
        ring.rings.change_sq_flags(sq_flag::NEED_WAKEUP, 0);
        let wanted = || {
            let waits = ring.rings.submitted(ring.head.load(Ordering::Relaxed)) > 0;
            let awake = self.awake.load(Ordering::SeqCst) || self.ending.load(Ordering::SeqCst);
            (awake || waits && !ring.disabled.load(Ordering::SeqCst)).then_some(())
        };
        let _ = self.wanted.wait_until(Sleep::Uninterruptible, None, wanted);
        ring.rings.change_sq_flags(0, sq_flag::NEED_WAKEUP);
    }

    /// There are submissions.
    pub(super) fn wake(&self) {
        self.awake.store(true, Ordering::SeqCst);
        self.wanted.wake_all();
    }

    /// Does it belong to that process?
    pub(super) fn works_for(&self, workers: &Arc<Workers>) -> bool {
        Arc::ptr_eq(&self.workers, workers)
    }

    /// Has it ended?
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Makes it end.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.wanted.wake_all();
    }
}
