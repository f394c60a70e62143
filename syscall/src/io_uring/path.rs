//! Operations that are like system calls on names, descriptors and memory: they use the bodies of those.

use alloc::sync::Arc;

use base::{Errno, Result};
use hal::user::UserBuf;
use ipc::io_uring::abi::{SqeFlags, op};

use super::notice;
use super::operation::zero;
use super::request::{Body, Request};
use super::ring::Ring;
use super::run::{Mode, Step};
use crate::args::Args;
use crate::context::Context;
use crate::table::Handler;
use crate::{directory, epoll as epoll_calls, futex, lifecycle, memory, metadata, open as open_calls, xattr};

/// A call with these arguments.
fn call(cx: &mut Context, handler: Handler, args: [u64; 6]) -> Step {
    Step::Done(handler(cx, Args(args.map(|arg| arg as usize))))
}

/// A descriptor argument.
fn fd(value: i32) -> u64 {
    value as i64 as u64
}

/// Names are relative to descriptors, never to registered files. `EBADF`.
fn no_fixed_file(request: &Request) -> Result<()> {
    if request.has(SqeFlags::FIXED_FILE) { Err(Errno::EBADF) } else { Ok(()) }
}

pub(super) fn prepare_open(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let sqe = &request.sqe;
    zero([sqe.buf_index.into()])?;
    no_fixed_file(request)?;
    let flags = if sqe.opcode == op::OPENAT { sqe.op_flags } else { 0 };
    if sqe.file_index != 0 && flags & O_CLOEXEC != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn open(cx: &mut Context, request: &Arc<Request>, _: &mut Body, mode: Mode) -> Step {
    let sqe = &request.sqe;
    let opened = match sqe.opcode {
        op::OPENAT => open_calls::opened(cx, sqe.fd, sqe.addr as usize, sqe.op_flags, sqe.len, mode == Mode::Now),
        _ => open_calls::opened_how(
            cx,
            sqe.fd,
            sqe.addr as usize,
            sqe.off as usize,
            sqe.len as usize,
            (sqe.file_index != 0, mode == Mode::Now),
        ),
    };
    match opened {
        // The other end of a FIFO has to be waited for.
        Err(Errno::EAGAIN) if mode == Mode::Now => Step::Block,
        result => {
            Step::Done(result.and_then(|(open, close_on_exec)| notice::install(cx, request, open, close_on_exec)))
        }
    }
}

pub(super) fn prepare_close(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.addr, sqe.len.into(), sqe.op_flags.into(), sqe.buf_index.into()])?;
    no_fixed_file(request)?;
    if sqe.file_index != 0 && sqe.fd != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn close(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    if sqe.file_index != 0 {
        return Step::Done(notice::clear_slot(&request.ring, sqe.file_index as usize - 1).map(|()| 0));
    }
    let files = cx.task.files();
    Step::Done(files.get_any(sqe.fd).and_then(|open| {
        if Ring::of(&open).is_ok() {
            return Err(Errno::EBADF);
        }
        drop(open);
        files.close(sqe.fd).map(|()| 0)
    }))
}

pub(super) fn prepare_statx(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    zero([request.sqe.buf_index.into(), request.sqe.file_index.into()])?;
    no_fixed_file(request)
}

pub(super) fn statx(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, metadata::statx, [fd(sqe.fd), sqe.addr, sqe.op_flags.into(), sqe.len.into(), sqe.off, 0])
}

pub(super) fn prepare_rename(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    zero([request.sqe.buf_index.into(), request.sqe.file_index.into()])?;
    no_fixed_file(request)
}

pub(super) fn rename(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, directory::renameat2, [fd(sqe.fd), sqe.addr, fd(sqe.len as i32), sqe.off, sqe.op_flags.into(), 0])
}

pub(super) fn prepare_unlink(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.len.into(), sqe.buf_index.into(), sqe.file_index.into()])?;
    no_fixed_file(request)?;
    zero([u64::from(sqe.op_flags & !0x200)])
}

pub(super) fn unlink(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, directory::unlinkat, [fd(sqe.fd), sqe.addr, sqe.op_flags.into(), 0, 0, 0])
}

pub(super) fn prepare_mkdir(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.op_flags.into(), sqe.buf_index.into(), sqe.file_index.into()])?;
    no_fixed_file(request)
}

pub(super) fn mkdir(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, directory::mkdirat, [fd(sqe.fd), sqe.addr, sqe.len.into(), 0, 0, 0])
}

pub(super) fn prepare_symlink(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.len.into(), sqe.op_flags.into(), sqe.buf_index.into(), sqe.file_index.into()])?;
    no_fixed_file(request)
}

pub(super) fn symlink(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, directory::symlinkat, [sqe.addr, fd(sqe.fd), sqe.off, 0, 0, 0])
}

pub(super) fn prepare_link(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    zero([request.sqe.buf_index.into(), request.sqe.file_index.into()])?;
    no_fixed_file(request)
}

