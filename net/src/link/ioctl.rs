//! The requests of netdevice(7): what ifconfig and many libraries ask.

use core::net::{IpAddr, Ipv4Addr};

use base::{Capability, Cred, Errno, Result};
use hal::user::{UserPtr, copy_in, copy_out};

use super::{Address, Interface, all, by_index, by_name, flag, scope};
use alloc::sync::Arc;

const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCSIFMTU: u32 = 0x8922;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCGIFMAP: u32 = 0x8970;

/// `struct ifreq`: a name of 16 bytes and 24 bytes of value.
const SIZE: usize = 40;
const NAME: usize = 16;

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// The hardware type of an interface (ARPHRD_*).
pub(crate) fn hardware(interface: &Interface) -> u16 {
    if interface.is_loopback() { ARPHRD_LOOPBACK } else { ARPHRD_ETHER }
}

fn sockaddr(ip: Ipv4Addr) -> [u8; 16] {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&2u16.to_ne_bytes());
    out[4..8].copy_from_slice(&ip.octets());
    out
}

/// The mask of a prefix.
pub(crate) fn mask(prefix: u8) -> Ipv4Addr {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).into()
}

fn first_v4(interface: &Interface) -> Result<Address> {
    interface.addresses().into_iter().find(|a| a.ip.is_ipv4()).ok_or(Errno::EADDRNOTAVAIL)
}

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// A request of netdevice(7). `ENOTTY` for others, `ENODEV`, `EADDRNOTAVAIL`, `EPERM`, `EFAULT`.
pub(crate) fn request(cred: &Cred, request: u32, arg: usize) -> Result<usize> {
    match request {
        SIOCGIFCONF => return list(arg),
        SIOCGIFNAME..=SIOCGIFMAP => {}
        _ => return Err(Errno::ENOTTY),
    }
    let mut raw = [0; SIZE];
    copy_in(&mut raw, arg)?;
    let value_word = i32::from_ne_bytes([raw[16], raw[17], raw[18], raw[19]]);
    let interface = if request == SIOCGIFNAME {
        by_index(value_word as u32).ok_or(Errno::ENODEV)?
    } else {
        let name = raw[..NAME - 1].split(|&b| b == 0 || b == b':').next().unwrap_or_default();
        by_name(name).ok_or(Errno::ENODEV)?
    };
    if matches!(request, SIOCSIFFLAGS | SIOCSIFADDR | SIOCSIFNETMASK | SIOCSIFMTU) {
        if !cred.capable(Capability::NetAdmin) {
            return Err(Errno::EPERM);
        }
        return change(&interface, request, &raw[NAME..]);
    }
    let word = |n: i32| {
        let mut out = [0; 24];
        out[..4].copy_from_slice(&n.to_ne_bytes());
        out
    };
    let address = |ip: Ipv4Addr| {
        let mut out = [0; 24];
        out[..16].copy_from_slice(&sockaddr(ip));
        out
    };
    let value: [u8; 24] = match request {
        SIOCGIFNAME => {
            let mut name = [0; NAME];
            name[..interface.name.len().min(NAME - 1)].copy_from_slice(interface.name.as_bytes());
            copy_out(arg, &name)?;
            return Ok(0);
        }
        SIOCGIFINDEX => word(interface.index as i32),
        SIOCGIFFLAGS => {
            // The field is 16 bits wide.
            let mut out = [0; 24];
            out[..2].copy_from_slice(&(interface.flags() as u16).to_ne_bytes());
            out
        }
        SIOCGIFMTU => word(interface.mtu() as i32),
        SIOCGIFMETRIC => word(0),
        SIOCGIFTXQLEN => word(1000),
        SIOCGIFMAP => [0; 24],
        SIOCGIFHWADDR => {
            let mut out = [0; 24];
            out[..2].copy_from_slice(&hardware(&interface).to_ne_bytes());
            out[2..8].copy_from_slice(&interface.mac);
            out
        }
        SIOCGIFADDR | SIOCGIFDSTADDR => address(v4(first_v4(&interface)?.ip)),
        SIOCGIFBRDADDR => address(first_v4(&interface)?.broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        SIOCGIFNETMASK => address(mask(first_v4(&interface)?.prefix)),
        _ => return Err(Errno::ENOTTY),
    };
    copy_out(arg.wrapping_add(NAME), &value)?;
    Ok(0)
}

fn change(interface: &Arc<Interface>, request: u32, value: &[u8]) -> Result<usize> {
    let word = u32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
    let ip = Ipv4Addr::new(value[4], value[5], value[6], value[7]);
    match request {
        SIOCSIFFLAGS => interface.set_up(word & flag::UP != 0),
        SIOCSIFMTU => interface.set_mtu(word)?,
        SIOCSIFADDR => {
            if let Ok(old) = first_v4(interface) {
                interface.remove_address(old.ip, old.prefix)?;
            }
            let prefix = match ip.octets()[0] {
                0..=127 => 8,
                128..=191 => 16,
                _ => 24,
            };
            set_address(interface, ip, prefix)?;
            interface.set_up(true);
        }
        SIOCSIFNETMASK => {
            let old = first_v4(interface)?;
            let bits = u32::from(ip);
            let prefix = bits.leading_ones();
            if bits.checked_shl(prefix).unwrap_or(0) != 0 {
                return Err(Errno::EINVAL);
            }
            interface.remove_address(old.ip, old.prefix)?;
            set_address(interface, v4(old.ip), prefix as u8)?;
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn set_address(interface: &Interface, ip: Ipv4Addr, prefix: u8) -> Result<()> {
    let broadcast = (interface.flags() & flag::BROADCAST != 0 && prefix < 31)
        .then(|| Ipv4Addr::from(u32::from(ip) | !u32::from(mask(prefix))));
    let scope = if interface.is_loopback() { scope::HOST } else { scope::UNIVERSE };
    interface.add_address(Address { ip: ip.into(), prefix, scope, broadcast })
}

/// SIOCGIFCONF: all interfaces with an IPv4 address.
fn list(arg: usize) -> Result<usize> {
    let room = UserPtr::<i32>::new(arg).read()?;
    let buffer = UserPtr::<usize>::new(arg.wrapping_add(8)).read()?;
    let mut used = 0;
    for interface in all() {
        for address in interface.addresses() {
            let IpAddr::V4(ip) = address.ip else { continue };
            let mut entry = [0; SIZE];
            entry[..interface.name.len().min(NAME - 1)].copy_from_slice(interface.name.as_bytes());
            entry[NAME..NAME + 16].copy_from_slice(&sockaddr(ip));
            if buffer != 0 {
                if used + SIZE > usize::try_from(room).unwrap_or(0) {
                    break;
                }
                copy_out(buffer.wrapping_add(used), &entry)?;
            }
            used += SIZE;
        }
    }
    UserPtr::<i32>::new(arg).write(&(used as i32))?;
    Ok(0)
}
