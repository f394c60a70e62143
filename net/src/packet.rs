//! Packets: headers in a small array, data as pieces of pages ([`crate::rope`]).

use alloc::boxed::Box;

use base::{Errno, Nanos, Result};

pub use crate::rope::{Filler, Piece, Rope};

/// Room for the headers of a packet: Ethernet, IPv4 with options, TCP with options.
const HEAD: usize = 192;
/// Where headers of a packet that is made here end, so that lower layers can put theirs in front.
const HEAD_START: usize = 160;

/// What is known of a packet's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// Nothing: the receiver has to look.
    #[default]
    Unknown,
    /// It is right: it never left the machine, or the device looked.
    Good,
    /// The sender left it to the device: it covers everything from `start` in the packet, and is to be stored `offset` bytes on.
    Partial {
        /// From the network header on.
        start: u16,
        /// From `start` on.
        offset: u16,
    },
}

/// To whom a packet was addressed on its link (`sll_pkttype`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Addressed {
    /// To us.
    #[default]
    Host = 0,
    /// To everyone.
    Broadcast = 1,
    /// To a group.
    Multicast = 2,
    /// To another machine.
    Other = 3,
    /// It is ours, on the way out.
    Outgoing = 4,
    /// It is a copy for this machine of what went out to a group or to everyone.
    Loopback = 5,
}

/// A packet on its way up or down: headers in a small array, data as pieces of pages.
pub struct Packet {
    head: [u8; HEAD],
    /// Before it nothing was ever put.
    first: u8,
    start: u8,
    end: u8,
    /// What comes after the headers in `head`.
    pub payload: Rope,
    /// The transport checksum.
    pub checksum: Checksum,
    /// The segment size where a device (or software) is to cut it into segments; 0 for none.
    pub segment_size: u16,
    /// The interface it came in by, or goes out by.
    pub interface: u32,
    /// To whom it was sent on the link.
    pub addressed: Addressed,
    /// When it was received, on the real-time clock; 0 if nobody asked.
    pub received: Nanos,
    /// Bytes of the link's header in front of the network header; 0 where the packet begins with the latter.
    pub link: u8,
    /// Interfaces that it went through since it was last put off.
    pub hops: u8,
    /// Not to come back to this machine's own members of a group (IP_MULTICAST_LOOP).
    pub quiet: bool,
    /// SO_MAX_PACING_RATE, which some queues keep to, in bytes a second; 0 for none.
    pub rate: u32,
    /// SO_PRIORITY.
    pub priority: u32,
    /// SO_MARK.
    pub mark: u32,
}

impl Packet {
    /// A packet to be sent, with headers still to come.
    pub fn outgoing(payload: Rope) -> Box<Packet> {
        Packet::with(payload, HEAD_START as u8)
    }

    /// A packet from a device, all of it still in the payload.
    pub fn incoming(payload: Rope) -> Box<Packet> {
        Packet::with(payload, 0)
    }

    fn with(payload: Rope, at: u8) -> Box<Packet> {
        Box::new(Packet {
            head: [0; HEAD],
            first: at,
            start: at,
            end: at,
            payload,
            checksum: Checksum::Unknown,
            segment_size: 0,
            interface: 0,
            addressed: Addressed::Host,
            received: 0,
            link: 0,
            hops: 0,
            quiet: false,
            rate: 0,
            priority: 0,
            mark: 0,
        })
    }

    /// Bytes of headers and payload.
    pub fn len(&self) -> usize {
        usize::from(self.end - self.start) + self.payload.len()
    }

    /// Is it empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The headers.
    pub fn head(&self) -> &[u8] {
        &self.head[usize::from(self.start)..usize::from(self.end)]
    }

    /// The headers, to be changed.
    pub fn head_mut(&mut self) -> &mut [u8] {
        &mut self.head[usize::from(self.start)..usize::from(self.end)]
    }

    /// Room for `n` more bytes in front of the headers. `EMSGSIZE` where there is none.
    pub fn push(&mut self, n: usize) -> Result<&mut [u8]> {
        let start = usize::from(self.start).checked_sub(n).ok_or(Errno::EMSGSIZE)?;
        self.start = start as u8;
        self.first = self.first.min(self.start);
        Ok(&mut self.head[start..start + n])
    }

