//! prctl(2).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Cred, Errno, Result};
use hal::user::{UserPtr, copy_in, copy_out};
use process::credentials::{SECBIT_KEEP_CAPS, capability};
use process::signal::Signal;
use process::user_dispatch;

use crate::args::Args;
use crate::context::Context;
use crate::seccomp;

const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_PDEATHSIG: i32 = 2;
const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;
const PR_GET_KEEPCAPS: i32 = 7;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_GET_TIMING: i32 = 13;
const PR_SET_TIMING: i32 = 14;
const PR_SET_NAME: i32 = 15;
const PR_GET_NAME: i32 = 16;
const PR_GET_SECCOMP: i32 = 21;
const PR_SET_SECCOMP: i32 = 22;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_GET_TSC: i32 = 25;
const PR_GET_SECUREBITS: i32 = 27;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_TIMERSLACK: i32 = 29;
const PR_GET_TIMERSLACK: i32 = 30;
const PR_MCE_KILL_GET: i32 = 34;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const PR_GET_CHILD_SUBREAPER: i32 = 37;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_GET_NO_NEW_PRIVS: i32 = 39;
const PR_GET_TID_ADDRESS: i32 = 40;
const PR_SET_THP_DISABLE: i32 = 41;
const PR_GET_THP_DISABLE: i32 = 42;
const PR_CAP_AMBIENT: i32 = 47;
const PR_SET_IO_FLUSHER: i32 = 57;
const PR_GET_IO_FLUSHER: i32 = 58;
const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
const PR_SET_VMA: i32 = 0x5356_4d41;

