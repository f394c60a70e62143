//! Sending and receiving.

use alloc::vec::Vec;

use base::{Errno, Events, Result};
use fs::PollTable;
use mm::{Sink, Source};
use sched::Sleep;

use super::VsockSocket;
use super::protocol::{Chunk, Phase, RECEIVE, SEND, State};
use super::wire::{self, END_OF_MESSAGE, END_OF_RECORD, Op};
use crate::socket::{MessageFlags, Outgoing, Received, SocketKind, wait_error};

/// The most data of one packet.
const PIECE: usize = 32 << 10;

/// `EPIPE`, `ENOTCONN`, or the error that the connection ended with.
fn check_sending(state: &mut State) -> Result<()> {
    if let Some(error) = state.error.take() {
        return Err(error);
    }
    if state.shut & SEND != 0 || state.peer_shut & RECEIVE != 0 {
        return Err(Errno::EPIPE);
    }
    if state.phase == Phase::Established { Ok(()) } else { Err(Errno::ENOTCONN) }
}

/// Waits until the other end has room and takes it: for `least` bytes, or as many as fit of `most`.
fn wait_room(socket: &VsockSocket, least: usize, most: usize, nonblocking: bool) -> Result<usize> {
    let deadline = socket.options.send_deadline();
    let attempt = || {
        let mut state = socket.state.lock();
        if let Err(error) = check_sending(&mut state) {
            return Some(Err(error));
        }
        if state.credit() >= least {
            let len = state.credit().min(most);
            state.reserve(len);
            return Some(Ok(len));
        }
        nonblocking.then_some(Err(Errno::EAGAIN))
    };
    let waited = socket.room.wait_until(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

/// Sends one packet of data, for which there is room; gives the room back where that fails.
fn put(socket: &VsockSocket, source: &mut Source, len: usize, flags: u32) -> Result<()> {
    let data = copy_in(source, len);
    let mut state = socket.state.lock();
    let sent = data.and_then(|data| {
        check_sending(&mut state)?;
        if state.put(socket.kind, Op::Data, flags, data) { Ok(()) } else { Err(Errno::ENOBUFS) }
    });
    if sent.is_err() {
        state.give_back(len);
    }
    sent
}

fn copy_in(source: &mut Source, len: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Errno::ENOBUFS)?;
    data.resize(len, 0);
    if source.take(&mut data)? < len { Err(Errno::EFAULT) } else { Ok(data) }
}

pub(super) fn send(socket: &VsockSocket, source: &mut Source, message: &Outgoing, nonblocking: bool) -> Result<usize> {
    if message.flags.contains(MessageFlags::OOB) {
        return Err(Errno::EOPNOTSUPP);
    }
    {
        let mut state = socket.state.lock();
        if message.to.is_some() {
            let connected = matches!(state.phase, Phase::Established | Phase::Closing);
            return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        check_sending(&mut state)?;
        if socket.kind == SocketKind::SeqPacket && source.remaining() > state.peer_size() {
            return Err(Errno::EMSGSIZE);
        }
    }
    let nonblocking = nonblocking || message.flags.contains(MessageFlags::DONTWAIT);
    if socket.kind == SocketKind::SeqPacket {
        return send_whole(socket, source, message.flags, nonblocking);
    }
    let mut total = 0;
    while source.remaining() > 0 {
        let most = source.remaining().min(PIECE);
        let step = wait_room(socket, 1, most, nonblocking).and_then(|len| put(socket, source, len, 0).map(|()| len));
        wire::run();
        match step {
            Ok(len) => total += len,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// A message goes when there is room for all of it.
fn send_whole(socket: &VsockSocket, source: &mut Source, flags: MessageFlags, nonblocking: bool) -> Result<usize> {
    let len = source.remaining();
    if len == 0 {
        return Ok(0);
    }
    wait_room(socket, len, len, nonblocking)?;
    let record = if flags.contains(MessageFlags::EOR) { END_OF_RECORD } else { 0 };
    let sent = put(socket, source, len, END_OF_MESSAGE | record);
    wire::run();
    sent.map(|()| len)
}

/// Waits for data; false at the end of the connection.
fn wait_data(socket: &VsockSocket, nonblocking: bool) -> Result<bool> {
    let deadline = socket.options.receive_deadline();
    let attempt = || {
        let mut state = socket.state.lock();
        if !state.inbox.is_empty() {
            return Some(Ok(true));
        }
        if let Some(error) = state.error.take() {
            return Some(Err(error));
        }
        if state.shut & RECEIVE != 0 || state.peer_shut & SEND != 0 || state.done {
            return Some(Ok(false));
        }
        nonblocking.then_some(Err(Errno::EAGAIN))
    };
    let waited = socket.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

pub(super) fn receive(
    socket: &VsockSocket,
    sink: &mut Sink,
    flags: MessageFlags,
    nonblocking: bool,
) -> Result<Received> {
    {
        let state = socket.state.lock();
        if state.phase != Phase::Established {
            return if state.done { Ok(Received::default()) } else { Err(Errno::ENOTCONN) };
        }
        if flags.contains(MessageFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if state.shut & RECEIVE != 0 {
            return Ok(Received::default());
        }
    }
    if sink.remaining() == 0 && socket.kind == SocketKind::Stream {
        return Ok(Received::default());
    }
    let nonblocking = nonblocking || flags.contains(MessageFlags::DONTWAIT);
    let received = if socket.kind == SocketKind::Stream {
        receive_stream(socket, sink, flags, nonblocking)
    } else {
        receive_whole(socket, sink, flags, nonblocking)
    };
    wire::run();
    received
}

fn receive_stream(socket: &VsockSocket, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
    let peek = flags.contains(MessageFlags::PEEK);
    let low = usize::try_from(socket.options.low_water.load(core::sync::atomic::Ordering::Relaxed)).unwrap_or(1);
    let target = if flags.contains(MessageFlags::WAITALL) { sink.remaining() } else { low.min(sink.remaining()) };
    let mut received = Received::default();
    loop {
        match wait_data(socket, nonblocking) {
            Ok(true) => {}
            Err(error) if received.len == 0 => return Err(error),
            _ => return Ok(received),
        }
        let n = take(socket, sink, peek);
        // The other end may wait for room while we wait for more.
        wire::run();
        match n {
            Ok(n) => received.len += n,
            Err(error) if received.len == 0 => return Err(error),
            Err(_) => return Ok(received),
        }
        if received.len >= target.max(1) || peek || sink.remaining() == 0 {
            return Ok(received);
        }
    }
}

/// Stores what has come of a stream, as much as there is room for. It stays where it is only looked at.
fn take(socket: &VsockSocket, sink: &mut Sink, peek: bool) -> Result<usize> {
    let _reading = socket.reading.lock();
    let mut looked_at: Vec<Chunk> = Vec::new();
    let mut result = Ok(0);
    let mut total = 0;
    while sink.remaining() > 0 {
        let Some(mut chunk) = socket.state.lock().inbox.pop_front() else { break };
        let stored = sink.put(&chunk.data[chunk.read..]);
        let n = *stored.as_ref().unwrap_or(&0);
        total += n;
        let whole = chunk.read + n == chunk.data.len();
        if peek {
            looked_at.push(chunk);
        } else {
            chunk.read += n;
            let mut state = socket.state.lock();
            if !whole {
                state.inbox.push_front(chunk);
            }
            state.took(socket.kind, n);
        }
        if let Err(error) = stored {
            result = Err(error);
            break;
        }
    }
    let mut state = socket.state.lock();
    looked_at.into_iter().rev().for_each(|chunk| state.inbox.push_front(chunk));
    if total > 0 { Ok(total) } else { result }
}

fn receive_whole(socket: &VsockSocket, sink: &mut Sink, flags: MessageFlags, nonblocking: bool) -> Result<Received> {
    if flags.contains(MessageFlags::PEEK) {
        return Err(Errno::EOPNOTSUPP);
    }
    let chunk = loop {
        if !wait_data(socket, nonblocking)? {
            return Ok(Received::default());
        }
        let mut state = socket.state.lock();
        if let Some(chunk) = state.inbox.pop_front() {
            state.took(socket.kind, chunk.data.len());
            break chunk;
        }
    };
    let len = sink.put(&chunk.data)?;
    let mut received = Received { len, ..Received::default() };
    if len < chunk.data.len() {
        received.flags |= MessageFlags::TRUNC;
        if flags.contains(MessageFlags::TRUNC) {
            received.len = chunk.data.len();
        }
    }
    if chunk.flags & END_OF_RECORD != 0 {
        received.flags |= MessageFlags::EOR;
    }
    Ok(received)
}

pub(super) fn poll(socket: &VsockSocket, table: &mut PollTable) -> Events {
    table.register(&socket.news);
    table.register(&socket.room);
    let state = socket.state.lock();
    let mut ready = Events::empty();
    let mut add = |on: bool, events: Events| ready |= if on { events } else { Events::empty() };
    add(state.error.is_some(), Events::ERR);
    let shut = state.shut;
    add(shut == RECEIVE | SEND || shut & SEND != 0 && state.peer_shut & SEND != 0, Events::HUP);
    let ended = shut & RECEIVE != 0 || state.peer_shut & SEND != 0;
    add(ended, Events::RDHUP | Events::READABLE);
    match state.phase {
        Phase::Listening => add(!state.waiting.is_empty(), Events::READABLE),
        Phase::Established => {
            add(!state.inbox.is_empty() && shut & RECEIVE == 0, Events::READABLE);
            add(shut & SEND == 0 && state.credit() > 0, Events::WRITABLE | Events::WRBAND);
        }
        Phase::Closed | Phase::Closing => add(shut & SEND == 0, Events::WRITABLE),
        Phase::Connecting => {}
    }
    ready
}
