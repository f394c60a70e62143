//! Raw sockets (raw(7)): every packet of a protocol, with its header for IPv4, without for IPv6.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::address::{Endpoint, Family};
use super::datagram::{DatagramSocket, Flavour};
use super::errors;
use super::options::{Settings, is_icmp};
use super::queue::Datagram;
use crate::checksum::{self, Sum};
use crate::filter;
use crate::ip::icmp::Report;
use crate::ip::{self, Header, Outgoing, protocol};
use crate::packet::{Packet, Rope};
use crate::route::Path;

static SOCKETS: SpinLock<Vec<Arc<DatagramSocket>>> = SpinLock::new(Vec::new());
/// How many there are, so that packets pass quickly while there are none.
static COUNT: AtomicUsize = AtomicUsize::new(0);

pub(super) fn register(socket: &Arc<DatagramSocket>) {
    let mut sockets = SOCKETS.lock();
    sockets.push(socket.clone());
    COUNT.store(sockets.len(), Ordering::Release);
}

pub(super) fn unregister(socket: &Arc<DatagramSocket>) {
    let mut sockets = SOCKETS.lock();
    sockets.retain(|other| !Arc::ptr_eq(other, socket));
    COUNT.store(sockets.len(), Ordering::Release);
}

/// All raw sockets, for `/proc/net`.
pub(crate) fn all() -> Vec<Arc<DatagramSocket>> {
    SOCKETS.lock().clone()
}

/// Sends what a raw socket was given. `EINVAL`, errors of `output`.
pub(super) fn send(data: Rope, out: &Outgoing, path: &Path, settings: &Settings) -> Result<()> {
    if settings.header_included && out.source.is_ipv4() {
        return send_with_header(data, out, path);
    }
    let mut packet = Packet::outgoing(data);
    let at = usize::try_from(settings.checksum_at).ok().filter(|_| out.source.is_ipv6());
    if let Some(at) = at {
        if !packet.ensure(at + 2) {
            return Err(Errno::EINVAL);
        }
        let mut sum = Sum::pseudo(out.source, out.destination, out.protocol, packet.len());
        packet.head_mut()[at..at + 2].fill(0);
        sum.add(packet.head());
        sum.add_rope(&packet.payload);
        packet.head_mut()[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    }
    ip::output(packet, out, path)
}

/// The program has made the header itself; length, checksum, and what it left zero are filled in.
fn send_with_header(data: Rope, out: &Outgoing, path: &Path) -> Result<()> {
    let total = data.len();
    if total > path.interface.mtu() {
        return Err(Errno::EMSGSIZE);
    }
    let mut packet = Packet::incoming(data);
    if !packet.ensure(20) {
        return Err(Errno::EINVAL);
    }
    let len = usize::from(packet.head()[0] & 0xf) * 4;
    if len < 20 || !packet.ensure(len) {
        return Err(Errno::EINVAL);
    }
    let head = packet.head_mut();
    head[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    if head[12..16] == [0; 4]
        && let IpAddr::V4(source) = out.source
    {
        head[12..16].copy_from_slice(&source.octets());
    }
    if head[4..6] == [0; 2] {
        head[4..6].copy_from_slice(&(hal::random::word() as u16).to_be_bytes());
    }
    head[10..12].fill(0);
    let sum = checksum::of(&head[..len]);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    ip::transmit(packet, path)
}

/// Gives copies of a packet, still with its IP header, to the raw sockets that want it; true if one did.
pub(crate) fn input(packet: &Packet, header: &Header) -> bool {
    if COUNT.load(Ordering::Acquire) == 0 {
        return false;
    }
    let mut taken = false;
    for socket in all() {
        if wants(&socket, packet, header) {
            taken = true;
            if !filter::passes(&socket.options, packet) {
                continue;
            }
            give(&socket, packet, header);
        }
    }
    taken
}

/// An error message about a packet of a protocol: to the sockets of that protocol which it could have come from.
pub(crate) fn on_report(number: u8, from: IpAddr, to: IpAddr, packet: &Packet, report: &Report) {
    if COUNT.load(Ordering::Acquire) == 0 {
        return;
    }
    for socket in all() {
        let Flavour::Raw(own) = socket.flavour else { continue };
        let state = socket.state.lock();
        let fits = own == number
            && (state.local.ip.is_unspecified() || state.local.ip == from)
            && state.remote.is_none_or(|remote| remote.ip == to)
            && (socket.family == Family::V4) == from.is_ipv4();
        drop(state);
        if fits {
            let to = errors::endpoint(to, 0, packet.interface);
            socket.on_failure(report, to, report.hard, Some(packet));
        }
    }
}

fn wants(socket: &DatagramSocket, packet: &Packet, header: &Header) -> bool {
    let family = if header.source.is_ipv4() { Family::V4 } else { Family::V6 };
    let Flavour::Raw(number) = socket.flavour else { return false };
    if socket.family != family || number != header.protocol || number == protocol::RAW {
        return false;
    }
    let state = socket.state.lock();
    let local = state.local.ip.is_unspecified() || state.local.ip == header.destination;
    let remote = state.remote.is_none_or(|remote| remote.ip == header.source);
    drop(state);
    let to = header.destination;
    if to.is_multicast() && !socket.wants_group(to, header.source, header.interface) {
        return false;
    }
    let settings = socket.settings.lock();
    let device = settings.device == 0 || settings.device == header.interface;
    let mut kind = [0];
    let filtered = is_icmp(number)
        && family == Family::V4
        && packet.read(header.len, &mut kind) == 1
        && kind[0] < 32
        && settings.filter & 1 << kind[0] != 0;
    local && remote && device && !filtered
}

fn give(socket: &DatagramSocket, packet: &Packet, header: &Header) {
    let mut copy = Box::new(packet.clone());
    if header.source.is_ipv6() {
        copy.pull(header.len);
    }
    let Ok(data) = copy.into_rope() else { return };
    let datagram = Datagram {
        data,
        from: Endpoint::new(header.source, 0),
        to: header.destination,
        interface: header.interface,
        ttl: header.ttl,
        tos: header.tos,
        received: sched::time::realtime(),
        options: Vec::new(),
        segment: 0,
    };
    // A packet that finds no room is lost.
    let _ = socket.receive_datagram(datagram);
}
