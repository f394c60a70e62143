//! Internet sockets: TCP, UDP, UDP-Lite and raw.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Errno, Result};

use super::filter::{self, Subject};
use super::{AF_INET, cookie, memory};
use crate::inet::datagram::DatagramSocket;
use crate::inet::{Endpoint, Family, raw, udp};
use crate::ip::protocol;
use crate::netlink::Authority;
use crate::netlink::message::{Attributes, Reply, Request};
use crate::netlink::octets;
use crate::socket::Socket;
use crate::tcp;
use crate::tcp::socket::TcpSocket;

const BY_FAMILY: u16 = 20;
/// Bytes of `struct inet_diag_req_v2` and of `struct inet_diag_sockid` in it.
const REQUEST: usize = 56;
const ID_AT: usize = 8;
const BYTECODE: u16 = 1;

/// What there is to tell about a socket.
pub(crate) struct Facts {
    pub(crate) family: Family,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) device: u32,
    pub(crate) state: u8,
    /// Which timer runs, how often it ran out, and milliseconds until it does.
    pub(crate) timer: (u8, u8, u32),
    pub(crate) receive_queue: usize,
    pub(crate) send_queue: usize,
    pub(crate) uid: u32,
    pub(crate) inode: u64,
    pub(crate) mark: u32,
    pub(crate) shutdown: u8,
    pub(crate) tos: u8,
    pub(crate) class: u8,
    pub(crate) v6_only: bool,
    pub(crate) congestion: Option<&'static str>,
    pub(crate) info: Option<Vec<u8>>,
    /// Receive buffer and send buffer.
    pub(crate) buffers: (usize, usize),
}

enum Found {
    Request(Arc<tcp::Request>),
    Tcp(Arc<TcpSocket>),
    Datagram(Arc<DatagramSocket>),
}

impl Found {
    fn facts(&self) -> Facts {
        match self {
            Found::Request(request) => request.facts(),
            Found::Tcp(socket) => socket.facts(),
            Found::Datagram(socket) => socket.facts(),
        }
    }
}

fn sockets(number: u8) -> Result<Vec<Found>> {
    Ok(match number {
        protocol::TCP => {
            let sockets = tcp::listeners().into_iter().chain(tcp::all());
            sockets.map(Found::Tcp).chain(tcp::requests().into_iter().map(Found::Request)).collect()
        }
        protocol::UDP | protocol::UDPLITE => {
            let all = udp::all().into_iter().filter(|s| s.protocol() == i32::from(number));
            all.map(Found::Datagram).collect()
        }
        protocol::RAW => raw::all().into_iter().map(Found::Datagram).collect(),
        _ => return Err(Errno::ENOENT),
    })
}

/// Answers a request of the kinds SOCK_DIAG_BY_FAMILY and SOCK_DESTROY. `EINVAL`, `ENOENT`, `EPERM`, `EOPNOTSUPP`.
pub(super) fn answer(caller: &Authority, request: &Request, reply: &mut Reply, destroy: bool) -> Result<()> {
    request.check_len(REQUEST)?;
    let family = if request.byte(0) == AF_INET { Family::V4 } else { Family::V6 };
    let (number, extensions, states) = (request.byte(1), request.byte(2), request.word(4));
    if !request.is_dump() || destroy {
        return one(caller, request, reply, destroy);
    }
    let program = request.attribute(REQUEST, BYTECODE);
    if let Some(program) = program {
        filter::check(program)?;
    }
    let half = |at: usize| u16::from_be_bytes([request.byte(at), request.byte(at + 1)]);
    let (local, remote) = (half(ID_AT), half(ID_AT + 2));
    for found in sockets(number)? {
        let facts = found.facts();
        let subject =
            Subject { local: facts.local, remote: facts.remote, device: facts.device, mark: facts.mark, bound: true };
        let chosen = facts.family == family
            && states & 1u32.checked_shl(facts.state.into()).unwrap_or(0) != 0
            && (local == 0 || local == facts.local.port)
            && (remote == 0 || remote == facts.remote.port)
            && program.is_none_or(|program| filter::run(program, &subject));
        if chosen {
            put(caller, reply, &facts, extensions);
        }
    }
    Ok(())
}

