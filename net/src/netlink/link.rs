//! Interfaces: RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK, RTM_GETLINK.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};

use super::message::{
    Attributes, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Reply, Request, attribute_in, notification, text_of, word_of,
};
use super::{NETLINK_ROUTE, group, publish};
use crate::link::bridge::{self, Bridge};
use crate::link::interface::{Appetite, Medium};
use crate::link::ioctl::hardware;
use crate::link::{self, Interface, NAME_SIZE, Plan, flag, random_mac, veth, vlan};

pub(super) const NEWLINK: u16 = 16;
pub(super) const DELLINK: u16 = 17;
/// Bytes of `struct ifinfomsg`.
const IFINFO: usize = 16;
const AF_BRIDGE: u8 = 7;

const ADDRESS: u16 = 1;
const BROADCAST: u16 = 2;
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const QDISC: u16 = 6;
const STATS: u16 = 7;
const MASTER: u16 = 10;
const TXQLEN: u16 = 13;
const MAP: u16 = 14;
const OPERSTATE: u16 = 16;
const LINKMODE: u16 = 17;
const LINKINFO: u16 = 18;
const NET_NS_PID: u16 = 19;
const IFALIAS: u16 = 20;
const STATS64: u16 = 23;
const GROUP: u16 = 27;
const NET_NS_FD: u16 = 28;
const EXT_MASK: u16 = 29;
const PROMISCUITY: u16 = 30;
const NUM_TX_QUEUES: u16 = 31;
const NUM_RX_QUEUES: u16 = 32;
const CARRIER: u16 = 33;
const CARRIER_CHANGES: u16 = 35;
const PROTO_DOWN: u16 = 39;
const GSO_MAX_SEGS: u16 = 40;
const GSO_MAX_SIZE: u16 = 41;
const MIN_MTU: u16 = 50;
const MAX_MTU: u16 = 51;
const ALT_IFNAME: u16 = 53;
const PERM_ADDRESS: u16 = 54;
/// In IFLA_LINKINFO.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

/// Tells programs of an interface that is new, has changed or is gone.
pub(crate) fn announce(interface: &Interface, gone: bool) {
    let kind = if gone { DELLINK } else { NEWLINK };
    publish(NETLINK_ROUTE, group::LINK, || {
        notification(kind, &fixed_part(interface), |put| fill(put, interface, true))
    });
}

/// RTM_GETLINK.
pub(super) fn get(request: &Request, reply: &mut Reply) -> Result<()> {
    const SKIP_STATS: u32 = 8;
    let mask = request.attribute_word(IFINFO, EXT_MASK).unwrap_or(0);
    let with_statistics = mask & SKIP_STATS == 0;
    if !request.is_dump() {
        let interface = named(request)?;
        reply.message(NEWLINK, &fixed_part(&interface), |put| fill(put, &interface, with_statistics));
        return Ok(());
    }
    if reply.strict && request.body.len() < IFINFO {
        return Err(Errno::EINVAL);
    }
    // Bridge ports' own attributes are not here; the list of them is that of the interfaces with a master.
    let ports_only = request.byte(0) == AF_BRIDGE;
    let master = request.attribute_word(IFINFO, MASTER);
    let info = request.attribute(IFINFO, LINKINFO);
    let wanted = info.and_then(|info| attribute_in(info, INFO_KIND)).map(text_of).transpose()?;
    for interface in link::all() {
        let owner = interface.master.load(Ordering::Relaxed);
        let fits = master.is_none_or(|master| owner == master)
            && wanted.is_none_or(|wanted| kind_of(&interface) == Some(wanted))
            && (!ports_only || owner != 0);
        if fits {
            reply.message(NEWLINK, &fixed_part(&interface), |put| fill(put, &interface, with_statistics));
        }
    }
    Ok(())
}

/// The interface that a request of links names. `ENODEV`, `EINVAL`.
fn named(request: &Request) -> Result<Arc<Interface>> {
    let index = request.word(4);
    if index as i32 > 0 {
        return link::by_index(index).ok_or(Errno::ENODEV);
    }
    let name = request.attribute(IFINFO, IFNAME).or_else(|| request.attribute(IFINFO, ALT_IFNAME));
    let name = name.ok_or(Errno::EINVAL)?;
    link::by_name(name.split(|&b| b == 0).next().unwrap_or_default()).ok_or(Errno::ENODEV)
}

