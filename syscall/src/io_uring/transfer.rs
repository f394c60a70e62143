//! Operations that move data of files: read, write, fsync, fallocate, splice.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, Result};
use fs::{FileKind, OpenFile, OpenFlags};
use hal::user::UserBuf;
use ipc::io_uring::abi::{Cqe, Setup, SqeFlags, cqe_flag};
use ipc::io_uring::buffers::Taken;
use ipc::pipe;
use mm::{Sink, Source};

use super::operation::zero;
use super::request::{Body, Prepared, Request};
use super::run::{self, Mode, Step, or_done};
use crate::args::Args;
use crate::context::Context;
use crate::scheduling::check_io_priority;
use crate::transfer::{buffer, buffers, raise_pipe, with_rwf, write_source};

pub(super) fn prepare(cx: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    check_io_priority(cx.task, request.sqe.ioprio.into())?;
    let sqe = &request.sqe;
    if request.has(SqeFlags::BUFFER_SELECT) {
        return Ok(());
    }
    body.keep(buffer(sqe.addr as usize, sqe.len as usize).map(|one| Prepared::Buffers(alloc::vec![one])));
    Ok(())
}

pub(super) fn prepare_vector(cx: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    check_io_priority(cx.task, request.sqe.ioprio.into())?;
    let sqe = &request.sqe;
    if request.has(SqeFlags::BUFFER_SELECT) && sqe.len != 1 {
        return Err(Errno::EINVAL);
    }
    body.keep(buffers(sqe.addr as usize, sqe.len as usize).map(Prepared::Buffers));
    Ok(())
}

pub(super) fn prepare_fixed(cx: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    check_io_priority(cx.task, request.sqe.ioprio.into())?;
    let part = registered(request, body);
    body.keep(part.map(|one| Prepared::Buffers(alloc::vec![one])));
    Ok(())
}

/// The part of a registered buffer that a request names. `EFAULT`.
pub(super) fn registered(request: &Request, body: &mut Body) -> Result<UserBuf> {
    use_registered(request, body)?;
    within(body, request.sqe.addr, request.sqe.len)
}

/// Takes hold of the registered buffer that a request names. `EFAULT`.
fn use_registered(request: &Request, body: &mut Body) -> Result<()> {
    let resources = request.ring.resources.lock();
    let index = usize::from(request.sqe.buf_index);
    let found = resources.buffers.as_ref().and_then(|buffers| buffers.get(index));
    body.buffer = Some(found.ok_or(Errno::EFAULT)?);
    Ok(())
}

/// A part of that registered buffer. `EFAULT`.
fn within(body: &Body, addr: u64, len: u32) -> Result<UserBuf> {
    let whole = body.buffer.as_ref().ok_or(Errno::EFAULT)?.value;
    let (start, end) = (whole.addr as u64, (whole.addr + whole.len) as u64);
    let inside = addr >= start && addr.checked_add(len.into()).is_some_and(|at| at <= end);
    if inside { Ok(UserBuf::new(addr as usize, len as usize)) } else { Err(Errno::EFAULT) }
}

/// Takes a provided buffer for a request that asks for that, unless it has one; at most `len` bytes of it. `ENOBUFS`.
pub(super) fn select(request: &Request, body: &mut Body, len: usize) -> Result<Option<UserBuf>> {
    if !request.has(SqeFlags::BUFFER_SELECT) {
        return Ok(None);
    }
    if let Some((taken, _)) = &body.taken {
        return Ok(Some(taken.buffer));
    }
    let whole = request.ring.resources.lock().groups.take(request.sqe.buf_index, 0)?;
    let cut = if len == 0 { whole.buffer } else { UserBuf::new(whole.buffer.addr, whole.buffer.len.min(len)) };
    buffer(cut.addr, cut.len)?;
    body.taken = Some((Taken { buffer: cut, id: whole.id }, whole.buffer));
    Ok(Some(cut))
}

/// Gives a provided buffer back that was not used.
pub(super) fn unselect(request: &Request, body: &mut Body) {
    if let Some((taken, whole)) = body.taken.take() {
        request.ring.resources.lock().groups.give_back(request.sqe.buf_index, taken, whole);
    }
}

fn open_file(body: &Body) -> Result<Arc<OpenFile>> {
    body.file.as_ref().map(|file| file.open().clone()).ok_or(Errno::EBADF)
}

