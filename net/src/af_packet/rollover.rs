//! What a full socket of a fan-out group leaves to others (PACKET_FANOUT_ROLLOVER, PACKET_FANOUT_FLAG_ROLLOVER).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::PacketSocket;
use crate::packet::Packet;

/// How much more a socket takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// Nothing.
    None,
    /// Something, but more than three quarters are full.
    Low,
    /// Enough.
    Normal,
}

/// The flows of the last packets that a socket had little room for.
const HISTORY: usize = 16;

/// What a socket knows of those who stand in for it.
#[derive(Default)]
pub(super) struct Rollover {
    /// Who took the last packet.
    next: usize,
    history: [u32; HISTORY],
    /// Packets that others took, those of them of large flows, and those for which there was nobody (`struct tpacket_rollover_stats`).
    counts: [u64; 3],
}

impl Rollover {
    /// PACKET_ROLLOVER_STATS.
    pub(super) fn statistics(&self) -> Vec<u8> {
        self.counts.map(u64::to_ne_bytes).concat()
    }

    /// Does a packet's flow make up most of what came lately? A large one goes elsewhere before the socket is full, so that small ones stay whole.
    fn is_large(&mut self, packet: &Packet) -> bool {
        let flow = packet.flow_hash();
        let seen = self.history.iter().filter(|&&other| other == flow).count();
        self.history[hal::random::word() as usize % HISTORY] = flow;
        seen > HISTORY / 2
    }
}

impl PacketSocket {
    /// How much it still takes.
    fn room(&self) -> Room {
        let ring = self.receive_ring.lock().clone();
        if let Some(ring) = ring {
            return ring.room();
        }
        let limit = self.options.receive_buffer.load(Ordering::Relaxed);
        match limit.saturating_sub(self.queue.lock().bytes()) {
            0 => Room::None,
            left if left <= limit / 4 => Room::Low,
            _ => Room::Normal,
        }
    }
}

/// The member that takes a packet in the place of the one that was chosen, if that one is too full: the next one with enough room, else the
/// chosen one after all. With `always`, the chosen one comes after all others.
pub(super) fn choose(members: &[Arc<PacketSocket>], chosen: usize, always: bool, packet: &Packet) -> usize {
    let socket = &members[chosen];
    let room = if always { Room::None } else { socket.room() };
    let mut rollover = socket.rollover.lock();
    if room == Room::Normal || room == Room::Low && !rollover.is_large(packet) {
        return chosen;
    }
    let first = rollover.next.min(members.len() - 1);
    let mut candidates = (first..members.len()).chain(0..first);
    let fits = |&at: &usize| (always || at != chosen) && members[at].room() == Room::Normal;
    match candidates.find(fits) {
        Some(at) => {
            rollover.next = at;
            rollover.counts[0] += 1;
            rollover.counts[1] += u64::from(room == Room::Low);
            at
        }
        None => {
            rollover.counts[2] += 1;
            chosen
        }
    }
}
