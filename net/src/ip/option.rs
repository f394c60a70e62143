//! Options of the IPv4 header (RFC 791, 3.1): the route and the times that routers and receivers record; source routes are for administrators to allow.

use core::net::{IpAddr, Ipv4Addr};

use base::NANOS_PER_SEC;

use super::v4::HEADER;
use super::{Header, icmp};
use crate::checksum;
use crate::link;
use crate::link::conf::V4;
use crate::packet::Packet;
use crate::route;
use crate::statistics::{self, Counter};

/// Most bytes of options.
pub(crate) const OPTIONS_MAX: usize = 40;

const END: u8 = 0;
const NOTHING: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMES: u8 = 68;
/// Source routes.
pub(crate) const LOOSE_ROUTE: u8 = 0x83;
pub(crate) const STRICT_ROUTE: u8 = 0x89;

/// The options of one header, padded.
pub(super) struct Options {
    bytes: [u8; OPTIONS_MAX],
    len: usize,
}

impl Options {
    /// These.
    pub(super) fn all(options: &[u8]) -> Options {
        let mut bytes = [0; OPTIONS_MAX];
        let len = options.len().min(OPTIONS_MAX);
        bytes[..len].copy_from_slice(&options[..len]);
        Options { bytes, len: len.next_multiple_of(4) }
    }

    /// Those that every piece of a packet has to have.
    pub(super) fn copied(options: &[u8]) -> Options {
        const COPIED: u8 = 0x80;
        Options::only(options, |kind| kind & COPIED != 0)
    }

    /// Those whose type is wanted.
    fn only(options: &[u8], wanted: impl Fn(u8) -> bool) -> Options {
        let (mut bytes, mut used) = ([0; OPTIONS_MAX], 0);
        for option in each_option(options).filter(|option| wanted(option[0])) {
            bytes[used..used + option.len()].copy_from_slice(option);
            used += option.len();
        }
        Options { bytes, len: used.next_multiple_of(4) }
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Puts our address, and the time, where they are asked for.
    pub(super) fn record(&mut self, own: Ipv4Addr) {
        let len = self.len;
        record(&mut self.bytes[..len], own);
    }
}

/// The options in a header, each with its type and length; those of one byte are left out. What is malformed ends them.
fn each_option(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        while rest.first() == Some(&NOTHING) {
            rest = &rest[1..];
        }
        let len = match rest {
            [END, ..] | [] => return None,
            [_, len, ..] => usize::from(*len),
            _ => return None,
        };
        let option = rest.get(..len).filter(|_| len >= 2)?;
        rest = &rest[len..];
        Some(option)
    })
}

/// Where the first malformed option is, in bytes from the first.
fn malformed(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            END => return None,
            NOTHING => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let len = usize::from(*options.get(at + 1).unwrap_or(&0));
        let Some(option) = options.get(at..at + len).filter(|_| len >= 2) else { return Some(at) };
        let least = if kind == TIMES { 5 } else { 4 };
        let points = matches!(kind, RECORD_ROUTE | TIMES | LOOSE_ROUTE | STRICT_ROUTE);
        if points && option.get(2).is_none_or(|&pointer| pointer < least) {
            return Some(at + 2);
        }
        at += len;
    }
    None
}

/// Milliseconds since midnight, as these options and ICMP tell the time.
pub(super) fn time_of_day() -> u32 {
    (sched::time::realtime() / (NANOS_PER_SEC / 1000) % 86_400_000) as u32
}

fn record(options: &mut [u8], own: Ipv4Addr) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            END => return,
            NOTHING => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let len = usize::from(*options.get(at + 1).unwrap_or(&0));
        let Some(option) = options.get_mut(at..at + len).filter(|_| len >= 2) else { return };
        match kind {
            RECORD_ROUTE => put(option, &own.octets()),
            TIMES if len >= 4 => put_time(option, own),
            _ => {}
        }
        at += len;
    }
}

/// Puts bytes where an option points to, if there is room, and moves the pointer on.
fn put(option: &mut [u8], bytes: &[u8]) {
    let at = usize::from(*option.get(2).unwrap_or(&0)).saturating_sub(1);
    if let Some(place) = option.get_mut(at..at + bytes.len()).filter(|_| at >= 3) {
        place.copy_from_slice(bytes);
        option[2] += bytes.len() as u8;
    }
}

