//! Timeouts: by themselves, of the request before them in a chain, changed and removed.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Nanos, Result};
use hal::user::UserPtr;
use ipc::io_uring::abi::{Cqe, cqe_flag, op};

use super::cancel;
use super::operation::zero;
use super::request::{Body, Prepared, Request, Stage};
use super::ring::Ring;
use super::run::{self, Mode, Step};
use crate::context::Context;
use crate::timespec::Timespec;

/// IORING_TIMEOUT_*.
const ABS: u32 = 1;
const UPDATE: u32 = 2;
const BOOTTIME: u32 = 4;
const REALTIME: u32 = 8;
const LINK_UPDATE: u32 = 16;
const ETIME_SUCCESS: u32 = 32;
const MULTISHOT: u32 = 64;

/// A time as the program gave it.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    time: Nanos,
    flags: u32,
    /// From where it counts completions, if it does: it ends early after so many.
    target: Option<(u32, u32)>,
    /// How often a multishot one still fires; 0 for always.
    repeats: u32,
}

impl Setting {
    /// Reads a time. `EINVAL`, `EFAULT`.
    fn read(at: u64, flags: u32) -> Result<Setting> {
        if flags & BOOTTIME != 0 && flags & REALTIME != 0 {
            return Err(Errno::EINVAL);
        }
        let raw = UserPtr::<Timespec>::new(at as usize).read()?;
        // As on Linux, nanoseconds may be more than a second's.
        if raw.sec < 0 || raw.nsec < 0 {
            return Err(Errno::EINVAL);
        }
        let time = (raw.sec as u64).saturating_mul(base::NANOS_PER_SEC).saturating_add(raw.nsec as u64);
        Ok(Setting { time, flags, target: None, repeats: 0 })
    }

    /// When it ends, on the monotonic clock, if it begins now.
    fn deadline(&self) -> Nanos {
        let now = sched::time::now();
        match (self.flags & ABS != 0, self.flags & REALTIME != 0) {
            (false, _) => now.saturating_add(self.time),
            (true, false) => self.time,
            (true, true) => now.saturating_add(self.time.saturating_sub(sched::time::realtime())),
        }
    }
}

fn setting(body: &Body) -> Result<Setting> {
    match body.prepared {
        Prepared::Timeout(setting) => Ok(setting),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn prepare(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.file_index.into(), u64::from(sqe.len != 1)])?;
    let flags = sqe.op_flags;
    zero([u64::from(flags & !(ABS | BOOTTIME | REALTIME | ETIME_SUCCESS | MULTISHOT))])?;
    if flags & MULTISHOT != 0 && flags & ABS != 0 {
        return Err(Errno::EINVAL);
    }
    let repeats = if flags & MULTISHOT != 0 { sqe.off as u32 } else { 0 };
    body.prepared = Prepared::Timeout(Setting { repeats, ..Setting::read(sqe.addr, flags)? });
    Ok(())
}

/// The sequence of completions that timeouts count.
fn sequence(ring: &Ring) -> u32 {
    ring.completions.tail().wrapping_sub(ring.timeouts.load(Ordering::SeqCst))
}

fn reached(ring: &Ring, target: Option<(u32, u32)>) -> bool {
    target.is_some_and(|(from, count)| sequence(ring).wrapping_sub(from) >= count)
}

pub(super) fn issue(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let Ok(mut setting) = setting(body) else { return Step::Done(Err(Errno::EINVAL)) };
    let ring = &request.ring;
    if !body.again {
        if setting.flags & MULTISHOT == 0 && request.sqe.off != 0 {
            setting.target = Some((sequence(ring), request.sqe.off as u32));
            let mut counted = ring.counted.lock();
            if counted.try_reserve(1).is_err() {
                return Step::Done(Err(Errno::ENOMEM));
            }
            counted.push(request.clone());
        }
        body.prepared = Prepared::Timeout(setting);
        request.arm_timer(body, setting.deadline());
        return Step::Armed;
    }
    if reached(ring, setting.target) {
        return Step::Done(Ok(0));
    }
    if !request.expired.swap(false, Ordering::SeqCst) {
        return Step::Armed;
    }
    if setting.flags & MULTISHOT != 0 && setting.repeats != 1 && ring.completions.has_room(&ring.rings) {
        let cqe = Cqe {
            user_data: request.user_data(),
            result: -Errno::ETIME.code(),
            flags: cqe_flag::MORE,
            ..Cqe::default()
        };
        ring.post(cqe, false);
        setting.repeats = setting.repeats.saturating_sub(1);
        body.prepared = Prepared::Timeout(setting);
        request.arm_timer(body, setting.deadline());
        return Step::Armed;
    }
    Step::Ended { result: Err(Errno::ETIME), failed: setting.flags & ETIME_SUCCESS == 0 }
}

