//! Neighbours: the hardware addresses of those on the same link, found by ARP or neighbour discovery, with packets that wait for them. An entry goes
//! through Linux's states (RFC 4861, 7.3.2, for both families).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, NANOS_PER_SEC, Nanos, Result};
use hal::sync::{Once, SpinLock};

use super::{Interface, arp, by_index, discovery, ethernet, flag};
use crate::alarm::{Alarm, Rings};
use crate::hash::{BuildKeyed, Table};
use crate::ip::{Header, icmp};
use crate::packet::Packet;
use crate::{backlog, netlink};

/// NUD_* states.
#[allow(missing_docs, reason = "rtnetlink(7) names them")]
pub mod state {
    pub const INCOMPLETE: u16 = 1;
    pub const REACHABLE: u16 = 2;
    pub const STALE: u16 = 4;
    pub const DELAY: u16 = 8;
    pub const PROBE: u16 = 0x10;
    pub const FAILED: u16 = 0x20;
    pub const NOARP: u16 = 0x40;
    pub const PERMANENT: u16 = 0x80;
    /// Those in which the address is used.
    pub const VALID: u16 = REACHABLE | STALE | DELAY | PROBE | NOARP | PERMANENT;
}

/// An address is trusted for so long after it was last confirmed.
const REACHABLE: Nanos = 30 * NANOS_PER_SEC;
/// How long a stale one is used before its owner is asked.
const DELAY: Nanos = 5 * NANOS_PER_SEC;
/// Questions before a neighbour counts as unreachable.
const TRIES: u32 = 3;
/// Packets that wait for one neighbour, and their bytes (`unres_qlen`, `unres_qlen_bytes`).
const WAITING_MAX: usize = 101;
const WAITING_BYTES_MAX: usize = 212_992;
/// Neighbours that are kept (`gc_thresh3`).
const MAX: usize = 1024;

struct Entry {
    mac: [u8; 6],
    state: u16,
    /// When it was last confirmed, used, and changed.
    confirmed: Nanos,
    used: Nanos,
    updated: Nanos,
    /// When the last question went out, and how many did since the last answer.
    asked: Nanos,
    tries: u32,
    /// NTF_*.
    flags: u8,
    waiting: VecDeque<Box<Packet>>,
}

impl Entry {
    fn new(now: Nanos) -> Entry {
        Entry {
            mac: [0; 6],
            state: 0,
            confirmed: 0,
            used: now,
            updated: now,
            asked: 0,
            tries: 0,
            flags: 0,
            waiting: VecDeque::new(),
        }
    }

    fn enter(&mut self, state: u16, now: Nanos) {
        self.state = state;
        self.updated = now;
    }

    /// A confirmation ages.
    fn age(&mut self, now: Nanos) {
        if self.state == state::REACHABLE && now.saturating_sub(self.confirmed) > REACHABLE {
            self.enter(state::STALE, now);
        }
    }

    /// Was it confirmed within the time that a doubt lasts?
    fn is_fresh(&self, now: Nanos) -> bool {
        now.saturating_sub(self.confirmed) <= DELAY
    }

    fn is_fixed(&self) -> bool {
        self.state & (state::PERMANENT | state::NOARP) != 0
    }

    fn shown(&self, interface: u32, ip: IpAddr) -> Neighbour {
        Neighbour {
            interface,
            ip,
            mac: (self.state & state::VALID != 0).then_some(self.mac),
            state: self.state,
            flags: self.flags,
            confirmed: self.confirmed,
            used: self.used,
            updated: self.updated,
            tries: self.tries,
        }
    }
}

/// What is known of a neighbour.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// On the link of this interface.
    pub interface: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// NUD_*.
    pub state: u16,
    /// NTF_*.
    pub flags: u8,
    /// When it was last confirmed, used, and changed.
    pub confirmed: Nanos,
    /// Used.
    pub used: Nanos,
    /// Changed.
    pub updated: Nanos,
    /// Questions without an answer.
    pub tries: u32,
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

/// Makes room where there are as many as may be: the one that was not used for longest goes.
fn make_room(neighbours: &mut Table<(u32, IpAddr), Entry>, key: &(u32, IpAddr)) {
    if neighbours.len() >= MAX && !neighbours.contains_key(key) {
        let loose = neighbours.iter().filter(|(_, e)| !e.is_fixed());
        let oldest = loose.min_by_key(|(_, e)| e.confirmed.max(e.used)).map(|(key, _)| *key);
        oldest.map(|key| neighbours.remove(&key));
    }
}

