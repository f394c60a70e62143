//! Taking submissions: checks, chains, drains.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use ipc::io_uring::abi::{Sqe, SqeFlags};

use super::operation;
use super::request::Request;
use super::ring::Ring;
use super::run;
use super::workers::Workers;
use crate::context::Context;

/// A chain that is being put together.
#[derive(Default)]
struct Chain {
    requests: Vec<Arc<Request>>,
    /// The first that can't be issued, and why.
    failed: Option<(usize, Errno)>,
}

/// Takes up to `count` submissions; how many. `EAGAIN` where memory ended before the first, `EBUSY`.
pub(super) fn submit(cx: &mut Context, ring: &Arc<Ring>, count: u32) -> Result<usize> {
    let workers = Workers::of(cx.task);
    let _submitting = ring.submission.lock();
    let head = ring.head.load(Ordering::Relaxed);
    let count = count.min(ring.rings.submitted(head));
    let all = ring.flags.contains(ipc::io_uring::abi::Setup::SUBMIT_ALL);
    let mut chain = Chain::default();
    let mut taken = 0;
    while taken < count {
        let sqe = ring.rings.take(head.wrapping_add(taken));
        ring.head.store(head.wrapping_add(taken + 1), Ordering::Relaxed);
        let Some(sqe) = sqe else {
            // Linux counts neither it nor those after it.
            ring.rings.set_sq_head(head.wrapping_add(taken + 1));
            issue_chain(cx, ring, core::mem::take(&mut chain));
            return Ok(taken as usize);
        };
        taken += 1;
        let good = match one(cx, ring, &workers, &mut chain, sqe) {
            Ok(good) => good,
            Err(error) => {
                ring.head.store(head.wrapping_add(taken - 1), Ordering::Relaxed);
                ring.rings.set_sq_head(head.wrapping_add(taken - 1));
                issue_chain(cx, ring, chain);
                return if taken > 1 { Ok(taken as usize - 1) } else { Err(error) };
            }
        };
        if !good && !all {
            break;
        }
    }
    ring.rings.set_sq_head(head.wrapping_add(taken));
    issue_chain(cx, ring, chain);
    Ok(taken as usize)
}

/// Takes one submission; false if it is not one that can be issued. `EAGAIN`.
fn one(cx: &mut Context, ring: &Arc<Ring>, workers: &Arc<Workers>, chain: &mut Chain, sqe: Sqe) -> Result<bool> {
    workers.add(ring).map_err(|_| Errno::EAGAIN)?;
    let flags = SqeFlags::from_bits_truncate(sqe.flags);
    let personality = ring.resources.lock().personalities.get(&sqe.personality).cloned();
    let cred = personality.clone().unwrap_or_else(|| cx.task.cred());
    let number = ring.next_number.fetch_add(1, Ordering::Relaxed);
    let parts = (ring.clone(), workers.clone());
    let request = Request::new(parts, number, cx.task, cred, sqe, flags);
    ring.live.lock().insert((sqe.user_data, number), request.clone());
    ring.begun.fetch_add(1, Ordering::SeqCst);
    let checked = if sqe.personality != 0 && personality.is_none() {
        Err(Errno::EINVAL)
    } else {
        check(ring, &sqe, chain).and_then(|()| prepare(cx, &request))
    };
    chain.requests.push(request.clone());
    if let Err(error) = checked
        && chain.failed.is_none()
    {
        chain.failed = Some((chain.requests.len() - 1, error));
    }
    if !flags.intersects(SqeFlags::IO_LINK | SqeFlags::IO_HARDLINK) {
        issue_chain(cx, ring, core::mem::take(chain));
    }
    Ok(checked.is_ok())
}

