//! The header of IPv6, and its extensions.

use core::net::Ipv6Addr;

use base::Result;

use super::fragment::Piece;
use super::{Header, Outgoing};
use crate::packet::Packet;

/// Bytes without extensions.
pub(super) const HEADER: usize = 40;
pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// The fragment header.
pub(super) const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// No next header.
pub(super) const NOTHING: u8 = 59;
/// Extensions that are looked at, at most.
const EXTENSIONS_MAX: usize = 8;

/// Puts the header in front.
pub(super) fn push(packet: &mut Packet, out: &Outgoing, source: Ipv6Addr, destination: Ipv6Addr) -> Result<()> {
    let len = packet.len();
    let header = packet.push(HEADER)?;
    header[0] = 0x60 | out.tos >> 4;
    header[1] = out.tos << 4;
    header[2..4].fill(0);
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6] = out.protocol;
    header[7] = out.ttl;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    Ok(())
}

/// Puts the header of a fragment in front.
pub(super) fn push_fragment(packet: &mut Packet, next: u8, identity: u32, offset: usize, more: bool) -> Result<()> {
    let header = packet.push(8)?;
    header[0] = next;
    header[1] = 0;
    header[2..4].copy_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
    header[4..8].copy_from_slice(&identity.to_be_bytes());
    Ok(())
}

/// Reads the header and its extensions and cuts the packet to what it says. `None` where it is malformed.
pub(super) fn parse(packet: &mut Packet) -> Option<(Header, Option<Piece>)> {
    if !packet.ensure(HEADER) {
        return None;
    }
    let head = packet.head();
    let total = HEADER + usize::from(u16::from_be_bytes([head[4], head[5]]));
    let total = if packet.len() > 65535 + HEADER { packet.len() } else { total };
    if total > packet.len() {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = head[at..at + 16].try_into().unwrap_or_default();
        super::super::inet::address::unmap(octets.into())
    };
    let (source, destination) = (address(8), address(24));
    if source.is_ipv4() || destination.is_ipv4() {
        // Mapped addresses have no place on a wire.
        return None;
    }
    let tos = head[0] << 4 | head[1] >> 4;
    let (mut next, ttl) = (head[6], head[7]);
    packet.truncate(total);
    let mut at = HEADER;
    let mut piece = None;
    for _ in 0..EXTENSIONS_MAX {
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT) {
            break;
        }
        if !packet.ensure(at + 8) {
            return None;
        }
        let extension = &packet.head()[at..at + 8];
        let (following, len) = (extension[0], usize::from(extension[1]));
        if next == FRAGMENT {
            let place = u16::from_be_bytes([extension[2], extension[3]]);
            let identity = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
            let (more, offset) = (place & 1 != 0, usize::from(place & !7));
            next = following;
            at += 8;
            if more || offset != 0 {
                piece = Some(Piece { identity, offset, more });
                break;
            }
        } else {
            next = following;
            at += 8 + 8 * len;
        }
    }
    if !packet.ensure(at) {
        return None;
    }
    Some((Header { source, destination, protocol: next, ttl, tos, len: at, interface: packet.interface }, piece))
}