/// A completion was posted: ends the timeouts that waited for so many.
pub(super) fn count(ring: &Ring) {
    let mut counted = ring.counted.lock();
    if counted.is_empty() {
        return;
    }
    let done = counted.extract_if(.., |request| request.stage() == Stage::Done).collect::<alloc::vec::Vec<_>>();
    for request in counted.iter() {
        // Who carries it on tests whether its number has come.
        request.wake();
    }
    drop(counted);
    drop(done);
}

pub(super) fn prepare_remove(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.len.into(), sqe.file_index.into()])?;
    let flags = sqe.op_flags;
    if flags & (UPDATE | LINK_UPDATE) == 0 {
        return zero([flags.into()]);
    }
    zero([u64::from(flags & !(UPDATE | LINK_UPDATE | ABS | BOOTTIME | REALTIME))])?;
    body.prepared = Prepared::Timeout(Setting::read(sqe.off, flags)?);
    Ok(())
}

pub(super) fn remove(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    Step::Done(remove_now(request, body).map(|()| 0))
}

fn remove_now(request: &Arc<Request>, body: &Body) -> Result<()> {
    let sqe = &request.sqe;
    let opcode = if sqe.op_flags & LINK_UPDATE != 0 { op::LINK_TIMEOUT } else { op::TIMEOUT };
    let is = |other: &Request| other.sqe.opcode == opcode;
    let target = cancel::find(&request.ring, request, sqe.addr, is).ok_or(Errno::ENOENT)?;
    if sqe.op_flags & (UPDATE | LINK_UPDATE) == 0 {
        return cancel::cancel(&target);
    }
    let new = setting(body)?;
    let mut changed = target.body.try_lock().ok_or(Errno::EALREADY)?;
    if target.stage() != Stage::Waiting || target.expired.load(Ordering::SeqCst) {
        return Err(Errno::EALREADY);
    }
    if let Prepared::Timeout(old) = &mut changed.prepared {
        old.time = new.time;
        old.flags = old.flags & (ETIME_SUCCESS | MULTISHOT) | new.flags & (ABS | REALTIME | BOOTTIME);
    }
    target.arm_timer(&mut changed, new.deadline());
    Ok(())
}

pub(super) fn prepare_link(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.file_index.into(), u64::from(sqe.len != 1), sqe.off])?;
    zero([u64::from(sqe.op_flags & !(ABS | BOOTTIME | REALTIME | ETIME_SUCCESS))])?;
    body.prepared = Prepared::Timeout(Setting::read(sqe.addr, sqe.op_flags)?);
    Ok(())
}

/// A request begins: a link timeout right after it starts to count.
pub(super) fn arm_linked(cx: &Context, request: &Arc<Request>) {
    let next = request.next.lock().clone();
    let Some(timeout) = next.filter(|next| next.sqe.opcode == op::LINK_TIMEOUT) else { return };
    if !request.ring.defers() && request.workers.need_service(cx.task).is_err() {
        return;
    }
    let mut body = timeout.body.lock();
    if body.again {
        return;
    }
    let Ok(setting) = setting(&body) else { return };
    body.again = true;
    *timeout.limits.lock() = Some(request.clone());
    timeout.set_stage(Stage::Waiting);
    timeout.arm_timer(&mut body, setting.deadline());
}

/// A link timeout that has run out: cancels what it limits, unless that has completed.
pub(super) fn issue_link(_: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    if !request.expired.load(Ordering::SeqCst) {
        return Step::Armed;
    }
    let limited = request.limits.lock().take();
    let Some(limited) = limited else { return Step::Armed };
    {
        let mut next = limited.next.lock();
        if !next.as_ref().is_some_and(|next| Arc::ptr_eq(next, request)) {
            // It has completed: whoever sees to that ends this.
            return Step::Armed;
        }
        let after = request.next.lock().take();
        *next = after;
    }
    let result = cancel::cancel(&limited).and(Err(Errno::ETIME));
    Step::Ended { result, failed: false }
}

/// What follows a request that has completed: without the timeout that limited it, which ends.
pub(super) fn unlink(next: Option<Arc<Request>>, _of: &Request) -> Option<Arc<Request>> {
    let next = next?;
    if next.sqe.opcode != op::LINK_TIMEOUT {
        return Some(next);
    }
    let after = next.next.lock().take();
    let limited = next.limits.lock().take();
    drop(limited);
    // It did not fail: if it wants to be silent about success, it is.
    let body = next.body.lock();
    run::finish(&next, body, Err(Errno::ECANCELED), false);
    after
}
