//! UDP (RFC 768) and UDP-Lite (RFC 3828): the header, and which socket a datagram is for.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::address::{Endpoint, Family};
use super::datagram::DatagramSocket;
use super::errors;
use super::queue::Datagram;
use super::sending::packet_with_header;
use super::steering;
use crate::checksum::Sum;
use crate::filter::{self, View};
use crate::hash::{self, Table};
use crate::ip;
use crate::ip::icmp::{self, Report, Unreachable};
use crate::ip::{Header, Outgoing, checksum_ok, output, protocol, set_checksum};
use crate::packet::{Addressed, Packet, Rope};
use crate::route::{self, Path};
use crate::statistics::{self, Counter};

/// Bytes of the header.
const HEADER: usize = 8;

/// A protocol and a port of it.
type Key = (u8, u16);

static SOCKETS: SpinLock<Option<Table<Key, Vec<Arc<DatagramSocket>>>>> = SpinLock::new(None);

pub(super) fn register(port: Key, socket: Arc<DatagramSocket>) {
    SOCKETS.lock().get_or_insert_with(Table::default).entry(port).or_default().push(socket);
}

pub(super) fn unregister(port: Key, socket: &Arc<DatagramSocket>) {
    let mut sockets = SOCKETS.lock();
    let Some(table) = sockets.as_mut() else { return };
    if let Some(holders) = table.get_mut(&port) {
        holders.retain(|other| !Arc::ptr_eq(other, socket));
        if holders.is_empty() {
            table.remove(&port);
        }
    }
}

/// All bound sockets, for `/proc/net`.
pub(crate) fn all() -> Vec<Arc<DatagramSocket>> {
    let sockets = SOCKETS.lock();
    sockets.iter().flat_map(|table| table.values()).flatten().cloned().collect()
}

/// Sends a datagram, or several of `segment` bytes as one lump that is cut as late as possible. Errors of `output`.
pub(super) fn send(
    data: Rope,
    from: u16,
    to: u16,
    out: &Outgoing,
    path: &Path,
    no_checksum: bool,
    segment: u16,
) -> Result<()> {
    let len = data.len() + HEADER;
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    let mut packet = packet_with_header(data, &header)?;
    packet.segment_size = segment;
    if !no_checksum || out.source.is_ipv6() {
        set_checksum(&mut packet, out, 6);
    }
    statistics::add_for(out.source.is_ipv6(), Counter::UdpOutDatagrams, 1);
    output(packet, out, path)
}

/// Sends a datagram whose checksum covers so many bytes; 0 for all. Errors of `output`.
pub(super) fn send_lite(data: Rope, from: u16, to: u16, out: &Outgoing, path: &Path, coverage: u16) -> Result<()> {
    let len = data.len() + HEADER;
    let covered = if coverage == 0 { len } else { len.min(coverage.into()) };
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    let field = if covered == len { 0 } else { covered as u16 };
    header[4..6].copy_from_slice(&field.to_be_bytes());
    let mut sum = Sum::pseudo(out.source, out.destination, out.protocol, len);
    sum.add(&header);
    sum.add_rope(&data.slice(0, covered - HEADER));
    let sum = if sum.finish() == 0 { 0xffff } else { sum.finish() };
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    output(packet_with_header(data, &header)?, out, path)
}

/// Is the checksum of a UDP-Lite datagram right, and does it cover what it has to?
fn lite_is_whole(packet: &Packet, header: &Header, coverage: usize) -> bool {
    let covered = if coverage == 0 { packet.len() } else { coverage };
    if covered < HEADER || covered > packet.len() {
        return false;
    }
    let mut sum = Sum::pseudo(header.source, header.destination, header.protocol, packet.len());
    let mut part = packet.clone();
    part.truncate(covered);
    sum.add(part.head());
    sum.add_rope(&part.payload);
    sum.folded() == 0xffff
}

/// How well a socket fits a datagram; `None` if not at all.
fn score(socket: &DatagramSocket, source: (IpAddr, u16), destination: IpAddr, interface: u32) -> Option<u32> {
    let state = socket.state.lock();
    let mut score = 1;
    let any = state.local.ip.is_unspecified();
    if any {
        let fits = match (state.local.ip, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => true,
            (IpAddr::V6(_), IpAddr::V4(_)) => !socket.settings.lock().v6_only,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        };
        if !fits {
            return None;
        }
    } else if state.local.ip != destination {
        return None;
    } else {
        score += 4;
    }
    if socket.family == Family::V4 {
        score += 1;
    }
    if let Some(remote) = state.remote {
        if (remote.ip, remote.port) != source {
            return None;
        }
        score += 8;
    }
    let device = socket.settings.lock().device;
    if device != 0 {
        if device != interface {
            return None;
        }
        score += 2;
    }
    Some(score)
}

fn holders(port: Key) -> Vec<Arc<DatagramSocket>> {
    SOCKETS.lock().as_ref().and_then(|table| table.get(&port)).cloned().unwrap_or_default()
}

