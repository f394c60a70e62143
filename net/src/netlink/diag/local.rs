//! Sockets of this machine alone, and those below the Internet: unix, netlink, packet and vsock.

use core::any::Any;
use core::sync::atomic::Ordering;

use base::Result;

use super::{AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, cookie, memory};
use crate::af_packet::PacketSocket;
use crate::file::all;
use crate::netlink::NetlinkSocket;
use crate::netlink::message::{Reply, Request};
use crate::socket::Socket;
use crate::unix::UnixSocket;
use crate::vsock::VsockSocket;

const BY_FAMILY: u16 = 20;

/// `struct unix_diag_req`. `ENOENT`, `EINVAL`.
pub(super) fn unix(request: &Request, reply: &mut Reply) -> Result<()> {
    const SIZE: usize = 24;
    request.check_len(SIZE)?;
    let (states, inode, show) = (request.word(4), request.word(8), request.word(12));
    let mut found = request.is_dump();
    for socket in all() {
        let Some(unix) = (&*socket as &dyn Any).downcast_ref::<UnixSocket>() else { continue };
        let summary = unix.summary();
        let wanted = if request.is_dump() { states & 1 << summary.state != 0 } else { summary.inode as u32 == inode };
        if wanted {
            found = true;
            put_unix(reply, unix, show);
        }
    }
    if found { Ok(()) } else { Err(base::Errno::ENOENT) }
}

fn put_unix(reply: &mut Reply, unix: &UnixSocket, show: u32) {
    let summary = unix.summary();
    let mut fixed = [AF_UNIX, summary.kind as u8, summary.state, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&(summary.inode as u32).to_ne_bytes());
    fixed[8..16].copy_from_slice(&cookie(summary.inode));
    let asked = |bit: u32| show & 1 << bit != 0;
    reply.message(BY_FAMILY, &fixed, |put| {
        if let Some(name) = summary.name.as_ref().filter(|name| asked(0) && !name.is_empty()) {
            put.put(0, name);
        }
        if let Some((device, inode)) = summary.file.filter(|_| asked(1)) {
            put.put(1, &[inode as u32, device].map(u32::to_ne_bytes).concat());
        }
        if let Some(peer) = summary.peer.filter(|_| asked(2)) {
            put.word(2, peer as u32);
        }
        if let Some(waiting) = summary.waiting.as_ref().filter(|list| asked(3) && !list.is_empty()) {
            let list: alloc::vec::Vec<u8> = waiting.iter().flat_map(|inode| (*inode as u32).to_ne_bytes()).collect();
            put.put(3, &list);
        }
        if asked(4) {
            put.put(4, &[summary.queues.0 as u32, summary.queues.1 as u32].map(u32::to_ne_bytes).concat());
        }
        if asked(5) {
            let options = unix.options();
            let limits = (options.receive_buffer.load(Ordering::Relaxed), options.send_limit());
            put.put(5, &memory(summary.queues.0, limits.0, 0, limits.1));
        }
        put.byte(6, summary.shutdown);
        if asked(6) {
            put.word(7, unix.options().owner.load(Ordering::Relaxed));
        }
    });
}

/// `struct netlink_diag_req`. `EINVAL`.
pub(super) fn netlink(request: &Request, reply: &mut Reply) -> Result<()> {
    const SIZE: usize = 20;
    const MEMINFO: u16 = 0;
    const GROUPS: u16 = 1;
    const ALL: u8 = 255;
    request.check_len(SIZE)?;
    let wanted = request.byte(1);
    for socket in NetlinkSocket::all() {
        let (protocol, port, groups, bytes, _) = socket.summary();
        if wanted != ALL && i32::from(wanted) != protocol {
            continue;
        }
        let remote = socket.remote();
        let inode = socket.options().inode.load(Ordering::Relaxed);
        let mut fixed = alloc::vec![AF_NETLINK, socket.kind() as u8, protocol as u8, if remote.0 != 0 { 1 } else { 0 }];
        for word in [port, remote.0, remote.1, inode as u32] {
            fixed.extend_from_slice(&word.to_ne_bytes());
        }
        fixed.extend_from_slice(&cookie(inode));
        reply.message(BY_FAMILY, &fixed, |put| {
            put.put(GROUPS, &groups.to_ne_bytes());
            let options = socket.options();
            let limits = (options.receive_buffer.load(Ordering::Relaxed), options.send_limit());
            put.put(MEMINFO, &memory(bytes, limits.0, 0, limits.1));
        });
    }
    Ok(())
}

/// `struct packet_diag_req`. `EINVAL`.
pub(super) fn packet(request: &Request, reply: &mut Reply) -> Result<()> {
    const SIZE: usize = 20;
    const INFO: u16 = 0;
    const MEMINFO: u16 = 5;
    const UID: u16 = 4;
    request.check_len(SIZE)?;
    for socket in PacketSocket::all() {
        let (protocol, interface, queued) = socket.summary();
        let inode = socket.options().inode.load(Ordering::Relaxed);
        let mut fixed = alloc::vec![AF_PACKET, socket.kind() as u8];
        fixed.extend_from_slice(&protocol.to_ne_bytes());
        fixed.extend_from_slice(&(inode as u32).to_ne_bytes());
        fixed.extend_from_slice(&cookie(inode));
        reply.message(BY_FAMILY, &fixed, |put| {
            // `struct packet_diag_info`: index, version, reserve, copy threshold, timestamps, flags.
            put.put(INFO, &[interface, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat());
            put.word(UID, socket.options().owner.load(Ordering::Relaxed));
            let options = socket.options();
            let limits = (options.receive_buffer.load(Ordering::Relaxed), options.send_limit());
            put.put(MEMINFO, &memory(queued, limits.0, 0, limits.1));
        });
    }
    Ok(())
}

/// `struct vsock_diag_req`. `EINVAL`; `EOPNOTSUPP` for one socket instead of a list.
pub(super) fn vsock(request: &Request, reply: &mut Reply) -> Result<()> {
    const SIZE: usize = 24;
    request.check_len(SIZE)?;
    if !request.is_dump() {
        return Err(base::Errno::EOPNOTSUPP);
    }
    let states = request.word(4);
    for socket in VsockSocket::all() {
        let summary = socket.summary();
        if states & 1 << summary.state == 0 {
            continue;
        }
        let inode = socket.options().inode.load(Ordering::Relaxed);
        let mut fixed = alloc::vec![AF_VSOCK, socket.kind() as u8, summary.state, summary.shutdown];
        let ends = [summary.local, summary.remote];
        for word in ends.into_iter().flat_map(|end| [end.cid, end.port]).chain([inode as u32]) {
            fixed.extend_from_slice(&word.to_ne_bytes());
        }
        fixed.extend_from_slice(&cookie(inode));
        reply.message(BY_FAMILY, &fixed, |_| {});
    }
    Ok(())
}
