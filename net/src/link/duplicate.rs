//! Duplicate address detection (RFC 4862, 5.4): a new IPv6 address is not used before those on the link had time to say that it is theirs. Questions
//! carry a nonce, so that one that the link throws back is known for our own (RFC 7527).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use base::{NANOS_PER_SEC, Nanos};
use hal::sync::{Once, SpinLock};

use super::conf::{ALL, V6};
use super::interface::{Address, DAD_FAILED, NO_DAD, PERMANENT, TENTATIVE};
use super::{Interface, by_index, discovery, flag};
use crate::alarm::{Alarm, Rings};
use crate::{backlog, netlink, route};

/// How long others have to answer (RetransTimer of RFC 4861).
const PATIENCE: Nanos = NANOS_PER_SEC;

/// What makes a question ours.
pub(super) type Nonce = [u8; 6];

/// An address that is being asked for.
struct Probe {
    interface: u32,
    ip: Ipv6Addr,
    nonce: Nonce,
    /// Questions that are still to be sent.
    left: i32,
    due: Nanos,
}

static PROBES: SpinLock<Vec<Probe>> = SpinLock::new(Vec::new());

#[derive(Default)]
struct Clock {
    alarm: Alarm,
}

static CLOCK: Once<Arc<Clock>> = Once::new();

fn set_clock(at: Nanos) {
    let clock = CLOCK.get_or_init(|| Arc::new(Clock::default()));
    clock.alarm.set(Some(at), || Some(clock.clone()));
}

/// Does an address have to be asked for, on this interface?
pub(super) fn concerns(interface: &Interface, address: &Address) -> bool {
    let on = interface.conf.v6(V6::AcceptDad) > 0 || ALL.v6(V6::AcceptDad) > 0;
    address.ip.is_ipv6()
        && address.flags & NO_DAD == 0
        && on
        && interface.is_framed()
        && interface.flags() & flag::NOARP == 0
}

/// Begins to ask.
pub(super) fn start(interface: &Interface, ip: IpAddr) {
    let IpAddr::V6(ip) = ip else { return };
    let random = hal::random::word().to_ne_bytes();
    let nonce = [random[0], random[1], random[2], random[3], random[4], random[5]];
    let now = sched::time::now();
    let left = interface.conf.v6(V6::DadTransmits);
    PROBES.lock().push(Probe { interface: interface.index, ip, nonce, left, due: now });
    set_clock(now);
}

/// A message names `target` as somebody's address, or as one that somebody wants (`nonce`: with what the question carries). True if we are
/// still asking for it: then nobody is answered.
pub(super) fn hear(interface: &Interface, target: Ipv6Addr, question: Option<Option<Nonce>>) -> bool {
    let mut probes = PROBES.lock();
    let Some(at) = probes.iter().position(|probe| probe.interface == interface.index && probe.ip == target) else {
        return false;
    };
    if question.flatten() == Some(probes[at].nonce) {
        return true;
    }
    probes.remove(at);
    drop(probes);
    log::warn!("{}: the address {target} is in use by another machine", interface.name());
    fail(interface, target.into());
    true
}

/// The address belongs to somebody else: one that was given by hand stays as a sign, others go.
fn fail(interface: &Interface, ip: IpAddr) {
    let Some(found) = interface.change_flags(ip, DAD_FAILED, 0) else { return };
    if found.flags & PERMANENT == 0 {
        // Somebody else may have removed it.
        let _ = interface.remove_address(ip, found.prefix);
    } else {
        netlink::address::announce(interface, &found, false);
    }
}

/// Nobody has objected.
fn succeed(interface: &Interface, ip: IpAddr) {
    let Some(address) = interface.change_flags(ip, 0, TENTATIVE) else { return };
    route::table::on_own_address(interface, &address, true);
    route::changed();
    netlink::address::announce(interface, &address, false);
    if route::is_link_local(ip) {
        discovery::solicit_routers(interface);
    }
}

impl Rings for Clock {
    fn ring(self: Arc<Self>, now: Nanos) {
        self.alarm.rung(now);
        let (mut asked, mut done) = (Vec::new(), Vec::new());
        let mut probes = PROBES.lock();
        probes.retain_mut(|probe| {
            let Some(interface) = by_index(probe.interface).filter(|i| i.is_tentative(probe.ip.into())) else {
                return false;
            };
            if probe.due > now {
                return true;
            }
            probe.due = now + PATIENCE;
            // A link that is not there yet answers nothing.
            if !interface.has_carrier() {
                return true;
            }
            if probe.left <= 0 {
                done.push((interface, probe.ip));
                return false;
            }
            probe.left -= 1;
            asked.push((interface, probe.ip, probe.nonce));
            true
        });
        let next = probes.iter().map(|probe| probe.due).min();
        drop(probes);
        if let Some(next) = next {
            set_clock(next);
        }
        asked.iter().for_each(|(interface, ip, nonce)| discovery::ask_for(interface, *ip, *nonce));
        done.iter().for_each(|(interface, ip)| succeed(interface, (*ip).into()));
        backlog::run();
    }
}
