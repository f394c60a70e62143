//! Interfaces: the loopback device, those of drivers, and those made of nothing but software.
//!
//! [`interface`] is what they have in common, [`conf`] the settings of each; [`device`], [`veth`], [`vlan`], [`bridge`] and [`tunnel`] are what can lie below one. [`ethernet`] puts
//! frames together and takes them apart, [`neighbour`] finds who they are for, and [`queue`] decides when they go.

mod arp;
pub mod bridge;
pub mod conf;
pub mod device;
pub(crate) mod discovery;
mod duplicate;
pub mod ethernet;
mod ethtool;
pub(crate) mod group;
pub mod interface;
pub mod ioctl;
pub mod neighbour;
pub mod queue;
mod segmentation;
pub mod tunnel;
pub mod veth;
pub mod vlan;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Nanos, Result};
use dev::NetDevice;
use hal::sync::{Once, SpinLock};

use crate::alarm::{Alarm, Rings};
use crate::ip::membership;
use crate::{netlink, route, worker};
use device::Device;
pub use interface::{Address, Counts, Interface, Medium};
pub(crate) use segmentation::cut;

/// IFF_* flags.
#[allow(missing_docs, reason = "netdevice(7) names them")]
pub mod flag {
    pub const UP: u32 = 1;
    pub const BROADCAST: u32 = 2;
    pub const LOOPBACK: u32 = 8;
    pub const POINT_TO_POINT: u32 = 0x10;
    pub const RUNNING: u32 = 0x40;
    pub const NOARP: u32 = 0x80;
    pub const PROMISC: u32 = 0x100;
    pub const ALLMULTI: u32 = 0x200;
    pub const MULTICAST: u32 = 0x1000;
    pub const LOWER_UP: u32 = 0x10000;
}

/// The scopes of addresses and routes.
#[allow(missing_docs, reason = "rtnetlink(7) names them")]
pub mod scope {
    pub const UNIVERSE: u8 = 0;
    pub const LINK: u8 = 253;
    pub const HOST: u8 = 254;
    pub const NOWHERE: u8 = 255;
}

/// The largest packet of the loopback interface.
const LOOPBACK_MTU: u32 = 65536;
/// The longest name, with its NUL (IFNAMSIZ).
pub const NAME_SIZE: usize = 16;
/// Interfaces that there may be: a bound against programs that make them without end.
const INTERFACES_MAX: usize = 4096;

/// Held over changes that a program asks for, which consist of several steps. It is taken before all other locks of the network.
pub(crate) static CHANGING: sched::Mutex<()> = sched::Mutex::new(());

static INTERFACES: SpinLock<Vec<Arc<Interface>>> = SpinLock::new(Vec::new());
static NEXT_INDEX: AtomicU32 = AtomicU32::new(1);

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
    INTERFACES.lock().iter().find(|i| i.name.lock().as_bytes() == name).cloned()
}

/// What an interface is to be.
pub struct Plan {
    /// Its name; one with `%d` gets the first free number there.
    pub name: String,
    /// Its index; 0 for the next.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// What is below.
    pub medium: Medium,
    /// The largest packet.
    pub mtu: u32,
    /// IFF_*.
    pub flags: u32,
    /// The interface that it lies on.
    pub lower: u32,
}

/// May an interface have this name?
pub fn is_name(name: &str) -> bool {
    let good = |c: u8| c != b'/' && c != b':' && !c.is_ascii_whitespace();
    !name.is_empty() && name.len() < NAME_SIZE && name != "." && name != ".." && name.bytes().all(good)
}

/// The first name of a pattern like `veth%d` that nobody has.
fn free_name(pattern: &str, taken: impl Fn(&str) -> bool) -> Result<String> {
    let Some((before, after)) = pattern.split_once("%d") else { return Ok(pattern.into()) };
    (0..=INTERFACES_MAX)
        .map(|n| format!("{before}{n}{after}"))
        .find(|name| !taken(name))
        .filter(|name| is_name(name))
        .ok_or(Errno::ENFILE)
}

