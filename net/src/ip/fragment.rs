//! Cutting packets that are too large, and putting pieces together: bounded in memory and time; pieces that overlap kill their packet (RFC 5722,
//! and for IPv4 as well).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, NANOS_PER_SEC, Nanos, Result};
use hal::sync::SpinLock;

use super::{Header, Outgoing, header_len, transmit, v4, v6};
use crate::packet::{Packet, Rope};
use crate::route::Path;
use crate::statistics::{self, Counter};

/// Where a piece belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) identity: u32,
    pub(super) offset: usize,
    pub(super) more: bool,
}

/// Bytes of all pieces that wait (`net.ipv4.ipfrag_high_thresh`).
const MEMORY_MAX: usize = 4 << 20;
/// Pieces of one packet.
const PIECES_MAX: usize = 128;
/// How long pieces wait (`net.ipv4.ipfrag_time`).
const PATIENCE: Nanos = 30 * NANOS_PER_SEC;

type Key = (IpAddr, IpAddr, u8, u32);

struct Puzzle {
    since: Nanos,
    /// By offset, not overlapping.
    parts: Vec<(usize, Rope)>,
    bytes: usize,
    /// The length of the whole, once the last piece is here.
    whole: Option<usize>,
    /// The packet with offset 0, for its header.
    first: Option<(Box<Packet>, Header)>,
}

struct Puzzles {
    open: BTreeMap<Key, Puzzle>,
    bytes: usize,
}

static PUZZLES: SpinLock<Puzzles> = SpinLock::new(Puzzles { open: BTreeMap::new(), bytes: 0 });

/// Sends a packet in pieces of at most `most` bytes. `EMSGSIZE`.
pub(super) fn output(mut packet: Box<Packet>, out: &Outgoing, path: &Path, most: usize) -> Result<()> {
    super::finish_checksum(&mut packet, out);
    let v6 = out.source.is_ipv6();
    let overhead = header_len(out.source) + if v6 { 8 } else { 0 };
    let room = (most.checked_sub(overhead).ok_or(Errno::EMSGSIZE)?) & !7;
    if room == 0 || packet.len() > 65535 {
        return Err(Errno::EMSGSIZE);
    }
    let identity = if v6 { hal::random::word() as u32 } else { u32::from(v4::identity()) };
    let mut rest = packet.into_rope()?;
    let mut offset = 0;
    statistics::add(Counter::IpFragOks, 1);
    while !rest.is_empty() {
        let part = rest.split_to(room);
        let len = part.len();
        let more = !rest.is_empty();
        let mut packet = Packet::outgoing(part);
        match (out.source, out.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                v4::push(&mut packet, out, source, destination, Some((identity as u16, offset, more)))?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                v6::push_fragment(&mut packet, out.protocol, identity, offset, more)?;
                v6::push(&mut packet, &Outgoing { protocol: v6::FRAGMENT, ..*out }, source, destination)?;
            }
            _ => return Err(Errno::EAFNOSUPPORT),
        }
        statistics::add(Counter::IpFragCreates, 1);
        transmit(packet, path)?;
        offset += len;
    }
    Ok(())
}

