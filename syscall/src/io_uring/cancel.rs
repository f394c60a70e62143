//! Cancelling.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};

use super::operation::zero;
use super::request::{Body, Request, Stage};
use super::ring::Ring;
use super::run::{self, Mode, Step};
use super::submit;
use super::workers::Workers;
use crate::context::Context;

/// IORING_ASYNC_CANCEL_*.
pub(super) const ALL: u32 = 1;
pub(super) const FD: u32 = 2;
pub(super) const ANY: u32 = 4;
pub(super) const FD_FIXED: u32 = 8;
pub(super) const USER_DATA: u32 = 16;
pub(super) const OP: u32 = 32;

/// What is to be cancelled.
pub(super) struct Wanted {
    pub(super) flags: u32,
    pub(super) user_data: u64,
    pub(super) fd: i32,
    pub(super) opcode: u8,
}

pub(super) fn prepare(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.file_index.into()])?;
    check_flags(sqe.op_flags)?;
    if sqe.op_flags & OP == 0 && sqe.len != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// `EINVAL` for flags that are unknown or don't go together.
pub(super) fn check_flags(flags: u32) -> Result<()> {
    let unknown = flags & !(ALL | FD | ANY | FD_FIXED | USER_DATA | OP) != 0;
    if unknown || flags & FD != 0 && flags & ANY != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn issue(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let mut flags = sqe.op_flags;
    if request.has(ipc::io_uring::abi::SqeFlags::FIXED_FILE) {
        flags |= FD_FIXED;
    }
    let wanted = Wanted { flags, user_data: sqe.addr, fd: sqe.fd, opcode: sqe.len as u8 };
    Step::Done(cancel_wanted(cx, &request.ring, &wanted, Some(request)))
}

/// Cancels what matches; how many with ALL or ANY, else 0. `ENOENT`, `EALREADY`, `EBADF`.
pub(super) fn cancel_wanted(
    cx: &Context,
    ring: &Arc<Ring>,
    wanted: &Wanted,
    by: Option<&Arc<Request>>,
) -> Result<usize> {
    let file = match wanted.flags & FD != 0 {
        true if wanted.flags & FD_FIXED != 0 => Some(ring.registered_file(wanted.fd)?.value.clone()),
        true => Some(cx.task.files().get(wanted.fd)?),
        false => None,
    };
    let matches = |other: &Request| {
        if wanted.flags & ANY != 0 {
            return true;
        }
        let of_file = match &file {
            Some(file) => {
                let body = other.body.try_lock();
                body.is_some_and(|body| body.file.as_ref().is_some_and(|own| Arc::ptr_eq(own.open(), file)))
            }
            None => true,
        };
        let by_data = wanted.flags & USER_DATA != 0 || wanted.flags & (FD | OP) == 0;
        of_file
            && (!by_data || other.user_data() == wanted.user_data)
            && (wanted.flags & OP == 0 || other.sqe.opcode == wanted.opcode)
    };
    if let (Some(by), 0) = (by, wanted.flags) {
        // The plain case: no need to look at more than the first that fits.
        let target = find(ring, by, wanted.user_data, |_| true).ok_or(Errno::ENOENT)?;
        return cancel(&target).map(|()| 0);
    }
    let many = wanted.flags & (ALL | ANY) != 0;
    let mut count = 0;
    let mut outcome = Err(Errno::ENOENT);
    for target in candidates(ring, by).iter().filter(|target| matches(target)) {
        let result = cancel(target);
        if !many {
            return result.map(|()| 0);
        }
        match result {
            Ok(()) => count += 1,
            Err(error) => outcome = Err(error),
        }
    }
    if many && (count > 0 || outcome == Err(Errno::ENOENT)) { Ok(count) } else { outcome }
}

/// Requests that wait or that workers have, oldest first; not `by` itself.
fn candidates(ring: &Ring, by: Option<&Arc<Request>>) -> Vec<Arc<Request>> {
    let live = ring.live.lock();
    let is_other = |request: &&Arc<Request>| by.is_none_or(|by| !Arc::ptr_eq(by, request));
    let running = |request: &&Arc<Request>| matches!(request.stage(), Stage::Waiting | Stage::Worker);
    let mut found: Vec<_> = live.values().filter(is_other).filter(running).cloned().collect();
    drop(live);
    found.sort_unstable_by_key(|request| request.number);
    found
}

/// The first such request of that name which waits or which a worker has; not `by` itself.
pub(super) fn find(
    ring: &Ring,
    by: &Arc<Request>,
    user_data: u64,
    is: impl Fn(&Request) -> bool,
) -> Option<Arc<Request>> {
    let live = ring.live.lock();
    let running = |request: &&Arc<Request>| matches!(request.stage(), Stage::Waiting | Stage::Worker);
    let named = live.range((user_data, 0)..=(user_data, u64::MAX)).map(|(_, request)| request);
    named.filter(running).find(|request| is(request) && !Arc::ptr_eq(by, request)).cloned()
}

/// Cancels a request that waits, or that a worker has. `EALREADY` where it is being carried on, and may complete all the same.
pub(super) fn cancel(target: &Arc<Request>) -> Result<()> {
    target.cancelled.store(true, Ordering::SeqCst);
    if target.stage() == Stage::Worker {
        if target.workers.take_back(target) {
            run::abandon(target, Errno::ECANCELED);
            return Ok(());
        }
        let worker = target.worker.lock();
        if let Some(thread) = worker.as_ref().and_then(|worker| worker.thread()) {
            thread.interrupt();
        }
        return Err(Errno::EALREADY);
    }
    let Some(body) = target.body.try_lock() else { return Err(Errno::EALREADY) };
    match target.stage() {
        Stage::Waiting => {
            run::finish(target, body, Err(Errno::ECANCELED), true);
            Ok(())
        }
        Stage::Done => Err(Errno::ENOENT),
        _ => Err(Errno::EALREADY),
    }
}

/// A process ends: its requests on the ring do, but for those that outlive it.
pub(super) fn cancel_of(ring: &Arc<Ring>, workers: &Arc<Workers>, outlives: impl Fn(&Request) -> bool) {
    end(ring, |request| Arc::ptr_eq(&request.workers, workers) && !outlives(request), true);
}

/// A thread ends: its requests that are about rings do.
pub(super) fn cancel_circular(ring: &Arc<Ring>, workers: &Arc<Workers>, owner: usize) {
    let is_circular = |request: &Arc<Request>| {
        let own = Arc::ptr_eq(&request.workers, workers) && request.owner == owner;
        let about_ring = |body: &Body| body.file.as_ref().is_some_and(|file| Ring::of(file.open()).is_ok());
        own && request.body.try_lock().is_some_and(|body| about_ring(&body))
    };
    end(ring, is_circular, false);
}

/// The ring is closed: all its requests end.
pub(super) fn close(ring: &Arc<Ring>) {
    end(ring, |_| true, false);
    while let Some(request) = ring.deferred.pop() {
        request.hook.unqueued();
    }
}

/// Cancels requests, and with `force` also ends what nobody is left to carry on.
fn end(ring: &Arc<Ring>, which: impl Fn(&Arc<Request>) -> bool, force: bool) {
    // Ending one may begin another that waited for it: that is cancelled in its turn.
    for _ in 0..8 {
        let requests: Vec<_> = ring.live.lock().values().filter(|request| which(request)).cloned().collect();
        if requests.is_empty() {
            return;
        }
        for request in &requests {
            request.cancelled.store(true, Ordering::SeqCst);
        }
        for request in &requests {
            if submit::take_drained(ring, request) {
                run::fail_chain(request.clone(), Errno::ECANCELED, false);
            } else if cancel(request).is_err() && (force || request.ring.defers()) && request.stage() == Stage::Issuing
            {
                run::abandon(request, Errno::ECANCELED);
            }
        }
    }
}
