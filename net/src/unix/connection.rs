//! Connecting, listening, accepting, shutting down, closing.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use sched::Sleep;

use super::{Backlog, Socket, SocketKind, UnixSocket, names, own_credentials};
use crate::socket::{Caller, Shutdown, wait_error};

/// The most connections that may wait (`net.core.somaxconn`).
const BACKLOG_MAX: usize = 4096;

pub(super) fn listen(socket: &UnixSocket, caller: &Caller, backlog: i32) -> Result<()> {
    if socket.is_datagram() {
        return Err(Errno::EOPNOTSUPP);
    }
    let max = usize::try_from(backlog).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX);
    let mut state = socket.state.lock();
    if state.address.is_none() || state.connected {
        return Err(Errno::EINVAL);
    }
    state.own_credentials = own_credentials(caller);
    match &mut state.backlog {
        Some(backlog) => backlog.max = max,
        none => *none = Some(Backlog { waiting: VecDeque::new(), max }),
    }
    drop(state);
    // Who waits for a longer backlog may go on.
    socket.room.wake_all();
    Ok(())
}

pub(super) fn connect(socket: &UnixSocket, caller: &Caller, address: &[u8], nonblocking: bool) -> Result<()> {
    if socket.is_datagram() {
        return connect_datagram(socket, caller, address);
    }
    {
        let state = socket.state.lock();
        if state.backlog.is_some() {
            return Err(Errno::EINVAL);
        }
        if state.connected {
            return Err(Errno::EISCONN);
        }
    }
    let listener = names::find(caller, address, socket.kind)?;
    let me = socket.me.upgrade().ok_or(Errno::ENOTCONN)?;
    let deadline = socket.options.send_deadline();
    // The end that accept(2) will give: bound to the listener's address, knowing who connected.
    let other = UnixSocket::new(socket.kind, own_credentials(caller));
    let address = listener.state.lock().address.clone();
    {
        let mut theirs = other.state.lock();
        theirs.address = address;
        theirs.join(&me, own_credentials(caller));
    }
    let attempt = || {
        let mut state = listener.state.lock();
        let credentials = state.own_credentials.clone();
        let refused = listener.inbox.lock().refuses;
        let Some(backlog) = state.backlog.as_mut().filter(|_| !refused) else { return Some(Err(Errno::ECONNREFUSED)) };
        if backlog.waiting.len() > backlog.max {
            return if nonblocking { Some(Err(Errno::EAGAIN)) } else { None };
        }
        if backlog.waiting.try_reserve(1).is_err() {
            return Some(Err(Errno::ENOMEM));
        }
        backlog.waiting.push_back(other.clone());
        Some(Ok(credentials))
    };
    let waited = listener.room.wait_until(Sleep::Interruptible, deadline, attempt);
    let credentials = waited.map_err(|e| wait_error(e, deadline.is_some()))??;
    let mut state = socket.state.lock();
    state.own_credentials = own_credentials(caller);
    state.join(&other, credentials);
    drop(state);
    listener.announce(Events::READABLE);
    socket.announce(Events::WRITABLE);
    Ok(())
}

/// Sets, or with AF_UNSPEC takes away, where datagrams go.
fn connect_datagram(socket: &UnixSocket, caller: &Caller, address: &[u8]) -> Result<()> {
    const AF_UNSPEC: u16 = 0;
    let family = address.first_chunk::<2>().ok_or(Errno::EINVAL)?;
    if u16::from_ne_bytes(*family) == AF_UNSPEC {
        let mut state = socket.state.lock();
        state.peer = None;
        state.connected = false;
        return Ok(());
    }
    let peer = names::find(caller, address, SocketKind::Datagram)?;
    if !peer.accepts_from(socket) {
        return Err(Errno::EPERM);
    }
    let credentials = peer.state.lock().own_credentials.clone();
    socket.state.lock().join(&peer, credentials);
    Ok(())
}

impl UnixSocket {
    /// Does this datagram socket take messages of `other`? (A connected one only those of its peer.)
    pub(super) fn accepts_from(&self, other: &UnixSocket) -> bool {
        let state = self.state.lock();
        state.peer.as_ref().is_none_or(|peer| alloc::sync::Weak::ptr_eq(peer, &other.me))
    }
}

