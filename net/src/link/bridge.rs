//! Bridges (IEEE 802.1D, without the spanning tree): frames go from port to port, and to all where nobody knows the receiver.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, NANOS_PER_SEC, Nanos, Result};
use hal::sync::SpinLock;

use super::interface::Appetite;
use super::{Interface, Medium, all, by_index, ethernet};
use crate::hash::{BuildKeyed, Table};
use crate::packet::{Addressed, Packet};

/// Stations that a bridge remembers.
const STATIONS_MAX: usize = 4096;
/// How long it does.
const AGEING: Nanos = 300 * NANOS_PER_SEC;

/// Where a station was heard last.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    /// Behind this port; the bridge's own index for its own address.
    pub port: u32,
    /// When; `None` for one that was set.
    pub heard: Option<Nanos>,
}

/// A bridge.
pub struct Bridge {
    stations: SpinLock<Table<[u8; 6], Station>>,
    ports: SpinLock<Vec<u32>>,
    /// How long stations are remembered, in hundredths of a second.
    pub ageing: AtomicU32,
}

impl Default for Bridge {
    fn default() -> Bridge {
        Bridge {
            stations: SpinLock::new(Table::with_hasher(BuildKeyed)),
            ports: SpinLock::new(Vec::new()),
            ageing: AtomicU32::new((AGEING / (NANOS_PER_SEC / 100)) as u32),
        }
    }
}

/// Puts an interface into a bridge. `EINVAL` where it cannot be a port, `ELOOP` for a bridge, `EBUSY` where it is a port already.
pub fn join(bridge: &Arc<Interface>, port: &Arc<Interface>) -> Result<()> {
    let Medium::Bridge(inside) = &bridge.medium else { return Err(Errno::EOPNOTSUPP) };
    if port.is_loopback() || !port.is_framed() {
        return Err(Errno::EINVAL);
    }
    if matches!(port.medium, Medium::Bridge(_)) || port.lower == bridge.index {
        return Err(Errno::ELOOP);
    }
    if port.master.compare_exchange(0, bridge.index, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return Err(Errno::EBUSY);
    }
    inside.ports.lock().push(port.index);
    port.want(Appetite::Everything, true);
    inside.choose_mac(bridge);
    let least = inside.members().iter().map(|member| member.mtu()).min();
    if let Some(mtu) = least.filter(|&mtu| mtu != bridge.mtu()) {
        // A port's MTU can be less than any that a bridge has.
        let _ = bridge.set_mtu(mtu as u32);
    }
    port.announce();
    bridge.announce();
    Ok(())
}

/// Takes an interface out of its bridge, if it is in one.
pub fn leave(port: &Interface) {
    let master = port.master.swap(0, Ordering::Relaxed);
    let Some(bridge) = by_index(master).filter(|_| master != 0) else { return };
    if let Medium::Bridge(inside) = &bridge.medium {
        inside.ports.lock().retain(|&other| other != port.index);
        inside.stations.lock().retain(|_, station| station.port != port.index);
        inside.choose_mac(&bridge);
    }
    port.want(Appetite::Everything, false);
    port.announce();
    bridge.announce();
}

impl Bridge {
    fn members(&self) -> Vec<Arc<Interface>> {
        let ports = self.ports.lock().clone();
        ports.into_iter().filter_map(by_index).collect()
    }

    /// The bridge has the lowest address of its ports.
    fn choose_mac(&self, bridge: &Interface) {
        if let Some(least) = self.members().iter().map(|port| port.mac()).min() {
            *bridge.mac.lock() = least;
        }
    }

    pub(super) fn has_active_port(&self) -> bool {
        self.members().iter().any(|port| port.is_up() && port.has_carrier())
    }

    pub(super) fn release_ports(&self) {
        self.members().iter().for_each(|port| leave(port));
    }

    /// What it knows of stations.
    pub fn stations(&self) -> Vec<([u8; 6], Station)> {
        self.stations.lock().iter().map(|(mac, station)| (*mac, *station)).collect()
    }

    fn age(&self) -> Nanos {
        Nanos::from(self.ageing.load(Ordering::Relaxed)) * (NANOS_PER_SEC / 100)
    }

