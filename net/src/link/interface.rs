//! One interface: its name, hardware address, flags and addresses, and the way of a packet through it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;

use super::bridge::Bridge;
use super::conf::{V4, V6, Values};
use super::device::Device;
use super::group::Groups;
use super::queue::Queue;
use super::veth::Veth;
use super::vlan::Vlan;
use super::{discovery, duplicate, ethernet, flag, neighbour, scope};
use crate::af_packet;
use crate::ip::membership::Reporter;
use crate::packet::{Addressed, Checksum, Packet};
use crate::{backlog, netlink, route, worker};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Bits of it that name the network.
    pub prefix: u8,
    /// Where it is valid (RT_SCOPE_*).
    pub scope: u8,
    /// The broadcast address, for IPv4.
    pub broadcast: Option<Ipv4Addr>,
    /// The name that `ifconfig` knows it by, where that is not the interface's.
    pub label: Option<String>,
    /// IFA_F_*.
    pub flags: u32,
    /// Not to be chosen, and gone, at these times.
    pub ends: [Option<Nanos>; 2],
    /// The metric of its network's route; 0 for the usual one.
    pub metric: u32,
}

/// IFA_F_SECONDARY: another address of the same network came first.
pub const SECONDARY: u32 = 1;
/// IFA_F_NODAD: it is used without asking whether another machine has it.
pub const NO_DAD: u32 = 2;
/// IFA_F_DADFAILED: another machine has it.
pub const DAD_FAILED: u32 = 8;
/// IFA_F_TENTATIVE: not used yet, because another machine may have it.
pub const TENTATIVE: u32 = 0x40;
/// IFA_F_PERMANENT: it does not end by itself.
pub const PERMANENT: u32 = 0x80;
/// IFA_F_NOPREFIXROUTE: no route for its network.
pub const NO_PREFIX_ROUTE: u32 = 0x200;

impl Address {
    /// An address that stays.
    pub fn new(ip: IpAddr, prefix: u8, scope: u8) -> Address {
        Address {
            ip,
            peer: None,
            prefix,
            scope,
            broadcast: None,
            label: None,
            flags: PERMANENT,
            ends: [None; 2],
            metric: 0,
        }
    }

    /// May it be used?
    pub fn is_usable(&self) -> bool {
        self.flags & TENTATIVE == 0
    }

    /// The network that it is in: that of the other end where there is one.
    pub fn network(&self) -> IpAddr {
        route::network(self.peer.unwrap_or(self.ip), self.prefix)
    }
}

/// What passed through an interface.
#[derive(Default)]
#[allow(missing_docs, reason = "as struct rtnl_link_stats64 names them")]
pub struct Counts {
    pub rx_packets: AtomicU64,
    pub tx_packets: AtomicU64,
    pub rx_bytes: AtomicU64,
    pub tx_bytes: AtomicU64,
    pub rx_errors: AtomicU64,
    pub tx_errors: AtomicU64,
    pub rx_dropped: AtomicU64,
    pub tx_dropped: AtomicU64,
    pub multicast: AtomicU64,
}

