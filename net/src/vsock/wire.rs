//! Packets between sockets, and the loopback that carries them (virtio 1.2, section 5.10.6).
//!
//! A packet is put on the line under its socket's lock, which keeps packets in order; who has let go of the lock carries over what is there.
//! One thread does so at a time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use hal::sync::SpinLock;
use sched::Mutex;

use super::address::Address;
use super::{protocol, table};
use crate::socket::SocketKind;

/// What a packet is for, by virtio's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// A connection is asked for.
    Request = 1,
    /// It is accepted.
    Response = 2,
    /// There is no such connection (any more).
    Reset = 3,
    /// Its sender will not send, or not receive, any more.
    Shutdown = 4,
    /// Data.
    Data = 5,
    /// There is room again.
    CreditUpdate = 6,
}

/// The packet ends a message, and a record (of sockets of type SOCK_SEQPACKET).
pub(super) const END_OF_MESSAGE: u32 = 1;
pub(super) const END_OF_RECORD: u32 = 2;

/// A packet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) kind: SocketKind,
    pub(super) op: Op,
    /// Of data, what it ends; of a shutdown, which halves.
    pub(super) flags: u32,
    /// Bytes that the sender has room for, and how many it has taken out since the beginning.
    pub(super) space: u32,
    pub(super) taken: u32,
    pub(super) data: Vec<u8>,
}

static LINE: SpinLock<VecDeque<Packet>> = SpinLock::new(VecDeque::new());
/// Held by who carries packets over. Others wait for their turn, so that nobody carries theirs for as long as they send.
static CARRIER: Mutex<()> = Mutex::new(());
/// A request, its answer, and the refusal of that: nothing answers a refusal.
const ROUNDS: usize = 3;

/// Puts a packet on the line; false without memory for it.
pub(super) fn put(packet: Packet) -> bool {
    let mut line = LINE.lock();
    if line.try_reserve(1).is_err() {
        return false;
    }
    line.push_back(packet);
    true
}

/// Carries over what is on the line, and what comes of it; what others put there meanwhile is theirs to carry. No lock may be held. May sleep.
pub(super) fn run() {
    let _carrier = CARRIER.lock();
    for _ in 0..ROUNDS {
        let waiting = LINE.lock().len();
        for _ in 0..waiting {
            let Some(packet) = LINE.lock().pop_front() else { break };
            deliver(packet);
            sched::preempt_point();
        }
    }
}

fn deliver(packet: Packet) {
    let found = table::connected(packet.source, packet.destination).or_else(|| table::bound(packet.destination));
    match found.filter(|socket| socket.kind == packet.kind) {
        Some(socket) => protocol::receive(&socket, packet),
        None => refuse(&packet),
    }
}

/// Answers a packet that belongs to no connection.
pub(super) fn refuse(packet: &Packet) {
    if packet.op != Op::Reset {
        put(Packet {
            source: packet.destination,
            destination: packet.source,
            kind: packet.kind,
            op: Op::Reset,
            flags: 0,
            space: 0,
            taken: 0,
            data: Vec::new(),
        });
    }
}