/// The one socket that a request names: shown, or ended.
fn one(caller: &Authority, request: &Request, reply: &mut Reply, destroy: bool) -> Result<()> {
    if destroy && !caller.admin {
        return Err(Errno::EPERM);
    }
    let id = request.body.get(ID_AT..ID_AT + 48).ok_or(Errno::EINVAL)?;
    let half = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let v4 = request.byte(0) == AF_INET;
    let same_ip = |facts: &Endpoint, at: usize| {
        let shown = address(facts, if v4 { Family::V4 } else { Family::V6 });
        let len = if v4 { 4 } else { 16 };
        shown[..len] == id[at..at + len]
    };
    let wanted = &id[40..48];
    for found in sockets(request.byte(1))? {
        let facts = found.facts();
        let fits = (facts.family == Family::V4 || !v4)
            && facts.local.port == half(0)
            && (facts.remote.port == half(2))
            && same_ip(&facts.local, 4)
            && (same_ip(&facts.remote, 20) || facts.remote.ip.is_unspecified());
        if !fits {
            continue;
        }
        if wanted != [0xff; 8] && wanted != cookie(facts.inode) {
            return Err(Errno::ESTALE);
        }
        if destroy {
            return match found {
                Found::Request(request) => {
                    request.destroy();
                    Ok(())
                }
                Found::Tcp(socket) => socket.destroy(),
                Found::Datagram(socket) => socket.destroy(),
            };
        }
        put(caller, reply, &facts, request.byte(2));
        return Ok(());
    }
    Err(Errno::ENOENT)
}

/// An address in the 16 bytes of a message, as a socket of that family shows it.
fn address(end: &Endpoint, family: Family) -> [u8; 16] {
    let mut out = [0; 16];
    match (family, end.ip) {
        (Family::V6, core::net::IpAddr::V4(v4)) if !v4.is_unspecified() => {
            out.copy_from_slice(&v4.to_ipv6_mapped().octets());
        }
        (_, ip) => {
            let octets = octets(ip);
            if !ip.is_unspecified() {
                out[..octets.len()].copy_from_slice(&octets);
            }
        }
    }
    out
}

fn put(caller: &Authority, reply: &mut Reply, facts: &Facts, extensions: u8) {
    let mut fixed = Vec::with_capacity(72);
    fixed.extend_from_slice(&[facts.family.number() as u8, facts.state, facts.timer.0, facts.timer.1]);
    fixed.extend_from_slice(&facts.local.port.to_be_bytes());
    fixed.extend_from_slice(&facts.remote.port.to_be_bytes());
    fixed.extend_from_slice(&address(&facts.local, facts.family));
    fixed.extend_from_slice(&address(&facts.remote, facts.family));
    fixed.extend_from_slice(&facts.device.to_ne_bytes());
    fixed.extend_from_slice(&cookie(facts.inode));
    for word in [facts.timer.2, facts.receive_queue as u32, facts.send_queue as u32, facts.uid, facts.inode as u32] {
        fixed.extend_from_slice(&word.to_ne_bytes());
    }
    let privileged = caller.admin;
    reply.message(BY_FAMILY, &fixed, |put| attributes(put, facts, extensions, privileged));
}

fn attributes(put: &mut Attributes, facts: &Facts, extensions: u8, privileged: bool) {
    const MEMINFO: u16 = 1;
    const INFO: u16 = 2;
    const CONG: u16 = 4;
    const TOS: u16 = 5;
    const TCLASS: u16 = 6;
    const SKMEMINFO: u16 = 7;
    const SHUTDOWN: u16 = 8;
    const V6ONLY: u16 = 11;
    const MARK: u16 = 15;
    let asked = |kind: u16| extensions & 1 << (kind - 1) != 0;
    put.byte(SHUTDOWN, facts.shutdown);
    if asked(TOS) {
        put.byte(TOS, facts.tos);
    }
    if facts.family == Family::V6 {
        if asked(TCLASS) {
            put.byte(TCLASS, facts.class);
        }
        if matches!(facts.state, 7 | 10) {
            put.byte(V6ONLY, facts.v6_only.into());
        }
    }
    if privileged {
        put.word(MARK, facts.mark);
    }
    if asked(MEMINFO) {
        let words = [facts.receive_queue as u32, facts.send_queue as u32, 0, facts.send_queue as u32];
        put.put(MEMINFO, &words.map(u32::to_ne_bytes).concat());
    }
    if asked(SKMEMINFO) {
        put.put(SKMEMINFO, &memory(facts.receive_queue, facts.buffers.0, facts.send_queue, facts.buffers.1));
    }
    if let Some(info) = facts.info.as_ref().filter(|_| asked(INFO)) {
        put.put(INFO, info);
    }
    if let Some(name) = facts.congestion.filter(|_| asked(CONG)) {
        put.text(CONG, name);
    }
}

/// The common part of what there is to tell.
pub(crate) fn facts(socket: &dyn Socket, family: Family, local: Endpoint, remote: Endpoint) -> Facts {
    let options = socket.options();
    Facts {
        family,
        local,
        remote,
        device: 0,
        state: 7,
        timer: (0, 0, 0),
        receive_queue: 0,
        send_queue: 0,
        uid: options.owner.load(Ordering::Relaxed),
        inode: options.inode.load(Ordering::Relaxed),
        mark: options.mark.load(Ordering::Relaxed) as u32,
        shutdown: 0,
        tos: 0,
        class: 0,
        v6_only: false,
        congestion: None,
        info: None,
        buffers: (options.receive_buffer.load(Ordering::Relaxed), options.send_limit()),
    }
}
