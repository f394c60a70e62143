//! Module 5, networking: the protocol stack and sockets.
//!
//! [`Socket`] is what a protocol family implements, [`SocketFile`] makes a file of it. The families are [`unix`], Internet sockets ([`inet`], and
//! [`tcp`] for streams), [`netlink`], [`af_packet`] and [`vsock`]. Below them are [`ip`] with ICMP, [`route`], and the interfaces in [`link`]; a [`packet`] is headers and
//! references to pages. May depend on `fs`, `mm`, `sched` and `hal`; never on `ipc`.
//!
//! All locks but those inside devices are taken in threads only: interrupts just wake the network's thread. A packet is sent under whatever locks,
//! since sending only queues it; it is received without any ([`backlog`]).
//!
//! Lock order (outermost first): a socket's reader and writer locks (sleep) -> abstract names -> a unix socket's state (never two)
//! -> its inbox; a TCP request's progress -> a TCP or datagram socket's state (never two) -> its settings -> its inbox -> alarms ->
//! interfaces, addresses, routes -> neighbours -> an interface's queue -> the backlog -> wait queues of sched. Tables of sockets and ports are leaves: nothing is
//! called under them but scores. Files that were sent are never dropped under a lock.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod af_packet;
mod alarm;
pub mod backlog;
pub mod checksum;
mod file;
pub mod filter;
pub mod hash;
pub mod inet;
pub mod ip;
pub mod link;
pub mod netlink;
mod options;
pub mod packet;
pub mod procfs;
mod rope;
pub mod route;
mod socket;
pub mod statistics;
pub mod sysfs;
pub mod tcp;
pub mod unix;
pub mod vsock;
mod worker;

pub use file::{SocketFile, netlink_socket_of, open_file, socket_of};
pub use options::{Options, level, option};
pub use socket::{
    Caller, Control, ControlMessage, MessageFlags, Outgoing, Received, Shutdown, Socket, SocketKind, Ucred,
};

use alloc::sync::Arc;
use base::{Errno, Result};

/// AF_UNIX.
pub const AF_UNIX: i32 = 1;
/// AF_INET.
pub const AF_INET: i32 = 2;
/// AF_INET6.
pub const AF_INET6: i32 = 10;
/// AF_NETLINK.
pub const AF_NETLINK: i32 = 16;
/// One more than the highest protocol family that Linux knows.
const AF_MAX: i32 = 46;

/// socket(2): a socket of that family, type and protocol. `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EINVAL`.
pub fn create(caller: &Caller, family: i32, kind: i32, protocol: i32) -> Result<Arc<dyn Socket>> {
    if !(0..AF_MAX).contains(&family) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if !(0..=10).contains(&kind) {
        return Err(Errno::EINVAL);
    }
    match family {
        AF_UNIX => Ok(unix::UnixSocket::create(caller, kind, protocol)?),
        AF_INET => inet::create(caller, inet::Family::V4, kind, protocol),
        AF_INET6 => inet::create(caller, inet::Family::V6, kind, protocol),
        AF_NETLINK => Ok(netlink::NetlinkSocket::create(caller, kind, protocol)?),
        vsock::AF_VSOCK => Ok(vsock::VsockSocket::create(kind, protocol)?),
        af_packet::AF_PACKET => Ok(af_packet::PacketSocket::create(caller, kind, protocol)?),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// Sets the network up: the loopback interface, and the thread that does what interrupts leave. Once, at boot, in a thread.
pub fn init() {
    tcp::memory::init();
    link::init();
    if link::tunnel::register().is_err() {
        log::warn!("/dev/net/tun: its number is taken");
    }
    if vsock::register().is_err() {
        log::warn!("/dev/vsock: its number is taken");
    }
    worker::start();
}
