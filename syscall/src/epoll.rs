//! epoll_create, epoll_ctl, epoll_wait and its kin.

use base::{Capability, Errno, Nanos, Result};
use hal::user::UserPtr;
use ipc::epoll::{self, Epoll, EventFlags, Interest, Occurred};
use ipc::poll::Until;
use process::signal::{SigSet, with_temporary_mask};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::args::Args;
use crate::context::Context;
use crate::open::install;
use crate::path::only;
use crate::poll::{mask, until};
use crate::timespec::Timespec;

/// `struct epoll_event`.
#[repr(C, packed)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct EpollEvent {
    events: u32,
    data: u64,
}

pub(crate) fn epoll_create(cx: &mut Context, a: Args) -> Result<usize> {
    if a.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    install(cx.task, epoll::create(), false)
}

pub(crate) fn epoll_create1(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = only(a.uint(0), abi::general::O_CLOEXEC)?;
    install(cx.task, epoll::create(), flags != 0)
}

pub(crate) fn epoll_ctl(cx: &mut Context, a: Args) -> Result<usize> {
    const ADD: i32 = 1;
    const DEL: i32 = 2;
    const MOD: i32 = 3;
    let operation = a.int(1);
    let event = if operation == DEL { EpollEvent::new_zeroed() } else { a.ptr::<EpollEvent>(3).read()? };
    let files = cx.task.files();
    let instance = files.get(a.fd(0))?;
    let fd = a.fd(2);
    let open = files.get(fd)?;
    if !open.file().pollable() {
        return Err(Errno::EPERM);
    }
    if core::ptr::eq(&*instance, &*open) {
        return Err(Errno::EINVAL);
    }
    let epoll = Epoll::of(&instance)?;
    let mut bits = event.events;
    if !cx.task.cred().capable(Capability::BlockSuspend) {
        bits &= !EventFlags::WAKEUP.bits();
    }
    let interest = Interest::new(bits, event.data);
    if operation != DEL && interest.misuses_exclusive() {
        return Err(Errno::EINVAL);
    }
    match operation {
        ADD => epoll.add(fd, &open, interest)?,
        DEL => epoll.remove(fd, &open)?,
        MOD if interest.flags.contains(EventFlags::EXCLUSIVE) => return Err(Errno::EINVAL),
        MOD => epoll.modify(fd, &open, interest)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn wait(cx: &Context, a: Args, until: Until, mask: Option<SigSet>) -> Result<usize> {
    let max = usize::try_from(a.int(2))
        .ok()
        .filter(|&n| n > 0 && n <= i32::MAX as usize / size_of::<EpollEvent>())
        .ok_or(Errno::EINVAL)?;
    if !hal::user::UserBuf::new(a.0[1], max * size_of::<EpollEvent>()).in_user_half() {
        return Err(Errno::EFAULT);
    }
    let instance = cx.task.files().get(a.fd(0))?;
    let epoll = Epoll::of(&instance)?;
    let mut at = UserPtr::<EpollEvent>::new(a.0[1]);
    with_temporary_mask(cx.task, mask, || {
        epoll.wait(max, until, |Occurred { events, data }| {
            at.write(&EpollEvent { events, data })?;
            at = at.at(1);
            Ok(())
        })
    })
}

/// A timeout in milliseconds; a negative one is none.
fn millis(value: i32) -> Option<Nanos> {
    u64::try_from(value).ok().map(|n| n * 1_000_000)
}

pub(crate) fn epoll_wait(cx: &mut Context, a: Args) -> Result<usize> {
    wait(cx, a, until(millis(a.int(3))), None)
}

pub(crate) fn epoll_pwait(cx: &mut Context, a: Args) -> Result<usize> {
    let mask = mask(a.ptr(4), a.size(5))?;
    wait(cx, a, until(millis(a.int(3))), mask)
}

pub(crate) fn epoll_pwait2(cx: &mut Context, a: Args) -> Result<usize> {
    let timeout = Timespec::read_optional(UserPtr::new(a.0[3]))?;
    let mask = mask(a.ptr(4), a.size(5))?;
    wait(cx, a, until(timeout), mask)
}
