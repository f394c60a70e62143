//! Sending and receiving.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::PollTable;
use mm::{Sink, Source};
use sched::Sleep;

use super::garbage;
use super::inbox::Message;
use super::inflight::Inflight;
use super::{Socket, SocketKind, UnixSocket, names};
use crate::option;
use crate::socket::{Caller, Control, MessageFlags, Outgoing, Received, Ucred, wait_error};

/// Bytes of a stream that are put into one message.
const PIECE: usize = 32 << 10;

/// Copies `len` bytes in. `EFAULT`, `ENOMEM`.
fn copy_in(source: &mut Source, len: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Errno::ENOBUFS)?;
    data.resize(len, 0);
    if len > 0 && source.take(&mut data)? < len {
        return Err(Errno::EFAULT);
    }
    Ok(data)
}

pub(super) fn send(
    socket: &UnixSocket,
    caller: Option<&Caller>,
    source: &mut Source,
    message: Outgoing,
    nonblocking: bool,
) -> Result<usize> {
    let urgent = message.flags.contains(MessageFlags::OOB);
    if urgent && (socket.kind != SocketKind::Stream || source.remaining() == 0) {
        return Err(Errno::EOPNOTSUPP);
    }
    let nonblocking = nonblocking || message.flags.contains(MessageFlags::DONTWAIT);
    if let Some(error) = socket.take_error().filter(|_| !socket.is_datagram()) {
        // A stream whose reader went away with bytes unread: the write fails as any write to nobody.
        return Err(if error == Errno::ECONNRESET { Errno::EPIPE } else { error });
    }
    let sender = message.control.credentials.or_else(|| caller.map(Caller::real));
    let sender = sender.unwrap_or_else(|| socket.state.lock().own_credentials.0);
    let to = if socket.is_datagram() { message.to } else { check_connected(socket, message.to)? };
    let destination = match to {
        Some(address) => {
            let caller = caller.ok_or(Errno::EINVAL)?;
            let found = names::find(caller, address, SocketKind::Datagram)?;
            if !found.accepts_from(socket) {
                return Err(Errno::EPERM);
            }
            Some(found)
        }
        None => socket.peer(),
    };
    if socket.is_mute() {
        return Err(Errno::EPIPE);
    }
    let auto = socket.options.pass_credentials.load(Ordering::Relaxed) && socket.is_datagram();
    if auto && socket.state.lock().address.is_none() {
        names::auto_bind(socket)?;
    }
    let inflight =
        caller.map_or_else(|| Ok(Inflight::default()), |c| Inflight::charge(c, message.control.files.len()))?;
    if socket.kind == SocketKind::Stream {
        let peer = destination.ok_or(Errno::EPIPE)?;
        return send_stream(socket, &peer, source, (message.control, inflight), sender, (urgent, nonblocking));
    }
    let Some(peer) = destination else {
        return Err(match (socket.kind, socket.is_connected()) {
            (SocketKind::SeqPacket, _) => Errno::EPIPE,
            (_, true) => Errno::ECONNREFUSED,
            (_, false) => Errno::ENOTCONN,
        });
    };
    send_whole(socket, &peer, source, (message.control, inflight), sender, nonblocking)
}

/// A stream (or seqpacket) takes no destination. `EISCONN`, `EOPNOTSUPP`, `ENOTCONN`.
fn check_connected<'a>(socket: &UnixSocket, to: Option<&'a [u8]>) -> Result<Option<&'a [u8]>> {
    match (to, socket.is_connected()) {
        (Some(_), true) if socket.kind == SocketKind::Stream => Err(Errno::EISCONN),
        (Some(_), false) if socket.kind == SocketKind::Stream => Err(Errno::EOPNOTSUPP),
        (_, false) => Err(Errno::ENOTCONN),
        _ => Ok(None),
    }
}