fn fixed_part(interface: &Interface) -> [u8; IFINFO] {
    let mut fixed = [0; IFINFO];
    fixed[2..4].copy_from_slice(&hardware(interface).to_ne_bytes());
    fixed[4..8].copy_from_slice(&interface.index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&interface.flags().to_ne_bytes());
    fixed
}

/// IF_OPER_*: unknown for those that cannot tell, up, down, or lower layer down.
pub(crate) fn operational_state(interface: &Interface) -> u8 {
    let tells = !matches!(interface.medium, Medium::Loopback | Medium::Dummy);
    match (interface.is_up(), interface.has_carrier()) {
        (true, true) if !tells => 0,
        (true, true) => 6,
        (true, false) if matches!(interface.medium, Medium::Veth(_) | Medium::Vlan(_)) => 3,
        (false, _) if interface.is_loopback() => 0,
        _ => 2,
    }
}

fn fill(put: &mut Attributes, interface: &Interface, with_statistics: bool) {
    put.text(IFNAME, &interface.name());
    put.word(TXQLEN, interface.queue_len.load(Ordering::Relaxed));
    put.byte(OPERSTATE, operational_state(interface));
    put.byte(LINKMODE, 0);
    put.word(MTU, interface.mtu() as u32);
    let (least, most) = interface.mtu_range();
    put.word(MIN_MTU, least);
    put.word(MAX_MTU, most);
    put.word(GROUP, interface.group.load(Ordering::Relaxed));
    put.word(PROMISCUITY, interface.wanting(Appetite::Everything));
    put.word(NUM_TX_QUEUES, 1);
    put.word(GSO_MAX_SEGS, 65535);
    put.word(GSO_MAX_SIZE, 65536);
    put.word(NUM_RX_QUEUES, 1);
    match &interface.medium {
        Medium::Veth(veth) => {
            if let Some(peer) = veth.peer() {
                put.word(LINK, peer.index);
            }
        }
        _ if interface.lower != 0 => put.word(LINK, interface.lower),
        _ => {}
    }
    let master = interface.master.load(Ordering::Relaxed);
    if master != 0 {
        put.word(MASTER, master);
    }
    put.byte(CARRIER, interface.has_carrier().into());
    put.text(QDISC, interface.queue.name());
    let alias = interface.alias.lock().clone();
    if !alias.is_empty() {
        put.text(IFALIAS, &alias);
    }
    put.word(CARRIER_CHANGES, 1);
    put.byte(PROTO_DOWN, 0);
    put.put(MAP, &[0; 32]);
    if interface.is_framed() || interface.is_loopback() {
        let broadcast = if interface.is_loopback() { [0; 6] } else { [0xff; 6] };
        put.put(ADDRESS, &interface.mac());
        put.put(BROADCAST, &broadcast);
    }
    if matches!(interface.medium, Medium::Device(_)) {
        put.put(PERM_ADDRESS, &interface.mac());
    }
    if with_statistics {
        fill_counts(put, interface);
    }
    if let Some(kind) = kind_of(interface) {
        put.nest(LINKINFO, |put| {
            put.text(INFO_KIND, kind);
            put.nest(INFO_DATA, |put| fill_kind(put, interface));
            if let Some(owner) = link::by_index(master).filter(|_| master != 0) {
                const INFO_SLAVE_KIND: u16 = 4;
                kind_of(&owner).into_iter().for_each(|kind| put.text(INFO_SLAVE_KIND, kind));
            }
        });
    }
}

fn fill_counts(put: &mut Attributes, interface: &Interface) {
    let counts = statistics(interface);
    let wide: Vec<u8> = counts.iter().flat_map(|n| n.to_ne_bytes()).collect();
    let narrow: Vec<u8> = counts.iter().flat_map(|n| (*n as u32).to_ne_bytes()).collect();
    put.put(STATS64, &wide);
    put.put(STATS, &narrow);
}

/// The kind that `ip link add type` knows it by.
pub(crate) fn kind_of(interface: &Interface) -> Option<&'static str> {
    match &interface.medium {
        Medium::Loopback | Medium::Device(_) => None,
        Medium::Dummy => Some("dummy"),
        Medium::Veth(_) => Some("veth"),
        Medium::Vlan(_) => Some("vlan"),
        Medium::Bridge(_) => Some("bridge"),
        Medium::Tunnel(_) => Some("tun"),
    }
}

const VLAN_ID: u16 = 1;
const VLAN_PROTOCOL: u16 = 5;
const BRIDGE_AGEING: u16 = 4;
const BRIDGE_STP: u16 = 5;

