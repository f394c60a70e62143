//! Queueing disciplines: RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC (tc(8)). Only the root of an interface has one: there are no classes and filters.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Result};

use super::message::{Attributes, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Reply, Request, notification, text_of};
use super::{NETLINK_ROUTE, group, publish};
use crate::link::queue::Shown;
use crate::link::{self, Interface};

const NEWQDISC: u16 = 36;
const DELQDISC: u16 = 37;
/// Bytes of `struct tcmsg`.
const TCMSG: usize = 20;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATS: u16 = 3;
const STATS2: u16 = 7;
const ROOT: u32 = u32::MAX;
const INGRESS: u32 = 0xffff_fff1;

fn fixed_part(interface: &Interface, shown: &Shown) -> [u8; TCMSG] {
    let mut fixed = [0; TCMSG];
    fixed[4..8].copy_from_slice(&interface.index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&shown.handle.to_ne_bytes());
    fixed[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    fixed[16..20].copy_from_slice(&2u32.to_ne_bytes());
    fixed
}

fn fill(put: &mut Attributes, shown: &Shown) {
    put.text(KIND, shown.name);
    if !shown.options.is_empty() {
        put.put(OPTIONS, &shown.options);
    }
    let tally = &shown.tally;
    put.nest(STATS2, |put| {
        const BASIC: u16 = 1;
        const QUEUE: u16 = 3;
        let mut basic = tally.bytes.to_ne_bytes().to_vec();
        basic.extend_from_slice(&u64::from(tally.packets).to_ne_bytes());
        put.put(BASIC, &basic);
        let queue = [tally.waiting.0, tally.waiting.1, tally.drops, 0, tally.over_limits];
        put.put(QUEUE, &queue.map(u32::to_ne_bytes).concat());
    });
    // `struct tc_stats`.
    let mut stats = tally.bytes.to_ne_bytes().to_vec();
    let words = [tally.packets, tally.drops, tally.over_limits, 0, 0, tally.waiting.0, tally.waiting.1];
    stats.extend_from_slice(&words.map(u32::to_ne_bytes).concat());
    put.put(STATS, &stats);
}

fn announce(interface: &Interface, shown: &Shown, gone: bool) {
    let kind = if gone { DELQDISC } else { NEWQDISC };
    publish(NETLINK_ROUTE, group::TC, || notification(kind, &fixed_part(interface, shown), |put| fill(put, shown)));
}

/// RTM_GETQDISC.
pub(super) fn get(request: &Request, reply: &mut Reply) -> Result<()> {
    let index = request.word(4);
    if !request.is_dump() && link::by_index(index).is_none() {
        return Err(Errno::ENODEV);
    }
    for interface in link::all().iter().filter(|i| index == 0 || i.index == index) {
        let shown = interface.queue.show(interface);
        reply.message(NEWQDISC, &fixed_part(interface, &shown), |put| fill(put, &shown));
    }
    Ok(())
}

fn target(request: &Request) -> Result<Arc<Interface>> {
    request.check_len(TCMSG)?;
    link::by_index(request.word(4)).ok_or(Errno::ENODEV)
}

/// RTM_NEWQDISC. `EEXIST`, `ENOENT` for a discipline that is not here, `EINVAL`, `EOPNOTSUPP` below the root.
pub(super) fn set(request: &Request) -> Result<()> {
    let interface = target(request)?;
    let (handle, parent) = (request.word(8), request.word(12));
    if parent == INGRESS || parent != ROOT && parent != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let name = text_of(request.attribute(TCMSG, KIND).ok_or(Errno::EINVAL)?)?;
    let options = request.attribute(TCMSG, OPTIONS);
    let shown = interface.queue.show(&interface);
    let there = shown.handle != 0;
    if there && request.has(NLM_F_EXCL) {
        return Err(Errno::EEXIST);
    }
    let same = there && shown.name == name && (handle == 0 || handle == shown.handle);
    if !request.has(NLM_F_CREATE) || same && !request.has(NLM_F_REPLACE | NLM_F_CREATE) {
        if !same {
            return Err(if there { Errno::EINVAL } else { Errno::ENOENT });
        }
        interface.queue.change(name, options.unwrap_or_default())?;
    } else {
        let limit = interface.queue_len.load(Ordering::Relaxed) as usize;
        interface.queue.set(name, handle, options, limit)?;
    }
    announce(&interface, &interface.queue.show(&interface), false);
    Ok(())
}

/// RTM_DELQDISC. `ENOENT`, `EINVAL`.
pub(super) fn delete(request: &Request) -> Result<()> {
    let interface = target(request)?;
    let shown = interface.queue.show(&interface);
    if request.word(12) != ROOT && request.word(12) != 0 || request.word(12) == INGRESS {
        return Err(Errno::ENOENT);
    }
    if shown.handle == 0 || !interface.queue.reset() {
        return Err(Errno::ENOENT);
    }
    announce(&interface, &shown, true);
    Ok(())
}
