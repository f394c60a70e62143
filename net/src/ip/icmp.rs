//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echoes, and errors to and from others.

use alloc::boxed::Box;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, NANOS_PER_SEC, Result};

use super::{Header, Outgoing, default_ttl, membership, option, output, protocol, set_checksum};
use crate::checksum::Sum;
use crate::inet::{ping, raw, udp};
use crate::link::{self, discovery};
use crate::packet::{Packet, Rope};
use crate::route::{self, Path};
use crate::statistics::{self, Counter, Way};
use crate::tcp;

/// Why a packet cannot be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreachable {
    /// Nobody listens at the port.
    Port,
    /// Nobody knows the protocol.
    Protocol,
    /// The neighbour does not answer.
    Host,
    /// There is no route.
    Network,
    /// A route forbids it.
    Prohibited,
}

/// An error message, as those who sent its cause hear of it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The type of the message.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The error that it means.
    pub errno: Errno,
    /// Does it end an opening?
    pub hard: bool,
    /// The size that packets may have, for "too big".
    pub mtu: u32,
    /// Who says so.
    pub from: IpAddr,
}

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const REDIRECT: u8 = 5;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER: u8 = 12;
const TIMESTAMP: u8 = 13;
const TIMESTAMP_REPLY: u8 = 14;
const UNREACHABLE_6: u8 = 1;
const TOO_BIG_6: u8 = 2;
const TIME_EXCEEDED_6: u8 = 3;
const PARAMETER_6: u8 = 4;
const ECHO_6: u8 = 128;
const ECHO_REPLY_6: u8 = 129;

/// Bytes of the header.
const HEADER: usize = 8;

/// Sends a message: its first 8 bytes without checksum, and what follows them. Errors of `output`.
pub fn send(head: [u8; HEADER], body: Rope, out: &Outgoing, path: &Path) -> Result<()> {
    let mut packet = Packet::outgoing(body);
    packet.push(HEADER)?.copy_from_slice(&head);
    let v6 = out.source.is_ipv6();
    statistics::add_for(v6, Counter::IcmpOutMsgs, 1);
    statistics::add_message(v6, Way::Out, head[0]);
    if v6 {
        set_checksum(&mut packet, out, 2);
    } else {
        let mut sum = Sum::default();
        sum.add(packet.head());
        sum.add_rope(&packet.payload);
        packet.head_mut()[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    }
    output(packet, out, path)
}

/// Error messages that may be sent to other machines now: so many at once, and so many a second.
fn may_complain() -> bool {
    const BURST: u64 = 50;
    const EACH: u64 = NANOS_PER_SEC / 1000;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = sched::time::now();
    let next = NEXT.load(Ordering::Relaxed).max(now.saturating_sub(BURST * EACH));
    if next > now {
        return false;
    }
    NEXT.store(next + EACH, Ordering::Relaxed);
    true
}

/// Tells the sender of a packet, which is at its transport header, that it cannot be delivered.
pub fn unreachable(packet: &mut Packet, header: &Header, why: Unreachable) {
    let v4 = header.source.is_ipv4();
    let (kind, code) = match (why, v4) {
        (Unreachable::Protocol, true) => (UNREACHABLE, 2),
        (Unreachable::Port, true) => (UNREACHABLE, 3),
        (Unreachable::Host, true) => (UNREACHABLE, 1),
        (Unreachable::Host, false) => (UNREACHABLE_6, 3),
        (Unreachable::Port, false) => (UNREACHABLE_6, 4),
        (Unreachable::Protocol, false) => (PARAMETER_6, 1),
        (Unreachable::Network, true) => (UNREACHABLE, 0),
        (Unreachable::Network, false) => (UNREACHABLE_6, 0),
        (Unreachable::Prohibited, true) => (UNREACHABLE, 13),
        (Unreachable::Prohibited, false) => (UNREACHABLE_6, 1),
    };
    complain(packet, header, kind, code, [0; 4]);
}

/// Tells the sender of a packet, which is at its transport header, that its time is over: on its way (code 0), or with pieces missing (1).
pub(crate) fn time_exceeded(packet: &mut Packet, header: &Header, code: u8) {
    let kind = if header.source.is_ipv4() { TIME_EXCEEDED } else { TIME_EXCEEDED_6 };
    complain(packet, header, kind, code, [0; 4]);
}

/// Tells the sender of a packet that it does not fit a link, and what would.
pub(crate) fn too_big(packet: &mut Packet, header: &Header, mtu: usize) {
    const NEEDED: u8 = 4;
    let mtu = (mtu as u32).to_be_bytes();
    if header.source.is_ipv4() {
        complain(packet, header, UNREACHABLE, NEEDED, [0, 0, mtu[2], mtu[3]]);
    } else {
        complain(packet, header, TOO_BIG_6, 0, mtu);
    }
}

/// Tells the sender of a packet that a field of its header, so many bytes on, makes no sense.
pub(crate) fn parameter_problem(packet: &mut Packet, header: &Header, at: u8) {
    complain(packet, header, PARAMETER, 0, [at, 0, 0, 0]);
}

/// Tells the sender of an IPv4 packet of a better neighbour for its destination.
pub(crate) fn redirect(packet: &mut Packet, header: &Header, better: IpAddr) {
    const FOR_HOST: u8 = 1;
    if let IpAddr::V4(better) = better {
        complain(packet, header, REDIRECT, FOR_HOST, better.octets());
    }
}

fn complain(packet: &mut Packet, header: &Header, kind: u8, code: u8, about: [u8; 4]) {
    let silent = header.destination.is_multicast()
        || header.source.is_multicast()
        || header.source.is_unspecified()
        || route::is_broadcast_anywhere(header.destination);
    if silent || !route::is_local(header.source) && !may_complain() {
        return;
    }
    let Ok(path) = route::lookup(header.source, 0) else { return };
    packet.unpull(header.len);
    // As much of the cause as fits the least packet that everyone takes.
    let most = if header.source.is_ipv4() { 576 - 20 - HEADER } else { 1280 - 40 - HEADER };
    let mut cause = Box::new(packet.clone());
    packet.pull(header.len);
    cause.truncate(most);
    let Ok(body) = cause.into_rope() else { return };
    let local = route::is_local(header.destination);
    let out = Outgoing {
        source: if local { header.destination } else { path.source },
        destination: header.source,
        protocol: header.icmp(),
        ttl: default_ttl(header.source),
        tos: 0xc0,
        whole: false,
        quiet: false,
        options: &[],
        rate: 0,
    };
    // Nobody waits for the outcome of a complaint.
    let [a, b, c, d] = about;
    let _ = send([kind, code, 0, 0, a, b, c, d], body, &out, &path);
}

impl Header {
    fn icmp(&self) -> u8 {
        if self.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }
    }
}

