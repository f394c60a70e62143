//! io_uring_enter(2).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Nanos, Result};
use fs::OpenFile;
use hal::user::UserPtr;
use ipc::io_uring::abi::Setup;
use process::signal::{SigSet, with_temporary_mask};
use sched::{Notify, Sleep, SleepEnd, Thread};

use super::ring::Ring;
use super::run::{self, address};
use super::submit;
use super::workers::Workers;
use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timespec;

const GETEVENTS: u32 = 1;
const SQ_WAKEUP: u32 = 2;
const SQ_WAIT: u32 = 4;
const EXT_ARG: u32 = 8;
const REGISTERED_RING: u32 = 16;

/// Wakes the thread that waits for completions.
struct Waiter(Arc<Thread>);

impl Notify for Waiter {
    fn notify(&self, _: Events) -> bool {
        self.0.wake();
        true
    }
}

/// The signal mask and the timeout of a call. `EINVAL`, `EFAULT`.
fn extra(a: Args, flags: u32) -> Result<(Option<SigSet>, Option<Nanos>)> {
    let mask = |at: u64, size: u64| match at {
        0 => Ok(None),
        _ if size != 8 => Err(Errno::EINVAL),
        at => UserPtr::<u64>::new(at as usize).read().map(|bits| Some(SigSet(bits))),
    };
    if flags & EXT_ARG == 0 {
        return Ok((mask(a.0[4] as u64, a.0[5] as u64)?, None));
    }
    // `struct io_uring_getevents_arg`: mask, its size and padding, timeout.
    if a.size(5) != 24 {
        return Err(Errno::EINVAL);
    }
    let [bits, size, time] = UserPtr::<[u64; 3]>::new(a.0[4]).read()?;
    if size >> 32 != 0 {
        return Err(Errno::EINVAL);
    }
    let timeout = match time {
        0 => None,
        at => {
            let time = UserPtr::<Timespec>::new(at as usize).read()?.to_nanos()?;
            Some(sched::time::now().saturating_add(time))
        }
    };
    Ok((mask(bits, size & 0xffff_ffff)?, timeout))
}

/// The ring, and the file that keeps it from being closed meanwhile. `EBADF`, `EOPNOTSUPP`.
fn ring_of(cx: &Context, a: Args, flags: u32) -> Result<(Arc<Ring>, Arc<OpenFile>)> {
    let open = match flags & REGISTERED_RING != 0 {
        true => super::register::registered_ring(cx, a.uint(0)).ok_or(Errno::EBADF)?,
        false => cx.task.files().get(a.fd(0))?,
    };
    Ok((Ring::of(&open)?, open))
}

pub(crate) fn io_uring_enter(cx: &mut Context, a: Args) -> Result<usize> {
    let (count, wanted, flags) = (a.uint(1), a.uint(2), a.uint(3));
    if flags & !(GETEVENTS | SQ_WAKEUP | SQ_WAIT | EXT_ARG | REGISTERED_RING) != 0 {
        return Err(Errno::EINVAL);
    }
    let (ring, _open) = ring_of(cx, a, flags)?;
    if ring.disabled.load(Ordering::SeqCst) {
        return Err(Errno::EBADFD);
    }
    if ring.flags.contains(Setup::SQPOLL) {
        poll_thread(&ring, flags)?;
        return finish(cx, a, &ring, wanted, flags, count as usize);
    }
    if count > 0 || ring.defers() && flags & GETEVENTS != 0 {
        let issuer = ring.issuer.load(Ordering::Relaxed);
        if issuer != 0 && issuer != address(cx.task) {
            return Err(Errno::EEXIST);
        }
    }
    let workers = Workers::of(cx.task);
    workers.enter();
    let submitted = if count > 0 { submit::submit(cx, &ring, count) } else { Ok(0) };
    let result = match submitted {
        Ok(submitted) if submitted as u32 != count => Ok(submitted),
        Ok(submitted) => finish(cx, a, &ring, wanted, flags, submitted),
        error => error,
    };
    workers.leave(cx);
    result
}

