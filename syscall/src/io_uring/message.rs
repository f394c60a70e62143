//! Operations on sockets.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::OpenFlags;
use hal::user::{UserBuf, UserPtr};
use ipc::io_uring::abi::{Cqe, SqeFlags, cqe_flag, op};
use mm::{Sink, Source};
use net::{Control, MessageFlags, Outgoing, Shutdown, Socket, socket_of};

use super::operation::zero;
use super::request::{Body, Prepared, Request};
use super::run::{self, Mode, Step, or_done};
use super::transfer::{message_buffers, post_selected, select, unselect};
use super::{notice, transfer};
use crate::context::Context;
use crate::message::{self, RawMessage, read_control, store_received};
use crate::socket::{caller, read_address, store_address};
use crate::transfer::{buffer, raise_pipe};

/// Flags in `ioprio`.
const POLL_FIRST: u16 = 1;
const MULTISHOT: u16 = 2;
const FIXED_BUFFER: u16 = 4;
const REPORT_USAGE: u16 = 8;
const ACCEPT_MULTISHOT: u16 = 1;

fn socket_in(body: &Body) -> Result<Arc<dyn Socket>> {
    let file = body.file.as_ref().ok_or(Errno::EBADF)?;
    socket_of(file.open()).cloned()
}

/// Is `EAGAIN` the program's to see? Only where the request says so: O_NONBLOCK does not count.
fn tells(flags: MessageFlags) -> bool {
    flags.contains(MessageFlags::DONTWAIT)
}

/// Does MSG_WAITALL mean anything there?
fn is_stream(socket: &Arc<dyn Socket>) -> bool {
    matches!(socket.kind(), net::SocketKind::Stream | net::SocketKind::SeqPacket)
}

fn flags_of(request: &Request) -> MessageFlags {
    MessageFlags::from_bits_truncate(request.sqe.op_flags)
}

/// The first time, with IORING_RECVSEND_POLL_FIRST, a request waits before it tries.
fn polls_first(request: &Request, body: &Body) -> bool {
    request.sqe.ioprio & POLL_FIRST != 0 && !body.again
}

/// A message's structure, and its buffers. `EFAULT`, `EINVAL`, `EMSGSIZE`.
fn message_parts(at: u64) -> Result<(RawMessage, Vec<UserBuf>)> {
    let raw = UserPtr::<RawMessage>::new(at as usize).read()?;
    let list = message_buffers(raw.iov, raw.iov_len)?;
    Ok((raw, list))
}

pub(super) fn prepare_accept(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.len.into(), sqe.buf_index.into(), u64::from(sqe.ioprio & !ACCEPT_MULTISHOT)])?;
    let flags = OpenFlags::from_bits_retain(sqe.op_flags);
    let multishot = sqe.ioprio & ACCEPT_MULTISHOT != 0;
    let fixed = sqe.file_index != 0;
    let wrong = !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags)
        || fixed && flags.contains(OpenFlags::CLOEXEC)
        || fixed && multishot && sqe.file_index != notice::ALLOCATE;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn accept(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    or_done(accept_now(cx, request, body))
}

fn accept_now(cx: &mut Context, request: &Request, body: &mut Body) -> Result<Step> {
    let sqe = &request.sqe;
    let socket = socket_in(body)?;
    let flags = OpenFlags::from_bits_retain(sqe.op_flags);
    loop {
        let accepted = match socket.accept(true) {
            Ok(accepted) => accepted,
            Err(Errno::EAGAIN) => return Ok(Step::Wait(Events::READABLE)),
            Err(error) => return Err(error),
        };
        if sqe.addr != 0 {
            store_address(&accepted.accepted_name(), sqe.addr as usize, UserPtr::new(sqe.off as usize))?;
        }
        let made = net::open_file(&cx.task.fs_context(), accepted, flags & OpenFlags::NONBLOCK);
        let number = notice::install(cx, request, made, flags.contains(OpenFlags::CLOEXEC))?;
        if sqe.ioprio & ACCEPT_MULTISHOT == 0 || !request.ring.completions.has_room(&request.ring.rings) {
            return Ok(Step::Done(Ok(number)));
        }
        let cqe = Cqe {
            user_data: request.user_data(),
            result: run::code(Ok(number)),
            flags: cqe_flag::MORE,
            ..Cqe::default()
        };
        request.ring.post(cqe, false);
    }
}

