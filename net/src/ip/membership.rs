//! Telling routers which groups are listened to: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810). What changes is reported at once and once
//! more; questions are answered after a random time. The version follows the oldest router that was heard lately.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::{NANOS_PER_SEC, Nanos};
use hal::sync::SpinLock;

use super::{Header, Outgoing, output, protocol, set_checksum, v6};
use crate::alarm::{Alarm, Rings};
use crate::backlog;
use crate::checksum;
use crate::link::conf::{V4, V6};
use crate::link::group::{ALL_HOSTS, ALL_NODES, Filter};
use crate::link::{self, Interface};
use crate::packet::{Filler, Packet};
use crate::route::{self, Kind};

/// The option that makes routers look at a packet (RFC 2113), and its IPv6 twin in a hop-by-hop header (RFC 2711).
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
const ROUTER_ALERT_6: [u8; 8] = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;
/// The same of MLD.
pub(crate) const QUERY_6: u8 = 130;
const REPORT_6: u8 = 131;
const DONE_6: u8 = 132;
const REPORT_V2_6: u8 = 143;
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ROUTERS_6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_ROUTERS_6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// A router of an older version counts for so long.
const OLDER_LASTS: Nanos = 260 * NANOS_PER_SEC;
const MS: Nanos = NANOS_PER_SEC / 1000;

/// What a record says (RFC 3376, 4.2.12).
mod record {
    pub(super) const IS_INCLUDE: u8 = 1;
    pub(super) const IS_EXCLUDE: u8 = 2;
    pub(super) const TO_INCLUDE: u8 = 3;
    pub(super) const TO_EXCLUDE: u8 = 4;
    pub(super) const ALLOW: u8 = 5;
    pub(super) const BLOCK: u8 = 6;
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    kind: u8,
    group: IpAddr,
    sources: Vec<IpAddr>,
}

#[derive(Default)]
struct State {
    /// To be reported once more.
    again: Vec<Record>,
    again_at: Option<Nanos>,
    /// Groups of which was asked (`None` for all, of a family), and when they are to be told.
    asked: Vec<(bool, Option<IpAddr>)>,
    answer_at: Option<Nanos>,
    /// Until when routers of versions 1 and 2 (of MLD version 1) count.
    older: [Nanos; 3],
}

/// An interface's reports.
#[derive(Default)]
pub(crate) struct Reporter {
    interface: u32,
    state: SpinLock<State>,
    alarm: Alarm,
}

impl Reporter {
    /// The reporter of the interface of that index.
    pub(crate) fn new(interface: u32) -> Arc<Reporter> {
        Arc::new(Reporter { interface, ..Reporter::default() })
    }

    fn arm(self: &Arc<Self>, state: &State) {
        let due = [state.again_at, state.answer_at].into_iter().flatten().min();
        self.alarm.set(due, || Some(self.clone()));
    }
}

/// Some time up to so many milliseconds.
fn within(ms: u64) -> Nanos {
    (hal::random::word() % ms.max(1)) * MS
}

/// The version of the protocol that counts on an interface now.
fn version(interface: &Interface, v4: bool, state: &State, now: Nanos) -> u8 {
    if !v4 {
        return match interface.conf.v6(V6::ForceMldVersion) {
            1 => 1,
            2 => 2,
            _ => {
                if state.older[2] > now {
                    1
                } else {
                    2
                }
            }
        };
    }
    match interface.most(V4::ForceIgmpVersion) {
        forced @ 1..=3 => forced as u8,
        _ if state.older[0] > now => 1,
        _ if state.older[1] > now => 2,
        _ => 3,
    }
}

/// Nobody reports the group of everyone, and what does not leave the machine.
fn is_reported(interface: &Interface, group: IpAddr) -> bool {
    let everyone = match group {
        IpAddr::V4(v4) => v4 == ALL_HOSTS,
        IpAddr::V6(v6) => ALL_NODES.contains(&v6) || v6.octets()[1] & 0xf <= 1,
    };
    !everyone && !interface.is_loopback() && interface.is_up()
}