impl Counts {
    fn received(&self, bytes: usize) {
        self.rx_packets.fetch_add(1, Ordering::Relaxed);
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.tx_packets.fetch_add(1, Ordering::Relaxed);
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A packet was dropped on its way out.
    pub(crate) fn dropped(&self) {
        self.tx_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is below an interface.
pub enum Medium {
    /// Back to this machine.
    Loopback,
    /// A device.
    Device(Device),
    /// Nothing: all is lost.
    Dummy,
    /// Another interface, as by a cable.
    Veth(Veth),
    /// Another interface, with a tag in each frame.
    Vlan(Vlan),
    /// Other interfaces, its ports.
    Bridge(Bridge),
    /// A program.
    Tunnel(Arc<super::tunnel::Tunnel>),
}

impl Medium {
    /// Do packets travel in Ethernet frames?
    pub(super) fn is_framed(&self) -> bool {
        match self {
            Medium::Loopback => false,
            Medium::Tunnel(tunnel) => tunnel.is_framed(),
            _ => true,
        }
    }

    /// The least and the largest MTU; 0 for no limit.
    pub(super) fn mtu_range(&self) -> (u32, u32) {
        match self {
            Medium::Loopback | Medium::Dummy => (0, 0),
            Medium::Vlan(_) => (0, 65535),
            _ => (68, 65535),
        }
    }
}

/// Can one station have this hardware address?
pub(super) fn is_station(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// What an interface can be asked to receive besides its own frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Appetite {
    /// All frames (IFF_PROMISC).
    Everything,
    /// All frames to groups (IFF_ALLMULTI).
    AllGroups,
}

/// Interfaces that a packet may go through before it is put off: against circles.
const HOPS_MAX: u8 = 10;

/// An interface.
pub struct Interface {
    /// Its number, from 1.
    pub index: u32,
    /// The interface that it lies on; 0 for none.
    pub(crate) lower: u32,
    pub(super) name: SpinLock<String>,
    pub(super) mac: SpinLock<[u8; 6]>,
    /// What is below.
    pub medium: Medium,
    pub(super) mtu: AtomicU32,
    pub(super) flags: AtomicU32,
    pub(super) addresses: SpinLock<Vec<Address>>,
    /// The bridge whose port it is; 0 for none.
    pub(crate) master: AtomicU32,
    /// A number for administrators (IFLA_GROUP).
    pub(crate) group: AtomicU32,
    /// Packets that may wait to be sent.
    pub(crate) queue_len: AtomicU32,
    /// How many want all frames, and all frames to groups ([`Appetite`]); the flags that a program has set count as one.
    pub(super) wanted: [AtomicU32; 2],
    /// Its settings.
    pub(crate) conf: Values,
    /// The groups that are listened to here, and who tells routers of them.
    pub(super) groups: Groups,
    pub(crate) reporter: Arc<Reporter>,
    /// Another name (IFLA_IFALIAS).
    pub(crate) alias: SpinLock<String>,
    /// What waits to be sent, and in which order it goes.
    pub(crate) queue: Queue,
    /// What passed through it.
    pub counts: Counts,
}

impl Interface {
    /// Its name.
    pub fn name(&self) -> String {
        self.name.lock().clone()
    }

    /// Its hardware address.
    pub fn mac(&self) -> [u8; 6] {
        *self.mac.lock()
    }

    /// Gives it another hardware address. `EADDRNOTAVAIL` for one of a group, `EOPNOTSUPP` where it has none.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        if !self.is_framed() {
            return Err(Errno::EOPNOTSUPP);
        }
        if !is_station(mac) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        *self.mac.lock() = mac;
        self.announce();
        Ok(())
    }

    /// Tells programs that something about it has changed.
    pub(crate) fn announce(&self) {
        netlink::link::announce(self, false);
    }

    /// Do its packets travel in Ethernet frames?
    pub fn is_framed(&self) -> bool {
        self.medium.is_framed()
    }

    /// The largest packet it takes.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize
    }

    /// The least and the largest that its MTU can be.
    pub fn mtu_range(&self) -> (u32, u32) {
        self.medium.mtu_range()
    }

