//! eventfd, timerfd, signalfd, inotify.

use alloc::sync::Arc;

use base::{Capability, Errno, Result};
use fs::OpenFlags;
use fs::inotify::Inotify;
use hal::user::UserPtr;
use ipc::signalfd::SignalFd;
use ipc::timerfd::{Clock, SetFlags, Setting, TimerFd};
use ipc::{eventfd as event, signalfd as signal, timerfd as timer, userfaultfd as userfault};
use process::signal::signalfd::CallerSignals;

use crate::args::Args;
use crate::context::Context;
use crate::open::install;
use crate::path::{At, only};
use crate::timespec::Timespec;

const CLOEXEC: u32 = OpenFlags::CLOEXEC.bits();
const NONBLOCK: u32 = OpenFlags::NONBLOCK.bits();

pub(crate) fn eventfd(cx: &mut Context, a: Args) -> Result<usize> {
    install(cx.task, event::create(a.uint(0), false, false), false)
}

pub(crate) fn eventfd2(cx: &mut Context, a: Args) -> Result<usize> {
    const SEMAPHORE: u32 = 1;
    let flags = only(a.uint(1), SEMAPHORE | CLOEXEC | NONBLOCK)?;
    let open = event::create(a.uint(0), flags & SEMAPHORE != 0, flags & NONBLOCK != 0);
    install(cx.task, open, flags & CLOEXEC != 0)
}

pub(crate) fn userfaultfd(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = a.uint(0);
    let allowed = flags & userfault::USER_MODE_ONLY != 0
        || userfault::is_unprivileged_allowed()
        || cx.task.cred().capable(Capability::SysPtrace);
    if !allowed {
        return Err(Errno::EPERM);
    }
    let open = userfault::create(&cx.task.address_space(), flags)?;
    install(cx.task, open, flags & CLOEXEC != 0)
}

pub(crate) fn timerfd_create(cx: &mut Context, a: Args) -> Result<usize> {
    const REALTIME: i32 = 0;
    const MONOTONIC: i32 = 1;
    const BOOTTIME: i32 = 7;
    const REALTIME_ALARM: i32 = 8;
    const BOOTTIME_ALARM: i32 = 9;
    let flags = only(a.uint(1), CLOEXEC | NONBLOCK)?;
    let alarm = matches!(a.int(0), REALTIME_ALARM | BOOTTIME_ALARM);
    if alarm && !cx.task.cred().capable(Capability::WakeAlarm) {
        return Err(Errno::EPERM);
    }
    let clock = match a.int(0) {
        REALTIME | REALTIME_ALARM => Clock::Realtime,
        MONOTONIC | BOOTTIME | BOOTTIME_ALARM => Clock::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    install(cx.task, timer::create(clock, flags & NONBLOCK != 0), flags & CLOEXEC != 0)
}

/// `struct itimerspec`: interval and value.
type Itimerspec = [Timespec; 2];

fn to_raw(setting: Setting) -> Itimerspec {
    [Timespec::from_nanos(setting.interval), Timespec::from_nanos(setting.value)]
}

pub(crate) fn timerfd_settime(cx: &mut Context, a: Args) -> Result<usize> {
    const ABSOLUTE: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    let [interval, value] = UserPtr::<Itimerspec>::new(a.0[2]).read()?;
    let new = Setting { interval: interval.to_nanos()?, value: value.to_nanos()? };
    let flags = only(a.uint(1), ABSOLUTE | CANCEL_ON_SET)?;
    let flags = SetFlags { absolute: flags & ABSOLUTE != 0, cancel_on_set: flags & CANCEL_ON_SET != 0 };
    let open = cx.task.files().get(a.fd(0))?;
    let old = TimerFd::of(&open)?.set(new, flags);
    if let Some(pointer) = a.ptr::<Itimerspec>(3).non_null() {
        pointer.write(&to_raw(old))?;
    }
    Ok(0)
}

pub(crate) fn timerfd_gettime(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    UserPtr::<Itimerspec>::new(a.0[1]).write(&to_raw(TimerFd::of(&open)?.get())).map(|()| 0)
}

fn make_signalfd(cx: &Context, a: Args, flags: u32) -> Result<usize> {
    if a.size(2) != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = UserPtr::<u64>::new(a.0[1]).read()?;
    let flags = only(flags, CLOEXEC | NONBLOCK)?;
    if a.fd(0) == -1 {
        let open = signal::create(mask, Arc::new(CallerSignals), flags & NONBLOCK != 0);
        return install(cx.task, open, flags & CLOEXEC != 0);
    }
    let open = cx.task.files().get(a.fd(0))?;
    SignalFd::of(&open)?.set_mask(mask);
    Ok(a.0[0] as u32 as usize)
}

pub(crate) fn signalfd(cx: &mut Context, a: Args) -> Result<usize> {
    make_signalfd(cx, a, 0)
}

pub(crate) fn signalfd4(cx: &mut Context, a: Args) -> Result<usize> {
    make_signalfd(cx, a, a.uint(3))
}

pub(crate) fn inotify_init(cx: &mut Context, _: Args) -> Result<usize> {
    install(cx.task, fs::inotify::create(false), false)
}

pub(crate) fn inotify_init1(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = only(a.uint(0), CLOEXEC | NONBLOCK)?;
    install(cx.task, fs::inotify::create(flags & NONBLOCK != 0), flags & CLOEXEC != 0)
}

pub(crate) fn inotify_add_watch(cx: &mut Context, a: Args) -> Result<usize> {
    const ONLYDIR: u32 = 0x0100_0000;
    const DONT_FOLLOW: u32 = 0x0200_0000;
    let open = cx.task.files().get(a.fd(0))?;
    let instance = Inotify::of(&open)?;
    let at = At::cwd(cx.task, a.0[1])?;
    let found = at.lookup(a.uint(2) & DONT_FOLLOW == 0, 0)?;
    if a.uint(2) & ONLYDIR != 0 && !found.inode()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    instance.add(&at.cx, &found, a.uint(2)).map(|number| number as usize)
}

pub(crate) fn inotify_rm_watch(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get(a.fd(0))?;
    Inotify::of(&open)?.remove(a.int(1)).map(|()| 0)
}
