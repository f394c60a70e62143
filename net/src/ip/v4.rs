//! The header of IPv4.

use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicU16, Ordering};

use base::Result;

use super::fragment::Piece;
use super::option::Options;
use super::{Header, Outgoing};
use crate::checksum;
use crate::packet::{Checksum, Packet};

/// Bytes without options.
pub(super) const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;

static IDENTITY: AtomicU16 = AtomicU16::new(1);

/// A number for a packet that may be cut.
pub(super) fn identity() -> u16 {
    IDENTITY.fetch_add(1, Ordering::Relaxed)
}

/// Puts the header in front. `piece`: the identity, the offset, and whether more follows.
pub(super) fn push(
    packet: &mut Packet,
    out: &Outgoing,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    piece: Option<(u16, usize, bool)>,
) -> Result<()> {
    let fresh = piece.is_none_or(|(_, offset, _)| offset == 0);
    let mut options = if fresh { Options::all(out.options) } else { Options::copied(out.options) };
    options.record(source);
    let len = HEADER + options.bytes().len();
    let total = packet.len() + len;
    let (identity, flags) = match piece {
        Some((identity, offset, more)) => (identity, (offset / 8) as u16 | if more { MORE } else { 0 }),
        None if out.whole => (0, DONT_FRAGMENT),
        None => (identity(), 0),
    };
    let header = packet.push(len)?;
    header[0] = 0x40 | (len / 4) as u8;
    header[1] = out.tos;
    header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    header[4..6].copy_from_slice(&identity.to_be_bytes());
    header[6..8].copy_from_slice(&flags.to_be_bytes());
    header[8] = out.ttl;
    header[9] = out.protocol;
    header[10..12].fill(0);
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    header[20..].copy_from_slice(options.bytes());
    let sum = checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Reads the header and cuts the packet to what it says. `None` where it is malformed.
pub(super) fn parse(packet: &mut Packet) -> Option<(Header, Option<Piece>)> {
    if !packet.ensure(HEADER) {
        return None;
    }
    let len = usize::from(packet.head()[0] & 0xf) * 4;
    if len < HEADER || !packet.ensure(len) {
        return None;
    }
    let head = packet.head();
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    // What is larger than the field can say was handed over whole by a device (or the loopback).
    let total = if packet.len() > 65535 { packet.len() } else { total };
    if total < len || total > packet.len() {
        return None;
    }
    if packet.checksum != Checksum::Good && checksum::of(&head[..len]) != 0 {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
    let header = Header {
        source: address(12).into(),
        destination: address(16).into(),
        protocol: head[9],
        ttl: head[8],
        tos: head[1],
        len,
        interface: packet.interface,
    };
    let place = u16::from_be_bytes([head[6], head[7]]);
    let (more, offset) = (place & MORE != 0, usize::from(place & 0x1fff) * 8);
    let identity = u32::from(u16::from_be_bytes([head[4], head[5]]));
    let piece = (more || offset != 0).then_some(Piece { identity, offset, more });
    packet.truncate(total);
    Some((header, piece))
}
