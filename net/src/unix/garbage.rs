//! Sockets that nobody can reach any more although they are referred to: those that were sent over each other, or over themselves, and closed.
//!
//! A socket is held by descriptors, and by messages under way that carry it. Whoever has a message with a socket in its inbox is a carrier. What is
//! held by more than messages is reachable; so is what lies in the inbox of something reachable. Of the rest, the inboxes are emptied: that ends it.
//!
//! No lock is held over the whole of it. That is sound since only reachable sockets are ever moved or received: what is found unreachable stays so,
//! and a socket on its way is found in the inbox that it left, or has a reference that no inbox accounts for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use fs::OpenFile;
use hal::sync::SpinLock;

use super::UnixSocket;
use crate::file::socket_of;

/// Sockets that got messages with sockets in them, and have not been looked at since those were all received.
static CARRIERS: SpinLock<Vec<Weak<UnixSocket>>> = SpinLock::new(Vec::new());
/// Somebody is at it.
static COLLECTING: AtomicBool = AtomicBool::new(false);

/// The address of the unix socket behind an open file.
fn unix_socket(open: &OpenFile) -> Option<usize> {
    let socket = socket_of(open).ok()?;
    (&**socket as &dyn core::any::Any).downcast_ref::<UnixSocket>().map(|socket| core::ptr::from_ref(socket).addr())
}

/// A message with these files is about to come into the inbox of `carrier`.
pub(super) fn note(carrier: &UnixSocket, files: &[Arc<OpenFile>]) {
    if !files.iter().any(|open| unix_socket(open).is_some()) {
        return;
    }
    let mut carriers = CARRIERS.lock();
    if !carriers.iter().any(|known| known.ptr_eq(&carrier.me)) {
        carriers.push(carrier.me.clone());
    }
}

/// What one carrier has in its inbox.
struct Carrier {
    socket: Arc<UnixSocket>,
    files: Vec<Arc<OpenFile>>,
}

fn snapshot() -> Vec<Carrier> {
    let known = CARRIERS.lock().clone();
    let look = |socket: Arc<UnixSocket>| {
        let inbox = socket.inbox.lock();
        let files = inbox.files().filter(|open| unix_socket(open).is_some()).cloned().collect();
        drop(inbox);
        Carrier { socket, files }
    };
    let carriers: Vec<_> = known.iter().filter_map(Weak::upgrade).map(look).collect();
    CARRIERS.lock().retain(|carrier| match carrier.upgrade() {
        Some(socket) => socket.inbox.lock().files().any(|open| unix_socket(open).is_some()),
        None => false,
    });
    carriers
}

/// The sockets of `carriers` that can't be reached, by address.
fn unreachable(carriers: &[Carrier]) -> BTreeSet<usize> {
    // How often messages refer to each file.
    let mut sent: BTreeMap<*const OpenFile, (usize, &Arc<OpenFile>)> = BTreeMap::new();
    for open in carriers.iter().flat_map(|carrier| &carrier.files) {
        sent.entry(Arc::as_ptr(open)).or_insert((0, open)).0 += 1;
    }
    let mut suspects = BTreeSet::new();
    for (count, open) in sent.values() {
        // Each reference of a message was copied once for the snapshot.
        if Arc::strong_count(open) <= 2 * count
            && let Some(socket) = unix_socket(open)
        {
            suspects.insert(socket);
        }
    }
    let address = |carrier: &Carrier| Arc::as_ptr(&carrier.socket).addr();
    let mut reached: Vec<&Carrier> = carriers.iter().filter(|carrier| !suspects.contains(&address(carrier))).collect();
    while let Some(carrier) = reached.pop() {
        for socket in carrier.files.iter().filter_map(|open| unix_socket(open)) {
            if suspects.remove(&socket) {
                reached.extend(carriers.iter().filter(|other| address(other) == socket));
            }
        }
    }
    suspects
}

/// Ends what nobody can reach. When a unix socket has been closed, without locks.
pub(super) fn collect() {
    if CARRIERS.lock().is_empty() || COLLECTING.swap(true, Ordering::Acquire) {
        return;
    }
    let carriers = snapshot();
    let lost = unreachable(&carriers);
    let mut messages = Vec::new();
    for carrier in carriers.iter().filter(|carrier| lost.contains(&Arc::as_ptr(&carrier.socket).addr())) {
        messages.push(carrier.socket.inbox.lock().drain());
    }
    COLLECTING.store(false, Ordering::Release);
    drop(carriers);
    drop(messages);
}
