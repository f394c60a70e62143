//! The network as the program should find it: the loopback interface on, and the first Ethernet interface with the addresses that the host's
//! `quintet` has put on the kernel's command line (`quintet.net=ADDRESS/BITS[,GATEWAY,NAME-SERVER]`).

use rustix::io::Result;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use std::fs;
use std::net::Ipv4Addr;

/// rtnetlink(7): change a link, add an address, add a route.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
/// Linux's loopback interface is always the first; an Ethernet interface comes next.
const LOOPBACK: u32 = 1;
const ETHERNET: u32 = 2;

/// What the host has told.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    address: Ipv4Addr,
    bits: u8,
    /// The gateway and the name server, where there are such.
    outside: Option<(Ipv4Addr, Ipv4Addr)>,
}

fn settings(command_line: &str) -> Option<Settings> {
    let word = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("quintet.net="))?;
    let mut parts = word.split(',');
    let (address, bits) = parts.next()?.split_once('/')?;
    Some(Settings {
        address: address.parse().ok()?,
        bits: bits.parse().ok()?,
        outside: match parts.next() {
            Some(gateway) => Some((gateway.parse().ok()?, parts.next()?.parse().ok()?)),
            None => None,
        },
    })
}

/// Sets everything up. A kernel that has no network, or where it is set up, needs nothing.
pub(crate) fn set_up() {
    let _ = send(&switch_on(LOOPBACK));
    let Some(settings) = fs::read_to_string("/proc/cmdline").ok().as_deref().and_then(settings) else { return };
    let route = settings.outside.map(|(gateway, _)| default_route(gateway));
    for request in [address(&settings), switch_on(ETHERNET)].into_iter().chain(route) {
        if let Err(error) = send(&request) {
            eprintln!("quintet init: cannot set up the network: {error}");
        }
    }
    // A root without /etc has no use for name servers.
    if let Some((_, name_server)) = settings.outside {
        let _ = fs::write("/etc/resolv.conf", format!("nameserver {name_server}\n"));
    }
}

fn send(message: &[u8]) -> Result<()> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(socket, message, SendFlags::empty(), &kernel).map(drop)
}

/// A netlink header and what follows it. Sequence number and port stay zero: nobody reads an answer.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// An attribute of four bytes.
fn attribute(kind: u16, value: [u8; 4]) -> Vec<u8> {
    let mut attribute = 8u16.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute
}

/// Takes an interface up: a `struct ifinfomsg` of any family and type.
fn switch_on(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    message(RTM_NEWLINK, 0, &body)
}

/// Gives the Ethernet interface its address: a `struct ifaddrmsg`, IFA_LOCAL and IFA_ADDRESS.
fn address(settings: &Settings) -> Vec<u8> {
    let mut body = vec![AF_INET, settings.bits, 0, 0];
    body.extend(ETHERNET.to_ne_bytes());
    body.extend(attribute(2, settings.address.octets()));
    body.extend(attribute(1, settings.address.octets()));
    message(RTM_NEWADDR, NLM_F_CREATE, &body)
}

/// The route to everywhere else: a `struct rtmsg` of the main table, set at boot, RTA_GATEWAY and RTA_OIF.
fn default_route(gateway: Ipv4Addr) -> Vec<u8> {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let mut body = vec![AF_INET, 0, 0, 0, MAIN, BOOT, 0, UNICAST, 0, 0, 0, 0];
    body.extend(attribute(5, gateway.octets()));
    body.extend(attribute(4, ETHERNET.to_ne_bytes()));
    message(RTM_NEWROUTE, NLM_F_CREATE, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_long_as_they_say() {
        let told = settings("quiet quintet.net=10.0.2.15/24,10.0.2.2,10.0.2.3 x=y").expect("settings");
        assert_eq!((told.bits, told.outside.map(|(gateway, _)| gateway)), (24, Some(Ipv4Addr::new(10, 0, 2, 2))));
        for message in [switch_on(1), address(&told), default_route(Ipv4Addr::new(10, 0, 2, 2))] {
            assert_eq!(message[..4], (message.len() as u32).to_ne_bytes());
        }
        assert_eq!(switch_on(1)[20..24], 1u32.to_ne_bytes());
        for bad in ["", "quintet.net=", "quintet.net=1.2.3.4", "quintet.net=1.2.3.4/8,x,y"] {
            assert_eq!(settings(bad), None);
        }
    }
}
