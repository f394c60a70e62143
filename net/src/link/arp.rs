//! ARP (RFC 826): who has an IPv4 address.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};

use super::conf::V4;
use super::neighbour::Word;
use super::{Interface, ethernet, neighbour, scope};
use crate::packet::{Addressed, Packet, Rope};
use crate::route::Kind;

/// Bytes of a message for Ethernet and IPv4.
const SIZE: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

fn send(interface: &Interface, operation: u16, source: Ipv4Addr, target: Ipv4Addr, target_mac: [u8; 6], to: [u8; 6]) {
    let mac = interface.mac();
    let mut packet = Packet::outgoing(Rope::new());
    let Ok(body) = packet.push(SIZE) else { return };
    body[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, (operation >> 8) as u8, operation as u8]);
    body[8..14].copy_from_slice(&mac);
    body[14..18].copy_from_slice(&source.octets());
    body[18..24].copy_from_slice(&target_mac);
    body[24..28].copy_from_slice(&target.octets());
    ethernet::send(interface, packet, to, ethernet::TYPE_ARP);
}

/// Asks who has an address: everyone, or who had it last.
pub(super) fn request(interface: &Interface, target: Ipv4Addr, last: Option<[u8; 6]>) {
    let source = match crate::route::source_for(interface, target.into(), target.into()) {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    send(interface, REQUEST, source, target, [0; 6], last.unwrap_or(ethernet::BROADCAST));
}

/// Is this machine not to answer here for an address that it has (`arp_ignore`)?
fn is_silent(interface: &Interface, target: Ipv4Addr, sender: Ipv4Addr) -> bool {
    let own = || interface.addresses().into_iter().find(|address| address.ip == target);
    match interface.most(V4::ArpIgnore) {
        0 => false,
        1 => own().is_none(),
        // Only those of the same network get an answer.
        2 => own().is_none_or(|own| !crate::route::matches(sender.into(), own.ip, own.prefix)),
        3 => own().is_some_and(|own| own.scope == scope::HOST),
        _ => true,
    }
}

/// Does this machine answer for one that it forwards to by another interface (`proxy_arp`)?
fn is_proxy(interface: &Interface, target: Ipv4Addr) -> bool {
    interface.either(V4::ProxyArp)
        && interface.forwards(true)
        && crate::route::lookup(target.into(), 0)
            .is_ok_and(|path| path.kind == Kind::Unicast && path.interface.index != interface.index)
}

/// Receives a message.
pub(super) fn input(mut packet: Box<Packet>, interface: &Arc<Interface>) {
    if !packet.ensure(SIZE) {
        return;
    }
    let body = packet.head();
    if body[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let operation = u16::from_be_bytes([body[6], body[7]]);
    let sender_mac: [u8; 6] = body[8..14].try_into().unwrap_or_default();
    let sender = Ipv4Addr::new(body[14], body[15], body[16], body[17]);
    let target = Ipv4Addr::new(body[24], body[25], body[26], body[27]);
    if sender_mac[0] & 1 != 0 || sender.is_multicast() {
        return;
    }
    let for_us = !target.is_loopback() && crate::route::is_local(target.into());
    let answered = for_us && !is_silent(interface, target, sender) || is_proxy(interface, target);
    if !sender.is_unspecified() {
        // Who asks us will be answered next: that is worth remembering. Others' answers only refresh what is known.
        let answers = operation == REPLY && packet.addressed == Addressed::Host;
        let word = if answers { Word::Answer } else { Word::Mention };
        neighbour::learn(interface, sender.into(), sender_mac, for_us && operation == REQUEST, word);
    }
    if operation == REQUEST && answered {
        send(interface, REPLY, target, sender, sender_mac, sender_mac);
    }
}
