//! io_uring_register(2).

use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, Nanos, Result};
use fs::{Fd, OpenFile};
use hal::user::{UserBuf, UserPtr, copy_in, copy_out};
use ipc::io_uring::abi::{Setup, op};
use ipc::io_uring::resources::{Resource, Table};
use process::Resource as Limit;

use super::cancel::{self, Wanted};
use super::notice;
use super::ring::{Restrictions, Ring, Tags};
use super::run::address;
use super::workers::Workers;
use crate::args::Args;
use crate::context::Context;
use crate::timespec::Timespec;

/// IORING_REGISTER_*.
mod code {
    pub(super) const BUFFERS: u32 = 0;
    pub(super) const UNREGISTER_BUFFERS: u32 = 1;
    pub(super) const FILES: u32 = 2;
    pub(super) const UNREGISTER_FILES: u32 = 3;
    pub(super) const EVENTFD: u32 = 4;
    pub(super) const UNREGISTER_EVENTFD: u32 = 5;
    pub(super) const FILES_UPDATE: u32 = 6;
    pub(super) const EVENTFD_ASYNC: u32 = 7;
    pub(super) const PROBE: u32 = 8;
    pub(super) const PERSONALITY: u32 = 9;
    pub(super) const UNREGISTER_PERSONALITY: u32 = 10;
    pub(super) const RESTRICTIONS: u32 = 11;
    pub(super) const ENABLE_RINGS: u32 = 12;
    pub(super) const FILES2: u32 = 13;
    pub(super) const FILES_UPDATE2: u32 = 14;
    pub(super) const BUFFERS2: u32 = 15;
    pub(super) const BUFFERS_UPDATE: u32 = 16;
    pub(super) const IOWQ_AFF: u32 = 17;
    pub(super) const UNREGISTER_IOWQ_AFF: u32 = 18;
    pub(super) const IOWQ_MAX_WORKERS: u32 = 19;
    pub(super) const RING_FDS: u32 = 20;
    pub(super) const UNREGISTER_RING_FDS: u32 = 21;
    pub(super) const PBUF_RING: u32 = 22;
    pub(super) const UNREGISTER_PBUF_RING: u32 = 23;
    pub(super) const SYNC_CANCEL: u32 = 24;
    pub(super) const FILE_ALLOC_RANGE: u32 = 25;
    pub(super) const PBUF_STATUS: u32 = 26;
    pub(super) const LAST: u32 = 27;
    /// The ring is named by its registered index.
    pub(super) const USE_REGISTERED_RING: u32 = 1 << 31;
}

/// The most registered files and buffers.
const FILES_MAX: u32 = 1 << 20;
const BUFFERS_MAX: u32 = 1 << 14;
/// The most bytes of a registered buffer.
const BUFFER_MAX: usize = 1 << 30;
/// IORING_REGISTER_FILES_SKIP: leave the slot as it is.
const SKIP: Fd = -2;
/// The most rings that a thread registers.
const RINGS_MAX: u32 = 16;

pub(crate) fn io_uring_register(cx: &mut Context, a: Args) -> Result<usize> {
    let (raw, at, count) = (a.uint(1), a.size(2), a.uint(3));
    let opcode = raw & !code::USE_REGISTERED_RING;
    if opcode >= code::LAST {
        return Err(Errno::EINVAL);
    }
    let open = match raw & code::USE_REGISTERED_RING != 0 {
        true => registered_ring(cx, a.uint(0)).ok_or(Errno::EINVAL)?,
        false => cx.task.files().get(a.fd(0))?,
    };
    let ring = Ring::of(&open)?;
    let issuer = ring.issuer.load(Ordering::Relaxed);
    if issuer != 0 && issuer != address(cx.task) {
        return Err(Errno::EEXIST);
    }
    if ring.restricted.load(Ordering::Relaxed) {
        let allowed = ring.resources.lock().restrictions.unwrap_or_default().register;
        if allowed & 1 << opcode == 0 {
            return Err(Errno::EACCES);
        }
    }
    match opcode {
        code::BUFFERS..=code::UNREGISTER_FILES
        | code::FILES_UPDATE
        | code::FILES2..=code::BUFFERS_UPDATE
        | code::FILE_ALLOC_RANGE => resources(cx, &ring, opcode, at, count),
        code::RING_FDS | code::UNREGISTER_RING_FDS => ring_fds(cx, opcode, at, count),
        code::PBUF_RING | code::UNREGISTER_PBUF_RING | code::PBUF_STATUS => buffer_rings(cx, &ring, opcode, at, count),
        _ => others(cx, &ring, opcode, at, count),
    }
}

