//! VLANs (IEEE 802.1Q): interfaces on another one, whose frames carry a tag there.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};

use base::{Errno, Result};

use super::{Interface, Medium, Plan, add, all, ethernet, flag};
use crate::packet::Packet;

/// The EtherType of 802.1Q.
pub(crate) const TYPE: u16 = 0x8100;
/// The EtherType of 802.1ad.
pub(crate) const TYPE_AD: u16 = 0x88a8;
const TAG: usize = 4;
/// Interfaces of this kind that lie on each other.
const NESTED_MAX: usize = 8;

/// How many there are, so that frames pass quickly while there are none.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One on another interface.
pub struct Vlan {
    lower: Weak<Interface>,
    /// The number in its frames.
    pub id: u16,
    /// The EtherType of its tags.
    pub kind: u16,
}

impl Drop for Vlan {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

fn depth(interface: &Arc<Interface>) -> usize {
    match &interface.medium {
        Medium::Vlan(vlan) => 1 + vlan.lower().map_or(0, |lower| depth(&lower)),
        _ => 0,
    }
}

/// Makes one. `EEXIST` where that number is taken, `ERANGE` for a number that is none, `EOPNOTSUPP` on what has no frames.
pub fn create(plan: Plan, lower: &Arc<Interface>, id: u16, kind: u16) -> Result<Arc<Interface>> {
    if id > 4094 {
        return Err(Errno::ERANGE);
    }
    if !lower.is_framed() {
        return Err(Errno::EOPNOTSUPP);
    }
    if depth(lower) >= NESTED_MAX {
        return Err(Errno::EBUSY);
    }
    if find(lower.index, id, kind).is_some() {
        return Err(Errno::EEXIST);
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    let vlan = Vlan { lower: Arc::downgrade(lower), id, kind };
    let flags = lower.flags() & (flag::BROADCAST | flag::MULTICAST);
    add(Plan { medium: Medium::Vlan(vlan), lower: lower.index, flags, ..plan })
}

fn find(lower: u32, id: u16, kind: u16) -> Option<Arc<Interface>> {
    all()
        .into_iter()
        .find(|i| i.lower == lower && matches!(&i.medium, Medium::Vlan(vlan) if vlan.id == id && vlan.kind == kind))
}

impl Vlan {
    /// The interface that it lies on.
    pub fn lower(&self) -> Option<Arc<Interface>> {
        self.lower.upgrade()
    }

    pub(super) fn send(&self, mut packet: Box<Packet>) {
        let Some(lower) = self.lower() else { return };
        if !packet.ensure(ethernet::HEADER) {
            return;
        }
        let Some(addresses) = packet.head().first_chunk::<12>().copied() else { return };
        let Ok(head) = packet.push(TAG) else { return };
        head.fill(0);
        let head = packet.head_mut();
        head[..12].copy_from_slice(&addresses);
        head[12..14].copy_from_slice(&self.kind.to_be_bytes());
        head[14..16].copy_from_slice(&self.id.to_be_bytes());
        packet.link += TAG as u8;
        lower.send(packet);
    }
}

/// A frame with a tag goes to the interface that it names; back if there is none.
pub(super) fn input(mut packet: Box<Packet>, interface: &Arc<Interface>) -> Option<Box<Packet>> {
    let kind = ethernet::frame_type(&packet);
    if !matches!(kind, TYPE | TYPE_AD) || COUNT.load(Ordering::Relaxed) == 0 || !packet.ensure(ethernet::HEADER + TAG) {
        return Some(packet);
    }
    let head = packet.head();
    let id = u16::from_be_bytes([head[14], head[15]]) & 0xfff;
    let upper = find(interface.index, id, kind);
    if upper.is_none() && id != 0 {
        return Some(packet);
    }
    let Some(addresses) = head.first_chunk::<12>().copied() else { return Some(packet) };
    packet.pull(TAG);
    packet.head_mut()[..12].copy_from_slice(&addresses);
    match upper {
        Some(upper) => upper.receive(packet),
        // A tag with the number 0 tells a priority only.
        None => return Some(packet),
    }
    None
}