/// The checks that do not depend on the operation. `EINVAL`, `EOPNOTSUPP`, `EACCES`.
fn check(ring: &Ring, sqe: &Sqe, chain: &Chain) -> Result<()> {
    if sqe.opcode >= ipc::io_uring::abi::op::COUNT {
        return Err(Errno::EINVAL);
    }
    let flags = SqeFlags::from_bits(sqe.flags).ok_or(Errno::EINVAL)?;
    let operation = operation::of(sqe.opcode);
    if flags.contains(SqeFlags::BUFFER_SELECT) && !operation.selects_buffers {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags.contains(SqeFlags::CQE_SKIP_SUCCESS) {
        ring.skips.store(true, Ordering::Relaxed);
    }
    if flags.contains(SqeFlags::IO_DRAIN) && ring.skips.load(Ordering::Relaxed) {
        return Err(Errno::EOPNOTSUPP);
    }
    if ring.restricted.load(Ordering::Relaxed) {
        let restrictions = ring.resources.lock().restrictions.unwrap_or_default();
        let allowed = restrictions.operations & 1 << sqe.opcode != 0
            && sqe.flags & restrictions.flags_required == restrictions.flags_required
            && sqe.flags & !(restrictions.flags_allowed | restrictions.flags_required) == 0;
        if !allowed {
            return Err(Errno::EACCES);
        }
    }
    if !operation.has_priority && sqe.ioprio != 0 {
        return Err(Errno::EINVAL);
    }
    if ring.flags.contains(ipc::io_uring::abi::Setup::IOPOLL) && !operation.can_poll_device {
        return Err(Errno::EINVAL);
    }
    let limits = sqe.opcode == ipc::io_uring::abi::op::LINK_TIMEOUT;
    let after_timeout = chain.requests.last().is_some_and(|r| r.sqe.opcode == ipc::io_uring::abi::op::LINK_TIMEOUT);
    if limits && (chain.requests.is_empty() || after_timeout) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn prepare(cx: &mut Context, request: &Arc<Request>) -> Result<()> {
    let mut body = request.body.lock();
    (operation::of(request.sqe.opcode).prepare)(cx, request, &mut body)
}

/// Begins a chain (or a request alone): now, or when those before it have drained.
fn issue_chain(cx: &mut Context, ring: &Arc<Ring>, chain: Chain) {
    let Chain { requests, failed } = chain;
    let Some(head) = requests.first().cloned() else { return };
    if let Some((at, error)) = failed {
        let silent = head.has(SqeFlags::CQE_SKIP_SUCCESS);
        for (index, request) in requests.iter().enumerate() {
            request.silent.store(silent && index > 0, Ordering::Relaxed);
            run::abandon(request, if index == at { error } else { Errno::ECANCELED });
        }
        return;
    }
    for pair in requests.windows(2) {
        *pair[0].next.lock() = Some(pair[1].clone());
    }
    let count = requests.len();
    // A drain in a chain holds for the whole of it: what comes before it and what comes after are kept apart.
    let drained_chain = count > 1 && requests.iter().any(|request| request.has(SqeFlags::IO_DRAIN));
    let after_chain = ring.drains_next.swap(drained_chain, Ordering::SeqCst);
    let drains = drained_chain || after_chain || head.has(SqeFlags::IO_DRAIN);
    let mut drained = ring.drained.lock();
    if drains || !drained.is_empty() {
        if drained.try_reserve(1).is_err() {
            drop(drained);
            return run::fail_chain(head, Errno::ENOMEM, false);
        }
        // What waits does not keep others from draining.
        ring.begun.fetch_sub(count, Ordering::SeqCst);
        drained.push_back(head);
        drop(drained);
        if !ring.defers() {
            let _ = Workers::of(cx.task).need_service(cx.task);
        }
        return release(ring);
    }
    drop(drained);
    run::begin(cx, &head);
}

fn chain_length(head: &Arc<Request>) -> usize {
    let (mut count, mut at) = (1, head.next.lock().clone());
    while let Some(request) = at {
        count += 1;
        at = request.next.lock().clone();
    }
    count
}

/// A request has completed.
pub(super) fn ended(ring: &Arc<Ring>) {
    ring.begun.fetch_sub(1, Ordering::SeqCst);
    ring.ended.fetch_add(1, Ordering::SeqCst);
    if ring.syncs.load(Ordering::SeqCst) > 0 {
        ring.completions.waiters.wake_all();
    }
    if !ring.drained.lock().is_empty() {
        release(ring);
    }
}

/// Lets go on what waited for others to drain.
fn release(ring: &Arc<Ring>) {
    loop {
        let mut drained = ring.drained.lock();
        // What came after one that drains waits for all before it as well.
        if ring.begun.load(Ordering::SeqCst) != 0 {
            return;
        }
        let Some(head) = drained.pop_front() else { return };
        ring.begun.fetch_add(chain_length(&head), Ordering::SeqCst);
        drop(drained);
        head.wake();
    }
}

/// Takes a chain out of those that wait to drain, to be cancelled; true if it was there.
pub(super) fn take_drained(ring: &Ring, request: &Arc<Request>) -> bool {
    let mut drained = ring.drained.lock();
    let at = drained.iter().position(|head| Arc::ptr_eq(head, request));
    let taken = at.and_then(|at| drained.remove(at));
    if let Some(head) = &taken {
        ring.begun.fetch_add(chain_length(head), Ordering::SeqCst);
    }
    drop(drained);
    taken.is_some()
}
