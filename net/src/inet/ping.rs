//! Ping sockets (icmp(7)): ICMP echoes for everyone whom `net.ipv4.ping_group_range` allows. The echo's identity is the socket's port.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::address::Endpoint;
use super::datagram::DatagramSocket;
use super::errors;
use super::queue::Datagram;
use crate::hash::Table;
use crate::ip::icmp::{self, Report};
use crate::ip::{Header, Outgoing};
use crate::packet::{Packet, Rope};
use crate::route::Path;
use crate::socket::Caller;

/// Bytes of an echo's header.
const HEADER: usize = 8;

/// The groups that may have such sockets: first and last. Nobody, as Linux has it without systemd's setting.
static ALLOWED: [AtomicU32; 2] = [AtomicU32::new(1), AtomicU32::new(0)];
static SOCKETS: SpinLock<Option<Table<u16, Arc<DatagramSocket>>>> = SpinLock::new(None);

/// The groups that may have such sockets.
pub fn allowed() -> (u32, u32) {
    (ALLOWED[0].load(Ordering::Relaxed), ALLOWED[1].load(Ordering::Relaxed))
}

/// Sets the groups that may have such sockets.
pub fn set_allowed(first: u32, last: u32) {
    ALLOWED[0].store(first, Ordering::Relaxed);
    ALLOWED[1].store(last, Ordering::Relaxed);
}

/// May the caller have one? `EACCES`.
pub(super) fn check_allowed(caller: &Caller) -> Result<()> {
    let (first, last) = allowed();
    let cred = &caller.fs.cred;
    let fits = |gid: &u32| (first..=last).contains(gid);
    if fits(&cred.egid) || cred.groups.iter().any(fits) { Ok(()) } else { Err(Errno::EACCES) }
}

pub(super) fn register(identity: u16, socket: Arc<DatagramSocket>) {
    SOCKETS.lock().get_or_insert_with(Table::default).insert(identity, socket);
}

pub(super) fn unregister(identity: u16, socket: &Arc<DatagramSocket>) {
    let mut sockets = SOCKETS.lock();
    if let Some(table) = sockets.as_mut()
        && table.get(&identity).is_some_and(|other| Arc::ptr_eq(other, socket))
    {
        table.remove(&identity);
    }
}

fn find(identity: u16) -> Option<Arc<DatagramSocket>> {
    SOCKETS.lock().as_ref()?.get(&identity).cloned()
}

/// Sends an echo request: the program's header with our identity. `EINVAL` where it is something else.
pub(super) fn send(mut data: Rope, identity: u16, out: &Outgoing, path: &Path) -> Result<()> {
    let mut head = [0; HEADER];
    if data.read(0, &mut head) < HEADER {
        return Err(Errno::EINVAL);
    }
    let request = if out.source.is_ipv4() { 8 } else { 128 };
    if head[0] != request || head[1] != 0 {
        return Err(Errno::EINVAL);
    }
    head[2..4].fill(0);
    head[4..6].copy_from_slice(&identity.to_be_bytes());
    data.advance(HEADER);
    icmp::send(head, data, out, path)
}

/// Receives an echo reply, at its ICMP header.
pub(crate) fn input(packet: Box<Packet>, header: Header) {
    let head = packet.head();
    let identity = head.get(4..6).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let Some(socket) = find(identity) else { return };
    let Ok(data) = packet.into_rope() else { return };
    let datagram = Datagram {
        data,
        from: Endpoint::new(header.source, 0),
        to: header.destination,
        interface: header.interface,
        ttl: header.ttl,
        tos: header.tos,
        received: sched::time::realtime(),
        options: Vec::new(),
        segment: 0,
    };
    // A reply that finds no room is lost.
    let _ = socket.receive_datagram(datagram);
}

/// An error message about an echo request.
pub(crate) fn on_report(identity: u16, to: IpAddr, packet: &Packet, report: &Report) {
    if let Some(socket) = find(identity) {
        let to = errors::endpoint(to, 0, packet.interface);
        socket.on_failure(report, to, report.hard, Some(packet));
    }
}
