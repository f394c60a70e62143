//! Which socket a packet is for.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::VsockSocket;
use super::address::{ANY, Address};

/// The last port that only the privileged may bind.
pub(super) const LAST_RESERVED: u32 = 1023;
/// Ports that are tried for a socket that leaves the choice to the system.
const TRIES: u32 = 24;

/// Sockets by what they are bound to.
type Bound = BTreeMap<Address, Weak<VsockSocket>>;
/// Sockets by the far and the near end.
type Connected = BTreeMap<(Address, u32), Weak<VsockSocket>>;

static BOUND: SpinLock<Bound> = SpinLock::new(BTreeMap::new());
static CONNECTED: SpinLock<Connected> = SpinLock::new(BTreeMap::new());
/// The port that is tried next.
static NEXT: SpinLock<Option<u32>> = SpinLock::new(None);

/// Who is bound so that a packet for `address` is theirs.
fn holder(bound: &Bound, address: Address) -> Option<&Weak<VsockSocket>> {
    let mut there = bound.range(Address { cid: 0, ..address }..=Address { cid: ANY, ..address });
    there.find(|(held, _)| held.covers(address)).map(|(_, socket)| socket)
}

/// The socket that is bound to an address.
pub(super) fn bound(address: Address) -> Option<Arc<VsockSocket>> {
    holder(&BOUND.lock(), address).and_then(Weak::upgrade)
}

/// Binds a socket; the port is chosen where none is given. `EADDRINUSE`, `EADDRNOTAVAIL` where there is none to choose.
pub(super) fn bind(socket: &VsockSocket, mut address: Address) -> Result<Address> {
    let mut bound = BOUND.lock();
    if address.port != ANY {
        if holder(&bound, address).is_some() {
            return Err(Errno::EADDRINUSE);
        }
    } else {
        let mut next = NEXT.lock();
        let first = next.unwrap_or(hal::random::word() as u32);
        let ports = (0..TRIES).map(|step| match first.wrapping_add(step) {
            port @ (0..=LAST_RESERVED | ANY) => LAST_RESERVED + 1 + port % 2,
            port => port,
        });
        let free = |port: &u32| holder(&bound, Address { port: *port, ..address }).is_none();
        address.port = { ports }.find(free).ok_or(Errno::EADDRNOTAVAIL)?;
        *next = Some(address.port.wrapping_add(1));
    }
    bound.insert(address, socket.me.clone());
    Ok(address)
}

/// The socket of a connection.
pub(super) fn connected(remote: Address, local: Address) -> Option<Arc<VsockSocket>> {
    CONNECTED.lock().get(&(remote, local.port)).and_then(Weak::upgrade)
}

/// Adds a connection.
pub(super) fn connect(socket: &VsockSocket, remote: Address, local: Address) {
    CONNECTED.lock().insert((remote, local.port), socket.me.clone());
}

/// Forgets a socket.
pub(super) fn remove(socket: &VsockSocket, remote: Address, local: Address) {
    let is_it = |other: Option<&Weak<VsockSocket>>| other.is_some_and(|other| Weak::ptr_eq(other, &socket.me));
    let mut connected = CONNECTED.lock();
    if is_it(connected.get(&(remote, local.port))) {
        connected.remove(&(remote, local.port));
    }
    drop(connected);
    let mut bound = BOUND.lock();
    if is_it(bound.get(&local)) {
        bound.remove(&local);
    }
}

/// All sockets that are bound or connected, for sock_diag.
pub(super) fn all() -> Vec<Arc<VsockSocket>> {
    let mut found: Vec<Arc<VsockSocket>> = BOUND.lock().values().filter_map(Weak::upgrade).collect();
    for socket in CONNECTED.lock().values().filter_map(Weak::upgrade) {
        if !found.iter().any(|other| Arc::ptr_eq(other, &socket)) {
            found.push(socket);
        }
    }
    found
}
