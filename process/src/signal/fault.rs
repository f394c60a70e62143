//! Exceptions and page faults in user mode, as signals.

use hal::regs::{Exception, PageFault, UserRegs};
use hal::user::USER_END;
use mm::FaultError;
use sched::transfers;

use super::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGTRAP, SigInfo, send};
use crate::task::FaultRecord;

const FPE_INTDIV: i32 = 1;
const FPE_FLTINV: i32 = 7;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;

/// Turns a processor exception of the calling thread into its signal. The hook for hal.
pub fn user_exception(regs: &mut UserRegs, exception: Exception) {
    let at = |signal, code| SigInfo::fault(signal, code, regs.rip);
    let info = match exception.vector {
        0 => at(SIGFPE, FPE_INTDIV),
        1 => at(SIGTRAP, TRAP_TRACE),
        3 => SigInfo::kernel(SIGTRAP),
        4 | 5 | 13 => SigInfo::kernel(SIGSEGV),
        6 => at(SIGILL, ILL_ILLOPN),
        10..=12 => SigInfo::kernel(SIGBUS),
        16 | 19 => at(SIGFPE, FPE_FLTINV),
        17 => SigInfo::fault(SIGBUS, BUS_ADRALN, 0),
        _ => SigInfo::kernel(SIGSEGV),
    };
    crate::with_current(|task| {
        *task.fault.lock() =
            FaultRecord { vector: u64::from(exception.vector), code: exception.code as u64, address: 0 };
        send::force(task, info);
    });
}

/// Resolves a page fault of the calling thread; false where it can't be: then, if it came from user mode, a signal is pending.
/// The hook for hal.
pub fn user_fault(fault: &PageFault) -> bool {
    crate::with_current(|task| {
        let Some(space) = task.process().address_space() else { return false };
        let asked = transfers::asked_of_storage();
        let Err(error) = space.handle_fault(fault) else {
            task.count_fault(transfers::asked_of_storage() != asked);
            return true;
        };
        drop(space);
        if error == FaultError::Interrupted {
            // The signal comes first; then the access is tried again. A copy of the kernel's ends here.
            return fault.from_user;
        }
        if error == FaultError::NoMemory {
            return wait_for_memory(task);
        }
        if fault.from_user {
            signal_fault(task, fault, error);
        }
        false
    })
}

fn signal_fault(task: &crate::Task, fault: &PageFault, error: FaultError) {
    // As on Linux, nobody learns what is mapped in the kernel's half.
    let present = fault.present || fault.address >= USER_END;
    let code = u64::from(present) | u64::from(fault.write) << 1 | 4 | u64::from(fault.execute) << 4;
    *task.fault.lock() = FaultRecord { vector: 14, code, address: fault.address as u64 };
    let info = match error {
        FaultError::NotMapped => SigInfo::fault(SIGSEGV, SEGV_MAPERR, fault.address),
        FaultError::Denied => SigInfo::fault(SIGSEGV, SEGV_ACCERR, fault.address),
        FaultError::Bus => SigInfo::fault(SIGBUS, BUS_ADRERR, fault.address),
        FaultError::NoMemory | FaultError::Interrupted => SigInfo::kernel(SIGKILL),
    };
    send::force(task, info);
}

/// Makes somebody give up memory, and a little time to do so; false if that is the caller.
fn wait_for_memory(task: &crate::Task) -> bool {
    const PAUSE: base::Nanos = 5_000_000;
    if task.is_dying() {
        return false;
    }
    if !crate::oom::kill_one() {
        send::force(task, SigInfo::kernel(SIGKILL));
    }
    if !task.is_dying() {
        sched::thread::sleep_until(sched::Sleep::Killable, sched::time::now() + PAUSE);
    }
    !task.is_dying()
}