/// What a ring with a thread that submits needs of the call. `EOWNERDEAD` where that thread has ended.
fn poll_thread(ring: &Ring, flags: u32) -> Result<()> {
    let thread = ring.sq_thread.lock().clone().filter(|thread| !thread.has_ended()).ok_or(Errno::EOWNERDEAD)?;
    ring.completions.flush(&ring.rings);
    if flags & SQ_WAKEUP != 0 {
        thread.wake();
    }
    if flags & SQ_WAIT != 0 {
        let room = || {
            let full = ring.rings.submitted(ring.head.load(Ordering::Relaxed)) >= ring.rings.sq_entries();
            (!full || thread.has_ended()).then_some(())
        };
        let _ = thread.taken.wait_until(Sleep::Interruptible, None, room);
    }
    Ok(())
}

/// Waits for completions if the call asks for that; what the call returns.
fn finish(cx: &mut Context, a: Args, ring: &Arc<Ring>, wanted: u32, flags: u32, submitted: usize) -> Result<usize> {
    if flags & GETEVENTS == 0 {
        return Ok(submitted);
    }
    let waited = extra(a, flags).and_then(|(mask, deadline)| {
        let wanted = wanted.min(ring.rings.cq_entries());
        let task = cx.task;
        with_temporary_mask(task, mask, || wait(cx, ring, wanted, deadline))
    });
    match waited {
        Ok(()) => Ok(submitted),
        Err(_) if submitted > 0 => Ok(submitted),
        Err(error) => Err(error),
    }
}

/// Carries on what is ready to be, on this ring and others of the process.
fn run_ready(cx: &mut Context, ring: &Ring, workers: &Workers) {
    if !ring.deferred.is_empty() {
        ring.rings.change_sq_flags(0, ring.taskrun_flag());
        while let Some(request) = ring.deferred.pop() {
            request.hook.unqueued();
            run::carry_on(cx, &request);
        }
    }
    workers.run_all(cx);
    ring.completions.flush(&ring.rings);
}

/// Waits until the program can read `wanted` completions. `ETIME`, `EINTR`.
fn wait(cx: &mut Context, ring: &Arc<Ring>, wanted: u32, deadline: Option<Nanos>) -> Result<()> {
    let workers = Workers::of(cx.task);
    // A timeout ends any wait.
    let timeouts = ring.timeouts.load(Ordering::SeqCst);
    let enough = || ring.completions.ready(&ring.rings) >= wanted || ring.timeouts.load(Ordering::SeqCst) != timeouts;
    run_ready(cx, ring, &workers);
    if enough() {
        return Ok(());
    }
    workers.enter();
    let thread = sched::current();
    let waiter: Arc<dyn Notify> = Arc::new(Waiter(thread.clone()));
    let queues = [&*ring.completions.waiters, &workers.entered_wait, &ring.deferred_wait];
    for queue in queues {
        queue.register(waiter.clone(), false);
    }
    let result = loop {
        run_ready(cx, ring, &workers);
        if enough() {
            break Ok(());
        }
        if thread.interrupted() {
            break Err(Errno::EINTR);
        }
        thread.prepare_to_sleep(Sleep::Interruptible);
        if enough() || workers.has_ready() || !ring.deferred.is_empty() {
            thread.cancel_sleep();
            continue;
        }
        if thread.sleep(deadline) == SleepEnd::TimedOut {
            run_ready(cx, ring, &workers);
            break if enough() { Ok(()) } else { Err(Errno::ETIME) };
        }
    };
    for queue in queues {
        queue.unregister(&waiter);
    }
    workers.leave(cx);
    // Some completions are better than an error.
    if result.is_err() && ring.completions.ready(&ring.rings) > 0 { Ok(()) } else { result }
}