/// Waits until the peer has room. `EPIPE` (or `ECONNREFUSED`) where it takes nothing more.
fn wait_room(socket: &UnixSocket, peer: &UnixSocket, nonblocking: bool) -> Result<()> {
    let deadline = socket.options.send_deadline();
    let limit = socket.options.send_limit();
    let attempt = || {
        if socket.is_mute() {
            return Some(Err(Errno::EPIPE));
        }
        if peer.inbox.lock().refuses {
            return Some(Err(if socket.is_datagram() { Errno::ECONNREFUSED } else { Errno::EPIPE }));
        }
        match peer.has_room(limit) {
            true => Some(Ok(())),
            false if nonblocking => Some(Err(Errno::EAGAIN)),
            false => None,
        }
    };
    let waited = peer.room.wait_until(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

fn deliver(peer: &UnixSocket, message: Message) -> Result<()> {
    garbage::note(peer, &message.files);
    let urgent = message.urgent;
    let pushed = peer.inbox.lock().push(message);
    match pushed {
        Ok(()) => {
            if urgent {
                peer.options.tell_urgent();
                peer.news.wake_for(Events::PRI, usize::MAX);
            }
            peer.announce(Events::READABLE);
            Ok(())
        }
        Err(message) => {
            drop(message);
            Err(Errno::ENOBUFS)
        }
    }
}

fn send_stream(
    socket: &UnixSocket,
    peer: &Arc<UnixSocket>,
    source: &mut Source,
    (control, inflight): (Control, Inflight),
    sender: Ucred,
    (urgent, nonblocking): (bool, bool),
) -> Result<usize> {
    let (mut files, mut inflight) = (control.files, inflight);
    let mut total = 0;
    while source.remaining() > 0 {
        let step = wait_room(socket, peer, nonblocking).and_then(|()| {
            // The last byte is the urgent one, by itself.
            let last = urgent && source.remaining() == 1;
            let left = source.remaining() - usize::from(urgent && !last);
            let len = left.min(PIECE).min(socket.options.send_limit());
            let data = copy_in(source, len)?;
            deliver(
                peer,
                Message {
                    data,
                    taken: 0,
                    urgent: last,
                    before_mark: false,
                    files: core::mem::take(&mut files),
                    inflight: core::mem::take(&mut inflight),
                    sender,
                    from: Vec::new(),
                },
            )?;
            Ok(len)
        });
        match step {
            Ok(len) => total += len,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn send_whole(
    socket: &UnixSocket,
    peer: &Arc<UnixSocket>,
    source: &mut Source,
    (control, inflight): (Control, Inflight),
    sender: Ucred,
    nonblocking: bool,
) -> Result<usize> {
    let len = source.remaining();
    if len > socket.options.send_limit().saturating_sub(32) {
        return Err(Errno::EMSGSIZE);
    }
    let data = copy_in(source, len)?;
    let result = wait_room(socket, peer, nonblocking);
    if result == Err(Errno::ECONNREFUSED) {
        // The destination is gone: so is the connection to it.
        let mut state = socket.state.lock();
        if state.peer.as_ref().is_some_and(|p| alloc::sync::Weak::ptr_eq(p, &peer.me)) {
            state.peer = None;
            state.connected = false;
        }
    }
    result?;
    deliver(
        peer,
        Message {
            data,
            taken: 0,
            urgent: false,
            before_mark: false,
            files: control.files,
            inflight,
            sender,
            from: socket.sender_name(),
        },
    )?;
    Ok(len)
}

pub(super) fn receive(
    socket: &UnixSocket,
    sink: &mut Sink,
    flags: MessageFlags,
    nonblocking: bool,
) -> Result<Received> {
    let urgent = flags.contains(MessageFlags::OOB);
    if urgent && socket.kind != SocketKind::Stream {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags.contains(MessageFlags::ERRQUEUE) {
        return Err(Errno::EAGAIN);
    }
    if !socket.is_datagram() && !socket.is_connected() {
        return Err(if socket.kind == SocketKind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
    }
    if urgent {
        return receive_urgent(socket, sink, flags);
    }
    let nonblocking = nonblocking || flags.contains(MessageFlags::DONTWAIT);
    if socket.kind == SocketKind::Stream {
        receive_stream(socket, sink, flags, nonblocking)
    } else {
        receive_whole(socket, sink, flags, nonblocking)
    }
}

/// Waits for a message; false at the end of the connection.
fn wait_message(socket: &UnixSocket, nonblocking: bool) -> Result<bool> {
    let deadline = socket.options.receive_deadline();
    let attempt = || {
        let inbox = socket.inbox.lock();
        match (inbox.is_empty(), inbox.ended) {
            (false, _) => Some(Ok(true)),
            (true, true) => Some(Ok(false)),
            (true, false) if nonblocking => Some(Err(Errno::EAGAIN)),
            (true, false) => None,
        }
    };
    let waited = socket.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

/// What a receiver learns of the message beside its bytes.
fn take_control(socket: &UnixSocket, message: &mut Message, peek: bool, control: &mut Control) {
    control.files = if peek {
        message.files.clone()
    } else {
        message.inflight = Inflight::default();
        core::mem::take(&mut message.files)
    };
    if socket.options.pass_credentials.load(Ordering::Relaxed) {
        control.credentials = Some(message.sender);
    }
}

fn receive_stream(socket: &UnixSocket, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
    let peek = flags.contains(MessageFlags::PEEK);
    let mut received = Received::default();
    let mut sender = None;
    if sink.remaining() == 0 {
        return Ok(received);
    }
    loop {
        let step = stream_step(socket, sink, peek, &mut received, &mut sender);
        let more = match step {
            Ok(more) => more,
            Err(_) if received.len > 0 => false,
            Err(error) => return Err(error),
        };
        let enough = received.len > 0 && (!flags.contains(MessageFlags::WAITALL) || peek || !more);
        if enough || sink.remaining() == 0 {
            return Ok(received);
        }
        if received.len == 0
            && let Some(error) = socket.take_error()
        {
            return Err(error);
        }
        match wait_message(socket, nonblocking) {
            Ok(true) => {}
            Ok(false) => return Ok(received),
            Err(_) if received.len > 0 => return Ok(received),
            Err(error) => return Err(error),
        }
    }
}

/// MSG_OOB: the urgent byte, unless it stays in line. `EINVAL` where there is none.
fn receive_urgent(socket: &UnixSocket, sink: &mut Sink, flags: MessageFlags) -> Result<Received> {
    let _reading = socket.reading.lock();
    if socket.options.flag(option::SO_OOBINLINE) {
        return Err(Errno::EINVAL);
    }
    let byte = socket.inbox.lock().urgent(!flags.contains(MessageFlags::PEEK)).ok_or(Errno::EINVAL)?;
    let len = if sink.remaining() > 0 { sink.put(&[byte])? } else { 0 };
    socket.room.wake_for(Events::WRITABLE, 1);
    Ok(Received { len, flags: MessageFlags::OOB, ..Received::default() })
}

/// What becomes of the next message of a stream.
enum Next {
    /// Reading stops before it.
    Stop,
    /// It is left out.
    Skip,
    /// Its bytes join those received.
    Data,
}

/// Bytes of another sender, or that come with files, don't join others. Reading stops before the urgent byte, and leaves it out, unless it
/// stays in line or is only looked at.
fn judge(socket: &UnixSocket, message: &Message, received: &Received, sender: Option<Ucred>, peek: bool) -> Next {
    let passes = socket.options.pass_credentials.load(Ordering::Relaxed);
    let foreign = passes && sender.is_some_and(|s| s != message.sender);
    if received.len > 0 && (message.urgent || foreign || !message.files.is_empty()) {
        return Next::Stop;
    }
    let stays = peek || socket.options.flag(option::SO_OOBINLINE);
    if message.urgent && !stays { Next::Skip } else { Next::Data }
}

/// Takes what is there; false where the next bytes may not join those received.
fn stream_step(
    socket: &UnixSocket,
    sink: &mut Sink,
    peek: bool,
    received: &mut Received,
    sender: &mut Option<Ucred>,
) -> Result<bool> {
    let _reading = socket.reading.lock();
    let mut looked_at: Vec<Message> = Vec::new();
    let mut result = Ok(true);
    while sink.remaining() > 0 {
        let Some(mut message) = socket.inbox.lock().pop() else { break };
        match judge(socket, &message, received, *sender, peek) {
            Next::Data => {}
            Next::Skip => continue,
            Next::Stop => {
                socket.inbox.lock().unpop(message);
                result = Ok(false);
                break;
            }
        }
        let n = match sink.put(message.rest()) {
            Ok(n) => n,
            Err(error) => {
                socket.inbox.lock().unpop(message);
                result = Err(error);
                break;
            }
        };
        received.len += n;
        *sender = Some(message.sender);
        let is_last = !message.files.is_empty() || message.before_mark && n == message.rest().len();
        join_control(socket, &mut message, peek, &mut received.control);
        if peek {
            looked_at.push(message);
        } else {
            message.taken += n;
            if !message.rest().is_empty() {
                socket.inbox.lock().unpop(message);
            }
        }
        if is_last {
            result = Ok(false);
            break;
        }
    }
    for message in looked_at.into_iter().rev() {
        socket.inbox.lock().unpop(message);
    }
    if !peek && received.len > 0 {
        socket.room.wake_for(Events::WRITABLE, 1);
    }
    result
}

/// What comes with the bytes of a stream: the first sender's credentials, and files.
fn join_control(socket: &UnixSocket, message: &mut Message, peek: bool, control: &mut Control) {
    let had_files = !message.files.is_empty();
    if had_files || control.credentials.is_none() {
        let files = core::mem::take(&mut control.files);
        take_control(socket, message, peek, control);
        if !had_files {
            control.files = files;
        }
    }
}

fn receive_whole(socket: &UnixSocket, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
    let peek = flags.contains(MessageFlags::PEEK);
    let mut message = loop {
        if let Some(error) = socket.take_error() {
            return Err(error);
        }
        if !wait_message(socket, nonblocking)? {
            return Ok(Received::default());
        }
        let _reading = socket.reading.lock();
        if let Some(message) = socket.inbox.lock().pop() {
            break message;
        }
    };
    let whole = message.rest().len();
    let mut received = Received { from: message.from.clone(), ..Received::default() };
    let stored = if whole == 0 { Ok(0) } else { sink.put(message.rest()) };
    take_control(socket, &mut message, peek, &mut received.control);
    if peek {
        socket.inbox.lock().unpop(message);
    } else {
        socket.room.wake_for(Events::WRITABLE, 1);
    }
    let stored = stored?;
    received.len = stored;
    if stored < whole {
        received.flags |= MessageFlags::TRUNC;
        if flags.contains(MessageFlags::TRUNC) {
            received.len = whole;
        }
    }
    if socket.kind == SocketKind::SeqPacket {
        received.flags |= MessageFlags::EOR;
    }
    Ok(received)
}

pub(super) fn poll(socket: &UnixSocket, table: &mut PollTable) -> Events {
    table.register(&socket.news);
    let mut ready = Events::empty();
    if let Some(waiting) = socket.has_waiting() {
        if waiting {
            ready |= Events::READABLE;
        }
        return ready;
    }
    let peer = socket.peer();
    if let Some(peer) = &peer {
        table.register(&peer.room);
    }
    if socket.state.lock().error.is_some() {
        ready |= Events::ERR;
    }
    let connected = socket.is_connected();
    {
        let inbox = socket.inbox.lock();
        if !inbox.is_empty() || inbox.ended {
            ready |= Events::READABLE;
        }
        if inbox.has_urgent() {
            ready |= Events::PRI;
        }
        if inbox.ended {
            ready |= Events::RDHUP;
        }
        let gone = inbox.ended && (socket.is_mute() || peer.is_none());
        if !socket.is_datagram() && (gone || !connected) {
            ready |= Events::HUP;
        }
    }
    let writable = match &peer {
        // A quarter of the buffer is what Linux wants free before it tells of room.
        Some(peer) if socket.is_datagram() => peer.has_room(socket.options.send_limit()),
        Some(peer) => socket.peer_refuses(Some(peer)) || peer.inbox.lock().bytes() * 4 <= socket.options.send_limit(),
        None => true,
    };
    if writable {
        ready |= Events::WRITABLE | Events::WRBAND;
    }
    ready
}
