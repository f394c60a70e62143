//! Internet sockets: what those of UDP, ICMP, raw IP and TCP have in common, and all of them but TCP's.

pub mod address;
mod control;
pub mod datagram;
mod datagram_option;
pub(crate) mod errors;
pub(crate) mod multicast;
mod options;
pub mod ping;
pub mod port;
mod queue;
pub mod raw;
mod sending;
pub(crate) mod steering;
pub mod udp;

use alloc::sync::Arc;

use core::sync::atomic::AtomicU32;

use base::{Capability, Errno, Result};

pub use address::{Endpoint, Family};
pub use options::Settings;
pub(crate) use options::{IP_MTU, SOL_IP, SOL_IPV6, Setter};

use crate::ip::protocol;
use crate::socket::{Caller, Socket};
use crate::tcp::socket::TcpSocket;
use crate::{link, route};

/// socket(2) for AF_INET and AF_INET6. `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EPERM`.
pub fn create(caller: &Caller, family: Family, kind: i32, number: i32) -> Result<Arc<dyn Socket>> {
    const STREAM: i32 = 1;
    const DATAGRAM: i32 = 2;
    const RAW: i32 = 3;
    if !(0..256).contains(&number) {
        return Err(Errno::EINVAL);
    }
    let echo = if family == Family::V4 { protocol::ICMP } else { protocol::ICMPV6 };
    let number = number as u8;
    match (kind, number) {
        (STREAM, 0 | protocol::TCP) => Ok(TcpSocket::create(family)),
        (DATAGRAM, 0 | protocol::UDP) => Ok(datagram::DatagramSocket::create(family, datagram::Flavour::Udp)),
        (DATAGRAM, protocol::UDPLITE) => Ok(datagram::DatagramSocket::create(family, datagram::Flavour::UdpLite)),
        (DATAGRAM, n) if n == echo => {
            ping::check_allowed(caller)?;
            Ok(datagram::DatagramSocket::create(family, datagram::Flavour::Ping))
        }
        (RAW, 0) => Err(Errno::EPROTONOSUPPORT),
        (RAW, n) => {
            if !caller.fs.cred.capable(Capability::NetRaw) {
                return Err(Errno::EPERM);
            }
            Ok(datagram::DatagramSocket::create(family, datagram::Flavour::Raw(n)))
        }
        (STREAM | DATAGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Do sockets for IPv6 begin with IPV6_V6ONLY (`net.ipv6.bindv6only`)?
pub(crate) static BIND_V6_ONLY: AtomicU32 = AtomicU32::new(0);

/// May a socket be bound to this address? `EADDRNOTAVAIL`, `EINVAL` (a link-local address without its link).
pub(crate) fn check_bindable(at: &Endpoint, settings: &Settings, datagrams: bool) -> Result<()> {
    let ip = at.ip;
    if ip.is_unspecified() || settings.free_bind || route::is_local(ip) {
        let linked = !route::is_link_local(ip) || at.scope != 0 || settings.device != 0;
        return if linked { Ok(()) } else { Err(Errno::EINVAL) };
    }
    let broadcast = || link::all().iter().any(|interface| route::is_broadcast(ip, interface));
    if datagrams && (ip.is_multicast() || broadcast()) { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) }
}

/// May the caller bind to this port? `EACCES`.
pub(crate) fn check_port(caller: &Caller, port: u16) -> Result<()> {
    let privileged = port != 0 && u32::from(port) < port::unprivileged();
    if privileged && !caller.fs.cred.capable(Capability::NetBindService) { Err(Errno::EACCES) } else { Ok(()) }
}