pub(super) fn prepare_connect(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.len.into(), sqe.buf_index.into(), sqe.op_flags.into(), sqe.file_index.into()])?;
    let address = read_address(sqe.addr as usize, sqe.off as i32).map(Prepared::Address);
    body.keep(address);
    Ok(())
}

pub(super) fn connect(cx: &mut Context, _: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    or_done(connect_now(cx, body))
}

fn connect_now(cx: &mut Context, body: &mut Body) -> Result<Step> {
    let socket = socket_in(body)?;
    if body.again
        && let Some(error) = socket.take_error()
    {
        return Err(error);
    }
    let Prepared::Address(address) = &body.prepared else { return Err(Errno::EFAULT) };
    match socket.connect(&caller(cx.task), address, true) {
        Err(Errno::EINPROGRESS | Errno::EALREADY | Errno::EAGAIN) => Ok(Step::Wait(Events::WRITABLE)),
        Err(Errno::EISCONN) if body.again => Ok(Step::Done(Ok(0))),
        Err(error) => Err(error),
        Ok(()) => Ok(Step::Done(Ok(0))),
    }
}

pub(super) fn prepare_send(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([u64::from(sqe.ioprio & !POLL_FIRST)])?;
    body.keep(buffer(sqe.addr as usize, sqe.len as usize).map(|one| Prepared::Buffers(alloc::vec![one])));
    keep_address(request, body);
    Ok(())
}

/// The address of a datagram: `addr2` and its length in `file_index`.
fn keep_address(request: &Request, body: &mut Body) {
    let sqe = &request.sqe;
    if sqe.off != 0 {
        match read_address(sqe.off as usize, (sqe.file_index & 0xffff) as i32) {
            Ok(address) => body.address = Some(address),
            Err(error) => body.failed = Some(error),
        }
    }
}

pub(super) fn prepare_send_zero_copy(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.addr3, sqe.pad])?;
    zero([u64::from(sqe.ioprio & !(POLL_FIRST | FIXED_BUFFER | REPORT_USAGE))])?;
    if request.has(SqeFlags::CQE_SKIP_SUCCESS) {
        return Err(Errno::EINVAL);
    }
    keep_address(request, body);
    let whole = match sqe.ioprio & FIXED_BUFFER != 0 {
        true => transfer::registered(request, body),
        false => buffer(sqe.addr as usize, sqe.len as usize),
    };
    body.keep(whole.map(|one| Prepared::Buffers(alloc::vec![one])));
    Ok(())
}

/// Sends; what is short of a stream's MSG_WAITALL waits for room and goes on.
pub(super) fn send(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    or_done(send_now(cx, request, body))
}

fn send_now(cx: &mut Context, request: &Request, body: &mut Body) -> Result<Step> {
    let socket = socket_in(body)?;
    if polls_first(request, body) {
        return Ok(Step::Wait(Events::WRITABLE));
    }
    let Prepared::Buffers(list) = &body.prepared else { return Err(Errno::EFAULT) };
    let whole = list.first().copied().unwrap_or(UserBuf::new(0, 0));
    let rest = [UserBuf::new(whole.addr + body.moved, whole.len - body.moved)];
    let to = body.address.clone();
    let flags = flags_of(request);
    let outgoing = Outgoing { to: to.as_deref(), control: Control::default(), flags: flags | MessageFlags::DONTWAIT };
    let result = socket.send(Some(&caller(cx.task)), &mut Source::user(&rest), outgoing, true);
    Ok(sent(cx, request, body, (&socket, flags), result, whole.len))
}

