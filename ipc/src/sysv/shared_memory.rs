//! Shared memory segments: shmget(2), shmat(2), shmdt(2).
//!
//! A segment's pages are those of a page cache that only its mappings know. It counts its attachments by the references that mappings
//! hold; one that was removed goes with the last of them.

use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use abi::PAGE_SIZE;
use base::{Capability, Errno, Result};
use hal::sync::SpinLock;
use mm::{AddressSpace, Backing, MapRequest, Mappable, PageCache, Prot};

use super::registry::{Entry, READ, Stamp, WRITE};
use super::{Caller, Namespace};

/// What shmmax and shmall are when nobody sets them.
pub const MAX_DEFAULT: u64 = u64::MAX - (1 << 24);
/// SHM_DEST, in the mode: goes with the last attachment.
const DESTROYED: u32 = 0o1000;
/// SHM_LOCKED, in the mode.
const LOCKED: u32 = 0o2000;

/// SHM_HUGETLB of shmget(2).
const HUGE: i32 = 0o4000;
/// SHM_RDONLY of shmat(2).
const READ_ONLY: i32 = 0o10000;
/// SHM_RND.
const ROUND: i32 = 0o20000;
/// SHM_REMAP.
const REMAP: i32 = 0o40000;
/// SHM_EXEC.
const EXECUTE: i32 = 0o100_000;

/// A segment.
pub struct Segment {
    /// Its size in bytes, as it was asked for.
    pub size: usize,
    pages: Arc<PageCache>,
    attachments: SpinLock<Vec<Weak<Attachment>>>,
    /// When it was last attached.
    pub attached: Stamp,
    /// When it was last detached.
    pub detached: Stamp,
    /// Who made it.
    pub creator: i32,
    /// Who attached or detached it last.
    pub last_user: AtomicI32,
}

/// What the mappings of one shmat(2) hold.
pub struct Attachment {
    namespace: &'static Namespace,
    entry: Arc<Entry<Segment>>,
    writable: bool,
    /// It did not come to be a mapping.
    void: AtomicBool,
}

impl Mappable for Attachment {
    fn page_cache(&self) -> Option<Arc<PageCache>> {
        Some(self.entry.object.pages.clone())
    }

    fn describe(&self) -> (u32, u32, u64, Vec<u8>) {
        let name = format!("/SYSV{:08x} (deleted)", self.entry.permission().key);
        (0, 1, self.entry.id as u64, name.into_bytes())
    }

    fn may_write(&self) -> bool {
        self.writable
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let segment = &self.entry.object;
        if !self.void.load(Ordering::Relaxed) {
            segment.detached.touch();
        }
        let last = {
            let mut attachments = segment.attachments.lock();
            attachments.retain(|other| other.strong_count() > 0);
            attachments.is_empty()
        };
        if last && self.entry.permission().mode & DESTROYED != 0 {
            self.namespace.segments.remove(&self.entry);
        }
    }
}

impl Segment {
    /// How many mappings there are of it.
    pub fn attachments(&self) -> usize {
        self.attachments.lock().iter().map(Weak::strong_count).sum()
    }

    /// Pages in memory.
    pub fn resident(&self) -> usize {
        self.pages.pages()
    }

    /// Pages when all are in memory.
    pub fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE) as u64
    }
}

/// Pages of all segments.
pub fn total_pages(namespace: &Namespace) -> u64 {
    namespace.segments.all().iter().map(|entry| entry.object.pages()).sum()
}

/// shmget(2). `EINVAL` (size), `ENOSPC`, `ENOMEM`, `EPERM` (huge pages), and as [`super::registry::Registry::get`].
pub fn get(namespace: &Namespace, caller: Caller, key: i32, size: usize, flags: i32) -> Result<i32> {
    let limits = &namespace.limits;
    let fits = |segment: &Segment| if size <= segment.size { Ok(()) } else { Err(Errno::EINVAL) };
    let used = total_pages(namespace);
    let make = || {
        if size == 0 || size as u64 > limits.shm_max.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        let rounded = size.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::ENOSPC)?;
        let all = used.saturating_add((rounded / PAGE_SIZE) as u64);
        if all > limits.shm_all.load(Ordering::Relaxed) {
            return Err(Errno::ENOSPC);
        }
        if flags & HUGE != 0 {
            // No huge pages are set aside, as on a Linux where nobody did.
            return Err(if caller.cred.capable(Capability::IpcLock) { Errno::ENOMEM } else { Errno::EPERM });
        }
        let pages = PageCache::new();
        pages.resize(rounded as u64)?;
        Ok(Segment {
            size,
            pages,
            attachments: SpinLock::new(Vec::new()),
            attached: Stamp::default(),
            detached: Stamp::default(),
            creator: caller.pid,
            last_user: AtomicI32::new(0),
        })
    };
    namespace.segments.get(caller, key, flags, limits.shm_count.load(Ordering::Relaxed), fits, make)
}