/// What changes, as records.
fn changes(group: IpAddr, before: Option<Filter>, after: Option<Filter>) -> Vec<Record> {
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let record = |kind, sources: Vec<IpAddr>| Record { kind, group, sources };
    if before.exclude != after.exclude {
        let kind = if after.exclude { record::TO_EXCLUDE } else { record::TO_INCLUDE };
        return alloc::vec![record(kind, after.sources)];
    }
    let less = |of: &[IpAddr], these: &[IpAddr]| of.iter().filter(|ip| !these.contains(ip)).copied().collect();
    let (more, fewer): (Vec<_>, Vec<_>) =
        (less(&after.sources, &before.sources), less(&before.sources, &after.sources));
    let (allowed, blocked) = if after.exclude { (fewer, more) } else { (more, fewer) };
    let both = [record(record::ALLOW, allowed), record(record::BLOCK, blocked)];
    both.into_iter().filter(|record| !record.sources.is_empty()).collect()
}

/// What is listened to on an interface has changed.
pub(crate) fn changed(interface: &Interface, group: IpAddr, before: Option<Filter>, after: Option<Filter>) {
    if !is_reported(interface, group) {
        return;
    }
    let records = changes(group, before, after);
    let now = sched::time::now();
    let v4 = group.is_ipv4();
    let reporter = &interface.reporter;
    let mut state = reporter.state.lock();
    let version = version(interface, v4, &state, now);
    let newest = version == if v4 { 3 } else { 2 };
    let ms = match (v4, newest) {
        (true, true) => interface.conf.v4(V4::Igmpv3Interval),
        (true, false) => interface.conf.v4(V4::Igmpv2Interval),
        (false, true) => interface.conf.v6(V6::Mldv2Interval),
        (false, false) => interface.conf.v6(V6::Mldv1Interval),
    };
    state.again.retain(|record| record.group != group);
    state.again.extend(records.iter().cloned());
    state.again_at = Some(now + within(u64::try_from(ms).unwrap_or(0)));
    reporter.arm(&state);
    drop(state);
    send(interface, version, v4, &records);
}

/// What is wanted of a group now, as a record.
fn current(group: IpAddr, filter: Filter) -> Record {
    let kind = if filter.exclude { record::IS_EXCLUDE } else { record::IS_INCLUDE };
    Record { kind, group, sources: filter.sources }
}

impl Rings for Reporter {
    fn ring(self: Arc<Self>, now: Nanos) {
        let mut state = self.state.lock();
        self.alarm.rung(now);
        let due = |at: Option<Nanos>| at.is_some_and(|at| at <= now);
        let mut again = Vec::new();
        if due(state.again_at) {
            state.again_at = None;
            again = core::mem::take(&mut state.again);
        }
        let mut asked = Vec::new();
        if due(state.answer_at) {
            state.answer_at = None;
            asked = core::mem::take(&mut state.asked);
        }
        self.arm(&state);
        let Some(interface) = link::by_index(self.interface) else { return };
        let versions = [version(&interface, true, &state, now), version(&interface, false, &state, now)];
        drop(state);
        for v4 in [true, false] {
            let version = versions[usize::from(!v4)];
            let mut records: Vec<Record> = again.iter().filter(|r| r.group.is_ipv4() == v4).cloned().collect();
            for (ip, _, filter) in interface.groups() {
                let wanted = asked.iter().any(|(of_v4, one)| *of_v4 == v4 && one.is_none_or(|one| one == ip));
                if wanted && ip.is_ipv4() == v4 && is_reported(&interface, ip) {
                    records.push(current(ip, filter));
                }
            }
            send(&interface, version, v4, &records);
        }
        backlog::run();
    }
}

/// Sends records, in the way of a version.
fn send(interface: &Interface, version: u8, v4: bool, records: &[Record]) {
    let Some(interface) = link::by_index(interface.index).filter(|_| !records.is_empty()) else { return };
    match (v4, version) {
        (true, 3) | (false, 2) => send_records(&interface, v4, records),
        _ => records.iter().for_each(|record| send_old(&interface, version, record)),
    }
}

