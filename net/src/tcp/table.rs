//! Which socket a segment is for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use hal::sync::SpinLock;

use super::link::refuse;
use super::listener::{self, Request};
use super::segment::{Flags, Segment};
use super::socket::TcpSocket;
use crate::hash::{self, BuildKeyed, Table};
use crate::inet::Family;
use crate::inet::steering::{self, Payload};
use crate::ip::Header;
use crate::packet::Rope;

/// An address and a port.
pub(super) type End = (IpAddr, u16);
/// Both ends of a connection: local, remote.
pub(super) type Key = (End, End);

/// What is known of a pair of ends.
#[derive(Clone)]
pub(super) enum Entry {
    /// A connection.
    Socket(Arc<TcpSocket>),
    /// One that is being opened by the other end.
    Request(Arc<Request>),
}

const SHARDS: usize = 16;
static CONNECTIONS: [SpinLock<Table<Key, Entry>>; SHARDS] =
    [const { SpinLock::new(Table::with_hasher(BuildKeyed)) }; SHARDS];
static LISTENERS: SpinLock<Table<u16, Vec<Arc<TcpSocket>>>> = SpinLock::new(Table::with_hasher(BuildKeyed));

fn shard(key: &Key) -> &'static SpinLock<Table<Key, Entry>> {
    // The ports alone spread connections well enough over the locks; inside, the hash is keyed.
    &CONNECTIONS[usize::from(key.0.1 ^ key.1.1) % SHARDS]
}

/// Adds a connection; false if there is one with these ends.
pub(super) fn insert(key: Key, entry: Entry) -> bool {
    let mut table = shard(&key).lock();
    if table.contains_key(&key) || table.try_reserve(1).is_err() {
        return false;
    }
    table.insert(key, entry);
    true
}

/// Puts a connection in the place of the request that it came from; false if the request has gone.
pub(super) fn replace(key: Key, request: &Arc<Request>, socket: Arc<TcpSocket>) -> bool {
    let mut table = shard(&key).lock();
    let same = table.get(&key).is_some_and(|e| matches!(e, Entry::Request(r) if Arc::ptr_eq(r, request)));
    if same {
        table.insert(key, Entry::Socket(socket));
    }
    same
}

/// What is known of these ends.
pub(super) fn get(key: &Key) -> Option<Entry> {
    shard(key).lock().get(key).cloned()
}

/// Forgets a connection, if it is this one.
pub(super) fn remove(key: &Key, socket: &TcpSocket) {
    let mut table = shard(key).lock();
    let same = table.get(key).is_some_and(|e| matches!(e, Entry::Socket(s) if core::ptr::eq(Arc::as_ptr(s), socket)));
    let removed = if same { table.remove(key) } else { None };
    drop(table);
    drop(removed);
}

/// Forgets a request, if it is this one; true if it was there.
pub(super) fn remove_request(key: &Key, request: &Request) -> bool {
    let mut table = shard(key).lock();
    let same = table.get(key).is_some_and(|e| matches!(e, Entry::Request(r) if core::ptr::eq(Arc::as_ptr(r), request)));
    let removed = if same { table.remove(key) } else { None };
    drop(table);
    removed.is_some()
}

/// The connection between these ends.
pub(super) fn connected(local: End, remote: End) -> Option<Arc<TcpSocket>> {
    match get(&(local, remote))? {
        Entry::Socket(socket) => Some(socket),
        Entry::Request(_) => None,
    }
}

/// Adds a listener.
pub(super) fn listen(port: u16, socket: Arc<TcpSocket>) {
    LISTENERS.lock().entry(port).or_default().push(socket);
}

/// Removes a listener.
pub(super) fn unlisten(port: u16, socket: &TcpSocket) {
    let mut listeners = LISTENERS.lock();
    let Some(holders) = listeners.get_mut(&port) else { return };
    let at = holders.iter().position(|s| core::ptr::eq(Arc::as_ptr(s), socket));
    let removed = at.map(|at| holders.swap_remove(at));
    if holders.is_empty() {
        listeners.remove(&port);
    }
    drop(listeners);
    drop(removed);
}

/// The listener that fits best: a bound address before any, IPv4's own before both; among equals with SO_REUSEPORT as they
/// choose or by hash.
fn find_listener(local: End, remote: End, interface: u32, payload: &Rope) -> Option<Arc<TcpSocket>> {
    let listeners = LISTENERS.lock();
    let holders = listeners.get(&local.1)?;
    if let [one] = &holders[..] {
        return (score(one, local.0, interface) > 0).then(|| one.clone());
    }
    let best = holders.iter().map(|s| score(s, local.0, interface)).max()?;
    if best == 0 {
        return None;
    }
    let equal: Vec<&Arc<TcpSocket>> = holders.iter().filter(|s| score(s, local.0, interface) == best).collect();
    let options = equal.iter().map(|s| &s.options);
    let chosen = steering::select(options, &Payload(payload), hash::of_pair(local, remote, 1));
    equal.get(chosen.unwrap_or(equal.len() - 1)).map(|s| (*s).clone())
}

fn score(socket: &TcpSocket, to: IpAddr, interface: u32) -> u32 {
    let bound = socket.bound_to();
    let fits = match (bound.ip, to) {
        (b, t) if b == t => 4,
        (b, _) if !b.is_unspecified() => return 0,
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => 1,
        (IpAddr::V6(_), IpAddr::V4(_)) if !bound.v6_only => 1,
        _ => return 0,
    };
    let family = u32::from(socket.family == Family::V4);
    match bound.device {
        0 => fits + family,
        device if device == interface => fits + family + 8,
        _ => 0,
    }
}

/// Hands a received segment to its connection, request or listener; answers with a reset where there is none.
pub(super) fn receive(segment: Segment, header: &Header, ports: (u16, u16)) {
    let local = (header.destination, ports.1);
    let remote = (header.source, ports.0);
    let segment = match get(&(local, remote)) {
        Some(Entry::Socket(socket)) => match socket.on_segment(segment) {
            // A new connection in the place of one in TIME_WAIT.
            Some(syn) => syn,
            None => return,
        },
        Some(Entry::Request(request)) => {
            listener::on_request_segment(&request, segment, header, ports);
            return;
        }
        None => segment,
    };
    let wanted = !segment.has(Flags::RST) && (segment.has(Flags::SYN) || segment.has(Flags::ACK));
    let found = if wanted { find_listener(local, remote, header.interface, &segment.payload) } else { None };
    match found {
        Some(listener) => listener::on_segment(&listener, segment, header, ports),
        None => refuse(&segment, header, ports),
    }
}

/// All connections that are half open, for `/proc/net` and sock_diag.
pub(crate) fn requests() -> Vec<Arc<Request>> {
    let mut found = Vec::new();
    for shard in &CONNECTIONS {
        let table = shard.lock();
        found.extend(table.values().filter_map(|entry| match entry {
            Entry::Request(request) => Some(request.clone()),
            Entry::Socket(_) => None,
        }));
    }
    found
}

/// All connections, for `/proc/net` and sock_diag.
pub(crate) fn all() -> Vec<Arc<TcpSocket>> {
    let mut found = Vec::new();
    for shard in &CONNECTIONS {
        let table = shard.lock();
        found.extend(table.values().filter_map(|entry| match entry {
            Entry::Socket(socket) => Some(socket.clone()),
            Entry::Request(_) => None,
        }));
    }
    found
}

/// All listeners.
pub(crate) fn listeners() -> Vec<Arc<TcpSocket>> {
    LISTENERS.lock().values().flatten().cloned().collect()
}