/// What sending came to.
fn sent(
    cx: &Context,
    request: &Request,
    body: &mut Body,
    (socket, flags): (&Arc<dyn Socket>, MessageFlags),
    result: Result<usize>,
    wanted: usize,
) -> Step {
    let zero_copy = matches!(request.sqe.opcode, op::SEND_ZC | op::SENDMSG_ZC);
    let all = flags.contains(MessageFlags::WAITALL) && is_stream(socket);
    let result = if flags.contains(MessageFlags::NOSIGNAL) { result } else { raise_pipe(cx.task, result) };
    match result {
        Err(Errno::EAGAIN) if !tells(flags) => return Step::Wait(Events::WRITABLE),
        Ok(n) if all && body.moved + n < wanted && n > 0 => {
            body.moved += n;
            return Step::Wait(Events::WRITABLE);
        }
        _ => {}
    }
    let result = match result {
        Ok(n) => Ok(body.moved + n),
        Err(_) if body.moved > 0 => Ok(body.moved),
        error => error,
    };
    let failed = result.is_err() || all && result != Ok(wanted);
    if zero_copy {
        // The bytes were copied, so the buffer is the program's again at once.
        let user_data = request.user_data();
        let first = Cqe { user_data, result: run::code(result), flags: cqe_flag::MORE, ..Cqe::default() };
        request.ring.post(first, false);
        request.cqe_flags.store(cqe_flag::NOTIF, Ordering::Relaxed);
        return Step::Ended { result: Ok(0), failed };
    }
    Step::Ended { result, failed }
}

pub(super) fn prepare_message(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.file_index.into(), u64::from(sqe.ioprio & !POLL_FIRST)])?;
    body.keep(message_parts(sqe.addr).map(|(_, list)| Prepared::Buffers(list)));
    Ok(())
}

pub(super) fn prepare_message_zero_copy(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.file_index.into(), sqe.addr3, sqe.pad])?;
    zero([u64::from(sqe.ioprio & !(POLL_FIRST | REPORT_USAGE))])?;
    if request.has(SqeFlags::CQE_SKIP_SUCCESS) {
        return Err(Errno::EINVAL);
    }
    body.keep(message_parts(sqe.addr).map(|(_, list)| Prepared::Buffers(list)));
    Ok(())
}

pub(super) fn send_message(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    or_done(send_message_now(cx, request, body))
}

fn send_message_now(cx: &mut Context, request: &Request, body: &mut Body) -> Result<Step> {
    let socket = socket_in(body)?;
    if polls_first(request, body) {
        return Ok(Step::Wait(Events::WRITABLE));
    }
    let raw = UserPtr::<RawMessage>::new(request.sqe.addr as usize).read()?;
    let to = message::message_address(&raw)?;
    let control = match body.moved {
        0 => read_control(cx.task, raw.control, if raw.control == 0 { 0 } else { raw.control_len })?,
        _ => Control::default(),
    };
    let Prepared::Buffers(list) = &body.prepared else { return Err(Errno::EFAULT) };
    let wanted: usize = list.iter().map(|buffer| buffer.len).sum();
    let rest = skip(list, body.moved);
    let flags = flags_of(request);
    let outgoing = Outgoing { to: to.as_deref(), control, flags: flags | MessageFlags::DONTWAIT };
    let result = socket.send(Some(&caller(cx.task)), &mut Source::user(&rest), outgoing, true);
    Ok(sent(cx, request, body, (&socket, flags), result, wanted))
}

/// The buffers without their first `moved` bytes.
fn skip(list: &[UserBuf], mut moved: usize) -> Vec<UserBuf> {
    let mut rest = Vec::new();
    for buffer in list {
        let cut = moved.min(buffer.len);
        moved -= cut;
        rest.push(UserBuf::new(buffer.addr + cut, buffer.len - cut));
    }
    rest
}

pub(super) fn prepare_receive(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.file_index.into(), u64::from(sqe.ioprio & !(POLL_FIRST | MULTISHOT))])?;
    check_multishot(request)?;
    if !request.has(SqeFlags::BUFFER_SELECT) {
        body.keep(buffer(sqe.addr as usize, sqe.len as usize).map(|one| Prepared::Buffers(alloc::vec![one])));
    }
    Ok(())
}