/// Where shmat(2) maps: at an address, or (0) anywhere. `EINVAL`.
fn place(addr: usize, flags: i32) -> Result<usize> {
    let aligned = addr & !(PAGE_SIZE - 1);
    match () {
        () if addr == 0 && flags & REMAP != 0 => Err(Errno::EINVAL),
        () if addr == aligned => Ok(addr),
        () if flags & ROUND == 0 || aligned == 0 && flags & REMAP != 0 => Err(Errno::EINVAL),
        () => Ok(aligned),
    }
}

/// shmat(2): the address. `EINVAL`, `EACCES`, `EIDRM`, `ENOMEM`.
pub fn attach(
    namespace: &'static Namespace,
    caller: Caller,
    space: &AddressSpace,
    id: i32,
    addr: usize,
    flags: i32,
) -> Result<usize> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let addr = place(addr, flags)?;
    let entry = namespace.segments.find(id)?;
    let writable = flags & READ_ONLY == 0;
    let (mut prot, mut wanted) = if writable { (Prot::READ | Prot::WRITE, READ | WRITE) } else { (Prot::READ, READ) };
    if flags & EXECUTE != 0 {
        prot |= Prot::EXEC;
        wanted |= 0o111;
    }
    entry.permission().check(caller, wanted)?;
    let attachment = Arc::new(Attachment { namespace, entry: entry.clone(), writable, void: AtomicBool::new(true) });
    let segment = &entry.object;
    {
        let mut attachments = segment.attachments.lock();
        attachments.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        attachments.push(Arc::downgrade(&attachment));
    }
    let len = segment.size.next_multiple_of(PAGE_SIZE);
    let remap = addr != 0 && flags & REMAP != 0;
    let request = MapRequest {
        addr,
        shared: true,
        fixed: remap,
        no_replace: addr != 0 && !remap,
        backing: Backing::File { file: attachment.clone(), offset: 0 },
        ..MapRequest::anonymous(len, prot)
    };
    let mapped = space.map(request).map_err(|error| if error == Errno::EEXIST { Errno::EINVAL } else { error })?;
    attachment.void.store(false, Ordering::Relaxed);
    segment.attached.touch();
    segment.last_user.store(caller.pid, Ordering::Relaxed);
    Ok(mapped)
}

/// shmdt(2): unmaps what is left of the attachment that began at `addr`. `EINVAL`.
pub fn detach(caller: Caller, space: &AddressSpace, addr: usize) -> Result<()> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let mut found: Option<Arc<Entry<Segment>>> = None;
    let mut parts = Vec::new();
    space.for_each_mapping(addr, |mapping| {
        if let Backing::File { file, offset } = &mapping.backing
            && let Some(attachment) = file.as_any().downcast_ref::<Attachment>()
            && mapping.start.checked_sub(*offset as usize) == Some(addr)
            && found.as_ref().is_none_or(|entry| Arc::ptr_eq(entry, &attachment.entry))
        {
            found = Some(attachment.entry.clone());
            parts.push((mapping.start, mapping.end - mapping.start));
        }
        true
    });
    let entry = found.ok_or(Errno::EINVAL)?;
    for (start, len) in parts {
        space.unmap(start, len)?;
    }
    entry.object.detached.touch();
    entry.object.last_user.store(caller.pid, Ordering::Relaxed);
    Ok(())
}

/// IPC_RMID: at once, or with the last attachment.
pub fn remove(namespace: &Namespace, entry: &Entry<Segment>) {
    if entry.object.attachments() == 0 {
        namespace.segments.remove(entry);
        return;
    }
    entry.permission.lock().mode |= DESTROYED;
    namespace.segments.make_private(entry);
    // The last may have gone meanwhile.
    if entry.object.attachments() == 0 {
        namespace.segments.remove(entry);
    }
}

/// SHM_LOCK and SHM_UNLOCK. There is no swap, so this only shows in the mode. `EPERM`; `may_lock` is whether RLIMIT_MEMLOCK is not 0.
pub fn set_locked(entry: &Entry<Segment>, caller: Caller, lock: bool, may_lock: bool) -> Result<()> {
    let mut permission = entry.permission.lock();
    if !caller.cred.capable(Capability::IpcLock) {
        let owner = caller.cred.euid == permission.uid || caller.cred.euid == permission.cuid;
        if !owner || lock && !may_lock {
            return Err(Errno::EPERM);
        }
    }
    if lock {
        permission.mode |= LOCKED;
    } else {
        permission.mode &= !LOCKED;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_rounded_only_on_request() {
        assert_eq!(place(0, 0), Ok(0));
        assert_eq!(place(0x5000, 0), Ok(0x5000));
        assert_eq!(place(0x5001, 0), Err(Errno::EINVAL));
        assert_eq!(place(0x5fff, ROUND), Ok(0x5000));
        assert_eq!(place(0, REMAP), Err(Errno::EINVAL));
        assert_eq!(place(12, ROUND | REMAP), Err(Errno::EINVAL));
    }
}
