//! Interval timers and POSIX timers.

use alloc::sync::Arc;

use base::{Errno, NANOS_PER_SEC, Result};
use hal::user::UserPtr;
use process::signal::Signal;
use process::timer::posix::{self, Notification};
use process::timer::{Interval, Which};
use process::tree;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::time::{self, TIMER_ABSTIME};
use crate::timespec::{Timespec, Timeval};

/// `struct itimerval`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct Itimerval {
    interval: Timeval,
    value: Timeval,
}

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct Itimerspec {
    interval: Timespec,
    value: Timespec,
}

impl Itimerval {
    fn of(interval: Interval) -> Itimerval {
        // What is left is rounded up: an armed timer never shows 0.
        let value = Timeval::from_nanos(interval.remaining.saturating_add(999));
        Itimerval { interval: Timeval::from_nanos(interval.interval), value }
    }
}

const ITIMER_REAL: i32 = 0;
const ITIMER_VIRTUAL: i32 = 1;
const ITIMER_PROF: i32 = 2;

pub(crate) fn getitimer(cx: &mut Context, a: Args) -> Result<usize> {
    let process = cx.task.process();
    let interval = match a.int(0) {
        ITIMER_REAL => process.real_timer().get(),
        ITIMER_VIRTUAL => process.cpu_timers().get(process, Which::Virtual),
        ITIMER_PROF => process.cpu_timers().get(process, Which::Profiling),
        _ => return Err(Errno::EINVAL),
    };
    a.ptr(1).write(&Itimerval::of(interval))?;
    Ok(0)
}

pub(crate) fn setitimer(cx: &mut Context, a: Args) -> Result<usize> {
    let new = match a.ptr::<Itimerval>(1).non_null() {
        Some(at) => at.read()?,
        None => Itimerval::default(),
    };
    let new = Interval { remaining: new.value.to_nanos()?, interval: new.interval.to_nanos()? };
    let process = cx.task.process();
    let old = match a.int(0) {
        ITIMER_REAL => process.real_timer().set(new),
        ITIMER_VIRTUAL => process.cpu_timers().set(process, Which::Virtual, new),
        ITIMER_PROF => process.cpu_timers().set(process, Which::Profiling, new),
        _ => return Err(Errno::EINVAL),
    };
    if let Some(to) = a.ptr::<Itimerval>(2).non_null() {
        to.write(&Itimerval::of(old))?;
    }
    Ok(0)
}

pub(crate) fn alarm(cx: &mut Context, a: Args) -> Result<usize> {
    let new = Interval { remaining: u64::from(a.uint(0)) * NANOS_PER_SEC, interval: 0 };
    let old = cx.task.process().real_timer().set(new).remaining;
    let (seconds, rest) = (old / NANOS_PER_SEC, old % NANOS_PER_SEC);
    // Never 0 for an alarm that was set, else rounded.
    let up = u64::from(seconds == 0 && rest > 0 || rest >= NANOS_PER_SEC / 2);
    Ok((seconds + up) as usize)
}

/// `struct sigevent`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
pub(crate) struct Sigevent {
    pub(crate) value: u64,
    pub(crate) signo: i32,
    pub(crate) notify: i32,
    tid: i32,
    pad: [i32; 11],
}

/// To a `sigevent`: send a signal.
pub(crate) const SIGEV_SIGNAL: i32 = 0;
/// Do nothing.
pub(crate) const SIGEV_NONE: i32 = 1;
/// By a thread, which the C library starts.
pub(crate) const SIGEV_THREAD: i32 = 2;

fn notification(cx: &Context, at: UserPtr<Sigevent>) -> Result<impl FnOnce(i32) -> Notification + use<>> {
    const SIGEV_THREAD_ID: i32 = 4;
    let event = at.non_null().map(UserPtr::read).transpose()?;
    let mut made = None;
    if let Some(event) = event {
        made = Some(match event.notify {
            SIGEV_NONE => Notification::None,
            SIGEV_SIGNAL | SIGEV_THREAD => Notification::Process(Signal::new(event.signo)?, event.value),
            SIGEV_THREAD_ID => {
                let task = tree::task(event.tid).filter(|task| Arc::ptr_eq(task.process(), cx.task.process()));
                let task = task.ok_or(Errno::EINVAL)?;
                Notification::Thread(Signal::new(event.signo)?, event.value, Arc::downgrade(&task))
            }
            _ => return Err(Errno::EINVAL),
        });
    }
    Ok(move |id: i32| made.unwrap_or(Notification::Process(process::signal::SIGALRM, id as u64)))
}

pub(crate) fn timer_create(cx: &mut Context, a: Args) -> Result<usize> {
    let clock = time::clock(cx, a.int(0))?;
    // Clocks that are only read (RAW, COARSE) have no timers.
    if matches!(a.int(0), 4..=6) {
        return Err(Errno::EOPNOTSUPP);
    }
    let notification = notification(cx, a.ptr(1))?;
    let process = cx.task.process();
    let id = posix::create(cx.task, clock, notification)?;
    if let Err(error) = a.ptr(2).write(&id) {
        posix::delete(process, id)?;
        return Err(error);
    }
    Ok(0)
}

pub(crate) fn timer_delete(cx: &mut Context, a: Args) -> Result<usize> {
    posix::delete(cx.task.process(), a.int(0))?;
    Ok(0)
}

impl Itimerspec {
    fn of(interval: Interval) -> Itimerspec {
        Itimerspec {
            interval: Timespec::from_nanos(interval.interval),
            value: Timespec::from_nanos(interval.remaining),
        }
    }
}

pub(crate) fn timer_gettime(cx: &mut Context, a: Args) -> Result<usize> {
    let timer = posix::get(cx.task.process(), a.int(0))?;
    a.ptr(1).write(&Itimerspec::of(timer.get()))?;
    Ok(0)
}

pub(crate) fn timer_settime(cx: &mut Context, a: Args) -> Result<usize> {
    let new = a.ptr::<Itimerspec>(2).non_null().ok_or(Errno::EINVAL)?.read()?;
    let (first, interval) = (new.value.to_nanos()?, new.interval.to_nanos()?);
    let timer = posix::get(cx.task.process(), a.int(0))?;
    let old = timer.set(first, interval, a.int(1) & TIMER_ABSTIME != 0);
    if let Some(to) = a.ptr::<Itimerspec>(3).non_null() {
        to.write(&Itimerspec::of(old))?;
    }
    Ok(0)
}

pub(crate) fn timer_getoverrun(cx: &mut Context, a: Args) -> Result<usize> {
    posix::get(cx.task.process(), a.int(0)).map(|timer| timer.overrun() as usize)
}
