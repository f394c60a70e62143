//! Groups of packet sockets that share packets among them (PACKET_FANOUT).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use bpf::Program;
use hal::sync::SpinLock;

use super::{PacketSocket, rollover};
use crate::filter::View;
use crate::packet::{Addressed, Packet};

/// Sockets of one group where the first does not say how many, and the most that it may say.
const MEMBERS: usize = 256;
const MEMBERS_MAX: usize = 1 << 16;

/// How a group chooses.
const HASH: u8 = 0;
const BALANCE: u8 = 1;
const CPU: u8 = 2;
const ROLLOVER: u8 = 3;
const RANDOM: u8 = 4;
const QUEUE: u8 = 5;
const PROGRAM: u8 = 6;

/// Flags of a group.
const ROLLS_OVER: u16 = 0x1000;
const UNIQUE: u16 = 0x2000;
const IGNORES_OUTGOING: u16 = 0x4000;

/// A group.
pub(super) struct Group {
    id: u16,
    kind: u8,
    flags: u16,
    most: usize,
    members: SpinLock<Vec<Weak<PacketSocket>>>,
    next: AtomicU32,
    program: SpinLock<Option<Arc<Program>>>,
}

static GROUPS: SpinLock<Vec<Weak<Group>>> = SpinLock::new(Vec::new());

/// Puts a socket into a group, which is made if it is not there; of `most` members, 0 for what is usual. `EINVAL` where the group is of another
/// kind, `EALREADY`, `ENOSPC`.
pub(super) fn join(socket: &PacketSocket, id: u16, kind: u8, flags: u16, most: usize) -> Result<()> {
    if !matches!(kind, HASH..=PROGRAM) || kind == ROLLOVER && flags & ROLLS_OVER != 0 {
        return Err(Errno::EINVAL);
    }
    let mut own = socket.group.lock();
    if own.is_some() {
        return Err(Errno::EALREADY);
    }
    if socket.binding.lock().protocol == 0 {
        return Err(Errno::EINVAL);
    }
    let mut groups = GROUPS.lock();
    groups.retain(|group| group.strong_count() > 0);
    let alive: Vec<Arc<Group>> = groups.iter().filter_map(Weak::upgrade).collect();
    let id = if flags & UNIQUE != 0 {
        if id != 0 {
            return Err(Errno::EINVAL);
        }
        (1..=u16::MAX).find(|id| alive.iter().all(|group| group.id != *id)).ok_or(Errno::ENOMEM)?
    } else {
        id
    };
    let group = match alive.into_iter().find(|group| group.id == id) {
        Some(group) if group.kind != kind || group.flags != flags & !UNIQUE => return Err(Errno::EINVAL),
        Some(group) if most != 0 && group.most != most => return Err(Errno::EINVAL),
        None if most > MEMBERS_MAX => return Err(Errno::EINVAL),
        Some(group) => group,
        None => {
            let group = Arc::new(Group {
                id,
                kind,
                flags: flags & !UNIQUE,
                most: if most == 0 { MEMBERS } else { most },
                members: SpinLock::new(Vec::new()),
                next: AtomicU32::new(0),
                program: SpinLock::new(None),
            });
            groups.push(Arc::downgrade(&group));
            group
        }
    };
    drop(groups);
    let mut members = group.members.lock();
    if members.len() >= group.most {
        return Err(Errno::ENOSPC);
    }
    members.push(socket.me.clone());
    drop(members);
    *own = Some(group);
    Ok(())
}

impl Group {
    /// What PACKET_FANOUT gives back: number, kind and flags.
    pub(super) fn describe(&self) -> u32 {
        u32::from(self.id) | u32::from(self.kind) << 16 | u32::from(self.flags) << 16
    }

    /// Sets the program that chooses. `EINVAL` where the group does not choose by one.
    pub(super) fn set_program(&self, program: Program) -> Result<()> {
        if self.kind != PROGRAM {
            return Err(Errno::EINVAL);
        }
        *self.program.lock() = Some(Arc::new(program));
        Ok(())
    }

    pub(super) fn leave(&self, socket: &PacketSocket) {
        self.members.lock().retain(|member| !Weak::ptr_eq(member, &socket.me));
    }

    /// Does another socket take what one has no room for?
    pub(super) fn rolls_over(&self) -> bool {
        self.kind == ROLLOVER || self.flags & ROLLS_OVER != 0
    }

    /// The socket that gets a packet.
    pub(super) fn choose(&self, packet: &Packet) -> Option<Arc<PacketSocket>> {
        if self.flags & IGNORES_OUTGOING != 0 && packet.addressed == Addressed::Outgoing {
            return None;
        }
        let members: Vec<Arc<PacketSocket>> = self.members.lock().iter().filter_map(Weak::upgrade).collect();
        let count = u32::try_from(members.len()).ok().filter(|&count| count > 0)?;
        let number = match self.kind {
            HASH => ((u64::from(packet.flow_hash()) * u64::from(count)) >> 32) as u32,
            BALANCE => self.next.fetch_add(1, Ordering::Relaxed),
            CPU => hal::cpu::id() as u32,
            RANDOM => hal::random::word() as u32,
            QUEUE | ROLLOVER => 0,
            _ => {
                let program = self.program.lock().clone();
                program.map_or(0, |program| program.run(&View { packet, skip: 0, before: &[] }))
            }
        };
        let mut at = (number % count) as usize;
        if self.rolls_over() {
            at = rollover::choose(&members, at, self.kind == ROLLOVER, packet);
        }
        members.get(at).cloned()
    }
}