/// Cuts a packet that has its IPv4 header (without options) and is being forwarded.
pub(super) fn again(mut packet: Box<Packet>, header: &Header, path: &Path) {
    let most = path.mtu();
    let Some(old) = packet.head().get(..header.len).map(<[u8]>::to_vec) else { return };
    packet.finish_checksum();
    packet.pull(header.len);
    let room = most.saturating_sub(header.len) & !7;
    let Ok(mut rest) = packet.into_rope() else { return };
    if room == 0 {
        return;
    }
    const MORE: u16 = 0x2000;
    let place = u16::from_be_bytes([old[6], old[7]]);
    let mut offset = place & 0x1fff;
    statistics::add(Counter::IpFragOks, 1);
    while !rest.is_empty() {
        let part = rest.split_to(room);
        let len = part.len();
        let more = !rest.is_empty() || place & MORE != 0;
        let mut piece = Packet::outgoing(part);
        let Ok(head) = piece.push(old.len()) else { return };
        head.copy_from_slice(&old);
        head[2..4].copy_from_slice(&((old.len() + len) as u16).to_be_bytes());
        head[6..8].copy_from_slice(&(offset | if more { MORE } else { 0 }).to_be_bytes());
        head[10..12].fill(0);
        let sum = crate::checksum::of(head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        statistics::add(Counter::IpFragCreates, 1);
        // A piece that is lost costs the whole, like any loss on the way.
        let _ = transmit(piece, path);
        offset += (len / 8) as u16;
    }
}

/// Takes a piece; the whole packet when it was the last one missing.
pub(super) fn input(packet: Box<Packet>, header: Header, piece: Piece) -> Option<(Box<Packet>, Header)> {
    statistics::add(Counter::IpReasmReqds, 1);
    let now = sched::time::now();
    let key = (header.source, header.destination, header.protocol, piece.identity);
    let mut puzzles = PUZZLES.lock();
    puzzles.forget_old(now);
    let done = puzzles.take(now, key, packet, header, piece);
    match done {
        Ok(None) => None,
        Ok(Some(puzzle)) => {
            drop(puzzles);
            let whole = puzzle.join();
            statistics::add(if whole.is_some() { Counter::IpReasmOks } else { Counter::IpReasmFails }, 1);
            whole
        }
        Err(()) => {
            puzzles.remove(&key);
            statistics::add(Counter::IpReasmFails, 1);
            None
        }
    }
}

impl Puzzles {
    fn remove(&mut self, key: &Key) -> Option<Puzzle> {
        let puzzle = self.open.remove(key)?;
        self.bytes -= puzzle.bytes;
        Some(puzzle)
    }

    fn forget_old(&mut self, now: Nanos) {
        let expired = |p: &Puzzle| now.saturating_sub(p.since) > PATIENCE;
        loop {
            let oldest = self.open.iter().min_by_key(|(_, p)| p.since).map(|(key, p)| (*key, expired(p)));
            match oldest {
                Some((key, old)) if old || self.bytes > MEMORY_MAX => {
                    self.remove(&key);
                    statistics::add(Counter::IpReasmFails, 1);
                }
                _ => return,
            }
        }
    }

    fn take(
        &mut self,
        now: Nanos,
        key: Key,
        packet: Box<Packet>,
        header: Header,
        piece: Piece,
    ) -> core::result::Result<Option<Puzzle>, ()> {
        let len = packet.len() - header.len;
        let end = piece.offset + len;
        if len == 0 || end > 65535 || piece.more && !len.is_multiple_of(8) {
            return Err(());
        }
        let fresh = || Puzzle { since: now, parts: Vec::new(), bytes: 0, whole: None, first: None };
        let puzzle = self.open.entry(key).or_insert_with(fresh);
        let at = puzzle.parts.partition_point(|(offset, _)| *offset < piece.offset);
        if puzzle.parts.get(at).is_some_and(|(offset, p)| *offset == piece.offset && p.len() == len) {
            // The same piece again is harmless.
            return Ok(None);
        }
        let before = at.checked_sub(1).and_then(|i| puzzle.parts.get(i)).map_or(0, |(offset, p)| offset + p.len());
        let overlaps = before > piece.offset || puzzle.parts.get(at).is_some_and(|(offset, _)| *offset < end);
        let beyond = puzzle.whole.is_some_and(|whole| end > whole || !piece.more && end != whole);
        if overlaps || beyond || puzzle.parts.len() >= PIECES_MAX {
            return Err(());
        }
        if !piece.more {
            if puzzle.parts.last().is_some_and(|(offset, p)| offset + p.len() > end) {
                return Err(());
            }
            puzzle.whole = Some(end);
        }
        let mut data = packet.clone();
        data.pull(header.len);
        let rope = Box::new(*data).into_rope().map_err(|_| ())?;
        puzzle.parts.insert(at, (piece.offset, rope));
        puzzle.bytes += len;
        self.bytes += len;
        if piece.offset == 0 {
            puzzle.first = Some((packet, header));
        }
        if puzzle.whole == Some(puzzle.bytes) { Ok(self.remove(&key)) } else { Ok(None) }
    }
}

impl Puzzle {
    fn join(self) -> Option<(Box<Packet>, Header)> {
        let (mut packet, header) = self.first?;
        packet.truncate(header.len);
        for (_, part) in self.parts {
            packet.payload.append(part);
        }
        Some((packet, header))
    }
}
