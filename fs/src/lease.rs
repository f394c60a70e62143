//! File leases (fcntl F_SETLEASE): whoever holds one is told before others open the file in a way that conflicts, and they wait until it
//! is given up.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Capability, Errno, Events, Result};
use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use crate::async_notify::{self, OwnerCell};
use crate::{Access, Fd, FileKind, FsContext, Inode, LockKind, OpenFile, OpenFlags};

/// Seconds that a holder has to give a lease up (`fs.lease-break-time`).
pub static BREAK_SECONDS: AtomicU64 = AtomicU64::new(45);

struct Lease {
    /// The open file that holds it.
    open: u64,
    owner: OwnerCell,
    fd: Fd,
    kind: LockKind,
    /// It is to become this (`None`: to go), and does at that moment if the holder does nothing.
    breaking: Option<(Option<LockKind>, u64)>,
}

impl Lease {
    fn conflicts(&self, writes: bool) -> bool {
        self.kind == LockKind::Write || writes
    }

    /// Ends what should have been given up by now; true if that takes the lease away.
    fn is_over(&mut self, now: u64) -> bool {
        match self.breaking {
            Some((to, at)) if at <= now => {
                self.breaking = None;
                match to {
                    Some(kind) => self.kind = kind,
                    None => return true,
                }
                false
            }
            _ => false,
        }
    }
}

/// The leases on one file.
pub struct Leases {
    list: SpinLock<Vec<Lease>>,
    waiters: WaitQueue,
}

impl Leases {
    pub(crate) const fn new() -> Leases {
        Leases { list: SpinLock::new(Vec::new()), waiters: WaitQueue::new() }
    }

    /// The lease of an open file goes, if it has one.
    pub(crate) fn release(&self, open: u64) -> bool {
        let mut list = self.list.lock();
        let before = list.len();
        list.retain(|lease| lease.open != open);
        let gone = list.len() < before;
        drop(list);
        if gone {
            self.waiters.wake_all();
        }
        gone
    }

    /// Tells the holders of leases that an opening for reading (or for writing) conflicts with; true if there are any.
    fn demand(&self, writes: bool) -> bool {
        let now = sched::time::now();
        let deadline = match BREAK_SECONDS.load(Ordering::Relaxed) {
            // As on Linux: they have all the time they want.
            0 => u64::MAX / 2,
            seconds => now + seconds * 1_000_000_000,
        };
        let mut list = self.list.lock();
        list.retain_mut(|lease| !lease.is_over(now));
        for lease in list.iter_mut().filter(|lease| lease.conflicts(writes)) {
            let to = if writes { None } else { Some(LockKind::Read) };
            match &mut lease.breaking {
                Some((wanted, _)) if wanted.is_none() || !writes => continue,
                breaking => *breaking = Some((to, deadline)),
            }
            async_notify::post(&lease.owner, lease.fd, Events::IN | Events::MSG);
        }
        list.iter().any(|lease| lease.conflicts(writes))
    }

    /// When the first lease in the way ends by itself; `None` if none is in the way.
    fn obstacle(&self, writes: bool) -> Option<u64> {
        let now = sched::time::now();
        let mut list = self.list.lock();
        list.retain_mut(|lease| !lease.is_over(now));
        list.iter().filter(|lease| lease.conflicts(writes)).map(|lease| lease.breaking.map_or(now, |(_, at)| at)).min()
    }
}

/// What opening or truncating a file does first: waits for leases in the way to be given up. `EAGAIN` if it must not wait, `ERESTARTSYS`.
pub(crate) fn break_leases(inode: &Inode, writes: bool, flags: OpenFlags) -> Result<()> {
    let Some(leases) = inode.leases() else { return Ok(()) };
    if !leases.demand(writes) {
        return Ok(());
    }
    if flags.contains(OpenFlags::NONBLOCK) {
        return Err(Errno::EAGAIN);
    }
    while let Some(deadline) = leases.obstacle(writes) {
        let gone = || leases.obstacle(writes).is_none().then_some(());
        match leases.waiters.wait_until(Sleep::Interruptible, Some(deadline), gone) {
            Ok(()) => {}
            Err(error) if Errno::from(error) == Errno::ETIMEDOUT => drop(leases.demand(writes)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// F_GETLEASE: what is held through the open file, or what it is to become.
pub fn get(open: &OpenFile) -> Option<LockKind> {
    let list = open.inode().leases()?.list.lock();
    let lease = list.iter().find(|lease| lease.open == open.id())?;
    lease.breaking.map_or(Some(lease.kind), |(to, _)| to)
}

/// F_SETLEASE: takes a lease through the open file, whose descriptor is `fd`, or gives it up. `EACCES` on another's file without
/// CAP_LEASE, `EINVAL` for what is no regular file, `EAGAIN` where others have it open in a way that conflicts, or there is none to give
/// up; `ENOMEM`.
pub fn set(cx: &FsContext, open: &OpenFile, fd: Fd, kind: Option<LockKind>) -> Result<()> {
    let inode = open.inode();
    if cx.cred.fsuid != inode.uid() && !cx.cred.capable(Capability::Lease) {
        return Err(Errno::EACCES);
    }
    if inode.kind() != FileKind::Regular {
        return Err(Errno::EINVAL);
    }
    let Some(kind) = kind else {
        let gone = inode.leases().is_some_and(|leases| leases.release(open.id()));
        return if gone { Ok(()) } else { Err(Errno::EAGAIN) };
    };
    let leases = inode.leases_or_new();
    let owner = async_notify::owned(open)?;
    let mut list = leases.list.lock();
    list.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    let writes = open.access().contains(Access::WRITE);
    let (own_reader, own_writer) = (i32::from(!writes), i32::from(writes));
    let used = match kind {
        LockKind::Read => inode.writers() > 0,
        LockKind::Write => inode.writers() != own_writer || inode.readers() != own_reader,
    };
    let of_others =
        list.iter().any(|lease| lease.open != open.id() && (kind == LockKind::Write || lease.breaking.is_some()));
    if used || of_others {
        return Err(Errno::EAGAIN);
    }
    match list.iter_mut().find(|lease| lease.open == open.id()) {
        Some(own) => (own.kind, own.breaking) = (kind, None),
        None => list.push(Lease { open: open.id(), owner, fd, kind, breaking: None }),
    }
    drop(list);
    leases.waiters.wake_all();
    Ok(())
}
