//! Ports: who holds which, and whether they may be shared (SO_REUSEADDR, SO_REUSEPORT: socket(7)).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::steering::Steering;
use crate::hash::Table;

/// The ports of a protocol.
pub struct Ports {
    held: SpinLock<Option<Table<u16, Vec<Arc<Holder>>>>>,
}

/// What a binding asks for.
#[derive(Clone)]
pub struct Claim {
    /// The address; unspecified for all.
    pub ip: IpAddr,
    /// An unspecified IPv6 address does not mean IPv4 ones.
    pub v6_only: bool,
    /// The interface; 0 for all.
    pub device: u32,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// Who asks: ports are shared by SO_REUSEPORT among sockets of one user.
    pub user: u32,
    /// What chooses among those who share a port, made before the socket was bound: it cannot join others.
    pub steering: Option<Arc<Steering>>,
}

/// A port that is held, until this is dropped. Connections that a listener accepted share its binding.
pub struct Binding {
    ports: &'static Ports,
    holder: Arc<Holder>,
}

/// What a protocol knows of a [`Binding`].
pub struct Holder {
    /// The port.
    pub port: u16,
    /// As it was bound.
    pub claim: Claim,
    /// A listener is on it.
    pub listening: AtomicBool,
    /// It was chosen by the system for an outgoing connection: others may share it towards other destinations.
    pub automatic: bool,
    /// What chooses among the sockets that share the port at this address (SO_REUSEPORT).
    pub steering: Option<Arc<Steering>>,
}

impl Deref for Binding {
    type Target = Holder;

    fn deref(&self) -> &Holder {
        &self.holder
    }
}

/// Why a port was not given.
enum Refusal {
    /// Someone else has it.
    Taken,
    /// Only connections have it, which share it towards other destinations.
    Shared,
}

/// The first and the last port that the system chooses (`net.ipv4.ip_local_port_range`).
static RANGE: [AtomicU32; 2] = [AtomicU32::new(32768), AtomicU32::new(60999)];
/// Ports below are privileged (`net.ipv4.ip_unprivileged_port_start`).
static UNPRIVILEGED: AtomicU32 = AtomicU32::new(1024);

/// The first port that everyone may bind.
pub fn unprivileged() -> u32 {
    UNPRIVILEGED.load(Ordering::Relaxed)
}

/// Sets the first port that everyone may bind.
pub fn set_unprivileged(port: u32) {
    UNPRIVILEGED.store(port, Ordering::Relaxed);
}

/// The range that the system chooses from.
pub fn range() -> (u16, u16) {
    (RANGE[0].load(Ordering::Relaxed) as u16, RANGE[1].load(Ordering::Relaxed) as u16)
}

/// Sets the range that the system chooses from. `EINVAL`.
pub fn set_range(first: u16, last: u16) -> Result<()> {
    if first == 0 || first > last {
        return Err(Errno::EINVAL);
    }
    RANGE[0].store(first.into(), Ordering::Relaxed);
    RANGE[1].store(last.into(), Ordering::Relaxed);
    Ok(())
}

/// Could a packet be for both addresses?
fn overlaps(a: &Claim, b: &Claim) -> bool {
    match (a.ip, b.ip) {
        (a, b) if a.is_ipv4() == b.is_ipv4() => a == b || a.is_unspecified() || b.is_unspecified(),
        (IpAddr::V6(v6), _) => v6.is_unspecified() && !a.v6_only,
        (_, IpAddr::V6(v6)) => v6.is_unspecified() && !b.v6_only,
        _ => true,
    }
}

impl Claim {
    /// May both be held at the same time?
    fn conflicts(&self, other: &Holder, listening: bool) -> bool {
        let theirs = &other.claim;
        if self.device != 0 && theirs.device != 0 && self.device != theirs.device || !overlaps(self, theirs) {
            return false;
        }
        let listener = listening || other.listening.load(Ordering::Relaxed);
        let by_address = self.reuse_address && theirs.reuse_address && !listener;
        let by_port = self.shares(theirs) && self.steering.is_none();
        !by_address && !by_port
    }

    fn shares(&self, other: &Claim) -> bool {
        self.reuse_port && other.reuse_port && self.user == other.user
    }

    /// What chooses among those who are to get the same packets, of which there may be some already.
    fn join(&self, others: &[Arc<Holder>]) -> Option<Arc<Steering>> {
        let same = |other: &&Arc<Holder>| {
            let theirs = &other.claim;
            self.shares(theirs) && (self.ip, self.device, self.v6_only) == (theirs.ip, theirs.device, theirs.v6_only)
        };
        let fresh = || self.steering.clone().or_else(|| self.reuse_port.then(Arc::default));
        others.iter().find(same).map_or_else(fresh, |other| other.steering.clone())
    }
}

impl Default for Ports {
    fn default() -> Ports {
        Ports::new()
    }
}

impl Ports {
    /// No port is held.
    pub const fn new() -> Ports {
        Ports { held: SpinLock::new(None) }
    }

    /// Holds a port. `EADDRINUSE`.
    pub fn bind(&'static self, port: u16, claim: Claim) -> Result<Arc<Binding>> {
        self.hold(port, claim, false, false).map_err(|_| Errno::EADDRINUSE)
    }

