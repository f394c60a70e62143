//! Options at SOL_PACKET.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use mm::PageCache;

use super::ring::{Layout, Ring};
use super::{PacketSocket, fanout};
use crate::filter;
use crate::link::{self, interface::Appetite};
use crate::netlink::message::word_of;

pub(super) const SOL_PACKET: i32 = 263;
const ADD_MEMBERSHIP: i32 = 1;
const DROP_MEMBERSHIP: i32 = 2;
const RX_RING: i32 = 5;
const STATISTICS: i32 = 6;
const COPY_THRESH: i32 = 7;
pub(super) const AUXDATA: i32 = 8;
const ORIGDEV: i32 = 9;
const VERSION: i32 = 10;
const HDRLEN: i32 = 11;
const RESERVE: i32 = 12;
const TX_RING: i32 = 13;
const LOSS: i32 = 14;
const VNET_HDR: i32 = 15;
const TX_TIMESTAMP: i32 = 16;
const TIMESTAMP: i32 = 17;
const FANOUT: i32 = 18;
const TX_HAS_OFF: i32 = 19;
const QDISC_BYPASS: i32 = 20;
const ROLLOVER_STATS: i32 = 21;
const FANOUT_DATA: i32 = 22;
const IGNORE_OUTGOING: i32 = 23;

/// What an interface was asked to let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Membership {
    interface: u32,
    kind: u16,
    address: [u8; 8],
}

const MULTICAST: u16 = 0;
const PROMISCUOUS: u16 = 1;
const ALL_MULTICAST: u16 = 2;
const UNICAST: u16 = 3;

/// The counter of an interface that a membership of this kind is in.
fn count(interface: u32, kind: u16, more: bool) {
    let Some(interface) = link::by_index(interface) else { return };
    match kind {
        PROMISCUOUS => interface.want(Appetite::Everything, more),
        ALL_MULTICAST => interface.want(Appetite::AllGroups, more),
        _ => return,
    }
    interface.announce();
}

/// `struct packet_mreq`. `EINVAL`, `ENODEV`.
fn membership(socket: &PacketSocket, value: &[u8], add: bool) -> Result<()> {
    const MEMBERSHIPS_MAX: usize = 256;
    let raw: &[u8; 16] = value.first_chunk().ok_or(Errno::EINVAL)?;
    let wanted = Membership {
        interface: u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]),
        kind: u16::from_ne_bytes([raw[4], raw[5]]),
        address: [raw[8], raw[9], raw[10], raw[11], raw[12], raw[13], raw[14], raw[15]],
    };
    let mut all = socket.memberships.lock();
    if !add {
        let at = all.iter().position(|m| *m == wanted).ok_or(Errno::EADDRNOTAVAIL)?;
        all.remove(at);
        drop(all);
        count(wanted.interface, wanted.kind, false);
        return Ok(());
    }
    link::by_index(wanted.interface).ok_or(Errno::ENODEV)?;
    if usize::from(u16::from_ne_bytes([raw[6], raw[7]])) > 8 || !matches!(wanted.kind, MULTICAST..=UNICAST) {
        return Err(Errno::EINVAL);
    }
    if all.len() >= MEMBERSHIPS_MAX {
        return Err(Errno::ENOBUFS);
    }
    all.push(wanted);
    drop(all);
    count(wanted.interface, wanted.kind, true);
    Ok(())
}

/// The socket is closed: its memberships end.
pub(super) fn drop_memberships(socket: &PacketSocket) {
    let all = core::mem::take(&mut *socket.memberships.lock());
    all.iter().for_each(|m| count(m.interface, m.kind, false));
}

/// Makes a ring or takes it away. `EBUSY`, `EINVAL`, `ENOMEM`.
fn set_ring(socket: &PacketSocket, value: &[u8], sending: bool) -> Result<()> {
    let version = socket.flags.version.load(Ordering::Relaxed);
    let reserve = if sending { 0 } else { socket.flags.reserve.load(Ordering::Relaxed) };
    let layout = Layout::parse(value, version, reserve, sending)?;
    let mut memory = socket.memory.lock();
    let mut send_ring = socket.send_ring.lock();
    let (sends, receives) = (send_ring.clone(), socket.receive_ring.lock().clone());
    let (old, other) = if sending { (sends, receives) } else { (receives, sends) };
    if old.is_some() && layout.is_some() {
        return Err(Errno::EBUSY);
    }
    let first = other.as_ref().map_or(0, |ring| ring.layout.size());
    let mut put = |ring: Option<Arc<Ring>>| {
        if sending {
            *send_ring = ring;
        } else {
            *socket.receive_ring.lock() = ring;
        }
    };
    let Some(layout) = layout else {
        old.iter().for_each(|old| old.stop());
        if other.is_none() {
            *memory = None;
        }
        put(None);
        return Ok(());
    };
    // The receive ring comes first in the mapping: it has to be made first.
    if !sending && first != 0 {
        return Err(Errno::EBUSY);
    }
    let pages = memory.get_or_insert_with(PageCache::new).clone();
    pages.resize((first + layout.size()) as u64)?;
    put(Some(Ring::new(layout, &pages, first / PAGE_SIZE, socket)?));
    Ok(())
}

