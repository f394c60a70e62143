//! Clocks and sleeping.

use base::{Capability, Errno, NANOS_PER_SEC, Nanos, Result};
use hal::user::UserPtr;
use process::signal::Restart;
use process::timer::posix::Clock;
use process::tree;
use sched::{Sleep, SleepEnd};

use crate::args::Args;
use crate::context::Context;
use crate::timespec::{Timespec, Timeval};

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_REALTIME_ALARM: i32 = 8;
const CLOCK_BOOTTIME_ALARM: i32 = 9;
const CLOCK_TAI: i32 = 11;
/// TIMER_ABSTIME.
pub(crate) const TIMER_ABSTIME: i32 = 1;

/// The clock with number `id`; negative numbers name the processor time of a process or thread. `EINVAL`.
pub(crate) fn clock(cx: &Context, id: i32) -> Result<Clock> {
    let process = || Clock::Process(alloc::sync::Arc::downgrade(cx.task.process()));
    Ok(match id {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => Clock::Real,
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => {
            Clock::Monotonic
        }
        CLOCK_PROCESS_CPUTIME_ID => process(),
        CLOCK_THREAD_CPUTIME_ID => thread_clock(cx)?,
        i32::MIN..0 => return cpu_clock(cx, id),
        _ => return Err(Errno::EINVAL),
    })
}

fn thread_clock(cx: &Context) -> Result<Clock> {
    let task = tree::task(cx.task.tid()).ok_or(Errno::EINVAL)?;
    Ok(Clock::Thread(alloc::sync::Arc::downgrade(&task)))
}

/// MAKE_PROCESS_CPUCLOCK: the inverted pid, the "thread" bit and the kind (2: what the scheduler counts).
fn cpu_clock(cx: &Context, id: i32) -> Result<Clock> {
    const PER_THREAD: i32 = 4;
    if id & 3 == 3 {
        return Err(Errno::EINVAL);
    }
    let pid = !(id >> 3);
    let task = match pid {
        0 => tree::task(cx.task.tid()),
        pid => tree::task(pid),
    };
    let task = task.ok_or(Errno::EINVAL)?;
    if id & PER_THREAD != 0 {
        let own = alloc::sync::Arc::ptr_eq(task.process(), cx.task.process());
        return if own { Ok(Clock::Thread(alloc::sync::Arc::downgrade(&task))) } else { Err(Errno::EINVAL) };
    }
    if pid != 0 && !task.is_leader() {
        return Err(Errno::EINVAL);
    }
    Ok(Clock::Process(alloc::sync::Arc::downgrade(task.process())))
}

pub(crate) fn clock_gettime(cx: &mut Context, a: Args) -> Result<usize> {
    let now = match a.int(0) {
        // Without counting references, for the two that everybody uses.
        CLOCK_MONOTONIC => sched::time::now(),
        CLOCK_REALTIME => sched::time::realtime(),
        id => clock(cx, id)?.now(),
    };
    a.ptr(1).write(&Timespec::from_nanos(now))?;
    Ok(0)
}

pub(crate) fn clock_getres(cx: &mut Context, a: Args) -> Result<usize> {
    const COARSE: Nanos = 4_000_000;
    clock(cx, a.int(0))?;
    let resolution = if matches!(a.int(0), CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE) { COARSE } else { 1 };
    if let Some(to) = a.ptr::<Timespec>(1).non_null() {
        to.write(&Timespec::from_nanos(resolution))?;
    }
    Ok(0)
}

fn set_clock(cx: &Context, nanos: Nanos) -> Result<usize> {
    if !cx.task.cred().capable(Capability::SysTime) {
        return Err(Errno::EPERM);
    }
    sched::time::set_realtime(nanos);
    Ok(0)
}

pub(crate) fn clock_settime(cx: &mut Context, a: Args) -> Result<usize> {
    let id = a.int(0);
    clock(cx, id)?;
    if id != CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    let nanos = a.ptr::<Timespec>(1).read()?.to_nanos()?;
    set_clock(cx, nanos)
}

pub(crate) fn gettimeofday(_: &mut Context, a: Args) -> Result<usize> {
    if let Some(to) = a.ptr::<Timeval>(0).non_null() {
        to.write(&Timeval::from_nanos(sched::time::realtime()))?;
    }
    if let Some(zone) = a.ptr::<[i32; 2]>(1).non_null() {
        zone.write(&[0, 0])?;
    }
    Ok(0)
}

pub(crate) fn settimeofday(cx: &mut Context, a: Args) -> Result<usize> {
    if let Some(zone) = a.ptr::<[i32; 2]>(1).non_null() {
        zone.read()?;
    }
    match a.ptr::<Timeval>(0).non_null() {
        Some(time) => set_clock(cx, time.read()?.to_nanos()?),
        None => Ok(0),
    }
}

pub(crate) fn time(_: &mut Context, a: Args) -> Result<usize> {
    let seconds = (sched::time::realtime() / NANOS_PER_SEC) as i64;
    if let Some(to) = a.ptr::<i64>(0).non_null() {
        to.write(&seconds)?;
    }
    Ok(seconds as usize)
}