pub(super) fn accept(socket: &UnixSocket, nonblocking: bool) -> Result<Arc<UnixSocket>> {
    if socket.is_datagram() {
        return Err(Errno::EOPNOTSUPP);
    }
    let deadline = socket.options.receive_deadline();
    let attempt = || {
        let mut state = socket.state.lock();
        let refused = socket.inbox.lock().refuses;
        let Some(backlog) = state.backlog.as_mut().filter(|_| !refused) else { return Some(Err(Errno::EINVAL)) };
        match backlog.waiting.pop_front() {
            Some(other) => Some(Ok(other)),
            None if nonblocking => Some(Err(Errno::EAGAIN)),
            None => None,
        }
    };
    let waited = socket.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
    let other = waited.map_err(|e| wait_error(e, deadline.is_some()))??;
    socket.room.wake_one();
    Ok(other)
}

pub(super) fn shutdown(socket: &UnixSocket, how: Shutdown) -> Result<()> {
    let peer = {
        let state = socket.state.lock();
        if !socket.is_datagram() && !state.connected && state.backlog.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.peer.as_ref().and_then(|peer| peer.upgrade())
    };
    if how.read {
        let mut inbox = socket.inbox.lock();
        inbox.refuses = true;
        inbox.ended = true;
    }
    if how.write {
        socket.mute.store(true, Ordering::Release);
    }
    // The other end of a connection notices; a datagram's destination has other senders.
    if let Some(peer) = peer.filter(|_| !socket.is_datagram()) {
        if how.write {
            peer.end(None);
        }
        if how.read {
            peer.announce(Events::WRITABLE | Events::HUP);
        }
    }
    socket.announce(Events::READABLE | Events::WRITABLE | Events::HUP);
    socket.room.wake_all();
    Ok(())
}

/// The last descriptor is gone.
pub(super) fn close(socket: &UnixSocket) {
    names::release(socket);
    socket.mute.store(true, Ordering::Release);
    let unread = {
        let mut inbox = socket.inbox.lock();
        inbox.refuses = true;
        inbox.ended = true;
        inbox.drain()
    };
    let (peer, backlog) = {
        let mut state = socket.state.lock();
        (state.peer.take().and_then(|peer| peer.upgrade()), state.backlog.take())
    };
    if let Some(peer) = peer.filter(|_| !socket.is_datagram()) {
        let reset = if unread.is_empty() { None } else { Some(Errno::ECONNRESET) };
        peer.state.lock().late_peer = Some(socket.name());
        peer.end(reset);
    }
    socket.room.wake_all();
    // Those who connected and were never accepted find the connection reset.
    for other in backlog.into_iter().flat_map(|backlog| backlog.waiting) {
        if let Some(client) = other.peer() {
            client.end(Some(Errno::ECONNRESET));
        }
        close_embryo(&other);
    }
    drop(unread);
}

/// Closes a connection that was never accepted: it has no backlog and no name of its own.
fn close_embryo(socket: &UnixSocket) {
    socket.mute.store(true, Ordering::Release);
    let unread = {
        let mut inbox = socket.inbox.lock();
        inbox.refuses = true;
        inbox.drain()
    };
    socket.room.wake_all();
    drop(unread);
}

impl UnixSocket {
    /// Has the other end of a connection gone, or refused to receive more?
    pub(super) fn peer_refuses(&self, peer: Option<&Arc<UnixSocket>>) -> bool {
        peer.is_none_or(|peer| peer.inbox.lock().refuses)
    }

    /// Is it connected, or was it once?
    pub(super) fn is_connected(&self) -> bool {
        self.state.lock().connected
    }

    /// Is it a listener with connections to accept?
    pub(super) fn has_waiting(&self) -> Option<bool> {
        self.state.lock().backlog.as_ref().map(|backlog| !backlog.waiting.is_empty())
    }

    /// The name that messages from here carry: none for streams, and none without an address.
    pub(super) fn sender_name(&self) -> alloc::vec::Vec<u8> {
        let named = self.kind != SocketKind::Stream && self.state.lock().address.is_some();
        if named { self.name() } else { alloc::vec::Vec::new() }
    }
}
