//! Sending on packet sockets: whole frames (SOCK_RAW), or what follows the link header (SOCK_DGRAM).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use mm::Source;

use super::ring::Ring;
use super::{PacketSocket, parse};
use crate::backlog;
use crate::link::{self, Interface, ethernet, flag, tunnel};
use crate::packet::{Filler, Packet, Rope};
use crate::socket::SocketKind;

/// Where a frame goes.
struct Target {
    interface: Arc<Interface>,
    protocol: u16,
    /// The receiver's hardware address, for SOCK_DGRAM.
    to: Option<[u8; 6]>,
}

/// The interface that is named, or that the socket is bound to. `ENXIO`, `ENETDOWN`, `EINVAL`.
fn target(socket: &PacketSocket, to: Option<&[u8]>) -> Result<Target> {
    let bound = *socket.binding.lock();
    let (binding, to) = match to {
        None => (bound, None),
        Some(raw) => {
            let named = parse(raw).or_else(|error| short_address(raw).ok_or(error))?;
            let mac = raw.get(12..18).and_then(|mac| mac.try_into().ok());
            (named, mac.filter(|_| raw.get(11).is_some_and(|&len| len >= 6)))
        }
    };
    let interface = link::by_index(binding.interface).ok_or(Errno::ENXIO)?;
    if !interface.is_up() {
        return Err(Errno::ENETDOWN);
    }
    Ok(Target { interface, protocol: binding.protocol, to })
}

/// An address with no more bytes than its hardware address needs.
fn short_address(raw: &[u8]) -> Option<super::Binding> {
    let len = usize::from(*raw.get(11)?);
    let mut whole = [0; super::ADDRESS];
    if raw.len() < 12 + len || raw.len() > whole.len() {
        return None;
    }
    whole[..raw.len()].copy_from_slice(raw);
    parse(&whole).ok()
}

/// send(2) and write(2). Errors of [`target`], `EMSGSIZE`, `EINVAL` for a frame without its header, `EFAULT`, `ENOBUFS`.
pub(super) fn send(socket: &PacketSocket, source: &mut Source, to: Option<&[u8]>, _nonblocking: bool) -> Result<usize> {
    let ring = socket.send_ring.lock();
    if let Some(ring) = ring.as_ref() {
        return send_ring(socket, ring, to);
    }
    drop(ring);
    let target = target(socket, to)?;
    let len = source.remaining();
    let mut header = [0; 10];
    let vnet = socket.kind == SocketKind::Raw && socket.flags.vnet_header.load(Ordering::Relaxed);
    if vnet {
        if len < header.len() {
            return Err(Errno::EINVAL);
        }
        if source.take(&mut header)? < header.len() {
            return Err(Errno::EFAULT);
        }
    }
    check(socket, &target, source.remaining(), vnet && header[1] != 0)?;
    let data = Filler::shared(|filler| filler.take_all(source))?;
    transmit(socket, &target, data, vnet.then_some(&header))?;
    Ok(len)
}

fn check(socket: &PacketSocket, target: &Target, len: usize, large: bool) -> Result<()> {
    const TAG: usize = 4;
    let framed = target.interface.is_framed() || target.interface.is_loopback();
    let header = if framed && socket.kind == SocketKind::Raw { ethernet::HEADER } else { 0 };
    if len > target.interface.mtu() + header + if header != 0 { TAG } else { 0 } && !large
        || len > 65535 + ethernet::HEADER
    {
        return Err(Errno::EMSGSIZE);
    }
    if len < header { Err(Errno::EINVAL) } else { Ok(()) }
}

fn transmit(socket: &PacketSocket, target: &Target, data: Rope, vnet: Option<&[u8; 10]>) -> Result<()> {
    let interface = &target.interface;
    let mut packet = Packet::outgoing(data);
    packet.priority = socket.options.priority.load(Ordering::Relaxed) as u32;
    packet.mark = socket.options.mark.load(Ordering::Relaxed) as u32;
    let with_header = interface.is_framed() || interface.is_loopback();
    if socket.kind == SocketKind::Datagram && interface.is_framed() {
        // Without an address only an interface that asks for none has a header to make.
        let anyone = interface.flags() & flag::NOARP != 0;
        let to = target.to.or(anyone.then_some([0; 6])).ok_or(Errno::EINVAL)?;
        let from = interface.mac();
        let head = packet.push(ethernet::HEADER)?;
        head[..6].copy_from_slice(&to);
        head[6..12].copy_from_slice(&from);
        head[12..14].copy_from_slice(&target.protocol.to_be_bytes());
    } else if socket.kind == SocketKind::Raw && with_header {
        // Frames of the loopback interface travel without their header.
        packet.ensure(ethernet::HEADER);
        if interface.is_loopback() {
            packet.pull(ethernet::HEADER);
        }
    }
    if interface.is_framed() {
        packet.link = ethernet::HEADER as u8;
    }
    packet.ensure(usize::from(packet.link) + 1);
    if let Some(header) = vnet {
        tunnel::apply_vnet(header, &mut packet)?;
    }
    interface.send(packet);
    backlog::run();
    Ok(())
}

/// Sends what the program has put into its ring, which nobody else sends meanwhile: how many bytes.
fn send_ring(socket: &PacketSocket, ring: &Ring, to: Option<&[u8]>) -> Result<usize> {
    let target = target(socket, to)?;
    let mut total = 0;
    while let Some(next) = ring.next_to_send() {
        let sent = next.and_then(|bytes| {
            check(socket, &target, bytes.len(), false)?;
            let data = Filler::shared(|filler| filler.bytes(&bytes))?;
            transmit(socket, &target, data, None).map(|()| bytes.len())
        });
        match sent {
            Ok(len) => {
                total += len;
                ring.sent(true);
            }
            // With PACKET_LOSS what is wrong is skipped.
            Err(_) if socket.flags.loss.load(Ordering::Relaxed) => ring.sent(true),
            Err(error) => {
                ring.sent(false);
                return if total > 0 { Ok(total) } else { Err(error) };
            }
        }
        sched::preempt_point();
    }
    Ok(total)
}
