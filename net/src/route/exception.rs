//! What routers have told about single destinations: the largest packet that gets there (RFC 1191, RFC 8201), and a better neighbour (redirects).
//! Bounded, and forgotten after ten minutes.

use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

use base::{NANOS_PER_SEC, Nanos};
use hal::sync::SpinLock;

use super::changed;
use crate::hash::{BuildKeyed, Table};

/// How long it is believed (`net.ipv4.route.mtu_expires`).
const LIFETIME: Nanos = 600 * NANOS_PER_SEC;
/// Destinations that are remembered.
const MAX: usize = 4096;
/// The least MTU that is believed for IPv4 (`net.ipv4.route.min_pmtu`).
const LEAST_V4: u32 = 552;
/// The least that every IPv6 link takes.
const LEAST_V6: u32 = 1280;

/// What is known of a destination.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The largest packet.
    pub mtu: Option<u32>,
    /// The neighbour to send to.
    pub gateway: Option<IpAddr>,
    until: Nanos,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static EXCEPTIONS: SpinLock<Table<IpAddr, Exception>> = SpinLock::new(Table::with_hasher(BuildKeyed));

/// What is known of a destination.
pub fn find(destination: IpAddr) -> Option<Exception> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let exception = EXCEPTIONS.lock().get(&destination).copied()?;
    (exception.until > sched::time::now()).then_some(exception)
}

fn note(destination: IpAddr, change: impl FnOnce(&mut Exception)) {
    let until = sched::time::now() + LIFETIME;
    let mut all = EXCEPTIONS.lock();
    if all.len() >= MAX && !all.contains_key(&destination) {
        let oldest = all.iter().min_by_key(|(_, e)| e.until).map(|(ip, _)| *ip);
        oldest.map(|ip| all.remove(&ip));
    }
    let exception = all.entry(destination).or_insert(Exception { mtu: None, gateway: None, until });
    exception.until = until;
    change(exception);
    COUNT.store(all.len(), Ordering::Relaxed);
    drop(all);
    changed();
}

/// A router on the way takes no larger packets.
pub(crate) fn note_mtu(destination: IpAddr, mtu: u32) {
    let mtu = mtu.max(if destination.is_ipv4() { LEAST_V4 } else { LEAST_V6 });
    if find(destination).and_then(|known| known.mtu).is_none_or(|known| mtu < known) {
        note(destination, |exception| exception.mtu = Some(mtu));
    }
}

/// A router knows a better one.
pub(crate) fn note_gateway(destination: IpAddr, gateway: IpAddr) {
    note(destination, |exception| exception.gateway = Some(gateway));
}

/// Forgets all (`ip route flush cache`).
pub(crate) fn clear() {
    EXCEPTIONS.lock().clear();
    COUNT.store(0, Ordering::Relaxed);
    changed();
}