/// Makes an interface. It is down. `EEXIST`, `EINVAL`, `ENFILE`, `ENOBUFS`, `EADDRNOTAVAIL` for a group's hardware address.
pub fn add(plan: Plan) -> Result<Arc<Interface>> {
    let (least, most) = plan.medium.mtu_range();
    if !(least..=if most == 0 { i32::MAX as u32 } else { most }).contains(&plan.mtu) {
        return Err(Errno::EINVAL);
    }
    if plan.medium.is_framed() && !interface::is_station(plan.mac) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    let mut interfaces = INTERFACES.lock();
    if interfaces.len() >= INTERFACES_MAX {
        return Err(Errno::ENOBUFS);
    }
    let taken = |name: &str| interfaces.iter().any(|i| *i.name.lock() == name);
    let name = free_name(&plan.name, taken)?;
    if !is_name(&name) {
        return Err(Errno::EINVAL);
    }
    if taken(&name) {
        return Err(Errno::EEXIST);
    }
    let index = match plan.index {
        0 => loop {
            let next = NEXT_INDEX.fetch_add(1, Ordering::Relaxed).max(1);
            if next <= i32::MAX as u32 && interfaces.iter().all(|i| i.index != next) {
                break next;
            }
        },
        wanted if interfaces.iter().any(|i| i.index == wanted) => return Err(Errno::EBUSY),
        wanted => wanted,
    };
    let queue_len = if matches!(plan.medium, Medium::Tunnel(_)) { 500 } else { 1000 };
    let queue = queue::Queue::new(matches!(plan.medium, Medium::Device(_) | Medium::Tunnel(_)));
    let interface = Arc::new(Interface {
        index,
        lower: plan.lower,
        name: SpinLock::new(name),
        mac: SpinLock::new(plan.mac),
        medium: plan.medium,
        mtu: AtomicU32::new(plan.mtu),
        flags: AtomicU32::new(plan.flags),
        addresses: SpinLock::new(Vec::new()),
        master: AtomicU32::new(0),
        group: AtomicU32::new(0),
        queue_len: AtomicU32::new(queue_len),
        wanted: [AtomicU32::new(0), AtomicU32::new(0)],
        conf: conf::Values::for_new(),
        groups: Default::default(),
        reporter: membership::Reporter::new(index),
        alias: SpinLock::new(String::new()),
        queue,
        counts: Counts::default(),
    });
    let at = interfaces.partition_point(|i| i.index < index);
    interfaces.insert(at, interface.clone());
    drop(interfaces);
    interface.announce();
    Ok(interface)
}

/// Gives an interface another name. `EEXIST`, `EINVAL`.
pub fn rename(interface: &Interface, name: &str) -> Result<()> {
    let interfaces = INTERFACES.lock();
    let taken = |name: &str| interfaces.iter().any(|i| i.index != interface.index && *i.name.lock() == name);
    let name = free_name(name, taken)?;
    if !is_name(&name) {
        return Err(Errno::EINVAL);
    }
    if taken(&name) {
        return Err(Errno::EEXIST);
    }
    *interface.name.lock() = name;
    drop(interfaces);
    interface.announce();
    Ok(())
}

/// Removes an interface, and those that lie on it. `EOPNOTSUPP` for those that are not made by request.
pub fn remove(interface: &Arc<Interface>) -> Result<()> {
    if matches!(interface.medium, Medium::Loopback | Medium::Device(_)) {
        return Err(Errno::EOPNOTSUPP);
    }
    take_out(interface);
    Ok(())
}