    /// Holds a port, for a connection (`automatic`) also together with others (`sharing`).
    fn hold(
        &'static self,
        port: u16,
        claim: Claim,
        automatic: bool,
        sharing: bool,
    ) -> core::result::Result<Arc<Binding>, Refusal> {
        let mut held = self.held.lock();
        let holders = held.get_or_insert_with(Table::default).entry(port).or_default();
        if holders.iter().any(|other| claim.conflicts(other, false)) {
            let shareable = automatic && holders.iter().all(|other| other.automatic);
            match shareable {
                true if sharing => {}
                true => return Err(Refusal::Shared),
                false => return Err(Refusal::Taken),
            }
        }
        let listening = AtomicBool::new(false);
        let steering = claim.join(holders);
        let holder = Arc::new(Holder { port, claim, listening, automatic, steering });
        holders.push(holder.clone());
        Ok(Arc::new(Binding { ports: self, holder }))
    }

    /// Holds a free port of the system's choice: from a random one on, so that strangers can't guess it. For connections, `share` says
    /// whether a port that other connections have may be used, too. `EADDRINUSE`, `EADDRNOTAVAIL`.
    pub fn bind_any(
        &'static self,
        claim: Claim,
        for_connection: bool,
        share: impl Fn(u16) -> bool,
    ) -> Result<Arc<Binding>> {
        let (first, last) = range();
        let count = u32::from(last - first) + 1;
        let start = hal::random::word() as u32;
        // Even ports are left to bind(2) as long as there are odd ones, so that the two don't get in each other's way.
        for round in 0..2 {
            for step in 0..count {
                let port = first + (start.wrapping_add(step) % count) as u16;
                let odd = port % 2 == 1;
                if odd != (for_connection ^ (round == 1)) {
                    continue;
                }
                let held = match self.hold(port, claim.clone(), for_connection, false) {
                    // What `share` looks at has locks of its own.
                    Err(Refusal::Shared) if share(port) => self.hold(port, claim.clone(), for_connection, true),
                    other => other,
                };
                if let Ok(binding) = held {
                    return Ok(binding);
                }
            }
        }
        Err(if for_connection { Errno::EADDRNOTAVAIL } else { Errno::EADDRINUSE })
    }
}

impl Binding {
    /// Becomes a listener's. `EADDRINUSE` where another holder forbids that.
    pub fn listen(&self) -> Result<()> {
        let held = self.ports.held.lock();
        let mut others = held.iter().filter_map(|held| held.get(&self.port)).flatten();
        let forbids = |other: &Arc<Holder>| {
            !Arc::ptr_eq(other, &self.holder)
                && other.listening.load(Ordering::Relaxed)
                && self.claim.conflicts(other, true)
        };
        if others.any(forbids) {
            return Err(Errno::EADDRINUSE);
        }
        self.listening.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let mut held = self.ports.held.lock();
        let Some(table) = held.as_mut() else { return };
        if let Some(holders) = table.get_mut(&self.port) {
            holders.retain(|other| !Arc::ptr_eq(other, &self.holder));
            if holders.is_empty() {
                table.remove(&self.port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    static PORTS: Ports = Ports::new();

    fn claim(ip: IpAddr) -> Claim {
        Claim { ip, v6_only: false, device: 0, reuse_address: false, reuse_port: false, user: 0, steering: None }
    }

    #[test]
    fn sharing_follows_the_rules() {
        let any = claim(Ipv4Addr::UNSPECIFIED.into());
        let one = claim(Ipv4Addr::LOCALHOST.into());
        let any6 = claim(Ipv6Addr::UNSPECIFIED.into());
        let first = PORTS.bind(80, any.clone()).unwrap();
        assert!(PORTS.bind(80, one.clone()).is_err() && PORTS.bind(80, any6.clone()).is_err());
        let only6 = Claim { v6_only: true, ..any6.clone() };
        assert!(PORTS.bind(80, only6).is_ok());
        drop(first);
        let held = PORTS.bind(80, one).unwrap();
        assert!(PORTS.bind(80, claim(Ipv4Addr::new(127, 0, 0, 2).into())).is_ok());
        drop(held);

        let reuse = Claim { reuse_address: true, ..any.clone() };
        let a = PORTS.bind(81, reuse.clone()).unwrap();
        let b = PORTS.bind(81, reuse.clone()).unwrap();
        a.listen().unwrap();
        assert_eq!(b.listen(), Err(Errno::EADDRINUSE));
        assert!(PORTS.bind(81, reuse).is_err());

        let shared = Claim { reuse_port: true, ..any.clone() };
        let a = PORTS.bind(82, shared.clone()).unwrap();
        let b = PORTS.bind(82, shared.clone()).unwrap();
        assert!(a.listen().is_ok() && b.listen().is_ok());
        assert!(PORTS.bind(82, Claim { user: 7, ..shared.clone() }).is_err());
        let steering = |binding: &Binding| binding.steering.clone().unwrap();
        assert!(Arc::ptr_eq(&steering(&a), &steering(&b)));
        let own = Claim { steering: Some(Arc::default()), ..shared };
        assert!(PORTS.bind(82, own.clone()).is_err());
        let first = PORTS.bind(83, own.clone()).unwrap();
        assert!(Arc::ptr_eq(&steering(&first), &own.steering.unwrap()));
        let chosen = PORTS.bind_any(any, false, |_| false).unwrap();
        assert!((32768..=60999).contains(&chosen.port) && chosen.port.is_multiple_of(2));
    }
}
