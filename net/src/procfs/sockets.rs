//! The tables of sockets: tcp, udp, raw, sockstat.

use alloc::format;
use alloc::string::String;
use core::any::Any;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use crate::af_packet::PacketSocket;
use crate::inet::{Endpoint, Family, raw as raw_sockets, udp as udp_sockets};
use crate::netlink::NetlinkSocket;
use crate::options::Options;
use crate::socket::Socket;
use crate::tcp::connection::State;
use crate::unix::UnixSocket;

/// The head of an empty table of datagram sockets.
pub(super) const UDP_HEAD: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n";
/// The same for IPv6.
pub(super) const UDP_HEAD_6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
const TCP_HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const TCP_HEAD_6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
/// The width of a line of the IPv4 table.
const TCP_WIDTH: usize = 149;

fn end(end: &Endpoint, family: Family) -> String {
    let words = match (family, end.ip) {
        (Family::V4, IpAddr::V4(v4)) => format!("{:08X}", u32::from_ne_bytes(v4.octets())),
        (_, ip) => {
            let v6 = match ip {
                IpAddr::V6(v6) => v6,
                // An unspecified end of a socket for both families shows as zeros.
                IpAddr::V4(v4) if v4.is_unspecified() => core::net::Ipv6Addr::UNSPECIFIED,
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            };
            let octets = v6.octets();
            octets.chunks(4).map(|c| format!("{:08X}", u32::from_ne_bytes([c[0], c[1], c[2], c[3]]))).collect()
        }
    };
    format!("{words}:{:04X}", end.port)
}

fn owner(options: &Options) -> (u32, u64) {
    (options.owner.load(Ordering::Relaxed), options.inode.load(Ordering::Relaxed))
}

pub(super) fn tcp(family: Family) -> String {
    let v4 = family == Family::V4;
    let pad = |line: String| if v4 { format!("{line:<TCP_WIDTH$}\n") } else { line + "\n" };
    let mut out = if v4 { pad(TCP_HEAD.into()) } else { String::from(TCP_HEAD_6) };
    let sockets = crate::tcp::listeners().into_iter().chain(crate::tcp::all()).map(|socket| socket.facts());
    let all = sockets.chain(crate::tcp::requests().into_iter().map(|request| request.facts()));
    for (number, facts) in all.filter(|facts| facts.family == family).enumerate() {
        let to_send = if facts.state == State::Listen as u8 { 0 } else { facts.send_queue };
        // A connection in TIME_WAIT or without a user has no inode any more.
        let inode = if facts.state == State::TimeWait as u8 { 0 } else { facts.inode };
        let (timer, repeated, left) = facts.timer;
        // Times are in hundredths of a second.
        let left = left / 10;
        out.push_str(&pad(format!(
            "{number:>4}: {} {} {:02X} {to_send:08X}:{:08X} {timer:02X}:{left:08X} {repeated:08X} {:>5}        0 {inode} 1 0000000000000000 20 4 0 10 -1",
            end(&facts.local, family),
            end(&facts.remote, family),
            facts.state,
            facts.receive_queue,
            facts.uid,
        )));
    }
    out
}

fn datagram_line(number: usize, family: Family, summary: &(Endpoint, Endpoint, usize), options: &Options) -> String {
    let (local, remote, waiting) = summary;
    let (uid, inode) = owner(options);
    let connected = !remote.ip.is_unspecified();
    format!(
        "{number:>5}: {} {} {:02X} {:08X}:{waiting:08X} 00:00000000 00000000 {uid:>5}        0 {inode} 2 0000000000000000 0\n",
        end(local, family),
        end(remote, family),
        if connected { 1 } else { 7 },
        0,
    )
}

pub(super) fn udp(family: Family) -> String {
    let mut out = String::from(if family == Family::V4 { UDP_HEAD } else { UDP_HEAD_6 });
    for (number, socket) in udp_sockets::all().iter().filter(|s| s.socket_family() == family).enumerate() {
        out.push_str(&datagram_line(number, family, &socket.summary(), socket.options()));
    }
    out
}