/// One message with all records (RFC 3376, 4.2; RFC 3810, 5.2), or several where they don't fit one packet.
fn send_records(interface: &Arc<Interface>, v4: bool, records: &[Record]) {
    let room = interface.mtu().saturating_sub(80);
    let mut body: Vec<u8> = Vec::new();
    let mut count = 0u16;
    for record in records {
        let mut bytes = alloc::vec![record.kind, 0];
        bytes.extend_from_slice(&(record.sources.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&crate::netlink::octets(record.group));
        record.sources.iter().for_each(|source| bytes.extend_from_slice(&crate::netlink::octets(*source)));
        if count > 0 && body.len() + bytes.len() > room {
            send_report(interface, v4, &core::mem::take(&mut body), core::mem::take(&mut count));
        }
        count += 1;
        body.extend_from_slice(&bytes);
    }
    send_report(interface, v4, &body, count);
}

fn send_report(interface: &Arc<Interface>, v4: bool, body: &[u8], count: u16) {
    let [high, low] = count.to_be_bytes();
    if v4 {
        let message = [&[REPORT_V3, 0, 0, 0, 0, 0, high, low], body].concat();
        send_v4(interface, message, ROUTERS);
    } else {
        send_v6(interface, [REPORT_V2_6, 0, 0, 0, 0, 0, high, low], body, ROUTERS_6);
    }
}

/// The messages of the older versions are about one group each, and know no sources.
fn send_old(interface: &Arc<Interface>, version: u8, record: &Record) {
    let leaves = record.kind == record::TO_INCLUDE && record.sources.is_empty();
    match record.group {
        IpAddr::V4(_) if leaves && version == 1 => {}
        IpAddr::V4(group) => {
            let (kind, to) = match (leaves, version) {
                (true, _) => (LEAVE, ALL_ROUTERS),
                (false, 1) => (REPORT_V1, group),
                (false, _) => (REPORT_V2, group),
            };
            send_v4(interface, [&[kind, 0, 0, 0][..], &group.octets()].concat(), to);
        }
        IpAddr::V6(group) => {
            let (kind, to) = if leaves { (DONE_6, ALL_ROUTERS_6) } else { (REPORT_6, group) };
            send_v6(interface, [kind, 0, 0, 0, 0, 0, 0, 0], &group.octets(), to);
        }
    }
}

fn send_v4(interface: &Arc<Interface>, mut message: Vec<u8>, to: Ipv4Addr) {
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let Ok(body) = Filler::new().bytes(&message) else { return };
    let source = route::source_for(interface, to.into(), to.into());
    let path = route::direct(interface.clone(), to.into(), source, Kind::Multicast);
    let out = Outgoing {
        source,
        destination: to.into(),
        protocol: protocol::IGMP,
        ttl: 1,
        tos: 0xc0,
        whole: true,
        quiet: true,
        options: &ROUTER_ALERT,
        rate: 0,
    };
    // What is lost is reported again.
    let _ = output(Packet::outgoing(body), &out, &path);
}

fn send_v6(interface: &Arc<Interface>, head: [u8; 8], body: &[u8], to: Ipv6Addr) {
    let near = |address: &link::Address| route::is_link_local(address.ip) && address.is_usable();
    let source = interface.addresses().iter().find(|address| near(address)).map(|address| address.ip);
    let source = source.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let path = route::direct(interface.clone(), to.into(), source, Kind::Multicast);
    let mut out = Outgoing {
        source,
        destination: to.into(),
        protocol: protocol::ICMPV6,
        ttl: 1,
        tos: 0,
        whole: true,
        quiet: true,
        options: &[],
        rate: 0,
    };
    let message = [&head[..], body].concat();
    let Ok(body) = Filler::new().bytes(&message) else { return };
    let mut packet = Packet::outgoing(body);
    // The sum of a message that has its header in front of it, so it cannot be left to the device.
    if !packet.ensure(8.min(message.len())) {
        return;
    }
    set_checksum(&mut packet, &out, 2);
    super::finish_checksum(&mut packet, &out);
    let Ok(alert) = packet.push(ROUTER_ALERT_6.len()) else { return };
    alert.copy_from_slice(&ROUTER_ALERT_6);
    out.protocol = v6::HOP_BY_HOP;
    let _ = output(packet, &out, &path);
}

/// A router asks, by IGMP or (`header` is of IPv6) by MLD; `message` is all of it.
fn on_query(interface: &Interface, header: &Header, message: &[u8]) {
    let v4 = header.source.is_ipv4();
    let long = if v4 { 12 } else { 28 };
    let now = sched::time::now();
    let mut state = interface.reporter.state.lock();
    let code = if v4 { u64::from(message[1]) * 100 } else { u64::from(u16::from_be_bytes([message[4], message[5]])) };
    let ms = match (v4, message.len() < long) {
        (true, true) if code == 0 => {
            state.older[0] = now + OLDER_LASTS;
            10_000
        }
        (_, true) => {
            state.older[if v4 { 1 } else { 2 }] = now + OLDER_LASTS;
            code
        }
        // Large numbers are written with an exponent.
        (true, false) => exponent(message[1].into(), 7) * 100,
        (false, false) => exponent(code as u16, 15),
    };
    let group: IpAddr = if v4 {
        [message[4], message[5], message[6], message[7]].into()
    } else {
        <[u8; 16]>::try_from(&message[8..24]).unwrap_or_default().into()
    };
    const ASKED_MAX: usize = 64;
    let one = (v4, (!group.is_unspecified()).then_some(group));
    if !state.asked.contains(&one) && state.asked.len() < ASKED_MAX {
        state.asked.push(one);
    }
    let at = now + within(ms);
    state.answer_at = Some(state.answer_at.map_or(at, |before| before.min(at)));
    interface.reporter.arm(&state);
}

/// A number of `bits` bits, or with the bit above set, four (or twelve) of a mantissa and three of an exponent.
fn exponent(code: u16, bits: u32) -> u64 {
    if code >> bits == 0 {
        return code.into();
    }
    let mantissa_bits = bits - 3;
    let mantissa = u64::from(code) & ((1 << mantissa_bits) - 1) | 1 << mantissa_bits;
    mantissa << ((u32::from(code) >> mantissa_bits & 7) + 3)
}

/// Receives a message of IGMP, at its header.
pub(super) fn input(packet: &Packet, header: &Header) {
    let Some(message) = whole(packet).filter(|message| message.len() >= 8 && checksum::of(message) == 0) else {
        return;
    };
    if let Some(interface) = link::by_index(header.interface).filter(|_| message[0] == QUERY) {
        on_query(&interface, header, &message);
    }
}

/// Receives a question of MLD, at its ICMPv6 header. Only who is on the link may ask.
pub(super) fn input_v6(packet: &Packet, header: &Header) {
    let Some(message) = whole(packet).filter(|message| message.len() >= 24) else { return };
    if let Some(interface) = link::by_index(header.interface)
        && route::is_link_local(header.source)
        && header.ttl == 1
    {
        on_query(&interface, header, &message);
    }
}

fn whole(packet: &Packet) -> Option<Vec<u8>> {
    const LONGEST: usize = 9000;
    let mut bytes = alloc::vec![0; packet.len().min(LONGEST)];
    (packet.read(0, &mut bytes) == packet.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_become_records() {
        let group: IpAddr = [239, 1, 1, 1].into();
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let kinds = |before, after| changes(group, before, after).iter().map(|r| r.kind).collect::<Vec<_>>();
        let only = |sources: &[u8]| Some(Filter { exclude: false, sources: sources.iter().map(|n| ip(*n)).collect() });
        let all = || Some(Filter::everyone());
        assert_eq!(kinds(None, all()), [record::TO_EXCLUDE]);
        assert_eq!(kinds(all(), None), [record::TO_INCLUDE]);
        assert_eq!(kinds(None, only(&[1])), [record::ALLOW]);
        assert_eq!(kinds(only(&[1, 2]), only(&[2, 3])), [record::ALLOW, record::BLOCK]);
        assert_eq!(kinds(only(&[1]), None), [record::BLOCK]);
        let blocked = Some(Filter { exclude: true, sources: vec![ip(1)] });
        assert_eq!(kinds(all(), blocked), [record::BLOCK]);
    }

    #[test]
    fn long_times_have_an_exponent() {
        assert_eq!((exponent(100, 7), exponent(0x80, 7), exponent(0xff, 7)), (100, 128, 31744));
        assert_eq!((exponent(10_000, 15), exponent(0x8000, 15)), (10_000, 32_768));
    }
}