    /// Sees to it that the headers have at least `n` bytes; false if the packet is shorter, or the headers would be too long.
    pub fn ensure(&mut self, n: usize) -> bool {
        let have = usize::from(self.end - self.start);
        if have >= n {
            return true;
        }
        let want = n - have;
        if want > self.payload.len() || !self.make_room(want) {
            return false;
        }
        let end = usize::from(self.end);
        self.payload.read(0, &mut self.head[end..end + want]);
        self.payload.advance(want);
        self.end = (end + want) as u8;
        true
    }

    /// Makes room for so many bytes behind the headers. A packet that was made here has some in front of them, which nobody needs once it comes
    /// back by the loopback.
    fn make_room(&mut self, want: usize) -> bool {
        let shift = (usize::from(self.end) + want).saturating_sub(HEAD);
        if shift > usize::from(self.first) {
            return false;
        }
        if shift > 0 {
            self.head.copy_within(shift..usize::from(self.end), 0);
            for place in [&mut self.first, &mut self.start, &mut self.end] {
                *place -= shift as u8;
            }
        }
        true
    }

    /// Drops the first `n` bytes, which must be in the headers.
    pub fn pull(&mut self, n: usize) {
        let n = n.min(usize::from(self.end - self.start));
        self.start += n as u8;
    }

    /// Takes back `n` bytes that were pulled.
    pub fn unpull(&mut self, n: usize) {
        self.start = self.start.saturating_sub(n as u8);
    }

    /// Cuts the packet to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        let head = usize::from(self.end - self.start);
        if len < head {
            self.end = self.start + len as u8;
        }
        self.payload.truncate(len.saturating_sub(head));
    }

    /// Moves what is left in the headers into the payload's place: the whole rest as one rope. `ENOBUFS`.
    pub fn into_rope(mut self: Box<Self>) -> Result<Rope> {
        if self.start == self.end {
            return Ok(core::mem::take(&mut self.payload));
        }
        let mut rope = Filler::new().bytes(self.head())?;
        rope.append(core::mem::take(&mut self.payload));
        Ok(rope)
    }

    /// Copies from `offset` on; how many bytes there were.
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> usize {
        let head = self.head().get(offset..).unwrap_or_default();
        let n = head.len().min(dst.len());
        dst[..n].copy_from_slice(&head[..n]);
        let from = offset.saturating_sub(self.head().len());
        n + self.payload.read(from, &mut dst[n..])
    }
}

impl Packet {
    fn network(&self) -> &[u8] {
        self.head().get(usize::from(self.link)..).unwrap_or_default()
    }

    /// Is it IPv6?
    pub fn is_v6(&self) -> bool {
        self.network().first().is_some_and(|byte| byte >> 4 == 6)
    }

    /// Is it TCP?
    pub fn is_tcp(&self) -> bool {
        self.network().get(if self.is_v6() { 6 } else { 9 }) == Some(&crate::ip::protocol::TCP)
    }

    /// Where in the headers a checksum that was left to the device goes, and from where on it counts.
    fn partial(&mut self) -> Option<(usize, usize)> {
        let Checksum::Partial { start, offset } = self.checksum else { return None };
        let from = usize::from(self.link) + usize::from(start);
        let at = from + usize::from(offset);
        self.ensure(at + 2).then_some((from, at))
    }

    /// Computes a checksum that was left to a device. Its field has the sum of the pseudo-header.
    pub fn finish_checksum(&mut self) {
        let Some((from, at)) = self.partial() else { return };
        let mut sum = crate::checksum::Sum::default();
        sum.add(&self.head()[from..]);
        sum.add_rope(&self.payload);
        let value = if sum.finish() == 0 { 0xffff } else { sum.finish() };
        self.head_mut()[at..at + 2].copy_from_slice(&value.to_be_bytes());
        self.checksum = Checksum::Unknown;
    }