pub(super) fn raw(family: Family) -> String {
    let mut out = String::from(if family == Family::V4 { UDP_HEAD } else { UDP_HEAD_6 });
    for (number, socket) in raw_sockets::all().iter().filter(|s| s.socket_family() == family).enumerate() {
        let (mut local, remote, waiting) = socket.summary();
        local.port = socket.protocol() as u16;
        out.push_str(&datagram_line(number, family, &(local, remote, waiting), socket.options()));
    }
    out
}

fn counts(family: Family) -> (usize, usize, usize, usize) {
    let mut open = 0;
    let mut waiting = 0;
    for socket in crate::tcp::all().into_iter().chain(crate::tcp::listeners()) {
        if socket.socket_family() != family {
            continue;
        }
        if socket.state() == State::TimeWait { waiting += 1 } else { open += 1 }
    }
    let udp = udp_sockets::all().iter().filter(|s| s.socket_family() == family).count();
    let raw = raw_sockets::all().iter().filter(|s| s.socket_family() == family).count();
    (open, waiting, udp, raw)
}

pub(super) fn sockstat() -> String {
    let (tcp, waiting, udp, raw) = counts(Family::V4);
    let used = crate::file::all().len();
    format!(
        "sockets: used {used}\nTCP: inuse {tcp} orphan {} tw {waiting} alloc {tcp} mem {}\nUDP: inuse {udp} mem 0\nUDPLITE: inuse 0\nRAW: inuse {raw}\nFRAG: inuse 0 memory 0\n",
        crate::tcp::memory::orphans(),
        crate::tcp::memory::pages()
    )
}

pub(super) fn sockstat6() -> String {
    let (tcp, _, udp, raw) = counts(Family::V6);
    format!("TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nRAW6: inuse {raw}\nFRAG6: inuse 0 memory 0\n")
}

pub(super) fn unix() -> String {
    const ACCEPTS: u32 = 0x10000;
    let mut out = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
    for socket in crate::file::all() {
        let Some(unix) = (&*socket as &dyn Any).downcast_ref::<UnixSocket>() else { continue };
        let summary = unix.summary();
        let (flags, state) = match summary.state {
            10 => (ACCEPTS, 1),
            1 => (0, 3),
            _ => (0, 1),
        };
        out.push_str(&format!(
            "0000000000000000: 00000002 00000000 {flags:08X} {:04X} {state:02X} {:>5}",
            summary.kind, summary.inode
        ));
        if let Some(name) = summary.name.filter(|name| !name.is_empty()) {
            // Abstract names begin with a NUL, which shows as an @, and so do those inside.
            let is_abstract = name[0] == 0;
            let name = if is_abstract { &name[..] } else { name.split(|&b| b == 0).next().unwrap_or_default() };
            out.push(' ');
            out.extend(name.iter().map(|&b| if b == 0 { '@' } else { char::from(b) }));
        }
        out.push('\n');
    }
    out
}

pub(super) fn packet() -> String {
    let mut out = String::from("sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n");
    for socket in PacketSocket::all() {
        let (protocol, interface, queued) = socket.summary();
        let (uid, inode) = owner(socket.options());
        let kind = socket.kind() as i32;
        let runs = u8::from(protocol != 0);
        out.push_str(&format!(
            "0000000000000000 3      {kind:<4} {protocol:04x}   {interface:<5} {runs} {queued:<6} {uid:<6} {inode:<6}\n"
        ));
    }
    out
}

pub(super) fn netlink() -> String {
    let mut out =
        String::from("sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n");
    for socket in NetlinkSocket::all() {
        let (protocol, port, groups, bytes, drops) = socket.summary();
        let (_, inode) = owner(socket.options());
        out.push_str(&format!(
            "0000000000000000 {protocol:<3} {port:<10} {:08x} {bytes:<8} {:<8} 0     2        {drops:<8} {inode:<8}\n",
            groups as u32, 0
        ));
    }
    out
}