    fn learn(&self, mac: [u8; 6], port: u32, now: Nanos) {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return;
        }
        let age = self.age();
        let mut stations = self.stations.lock();
        if stations.len() >= STATIONS_MAX && !stations.contains_key(&mac) {
            stations.retain(|_, station| station.heard.is_none_or(|heard| now.saturating_sub(heard) < age));
            if stations.len() >= STATIONS_MAX {
                return;
            }
        }
        let station = stations.entry(mac).or_insert(Station { port, heard: Some(now) });
        if station.heard.is_some() {
            *station = Station { port, heard: Some(now) };
        }
    }

    fn port_of(&self, mac: &[u8; 6], now: Nanos) -> Option<u32> {
        let age = self.age();
        let station = self.stations.lock().get(mac).copied()?;
        station.heard.is_none_or(|heard| now.saturating_sub(heard) < age).then_some(station.port)
    }

    /// Sends a frame by the port where its receiver is, or by all but the one it came from.
    fn spread(&self, packet: &Packet, from: u32) {
        let now = sched::time::now();
        let Some(to) = packet.head().first_chunk::<6>() else { return };
        let known = if to[0] & 1 == 0 { self.port_of(to, now) } else { None };
        for port in self.members() {
            let wanted = known.is_none_or(|known| known == port.index);
            if wanted
                && port.index != from
                && port.is_up()
                && packet.len() - usize::from(packet.link) <= room(&port, packet)
            {
                port.send(Box::new(packet.clone()));
            }
        }
    }

    /// The bridge's own interface sends a frame.
    pub(super) fn send(&self, _bridge: &Interface, mut packet: Box<Packet>) {
        if packet.ensure(ethernet::HEADER) {
            self.spread(&packet, 0);
        }
    }
}

/// The largest packet that a port takes: any, where it is going to be cut.
fn room(port: &Interface, packet: &Packet) -> usize {
    if packet.segment_size != 0 { usize::MAX } else { port.mtu() }
}

/// A frame that a port has received goes its ways; back if the interface is no port.
pub(super) fn input(mut packet: Box<Packet>, port: &Arc<Interface>) -> Option<Box<Packet>> {
    let master = port.master.load(Ordering::Relaxed);
    if master == 0 {
        return Some(packet);
    }
    let Some(bridge) = by_index(master) else { return Some(packet) };
    let Medium::Bridge(inside) = &bridge.medium else { return Some(packet) };
    if !bridge.is_up() {
        return None;
    }
    let head = packet.head().first_chunk::<12>().copied()?;
    let (to, from) = head.split_at(6);
    // Frames to these groups never leave their link (IEEE 802.1D, 7.12.6).
    if to[..5] == [1, 0x80, 0xc2, 0, 0] && to[5] < 16 {
        return Some(packet);
    }
    let now = sched::time::now();
    inside.learn(from.try_into().unwrap_or_default(), port.index, now);
    let ours = to == bridge.mac() || all_macs(inside).iter().any(|mac| mac == to);
    if !ours {
        packet.hops += 1;
        inside.spread(&packet, port.index);
    }
    if ours || to[0] & 1 != 0 || bridge.wanting(Appetite::Everything) > 0 {
        bridge.counts.rx_packets.fetch_add(1, Ordering::Relaxed);
        bridge.counts.rx_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        packet.interface = bridge.index;
        packet.addressed = if ours { Addressed::Host } else { ethernet::addressed(to, &bridge) };
        if crate::af_packet::is_watching() {
            crate::af_packet::deliver(&packet, &bridge);
        }
        if let Some(packet) = super::vlan::input(packet, &bridge) {
            ethernet::deliver(packet, &bridge);
        }
    }
    None
}

fn all_macs(bridge: &Bridge) -> Vec<[u8; 6]> {
    bridge.members().iter().map(|port| port.mac()).collect()
}

/// All bridges.
pub fn bridges() -> Vec<Arc<Interface>> {
    all().into_iter().filter(|i| matches!(i.medium, Medium::Bridge(_))).collect()
}