/// Sleeps until `deadline` on the monotonic clock. If a signal comes first, what is left goes to `remaining`, and restart_syscall(2)
/// can sleep on.
fn sleep(cx: &Context, deadline: Nanos, remaining: usize) -> Result<usize> {
    match sched::thread::sleep_until(Sleep::Interruptible, deadline) {
        SleepEnd::TimedOut | SleepEnd::Woken => Ok(0),
        SleepEnd::Interrupted => {
            let left = deadline.saturating_sub(sched::time::now());
            if left == 0 {
                return Ok(0);
            }
            if let Some(to) = UserPtr::<Timespec>::new(remaining).non_null() {
                to.write(&Timespec::from_nanos(left))?;
            }
            cx.task.set_restart(Restart::Sleep { deadline, remaining });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

pub(crate) fn nanosleep(cx: &mut Context, a: Args) -> Result<usize> {
    let length = a.ptr::<Timespec>(0).read()?.to_nanos()?;
    sleep(cx, sched::time::now().saturating_add(length), a.size(1))
}

pub(crate) fn clock_nanosleep(cx: &mut Context, a: Args) -> Result<usize> {
    let (id, absolute) = (a.int(0), a.int(1) & TIMER_ABSTIME != 0);
    let sleepable = !matches!(id, CLOCK_MONOTONIC_RAW | CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE);
    let clock = clock(cx, id)?;
    if !sleepable {
        return Err(Errno::EOPNOTSUPP);
    }
    if id == CLOCK_THREAD_CPUTIME_ID {
        return Err(Errno::EINVAL);
    }
    let time = a.ptr::<Timespec>(2).read()?.to_nanos()?;
    match clock {
        Clock::Process(_) | Clock::Thread(_) => sleep_on_processor_time(&clock, time, absolute),
        _ if !absolute => sleep(cx, sched::time::now().saturating_add(time), a.size(3)),
        _ => sleep_absolute(&clock, time),
    }
}

/// Absolute sleeps restart with the same arguments.
fn sleep_absolute(clock: &Clock, time: Nanos) -> Result<usize> {
    loop {
        let left = time.saturating_sub(clock.now());
        if left == 0 {
            return Ok(0);
        }
        let deadline = sched::time::now().saturating_add(left);
        if sched::thread::sleep_until(Sleep::Interruptible, deadline) == SleepEnd::Interrupted {
            return Err(Errno::ERESTARTNOHAND);
        }
    }
}

/// Looks again each time as much real time has passed as processor time is missing.
fn sleep_on_processor_time(clock: &Clock, time: Nanos, absolute: bool) -> Result<usize> {
    const SHORTEST: Nanos = 1_000_000;
    let until = if absolute { time } else { clock.now().saturating_add(time) };
    loop {
        let left = until.saturating_sub(clock.now());
        if left == 0 {
            return Ok(0);
        }
        let deadline = sched::time::now().saturating_add(left.max(SHORTEST));
        if sched::thread::sleep_until(Sleep::Interruptible, deadline) == SleepEnd::Interrupted {
            return Err(Errno::EINTR);
        }
    }
}

pub(crate) fn restart_syscall(cx: &mut Context, _: Args) -> Result<usize> {
    match cx.task.take_restart() {
        Some(Restart::Sleep { deadline, remaining }) => sleep(cx, deadline, remaining),
        Some(Restart::Futex { word, value, bits, operation, end }) => {
            crate::futex::wait_again(cx, word, value, bits, operation, end)
        }
        Some(Restart::Poll { fds, count, deadline }) => crate::poll::poll_again(cx, fds, count, deadline),
        None => Err(Errno::EINTR),
    }
}

/// `struct timex`, of which only the parts that tell something true are filled in.
#[repr(C)]
#[derive(Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    freq: i64,
    maxerror: i64,
    esterror: i64,
    status: i32,
    pad2: u32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    time: Timeval,
    tick: i64,
    rest: [u64; 15],
}

fn adjust(cx: &Context, at: UserPtr<Timex>) -> Result<usize> {
    const STA_UNSYNC: i32 = 0x40;
    const TIME_ERROR: usize = 5;
    /// What adjtime(3) has left to adjust.
    const ADJ_OFFSET_SS_READ: u32 = 0xa001;
    let mut timex = at.read()?;
    if timex.modes == ADJ_OFFSET_SS_READ {
        timex.offset = 0;
    } else if timex.modes != 0 {
        // The clock runs at the hardware's rate: there is nothing to steer.
        let privileged = cx.task.cred().capable(Capability::SysTime);
        return Err(if privileged { Errno::EOPNOTSUPP } else { Errno::EPERM });
    }
    timex.time = Timeval::from_nanos(sched::time::realtime());
    (timex.status, timex.tick, timex.precision) = (STA_UNSYNC, 10_000, 1);
    (timex.maxerror, timex.esterror, timex.tolerance) = (16_000_000, 16_000_000, 32_768_000);
    at.write(&timex)?;
    Ok(TIME_ERROR)
}

pub(crate) fn adjtimex(cx: &mut Context, a: Args) -> Result<usize> {
    adjust(cx, a.ptr(0))
}

pub(crate) fn clock_adjtime(cx: &mut Context, a: Args) -> Result<usize> {
    clock(cx, a.int(0))?;
    if a.int(0) == CLOCK_REALTIME { adjust(cx, a.ptr(1)) } else { Err(Errno::EOPNOTSUPP) }
}
