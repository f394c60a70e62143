//! Neighbours: the hardware addresses of those on the same link, found by ARP or neighbour discovery, with packets that wait for them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use base::{NANOS_PER_SEC, Nanos};
use hal::sync::{Once, SpinLock};

use super::{Interface, Medium, arp, by_index, discovery, ethernet};
use crate::alarm::{Alarm, Rings};
use crate::backlog;
use crate::hash::{BuildKeyed, Table};
use crate::ip::{Header, icmp};
use crate::packet::Packet;

/// An address is trusted for so long after it was last confirmed.
const REACHABLE: Nanos = 30 * NANOS_PER_SEC;
/// Questions to everyone before a neighbour counts as unreachable.
const TRIES: u32 = 3;
/// Packets that wait for one neighbour.
const WAITING_MAX: usize = 101;
/// Neighbours that are kept (`gc_thresh3`).
const MAX: usize = 1024;

struct Entry {
    mac: Option<[u8; 6]>,
    confirmed: Nanos,
    /// When the last question went out, and how many did since the last answer.
    asked: Nanos,
    tries: u32,
    waiting: VecDeque<Box<Packet>>,
}

static NEIGHBOURS: SpinLock<Table<(u32, IpAddr), Entry>> = SpinLock::new(Table::with_hasher(BuildKeyed));

/// Asks again while answers are missing.
#[derive(Default)]
struct Clock {
    alarm: Alarm,
}

static CLOCK: Once<Arc<Clock>> = Once::new();

fn start_clock(now: Nanos) {
    let clock = CLOCK.get_or_init(|| Arc::new(Clock::default()));
    clock.alarm.set(Some(now + NANOS_PER_SEC), || Some(clock.clone()));
}

fn ask(interface: &Interface, ip: IpAddr, last: Option<[u8; 6]>) {
    match ip {
        IpAddr::V4(v4) => arp::request(interface, v4, last),
        IpAddr::V6(v6) => discovery::solicit(interface, v6),
    }
}

/// Sends a packet to a neighbour, as soon as its address is known.
pub(super) fn send(interface: &Interface, packet: Box<Packet>, to: IpAddr) {
    let Medium::Ethernet(ethernet) = &interface.medium else { return };
    let kind = ethernet::type_of(&packet);
    if let Some(mac) = ethernet::group_address(to, interface) {
        ethernet.send(interface, packet, mac, kind);
        return;
    }
    let now = sched::time::now();
    let mut neighbours = NEIGHBOURS.lock();
    if neighbours.len() >= MAX && !neighbours.contains_key(&(interface.index, to)) {
        // The one that was not heard of for longest makes room.
        let oldest = neighbours.iter().min_by_key(|(_, e)| e.confirmed.max(e.asked)).map(|(key, _)| *key);
        oldest.map(|key| neighbours.remove(&key));
    }
    let fresh = || Entry { mac: None, confirmed: 0, asked: 0, tries: 0, waiting: VecDeque::new() };
    let entry = neighbours.entry((interface.index, to)).or_insert_with(fresh);
    let old = now.saturating_sub(entry.confirmed) > REACHABLE;
    let patient = entry.asked == 0 || now.saturating_sub(entry.asked) > NANOS_PER_SEC;
    let question = (entry.mac.is_none() || old) && patient;
    let mac = entry.mac;
    if question {
        entry.asked = now;
        entry.tries += 1;
    }
    let packet = match mac {
        Some(_) => Some(packet),
        None => {
            if entry.waiting.len() >= WAITING_MAX {
                entry.waiting.pop_front();
            }
            entry.waiting.push_back(packet);
            None
        }
    };
    drop(neighbours);
    if let (Some(packet), Some(mac)) = (packet, mac) {
        ethernet.send(interface, packet, mac, kind);
    }
    if question {
        ask(interface, to, mac);
        start_clock(now);
    }
}

/// A neighbour has told its address. `add`: remember it even if nobody asked.
pub(super) fn learn(interface: &Interface, ip: IpAddr, mac: [u8; 6], add: bool) {
    let now = sched::time::now();
    let mut neighbours = NEIGHBOURS.lock();
    let known = neighbours.contains_key(&(interface.index, ip));
    if !known && (!add || neighbours.len() >= MAX) {
        return;
    }
    let fresh = || Entry { mac: None, confirmed: 0, asked: now, tries: 0, waiting: VecDeque::new() };
    let entry = neighbours.entry((interface.index, ip)).or_insert_with(fresh);
    entry.mac = Some(mac);
    entry.confirmed = now;
    entry.tries = 0;
    let waiting = core::mem::take(&mut entry.waiting);
    drop(neighbours);
    let Medium::Ethernet(ethernet) = &interface.medium else { return };
    for packet in waiting {
        let kind = ethernet::type_of(&packet);
        ethernet.send(interface, packet, mac, kind);
    }
}

impl Rings for Clock {
    fn ring(self: Arc<Self>, now: Nanos) {
        self.alarm.rung(now);
        let mut again: Vec<(u32, IpAddr, Option<[u8; 6]>)> = Vec::new();
        let mut failed = Vec::new();
        let mut neighbours = NEIGHBOURS.lock();
        for (&(interface, ip), entry) in neighbours.iter_mut() {
            if entry.tries == 0 || now.saturating_sub(entry.asked) < NANOS_PER_SEC {
                continue;
            }
            if entry.tries >= TRIES {
                entry.tries = 0;
                entry.mac = None;
                failed.extend(core::mem::take(&mut entry.waiting));
            } else {
                entry.tries += 1;
                entry.asked = now;
                again.push((interface, ip, entry.mac));
            }
        }
        drop(neighbours);
        for (index, ip, mac) in &again {
            if let Some(interface) = by_index(*index) {
                ask(&interface, *ip, *mac);
            }
        }
        if !again.is_empty() {
            start_clock(now);
        }
        failed.into_iter().for_each(give_up);
        backlog::run();
    }
}

/// Tells the sender of a packet that its neighbour does not answer.
fn give_up(mut packet: Box<Packet>) {
    if let Some(header) = crate::ip::quoted_header(&packet) {
        packet.pull(header.len);
        let header: Header = header;
        icmp::unreachable(&mut packet, &header, icmp::Unreachable::Host);
    }
}

/// What is known, for tables: interface, address, hardware address.
pub(crate) fn all() -> Vec<(u32, IpAddr, Option<[u8; 6]>)> {
    NEIGHBOURS.lock().iter().map(|(&(interface, ip), entry)| (interface, ip, entry.mac)).collect()
}
