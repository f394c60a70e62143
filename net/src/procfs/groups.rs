//! The tables of groups that are listened to: igmp, igmp6, mcfilter, mcfilter6.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use super::hex;
use crate::link;
use crate::link::group::{ALL_HOSTS, ALL_NODES};

pub(super) fn igmp() -> String {
    let mut out = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    for i in link::all().iter().filter(|i| i.is_up()) {
        let own = (IpAddr::from(ALL_HOSTS), 1);
        let joined = i.groups().into_iter().filter(|(ip, ..)| ip.is_ipv4()).map(|(ip, users, _)| (ip, users));
        let groups: alloc::vec::Vec<_> = joined.chain([own]).collect();
        out.push_str(&format!("{}\t{:<10}: {:>5} {:>7}\n", i.index, i.name(), groups.len(), "V3"));
        for (ip, users) in groups {
            out.push_str(&format!("\t\t\t\t{} {users:>5} 0:00000000\t\t{}\n", hex(ip), 0));
        }
    }
    out
}

pub(super) fn igmp6() -> String {
    let mut out = String::new();
    for i in link::all().iter().filter(|i| i.is_up()) {
        let own = ALL_NODES.iter().map(|ip| (IpAddr::from(*ip), 1));
        let joined = i.groups().into_iter().filter(|(ip, ..)| ip.is_ipv6()).map(|(ip, users, _)| (ip, users));
        for (ip, users) in joined.chain(own) {
            out.push_str(&format!("{:<4} {:<15} {} {users:>5} 0000000C 0\n", i.index, i.name(), hex(ip)));
        }
    }
    out
}

/// Sources that are named, and how many groups include and exclude each.
pub(super) fn filters(v4: bool) -> String {
    let mut out = String::from(if v4 {
        "Idx Device        MCA        SRC    INC    EXC\n"
    } else {
        "Idx Device                Multicast Address                   Source Address    INC    EXC\n"
    });
    for i in link::all() {
        for (ip, _, filter) in i.groups().into_iter().filter(|(ip, ..)| ip.is_ipv4() == v4) {
            for source in filter.sources {
                let (includes, excludes) = if filter.exclude { (0, 1) } else { (1, 0) };
                let line = match (ip, source) {
                    (IpAddr::V4(group), IpAddr::V4(source)) => {
                        format!("0x{:08x} 0x{:08x}", u32::from(group), u32::from(source))
                    }
                    _ => format!("{} {}", hex(ip), hex(source)),
                };
                out.push_str(&format!("{:>3} {:>6} {line} {includes:>6} {excludes:>6}\n", i.index, i.name()));
            }
        }
    }
    out
}
