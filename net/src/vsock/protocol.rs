//! The life of a connection: what packets change, and what goes out.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, NANOS_PER_SEC, Nanos};

use super::address::{Address, LOCAL};
use super::wire::{self, Op, Packet};
use super::{VsockSocket, table};
use crate::socket::SocketKind;

/// Halves of a connection, as in a packet of a shutdown.
pub(super) const RECEIVE: u32 = 1;
pub(super) const SEND: u32 = 2;
const BOTH: u32 = RECEIVE | SEND;

/// Where a socket is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Neither connected nor listening.
    Closed,
    /// Asked for a connection.
    Connecting,
    /// Connected.
    Established,
    /// The connection has ended, and everything was received.
    Closing,
    /// A listener.
    Listening,
}

/// Received data.
pub(super) struct Chunk {
    pub(super) data: Vec<u8>,
    /// How much of it was read.
    pub(super) read: usize,
    pub(super) flags: u32,
}

/// What the lock of a socket protects.
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) local: Address,
    pub(super) remote: Address,
    /// Halves that are shut down here, and at the other end.
    pub(super) shut: u32,
    pub(super) peer_shut: u32,
    /// The other end has told that the connection is over.
    pub(super) done: bool,
    pub(super) error: Option<Errno>,
    pub(super) inbox: VecDeque<Chunk>,
    /// Bytes in it.
    pub(super) bytes: usize,
    /// Connections that wait to be accepted, and how many may.
    pub(super) waiting: VecDeque<Arc<VsockSocket>>,
    pub(super) backlog: usize,
    /// SO_VM_SOCKETS_BUFFER_SIZE, and its bounds.
    pub(super) size: u64,
    pub(super) least: u64,
    pub(super) most: u64,
    /// SO_VM_SOCKETS_CONNECT_TIMEOUT in nanoseconds.
    pub(super) patience: Nanos,
    /// Bytes taken out of the inbox since the beginning, and as the other end was told last.
    taken: u32,
    told: u32,
    /// Bytes sent since the beginning, and what the other end said of its room.
    sent: u32,
    peer_space: u32,
    peer_taken: u32,
}

/// The most bytes that pieces of a stream are joined to.
const JOINED_MAX: usize = 4096;

/// The default of a buffer's size and of the most that it can be set to, the least, and how long connect(2) waits.
const SIZE: u64 = 256 << 10;
const LEAST: u64 = 128;
pub(super) const PATIENCE: Nanos = 2 * NANOS_PER_SEC;

impl State {
    pub(super) const fn new() -> State {
        State {
            phase: Phase::Closed,
            local: Address::UNSPECIFIED,
            remote: Address::UNSPECIFIED,
            shut: 0,
            peer_shut: 0,
            done: false,
            error: None,
            inbox: VecDeque::new(),
            bytes: 0,
            waiting: VecDeque::new(),
            backlog: 0,
            size: SIZE,
            least: LEAST,
            most: SIZE,
            patience: PATIENCE,
            taken: 0,
            told: 0,
            sent: 0,
            peer_space: 0,
            peer_taken: 0,
        }
    }

    /// At the begin of a connection, with the settings of this one.
    pub(super) fn fresh(&self, phase: Phase, local: Address, remote: Address) -> State {
        let (size, least, most, patience) = (self.size, self.least, self.most, self.patience);
        State { phase, local, remote, size, least, most, patience, ..State::new() }
    }

    fn space(&self) -> u32 {
        u32::try_from(self.size).unwrap_or(u32::MAX)
    }

    /// Bytes that the other end has room for.
    pub(super) fn credit(&self) -> usize {
        self.peer_space.saturating_sub(self.sent.wrapping_sub(self.peer_taken)) as usize
    }

    /// The most that it will ever have room for at once.
    pub(super) fn peer_size(&self) -> usize {
        self.peer_space as usize
    }

    /// Bytes that were sent and not received yet.
    pub(super) fn unread(&self) -> usize {
        self.sent.wrapping_sub(self.peer_taken) as usize
    }

    /// Takes room for so many bytes, or gives it back.
    pub(super) fn reserve(&mut self, len: usize) {
        self.sent = self.sent.wrapping_add(len as u32);
    }

    pub(super) fn give_back(&mut self, len: usize) {
        self.sent = self.sent.wrapping_sub(len as u32);
    }

    /// Puts a packet for the other end on the line; false without memory for it.
    pub(super) fn put(&mut self, kind: SocketKind, op: Op, flags: u32, data: Vec<u8>) -> bool {
        self.told = self.taken;
        wire::put(Packet {
            source: Address { cid: LOCAL, port: self.local.port },
            destination: self.remote,
            kind,
            op,
            flags,
            space: self.space(),
            taken: self.taken,
            data,
        })
    }

