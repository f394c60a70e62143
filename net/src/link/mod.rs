//! Interfaces: the loopback device and those of drivers, their addresses and counts.

mod arp;
pub(crate) mod discovery;
pub mod ethernet;
pub mod ioctl;
pub(crate) mod neighbour;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, Result};
use dev::NetDevice;
use hal::sync::SpinLock;

use crate::packet::Packet;
use crate::{backlog, route, worker};
use ethernet::Ethernet;

/// IFF_* flags.
#[allow(missing_docs, reason = "netdevice(7) names them")]
pub mod flag {
    pub const UP: u32 = 1;
    pub const BROADCAST: u32 = 2;
    pub const LOOPBACK: u32 = 8;
    pub const RUNNING: u32 = 0x40;
    pub const NOARP: u32 = 0x80;
    pub const PROMISC: u32 = 0x100;
    pub const ALLMULTI: u32 = 0x200;
    pub const MULTICAST: u32 = 0x1000;
    pub const LOWER_UP: u32 = 0x10000;
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of it that name the network.
    pub prefix: u8,
    /// Where it is valid (RT_SCOPE_*).
    pub scope: u8,
    /// The broadcast address, for IPv4.
    pub broadcast: Option<Ipv4Addr>,
}

/// The scopes of addresses and routes.
#[allow(missing_docs, reason = "rtnetlink(7) names them")]
pub mod scope {
    pub const UNIVERSE: u8 = 0;
    pub const LINK: u8 = 253;
    pub const HOST: u8 = 254;
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

/// How an interface sends.
pub enum Medium {
    /// Back to this machine.
    Loopback,
    /// Frames of a device.
    Ethernet(Ethernet),
}

/// An interface.
pub struct Interface {
    /// Its number, from 1.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// How it sends.
    pub medium: Medium,
    mtu: AtomicU32,
    flags: AtomicU32,
    addresses: SpinLock<Vec<Address>>,
    /// What passed through it.
    pub counts: Counts,
}

/// The name of the loopback interface.
const LOOPBACK_MTU: u32 = 65536;

static INTERFACES: SpinLock<Vec<Arc<Interface>>> = SpinLock::new(Vec::new());

impl Interface {
    /// The largest packet it takes.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize
    }