/// The sockets that a datagram is for: the best one, or with SO_REUSEPORT the one of the best that they
/// choose; for groups and broadcasts all that want it.
fn receivers(packet: &Packet, header: &Header, source: (IpAddr, u16), port: u16) -> Vec<Arc<DatagramSocket>> {
    let mut found = holders((header.protocol, port));
    if found.len() == 1 && !header.destination.is_multicast() {
        found.retain(|s| score(s, source, header.destination, header.interface).is_some());
        return found;
    }
    let to = header.destination;
    let many = to.is_multicast() || packet.addressed == Addressed::Broadcast || route::is_broadcast_anywhere(to);
    let mut best = 0;
    let mut chosen = Vec::new();
    for socket in found {
        let Some(score) = score(&socket, source, to, header.interface) else { continue };
        if many {
            let wants = !to.is_multicast() || socket.wants_group(to, header.source, header.interface);
            if wants {
                chosen.push(socket);
            }
            continue;
        }
        if score > best {
            best = score;
            chosen.clear();
        }
        if score == best {
            chosen.push(socket);
        }
    }
    if !many && chosen.len() > 1 {
        let view = View { packet, skip: HEADER, before: &[] };
        let options = chosen.iter().map(|s| &s.options);
        let index = steering::select(options, &view, hash::of_pair((to, port), source, 2));
        // Among sockets that merely reuse the address the last one gets it.
        let one = chosen.swap_remove(index.unwrap_or(chosen.len() - 1));
        chosen.clear();
        chosen.push(one);
    }
    chosen
}

/// Receives a datagram.
pub(crate) fn input(mut packet: Box<Packet>, header: Header) {
    let v6 = header.source.is_ipv6();
    if !packet.ensure(HEADER) {
        statistics::add_for(v6, Counter::UdpInErrors, 1);
        return;
    }
    let head = packet.head();
    let ports = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
    let len = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let checksum = u16::from_be_bytes([head[6], head[7]]);
    // A jumbogram from this machine to itself does not exist: its length fits the field.
    let lite = header.protocol == protocol::UDPLITE;
    if !lite && (len < HEADER || len > packet.len()) {
        statistics::add_for(v6, Counter::UdpInErrors, 1);
        return;
    }
    let whole = if lite {
        lite_is_whole(&packet, &header, len)
    } else {
        packet.truncate(len);
        checksum == 0 && header.source.is_ipv4() || checksum_ok(&packet, &header)
    };
    if !whole {
        statistics::add_for(v6, Counter::UdpInCsumErrors, 1);
        statistics::add_for(v6, Counter::UdpInErrors, 1);
        return;
    }
    let mut receivers = receivers(&packet, &header, (header.source, ports.0), ports.1);
    if receivers.is_empty() {
        statistics::add_for(v6, Counter::UdpNoPorts, 1);
        icmp::unreachable(&mut packet, &header, Unreachable::Port);
        return;
    }
    receivers
        .retain(|socket| filter::passes(&socket.options, &packet) && socket.lives_enough(header.source, header.ttl));
    let options = ip::options_of(&mut packet, &header);
    packet.pull(HEADER);
    let segment = packet.segment_size;
    let Ok(data) = packet.into_rope() else { return };
    let scope = if route::is_link_local(header.source) { header.interface } else { 0 };
    let datagram = Datagram {
        data,
        from: Endpoint { ip: header.source, port: ports.0, scope },
        to: header.destination,
        interface: header.interface,
        ttl: header.ttl,
        tos: header.tos,
        received: sched::time::realtime(),
        options,
        segment,
    };
    receivers.iter().for_each(|socket| give(socket, &datagram));
}

/// Gives a socket a datagram, or one after the other those of a lump that it does not take as such.
fn give(socket: &DatagramSocket, datagram: &Datagram) {
    let v6 = datagram.from.ip.is_ipv6();
    let give = |datagram: Datagram| {
        let taken = socket.receive_datagram(datagram);
        let counter = if taken { Counter::UdpInDatagrams } else { Counter::UdpRcvbufErrors };
        statistics::add_for(v6, counter, 1);
    };
    if datagram.segment == 0 || socket.takes_lumps() {
        give(datagram.clone());
        return;
    }
    let mut rest = datagram.data.clone();
    while !rest.is_empty() {
        give(Datagram { data: rest.split_to(datagram.segment.into()), segment: 0, ..datagram.clone() });
    }
}

/// An error message about a datagram that was sent from `local` to `remote`.
pub(crate) fn on_report(number: u8, local: (IpAddr, u16), remote: (IpAddr, u16), packet: &mut Packet, report: &Report) {
    packet.pull(HEADER);
    for socket in holders((number, local.1)) {
        if score(&socket, remote, local.0, 0).is_some() {
            let hard = report.hard || report.errno == Errno::ECONNREFUSED;
            let to = errors::endpoint(remote.0, remote.1, packet.interface);
            socket.on_failure(report, to, hard, Some(packet));
        }
    }
}
