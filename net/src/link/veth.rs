//! Pairs of interfaces that are joined as by a cable: what one sends, the other receives (veth(4)).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};

use base::Result;
use hal::sync::Once;

use super::{Interface, Medium, Plan, add, flag, random_mac, take_out};
use crate::backlog;
use crate::packet::Packet;

/// One end.
#[derive(Default)]
pub struct Veth {
    peer: Once<Weak<Interface>>,
}

/// The name, index, hardware address and MTU that an end is to have; where they are missing, its own.
pub struct End {
    /// The name.
    pub name: Option<String>,
    /// The index; 0 for the next.
    pub index: u32,
    /// The hardware address.
    pub mac: Option<[u8; 6]>,
    /// The MTU.
    pub mtu: Option<u32>,
}

fn make(end: End) -> Result<Arc<Interface>> {
    add(Plan {
        name: end.name.unwrap_or_else(|| "veth%d".into()),
        index: end.index,
        mac: end.mac.unwrap_or_else(random_mac),
        medium: Medium::Veth(Veth::default()),
        mtu: end.mtu.unwrap_or(1500),
        flags: flag::BROADCAST | flag::MULTICAST,
        lower: 0,
    })
}

/// Makes a pair; the first of it. `EEXIST` and other errors of [`add`].
pub fn create(first: End, second: End) -> Result<Arc<Interface>> {
    // The peer is made first, as on Linux: it gets the lower number.
    let second = make(second)?;
    let first = make(first).inspect_err(|_| take_out(&second))?;
    for (one, other) in [(&first, &second), (&second, &first)] {
        if let Medium::Veth(veth) = &one.medium {
            // Each was just made: nobody has joined it.
            let _ = veth.peer.set(Arc::downgrade(other));
        }
    }
    Ok(first)
}

impl Veth {
    /// The other end, while it is there.
    pub fn peer(&self) -> Option<Arc<Interface>> {
        self.peer.get()?.upgrade()
    }

    pub(super) fn send(&self, interface: &Interface, mut packet: Box<Packet>) {
        let Some(peer) = self.peer().filter(|peer| peer.is_up()) else {
            interface.counts.dropped();
            return;
        };
        packet.interface = peer.index;
        packet.hops = 0;
        if !backlog::push(packet) {
            interface.counts.dropped();
        }
    }
}
