//! Operations on rings themselves: registered files, provided buffers, messages to other rings.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use fs::{Fd, OpenFile};
use hal::user::{UserBuf, UserPtr};
use ipc::io_uring::abi::{Cqe, SqeFlags};
use ipc::io_uring::resources::Resource;

use super::operation::zero;
use super::request::{Body, Request};
use super::ring::{Ring, Tags};
use super::run::{Mode, Step};
use crate::context::Context;

/// IORING_FILE_INDEX_ALLOC: any free slot.
pub(super) const ALLOCATE: u32 = u32::MAX;

/// Gives a new file a descriptor, or the slot that the request names: the number, or 0 for a slot that was named. `EMFILE`, `ENXIO`,
/// `EINVAL`, `ENFILE`.
pub(super) fn install(cx: &Context, request: &Request, open: Arc<OpenFile>, close_on_exec: bool) -> Result<usize> {
    match request.sqe.file_index {
        0 => crate::open::install(cx.task, open, close_on_exec),
        ALLOCATE => register_anywhere(&request.ring, open),
        slot => set_slot(&request.ring, slot as usize - 1, Some(open), 0).map(|()| 0),
    }
}

/// Puts a file into any free slot: which. `ENFILE`, `EBADF` for rings.
pub(super) fn register_anywhere(ring: &Arc<Ring>, open: Arc<OpenFile>) -> Result<usize> {
    if Ring::of(&open).is_ok() {
        return Err(Errno::EBADF);
    }
    let mut resources = ring.resources.lock();
    let files = resources.files.as_mut().ok_or(Errno::ENFILE)?;
    let index = files.free()?;
    let new = Resource::new(open, 0, Arc::new(Tags(ring.me.clone())));
    let old = files.set(index, Some(new));
    drop(resources);
    old.map(|_| index)
}

/// Puts a file, or nothing, into a slot. `ENXIO`, `EINVAL`, `EBADF`.
pub(super) fn set_slot(ring: &Arc<Ring>, index: usize, open: Option<Arc<OpenFile>>, tag: u64) -> Result<()> {
    if open.as_ref().is_some_and(|open| Ring::of(open).is_ok()) {
        return Err(Errno::EBADF);
    }
    let mut resources = ring.resources.lock();
    let files = resources.files.as_mut().ok_or(Errno::ENXIO)?;
    let new = open.map(|open| Resource::new(open, tag, Arc::new(Tags(ring.me.clone()))));
    let old = files.set(index, new);
    drop(resources);
    old.map(drop)
}

/// Closes the file in a slot. `ENXIO`, `EINVAL`, `EBADF`.
pub(super) fn clear_slot(ring: &Arc<Ring>, index: usize) -> Result<()> {
    let mut resources = ring.resources.lock();
    let files = resources.files.as_mut().ok_or(Errno::ENXIO)?;
    if index >= files.len() {
        return Err(Errno::EINVAL);
    }
    let old = files.set(index, None)?;
    drop(resources);
    old.map(drop).ok_or(Errno::EBADF)
}

pub(super) fn prepare_files_update(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.op_flags.into(), sqe.file_index.into(), u64::from(sqe.len == 0)])?;
    let wrong = request.flags.intersects(SqeFlags::FIXED_FILE | SqeFlags::BUFFER_SELECT);
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn files_update(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    if sqe.off as u32 != ALLOCATE {
        let update = super::register::Update { offset: sqe.off as u32, fds: sqe.addr, tags: 0, count: sqe.len };
        return Step::Done(super::register::update_files(cx, &request.ring, &update));
    }
    Step::Done(files_allocate(cx, request))
}

fn files_allocate(cx: &Context, request: &Request) -> Result<usize> {
    if request.ring.resources.lock().files.is_none() {
        return Err(Errno::ENXIO);
    }
    let numbers = UserPtr::<Fd>::new(request.sqe.addr as usize);
    for done in 0..request.sqe.len as usize {
        let one = || {
            let open = cx.task.files().get(numbers.at(done).read()?)?;
            let index = register_anywhere(&request.ring, open)?;
            numbers.at(done).write(&(index as Fd)).inspect_err(|_| {
                let _ = clear_slot(&request.ring, index);
            })
        };
        if let Err(error) = one() {
            return if done > 0 { Ok(done) } else { Err(error) };
        }
    }
    Ok(request.sqe.len as usize)
}