/// Sends a packet to a neighbour, as soon as its address is known.
pub(super) fn send(interface: &Interface, packet: Box<Packet>, to: IpAddr) {
    let kind = ethernet::type_of(&packet);
    if let Some(mac) = ethernet::group_address(to, interface) {
        ethernet::send(interface, packet, mac, kind);
        return;
    }
    if interface.flags() & flag::NOARP != 0 {
        let mac = interface.mac();
        ethernet::send(interface, packet, mac, kind);
        return;
    }
    let now = sched::time::now();
    let key = (interface.index, to);
    let mut neighbours = NEIGHBOURS.lock();
    make_room(&mut neighbours, &key);
    let entry = neighbours.entry(key).or_insert_with(|| Entry::new(now));
    entry.age(now);
    entry.used = now;
    if entry.state == state::STALE {
        entry.enter(state::DELAY, now);
        start_clock(now);
    }
    if entry.state & state::VALID != 0 {
        let mac = entry.mac;
        drop(neighbours);
        ethernet::send(interface, packet, mac, kind);
        return;
    }
    let first = entry.state != state::INCOMPLETE;
    if first {
        entry.enter(state::INCOMPLETE, now);
        entry.asked = now;
        entry.tries = 1;
    }
    let bytes = |waiting: &VecDeque<Box<Packet>>| waiting.iter().map(|waiting| waiting.len()).sum::<usize>();
    while entry.waiting.len() >= WAITING_MAX
        || !entry.waiting.is_empty() && bytes(&entry.waiting) + packet.len() > WAITING_BYTES_MAX
    {
        entry.waiting.pop_front();
        interface.counts.dropped();
    }
    entry.waiting.push_back(packet);
    drop(neighbours);
    if first {
        ask(interface, to, None);
        start_clock(now);
    }
}

/// What a message says about its sender's hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// It answers a question.
    Answer,
    /// It came by itself, for instance with a question.
    Mention,
}

/// A neighbour has told its address. `add`: remember it even if nobody asked.
pub(super) fn learn(interface: &Interface, ip: IpAddr, mac: [u8; 6], add: bool, word: Word) {
    let now = sched::time::now();
    let key = (interface.index, ip);
    let mut neighbours = NEIGHBOURS.lock();
    if !neighbours.contains_key(&key) && !add {
        return;
    }
    make_room(&mut neighbours, &key);
    let entry = neighbours.entry(key).or_insert_with(|| Entry::new(now));
    if entry.is_fixed() {
        return;
    }
    let moved = entry.mac != mac || entry.state & state::VALID == 0;
    let before = entry.state;
    match word {
        Word::Answer => {
            entry.confirmed = now;
            entry.enter(state::REACHABLE, now);
        }
        Word::Mention if moved => entry.enter(state::STALE, now),
        Word::Mention => {}
    }
    entry.mac = mac;
    entry.tries = 0;
    let waiting = core::mem::take(&mut entry.waiting);
    let shown = (moved || before != entry.state).then(|| entry.shown(interface.index, ip));
    drop(neighbours);
    for packet in waiting {
        let kind = ethernet::type_of(&packet);
        ethernet::send(interface, packet, mac, kind);
    }
    if let Some(shown) = shown {
        netlink::neighbour::announce(&shown, false);
    }
}

/// Somebody beyond a neighbour was heard by what it has passed on: it is there (RFC 4861, 7.3.1). What that makes of its state shows when it is
/// next in doubt.
pub fn confirm(interface: &Interface, ip: IpAddr, now: Nanos) {
    if let Some(entry) = NEIGHBOURS.lock().get_mut(&(interface.index, ip)).filter(|e| e.state & state::VALID != 0) {
        entry.confirmed = now;
    }
}

/// What a second brings for an entry.
enum Tick {
    Nothing,
    Watch,
    Ask(Option<[u8; 6]>),
    Fail,
}

impl Entry {
    fn tick(&mut self, now: Nanos) -> Tick {
        match self.state {
            state::DELAY if now.saturating_sub(self.updated) < DELAY => Tick::Watch,
            state::DELAY | state::PROBE if self.is_fresh(now) => {
                self.enter(state::REACHABLE, now);
                Tick::Nothing
            }
            state::DELAY => {
                self.enter(state::PROBE, now);
                (self.tries, self.asked) = (1, now);
                Tick::Ask(Some(self.mac))
            }
            state::INCOMPLETE | state::PROBE if now.saturating_sub(self.asked) + 1_000_000 < NANOS_PER_SEC => {
                Tick::Watch
            }
            state::INCOMPLETE | state::PROBE if self.tries >= TRIES => {
                self.enter(state::FAILED, now);
                Tick::Fail
            }
            state::INCOMPLETE | state::PROBE => {
                self.tries += 1;
                self.asked = now;
                Tick::Ask((self.state == state::PROBE).then_some(self.mac))
            }
            _ => Tick::Nothing,
        }
    }
}

