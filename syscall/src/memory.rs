//! Memory.

use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::user::{USER_END, UserBuf, UserPtr};
use mm::{Backing, Lock, MapRequest, Prot, Range};
use process::{Resource, tree};
use zerocopy::{FromBytes, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::shared_memory;

mod map {
    pub(super) const SHARED: u32 = 1;
    pub(super) const PRIVATE: u32 = 2;
    pub(super) const SHARED_VALIDATE: u32 = 3;
    pub(super) const TYPE: u32 = 15;
    pub(super) const FIXED: u32 = 0x10;
    pub(super) const ANONYMOUS: u32 = 0x20;
    pub(super) const LOW: u32 = 0x40;
    pub(super) const GROWSDOWN: u32 = 0x100;
    pub(super) const LOCKED: u32 = 0x2000;
    pub(super) const NORESERVE: u32 = 0x4000;
    pub(super) const POPULATE: u32 = 0x8000;
    pub(super) const NONBLOCK: u32 = 0x1_0000;
    pub(super) const HUGETLB: u32 = 0x4_0000;
    pub(super) const FIXED_NOREPLACE: u32 = 0x10_0000;
    /// What MAP_SHARED_VALIDATE accepts.
    pub(super) const VALID: u32 = TYPE
        | FIXED
        | ANONYMOUS
        | LOW
        | GROWSDOWN
        | 0x800
        | 0x1000
        | LOCKED
        | NORESERVE
        | POPULATE
        | NONBLOCK
        | 0x2_0000
        | HUGETLB
        | FIXED_NOREPLACE;
}

fn prot(bits: usize) -> Prot {
    Prot::from_bits_truncate(bits as u8)
}

/// Rounds a length up to pages. `None` where that overflows.
fn pages(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(PAGE_SIZE)
}

/// A page-aligned range in the user half, its length rounded up. `EINVAL` (not aligned), `ENOMEM` (out of the half).
fn range(addr: usize, len: usize) -> Result<(usize, usize)> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = pages(len).ok_or(Errno::ENOMEM)?;
    if UserBuf::new(addr, len).in_user_half() { Ok((addr, len)) } else { Err(Errno::ENOMEM) }
}

