//! The thread that submits for a program (IORING_SETUP_SQPOLL).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;
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

/// The thread. Rings may share one (IORING_SETUP_ATTACH_WQ).
pub(super) struct SqThread {
    workers: Arc<Workers>,
    rings: SpinLock<Vec<Weak<Ring>>>,
    /// The longest that any of its rings asks for.
    idle: AtomicU64,
    wanted: WaitQueue,
    awake: AtomicBool,
    ending: AtomicBool,
    ended: AtomicBool,
    gone: WaitQueue,
    /// Woken when it has taken submissions.
    pub(super) taken: WaitQueue,
}

/// Starts the thread of a ring, or has that of `other` work for it too: one of the same process. `ENOMEM`, `EINVAL` where `other` has none.
pub(super) fn start(cx: &Context, ring: &Arc<Ring>, params: &Params, other: Option<&Ring>) -> Result<()> {
    let idle = if params.sq_thread_idle == 0 { IDLE } else { Nanos::from(params.sq_thread_idle) * 1_000_000 };
    let workers = Workers::of(cx.task);
    let shared = match other {
        Some(other) => Some(other.sq_thread.lock().clone().ok_or(Errno::EINVAL)?),
        None => None,
    };
    if let Some(thread) = shared.filter(|thread| thread.works_for(&workers) && !thread.has_ended()) {
        return thread.attach(ring, idle);
    }
    let thread = Arc::new(SqThread {
        workers: workers.clone(),
        rings: SpinLock::new(Vec::new()),
        idle: AtomicU64::new(idle),
        wanted: WaitQueue::new(),
        awake: AtomicBool::new(true),
        ending: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        gone: WaitQueue::new(),
        taken: WaitQueue::new(),
    });
    thread.attach(ring, idle)?;
    let affinity = ring.flags.contains(Setup::SQ_AFF).then_some(1u64 << params.sq_thread_cpu);
    workers.spawn(cx.task, b"iou-sqp", move |task, regs| {
        if let Some(mask) = affinity {
            sched::current().set_affinity(mask);
        }
        thread.run(&mut Context { task, regs });
        thread.ended.store(true, Ordering::SeqCst);
        thread.gone.wake_all();
        thread.taken.wake_all();
    })
}

impl SqThread {
    /// Works for one more ring.
    fn attach(self: &Arc<SqThread>, ring: &Arc<Ring>, idle: Nanos) -> Result<()> {
        let mut rings = self.rings.lock();
        rings.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        rings.push(Arc::downgrade(ring));
        drop(rings);
        self.idle.fetch_max(idle, Ordering::Relaxed);
        *ring.sq_thread.lock() = Some(self.clone());
        self.wake();
        Ok(())
    }

    /// A ring is closed: the thread ends with the last.
    pub(super) fn detach(&self, ring: &Ring) {
        let mut rings = self.rings.lock();
        let others = |other: &Weak<Ring>| !Weak::ptr_eq(other, &ring.me) && other.strong_count() > 0;
        let left: Vec<_> = rings.extract_if(.., |other| !others(other)).collect();
        let none = rings.is_empty();
        drop(rings);
        drop(left);
        if none {
            self.end();
        }
    }

    /// Its rings, none of which is held while another is looked at.
    fn rings(&self) -> impl Iterator<Item = Arc<Ring>> {
        (0..).map_while(|index| self.rings.lock().get(index).map(Weak::upgrade)).flatten()
    }

    fn run(&self, cx: &mut Context) {
        let mut since = sched::time::now();
        while !self.ending.load(Ordering::SeqCst) {
            let taken = self.rings().filter(|ring| self.take(cx, ring)).count();
            if taken > 0 {
                self.taken.wake_all();
                since = sched::time::now();
            } else if sched::time::now() < since.saturating_add(self.idle.load(Ordering::Relaxed)) {
                sched::yield_now();
                core::hint::spin_loop();
            } else {
                self.sleep();
                since = sched::time::now();
            }
        }
    }

    /// Takes a ring's submissions; false if there are none.
    fn take(&self, cx: &mut Context, ring: &Arc<Ring>) -> bool {
        if !waits(ring) {
            return false;
        }
        // What can't be taken for want of memory is tried again.
        let _ = submit::submit(cx, ring, u32::MAX);
        if ring.closed.load(Ordering::SeqCst) {
            // It was closed meanwhile: what came too late for that ends as the rest has.
            cancel::close(ring);
        }
        true
    }

    /// Sleeps until it is told that there are submissions.
    fn sleep(&self) {
        self.awake.store(false, Ordering::SeqCst);
        self.rings().for_each(|ring| ring.rings.change_sq_flags(sq_flag::NEED_WAKEUP, 0));
        let wanted = || {
            let awake = self.awake.load(Ordering::SeqCst) || self.ending.load(Ordering::SeqCst);
            (awake || self.rings().any(|ring| waits(&ring))).then_some(())
        };
        let _ = self.wanted.wait_until(Sleep::Uninterruptible, None, wanted);
        self.rings().for_each(|ring| ring.rings.change_sq_flags(0, sq_flag::NEED_WAKEUP));
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

/// Has the ring submissions to be taken?
fn waits(ring: &Arc<Ring>) -> bool {
    ring.rings.submitted(ring.head.load(Ordering::Relaxed)) > 0 && !ring.disabled.load(Ordering::SeqCst)
}