fn fill_kind(put: &mut Attributes, interface: &Interface) {
    match &interface.medium {
        Medium::Vlan(vlan) => {
            put.put(VLAN_PROTOCOL, &vlan.kind.to_be_bytes());
            put.half(VLAN_ID, vlan.id);
            // Its headers are reordered, as always here.
            put.put(2, &[1u32, u32::MAX].map(u32::to_ne_bytes).concat());
        }
        Medium::Bridge(bridge) => {
            // Times in hundredths of a second; the spanning tree is off, so nothing waits for it.
            put.word(1, 1500);
            put.word(2, 200);
            put.word(3, 2000);
            put.word(BRIDGE_AGEING, bridge.ageing.load(Ordering::Relaxed));
            put.word(BRIDGE_STP, 0);
            put.half(6, 0x8000);
        }
        Medium::Tunnel(tunnel) => {
            let (flags, persists, owner, group) = tunnel.describe();
            if owner != u32::MAX {
                put.word(1, owner);
            }
            if group != u32::MAX {
                put.word(2, group);
            }
            put.byte(3, if tunnel.is_framed() { 2 } else { 1 });
            put.byte(4, (flags & 0x1000 == 0).into());
            put.byte(5, (flags & 0x4000 != 0).into());
            put.byte(6, persists.into());
            put.byte(7, (flags & 0x100 != 0).into());
        }
        _ => {}
    }
}

/// The names of the counts, in the order of `struct rtnl_link_stats64`.
pub(crate) const STATISTICS: [&str; 24] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
];

/// `struct rtnl_link_stats64`, as numbers.
pub(crate) fn statistics(interface: &Interface) -> [u64; 24] {
    let c = &interface.counts;
    let mut out = [0; 24];
    let first = [
        &c.rx_packets,
        &c.tx_packets,
        &c.rx_bytes,
        &c.tx_bytes,
        &c.rx_errors,
        &c.tx_errors,
        &c.rx_dropped,
        &c.tx_dropped,
        &c.multicast,
    ];
    for (out, count) in out.iter_mut().zip(first) {
        *out = count.load(Ordering::Relaxed);
    }
    out
}

/// RTM_NEWLINK and RTM_SETLINK. `EEXIST`, `ENODEV`, `EOPNOTSUPP` for a kind that is not here, `EINVAL`, `EBUSY`.
pub(super) fn set(request: &Request, new: bool) -> Result<()> {
    request.check_len(IFINFO)?;
    let attributes = request.body.get(IFINFO..).unwrap_or_default();
    match named(request) {
        Ok(_) if new && request.has(NLM_F_EXCL) => Err(Errno::EEXIST),
        Ok(_) if new && request.has(NLM_F_REPLACE) => Err(Errno::EOPNOTSUPP),
        Ok(interface) => change(&interface, attributes, request.word(8), request.word(12)),
        Err(error) if !new => Err(error),
        Err(_) if !request.has(NLM_F_CREATE) => Err(Errno::ENODEV),
        Err(_) => {
            let interface = create(attributes, request.word(4))?;
            let changed = change(&interface, attributes, request.word(8), request.word(12));
            changed.inspect_err(|_| {
                // It was made by request, so it can be unmade.
                let _ = link::remove(&interface);
            })
        }
    }
}

fn mac_in(attributes: &[u8]) -> Result<Option<[u8; 6]>> {
    attribute_in(attributes, ADDRESS).map(|raw| raw.try_into().map_err(|_| Errno::EINVAL)).transpose()
}

fn name_in(attributes: &[u8]) -> Result<Option<String>> {
    let Some(raw) = attribute_in(attributes, IFNAME) else { return Ok(None) };
    let name = text_of(raw)?;
    if name.len() >= NAME_SIZE {
        return Err(Errno::ERANGE);
    }
    Ok((!name.is_empty()).then(|| name.into()))
}