    /// Sets the largest packet. `EINVAL`.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let (least, most) = self.mtu_range();
        let most = if most == 0 { i32::MAX as u32 } else { most };
        if !(least..=most).contains(&mtu) {
            return Err(Errno::EINVAL);
        }
        if self.mtu.swap(mtu, Ordering::Relaxed) != mtu {
            route::changed();
            self.announce();
        }
        Ok(())
    }

    /// IFF_* flags.
    pub fn flags(&self) -> u32 {
        let mut flags = self.flags.load(Ordering::Relaxed) & !(flag::RUNNING | flag::LOWER_UP);
        if flags & flag::UP != 0 && self.has_carrier() {
            flags |= flag::RUNNING | flag::LOWER_UP;
        }
        flags
    }

    /// Is what is below ready?
    pub fn has_carrier(&self) -> bool {
        match &self.medium {
            Medium::Veth(veth) => veth.peer().is_some_and(|peer| peer.is_up()),
            Medium::Vlan(vlan) => vlan.lower().is_some_and(|lower| lower.is_up() && lower.has_carrier()),
            Medium::Bridge(bridge) => bridge.has_active_port(),
            Medium::Tunnel(tunnel) => tunnel.is_attached(),
            Medium::Device(device) => device.link_up(),
            Medium::Loopback | Medium::Dummy => true,
        }
    }

    /// Is it up?
    pub fn is_up(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & flag::UP != 0
    }

    /// Changes those flags that a program may set besides IFF_UP.
    pub fn set_flags(&self, flags: u32, change: u32) {
        let change = change & (flag::NOARP | flag::PROMISC | flag::ALLMULTI | flag::MULTICAST);
        let new = |old: u32| Some(old & !change | flags & change);
        let old = self.flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, new).unwrap_or_default();
        let differs = (old ^ flags) & change;
        for (bit, what) in [(flag::PROMISC, Appetite::Everything), (flag::ALLMULTI, Appetite::AllGroups)] {
            if differs & bit != 0 {
                self.want(what, flags & bit != 0);
            }
        }
        if differs != 0 {
            self.announce();
        }
    }

    /// One more, or one less, wants more than the interface's own frames.
    pub(crate) fn want(&self, what: Appetite, more: bool) {
        let counter = &self.wanted[what as usize];
        let step = |n: u32| Some(if more { n + 1 } else { n.saturating_sub(1) });
        // The step never refuses.
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    /// How many want that.
    pub(crate) fn wanting(&self, what: Appetite) -> u32 {
        self.wanted[what as usize].load(Ordering::Relaxed)
    }

    /// Takes it up or down.
    pub fn set_up(&self, up: bool) {
        let was = if up {
            self.flags.fetch_or(flag::UP, Ordering::Relaxed)
        } else {
            self.flags.fetch_and(!flag::UP, Ordering::Relaxed)
        };
        if (was & flag::UP != 0) == up {
            return;
        }
        if up {
            self.addresses().iter().for_each(|address| route::table::on_link_address(self, address, true));
            self.begin();
        } else {
            neighbour::forget_interface(self.index, false);
            // IPv6 addresses go with the link; IPv4's stay, without their networks.
            for address in self.addresses().iter().filter(|a| a.ip.is_ipv6() && !self.is_loopback()) {
                let _ = self.remove_address(address.ip, address.prefix);
            }
            self.addresses().iter().for_each(|address| route::table::on_link_address(self, address, false));
            route::table::forget_interface(self.index, false);
            self.queue.clear();
            af_packet::interface_down(self.index);
        }
        route::changed();
        self.announce();
        super::carrier_changed(self);
    }

    /// An interface comes up: it takes its address on the link, and asks for routers.
    fn begin(&self) {
        if matches!(self.medium, Medium::Device(_)) {
            worker::wake(worker::FRAMES);
        }
        if self.is_loopback() || self.master.load(Ordering::Relaxed) != 0 || self.mtu() < 1280 || self.is_v6_disabled()
        {
            return;
        }
        route::table::on_multicast(self, true);
        if self.is_framed() && self.flags() & flag::NOARP == 0 || matches!(self.medium, Medium::Dummy) {
            let ip = discovery::link_local(self.mac()).into();
            // It may have it from the last time. Routers are asked when it may be used.
            if self.add_address(Address::new(ip, 64, scope::LINK)).is_ok() && self.has(ip) {
                discovery::solicit_routers(self);
            }
        }
    }

    /// Switches IPv6 off here, or on again.
    pub(super) fn switch_v6(&self, off: bool) {
        let was = self.is_v6_disabled();
        self.conf.set_v6(V6::DisableIpv6, off.into());
        if was == off {
            return;
        }
        if off {
            for address in self.addresses().iter().filter(|address| address.ip.is_ipv6()) {
                let _ = self.remove_address(address.ip, address.prefix);
            }
        } else if self.is_loopback() {
            let _ = self.add_address(Address::new(Ipv6Addr::LOCALHOST.into(), 128, scope::HOST));
        } else if self.is_up() {
            self.begin();
        }
        route::changed();
    }

    /// Is it the loopback interface?
    pub fn is_loopback(&self) -> bool {
        matches!(self.medium, Medium::Loopback)
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.addresses.lock().clone()
    }

    /// Does it have this address, for use?
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.lock().iter().any(|address| address.ip == ip && address.is_usable())
    }

    /// Does it have this address, but not yet for use?
    pub(super) fn is_tentative(&self, ip: IpAddr) -> bool {
        self.addresses.lock().iter().any(|address| address.ip == ip && !address.is_usable())
    }

    /// Sets and clears flags of an address, and returns it as it is then.
    pub(super) fn change_flags(&self, ip: IpAddr, set: u32, clear: u32) -> Option<Address> {
        let mut addresses = self.addresses.lock();
        let address = addresses.iter_mut().find(|address| address.ip == ip)?;
        address.flags = address.flags & !clear | set;
        Some(address.clone())
    }

    /// Adds an address. `EEXIST`, `EACCES` where IPv6 is switched off.
    pub fn add_address(&self, mut address: Address) -> Result<()> {
        if address.ip.is_ipv6() && self.is_v6_disabled() {
            return Err(Errno::EACCES);
        }
        let mut addresses = self.addresses.lock();
        let v4 = address.ip.is_ipv4();
        if addresses.iter().any(|a| a.ip == address.ip && (!v4 || a.prefix == address.prefix)) {
            return Err(Errno::EEXIST);
        }
        let same_network = |a: &Address| a.prefix == address.prefix && a.network() == address.network();
        if v4 && addresses.iter().any(same_network) {
            address.flags |= SECONDARY;
        }
        if duplicate::concerns(self, &address) {
            address.flags |= TENTATIVE;
        }
        addresses.push(address.clone());
        drop(addresses);
        route::table::on_address(self, &address, true);
        route::changed();
        if address.is_usable() {
            netlink::address::announce(self, &address, false);
        } else {
            duplicate::start(self, address.ip);
        }
        super::watch_lifetimes(&address);
        Ok(())
    }

    /// Changes lifetimes and flags of an address that is there. `EADDRNOTAVAIL`.
    pub fn update_address(&self, address: &Address) -> Result<()> {
        let mut addresses = self.addresses.lock();
        let found = addresses.iter_mut().find(|a| a.ip == address.ip && a.prefix == address.prefix);
        let old = found.ok_or(Errno::EADDRNOTAVAIL)?;
        old.ends = address.ends;
        const KEPT: u32 = SECONDARY | TENTATIVE | DAD_FAILED;
        old.flags = old.flags & KEPT | address.flags & !KEPT;
        let new = old.clone();
        drop(addresses);
        netlink::address::announce(self, &new, false);
        super::watch_lifetimes(&new);
        Ok(())
    }

    /// Removes an address, and with the first of a network the others, or one of these takes its place (`promote_secondaries`). `EADDRNOTAVAIL`.
    pub fn remove_address(&self, ip: IpAddr, prefix: u8) -> Result<()> {
        let mut addresses = self.addresses.lock();
        let at = addresses.iter().position(|a| a.ip == ip && a.prefix == prefix).ok_or(Errno::EADDRNOTAVAIL)?;
        let first = addresses.remove(at);
        let mut gone = Vec::new();
        let mut promoted = None;
        if ip.is_ipv4() && first.flags & SECONDARY == 0 {
            let same = |a: &Address| a.flags & SECONDARY != 0 && a.prefix == prefix && a.network() == first.network();
            let next = addresses.iter_mut().find(|a| same(a)).filter(|_| self.either(V4::PromoteSecondaries));
            if let Some(next) = next {
                next.flags &= !SECONDARY;
                promoted = Some(next.clone());
            } else {
                gone.extend(addresses.iter().filter(|a| same(a)).cloned());
                addresses.retain(|a| !same(a));
            }
        }
        gone.push(first);
        let last = ip.is_ipv4() && !addresses.iter().any(|a| a.ip.is_ipv4());
        drop(addresses);
        for address in &gone {
            route::table::on_address(self, address, false);
            netlink::address::announce(self, address, true);
        }
        if let Some(promoted) = promoted {
            // Its network's route went with the first address.
            route::table::on_address(self, &promoted, true);
            netlink::address::announce(self, &promoted, false);
        }
        if last {
            // Without an address IPv4 is off here: no route leads out by it.
            route::table::forget_v4(self.index);
        }
        route::changed();
        Ok(())
    }

    /// Sends a packet that begins with its IP header. Never waits; a packet that finds no room is dropped and counted.
    pub fn transmit(&self, mut packet: Box<Packet>, next_hop: IpAddr) {
        if !self.is_up() {
            self.counts.dropped();
            return;
        }
        packet.interface = self.index;
        if self.is_framed() {
            neighbour::send(self, packet, next_hop);
        } else {
            packet.link = 0;
            self.send(packet);
        }
    }

    /// Sends a packet that is complete, by way of the queue.
    pub(crate) fn send(&self, packet: Box<Packet>) {
        if !self.is_up() {
            self.counts.dropped();
        } else if self.queue.is_direct() {
            self.emit(packet);
        } else {
            self.queue.send(self, packet);
        }
    }

    /// Hands a packet to what is below. Packets that go round in circles end here.
    pub(crate) fn emit(&self, mut packet: Box<Packet>) {
        packet.interface = self.index;
        packet.addressed = Addressed::Outgoing;
        packet.hops += 1;
        if packet.hops > HOPS_MAX {
            self.counts.dropped();
            return;
        }
        if af_packet::is_watching() {
            af_packet::deliver(&packet, self);
        }
        self.counts.sent(packet.len());
        match &self.medium {
            Medium::Loopback => self.come_back(packet),
            Medium::Device(device) => device.send(self, packet),
            Medium::Dummy => {}
            Medium::Veth(veth) => veth.send(self, packet),
            Medium::Vlan(vlan) => vlan.send(packet),
            Medium::Bridge(bridge) => bridge.send(self, packet),
            Medium::Tunnel(tunnel) => tunnel.send(self, packet),
        }
    }

    /// What the loopback interface sends, it receives.
    fn come_back(&self, mut packet: Box<Packet>) {
        if packet.checksum != Checksum::Unknown {
            packet.checksum = Checksum::Good;
        }
        packet.addressed = Addressed::Host;
        packet.hops = 0;
        let len = packet.len();
        if backlog::push(packet) {
            self.counts.received(len);
        } else {
            self.counts.rx_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Receives a packet as it came from below, with its frame's header if it has one. Without locks held.
    pub(crate) fn receive(self: &Arc<Self>, mut packet: Box<Packet>) {
        if !self.is_up() {
            self.counts.rx_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        packet.hops += 1;
        if packet.hops > HOPS_MAX {
            self.counts.rx_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        packet.interface = self.index;
        self.counts.received(packet.len());
        if self.is_framed() {
            ethernet::input(packet, self);
            return;
        }
        packet.link = 0;
        packet.addressed = Addressed::Host;
        if af_packet::is_watching() {
            af_packet::deliver(&packet, self);
        }
        crate::ip::input(packet);
    }
}