pub(super) fn prepare_provide(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.op_flags.into(), sqe.file_index.into()])?;
    let count = u64::try_from(sqe.fd).ok().filter(|&n| n > 0 && n <= 0xffff).ok_or(Errno::E2BIG)?;
    let size = count * u64::from(sqe.len);
    let end = sqe.addr.checked_add(size).ok_or(Errno::EOVERFLOW)?;
    if !UserBuf::new(sqe.addr as usize, (end - sqe.addr) as usize).in_user_half() {
        return Err(Errno::EFAULT);
    }
    if sqe.off > 0xffff {
        return Err(Errno::E2BIG);
    }
    zero([u64::from(sqe.len == 0), u64::from(sqe.off + count > 0x1_0000)])
}

pub(super) fn provide(_: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let mut resources = request.ring.resources.lock();
    let (len, count) = (sqe.len as usize, sqe.fd as usize);
    Step::Done(resources.groups.provide(sqe.buf_index, sqe.addr as usize, len, count, sqe.off as u16).map(|()| 0))
}

pub(super) fn prepare_remove(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.op_flags.into(), sqe.addr, sqe.len.into(), sqe.off, sqe.file_index.into()])?;
    if sqe.fd <= 0 || sqe.fd > 0xffff { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn remove(_: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    Step::Done(request.ring.resources.lock().groups.remove(sqe.buf_index, sqe.fd as usize))
}

/// What IORING_OP_MSG_RING sends.
const SEND_DATA: u64 = 0;
const SEND_FD: u64 = 1;
/// Flags: no completion on the other ring; the completion's flags are given.
const CQE_SKIP: u32 = 1;
const FLAGS_PASS: u32 = 2;

pub(super) fn prepare_message(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.personality.into(), u64::from(sqe.op_flags & !(CQE_SKIP | FLAGS_PASS))])
}

pub(super) fn message(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    Step::Done(message_now(request, body).map(|()| 0))
}

fn message_now(request: &Arc<Request>, body: &Body) -> Result<()> {
    let sqe = &request.sqe;
    let file = body.file.as_ref().ok_or(Errno::EBADF)?;
    let target = Ring::of(file.open()).map_err(|_| Errno::EBADFD)?;
    if target.disabled.load(Ordering::Relaxed) {
        return Err(Errno::EBADFD);
    }
    let pass = sqe.op_flags & FLAGS_PASS != 0;
    let cqe = Cqe {
        user_data: sqe.off,
        result: sqe.len as i32,
        flags: if pass { sqe.file_index } else { 0 },
        ..Cqe::default()
    };
    match sqe.addr {
        SEND_DATA if sqe.addr3 != 0 || sqe.op_flags & CQE_SKIP != 0 || !pass && sqe.file_index != 0 => {
            Err(Errno::EINVAL)
        }
        SEND_DATA => {
            target.post(cqe, false);
            Ok(())
        }
        SEND_FD if sqe.len != 0 || Arc::ptr_eq(&target, &request.ring) => Err(Errno::EINVAL),
        SEND_FD => {
            let from = request.ring.resources.lock().files.as_ref().and_then(|files| files.get(sqe.addr3 as usize));
            let open = from.ok_or(Errno::EBADF)?.value.clone();
            let number = match sqe.file_index {
                0 => return Err(Errno::EINVAL),
                ALLOCATE => register_anywhere(&target, open)?,
                slot => set_slot(&target, slot as usize - 1, Some(open), 0).map(|()| 0)?,
            };
            if sqe.op_flags & CQE_SKIP == 0 {
                target.post(Cqe { result: number as i32, flags: 0, ..cqe }, false);
            }
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    }
}

/// IORING_OP_URING_CMD: no file here has commands of its own.
pub(super) fn command(_: &mut Context, _: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    Step::Done(Err(Errno::EOPNOTSUPP))
}