pub(crate) fn mmap(cx: &mut Context, a: Args) -> Result<usize> {
    let (addr, len, flags, offset) = (a.size(0), a.size(1), a.uint(3), a.size(5));
    let prot = prot(a.size(2));
    if !offset.is_multiple_of(PAGE_SIZE) || len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = pages(len).filter(|&len| len <= USER_END).ok_or(Errno::ENOMEM)?;
    let shared = match flags & map::TYPE {
        map::PRIVATE => false,
        map::SHARED => true,
        map::SHARED_VALIDATE if flags & !map::VALID != 0 => return Err(Errno::EOPNOTSUPP),
        map::SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    let no_replace = flags & map::FIXED_NOREPLACE != 0;
    let fixed = flags & map::FIXED != 0 && !no_replace;
    if (fixed || no_replace) && !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if (fixed || no_replace) && !UserBuf::new(addr, len).in_user_half() {
        return Err(Errno::ENOMEM);
    }
    let locked = flags & map::LOCKED != 0;
    if locked {
        check_lock(cx)?;
    }
    let request = MapRequest {
        addr: addr & !(PAGE_SIZE - 1),
        shared,
        fixed,
        no_replace,
        grows_down: flags & map::GROWSDOWN != 0,
        lock: if locked { Lock::Now } else { Lock::No },
        may_lock: may_lock(cx),
        populate: flags & (map::POPULATE | map::NONBLOCK) == map::POPULATE,
        no_reserve: flags & map::NORESERVE != 0,
        low: flags & map::LOW != 0,
        backing: backing(cx, a, len, shared, prot)?,
        ..MapRequest::anonymous(len, prot)
    };
    cx.task.address_space().map(request)
}

fn backing(cx: &Context, a: Args, len: usize, shared: bool, prot: Prot) -> Result<Backing> {
    let (flags, offset) = (a.uint(3), a.size(5) as u64);
    if flags & map::ANONYMOUS != 0 {
        // No huge pages are set aside, as on a Linux where nobody did.
        if flags & map::HUGETLB != 0 {
            return Err(Errno::ENOMEM);
        }
        return if shared { shared_memory::backing(len) } else { Ok(Backing::Anonymous) };
    }
    let open = cx.task.files().get(a.fd(4))?;
    if flags & map::HUGETLB != 0 {
        return Err(Errno::EINVAL);
    }
    offset.checked_add(len as u64).filter(|&end| end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
    open.mmap((offset, len), shared, prot)
}

pub(crate) fn munmap(cx: &mut Context, a: Args) -> Result<usize> {
    let (addr, len) = range(a.size(0), a.size(1)).map_err(|_| Errno::EINVAL)?;
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    cx.task.address_space().unmap(addr, len)?;
    Ok(0)
}

pub(crate) fn mprotect(cx: &mut Context, a: Args) -> Result<usize> {
    const PROT_GROWSDOWN: usize = 0x0100_0000;
    const PROT_GROWSUP: usize = 0x0200_0000;
    let bits = a.size(2);
    let both = PROT_GROWSDOWN | PROT_GROWSUP;
    if bits & both == both || bits & !(0xf | both) != 0 {
        return Err(Errno::EINVAL);
    }
    let (mut addr, mut len) = range(a.size(0), a.size(1))?;
    if len == 0 {
        return Ok(0);
    }
    let space = cx.task.address_space();
    if bits & PROT_GROWSDOWN != 0 {
        let mapping = space.mapping_at(addr).ok_or(Errno::ENOMEM)?;
        if !mapping.grows_down {
            return Err(Errno::EINVAL);
        }
        len += addr - mapping.start;
        addr = mapping.start;
    }
    space.protect(addr, len, prot(bits))?;
    Ok(0)
}

pub(crate) fn mremap(cx: &mut Context, a: Args) -> Result<usize> {
    const MAYMOVE: u32 = 1;
    const FIXED: u32 = 2;
    const DONTUNMAP: u32 = 4;
    let (start, flags, new) = (a.size(0), a.uint(3), a.size(4));
    let wrong = flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0
        || flags & (FIXED | DONTUNMAP) != 0 && flags & MAYMOVE == 0
        || flags & DONTUNMAP != 0 && a.size(1) != a.size(2)
        || !start.is_multiple_of(PAGE_SIZE);
    let (len, new_len) = (pages(a.size(1)), pages(a.size(2)));
    let (Some(len), Some(new_len), false) = (len, new_len, wrong) else { return Err(Errno::EINVAL) };
    if new_len == 0 {
        return Err(Errno::EINVAL);
    }
    let space = cx.task.address_space();
    if !UserBuf::new(start, len).in_user_half() {
        // As where nothing is mapped, or less than that.
        return Err(if start < USER_END { Errno::EINVAL } else { Errno::EFAULT });
    }
    space.remap(Range { start, len }, new_len, flags, new, may_lock(cx))
}

pub(crate) fn madvise(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.address_space().advise(a.size(0), a.size(1), a.uint(2))?;
    Ok(0)
}

pub(crate) fn brk(cx: &mut Context, a: Args) -> Result<usize> {
    Ok(cx.task.address_space().brk(a.size(0), may_lock(cx)))
}

fn may_lock(cx: &Context) -> bool {
    cx.task.cred().capable(base::Capability::IpcLock)
}

/// `EPERM` where no memory may be locked at all.
fn check_lock(cx: &Context) -> Result<()> {
    if cx.task.rlimit(Resource::Memlock).0 == 0 && !may_lock(cx) { Err(Errno::EPERM) } else { Ok(()) }
}

fn lock_range(cx: &Context, a: Args, mode: Lock) -> Result<usize> {
    check_lock(cx)?;
    cx.task.address_space().lock(a.size(0), a.size(1), mode, may_lock(cx))?;
    Ok(0)
}

pub(crate) fn mlock(cx: &mut Context, a: Args) -> Result<usize> {
    lock_range(cx, a, Lock::Now)
}

pub(crate) fn mlock2(cx: &mut Context, a: Args) -> Result<usize> {
    const MLOCK_ONFAULT: u32 = 1;
    match a.uint(2) {
        0 => lock_range(cx, a, Lock::Now),
        MLOCK_ONFAULT => lock_range(cx, a, Lock::OnFault),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn munlock(cx: &mut Context, a: Args) -> Result<usize> {
    cx.task.address_space().lock(a.size(0), a.size(1), Lock::No, true)?;
    Ok(0)
}

pub(crate) fn mlockall(cx: &mut Context, a: Args) -> Result<usize> {
    const MCL_CURRENT: u32 = 1;
    const MCL_FUTURE: u32 = 2;
    const MCL_ONFAULT: u32 = 4;
    let flags = a.uint(0);
    if flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags & (MCL_CURRENT | MCL_FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    check_lock(cx)?;
    let mode = if flags & MCL_ONFAULT != 0 { Lock::OnFault } else { Lock::Now };
    let current = (flags & MCL_CURRENT != 0).then_some(mode);
    let future = if flags & MCL_FUTURE != 0 { mode } else { Lock::No };
    cx.task.address_space().lock_all(current, future, may_lock(cx))?;
    Ok(0)
}

pub(crate) fn munlockall(cx: &mut Context, _: Args) -> Result<usize> {
    cx.task.address_space().lock_all(Some(Lock::No), Lock::No, true)?;
    Ok(0)
}

pub(crate) fn msync(cx: &mut Context, a: Args) -> Result<usize> {
    const MS_ASYNC: u32 = 1;
    const MS_INVALIDATE: u32 = 2;
    const MS_SYNC: u32 = 4;
    let flags = a.uint(2);
    if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || flags & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC {
        return Err(Errno::EINVAL);
    }
    let (addr, len) = range(a.size(0), a.size(1))?;
    if len > 0 {
        cx.task.address_space().sync(addr, len, flags)?;
    }
    Ok(0)
}

pub(crate) fn mincore(cx: &mut Context, a: Args) -> Result<usize> {
    /// Pages asked about at a time.
    const STEP: usize = 4096 * PAGE_SIZE;
    let (mut addr, mut len) = range(a.size(0), a.size(1))?;
    let mut to = a.size(2);
    let space = cx.task.address_space();
    while len > 0 {
        let step = len.min(STEP);
        let bytes = space.resident(addr, step)?;
        hal::user::copy_out(to, &bytes)?;
        (addr, len, to) = (addr + step, len - step, to + bytes.len());
    }
    Ok(0)
}

pub(crate) fn get_mempolicy(cx: &mut Context, a: Args) -> Result<usize> {
    const MPOL_F_NODE: usize = 1;
    const MPOL_F_ADDR: usize = 2;
    const MPOL_F_MEMS_ALLOWED: usize = 4;
    let (mode, mask, bits, addr, flags) = (a.ptr::<i32>(0), a.ptr::<u64>(1), a.size(2), a.size(3), a.size(4));
    if flags & !(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED) != 0 || !mask.is_null() && bits == 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MPOL_F_ADDR != 0 {
        cx.task.address_space().mapping_at(addr).ok_or(Errno::EFAULT)?;
    } else if addr != 0 {
        return Err(Errno::EINVAL);
    }
    // The default policy, or node 0: there is one node.
    if let Some(mode) = mode.non_null() {
        mode.write(&0)?;
    }
    if let Some(mask) = mask.non_null() {
        mask.write(&u64::from(flags & MPOL_F_MEMS_ALLOWED != 0))?;
    }
    Ok(0)
}

pub(crate) fn set_mempolicy(_: &mut Context, a: Args) -> Result<usize> {
    check_policy(a.int(0), a.ptr(1), a.size(2))
}

pub(crate) fn mbind(_: &mut Context, a: Args) -> Result<usize> {
    range(a.size(0), a.size(1)).map_err(|_| Errno::EINVAL)?;
    check_policy(a.int(2), a.ptr(3), a.size(4))
}

/// With one node every valid policy means the same.
fn check_policy(mode: i32, mask: UserPtr<u64>, bits: usize) -> Result<usize> {
    const MODES: i32 = 6;
    const MODE_FLAGS: i32 = 0xe000;
    let mode = mode & !MODE_FLAGS;
    if !(0..MODES).contains(&mode) {
        return Err(Errno::EINVAL);
    }
    let nodes = match mask.non_null() {
        Some(mask) if bits > 1 => mask.read()?,
        _ => 0,
    };
    let needs_nodes = matches!(mode, 2 | 3);
    let wrong = mode == 0 && nodes != 0 || needs_nodes && nodes == 0 || nodes & !1 != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(0) }
}

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes)]
struct Iovec {
    base: usize,
    len: usize,
}

fn read_vectors(at: UserPtr<Iovec>, count: usize) -> Result<Vec<UserBuf>> {
    const IOV_MAX: usize = 1024;
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut all: Vec<UserBuf> = Vec::new();
    all.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    let mut total = 0usize;
    for index in 0..count {
        let vector = at.at(index).read()?;
        total = total.checked_add(vector.len).filter(|&t| t <= isize::MAX as usize).ok_or(Errno::EINVAL)?;
        all.push(UserBuf::new(vector.base, vector.len));
    }
    Ok(all)
}

fn transfer(cx: &mut Context, a: Args, write: bool) -> Result<usize> {
    if a.size(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let local = read_vectors(a.ptr(1), a.size(2))?;
    let remote = read_vectors(a.ptr(3), a.size(4))?;
    let target = tree::task(a.int(0)).ok_or(Errno::ESRCH)?;
    process::inspect::check(cx.task, &target)?;
    let space = target.process().address_space().ok_or(Errno::ESRCH)?;
    let mut bounce = Vec::new();
    bounce.try_reserve_exact(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
    bounce.resize(PAGE_SIZE, 0);
    let mut done = 0;
    let (mut local, mut remote) = (Cursor::new(&local), Cursor::new(&remote));
    while let (Some(here), Some(there)) = (local.chunk(), remote.chunk()) {
        let len = here.len.min(there.len).min(PAGE_SIZE);
        let piece = &mut bounce[..len];
        let moved = if write {
            let read = hal::user::copy_in_some(piece, here.addr);
            space.write_remote(there.addr, &piece[..read], false)
        } else {
            let read = space.read_remote(there.addr, piece);
            hal::user::copy_out_some(here.addr, &piece[..read])
        };
        done += moved;
        if moved < len {
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
        local.advance(len);
        remote.advance(len);
        sched::preempt_point();
    }
    Ok(done)
}

/// A place in a list of buffers.
struct Cursor<'a> {
    buffers: &'a [UserBuf],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(buffers: &'a [UserBuf]) -> Cursor<'a> {
        Cursor { buffers, offset: 0 }
    }

    /// What is left of the first buffer that is not used up.
    fn chunk(&mut self) -> Option<UserBuf> {
        while let [first, rest @ ..] = self.buffers {
            if self.offset < first.len {
                return Some(UserBuf::new(first.addr.wrapping_add(self.offset), first.len - self.offset));
            }
            self.buffers = rest;
            self.offset = 0;
        }
        None
    }

    fn advance(&mut self, len: usize) {
        self.offset += len;
    }
}

pub(crate) fn process_vm_readv(cx: &mut Context, a: Args) -> Result<usize> {
    transfer(cx, a, false)
}

pub(crate) fn process_vm_writev(cx: &mut Context, a: Args) -> Result<usize> {
    transfer(cx, a, true)
}

pub(crate) fn process_madvise(cx: &mut Context, a: Args) -> Result<usize> {
    const COLD: u32 = 20;
    const PAGEOUT: u32 = 21;
    const WILLNEED: u32 = 3;
    const COLLAPSE: u32 = 25;
    if a.uint(4) != 0 {
        return Err(Errno::EINVAL);
    }
    let buffers = crate::transfer::buffers(a.0[1], a.size(2))?;
    let open = cx.task.files().get(a.fd(0))?;
    let (target, _) = process::pidfd::process_of(&open)?;
    if !matches!(a.uint(3), COLD | PAGEOUT | WILLNEED | COLLAPSE) {
        return Err(Errno::EINVAL);
    }
    let thread = target.any_thread().ok_or(Errno::ESRCH)?;
    process::inspect::check(cx.task, &thread)?;
    // To change how another performs takes more than to look at it.
    let own = alloc::sync::Arc::ptr_eq(&target, cx.task.process());
    if !own && !cx.task.cred().capable(base::Capability::SysNice) {
        return Err(Errno::EPERM);
    }
    let space = target.address_space().ok_or(Errno::ESRCH)?;
    let mut done = 0;
    for buffer in &buffers {
        let advised = range(buffer.addr, buffer.len)
            .map_err(|_| Errno::EINVAL)
            .and_then(|(addr, len)| space.advise(addr, len, a.uint(3)));
        match advised {
            Ok(()) => done += buffer.len,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