pub(crate) fn prctl(cx: &mut Context, a: Args) -> Result<usize> {
    let value = a.size(1);
    match a.int(0) {
        PR_SET_PDEATHSIG => {
            let signal = Signal::or_zero(value as i32)?;
            cx.task.set_parent_death_signal(signal);
            Ok(0)
        }
        PR_GET_PDEATHSIG => write_int(value, cx.task.parent_death_signal().map_or(0, Signal::number)),
        PR_GET_DUMPABLE => Ok(usize::from(cx.task.process().dumpable())),
        PR_SET_DUMPABLE if value > 1 => Err(Errno::EINVAL),
        PR_SET_DUMPABLE => {
            cx.task.process().set_dumpable(value as u8);
            Ok(0)
        }
        PR_SET_NAME => set_name(cx, value),
        PR_GET_NAME => copy_out(value, &cx.task.comm()).map(|()| 0),
        PR_SET_TIMERSLACK => {
            let slack = if (value as isize) <= 0 { 50_000 } else { value as u64 };
            cx.task.timer_slack.store(slack, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_TIMERSLACK => Ok(cx.task.timer_slack.load(Ordering::Relaxed) as usize),
        PR_SET_CHILD_SUBREAPER => {
            cx.task.process().set_subreaper(value != 0);
            Ok(0)
        }
        PR_GET_CHILD_SUBREAPER => write_int(value, i32::from(cx.task.process().is_subreaper())),
        PR_GET_TID_ADDRESS => UserPtr::new(value).write(&cx.task.clear_child_tid()).map(|()| 0),
        _ => machine(cx, a),
    }
}

/// The options about what the machine and this kernel can do.
fn machine(cx: &Context, a: Args) -> Result<usize> {
    let value = a.size(1);
    match a.int(0) {
        PR_GET_TIMING => Ok(0),
        PR_SET_TIMING => {
            if value == 0 {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        PR_GET_SECCOMP => Ok(usize::from(cx.task.seccomp().number())),
        PR_SET_SECCOMP => seccomp::set_mode(cx.task, value, a.size(2)),
        PR_SET_SYSCALL_USER_DISPATCH if value > 1 => Err(Errno::EINVAL),
        PR_SET_SYSCALL_USER_DISPATCH => {
            user_dispatch::set(cx.task, value == 1, a.size(2), a.size(3), a.size(4)).map(|()| 0)
        }
        PR_GET_TSC => write_int(value, 1),
        PR_MCE_KILL_GET => {
            if no_more(a, 1) {
                Ok(2)
            } else {
                Err(Errno::EINVAL)
            }
        }
        // There are no huge pages to be disabled.
        PR_SET_THP_DISABLE => {
            if no_more(a, 2) {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        PR_GET_THP_DISABLE => {
            if no_more(a, 1) {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        PR_SET_IO_FLUSHER | PR_GET_IO_FLUSHER => io_flusher(cx, a),
        // Names of anonymous memory: as a Linux built without CONFIG_ANON_VMA_NAME.
        PR_SET_VMA => Err(Errno::EINVAL),
        _ => privileges(cx, a),
    }
}

/// Are all arguments from `first` on 0?
fn no_more(a: Args, first: usize) -> bool {
    (first..5).all(|n| a.size(n) == 0)
}

fn write_int(at: usize, value: i32) -> Result<usize> {
    UserPtr::new(at).write(&value)?;
    Ok(0)
}

fn set_name(cx: &Context, at: usize) -> Result<usize> {
    let mut name = [0; 16];
    // The string may end before an unmapped page.
    for (index, byte) in name.iter_mut().take(15).enumerate() {
        let mut one = [0];
        copy_in(&mut one, at.wrapping_add(index))?;
        *byte = one[0];
        if one[0] == 0 {
            break;
        }
    }
    let len = name.iter().position(|&b| b == 0).unwrap_or(15);
    cx.task.set_comm(&name[..len]);
    Ok(0)
}

fn io_flusher(cx: &Context, a: Args) -> Result<usize> {
    if !cx.task.cred().capable(base::Capability::SysResource) {
        return Err(Errno::EPERM);
    }
    if no_more(a, 2) { Ok(0) } else { Err(Errno::EINVAL) }
}

fn commit(cx: &Context, new: Cred) -> Result<usize> {
    cx.task.set_cred(Arc::new(new));
    Ok(0)
}

/// The options that are about capabilities.
fn privileges(cx: &Context, a: Args) -> Result<usize> {
    let cred = cx.task.cred();
    let value = a.size(1) as u64;
    match a.int(0) {
        PR_GET_KEEPCAPS => Ok(usize::from(cred.securebits & SECBIT_KEEP_CAPS != 0)),
        PR_SET_KEEPCAPS => commit(cx, capability::set_keep(&cred, value)?),
        PR_CAPBSET_READ => Ok(usize::from(cred.bounding.contains(capability::single(value)?))),
        PR_CAPBSET_DROP => commit(cx, capability::drop_bounding(&cred, value)?),
        PR_GET_SECUREBITS => Ok(cred.securebits as usize),
        PR_SET_SECUREBITS => commit(cx, capability::set_securebits(&cred, a.uint(1))?),
        PR_SET_NO_NEW_PRIVS if value != 1 || !no_more(a, 2) => Err(Errno::EINVAL),
        PR_SET_NO_NEW_PRIVS => commit(cx, Cred { no_new_privs: true, ..Cred::clone(&cred) }),
        PR_GET_NO_NEW_PRIVS if !no_more(a, 1) => Err(Errno::EINVAL),
        PR_GET_NO_NEW_PRIVS => Ok(usize::from(cred.no_new_privs)),
        PR_CAP_AMBIENT => ambient(cx, &cred, a),
        _ => Err(Errno::EINVAL),
    }
}

fn ambient(cx: &Context, cred: &Cred, a: Args) -> Result<usize> {
    const IS_SET: usize = 1;
    const RAISE: usize = 2;
    const LOWER: usize = 3;
    const CLEAR_ALL: usize = 4;
    if !no_more(a, 3) {
        return Err(Errno::EINVAL);
    }
    let number = a.size(2) as u64;
    match a.size(1) {
        IS_SET => Ok(usize::from(cred.ambient.contains(capability::single(number)?))),
        RAISE => commit(cx, capability::set_ambient(cred, number, true)?),
        LOWER => commit(cx, capability::set_ambient(cred, number, false)?),
        CLEAR_ALL if number != 0 => Err(Errno::EINVAL),
        CLEAR_ALL => commit(cx, Cred { ambient: base::CapSet::empty(), ..cred.clone() }),
        _ => Err(Errno::EINVAL),
    }
}