fn has_ring(socket: &PacketSocket) -> bool {
    socket.receive_ring.lock().is_some() || socket.send_ring.lock().is_some()
}

/// Sets an option. `EINVAL`, `EBUSY`, `ENOPROTOOPT`, ...
pub(super) fn set(socket: &PacketSocket, name: i32, value: &[u8]) -> Result<()> {
    let flags = &socket.flags;
    match name {
        ADD_MEMBERSHIP | DROP_MEMBERSHIP => return membership(socket, value, name == ADD_MEMBERSHIP),
        RX_RING | TX_RING => return set_ring(socket, value, name == TX_RING),
        FANOUT => {
            let word = word_of(value)?;
            let flags = (word >> 16) as u16 & 0xff00;
            // `struct fanout_args` also tells how many sockets there may be.
            let most = match value.len() {
                4 => 0,
                8 => word_of(&value[4..])?,
                _ => return Err(Errno::EINVAL),
            };
            return fanout::join(socket, word as u16, (word >> 16) as u8, flags, most as usize);
        }
        FANOUT_DATA => {
            let group = socket.group.lock().clone().ok_or(Errno::EINVAL)?;
            let raw: &[u8; 16] = value.first_chunk().ok_or(Errno::EINVAL)?;
            return group.set_program(filter::parse(raw)?);
        }
        _ => {}
    }
    let n = word_of(value)?;
    match name {
        VERSION if has_ring(socket) => return Err(Errno::EBUSY),
        VERSION if n > 2 => return Err(Errno::EINVAL),
        VERSION => flags.version.store(n, Ordering::Relaxed),
        RESERVE if has_ring(socket) => return Err(Errno::EBUSY),
        RESERVE if n > i32::MAX as u32 / 2 => return Err(Errno::EINVAL),
        RESERVE => flags.reserve.store(n, Ordering::Relaxed),
        LOSS if has_ring(socket) => return Err(Errno::EBUSY),
        LOSS => flags.loss.store(n != 0, Ordering::Relaxed),
        AUXDATA => flags.auxiliary.store(n != 0, Ordering::Relaxed),
        ORIGDEV => flags.original_device.store(n != 0, Ordering::Relaxed),
        VNET_HDR if has_ring(socket) => return Err(Errno::EBUSY),
        VNET_HDR => flags.vnet_header.store(n != 0, Ordering::Relaxed),
        TIMESTAMP => flags.time.store(n, Ordering::Relaxed),
        QDISC_BYPASS => flags.bypass.store(n != 0, Ordering::Relaxed),
        IGNORE_OUTGOING if n > 1 => return Err(Errno::EINVAL),
        IGNORE_OUTGOING => flags.ignore_outgoing.store(n != 0, Ordering::Relaxed),
        // Packets are never handed over twice, and begin where the header says.
        COPY_THRESH | TX_TIMESTAMP => {}
        TX_HAS_OFF if n == 0 => {}
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// An option; `given` is what the program's buffer has. `ENOPROTOOPT`, `EINVAL`.
pub(super) fn get(socket: &PacketSocket, name: i32, given: &[u8]) -> Result<Vec<u8>> {
    let flags = &socket.flags;
    let value: u32 = match name {
        STATISTICS => {
            let counts = &socket.counts;
            let take = |counter: &core::sync::atomic::AtomicU32| counter.swap(0, Ordering::Relaxed);
            let mut words = alloc::vec![take(&counts.packets), take(&counts.drops)];
            if flags.version.load(Ordering::Relaxed) == 2 {
                words.push(take(&counts.freezes));
            }
            return Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect());
        }
        AUXDATA => flags.auxiliary.load(Ordering::Relaxed).into(),
        ORIGDEV => flags.original_device.load(Ordering::Relaxed).into(),
        VERSION => flags.version.load(Ordering::Relaxed),
        RESERVE => flags.reserve.load(Ordering::Relaxed),
        LOSS => flags.loss.load(Ordering::Relaxed).into(),
        VNET_HDR => flags.vnet_header.load(Ordering::Relaxed).into(),
        TIMESTAMP => flags.time.load(Ordering::Relaxed),
        FANOUT => socket.group.lock().as_ref().map_or(0, |group| group.describe()),
        TX_HAS_OFF => 0,
        QDISC_BYPASS => flags.bypass.load(Ordering::Relaxed).into(),
        IGNORE_OUTGOING => flags.ignore_outgoing.load(Ordering::Relaxed).into(),
        ROLLOVER_STATS => {
            let rolls = socket.group.lock().as_ref().is_some_and(|group| group.rolls_over());
            return if rolls { Ok(socket.rollover.lock().statistics()) } else { Err(Errno::EINVAL) };
        }
        // The bytes of a frame's header, of the version that is asked for.
        HDRLEN => match word_of(given)? {
            0 | 1 => 32,
            2 => 48,
            _ => return Err(Errno::EINVAL),
        },
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(value.to_ne_bytes().to_vec())
}