/// Where a transfer is to be; `None` for streams and for the file's own position.
fn position(open: &OpenFile, off: u64) -> Result<Option<u64>> {
    match off as i64 {
        _ if !open.file().positioned() => Ok(None),
        -1 => Ok(None),
        at => u64::try_from(at).map(Some).map_err(|_| Errno::EINVAL),
    }
}

/// The flags of the transfer, and whether `EAGAIN` is the program's to see.
fn transfer_flags(request: &Request, open: &OpenFile, mode: Mode) -> Result<(OpenFlags, bool)> {
    const RWF_NOWAIT: u32 = 8;
    if request.ring.flags.contains(Setup::IOPOLL) {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = with_rwf(open, request.sqe.op_flags)?;
    // O_NONBLOCK counts only where the file can't do without it: pipes and sockets wait all the same.
    let device = open.inode().kind() == FileKind::CharDevice;
    let told = device && flags.contains(OpenFlags::NONBLOCK) || request.sqe.op_flags & RWF_NOWAIT != 0;
    let pollable = open.inode().kind() != FileKind::Regular && open.file().pollable();
    let now = mode == Mode::Now && pollable;
    Ok((if now { flags | OpenFlags::NONBLOCK } else { flags }, told || !pollable))
}

/// A result, or a wait where the file was not ready.
fn ended(result: Result<usize>, told: bool, events: Events, wanted: usize) -> Step {
    match result {
        Err(Errno::EAGAIN) if !told => Step::Wait(events),
        // A chain breaks at a transfer that fell short.
        _ => Step::Ended { failed: result != Ok(wanted), result },
    }
}

pub(super) fn read(_: &mut Context, request: &Arc<Request>, body: &mut Body, mode: Mode) -> Step {
    or_done(read_now(request, body, mode))
}

fn read_now(request: &Request, body: &mut Body, mode: Mode) -> Result<Step> {
    let open = open_file(body)?;
    let (flags, told) = transfer_flags(request, &open, mode)?;
    let limit = match &body.prepared {
        Prepared::Buffers(list) => list.first().map_or(0, |buffer| buffer.len),
        _ => request.sqe.len as usize,
    };
    let selected = select(request, body, limit)?;
    let one = selected.map(|buffer| [buffer]);
    let list: &[UserBuf] = match (&one, &body.prepared) {
        (Some(one), _) => one,
        (None, Prepared::Buffers(list)) => list,
        _ => &[],
    };
    let mut sink = Sink::user(list);
    let wanted = sink.remaining();
    let result = match position(&open, request.sqe.off)? {
        Some(at) => open.read_at_with(at, &mut sink, flags),
        None => open.read_with(&mut sink, flags),
    };
    if !matches!(result, Ok(1..)) && selected.is_some() {
        let keeps = matches!(result, Ok(0));
        if !keeps {
            unselect(request, body);
        }
    }
    Ok(ended(result, told, Events::READABLE | Events::RDHUP, wanted))
}

pub(super) fn write(cx: &mut Context, request: &Arc<Request>, body: &mut Body, mode: Mode) -> Step {
    or_done(write_now(cx, request, body, mode))
}

fn write_now(cx: &mut Context, request: &Request, body: &mut Body, mode: Mode) -> Result<Step> {
    let open = open_file(body)?;
    if !open.access().contains(fs::Access::WRITE) {
        return Err(Errno::EBADF);
    }
    let (flags, told) = transfer_flags(request, &open, mode)?;
    let Prepared::Buffers(list) = &body.prepared else { return Err(Errno::EFAULT) };
    let mut source = Source::user(list);
    let wanted = source.remaining();
    let at = position(&open, request.sqe.off)?;
    let result = write_source(cx, &open, at, &mut source, flags);
    Ok(ended(result, told, Events::WRITABLE, wanted))
}

pub(super) fn prepare_multishot(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    if !request.has(SqeFlags::BUFFER_SELECT) || sqe.len != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

pub(super) fn read_multishot(_: &mut Context, request: &Arc<Request>, body: &mut Body, mode: Mode) -> Step {
    match body.file.as_ref().map(|file| file.open().file().pollable()) {
        Some(true) => {}
        _ => return Step::Done(Err(Errno::EBADF)),
    }
    loop {
        match read_now(request, body, mode) {
            Ok(Step::Ended { result: Ok(n @ 1..), .. }) if request.ring.completions.has_room(&request.ring.rings) => {
                post_selected(request, body, n, 0);
            }
            Ok(Step::Done(result) | Step::Ended { result, .. }) => {
                return Step::Ended { failed: !matches!(result, Ok(1..)), result };
            }
            Ok(step) => return step,
            Err(error) => return Step::Done(Err(error)),
        }
    }
}

/// Tells of a part of a multishot request that used a provided buffer; more is to come.
pub(super) fn post_selected(request: &Request, body: &mut Body, len: usize, flags: u32) {
    let buffer = body.taken.take();
    let buffer = buffer.map_or(0, |(t, _)| cqe_flag::BUFFER | u32::from(t.id) << cqe_flag::BUFFER_SHIFT);
    let cqe = Cqe {
        user_data: request.user_data(),
        result: run::code(Ok(len)),
        flags: flags | buffer | cqe_flag::MORE,
        extra: [0; 2],
    };
    request.ring.post(cqe, false);
}

pub(super) fn prepare_sync(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.addr, sqe.buf_index.into(), sqe.file_index.into(), u64::from(sqe.op_flags & !1)])
}

