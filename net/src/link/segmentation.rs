//! Cutting of TCP segments and UDP datagrams that were made too large on purpose, for devices that cannot do it (generic segmentation offload).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::checksum;
use crate::ip::protocol;
use crate::packet::{Checksum, Packet, Rope};

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// Cuts a packet (with or without a link header) into packets of its segment size. One that is not understood comes back as it is.
#[allow(clippy::vec_box, reason = "each part goes its own way as a box")]
pub(crate) fn cut(mut packet: Box<Packet>) -> Vec<Box<Packet>> {
    let size = usize::from(core::mem::take(&mut packet.segment_size));
    let link = usize::from(packet.link);
    let Some((network, transport)) = header_lengths(&mut packet, link).filter(|_| size > 0) else {
        return alloc::vec![packet];
    };
    let headers = link + network + transport;
    if !packet.ensure(headers) {
        return alloc::vec![packet];
    }
    let head = packet.head()[..headers].to_vec();
    let mut template = packet.clone();
    template.truncate(headers);
    template.payload = Rope::new();
    packet.pull(headers);
    let Ok(mut rest) = packet.into_rope() else { return Vec::new() };
    let tcp = transport >= 20;
    let mut parts = Vec::new();
    let mut offset = 0;
    while !rest.is_empty() {
        let data = rest.split_to(size);
        let len = data.len();
        let mut part = template.clone();
        part.payload = data;
        let fresh = Fresh { offset, first: offset == 0, last: rest.is_empty(), number: parts.len() as u16 };
        fresh.write(part.head_mut(), &head, link, network, tcp, len);
        part.checksum = Checksum::Partial { start: network as u16, offset: if tcp { 16 } else { 6 } };
        part.seed_checksum();
        offset += len;
        parts.push(part);
    }
    parts
}

/// Bytes of the network header and of the transport header behind the link header.
fn header_lengths(packet: &mut Packet, link: usize) -> Option<(usize, usize)> {
    if !packet.ensure(link + 40) {
        return None;
    }
    let head = &packet.head()[link..];
    let (network, kind) = match head[0] >> 4 {
        4 => (usize::from(head[0] & 0xf) * 4, head[9]),
        6 => (40, head[6]),
        _ => return None,
    };
    match kind {
        protocol::UDP => Some((network, 8)),
        protocol::TCP if packet.ensure(link + network + 20) => {
            Some((network, usize::from(packet.head()[link + network + 12] >> 4) * 4))
        }
        _ => None,
    }
}

/// Where in the whole a part is.
struct Fresh {
    offset: usize,
    first: bool,
    last: bool,
    number: u16,
}

impl Fresh {
    /// Writes the headers of the part: lengths, identity, sequence number, and flags that are for one part only.
    fn write(&self, head: &mut [u8], whole: &[u8], link: usize, network: usize, tcp: bool, len: usize) {
        head.copy_from_slice(whole);
        let (ip, transport) = head[link..].split_at_mut(network);
        let total = network + transport.len() + len;
        if ip[0] >> 4 == 4 {
            ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            let identity = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(self.number);
            ip[4..6].copy_from_slice(&identity.to_be_bytes());
            ip[10..12].fill(0);
            let sum = checksum::of(ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        }
        if tcp {
            let seq = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            transport[4..8].copy_from_slice(&seq.wrapping_add(self.offset as u32).to_be_bytes());
            if !self.last {
                transport[13] &= !TCP_FIN_PSH;
            }
            if !self.first {
                transport[13] &= !TCP_CWR;
            }
        } else {
            transport[4..6].copy_from_slice(&((8 + len) as u16).to_be_bytes());
        }
    }
}