    /// Puts the sum of the pseudo-header where the checksum is to go, by what the network header says now.
    pub fn seed_checksum(&mut self) {
        let Some((from, at)) = self.partial() else { return };
        let len = self.len() - from;
        let network = self.network();
        let addresses = match network.first().map(|byte| byte >> 4) {
            Some(6) if network.len() >= 40 => (&network[8..40], network[6]),
            Some(4) if network.len() >= 20 => (&network[12..20], network[9]),
            _ => return,
        };
        let mut sum = crate::checksum::Sum::default();
        sum.add(addresses.0);
        sum.add16(addresses.1.into());
        sum.add(&(len as u32).to_be_bytes());
        let value = sum.folded();
        self.head_mut()[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// A number that all packets of a flow (addresses, protocol, ports) share.
    pub fn flow_hash(&self) -> u32 {
        let network = self.network();
        let mut hash = crate::hash::Keyed::new();
        let (addresses, protocol, end) = match network.first().map(|byte| byte >> 4) {
            Some(4) if network.len() >= 20 => (12..20, network[9], usize::from(network[0] & 0xf) * 4),
            Some(6) if network.len() >= 40 => (8..40, network[6], 40),
            _ => (0..network.len().min(14), 0, usize::MAX),
        };
        for part in network[addresses].chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            hash.word(u64::from_ne_bytes(word));
        }
        hash.word(protocol.into());
        if let Some(ports) = end.checked_add(4).and_then(|past| network.get(end..past)) {
            hash.word(u32::from_ne_bytes([ports[0], ports[1], ports[2], ports[3]]).into());
        }
        hash.value() as u32
    }

    /// Damages one bit behind the link header.
    pub fn flip_bit(&mut self, random: u64) {
        let link = usize::from(self.link);
        let len = self.len().saturating_sub(link);
        if len == 0 {
            return;
        }
        let at = link + random as usize % len;
        let bit = 1 << (random >> 60 & 7);
        if let Some(byte) = self.head_mut().get_mut(at) {
            *byte ^= bit;
            return;
        }
        // Pieces are never written again once given out: the damaged byte gets a piece of its own.
        let at = at - self.head().len();
        let mut before = core::mem::take(&mut self.payload);
        let mut rest = before.split_to(at);
        core::mem::swap(&mut before, &mut rest);
        let mut byte = [0];
        rest.read(0, &mut byte);
        rest.advance(1);
        if let Ok(piece) = Filler::new().bytes(&[byte[0] ^ bit]) {
            before.append(piece);
        }
        before.append(rest);
        self.payload = before;
    }
}

impl Clone for Packet {
    fn clone(&self) -> Packet {
        Packet { head: self.head, payload: self.payload.clone(), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_grows_in_front_and_is_pulled() {
        let mut packet = Packet::outgoing(Filler::new().bytes(b"data").unwrap());
        packet.push(4).unwrap().copy_from_slice(b"tcp ");
        packet.push(3).unwrap().copy_from_slice(b"ip ");
        assert_eq!(packet.head(), b"ip tcp ");
        packet.pull(3);
        assert!(packet.ensure(6) && !packet.ensure(100));
        assert_eq!((packet.head(), packet.payload.len(), packet.len()), (&b"tcp da"[..], 2, 8));
        packet.truncate(7);
        packet.unpull(3);
        assert_eq!(packet.into_rope().unwrap().to_vec().unwrap(), b"ip tcp dat");
    }

    #[test]
    fn room_in_front_serves_behind() {
        let mut packet = Packet::outgoing(Filler::new().bytes(&[7; 300]).unwrap());
        packet.push(40).unwrap().fill(6);
        packet.pull(40);
        assert!(packet.ensure(HEAD - 40) && packet.head() == [7; HEAD - 40]);
        packet.unpull(40);
        assert_eq!((packet.len(), &packet.head()[..41]), (340, &[&[6; 40][..], &[7]].concat()[..]));
        // What was put in stays.
        packet.pull(40);
        assert!(!packet.ensure(HEAD - 39));
        let mut incoming = Packet::incoming(Filler::new().bytes(&[7; 300]).unwrap());
        assert!(incoming.ensure(100));
        incoming.pull(100);
        assert!(incoming.ensure(HEAD - 100) && !incoming.ensure(HEAD - 99));
    }
}