fn check_multishot(request: &Request) -> Result<()> {
    let sqe = &request.sqe;
    if sqe.ioprio & MULTISHOT == 0 {
        return Ok(());
    }
    let wrong = !request.has(SqeFlags::BUFFER_SELECT)
        || flags_of(request).contains(MessageFlags::WAITALL)
        || sqe.opcode == op::RECV && sqe.len != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Is more to be received? Tells so in the completion.
fn note_more(request: &Request, socket: &Arc<dyn Socket>) -> u32 {
    let more = socket.queued().is_ok_and(|(queued, _)| queued > 0);
    let flag = if more { cqe_flag::SOCK_NONEMPTY } else { 0 };
    request.cqe_flags.store(flag, Ordering::Relaxed);
    flag
}

pub(super) fn receive(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    or_done(receive_now(request, body))
}

fn receive_now(request: &Request, body: &mut Body) -> Result<Step> {
    let socket = socket_in(body)?;
    if polls_first(request, body) {
        return Ok(Step::Wait(Events::READABLE | Events::RDHUP));
    }
    let multishot = request.sqe.ioprio & MULTISHOT != 0;
    let flags = flags_of(request);
    loop {
        let selected = select(request, body, request.sqe.len as usize)?;
        let whole = match (&body.prepared, selected) {
            (_, Some(buffer)) => buffer,
            (Prepared::Buffers(list), None) => list.first().copied().unwrap_or(UserBuf::new(0, 0)),
            _ => return Err(Errno::EFAULT),
        };
        let rest = [UserBuf::new(whole.addr + body.moved, whole.len - body.moved)];
        let quick = flags.difference(MessageFlags::WAITALL) | MessageFlags::DONTWAIT;
        let result = socket.receive(&mut Sink::user(&rest), quick, true).map(|received| received.len);
        match received(&socket, request, body, (flags, selected.is_some()), result, whole.len) {
            Step::Ended { result: Ok(n @ 1..), .. } if multishot && may_post(request) => {
                let more = note_more(request, &socket);
                request.cqe_flags.store(0, Ordering::Relaxed);
                post_selected(request, body, n, more);
            }
            step => {
                if matches!(step, Step::Ended { result: Ok(_), .. }) {
                    note_more(request, &socket);
                }
                return Ok(step);
            }
        }
    }
}

fn may_post(request: &Request) -> bool {
    request.ring.completions.has_room(&request.ring.rings)
}

/// What receiving came to.
fn received(
    socket: &Arc<dyn Socket>,
    request: &Request,
    body: &mut Body,
    (flags, selected): (MessageFlags, bool),
    result: Result<usize>,
    wanted: usize,
) -> Step {
    let all = flags.contains(MessageFlags::WAITALL) && is_stream(socket);
    match result {
        Err(Errno::EAGAIN) if !tells(flags) => {
            if selected && body.moved == 0 {
                unselect(request, body);
            }
            return Step::Wait(Events::READABLE | Events::RDHUP);
        }
        Ok(n @ 1..) if all && body.moved + n < wanted => {
            body.moved += n;
            return Step::Wait(Events::READABLE | Events::RDHUP);
        }
        _ => {}
    }
    let result = match result {
        Ok(n) => Ok(body.moved + n),
        Err(_) if body.moved > 0 => Ok(body.moved),
        error => error,
    };
    if selected && !matches!(result, Ok(1..)) {
        unselect(request, body);
    }
    let failed = result.is_err() || all && result != Ok(wanted);
    Step::Ended { result, failed }
}

pub(super) fn prepare_receive_message(_: &mut Context, request: &Arc<Request>, body: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.file_index.into(), u64::from(sqe.ioprio & !(POLL_FIRST | MULTISHOT))])?;
    check_multishot(request)?;
    let selects = request.has(SqeFlags::BUFFER_SELECT);
    body.keep(message_parts(sqe.addr).and_then(|(raw, list)| match selects && raw.iov_len > 1 {
        true => Err(Errno::EINVAL),
        false => Ok(Prepared::Buffers(list)),
    }));
    Ok(())
}

pub(super) fn receive_message(cx: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    or_done(receive_message_now(cx, request, body))
}

