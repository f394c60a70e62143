//! TCP (RFC 9293). [`connection`] is the pure machine; [`table`] finds the socket of a segment; [`listener`] opens passively; [`socket`] is what
//! programs see, with [`opening`], [`transfer`] and [`option`] for its parts; [`link`] carries segments as packets.

mod acknowledge;
mod calls;
pub mod congestion;
pub mod connection;
mod control_block;
mod cookie;
mod ecn;
pub(crate) mod fast_open;
mod info;
mod input;
mod link;
mod listener;
pub(crate) mod mark;
pub(crate) mod memory;
mod opening;
mod option;
mod output;
mod patience;
mod receive;
mod report;
pub mod rtt;
pub mod segment;
pub mod seq;
pub mod socket;
pub(crate) mod sysctl;
mod table;
mod timers;
mod transfer;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use core::net::IpAddr;

use crate::ip::icmp::Report;
use crate::ip::{Header, checksum_ok};
use crate::packet::Packet;
use crate::statistics::{self, Counter};
pub(crate) use listener::{Request, SYN_BACKLOG, SYN_COOKIES, SYNACK_RETRIES};
pub(crate) use opening::BACKLOG_MAX;
use segment::Segment;
pub(crate) use table::{all, listeners, requests};

/// Receives a packet, at its TCP header.
pub(crate) fn input(mut packet: Box<Packet>, header: Header) {
    statistics::add(Counter::TcpInSegs, 1);
    let len = if packet.ensure(segment::HEADER) { segment::header_len(packet.head()) } else { None };
    let Some(len) = len.filter(|&len| packet.ensure(len)) else {
        statistics::add(Counter::TcpInErrs, 1);
        return;
    };
    if !checksum_ok(&packet, &header) {
        statistics::add(Counter::TcpInErrs, 1);
        return;
    }
    let ports = segment::ports(packet.head());
    let Some(mut segment) = Segment::parse(&packet.head()[..len]) else { return };
    packet.pull(len);
    let Ok(payload) = packet.into_rope() else { return };
    segment.payload = payload;
    segment.codepoint = header.tos & 3;
    table::receive(segment, &header, ports);
}

/// An error message about a segment that was sent from `local` to `remote`.
pub(crate) fn on_report(local: (IpAddr, u16), remote: (IpAddr, u16), seq: u32, report: &Report) {
    if let Some(socket) = table::connected(local, remote) {
        socket.on_report(seq::Seq(seq), report);
    }
}