impl Rings for Clock {
    fn ring(self: Arc<Self>, now: Nanos) {
        self.alarm.rung(now);
        let mut questions: Vec<(u32, IpAddr, Option<[u8; 6]>)> = Vec::new();
        let mut failed = Vec::new();
        let mut changed = Vec::new();
        let mut again = false;
        let mut neighbours = NEIGHBOURS.lock();
        for (&(interface, ip), entry) in neighbours.iter_mut() {
            let before = entry.state;
            match entry.tick(now) {
                Tick::Nothing => {}
                Tick::Watch => again = true,
                Tick::Ask(mac) => {
                    again = true;
                    questions.push((interface, ip, mac));
                }
                Tick::Fail => failed.extend(core::mem::take(&mut entry.waiting)),
            }
            if entry.state != before {
                changed.push(entry.shown(interface, ip));
            }
        }
        drop(neighbours);
        for (index, ip, mac) in &questions {
            if let Some(interface) = by_index(*index) {
                ask(&interface, *ip, *mac);
            }
        }
        if again {
            start_clock(now);
        }
        changed.iter().for_each(|neighbour| netlink::neighbour::announce(neighbour, false));
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

/// What is known, for tables.
pub fn all() -> Vec<Neighbour> {
    let now = sched::time::now();
    let mut neighbours = NEIGHBOURS.lock();
    let mut out: Vec<Neighbour> = neighbours
        .iter_mut()
        .map(|(&(interface, ip), entry)| {
            entry.age(now);
            entry.shown(interface, ip)
        })
        .filter(|neighbour| neighbour.state != 0)
        .collect();
    out.sort_by_key(|n| (n.ip.is_ipv6(), n.interface, n.ip));
    out
}

/// Sets what is known of a neighbour (`ip neigh add`, `change`, `replace`). `EEXIST`, `ENOENT`, `EINVAL`.
pub fn set(new: &Neighbour, create: bool, exclusive: bool) -> Result<()> {
    let now = sched::time::now();
    let key = (new.interface, new.ip);
    let mut neighbours = NEIGHBOURS.lock();
    let there = neighbours.get(&key).is_some_and(|entry| entry.state != 0);
    if there && exclusive {
        return Err(Errno::EEXIST);
    }
    if !there && !create {
        return Err(Errno::ENOENT);
    }
    if new.state & state::VALID != 0 && new.state & state::NOARP == 0 && new.mac.is_none() && !there {
        return Err(Errno::EINVAL);
    }
    make_room(&mut neighbours, &key);
    let entry = neighbours.entry(key).or_insert_with(|| Entry::new(now));
    entry.mac = new.mac.unwrap_or(entry.mac);
    entry.flags = new.flags;
    entry.confirmed = now;
    entry.tries = 0;
    entry.enter(new.state, now);
    let waiting = if new.state & state::VALID != 0 { core::mem::take(&mut entry.waiting) } else { VecDeque::new() };
    let (mac, shown) = (entry.mac, entry.shown(new.interface, new.ip));
    drop(neighbours);
    if let Some(interface) = by_index(new.interface) {
        for packet in waiting {
            let kind = ethernet::type_of(&packet);
            ethernet::send(&interface, packet, mac, kind);
        }
    }
    netlink::neighbour::announce(&shown, false);
    Ok(())
}

/// Forgets a neighbour. `ENOENT`.
pub fn remove(interface: u32, ip: IpAddr) -> Result<()> {
    let entry = NEIGHBOURS.lock().remove(&(interface, ip)).ok_or(Errno::ENOENT)?;
    netlink::neighbour::announce(&Neighbour { state: state::FAILED, mac: None, ..entry.shown(interface, ip) }, true);
    Ok(())
}

/// Forgets the neighbours on a link that is down (all but those that were set for good) or gone.
pub(super) fn forget_interface(index: u32, gone: bool) {
    let mut dropped = Vec::new();
    NEIGHBOURS.lock().retain(|(interface, _), entry| {
        let stays = *interface != index || !gone && entry.state & state::PERMANENT != 0;
        if !stays {
            dropped.append(&mut entry.waiting.drain(..).collect());
        }
        stays
    });
    drop(dropped);
}