fn create(attributes: &[u8], index: u32) -> Result<Arc<Interface>> {
    let info = attribute_in(attributes, LINKINFO).ok_or(Errno::EOPNOTSUPP)?;
    let kind = text_of(attribute_in(info, INFO_KIND).ok_or(Errno::EOPNOTSUPP)?)?;
    let data = attribute_in(info, INFO_DATA).unwrap_or_default();
    let mac = mac_in(attributes)?;
    let mtu = attribute_in(attributes, MTU).map(word_of).transpose()?;
    let name = name_in(attributes)?;
    let plan = |medium, flags| Plan {
        name: name.clone().unwrap_or_else(|| String::from(kind) + "%d"),
        index,
        mac: mac.unwrap_or_else(random_mac),
        medium,
        mtu: mtu.unwrap_or(1500),
        flags,
        lower: 0,
    };
    match kind {
        "dummy" => link::add(plan(Medium::Dummy, flag::BROADCAST | flag::NOARP)),
        "bridge" => {
            let bridge = Bridge::default();
            if let Some(age) = attribute_in(data, BRIDGE_AGEING) {
                bridge.ageing.store(word_of(age)?, Ordering::Relaxed);
            }
            link::add(plan(Medium::Bridge(bridge), flag::BROADCAST | flag::MULTICAST))
        }
        "veth" => {
            const PEER: u16 = 1;
            let other = attribute_in(data, PEER).unwrap_or_default();
            let rest = other.get(IFINFO..).unwrap_or_default();
            let index_of = |raw: &[u8]| raw.get(4..8).map_or(Ok(0), word_of);
            let second = veth::End {
                name: name_in(rest)?,
                index: index_of(other)?,
                mac: mac_in(rest)?,
                mtu: attribute_in(rest, MTU).map(word_of).transpose()?,
            };
            veth::create(veth::End { name, index, mac, mtu }, second)
        }
        "vlan" => {
            let lower = attribute_in(attributes, LINK).map(word_of).transpose()?.ok_or(Errno::EINVAL)?;
            let lower = link::by_index(lower).ok_or(Errno::ENODEV)?;
            let half = |kind| attribute_in(data, kind).and_then(|raw| raw.first_chunk::<2>()).copied();
            let id = half(VLAN_ID).map(u16::from_ne_bytes).ok_or(Errno::EINVAL)?;
            let protocol = half(VLAN_PROTOCOL).map_or(vlan::TYPE, u16::from_be_bytes);
            if !matches!(protocol, vlan::TYPE | vlan::TYPE_AD) {
                return Err(Errno::EPROTONOSUPPORT);
            }
            let mut plan = plan(Medium::Dummy, 0);
            plan.mtu = mtu.unwrap_or(lower.mtu() as u32);
            plan.mac = mac.unwrap_or_else(|| lower.mac());
            vlan::create(plan, &lower, id, protocol)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Applies attributes and flags to an interface.
fn change(interface: &Arc<Interface>, attributes: &[u8], flags: u32, mask: u32) -> Result<()> {
    let word = |kind| attribute_in(attributes, kind).map(word_of).transpose();
    if attribute_in(attributes, NET_NS_PID).or(attribute_in(attributes, NET_NS_FD)).is_some() {
        // There is only this one namespace.
        return Err(Errno::EINVAL);
    }
    if let Some(mac) = mac_in(attributes)?.filter(|mac| *mac != interface.mac()) {
        interface.set_mac(mac)?;
    }
    if let Some(mtu) = word(MTU)?.filter(|&mtu| mtu as usize != interface.mtu()) {
        interface.set_mtu(mtu)?;
    }
    if let Some(group) = word(GROUP)? {
        interface.group.store(group, Ordering::Relaxed);
    }
    if let Some(name) = name_in(attributes)?.filter(|name| *name != interface.name()) {
        if interface.is_up() {
            return Err(Errno::EBUSY);
        }
        link::rename(interface, &name)?;
    }
    if let Some(alias) = attribute_in(attributes, IFALIAS) {
        let alias = text_of(alias)?;
        if alias.len() >= 256 {
            return Err(Errno::EINVAL);
        }
        *interface.alias.lock() = alias.into();
    }
    if let Some(len) = word(TXQLEN)? {
        interface.queue_len.store(len, Ordering::Relaxed);
    }
    if let Some(master) = word(MASTER)? {
        if master != interface.master.load(Ordering::Relaxed) {
            bridge::leave(interface);
        }
        if master != 0 && interface.master.load(Ordering::Relaxed) == 0 {
            let bridge = link::by_index(master).ok_or(Errno::EINVAL)?;
            bridge::join(&bridge, interface)?;
        }
    }
    let mask = if mask == 0 && flags != 0 { u32::MAX } else { mask };
    if mask != 0 {
        interface.set_flags(flags, mask);
        if mask & flag::UP != 0 {
            interface.set_up(flags & flag::UP != 0);
        }
    }
    Ok(())
}

/// RTM_DELLINK. `ENODEV`, `EOPNOTSUPP` for hardware.
pub(super) fn delete(request: &Request) -> Result<()> {
    request.check_len(IFINFO)?;
    link::remove(&named(request)?)
}