pub(super) fn sync(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    Step::Done(open_file(body).and_then(|open| {
        let end = sqe.off.saturating_add(sqe.len.into());
        match sqe.op_flags & 1 != 0 {
            true if sqe.len != 0 => open.file().sync_range(sqe.off, end),
            true => open.file().sync_data(),
            false => open.file().sync(),
        }
        .map(|()| 0)
    }))
}

pub(super) fn prepare_sync_range(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.addr, sqe.buf_index.into(), sqe.file_index.into()])
}

pub(super) fn sync_range(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let args = Args([0, sqe.off as usize, sqe.len as usize, sqe.op_flags as usize, 0, 0]);
    Step::Done(open_file(body).and_then(|open| crate::fcntl::sync_range_of(&open, args)))
}

pub(super) fn prepare_allocate(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.buf_index.into(), sqe.op_flags.into(), sqe.file_index.into()])
}

pub(super) fn allocate(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let args = Args([0, sqe.len as usize, sqe.off as usize, sqe.addr as usize, 0, 0]);
    Step::Done(open_file(body).and_then(|open| crate::fcntl::allocate_in(cx, &open, args)))
}

pub(super) fn prepare_advise(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.addr, sqe.buf_index.into(), sqe.file_index.into()])
}

pub(super) fn advise(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let args = Args([0, sqe.off as usize, sqe.len as usize, sqe.op_flags as usize, 0, 0]);
    Step::Done(open_file(body).and_then(|open| crate::fcntl::advise_on(&open, args)))
}

/// SPLICE_F_FD_IN_FIXED.
const IN_FIXED: u32 = 1 << 31;

pub(super) fn prepare_splice(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    if request.sqe.op_flags & !(15 | IN_FIXED) != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn prepare_tee(cx: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    zero([request.sqe.off, request.sqe.addr])?;
    prepare_splice(cx, request, body)
}

pub(super) fn splice(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let wanted = request.sqe.len as usize;
    let result = splice_now(cx, request, body);
    Step::Ended { failed: result != Ok(wanted), result }
}

fn splice_now(cx: &mut Context, request: &Request, body: &Body) -> Result<usize> {
    let sqe = &request.sqe;
    let to = open_file(body)?;
    let number = sqe.file_index as i32;
    let from = if sqe.op_flags & IN_FIXED != 0 {
        request.ring.registered_file(number)?.value.clone()
    } else {
        cx.task.files().get(number)?
    };
    if sqe.len == 0 {
        return Ok(0);
    }
    let offset = |value: u64| (value as i64 != -1).then_some(value);
    let (from_at, to_at) = (offset(sqe.addr), offset(sqe.off));
    if sqe.opcode == ipc::io_uring::abi::op::TEE {
        return crate::transfer::tee_between(cx, &from, &to, sqe.len as usize, sqe.op_flags & 15);
    }
    let ends = pipe::PipeEnds::of(&from, &to);
    if ends.from.is_some() && from_at.is_some() || ends.to.is_some() && to_at.is_some() {
        return Err(Errno::ESPIPE);
    }
    let result =
        crate::transfer::splice_between(cx, (&from, from_at), (&to, to_at), sqe.len as usize, sqe.op_flags & 15);
    raise_pipe(cx.task, result.map(|(moved, _, _)| moved))
}

/// Reads the buffers of a message. `EFAULT`, `EINVAL`.
pub(super) fn message_buffers(at: usize, count: usize) -> Result<Vec<UserBuf>> {
    if count > crate::transfer::MAX_BUFFERS {
        return Err(Errno::EMSGSIZE);
    }
    buffers(at, count)
}
