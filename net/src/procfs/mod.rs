//! `/proc/net`, the same for every process, and `/proc/sys/net`.

mod conf;
mod groups;
mod sockets;
mod statistics;
mod sysctl;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use fs::FileKind;
use fs::procfs::{Listed, Node, dir, file};

use crate::af_packet::PacketSocket;
use crate::inet::Family;
use crate::link::{self, neighbour, scope};
use crate::route::table;

pub use sysctl::register;

fn text(make: fn() -> String) -> Node {
    file(move || Ok(make().into_bytes()))
}

/// Lists entries of these names from a position on.
pub(crate) fn list_names(
    names: &[String],
    kind: FileKind,
    position: u64,
    emit: &mut dyn FnMut(&Listed) -> bool,
) -> u64 {
    let mut next = position;
    for (at, name) in names.iter().enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
        if !emit(&Listed { name: name.as_bytes(), kind, next: at as u64 + 1 }) {
            break;
        }
        next = at as u64 + 1;
    }
    next
}

/// The directory.
pub fn directory() -> Node {
    dir(vec![
        ("arp", text(arp)),
        ("dev", text(dev)),
        ("if_inet6", text(if_inet6)),
        ("igmp", text(groups::igmp)),
        ("igmp6", text(groups::igmp6)),
        ("mcfilter", text(|| groups::filters(true))),
        ("mcfilter6", text(|| groups::filters(false))),
        ("ipv6_route", text(ipv6_route)),
        ("netlink", text(sockets::netlink)),
        ("netstat", text(statistics::netstat)),
        ("packet", text(sockets::packet)),
        // Ticks of the packet scheduler: nanoseconds of one, and of a clock tick.
        ("psched", text(|| "000003e8 00000040 000f4240 3b9aca00\n".into())),
        ("ptype", text(ptype)),
        ("raw", text(|| sockets::raw(Family::V4))),
        ("raw6", text(|| sockets::raw(Family::V6))),
        ("route", text(routes)),
        ("snmp", text(statistics::snmp)),
        ("snmp6", text(statistics::snmp6)),
        ("sockstat", text(sockets::sockstat)),
        ("sockstat6", text(sockets::sockstat6)),
        ("tcp", text(|| sockets::tcp(Family::V4))),
        ("tcp6", text(|| sockets::tcp(Family::V6))),
        ("unix", text(sockets::unix)),
        ("udp", text(|| sockets::udp(Family::V4))),
        ("udp6", text(|| sockets::udp(Family::V6))),
        ("udplite", text(|| sockets::UDP_HEAD.into())),
        ("udplite6", text(|| sockets::UDP_HEAD_6.into())),
    ])
}

fn dev() -> String {
    let mut out = String::from(
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for i in link::all() {
        let n = |count: &core::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let c = &i.counts;
        out.push_str(&format!(
            "{:>6}: {:>7} {:>7} {:>4} {:>4} {:>4} {:>5} {:>10} {:>9} {:>8} {:>7} {:>4} {:>4} {:>4} {:>5} {:>7} {:>10}\n",
            i.name(),
            n(&c.rx_bytes),
            n(&c.rx_packets),
            n(&c.rx_errors),
            n(&c.rx_dropped),
            0,
            0,
            0,
            n(&c.multicast),
            n(&c.tx_bytes),
            n(&c.tx_packets),
            n(&c.tx_errors),
            n(&c.tx_dropped),
            0,
            0,
            0,
            0
        ));
    }
    out
}

fn hex(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => format!("{:08X}", u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => v6.octets().iter().map(|b| format!("{b:02x}")).collect(),
    }
}

fn if_inet6() -> String {
    let mut out = String::new();
    for i in link::all() {
        for a in i.addresses().iter().filter(|a| a.ip.is_ipv6()) {
            // The scopes of this file are those of addresses, not of routes.
            let shown = match a.scope {
                scope::HOST => 0x10,
                scope::LINK => 0x20,
                _ => 0,
            };
            out.push_str(&format!(
                "{} {:02x} {:02x} {shown:02x} {:02x} {:>8}\n",
                hex(a.ip),
                i.index,
                a.prefix,
                a.flags as u8,
                i.name()
            ));
        }
    }
    out
}

fn name_of(index: u32) -> String {
    link::by_index(index).map_or(String::from("*"), |i| i.name())
}

fn routes() -> String {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const HOST: u32 = 4;
    const REJECT: u32 = 0x200;
    let line = |text: &str| format!("{text:<127}\n");
    let mut out = line("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT");
    for r in table::all().iter().filter(|r| r.destination.is_ipv4() && r.table == table::MAIN) {
        let gateway = r.first().and_then(|hop| hop.gateway);
        let mut flags = UP;
        flags |= if gateway.is_some() { GATEWAY } else { 0 };
        flags |= if r.prefix == 32 { HOST } else { 0 };
        flags |= if r.hops.is_empty() { REJECT } else { 0 };
        out.push_str(&line(&format!(
            "{}\t{}\t{}\t{flags:04X}\t0\t0\t{}\t{}\t{}\t0\t0",
            r.first().map_or(String::from("*"), |hop| name_of(hop.interface)),
            hex(r.destination),
            hex(gateway.unwrap_or([0u8; 4].into())),
            r.metric,
            hex(link::ioctl::mask(r.prefix).into()),
            r.mtu(),
        )));
    }
    out
}

fn ipv6_route() -> String {
    let mut out = String::new();
    for r in table::all().iter().filter(|r| r.destination.is_ipv6()) {
        let nowhere: IpAddr = [0u8; 16].into();
        let gateway = r.first().and_then(|hop| hop.gateway);
        let local = if r.kind == crate::route::kind::LOCAL { 0x8000_0000u32 } else { 0 };
        out.push_str(&format!(
            "{} {:02x} {} 00 {} {:08x} 00000001 00000000 {:08x} {:>8}\n",
            hex(r.destination),
            r.prefix,
            hex(nowhere),
            hex(gateway.unwrap_or(nowhere)),
            r.metric,
            if gateway.is_some() { 3 } else { 1 } | local,
            r.first().map_or(String::from("lo"), |hop| name_of(hop.interface)),
        ));
    }
    out
}

fn arp() -> String {
    let mut out = String::from("IP address       HW type     Flags       HW address            Mask     Device\n");
    for n in neighbour::all().iter().filter(|n| n.ip.is_ipv4()) {
        let mac = n.mac.unwrap_or([0; 6]);
        let text: alloc::vec::Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
        let complete = if n.mac.is_some() { 2 } else { 0 };
        let permanent = if n.state & neighbour::state::PERMANENT != 0 { 4 } else { 0 };
        out.push_str(&format!(
            "{:<16} 0x{:<10x}0x{:<10x}{}     *        {}\n",
            format!("{}", n.ip),
            1,
            complete | permanent,
            text.join(":"),
            name_of(n.interface)
        ));
    }
    out
}

fn ptype() -> String {
    let mut out = String::from("Type Device      Function\n");
    for socket in PacketSocket::all() {
        let (protocol, interface, _) = socket.summary();
        let kind = if protocol == 3 { String::from("ALL ") } else { format!("{protocol:04x}") };
        let device = if interface == 0 { String::new() } else { name_of(interface) };
        out.push_str(&format!("{kind} {device:<8} packet_rcv\n"));
    }
    out + "0800          ip_rcv\n0806          arp_rcv\n86dd          ipv6_rcv\n"
}