fn none(at: usize, count: u32) -> Result<()> {
    if at != 0 || count != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn one(at: usize, count: u32) -> Result<()> {
    if at == 0 || count != 1 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn others(cx: &mut Context, ring: &Arc<Ring>, opcode: u32, at: usize, count: u32) -> Result<usize> {
    match opcode {
        code::EVENTFD | code::EVENTFD_ASYNC => {
            if count != 1 {
                return Err(Errno::EINVAL);
            }
            set_eventfd(cx, ring, at, opcode == code::EVENTFD_ASYNC)
        }
        code::UNREGISTER_EVENTFD => {
            none(at, count)?;
            ring.completions.set_eventfd(None).map(|_| 0).ok_or(Errno::ENXIO)
        }
        code::PROBE => {
            if at == 0 || count > 256 {
                return Err(Errno::EINVAL);
            }
            probe(at, count)
        }
        code::PERSONALITY => {
            none(at, count)?;
            add_personality(cx, ring)
        }
        code::UNREGISTER_PERSONALITY => {
            if at != 0 {
                return Err(Errno::EINVAL);
            }
            let number = u16::try_from(count).map_err(|_| Errno::EINVAL)?;
            ring.resources.lock().personalities.remove(&number).map(|_| 0).ok_or(Errno::EINVAL)
        }
        code::RESTRICTIONS => restrict(ring, at, count),
        code::ENABLE_RINGS => {
            none(at, count)?;
            enable(cx, ring)
        }
        code::IOWQ_AFF if at == 0 || count == 0 => Err(Errno::EINVAL),
        code::IOWQ_AFF => Ok(0),
        code::UNREGISTER_IOWQ_AFF => none(at, count).map(|()| 0),
        code::IOWQ_MAX_WORKERS => {
            if at == 0 || count != 2 {
                return Err(Errno::EINVAL);
            }
            max_workers(cx, ring, at)
        }
        code::SYNC_CANCEL => {
            one(at, count)?;
            ring.syncs.fetch_add(1, Ordering::SeqCst);
            let result = sync_cancel(cx, ring, at);
            ring.syncs.fetch_sub(1, Ordering::SeqCst);
            result
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_eventfd(cx: &Context, ring: &Ring, at: usize, asynchronous: bool) -> Result<usize> {
    if ring.completions.has_eventfd() {
        return Err(Errno::EBUSY);
    }
    let fd = UserPtr::<Fd>::new(at).read()?;
    let open = cx.task.files().get(fd)?;
    if !ipc::eventfd::is_eventfd(&open) {
        return Err(Errno::EINVAL);
    }
    if ring.defers() {
        // It tells of what is ready: that can't be done where it becomes so, under the locks of wait queues.
        Workers::of(cx.task).need_service(cx.task)?;
    }
    drop(ring.completions.set_eventfd(Some((open, asynchronous))));
    Ok(0)
}

/// `struct io_uring_probe` and an entry for each operation.
fn probe(at: usize, count: u32) -> Result<usize> {
    const HEADER: usize = 16;
    let count = (count as usize).min(op::COUNT.into());
    let mut given = alloc::vec![0; HEADER + count * 8];
    copy_in(&mut given, at)?;
    if given.iter().any(|&byte| byte != 0) {
        return Err(Errno::EINVAL);
    }
    let mut answer = given;
    (answer[0], answer[1]) = (op::COUNT - 1, count as u8);
    for (index, entry) in answer[HEADER..].chunks_exact_mut(8).enumerate() {
        let supported = index != usize::from(op::URING_CMD);
        entry[0] = index as u8;
        entry[2] = u8::from(supported);
    }
    copy_out(at, &answer)?;
    Ok(0)
}

fn add_personality(cx: &Context, ring: &Ring) -> Result<usize> {
    let mut resources = ring.resources.lock();
    for _ in 0..u16::MAX {
        resources.next_personality = resources.next_personality.wrapping_add(1).max(1);
        let number = resources.next_personality;
        if let Entry::Vacant(free) = resources.personalities.entry(number) {
            free.insert(cx.task.cred());
            return Ok(number.into());
        }
    }
    Err(Errno::EBUSY)
}

/// `struct io_uring_restriction`s: a kind, an opcode or flags.
fn restrict(ring: &Ring, at: usize, count: u32) -> Result<usize> {
    const MOST: u32 = code::LAST + op::COUNT as u32 + 2;
    if !ring.disabled.load(Ordering::SeqCst) {
        return Err(Errno::EBADFD);
    }
    let mut resources = ring.resources.lock();
    if resources.restrictions.is_some() {
        return Err(Errno::EBUSY);
    }
    if at == 0 || count > MOST {
        return Err(Errno::EINVAL);
    }
    let mut new = Restrictions::default();
    for index in 0..count as usize {
        let mut raw = [0; 16];
        copy_in(&mut raw, at.wrapping_add(index * 16))?;
        let (kind, value) = (u16::from_ne_bytes([raw[0], raw[1]]), raw[2]);
        match kind {
            0 if u32::from(value) < code::LAST => new.register |= 1 << value,
            1 if value < op::COUNT => new.operations |= 1 << value,
            2 => new.flags_allowed = value,
            3 => new.flags_required = value,
            _ => return Err(Errno::EINVAL),
        }
    }
    resources.restrictions = Some(new);
    Ok(0)
}

fn enable(cx: &Context, ring: &Ring) -> Result<usize> {
    if !ring.disabled.load(Ordering::SeqCst) {
        return Err(Errno::EBADFD);
    }
    if ring.flags.contains(Setup::SINGLE_ISSUER) {
        ring.issuer.store(address(cx.task), Ordering::Relaxed);
    }
    if ring.resources.lock().restrictions.is_some() {
        ring.restricted.store(true, Ordering::SeqCst);
    }
    ring.disabled.store(false, Ordering::SeqCst);
    if let Some(thread) = ring.sq_thread.lock().clone() {
        thread.wake();
    }
    Ok(0)
}

/// Limits of workers, bounded and not: the old ones come back.
fn max_workers(cx: &Context, ring: &Ring, at: usize) -> Result<usize> {
    let pointer = UserPtr::<[u32; 2]>::new(at);
    let new = pointer.read()?;
    if new.iter().any(|&n| n > i32::MAX as u32) {
        return Err(Errno::EINVAL);
    }
    let bounded = (ring.rings.sq_entries() as i32).min(4 * hal::cpu::count() as i32);
    let unbounded = i32::try_from(cx.task.rlimit(Limit::Nproc).0).unwrap_or(i32::MAX);
    let mut old = [0; 2];
    for (index, default) in [bounded, unbounded].into_iter().enumerate() {
        let limit = &ring.max_workers[index];
        let now = limit.load(Ordering::Relaxed);
        old[index] = if now == 0 { default } else { now } as u32;
        if new[index] != 0 {
            limit.store(new[index] as i32, Ordering::Relaxed);
        }
    }
    pointer.write(&old)?;
    Ok(0)
}

/// `struct io_uring_sync_cancel_reg`: cancels, and waits until what was cancelled has ended.
fn sync_cancel(cx: &Context, ring: &Arc<Ring>, at: usize) -> Result<usize> {
    let [user_data, fd_flags] = UserPtr::<[u64; 2]>::new(at).read()?;
    let [sec, nsec] = UserPtr::<[i64; 2]>::new(at.wrapping_add(16)).read()?;
    let rest = UserPtr::<[u64; 4]>::new(at.wrapping_add(32)).read()?;
    let flags = (fd_flags >> 32) as u32;
    if rest != [0; 4] {
        return Err(Errno::EINVAL);
    }
    cancel::check_flags(flags)?;
    let wanted = Wanted { flags, user_data, fd: fd_flags as u32 as i32, opcode: 0 };
    let deadline: Option<Nanos> = match (sec, nsec) {
        (-1, -1) => None,
        _ => Some(sched::time::now().saturating_add(Timespec { sec, nsec }.to_nanos()?)),
    };
    loop {
        let before = ring.ended.load(Ordering::SeqCst);
        match cancel::cancel_wanted(cx, ring, &wanted, None) {
            Err(Errno::EALREADY) => {}
            result => return result,
        }
        let changed = || (ring.ended.load(Ordering::SeqCst) != before).then_some(());
        let waited = ring.completions.waiters.wait_until(sched::Sleep::Interruptible, deadline, changed);
        match waited {
            Ok(()) => {}
            Err(sched::WaitError::TimedOut) => return Err(Errno::ETIME),
            Err(sched::WaitError::Interrupted) => return Err(Errno::EINTR),
        }
    }
}

/// The ring that the calling thread registered under that index.
pub(super) fn registered_ring(cx: &Context, index: u32) -> Option<Arc<OpenFile>> {
    let workers = Workers::of(cx.task);
    workers.ring_fds.lock().get(&(address(cx.task), index)).cloned()
}

/// `struct io_uring_rsrc_update`: index, reserved, descriptor.
fn ring_fds(cx: &Context, opcode: u32, at: usize, count: u32) -> Result<usize> {
    if count == 0 || count > RINGS_MAX {
        return Err(Errno::EINVAL);
    }
    for done in 0..count as usize {
        if let Err(error) = ring_fd(cx, opcode, UserPtr::new(at).at(done)) {
            return if done > 0 { Ok(done) } else { Err(error) };
        }
    }
    Ok(count as usize)
}

fn ring_fd(cx: &Context, opcode: u32, at: UserPtr<[u32; 4]>) -> Result<()> {
    let [index, reserved, low, high] = at.read()?;
    let owner = address(cx.task);
    let workers = Workers::of(cx.task);
    if opcode == code::UNREGISTER_RING_FDS {
        if reserved != 0 || low != 0 || high != 0 || index >= RINGS_MAX {
            return Err(Errno::EINVAL);
        }
        let old = workers.ring_fds.lock().remove(&(owner, index));
        drop(old);
        return Ok(());
    }
    if reserved != 0 {
        return Err(Errno::EINVAL);
    }
    let open = cx.task.files().get(low as Fd)?;
    Ring::of(&open)?;
    let mut rings = workers.ring_fds.lock();
    let index = match index {
        u32::MAX => (0..RINGS_MAX).find(|&i| !rings.contains_key(&(owner, i))).ok_or(Errno::EBUSY)?,
        index if index >= RINGS_MAX => return Err(Errno::EINVAL),
        index if rings.contains_key(&(owner, index)) => return Err(Errno::EBUSY),
        index => index,
    };
    rings.insert((owner, index), open);
    drop(rings);
    at.cast::<u32>().write(&index).inspect_err(|_| drop(workers.ring_fds.lock().remove(&(owner, index))))
}

/// `struct io_uring_buf_reg`: address, entries, group, flags.
fn buffer_rings(cx: &Context, ring: &Ring, opcode: u32, at: usize, count: u32) -> Result<usize> {
    one(at, count)?;
    if opcode == code::PBUF_STATUS {
        let [group, _, a, b, c, d, e, f] = UserPtr::<[u32; 8]>::new(at).read()?;
        let group = u16::try_from(group).map_err(|_| Errno::EINVAL)?;
        if [a, b, c, d, e, f] != [0; 6] {
            return Err(Errno::EINVAL);
        }
        let head = ring.resources.lock().groups.ring_head(group)?;
        UserPtr::<u32>::new(at.wrapping_add(4)).write(&head.into())?;
        return Ok(0);
    }
    let [addr, packed, a, b, c] = UserPtr::<[u64; 5]>::new(at).read()?;
    let (entries, group, flags) = (packed as u32, (packed >> 32) as u16, (packed >> 48) as u16);
    if flags != 0 || [a, b, c] != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let mut resources = ring.resources.lock();
    if opcode == code::UNREGISTER_PBUF_RING {
        return resources.groups.unregister_ring(group).map(|()| 0);
    }
    if addr == 0 {
        return Err(Errno::EFAULT);
    }
    if !addr.is_multiple_of(4096) || !entries.is_power_of_two() || entries >= 65536 {
        return Err(Errno::EINVAL);
    }
    if !UserBuf::new(addr as usize, entries as usize * 16).in_user_half() {
        return Err(Errno::EFAULT);
    }
    let space = cx.task.address_space();
    space.prepare(addr as usize, entries as usize * 16, true).map_err(|_| Errno::EFAULT)?;
    resources.groups.register_ring(group, addr as usize, entries as u16).map(|()| 0)
}

fn resources(cx: &mut Context, ring: &Arc<Ring>, opcode: u32, at: usize, count: u32) -> Result<usize> {
    match opcode {
        code::BUFFERS => register_buffers(cx, ring, at, count, 0),
        code::FILES => register_files(cx, ring, at, count, 0),
        code::UNREGISTER_BUFFERS => {
            none(at, count)?;
            let old = ring.resources.lock().buffers.take();
            old.map(|_| 0).ok_or(Errno::ENXIO)
        }
        code::UNREGISTER_FILES => {
            none(at, count)?;
            let old = ring.resources.lock().files.take();
            old.map(|_| 0).ok_or(Errno::ENXIO)
        }
        code::FILES2 | code::BUFFERS2 => register_tagged(cx, ring, opcode, at, count),
        code::FILES_UPDATE => {
            // `struct io_uring_files_update`: offset, reserved, descriptors.
            let [offset, fds] = UserPtr::<[u64; 2]>::new(at).read()?;
            if offset >> 32 != 0 || count == 0 {
                return Err(Errno::EINVAL);
            }
            update_files(cx, ring, &Update { offset: offset as u32, fds, tags: 0, count })
        }
        code::FILES_UPDATE2 | code::BUFFERS_UPDATE => {
            // `struct io_uring_rsrc_update2`: offset, reserved, data, tags, how many, reserved.
            if count != 32 {
                return Err(Errno::EINVAL);
            }
            let [offset, fds, tags, last] = UserPtr::<[u64; 4]>::new(at).read()?;
            if offset >> 32 != 0 || last >> 32 != 0 || last as u32 == 0 {
                return Err(Errno::EINVAL);
            }
            let update = Update { offset: offset as u32, fds, tags, count: last as u32 };
            match opcode {
                code::FILES_UPDATE2 => update_files(cx, ring, &update),
                _ => update_buffers(cx, ring, &update),
            }
        }
        _ => {
            // `struct io_uring_file_index_range`: offset, length, reserved.
            let [packed, reserved] = UserPtr::<[u64; 2]>::new(at).read()?;
            let (offset, len) = (packed as u32, (packed >> 32) as u32);
            if at == 0 || count != 0 || reserved != 0 {
                return Err(Errno::EINVAL);
            }
            offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
            let mut resources = ring.resources.lock();
            let files = resources.files.as_mut().ok_or(Errno::EINVAL)?;
            files.set_range(offset as usize, len as usize).map(|()| 0)
        }
    }
}

/// `struct io_uring_rsrc_register`: how many, flags, reserved, data, tags.
fn register_tagged(cx: &mut Context, ring: &Arc<Ring>, opcode: u32, at: usize, size: u32) -> Result<usize> {
    const SPARSE: u32 = 1;
    if size != 32 {
        return Err(Errno::EINVAL);
    }
    let [packed, reserved, data, tags] = UserPtr::<[u64; 4]>::new(at).read()?;
    let (count, flags) = (packed as u32, (packed >> 32) as u32);
    if count == 0 || reserved != 0 || flags & !SPARSE != 0 || flags & SPARSE != 0 && data != 0 {
        return Err(Errno::EINVAL);
    }
    match opcode {
        code::FILES2 => register_files(cx, ring, data as usize, count, tags),
        _ => register_buffers(cx, ring, data as usize, count, tags),
    }
}

fn tag(tags: u64, index: usize) -> Result<u64> {
    if tags == 0 { Ok(0) } else { UserPtr::<u64>::new(tags as usize).at(index).read() }
}

fn register_files(cx: &Context, ring: &Arc<Ring>, at: usize, count: u32, tags: u64) -> Result<usize> {
    if ring.resources.lock().files.is_some() {
        return Err(Errno::EBUSY);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    if count > FILES_MAX || u64::from(count) > cx.task.rlimit(Limit::NoFile).0 {
        return Err(Errno::EMFILE);
    }
    let mut table: Table<Arc<OpenFile>> = Table::new(count as usize)?;
    for index in 0..count as usize {
        let tag = tag(tags, index)?;
        let fd = if at == 0 { -1 } else { UserPtr::<Fd>::new(at).at(index).read()? };
        if fd == -1 {
            if tag != 0 {
                return Err(Errno::EINVAL);
            }
            continue;
        }
        let open = cx.task.files().get(fd)?;
        if Ring::of(&open).is_ok() {
            return Err(Errno::EBADF);
        }
        drop(table.set(index, Some(Resource::new(open, tag, Arc::new(Tags(ring.me.clone()))))));
    }
    ring.resources.lock().files = Some(table);
    Ok(0)
}

/// What io_uring_register(2) and IORING_OP_FILES_UPDATE change.
pub(super) struct Update {
    pub(super) offset: u32,
    pub(super) fds: u64,
    pub(super) tags: u64,
    pub(super) count: u32,
}

impl Update {
    /// `EOVERFLOW`, `EINVAL`.
    fn check(&self, len: usize) -> Result<()> {
        let end = self.offset.checked_add(self.count).ok_or(Errno::EOVERFLOW)?;
        if end as usize > len { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// How many slots were changed. `ENXIO`, `EINVAL`, `EBADF`, `EFAULT`.
pub(super) fn update_files(cx: &Context, ring: &Arc<Ring>, update: &Update) -> Result<usize> {
    let len = ring.resources.lock().files.as_ref().map(Table::len);
    update.check(len.ok_or(Errno::ENXIO)?)?;
    for index in 0..update.count as usize {
        let one = || {
            let tag = tag(update.tags, index)?;
            let fd = UserPtr::<Fd>::new(update.fds as usize).at(index).read()?;
            if (fd == SKIP || fd == -1) && tag != 0 {
                return Err(Errno::EINVAL);
            }
            let slot = update.offset as usize + index;
            match fd {
                SKIP => Ok(()),
                -1 => notice::set_slot(ring, slot, None, 0),
                fd => notice::set_slot(ring, slot, Some(cx.task.files().get(fd)?), tag),
            }
        };
        if let Err(error) = one() {
            return if index > 0 { Ok(index) } else { Err(error) };
        }
    }
    Ok(update.count as usize)
}

/// A buffer to register; `None` for an empty slot. `EFAULT`, `ENOMEM`, `EINVAL`.
fn read_buffer(
    cx: &Context,
    ring: &Arc<Ring>,
    at: u64,
    index: usize,
    tags: u64,
) -> Result<Option<Arc<Resource<UserBuf>>>> {
    let tag = tag(tags, index)?;
    let [base, len] = if at == 0 { [0, 0] } else { UserPtr::<[usize; 2]>::new(at as usize).at(index).read()? };
    if base == 0 {
        return if len != 0 {
            Err(Errno::EFAULT)
        } else if tag != 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(None)
        };
    }
    if len == 0 || len > BUFFER_MAX || !UserBuf::new(base, len).in_user_half() {
        return Err(Errno::EFAULT);
    }
    let (limit, _) = cx.task.rlimit(Limit::Memlock);
    if !cx.task.cred().capable(Capability::IpcLock) && len as u64 > limit {
        return Err(Errno::ENOMEM);
    }
    let space = cx.task.address_space();
    space.prepare(base, len, true).map_err(|_| Errno::EFAULT)?;
    Ok(Some(Resource::new(UserBuf::new(base, len), tag, Arc::new(Tags(ring.me.clone())))))
}

fn register_buffers(cx: &Context, ring: &Arc<Ring>, at: usize, count: u32, tags: u64) -> Result<usize> {
    if ring.resources.lock().buffers.is_some() {
        return Err(Errno::EBUSY);
    }
    if count == 0 || count > BUFFERS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut table: Table<UserBuf> = Table::new(count as usize)?;
    for index in 0..count as usize {
        let buffer = read_buffer(cx, ring, at as u64, index, tags)?;
        drop(table.set(index, buffer));
    }
    ring.resources.lock().buffers = Some(table);
    Ok(0)
}

fn update_buffers(cx: &Context, ring: &Arc<Ring>, update: &Update) -> Result<usize> {
    let len = ring.resources.lock().buffers.as_ref().map(Table::len);
    update.check(len.ok_or(Errno::ENXIO)?)?;
    for index in 0..update.count as usize {
        let one = || {
            let buffer = read_buffer(cx, ring, update.fds, index, update.tags)?;
            let mut resources = ring.resources.lock();
            let buffers = resources.buffers.as_mut().ok_or(Errno::ENXIO)?;
            let old = buffers.set(update.offset as usize + index, buffer);
            drop(resources);
            old.map(drop)
        };
        if let Err(error) = one() {
            return if index > 0 { Ok(index) } else { Err(error) };
        }
    }
    Ok(update.count as usize)
}