/// Receives a message.
pub(super) fn input(mut packet: Box<Packet>, header: Header) {
    let v6 = header.source.is_ipv6();
    statistics::add_for(v6, Counter::IcmpInMsgs, 1);
    if !packet.ensure(HEADER) || !message_is_whole(&packet, &header) {
        statistics::add_for(v6, Counter::IcmpInErrors, 1);
        return;
    }
    let head: [u8; HEADER] = packet.head()[..HEADER].try_into().unwrap_or_default();
    statistics::add_message(v6, Way::In, head[0]);
    match (head[0], header.source.is_ipv4()) {
        (ECHO, true) => answer(packet, &header, head, ECHO_REPLY),
        (ECHO_6, false) => answer(packet, &header, head, ECHO_REPLY_6),
        (TIMESTAMP, true) => answer(packet, &header, head, TIMESTAMP_REPLY),
        (ECHO_REPLY, true) | (ECHO_REPLY_6, false) => ping::input(packet, header),
        (discovery::ROUTER_ADVERTISEMENT..=discovery::ADVERTISEMENT, false) => discovery::input(packet, &header, head),
        (UNREACHABLE | TIME_EXCEEDED | PARAMETER, true) => report(packet, &header, head),
        (membership::QUERY_6, false) => membership::input_v6(&packet, &header),
        (REDIRECT, true) => on_redirect(packet, &header, head),
        (discovery::REDIRECT, false) => discovery::redirected(packet, &header),
        (UNREACHABLE_6 | TOO_BIG_6 | TIME_EXCEEDED_6 | PARAMETER_6, false) => report(packet, &header, head),
        _ => {}
    }
}

fn message_is_whole(packet: &Packet, header: &Header) -> bool {
    if header.source.is_ipv6() {
        return super::checksum_ok(packet, header);
    }
    let mut sum = Sum::default();
    sum.add(packet.head());
    sum.add_rope(&packet.payload);
    sum.folded() == 0xffff
}

/// Settings of `net.ipv4.icmp_*`: whether echoes are answered, those to everyone or a group, and other things about errors.
pub(crate) static ECHO_IGNORE_ALL: AtomicU32 = AtomicU32::new(0);
/// Echoes to everyone or to a group (for IPv4) are not answered.
pub(crate) static ECHO_IGNORE_BROADCASTS: AtomicU32 = AtomicU32::new(1);

/// Is an echo to be left without an answer?
fn is_ignored(header: &Header) -> bool {
    let to = header.destination;
    let many = to.is_ipv4() && (to.is_multicast() || route::is_broadcast_anywhere(to));
    to.is_ipv4() && ECHO_IGNORE_ALL.load(Ordering::Relaxed) != 0
        || many && ECHO_IGNORE_BROADCASTS.load(Ordering::Relaxed) != 0
}

