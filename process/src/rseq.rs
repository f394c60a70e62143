//! Restartable sequences: rseq(2).
//!
//! A thread registers an area of 32 bytes. On every way to user mode with work to do (a signal, a preemption) the kernel stores the
//! processor's number there and, if the thread was inside the critical section that the area names, sends it to the abort address.

use base::{Errno, Result};
use hal::regs::UserRegs;
use hal::user::UserPtr;
use zerocopy::{FromBytes, IntoBytes};

use crate::Task;
use crate::signal::{SIGSEGV, SigInfo, send};

/// Bytes in `struct rseq` as Linux 6.1 has it; also its alignment.
pub const AREA_SIZE: u32 = 32;
const UNREGISTER: u32 = 1;
const CPU_ID_UNINITIALIZED: u32 = u32::MAX;
/// Where `rseq_cs` lies in the area.
const SECTION_OFFSET: usize = 8;

/// A registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rseq {
    area: usize,
    signature: u32,
}

/// `struct rseq_cs`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct Section {
    version: u32,
    flags: u32,
    start: usize,
    length: usize,
    abort: usize,
}

/// rseq(2). `EINVAL`, `EPERM` (signature), `EBUSY`, `EFAULT`.
pub fn register(task: &Task, area: usize, len: u32, flags: u32, signature: u32) -> Result<()> {
    let current = *task.rseq.lock();
    if flags & UNREGISTER != 0 {
        if flags != UNREGISTER || len != AREA_SIZE {
            return Err(Errno::EINVAL);
        }
        let registered = current.filter(|rseq| rseq.area == area).ok_or(Errno::EINVAL)?;
        if registered.signature != signature {
            return Err(Errno::EPERM);
        }
        store_cpu(area, 0, CPU_ID_UNINITIALIZED)?;
        *task.rseq.lock() = None;
        return Ok(());
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(registered) = current {
        let same = registered.area == area && len == AREA_SIZE;
        return Err(match () {
            () if !same => Errno::EINVAL,
            () if registered.signature != signature => Errno::EPERM,
            () => Errno::EBUSY,
        });
    }
    if len != AREA_SIZE || !area.is_multiple_of(AREA_SIZE as usize) {
        return Err(Errno::EINVAL);
    }
    if !hal::user::UserBuf::new(area, len as usize).in_user_half() {
        return Err(Errno::EFAULT);
    }
    let cpu = hal::cpu::id() as u32;
    store_cpu(area, cpu, cpu)?;
    *task.rseq.lock() = Some(Rseq { area, signature });
    Ok(())
}

fn store_cpu(area: usize, start: u32, id: u32) -> Result<()> {
    UserPtr::new(area).write(&[start, id])
}

/// Stores the processor's number and aborts a critical section that was interrupted.
pub(crate) fn before_user(task: &Task, regs: &mut UserRegs) {
    let Some(rseq) = *task.rseq.lock() else { return };
    let cpu = hal::cpu::id() as u32;
    if fix_up(&rseq, regs).and_then(|()| store_cpu(rseq.area, cpu, cpu)).is_err() {
        // The area is gone or malformed: Linux kills the program too.
        *task.rseq.lock() = None;
        send::force(task, SigInfo::kernel(SIGSEGV));
    }
}

/// A handler is about to run: the interrupted section must not go on after it.
pub(crate) fn on_signal(task: &Task, regs: &mut UserRegs) {
    before_user(task, regs);
}

fn fix_up(rseq: &Rseq, regs: &mut UserRegs) -> Result<()> {
    let slot = UserPtr::<usize>::new(rseq.area + SECTION_OFFSET);
    let at = slot.read()?;
    if at == 0 {
        return Ok(());
    }
    let section: Section = UserPtr::new(at).read()?;
    if section.version != 0 || section.abort >= hal::user::USER_END {
        return Err(Errno::EINVAL);
    }
    slot.write(&0)?;
    if regs.rip.wrapping_sub(section.start) >= section.length {
        return Ok(());
    }
    let mark = section.abort.checked_sub(4).ok_or(Errno::EINVAL)?;
    if UserPtr::<u32>::new(mark).read()? != rseq.signature {
        return Err(Errno::EINVAL);
    }
    regs.rip = section.abort;
    Ok(())
}
