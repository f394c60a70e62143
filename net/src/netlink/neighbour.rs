//! Neighbours: RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH, and what bridges have learnt.

use base::{Errno, NANOS_PER_SEC, Result};

use super::message::{Attributes, NLM_F_CREATE, NLM_F_EXCL, Reply, Request, notification};
use super::{NETLINK_ROUTE, family, group, ip_of, octets, publish};
use crate::link::interface::Medium;
use crate::link::neighbour::{self, Neighbour, state};
use crate::link::{self, bridge};

const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
/// Bytes of `struct ndmsg`.
const NDMSG: usize = 12;
const DST: u16 = 1;
const LLADDR: u16 = 2;
const CACHEINFO: u16 = 3;
const PROBES: u16 = 4;
const IFINDEX: u16 = 8;
const MASTER: u16 = 9;
const AF_BRIDGE: u8 = 7;

/// Tells programs of a neighbour.
pub(crate) fn announce(neighbour: &Neighbour, gone: bool) {
    let kind = if gone { DELNEIGH } else { NEWNEIGH };
    publish(NETLINK_ROUTE, group::NEIGHBOUR, || notification(kind, &fixed_part(neighbour), |put| fill(put, neighbour)));
}

fn fixed_part(neighbour: &Neighbour) -> [u8; NDMSG] {
    const UNICAST: u8 = 1;
    let mut fixed = [family(neighbour.ip), 0, 0, 0, 0, 0, 0, 0, 0, 0, neighbour.flags, UNICAST];
    fixed[4..8].copy_from_slice(&neighbour.interface.to_ne_bytes());
    fixed[8..10].copy_from_slice(&neighbour.state.to_ne_bytes());
    fixed
}

fn fill(put: &mut Attributes, neighbour: &Neighbour) {
    put.put(DST, &octets(neighbour.ip));
    if let Some(mac) = neighbour.mac {
        put.put(LLADDR, &mac);
    }
    put.word(PROBES, neighbour.tries);
    let now = sched::time::now();
    // In hundredths of a second, and the number of users.
    let ages = [neighbour.confirmed, neighbour.used, neighbour.updated]
        .map(|at| (now.saturating_sub(at) / (NANOS_PER_SEC / 100)) as u32);
    put.put(CACHEINFO, &[ages[0], ages[1], ages[2], 0].map(u32::to_ne_bytes).concat());
}

/// RTM_GETNEIGH. `ENOENT`, `EINVAL`.
pub(super) fn get(request: &Request, reply: &mut Reply) -> Result<()> {
    if request.byte(0) == AF_BRIDGE {
        stations(reply);
        return Ok(());
    }
    let wanted = request.byte(0);
    if !request.is_dump() {
        let index = request.word(4);
        let ip = ip_of(request.attribute(NDMSG, DST).ok_or(Errno::EINVAL)?)?;
        let found = neighbour::all().into_iter().find(|n| n.ip == ip && n.interface == index).ok_or(Errno::ENOENT)?;
        reply.message(NEWNEIGH, &fixed_part(&found), |put| fill(put, &found));
        return Ok(());
    }
    let by = request.attribute_word(NDMSG, IFINDEX).unwrap_or(0);
    let master = request.attribute_word(NDMSG, MASTER).unwrap_or(0);
    for found in neighbour::all() {
        let family_fits = wanted == 0 || wanted == family(found.ip);
        let owner = || link::by_index(found.interface).map(|i| i.master.load(core::sync::atomic::Ordering::Relaxed));
        if family_fits && (by == 0 || by == found.interface) && (master == 0 || owner() == Some(master)) {
            reply.message(NEWNEIGH, &fixed_part(&found), |put| fill(put, &found));
        }
    }
    Ok(())
}

/// RTM_NEWNEIGH and RTM_DELNEIGH. `ENODEV`, `EINVAL`, `EEXIST`, `ENOENT`, `EOPNOTSUPP`.
pub(super) fn change(request: &Request, add: bool) -> Result<()> {
    request.check_len(NDMSG)?;
    if request.byte(0) == AF_BRIDGE {
        return Err(Errno::EOPNOTSUPP);
    }
    let raw = request.attribute(NDMSG, DST).ok_or(Errno::EINVAL)?;
    let index = request.word(4);
    let interface = link::by_index(index).ok_or(if index == 0 { Errno::EINVAL } else { Errno::ENODEV })?;
    let ip = ip_of(raw)?;
    if family(ip) != request.byte(0) {
        return Err(Errno::EINVAL);
    }
    if !add {
        return neighbour::remove(interface.index, ip);
    }
    let mac = request.attribute(NDMSG, LLADDR).map(|raw| raw.try_into().map_err(|_| Errno::EINVAL)).transpose()?;
    let wanted = (request.word(8) & 0xffff) as u16;
    let new = Neighbour {
        interface: interface.index,
        ip,
        mac,
        state: if wanted == 0 { state::PERMANENT } else { wanted },
        flags: request.byte(10),
        confirmed: 0,
        used: 0,
        updated: 0,
        tries: 0,
    };
    neighbour::set(&new, request.has(NLM_F_CREATE), request.has(NLM_F_EXCL))
}

/// What bridges know of stations.
fn stations(reply: &mut Reply) {
    for bridge in bridge::bridges() {
        let Medium::Bridge(inside) = &bridge.medium else { continue };
        for (mac, station) in inside.stations() {
            let fixed_state = if station.heard.is_some() { state::REACHABLE } else { state::PERMANENT };
            let mut fixed = [AF_BRIDGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
            fixed[4..8].copy_from_slice(&station.port.to_ne_bytes());
            fixed[8..10].copy_from_slice(&fixed_state.to_ne_bytes());
            reply.message(NEWNEIGH, &fixed, |put| {
                put.put(LLADDR, &mac);
                put.word(MASTER, bridge.index);
            });
        }
    }
}