pub(super) fn link(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, directory::linkat, [fd(sqe.fd), sqe.addr, fd(sqe.len as i32), sqe.off, sqe.op_flags.into(), 0])
}

pub(super) fn prepare_xattr(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    if matches!(sqe.opcode, op::GETXATTR | op::FGETXATTR) && sqe.op_flags != 0 {
        return Err(Errno::EINVAL);
    }
    if matches!(sqe.opcode, op::GETXATTR | op::SETXATTR) { no_fixed_file(request) } else { Ok(()) }
}

pub(super) fn set_xattr(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, xattr::setxattr, [sqe.addr3, sqe.addr, sqe.off, sqe.len.into(), sqe.op_flags.into(), 0])
}

pub(super) fn get_xattr(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, xattr::getxattr, [sqe.addr3, sqe.addr, sqe.off, sqe.len.into(), 0, 0])
}

/// As [`set_xattr`], of a file that is open: through a descriptor that it has for the time of the call.
pub(super) fn set_file_xattr(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let args = [0, sqe.addr, sqe.off, sqe.len.into(), sqe.op_flags.into(), 0];
    Step::Done(with_file(body).and_then(|path| xattr::set_of(cx, &path, Args(args.map(|arg| arg as usize)))))
}

pub(super) fn get_file_xattr(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let args = [0, sqe.addr, sqe.off, sqe.len.into(), 0, 0];
    Step::Done(with_file(body).and_then(|path| xattr::get_of(cx, &path, Args(args.map(|arg| arg as usize)))))
}

fn with_file(body: &Body) -> Result<fs::Path> {
    body.file.as_ref().map(|file| file.open().path().clone()).ok_or(Errno::EBADF)
}

pub(super) fn prepare_epoll(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    zero([request.sqe.buf_index.into(), request.sqe.file_index.into()])
}

pub(super) fn epoll(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, epoll_calls::epoll_ctl, [fd(sqe.fd), sqe.len.into(), sqe.off, sqe.addr, 0, 0])
}

pub(super) fn prepare_madvise(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.off, sqe.file_index.into()])
}

pub(super) fn madvise(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, memory::madvise, [sqe.addr, sqe.len.into(), sqe.op_flags.into(), 0, 0, 0])
}

pub(super) fn prepare_waitid(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.addr, sqe.buf_index.into(), sqe.addr3, sqe.op_flags.into()])
}

pub(super) fn waitid(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, lifecycle::waitid, [sqe.len.into(), fd(sqe.fd), sqe.off, sqe.file_index.into(), 0, 0])
}

/// FUTEX2_SIZE_U32 and FUTEX2_PRIVATE.
const FUTEX2_U32: u32 = 2;
const FUTEX2_PRIVATE: u32 = 128;

pub(super) fn prepare_futex(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.len.into(), sqe.op_flags.into(), sqe.buf_index.into(), sqe.file_index.into()])?;
    let flags = sqe.fd as u32;
    if flags & !(FUTEX2_U32 | FUTEX2_PRIVATE) != 0 || flags & FUTEX2_U32 == 0 {
        return Err(Errno::EINVAL);
    }
    let fits = |value: u64| u32::try_from(value).map(drop).map_err(|_| Errno::EINVAL);
    fits(sqe.addr3)?;
    if sqe.opcode == op::FUTEX_WAIT { fits(sqe.off) } else { Ok(()) }
}

const FUTEX_WAIT_BITSET: u64 = 9;
const FUTEX_WAKE_BITSET: u64 = 10;

/// The operation for futex(2), with the flag for private ones.
fn futex_operation(request: &Request, operation: u64) -> u64 {
    operation | u64::from(request.sqe.fd as u32 & FUTEX2_PRIVATE)
}

pub(super) fn futex_wait(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let operation = futex_operation(request, FUTEX_WAIT_BITSET);
    call(cx, futex::futex, [sqe.addr, operation, sqe.off, 0, 0, sqe.addr3])
}

pub(super) fn futex_wake(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    if sqe.off == 0 {
        return Step::Done(Ok(0));
    }
    let operation = futex_operation(request, FUTEX_WAKE_BITSET);
    let count = sqe.off.min(i32::MAX as u64);
    call(cx, futex::futex, [sqe.addr, operation, count, 0, 0, sqe.addr3])
}

pub(super) fn prepare_futex_many(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.fd as u32 as u64, sqe.buf_index.into(), sqe.file_index.into(), sqe.off, sqe.op_flags.into(), sqe.addr3])?;
    let fits = UserBuf::new(sqe.addr as usize, 24 * sqe.len as usize).in_user_half();
    if sqe.len == 0 || sqe.len > 128 || !fits { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn futex_wait_many(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    call(cx, futex::futex_waitv, [sqe.addr, sqe.len.into(), 0, 0, 0, 0])
}
