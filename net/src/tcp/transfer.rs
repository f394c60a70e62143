//! Sending, receiving, polling and shutting down TCP sockets.

use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::PollTable;
use hal::user::UserPtr;
use mm::{Sink, Source};
use sched::Sleep;

use super::connection::{Connection, Effects, State};
use super::mark::Wish;
use super::socket::{Role, TcpSocket};
use super::{fast_open, opening};
use crate::backlog;
use crate::inet::address::{AF_UNSPEC, family_of};
use crate::inet::{Endpoint, errors};
use crate::options::option;
use crate::packet::Filler;
use crate::socket::{Caller, ControlMessage, MessageFlags, Outgoing, Received, Shutdown, Socket, wait_error};

/// Bytes that are copied in at once, at most.
const PIECE: usize = 64 << 10;
/// Bytes that are copied out at once, at most.
const TAKE: usize = 256 << 10;

pub(super) fn send(
    socket: &TcpSocket,
    caller: Option<&Caller>,
    source: &mut Source,
    message: Outgoing,
    nonblocking: bool,
) -> Result<usize> {
    let nonblocking = nonblocking || message.flags.contains(MessageFlags::DONTWAIT);
    let deferred = socket.core.lock().deferred;
    if message.flags.contains(MessageFlags::FASTOPEN) || deferred.is_some() {
        return send_and_open(socket, caller, source, message, nonblocking);
    }
    let mut total = 0;
    loop {
        let step = send_piece(socket, source, message.flags, nonblocking);
        match step {
            Ok(n) => total += n,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
        if source.remaining() == 0 {
            break;
        }
    }
    note_sent(socket, total, message.flags);
    Ok(total)
}

/// Sets the marks of which the program wants to hear: timestamps, and when its memory is free again (MSG_ZEROCOPY).
fn note_sent(socket: &TcpSocket, sent: usize, flags: MessageFlags) {
    let stamps = socket.options.timestamping.load(Ordering::Relaxed) & errors::TCP_STAMPS;
    let zero_copy = flags.contains(MessageFlags::ZEROCOPY) && socket.options.flag(option::SO_ZEROCOPY);
    if sent == 0 || stamps == 0 && !zero_copy {
        return;
    }
    let from = socket.core.lock().stamps_from;
    let released = zero_copy.then(|| socket.options.zero_copies.fetch_add(1, Ordering::Relaxed));
    socket.drive(|connection, _, _| {
        let number = connection.written_since(from);
        if stamps & errors::STAMPS_SENT != 0 {
            connection.mark(Wish::Sent(number));
        }
        if stamps & errors::STAMPS_ACKNOWLEDGED != 0 {
            connection.mark(Wish::Acknowledged(number));
        }
        if let Some(number) = released {
            connection.mark(Wish::Released(number));
        }
        ((), Effects::empty())
    });
}

/// MSG_FASTOPEN, or the first data after a connect(2) that was put off: the SYN takes data along if the server has given a cookie before.
fn send_and_open(
    socket: &TcpSocket,
    caller: Option<&Caller>,
    source: &mut Source,
    message: Outgoing,
    nonblocking: bool,
) -> Result<usize> {
    let (deferred, open) = {
        let core = socket.core.lock();
        let open = match &core.role {
            Role::Open(connection) => Some((connection.is_opening(), core.told)),
            _ => None,
        };
        (core.deferred, open)
    };
    let named = message.to.map(family_of).transpose()?;
    if deferred.is_none() && (!fast_open::allows(fast_open::mode::CLIENT) || named == Some(AF_UNSPEC)) {
        return Err(Errno::EOPNOTSUPP);
    }
    match open {
        Some((true, _)) => return Err(Errno::EALREADY),
        Some((false, true)) => return Err(Errno::EISCONN),
        // The first call after the opening is one like any other.
        Some((false, false)) => {
            socket.core.lock().told = true;
            let flags = message.flags - MessageFlags::FASTOPEN;
            return send(socket, caller, source, Outgoing { to: None, flags, ..message }, nonblocking);
        }
        None => {}
    }
    let to = match (deferred, message.to) {
        (Some(to), _) => to,
        (None, Some(to)) => Endpoint::parse(to, socket.family)?,
        (None, None) => return Err(Errno::EINVAL),
    };
    let sent = opening::connect_with(socket, caller, to, source, nonblocking)?;
    note_sent(socket, sent, message.flags);
    if nonblocking || source.remaining() == 0 {
        return Ok(sent);
    }
    let flags = message.flags - MessageFlags::FASTOPEN;
    let rest = send(socket, caller, source, Outgoing { to: None, flags, ..message }, nonblocking);
    match rest {
        Ok(n) => Ok(sent + n),
        Err(_) if sent > 0 => Ok(sent),
        Err(error) => Err(error),
    }
}

/// Why nothing can be sent now, if nothing ever can.
fn check_sending(socket: &TcpSocket) -> Option<Errno> {
    let mut core = socket.core.lock();
    if let Some(error) = core.error.take() {
        return Some(error);
    }
    let shut = core.shut_write;
    match &mut core.role {
        Role::Open(connection) => {
            if let Some(error) = connection.take_error() {
                return Some(error);
            }
            let never = shut || !connection.can_send_ever() && !connection.awaits_peer();
            never.then_some(Errno::EPIPE)
        }
        _ if shut => Some(Errno::EPIPE),
        _ => Some(Errno::EPIPE),
    }
}

fn wait_room(socket: &TcpSocket, nonblocking: bool) -> Result<usize> {
    let deadline = socket.options.send_deadline();
    let attempt = || {
        if let Some(error) = check_sending(socket) {
            return Some(Err(error));
        }
        let mut core = socket.core.lock();
        let Role::Open(connection) = &mut core.role else { return Some(Err(Errno::EPIPE)) };
        let room = if connection.awaits_peer() { 0 } else { connection.room() };
        if room > 0 {
            // Else a piece may exceed the buffer's limit a little, so that small buffers don't cut everything into slices.
            return Some(Ok(if connection.is_limited() { room } else { room.max(PIECE / 4) }));
        }
        connection.want_room();
        nonblocking.then_some(Err(Errno::EAGAIN))
    };
    match attempt() {
        Some(Err(Errno::EAGAIN)) | None => {}
        Some(result) => return result,
    }
    // Nothing joins the last segment soon: it must not wait for more, or no room would ever come.
    socket.drive(|connection, now, out| (connection.flush(now, out), Effects::empty()));
    backlog::run();
    let waited = socket.room.wait_exclusive(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

/// Sends a piece of the data; how much that was.
fn send_piece(socket: &TcpSocket, source: &mut Source, flags: MessageFlags, nonblocking: bool) -> Result<usize> {
    let room = wait_room(socket, nonblocking)?;
    if source.remaining() == 0 {
        return Ok(0);
    }
    let writing = socket.writing.lock();
    let data = Filler::shared(|filler| filler.take(source, PIECE.min(room)))?;
    let n = data.len();
    let last = source.remaining() == 0;
    let more = !last || flags.contains(MessageFlags::MORE);
    let urgent = last && flags.contains(MessageFlags::OOB);
    let sent = socket.drive(|connection, now, out| {
        if !connection.can_send_ever() {
            return (false, Effects::empty());
        }
        connection.write(now, data, more, urgent, out);
        (true, Effects::empty())
    });
    drop(writing);
    backlog::run();
    if sent == Some(true) { Ok(n) } else { Err(check_sending(socket).unwrap_or(Errno::EPIPE)) }
}

pub(super) fn receive(socket: &TcpSocket, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
    if flags.contains(MessageFlags::ERRQUEUE) {
        let next = socket.failures.lock().pop().ok_or(Errno::EAGAIN)?;
        return next.give(&socket.options, socket.family, sink);
    }
    if !matches!(socket.core.lock().role, Role::Open(_)) {
        return receive_unconnected(socket);
    }
    if flags.contains(MessageFlags::OOB) {
        return receive_urgent(socket, sink, flags);
    }
    let nonblocking = nonblocking || flags.contains(MessageFlags::DONTWAIT);
    let low = socket.options.low_water.load(Ordering::Relaxed).max(1) as usize;
    let all = sink.remaining();
    let target = if flags.contains(MessageFlags::WAITALL) { all } else { low.min(all) };
    let mut received = Received::default();
    if all == 0 {
        return Ok(received);
    }
    let peek = flags.contains(MessageFlags::PEEK);
    loop {
        match take(socket, sink, flags, if peek { received.len } else { 0 }) {
            Ok(n) => received.len += n,
            Err(_) if received.len > 0 => break,
            Err(error) => return Err(error),
        }
        if received.len >= target {
            break;
        }
        match wait_data(socket, if peek { received.len } else { 0 }, nonblocking) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) if received.len > 0 => break,
            Err(error) => return Err(error),
        }
    }
    received.control.messages.extend(tell_queue(socket));
    Ok(received)
}

/// TCP_INQ: bytes that are left to be received; one at the end, which can be received too.
fn tell_queue(socket: &TcpSocket) -> Option<ControlMessage> {
    const SOL_TCP: i32 = 6;
    const TCP_CM_INQ: i32 = 36;
    let core = socket.core.lock();
    let Role::Open(connection) = &core.role else { return None };
    let left = match connection.readable() {
        0 => i32::from(connection.at_end()),
        n => i32::try_from(n).unwrap_or(i32::MAX),
    };
    core.tells_queue.then(|| ControlMessage { level: SOL_TCP, kind: TCP_CM_INQ, data: left.to_ne_bytes().to_vec() })
}

fn receive_unconnected(socket: &TcpSocket) -> Result<Received> {
    let mut core = socket.core.lock();
    if let Some(error) = core.error.take() {
        return Err(error);
    }
    // Where connect(2) was put off until there is something to send, nothing can have come.
    if core.deferred.is_some() {
        return Err(Errno::EAGAIN);
    }
    // A socket that was shut down for reading is at its end even if it was never connected.
    if core.shut_read { Ok(Received::default()) } else { Err(Errno::ENOTCONN) }
}

/// Waits for data beyond `have` bytes that were looked at; false at the end.
fn wait_data(socket: &TcpSocket, have: usize, nonblocking: bool) -> Result<bool> {
    let deadline = socket.options.receive_deadline();
    let attempt = || {
        let mut core = socket.core.lock();
        let shut = core.shut_read;
        let Role::Open(connection) = &mut core.role else { return Some(Ok(false)) };
        connection.skip_urgent();
        if connection.readable() > have {
            return Some(Ok(true));
        }
        if let Some(error) = connection.take_error() {
            return Some(Err(error));
        }
        if shut || connection.at_end() {
            return Some(Ok(false));
        }
        nonblocking.then_some(Err(Errno::EAGAIN))
    };
    let waited = socket.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

/// Takes what is there; how much. The bytes are copied without the socket's lock.
fn take(socket: &TcpSocket, sink: &mut Sink, flags: MessageFlags, skip: usize) -> Result<usize> {
    let (peek, discard) = (flags.contains(MessageFlags::PEEK), flags.contains(MessageFlags::TRUNC));
    let _reading = socket.reading.lock();
    let mut total = 0;
    while sink.remaining() > 0 {
        let want = sink.remaining().min(TAKE);
        let offset = if peek { skip + total } else { 0 };
        let data = match &mut socket.core.lock().role {
            Role::Open(connection) => {
                connection.skip_urgent();
                connection.peek(offset, want)
            }
            _ => break,
        };
        if data.is_empty() {
            break;
        }
        let n = if discard {
            sink.limit(sink.remaining() - data.len());
            data.len()
        } else {
            match data.put(sink) {
                Ok(n) => n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        };
        let short = n < data.len();
        drop(data);
        total += n;
        if !peek {
            socket.drive(|connection, now, out| {
                connection.consume(now, n, out);
                ((), Effects::empty())
            });
            backlog::run();
        }
        if short {
            break;
        }
    }
    Ok(total)
}

/// MSG_OOB. `EINVAL` without urgent data, `EAGAIN` while it is only announced.
fn receive_urgent(socket: &TcpSocket, sink: &mut Sink, flags: MessageFlags) -> Result<Received> {
    let byte = {
        let mut core = socket.core.lock();
        let in_line = core.settings.urgent_inline;
        let Role::Open(connection) = &mut core.role else { return Err(Errno::EINVAL) };
        if in_line {
            return Err(Errno::EINVAL);
        }
        connection.urgent(!flags.contains(MessageFlags::PEEK)).ok_or(Errno::EINVAL)?.ok_or(Errno::EAGAIN)?
    };
    let mut received = Received { flags: MessageFlags::OOB, ..Received::default() };
    if sink.remaining() > 0 {
        received.len = sink.put(&[byte])?;
    } else {
        received.flags |= MessageFlags::TRUNC;
    }
    Ok(received)
}

pub(super) fn shutdown(socket: &TcpSocket, how: Shutdown) -> Result<()> {
    if let Some(port) = shutdown_listener(socket, how)? {
        super::table::unlisten(port, socket);
        socket.news.wake_all();
        return Ok(());
    }
    {
        let mut core = socket.core.lock();
        let Role::Open(connection) = &mut core.role else { return Err(Errno::ENOTCONN) };
        if connection.state() == State::Closed {
            return Err(Errno::ENOTCONN);
        }
        if how.read {
            connection.shut_receive();
        }
        core.shut_read |= how.read;
        core.shut_write |= how.write;
    }
    if how.write {
        socket.drive(|connection, now, out| {
            if connection.state() == State::SynSent {
                return ((), connection.abort(now, None, out));
            }
            connection.finish(now, out);
            ((), Effects::empty())
        });
        backlog::run();
    }
    socket.news.wake_for(Events::READABLE | Events::RDHUP | Events::HUP, usize::MAX);
    socket.room.wake_for(Events::WRITABLE | Events::HUP, usize::MAX);
    Ok(())
}

/// A listener that is shut down for reading listens no more; its port, if it was one.
fn shutdown_listener(socket: &TcpSocket, how: Shutdown) -> Result<Option<u16>> {
    let mut core = socket.core.lock();
    let Role::Listening(listener) = &mut core.role else { return Ok(None) };
    if !how.read {
        return Ok(None);
    }
    let waiting = core::mem::take(&mut listener.waiting);
    core.role = Role::Fresh;
    if let Some(binding) = &core.binding {
        binding.listening.store(false, Ordering::Relaxed);
    }
    let port = core.link.local.port;
    drop(core);
    for child in waiting {
        child.abort();
    }
    backlog::run();
    Ok(Some(port))
}

pub(super) fn poll(socket: &TcpSocket, table: &mut PollTable) -> Events {
    table.register(&socket.news);
    table.register(&socket.room);
    let mut core = socket.core.lock();
    let (shut_read, shut_write, failed) = (core.shut_read, core.shut_write, core.error.is_some());
    let low = socket.options.low_water.load(Ordering::Relaxed).max(1) as usize;
    let deferred = core.deferred.is_some();
    let failed = failed || !socket.failures.lock().is_empty();
    let mut ready = if failed { Events::ERR } else { Events::empty() };
    match &mut core.role {
        Role::Fresh if deferred => ready |= Events::WRITABLE,
        Role::Fresh => ready |= Events::WRITABLE | Events::HUP,
        Role::Listening(listener) => {
            if !listener.waiting.is_empty() {
                ready |= Events::READABLE;
            }
        }
        Role::Open(connection) => ready |= poll_open(connection, (shut_read, shut_write), low),
    }
    ready
}

fn poll_open(connection: &mut Connection, shut: (bool, bool), low: usize) -> Events {
    let mut ready = Events::empty();
    let ended = connection.at_end() || shut.0;
    if connection.state() == State::Closed || shut.1 && ended {
        ready |= Events::HUP;
    }
    if ended {
        ready |= Events::READABLE | Events::RDHUP;
    }
    if connection.has_error() {
        ready |= Events::ERR;
    }
    if connection.state() == State::SynSent {
        return ready;
    }
    connection.skip_urgent();
    if connection.readable() >= low {
        ready |= Events::READABLE;
    }
    if !connection.can_send_ever() || connection.has_room() {
        ready |= Events::WRITABLE;
    } else {
        connection.want_room();
    }
    if connection.has_urgent() {
        ready |= Events::PRI;
    }
    ready
}

pub(super) fn ioctl(socket: &TcpSocket, request: u32, arg: usize) -> Option<Result<usize>> {
    const SIOCATMARK: u32 = 0x8905;
    const SIOCOUTQNSD: u32 = 0x894b;
    let core = socket.core.lock();
    let value = match (&core.role, request) {
        (Role::Open(connection), SIOCATMARK) => i32::from(connection.at_mark()),
        (Role::Fresh, SIOCATMARK) => 0,
        (Role::Open(connection), SIOCOUTQNSD) => connection.unsent() as i32,
        (_, SIOCATMARK | SIOCOUTQNSD) => return Some(Err(Errno::EINVAL)),
        _ => return None,
    };
    drop(core);
    let _ = socket.kind();
    Some(UserPtr::new(arg).write(&value).map(|()| 0))
}