    /// Sets the largest packet. `EINVAL`.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let most = if self.is_loopback() { i32::MAX as u32 } else { 65535 };
        if !(68..=most).contains(&mtu) {
            return Err(Errno::EINVAL);
        }
        self.mtu.store(mtu, Ordering::Relaxed);
        route::changed();
        Ok(())
    }

    /// IFF_* flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Is it up?
    pub fn is_up(&self) -> bool {
        self.flags() & flag::UP != 0
    }

    /// Takes it up or down.
    pub fn set_up(&self, up: bool) {
        let bits = flag::UP | flag::RUNNING | flag::LOWER_UP;
        if up {
            let was = self.flags.fetch_or(bits, Ordering::Relaxed);
            if was & flag::UP == 0 && matches!(self.medium, Medium::Ethernet(_)) {
                self.begin();
            }
        } else {
            self.flags.fetch_and(!bits, Ordering::Relaxed);
        }
        route::changed();
    }

    /// An Ethernet interface comes up: it takes its address on the link, and asks for routers.
    fn begin(&self) {
        let ip = discovery::link_local(self.mac).into();
        // It may have it from the last time.
        let _ = self.add_address(Address { ip, prefix: 64, scope: scope::LINK, broadcast: None });
        worker::wake(worker::FRAMES);
        discovery::solicit_routers(self);
    }

    /// Is it the loopback interface?
    pub fn is_loopback(&self) -> bool {
        self.flags() & flag::LOOPBACK != 0
    }

    /// Does the device cut TCP segments by itself?
    pub fn segments(&self) -> bool {
        match &self.medium {
            // Its packets are never cut: the largest is as large as a segment gets.
            Medium::Loopback => true,
            Medium::Ethernet(ethernet) => {
                let features = ethernet.device.features();
                features.checksum && features.tso4 && features.tso6
            }
        }
    }

    /// Does the device (or nobody) compute checksums?
    pub fn checksums(&self) -> bool {
        match &self.medium {
            Medium::Loopback => true,
            Medium::Ethernet(ethernet) => ethernet.device.features().checksum,
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.addresses.lock().clone()
    }

    /// Does it have this address?
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.lock().iter().any(|address| address.ip == ip)
    }

    /// Adds an address. `EEXIST`.
    pub fn add_address(&self, address: Address) -> Result<()> {
        let mut addresses = self.addresses.lock();
        if addresses.iter().any(|a| a.ip == address.ip && a.prefix == address.prefix) {
            return Err(Errno::EEXIST);
        }
        addresses.push(address);
        drop(addresses);
        route::changed();
        Ok(())
    }

    /// Removes an address. `EADDRNOTAVAIL`.
    pub fn remove_address(&self, ip: IpAddr, prefix: u8) -> Result<()> {
        let mut addresses = self.addresses.lock();
        let before = addresses.len();
        addresses.retain(|a| a.ip != ip || a.prefix != prefix);
        let gone = addresses.len() < before;
        drop(addresses);
        route::changed();
        if gone { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) }
    }

    /// Sends a packet that begins with its IP header. Never waits; a packet that finds no room is dropped and counted.
    pub fn transmit(&self, mut packet: Box<Packet>, next_hop: IpAddr) {
        if !self.is_up() {
            self.counts.tx_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let len = packet.len() as u64;
        packet.interface = self.index;
        match &self.medium {
            Medium::Loopback => {
                if packet.checksum != crate::packet::Checksum::Unknown {
                    packet.checksum = crate::packet::Checksum::Good;
                }
                if !backlog::push(packet) {
                    self.counts.rx_dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                self.counts.rx_packets.fetch_add(1, Ordering::Relaxed);
                self.counts.rx_bytes.fetch_add(len, Ordering::Relaxed);
            }
            Medium::Ethernet(_) => neighbour::send(self, packet, next_hop),
        }
        self.counts.tx_packets.fetch_add(1, Ordering::Relaxed);
        self.counts.tx_bytes.fetch_add(len, Ordering::Relaxed);
    }
}

/// All interfaces, by index.
pub fn all() -> Vec<Arc<Interface>> {
    INTERFACES.lock().clone()
}

/// The interface of that index.
pub fn by_index(index: u32) -> Option<Arc<Interface>> {
    INTERFACES.lock().iter().find(|i| i.index == index).cloned()
}

/// The interface of that name.
pub fn by_name(name: &[u8]) -> Option<Arc<Interface>> {
    INTERFACES.lock().iter().find(|i| i.name.as_bytes() == name).cloned()
}

fn add(name: String, mac: [u8; 6], medium: Medium, mtu: u32, flags: u32) -> Arc<Interface> {
    let mut interfaces = INTERFACES.lock();
    let interface = Arc::new(Interface {
        index: interfaces.last().map_or(0, |last| last.index) + 1,
        name,
        mac,
        medium,
        mtu: AtomicU32::new(mtu),
        flags: AtomicU32::new(flags),
        addresses: SpinLock::new(Vec::new()),
        counts: Counts::default(),
    });
    interfaces.push(interface.clone());
    interface
}

/// Makes the loopback interface with its addresses, and takes it up.
pub(crate) fn init() {
    let lo = add("lo".into(), [0; 6], Medium::Loopback, LOOPBACK_MTU, flag::LOOPBACK);
    let v4 = Address { ip: Ipv4Addr::LOCALHOST.into(), prefix: 8, scope: scope::HOST, broadcast: None };
    let v6 = Address { ip: Ipv6Addr::LOCALHOST.into(), prefix: 128, scope: scope::HOST, broadcast: None };
    for address in [v4, v6] {
        // A fresh interface has no address yet, so neither can be there.
        let _ = lo.add_address(address);
    }
    lo.set_up(true);
}

/// Makes an interface of a device: eth0, eth1, ... It is down at first.
pub fn add_device(device: Arc<dyn NetDevice>) {
    let number = INTERFACES.lock().iter().filter(|i| matches!(i.medium, Medium::Ethernet(_))).count();
    let name = alloc::format!("eth{number}");
    let (mac, mtu) = (device.mac(), device.mtu());
    log::info!("{name}: {mac:02x?}, mtu {mtu}");
    device.set_listener(Box::new(|| worker::wake(worker::FRAMES)));
    let medium = Medium::Ethernet(Ethernet::new(device));
    add(name, mac, medium, mtu, flag::BROADCAST | flag::MULTICAST);
}

/// Takes what devices have received.
pub(crate) fn poll() {
    for interface in all() {
        if let Medium::Ethernet(ethernet) = &interface.medium {
            ethernet.poll(&interface);
        }
    }
}