/// An echo, or a question for the time (RFC 792).
fn answer(mut packet: Box<Packet>, header: &Header, mut head: [u8; HEADER], kind: u8) {
    if is_ignored(header) {
        return;
    }
    let Ok(path) = route::lookup(header.source, 0) else { return };
    let options = option::for_answer(&mut packet, header);
    packet.pull(HEADER);
    if kind == TIMESTAMP_REPLY {
        // Milliseconds since midnight, when it came and when it left.
        let now = option::time_of_day();
        if !packet.ensure(12) {
            return;
        }
        packet.head_mut()[4..8].copy_from_slice(&now.to_be_bytes());
        packet.head_mut()[8..12].copy_from_slice(&now.to_be_bytes());
    }
    let Ok(body) = packet.into_rope() else { return };
    head[0] = kind;
    head[2..4].fill(0);
    let asked_one = route::is_local(header.destination);
    let out = Outgoing {
        source: if asked_one { header.destination } else { path.source },
        destination: header.source,
        protocol: header.icmp(),
        ttl: default_ttl(header.source),
        tos: header.tos,
        whole: false,
        quiet: false,
        options: if header.source.is_ipv4() { options.bytes() } else { &[] },
        rate: 0,
    };
    // An echo that cannot be sent is lost like one that the network loses.
    let _ = send(head, body, &out, &path);
}

/// A router knows a better one: believed where it is the one that we use, and the better one is a neighbour.
fn on_redirect(mut packet: Box<Packet>, header: &Header, head: [u8; HEADER]) {
    packet.pull(HEADER);
    let allowed = link::by_index(header.interface).is_some_and(|interface| interface.takes_redirects());
    if !packet.ensure(20) || !allowed {
        return;
    }
    let (_, destination) = super::inner_addresses(packet.head(), true);
    let better = IpAddr::from([head[4], head[5], head[6], head[7]]);
    let used = route::lookup(destination, 0).is_ok_and(|path| path.next_hop == header.source);
    let near = route::lookup(better, 0).is_ok_and(|path| path.next_hop == better && path.kind == route::Kind::Unicast);
    if used && near && head[1] <= 1 {
        route::exception::note_gateway(destination, better);
    }
}

/// What an error message means (`icmp_err_convert` of ip(7)'s table; RFC 4443).
fn meaning(v4: bool, kind: u8, code: u8) -> (Errno, bool) {
    match (v4, kind, code) {
        (true, UNREACHABLE, 0) => (Errno::ENETUNREACH, false),
        (true, UNREACHABLE, 2) => (Errno::ENOPROTOOPT, true),
        (true, UNREACHABLE, 3) => (Errno::ECONNREFUSED, true),
        (true, UNREACHABLE, 4) => (Errno::EMSGSIZE, false),
        (true, UNREACHABLE, 5) => (Errno::EOPNOTSUPP, false),
        (true, UNREACHABLE, 6 | 9 | 11) => (Errno::ENETUNREACH, code != 11),
        (true, UNREACHABLE, 7) => (Errno::EHOSTDOWN, true),
        (true, UNREACHABLE, 10 | 13..=15) => (Errno::EHOSTUNREACH, true),
        (true, PARAMETER, _) => (Errno::EPROTO, true),
        (false, UNREACHABLE_6, 0) => (Errno::ENETUNREACH, false),
        (false, UNREACHABLE_6, 1 | 5 | 6) => (Errno::EACCES, true),
        (false, UNREACHABLE_6, 4) => (Errno::ECONNREFUSED, true),
        (false, TOO_BIG_6, _) => (Errno::EMSGSIZE, false),
        (false, PARAMETER_6, _) => (Errno::EPROTO, true),
        _ => (Errno::EHOSTUNREACH, false),
    }
}

/// Tells the socket that sent the cause.
fn report(mut packet: Box<Packet>, header: &Header, head: [u8; HEADER]) {
    packet.pull(HEADER);
    let v4 = header.source.is_ipv4();
    let len = if v4 { 20 } else { 40 };
    if !packet.ensure(len) {
        return;
    }
    let inner = packet.head();
    let (inner_len, inner_protocol) = if v4 { (usize::from(inner[0] & 0xf) * 4, inner[9]) } else { (len, inner[6]) };
    let inner = super::inner_addresses(inner, v4);
    if inner_len < len || !packet.ensure(inner_len + 8) {
        return;
    }
    packet.pull(inner_len);
    let (errno, hard) = meaning(v4, head[0], head[1]);
    let mtu = if v4 {
        u32::from(u16::from_be_bytes([head[6], head[7]]))
    } else {
        u32::from_be_bytes([head[4], head[5], head[6], head[7]])
    };
    let report = Report { kind: head[0], code: head[1], errno, hard, mtu, from: header.source };
    let (source, destination) = inner;
    if errno == Errno::EMSGSIZE && mtu != 0 && route::is_local(source) {
        route::exception::note_mtu(destination, mtu);
    }
    let first = packet.head();
    let ports = (u16::from_be_bytes([first[0], first[1]]), u16::from_be_bytes([first[2], first[3]]));
    raw::on_report(inner_protocol, source, destination, &packet, &report);
    let first = packet.head();
    match inner_protocol {
        protocol::TCP => {
            let seq = u32::from_be_bytes([first[4], first[5], first[6], first[7]]);
            tcp::on_report((source, ports.0), (destination, ports.1), seq, &report);
        }
        protocol::UDP | protocol::UDPLITE => {
            udp::on_report(inner_protocol, (source, ports.0), (destination, ports.1), &mut packet, &report);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let identity = u16::from_be_bytes([first[4], first[5]]);
            ping::on_report(identity, destination, &packet, &report);
        }
        _ => {}
    }
}