fn take_out(interface: &Arc<Interface>) {
    {
        let mut interfaces = INTERFACES.lock();
        let Some(at) = interfaces.iter().position(|i| i.index == interface.index) else { return };
        interfaces.remove(at);
    }
    bridge::leave(interface);
    if let Medium::Bridge(bridge) = &interface.medium {
        bridge.release_ports();
    }
    interface.set_up(false);
    for address in interface.addresses() {
        let _ = interface.remove_address(address.ip, address.prefix);
    }
    neighbour::forget_interface(interface.index, true);
    route::table::forget_interface(interface.index, true);
    route::changed();
    netlink::link::announce(interface, true);
    crate::af_packet::interface_gone(interface.index);
    // A pair goes together, and a tag goes with the interface below it.
    if let Medium::Veth(veth) = &interface.medium
        && let Some(peer) = veth.peer()
    {
        take_out(&peer);
    }
    all().iter().filter(|upper| upper.lower == interface.index && upper.lower != 0).for_each(|upper| {
        if matches!(upper.medium, Medium::Vlan(_)) {
            take_out(upper);
        }
    });
}

/// An interface has come up or gone down: those whose carrier it is tell so.
fn carrier_changed(interface: &Interface) {
    for other in all() {
        let depends = match &other.medium {
            Medium::Veth(veth) => veth.peer().is_some_and(|peer| peer.index == interface.index),
            Medium::Vlan(_) => other.lower == interface.index,
            Medium::Bridge(_) => interface.master.load(Ordering::Relaxed) == other.index,
            _ => false,
        };
        if depends && other.index != interface.index {
            other.announce();
        }
    }
}

/// A hardware address that no other machine should have.
pub(crate) fn random_mac() -> [u8; 6] {
    let random = hal::random::word().to_ne_bytes();
    [random[0] & !1 | 2, random[1], random[2], random[3], random[4], random[5]]
}

/// Makes the loopback interface with its addresses, and takes it up.
pub(crate) fn init() {
    let plan = Plan {
        name: "lo".into(),
        index: 1,
        mac: [0; 6],
        medium: Medium::Loopback,
        mtu: LOOPBACK_MTU,
        flags: flag::LOOPBACK,
        lower: 0,
    };
    NEXT_INDEX.store(2, Ordering::Relaxed);
    let Ok(lo) = add(plan) else { return };
    lo.set_up(true);
    for (ip, prefix) in [(Ipv4Addr::LOCALHOST.into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)] {
        // A fresh interface has no address yet, so neither can be there.
        let _ = lo.add_address(Address::new(ip, prefix, scope::HOST));
    }
}

/// Makes an interface of a device: eth0, eth1, ... It is down at first.
pub fn add_device(device: Arc<dyn NetDevice>) {
    let (mac, mtu) = (device.mac(), device.mtu());
    device.set_listener(Box::new(|| worker::wake(worker::FRAMES)));
    let plan = Plan {
        name: "eth%d".into(),
        index: 0,
        mac,
        medium: Medium::Device(Device::new(device)),
        mtu,
        flags: flag::BROADCAST | flag::MULTICAST,
        lower: 0,
    };
    match add(plan) {
        Ok(interface) => log::info!("{}: {mac:02x?}, mtu {mtu}", interface.name()),
        Err(error) => log::warn!("a network device found no place: {error:?}"),
    }
}

/// Takes what devices have received.
pub(crate) fn poll() {
    for interface in all() {
        if let Medium::Device(device) = &interface.medium {
            device.poll(&interface);
        }
    }
}

/// Ends addresses whose time is over.
#[derive(Default)]
struct Lifetimes {
    alarm: Alarm,
}

static LIFETIMES: Once<Arc<Lifetimes>> = Once::new();

fn watch_lifetimes(address: &Address) {
    if let Some(end) = address.ends[1] {
        let lifetimes = LIFETIMES.get_or_init(|| Arc::new(Lifetimes::default()));
        lifetimes.alarm.set(Some(end), || Some(lifetimes.clone()));
    }
}

impl Rings for Lifetimes {
    fn ring(self: Arc<Self>, now: Nanos) {
        self.alarm.rung(now);
        for interface in all() {
            for address in interface.addresses() {
                match address.ends[1] {
                    Some(end) if end <= now => {
                        let _ = interface.remove_address(address.ip, address.prefix);
                    }
                    Some(_) => watch_lifetimes(&address),
                    None => {}
                }
            }
        }
    }
}