    /// So many bytes were read. The other end hears of the room when it may need it.
    pub(super) fn took(&mut self, kind: SocketKind, len: usize) {
        self.bytes -= len;
        self.taken = self.taken.wrapping_add(len as u32);
        let untold = self.taken.wrapping_sub(self.told);
        if self.phase == Phase::Established && (untold >= self.space() / 4 || self.bytes == 0 && untold > 0) {
            self.put(kind, Op::CreditUpdate, 0, Vec::new());
        }
    }

    /// Adds the data of a stream to what came last, if both are small: many small pieces would take far more memory than was granted for
    /// them.
    fn joins_last(&mut self, data: &[u8]) -> bool {
        let Some(last) = self.inbox.back_mut().filter(|last| last.data.len() + data.len() <= JOINED_MAX) else {
            return false;
        };
        let room = last.data.try_reserve(data.len()).is_ok();
        if room {
            last.data.extend_from_slice(data);
        }
        room
    }

    /// Adds a packet of data; false without memory for it.
    fn takes(&mut self, packet: Packet) -> bool {
        let room = self.inbox.try_reserve(1).is_ok();
        if room {
            self.inbox.push_back(Chunk { data: packet.data, read: 0, flags: packet.flags });
        }
        room
    }

    /// The connection is over.
    fn finish(&mut self) {
        self.done = true;
        self.peer_shut = BOTH;
        if self.inbox.is_empty() {
            self.phase = Phase::Closing;
        }
    }

    fn fail(&mut self, error: Errno) {
        self.phase = Phase::Closed;
        self.error = Some(error);
    }
}

/// A packet for a socket.
pub(super) fn receive(socket: &Arc<VsockSocket>, packet: Packet) {
    let mut state = socket.state.lock();
    match state.phase {
        Phase::Listening => {
            drop(state);
            return on_request(socket, &packet);
        }
        Phase::Connecting => on_answer(socket, &mut state, &packet),
        Phase::Established => on_connected(socket, &mut state, packet),
        Phase::Closing if packet.op == Op::Reset => state.done = true,
        Phase::Closing => {}
        Phase::Closed => wire::refuse(&packet),
    }
    drop(state);
    socket.announce(Events::READABLE | Events::WRITABLE | Events::HUP | Events::RDHUP | Events::ERR);
}

fn on_answer(socket: &VsockSocket, state: &mut State, packet: &Packet) {
    (state.peer_space, state.peer_taken) = (packet.space, packet.taken);
    match packet.op {
        Op::Response => {
            state.phase = Phase::Established;
            table::connect(socket, state.remote, state.local);
        }
        Op::Reset => state.fail(Errno::ECONNRESET),
        _ => {
            wire::refuse(packet);
            state.fail(Errno::EPROTO);
        }
    }
}

fn on_connected(socket: &VsockSocket, state: &mut State, packet: Packet) {
    (state.peer_space, state.peer_taken) = (packet.space, packet.taken);
    match packet.op {
        Op::Data => {
            // A sender that exceeds what it was granted loses it.
            if state.bytes + packet.data.len() > state.space() as usize {
                return;
            }
            let len = packet.data.len();
            if (socket.kind == SocketKind::Stream && state.joins_last(&packet.data)) || state.takes(packet) {
                state.bytes += len;
            }
        }
        Op::Shutdown => {
            state.peer_shut |= packet.flags & BOTH;
            if state.peer_shut == BOTH && state.inbox.is_empty() {
                state.put(socket.kind, Op::Reset, 0, Vec::new());
                state.finish();
            }
        }
        Op::Reset => state.finish(),
        Op::CreditUpdate | Op::Request | Op::Response => {}
    }
}

/// Someone asks a listener for a connection.
fn on_request(listener: &Arc<VsockSocket>, packet: &Packet) {
    let mut state = listener.state.lock();
    let full = state.waiting.len() > state.backlog || state.waiting.try_reserve(1).is_err();
    if packet.op != Op::Request || full || state.phase != Phase::Listening {
        return wire::refuse(packet);
    }
    let mut born = state.fresh(Phase::Established, packet.destination, packet.source);
    (born.peer_space, born.peer_taken) = (packet.space, packet.taken);
    born.put(listener.kind, Op::Response, 0, Vec::new());
    let child = VsockSocket::new(listener.kind, born);
    child.options.inherit(&listener.options);
    table::connect(&child, packet.source, packet.destination);
    state.waiting.push_back(child);
    drop(state);
    listener.announce(Events::READABLE);
}
