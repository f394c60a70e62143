//! Control messages of Internet sockets: what a program learns of a datagram, and what it may say about one (ip(7), ipv6(7)).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::{Errno, Result};

use super::address::{Endpoint, Family};
use super::options::{IP_PKTINFO, SOL_IP, SOL_IPV6, Settings, word};
use super::queue::Datagram;
use crate::socket::ControlMessage;

const IP_TOS: i32 = 1;
const IP_TTL: i32 = 2;
const IPV6_PKTINFO: i32 = 50;
const IPV6_HOPLIMIT: i32 = 52;
const IPV6_TCLASS: i32 = 67;
const IP_RECVOPTS: i32 = 6;
const IP_RETOPTS: i32 = 7;
const IP_ORIGDSTADDR: i32 = 20;
const IPV6_ORIGDSTADDR: i32 = 74;

/// What the sender says about one datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    pub(super) source: Option<IpAddr>,
    pub(super) interface: u32,
    pub(super) ttl: Option<u8>,
    pub(super) tos: Option<u8>,
    /// UDP_SEGMENT.
    pub(super) segment: u16,
}

/// Reads control messages. `EINVAL`.
pub(super) fn read(messages: &[ControlMessage]) -> Result<Wishes> {
    const SOL_UDP: i32 = 17;
    const UDP_SEGMENT: i32 = 103;
    let mut wishes = Wishes::default();
    for message in messages {
        let data = &message.data[..];
        match (message.level, message.kind) {
            (SOL_IP, IP_PKTINFO) => {
                let raw = data.get(..12).ok_or(Errno::EINVAL)?;
                wishes.interface = word(raw)? as u32;
                let source = Ipv4Addr::new(raw[4], raw[5], raw[6], raw[7]);
                wishes.source = (!source.is_unspecified()).then_some(source.into());
            }
            (SOL_IPV6, IPV6_PKTINFO) => {
                let octets: [u8; 16] = data.get(..16).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
                let source = super::address::unmap(Ipv6Addr::from(octets));
                wishes.source = (!source.is_unspecified()).then_some(source);
                wishes.interface = word(&data[16..])? as u32;
            }
            (SOL_IP, IP_TTL) | (SOL_IPV6, IPV6_HOPLIMIT) => match word(data)? {
                -1 if message.level == SOL_IPV6 => wishes.ttl = None,
                ttl @ 1..=255 => wishes.ttl = Some(ttl as u8),
                _ => return Err(Errno::EINVAL),
            },
            (SOL_IP, IP_TOS) => wishes.tos = Some(super::options::number(data)? as u8),
            (SOL_IPV6, IPV6_TCLASS) => wishes.tos = Some(word(data)? as u8),
            (SOL_UDP, UDP_SEGMENT) => {
                wishes.segment = data.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
            }
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(wishes)
}

/// What the receiver asked to learn.
pub(super) fn write(settings: &Settings, family: Family, datagram: &Datagram, port: u16) -> Vec<ControlMessage> {
    const SOL_UDP: i32 = 17;
    const UDP_GRO: i32 = 104;
    let mut out = Vec::new();
    let mut put = |level, kind, data: Vec<u8>| out.push(ControlMessage { level, kind, data });
    if let IpAddr::V4(to) = datagram.to {
        if settings.packet_info {
            let mut info = datagram.interface.to_ne_bytes().to_vec();
            info.extend_from_slice(&to.octets());
            info.extend_from_slice(&to.octets());
            put(SOL_IP, IP_PKTINFO, info);
        }
        if settings.receive_ttl {
            put(SOL_IP, IP_TTL, i32::from(datagram.ttl).to_ne_bytes().to_vec());
        }
        if settings.receive_tos {
            put(SOL_IP, IP_TOS, alloc::vec![datagram.tos]);
        }
        for kind in [IP_RECVOPTS, IP_RETOPTS] {
            if settings.keeps_v4(kind) && !datagram.options.is_empty() {
                put(SOL_IP, kind, datagram.options.clone());
            }
        }
        if settings.keeps_v4(IP_ORIGDSTADDR) {
            put(SOL_IP, IP_ORIGDSTADDR, Endpoint::new(datagram.to, port).encode(Family::V4));
        }
    }
    if family == Family::V6 {
        if settings.packet_info6 {
            let to = match datagram.to {
                IpAddr::V6(v6) => v6,
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            };
            let mut info = to.octets().to_vec();
            info.extend_from_slice(&datagram.interface.to_ne_bytes());
            put(SOL_IPV6, IPV6_PKTINFO, info);
        }
        if settings.receive_hops {
            put(SOL_IPV6, IPV6_HOPLIMIT, i32::from(datagram.ttl).to_ne_bytes().to_vec());
        }
        if settings.keeps_v6(IPV6_ORIGDSTADDR) {
            put(SOL_IPV6, IPV6_ORIGDSTADDR, Endpoint::new(datagram.to, port).encode(Family::V6));
        }
        if settings.receive_class {
            put(SOL_IPV6, IPV6_TCLASS, i32::from(datagram.tos).to_ne_bytes().to_vec());
        }
    }
    if datagram.segment != 0 {
        put(SOL_UDP, UDP_GRO, i32::from(datagram.segment).to_ne_bytes().to_vec());
    }
    out
}
