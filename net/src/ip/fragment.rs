//! Cutting packets that are too large, and putting pieces together: bounded in memory and time; pieces that overlap kill their packet (RFC 5722,
//! and for IPv4 as well).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, NANOS_PER_SEC, Nanos, Result};
use hal::sync::{Once, SpinLock};

use super::{Header, Outgoing, icmp, transmit, v4, v6};
use crate::alarm::{Alarm, Rings};
use crate::backlog;
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

/// Bytes that all pieces which wait may cost (`net.ipv4.ipfrag_high_thresh`).
pub(crate) static MEMORY_MAX: AtomicU32 = AtomicU32::new(4 << 20);
/// Seconds that pieces wait (`net.ipv4.ipfrag_time`).
pub(crate) static PATIENCE: AtomicU32 = AtomicU32::new(30);
/// What a piece costs besides its bytes.
const OVERHEAD: usize = 256;

type Key = (IpAddr, IpAddr, u8, u32);

struct Puzzle {
    /// When it began, and its number among those that began then: its place in the order of age.
    age: (Nanos, u64),
    /// What its pieces cost.
    cost: usize,
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
    /// The same by age.
    ages: BTreeMap<(Nanos, u64), Key>,
    begun: u64,
    cost: usize,
}

static PUZZLES: SpinLock<Puzzles> =
    SpinLock::new(Puzzles { open: BTreeMap::new(), ages: BTreeMap::new(), begun: 0, cost: 0 });

/// Ends those whose pieces don't come.
#[derive(Default)]
struct Clock {
    alarm: Alarm,
}

static CLOCK: Once<Arc<Clock>> = Once::new();

fn patience() -> Nanos {
    Nanos::from(PATIENCE.load(Ordering::Relaxed)) * NANOS_PER_SEC
}

/// Sends a packet in pieces of at most `most` bytes. `EMSGSIZE`.
pub(super) fn output(mut packet: Box<Packet>, out: &Outgoing, path: &Path, most: usize) -> Result<()> {
    super::finish_checksum(&mut packet, out);
    let v6 = out.source.is_ipv6();
    let overhead = out.header_len() + if v6 { 8 } else { 0 };
    let room = (most.checked_sub(overhead).ok_or(Errno::EMSGSIZE)?) & !7;
    if room == 0 || packet.len() > 65535 {
        return Err(Errno::EMSGSIZE);
    }
    let identity = if v6 { hal::random::word() as u32 } else { u32::from(v4::identity()) };
    let mut rest = packet.into_rope()?;
    let mut offset = 0;
    statistics::add_for(v6, Counter::IpFragOks, 1);
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
        statistics::add_for(v6, Counter::IpFragCreates, 1);
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
    let v6 = header.source.is_ipv6();
    statistics::add_for(v6, Counter::IpReasmReqds, 1);
    let now = sched::time::now();
    let key = (header.source, header.destination, header.protocol, piece.identity);
    let mut puzzles = PUZZLES.lock();
    let dropped = puzzles.shrink();
    let done = puzzles.take(now, key, packet, header, piece);
    let bad = if done.is_err() { puzzles.remove(&key) } else { None };
    if let Some((begun, _)) = puzzles.ages.first_key_value().map(|(age, _)| *age) {
        let clock = CLOCK.get_or_init(|| Arc::new(Clock::default()));
        clock.alarm.set(Some(begun + patience()), || Some(clock.clone()));
    }
    drop(puzzles);
    drop((dropped, bad));
    match done {
        Ok(None) => None,
        Ok(Some(puzzle)) => {
            let whole = puzzle.join();
            let counter = if whole.is_some() { Counter::IpReasmOks } else { Counter::IpReasmFails };
            statistics::add_for(v6, counter, 1);
            whole
        }
        Err(()) => {
            statistics::add_for(v6, Counter::IpReasmFails, 1);
            None
        }
    }
}

impl Rings for Clock {
    fn ring(self: Arc<Self>, now: Nanos) {
        let patience = patience();
        let mut late = Vec::new();
        let mut puzzles = PUZZLES.lock();
        self.alarm.rung(now);
        while let Some((&age, &key)) = puzzles.ages.first_key_value() {
            if age.0 + patience > now {
                self.alarm.set(Some(age.0 + patience), || Some(self.clone()));
                break;
            }
            late.extend(puzzles.remove(&key).map(|puzzle| (key.0.is_ipv6(), puzzle)));
        }
        drop(puzzles);
        for (v6, puzzle) in late {
            statistics::add_for(v6, Counter::IpReasmTimeout, 1);
            statistics::add_for(v6, Counter::IpReasmFails, 1);
            // Who sent it hears of it, if the piece is here that says who that was (RFC 792, RFC 8200, 4.5).
            if let Some((mut packet, header)) = puzzle.first {
                const PIECES_MISSING: u8 = 1;
                packet.pull(header.len);
                icmp::time_exceeded(&mut packet, &header, PIECES_MISSING);
            }
        }
        backlog::run();
    }
}

impl Puzzles {
    fn remove(&mut self, key: &Key) -> Option<Puzzle> {
        let puzzle = self.open.remove(key)?;
        self.ages.remove(&puzzle.age);
        self.cost -= puzzle.cost;
        Some(puzzle)
    }

    /// Drops the oldest while all together cost too much.
    fn shrink(&mut self) -> Vec<Puzzle> {
        let mut dropped = Vec::new();
        while self.cost > MEMORY_MAX.load(Ordering::Relaxed) as usize {
            let Some((_, &oldest)) = self.ages.first_key_value() else { break };
            dropped.extend(self.remove(&oldest));
            statistics::add_for(oldest.0.is_ipv6(), Counter::IpReasmFails, 1);
        }
        dropped
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
        let puzzle = self.open.entry(key).or_insert_with(|| {
            self.begun += 1;
            let age = (now, self.begun);
            self.ages.insert(age, key);
            Puzzle { age, cost: 0, parts: Vec::new(), bytes: 0, whole: None, first: None }
        });
        let at = puzzle.parts.partition_point(|(offset, _)| *offset < piece.offset);
        if puzzle.parts.get(at).is_some_and(|(offset, p)| *offset == piece.offset && p.len() == len) {
            // The same piece again is harmless.
            return Ok(None);
        }
        let before = at.checked_sub(1).and_then(|i| puzzle.parts.get(i)).map_or(0, |(offset, p)| offset + p.len());
        let overlaps = before > piece.offset || puzzle.parts.get(at).is_some_and(|(offset, _)| *offset < end);
        let beyond = puzzle.whole.is_some_and(|whole| end > whole || !piece.more && end != whole);
        if overlaps || beyond || puzzle.parts.try_reserve(1).is_err() {
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
        puzzle.cost += len + OVERHEAD;
        self.cost += len + OVERHEAD;
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