fn put_time(option: &mut [u8], own: Ipv4Addr) {
    let time = time_of_day().to_be_bytes();
    let at = usize::from(option[2]).saturating_sub(1);
    let room = option.len().saturating_sub(at);
    match option[3] & 0xf {
        0 if room >= 4 => put(option, &time),
        1 if room >= 8 => put(option, &[own.octets(), time].concat()),
        3 if room >= 8 => {
            let named = [option[at], option[at + 1], option[at + 2], option[at + 3]];
            if route::is_local(IpAddr::from(named)) {
                put(option, &[named, time].concat());
            }
        }
        // One more that found no room.
        _ if option[3] >> 4 < 15 => option[3] += 0x10,
        _ => {}
    }
}

/// Looks at the options of a received packet, which begins with its IP header; false if it goes no further.
pub(super) fn accepts(packet: &mut Packet, header: &Header) -> bool {
    let Some(options) = packet.head().get(HEADER..header.len) else { return true };
    let routed = each_option(options).any(|option| matches!(option[0], LOOSE_ROUTE | STRICT_ROUTE));
    if let Some(at) = malformed(options) {
        statistics::add(Counter::IpInHdrErrors, 1);
        packet.pull(header.len);
        icmp::parameter_problem(packet, header, (HEADER + at) as u8);
        return false;
    }
    let allowed = || link::by_index(header.interface).is_some_and(|interface| interface.both(V4::AcceptSourceRoute));
    !routed || allowed()
}

/// Records that a packet came by here, which begins with its IP header.
pub(super) fn record_in(packet: &mut Packet, header: &Header, own: IpAddr) {
    let (IpAddr::V4(own), true) = (own, header.len > HEADER) else { return };
    let Some(head) = packet.head_mut().get_mut(..header.len) else { return };
    record(&mut head[HEADER..], own);
    head[10..12].fill(0);
    let sum = checksum::of(head);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The options of the answer to a packet, which is at its transport header: what it records is recorded on the way back, too.
pub(super) fn for_answer(packet: &mut Packet, header: &Header) -> Options {
    packet.unpull(header.len);
    let options = packet.head().get(HEADER..header.len).unwrap_or_default();
    let kept = Options::only(options, |kind| matches!(kind, RECORD_ROUTE | TIMES));
    packet.pull(header.len);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_recorded_while_there_is_room() {
        let own = Ipv4Addr::new(10, 0, 0, 1);
        let mut options = [NOTHING, RECORD_ROUTE, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0];
        for expected in [8, 12, 12] {
            record(&mut options, own);
            assert_eq!(options[3], expected);
        }
        assert_eq!(options[4..], [10, 0, 0, 1, 10, 0, 0, 1]);
    }

    #[test]
    fn times_overflow_into_a_count() {
        let mut options = [TIMES, 8, 5, 0, 0, 0, 0, 0];
        record(&mut options, Ipv4Addr::LOCALHOST);
        record(&mut options, Ipv4Addr::LOCALHOST);
        assert_eq!((options[2], options[3]), (9, 0x10));
    }

    #[test]
    fn malformed_options_are_found() {
        assert_eq!(malformed(&[NOTHING, NOTHING, END]), None);
        assert_eq!(malformed(&[NOTHING, RECORD_ROUTE, 7, 4, 0, 0, 0, 0]), None);
        for (bad, at) in
            [(&[RECORD_ROUTE][..], 0), (&[99, 1, 0, 0], 0), (&[99, 9, 0, 0], 0), (&[RECORD_ROUTE, 7, 3, 0, 0, 0, 0], 2)]
        {
            assert_eq!(malformed(bad), Some(at), "{bad:?}");
        }
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut bytes = [0u8; 12];
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 40) as u8 % if seed >> 63 == 0 { 13 } else { 255 };
            }
            let _ = (malformed(&bytes), each_option(&bytes).count());
            record(&mut bytes, Ipv4Addr::LOCALHOST);
        }
    }
}
