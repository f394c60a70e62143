//! Polling: once, many times, changed and removed.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::PollTable;
use ipc::io_uring::abi::{Cqe, SqeFlags, cqe_flag, op};

use super::cancel;
use super::operation::zero;
use super::request::{Body, Request, Stage};
use super::run::{Mode, Step};
use crate::context::Context;

/// Flags in `len`.
const MULTI: u32 = 1;
const UPDATE_EVENTS: u32 = 2;
const UPDATE_USER_DATA: u32 = 4;
const LEVEL: u32 = 8;

fn events(bits: u32) -> Events {
    Events::from_bits_truncate(bits & 0xffff) | Events::ALWAYS
}

pub(super) fn prepare(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.off, sqe.addr, u64::from(sqe.len & !(MULTI | LEVEL))])?;
    if sqe.len & MULTI != 0 && request.has(SqeFlags::CQE_SKIP_SUCCESS) {
        return Err(Errno::EINVAL);
    }
    body.events = events(sqe.op_flags);
    Ok(())
}

pub(super) fn issue(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let Some(file) = &body.file else { return Step::Done(Err(Errno::EBADF)) };
    let wanted = body.events;
    // What it was woken for counts even if somebody has taken it meanwhile.
    let told = Events::from_bits_retain(request.told.swap(0, Ordering::SeqCst));
    let ready = (file.open().poll(&mut PollTable::ask()) | told) & wanted;
    if request.sqe.len & MULTI == 0 {
        return if ready.is_empty() { Step::Wait(wanted) } else { Step::Done(Ok(ready.bits() as usize)) };
    }
    let armed = body.table.as_ref().is_some_and(|(_, events)| *events == wanted);
    if !armed {
        // The look that counts is the one after the hooks are in place.
        request.woken.store(true, Ordering::SeqCst);
        return Step::WaitNews(wanted);
    }
    if !ready.is_empty() && body.news {
        if !request.ring.completions.has_room(&request.ring.rings) {
            return Step::Done(Ok(ready.bits() as usize));
        }
        let cqe = Cqe {
            user_data: request.user_data(),
            result: ready.bits() as i32,
            flags: cqe_flag::MORE,
            ..Cqe::default()
        };
        request.ring.post(cqe, false);
    }
    Step::WaitNews(wanted)
}

pub(super) fn prepare_remove(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.file_index.into()])?;
    zero([u64::from(sqe.len & !(MULTI | UPDATE_EVENTS | UPDATE_USER_DATA))])?;
    if sqe.len == MULTI {
        return Err(Errno::EINVAL);
    }
    if sqe.len & UPDATE_USER_DATA == 0 && sqe.off != 0 || sqe.len & UPDATE_EVENTS == 0 && sqe.op_flags != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

pub(super) fn remove(_: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    Step::Done(remove_now(request).map(|()| 0))
}

fn remove_now(request: &Arc<Request>) -> Result<()> {
    let sqe = &request.sqe;
    let is = |other: &Request| other.sqe.opcode == op::POLL_ADD;
    let target = cancel::find(&request.ring, request, sqe.addr, is).ok_or(Errno::ENOENT)?;
    if sqe.len & (UPDATE_EVENTS | UPDATE_USER_DATA) == 0 {
        return cancel::cancel(&target);
    }
    let mut body = target.body.try_lock().ok_or(Errno::EALREADY)?;
    if target.stage() != Stage::Waiting {
        return Err(Errno::EALREADY);
    }
    if sqe.len & UPDATE_EVENTS != 0 {
        body.events = events(sqe.op_flags);
    }
    if sqe.len & UPDATE_USER_DATA != 0 {
        target.rename(sqe.off);
    }
    body.again = false;
    drop(body.table.take());
    drop(body);
    // Whoever carries it on puts the hooks in for the new events.
    target.wake();
    Ok(())
}