fn receive_message_now(cx: &mut Context, request: &Request, body: &mut Body) -> Result<Step> {
    let socket = socket_in(body)?;
    if polls_first(request, body) {
        return Ok(Step::Wait(Events::READABLE | Events::RDHUP));
    }
    let flags = flags_of(request);
    let at = request.sqe.addr as usize;
    let raw = UserPtr::<RawMessage>::new(at).read()?;
    let Prepared::Buffers(list) = &body.prepared else { return Err(Errno::EFAULT) };
    let list = list.clone();
    if request.sqe.ioprio & MULTISHOT != 0 {
        return receive_many(cx, request, body, &socket, &raw);
    }
    let limit = list.first().map_or(0, |buffer| buffer.len);
    let selected = select(request, body, limit)?;
    let rest = match selected {
        Some(buffer) => alloc::vec![buffer],
        None => skip(&list, body.moved),
    };
    let wanted = selected.map_or_else(|| list.iter().map(|buffer| buffer.len).sum(), |buffer| buffer.len);
    let quick = flags.difference(MessageFlags::WAITALL) | MessageFlags::DONTWAIT;
    let result = match socket.receive(&mut Sink::user(&rest), quick, true) {
        Ok(message) => {
            let len = message.len;
            store_received(cx.task, at, &raw, message, flags)?;
            Ok(len)
        }
        Err(error) => Err(error),
    };
    let step = received(&socket, request, body, (flags, selected.is_some()), result, wanted);
    if matches!(step, Step::Ended { result: Ok(_), .. }) {
        note_more(request, &socket);
    }
    Ok(step)
}

/// Messages into provided buffers, each as `struct io_uring_recvmsg_out`, the address, the control data and the bytes.
fn receive_many(
    cx: &Context,
    request: &Request,
    body: &mut Body,
    socket: &Arc<dyn Socket>,
    raw: &RawMessage,
) -> Result<Step> {
    const HEADER: usize = 16;
    let name_len = usize::try_from(raw.name_len).map_err(|_| Errno::EINVAL)?;
    let before = (HEADER + name_len).checked_add(raw.control_len).ok_or(Errno::EOVERFLOW)?;
    let flags = flags_of(request);
    loop {
        let buffer = select(request, body, 0)?.ok_or(Errno::ENOBUFS)?;
        if buffer.len < before {
            unselect(request, body);
            return Err(Errno::EFAULT);
        }
        let room = [UserBuf::new(buffer.addr + before, buffer.len - before)];
        let mut sink = Sink::user(&room);
        let message = match socket.receive(&mut sink, flags | MessageFlags::DONTWAIT, true) {
            Ok(message) => message,
            Err(error) => {
                unselect(request, body);
                let waits = error == Errno::EAGAIN && !tells(flags);
                return if waits { Ok(Step::Wait(Events::READABLE | Events::RDHUP)) } else { Err(error) };
            }
        };
        let (len, moved) = (message.len, sink.done());
        let name = message.from.len();
        let place = raw.at(buffer.addr + HEADER, buffer.addr + HEADER + name_len);
        let (control, told) = message::put_received(cx.task, &place, message, flags)?;
        UserPtr::new(buffer.addr).write(&[name as u32, control as u32, len as u32, told])?;
        if len == 0 || !may_post(request) {
            return Ok(Step::Done(Ok(before + moved)));
        }
        let more = note_more(request, socket);
        request.cqe_flags.store(0, Ordering::Relaxed);
        post_selected(request, body, before + moved, more);
    }
}

pub(super) fn prepare_shutdown(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.off, sqe.addr, sqe.op_flags.into(), sqe.buf_index.into(), sqe.file_index.into()])
}

pub(super) fn shutdown(_: &mut Context, request: &Arc<Request>, body: &mut Body, _: Mode) -> Step {
    let how = request.sqe.len as i32;
    Step::Done(socket_in(body).and_then(|socket| socket.shutdown(Shutdown::new(how)?).map(|()| 0)))
}

pub(super) fn prepare_socket(_: &mut Context, request: &Arc<Request>, _: &mut Body) -> Result<()> {
    let sqe = &request.sqe;
    zero([sqe.addr, sqe.op_flags.into(), sqe.buf_index.into()])?;
    let flags = OpenFlags::from_bits_retain(sqe.off as u32 & !0xf);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags)
        || sqe.file_index != 0 && flags.contains(OpenFlags::CLOEXEC)
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

pub(super) fn socket(cx: &mut Context, request: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    let sqe = &request.sqe;
    let flags = OpenFlags::from_bits_retain(sqe.off as u32 & !0xf);
    let caller = caller(cx.task);
    let made = net::create(&caller, sqe.fd, sqe.off as i32 & 0xf, sqe.len as i32);
    let open = made.map(|socket| net::open_file(&caller.fs, socket, flags & OpenFlags::NONBLOCK));
    Step::Done(open.and_then(|open| notice::install(cx, request, open, flags.contains(OpenFlags::CLOEXEC))))
}
