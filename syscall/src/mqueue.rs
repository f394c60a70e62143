//! POSIX message queues: mq_open and its family (mq_overview(7)).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Nanos, Result};
use fs::{Access, OpenFile, OpenFlags};
use hal::user::UserPtr;
use ipc::mqueue::{self, News, Notification, OpenRequest, Patience, Sender};
use process::signal::info_codes::SI_MESGQ;
use process::signal::{SigFields, SigInfo, Signal, send};
use sched::time::Until;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Args;
use crate::context::Context;
use crate::open::install;
use crate::timer::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, Sigevent};
use crate::timespec::Timespec;

/// One above the highest priority.
const PRIORITIES: u32 = 32768;
/// Longer names are refused before they are read whole.
const NAME_ROOM: usize = 4096;

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MqAttr {
    flags: i64,
    messages: i64,
    size: i64,
    count: i64,
    reserved: [i64; 4],
}

fn name(pointer: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(NAME_ROOM).map_err(|_| Errno::ENOMEM)?;
    room.resize(NAME_ROOM, 0);
    Ok(hal::user::read_cstr(&mut room, pointer)?.to_vec())
}

pub(crate) fn mq_open(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = OpenFlags::from_bits_truncate(a.uint(1));
    let attributes = a.ptr::<MqAttr>(3).non_null().map(UserPtr::read).transpose()?;
    let attributes = attributes.filter(|_| flags.contains(OpenFlags::CREAT));
    let name = name(a.0[0])?;
    let request = OpenRequest {
        name: &name,
        flags,
        mode: a.uint(2),
        attributes: attributes.map(|attributes| (attributes.messages, attributes.size)),
    };
    let open = mqueue::open(&cx.task.fs_context(), &request)?;
    // As Linux, whatever the flags say.
    install(cx.task, open, true)
}

pub(crate) fn mq_unlink(cx: &mut Context, a: Args) -> Result<usize> {
    mqueue::unlink(&cx.task.fs_context(), &name(a.0[0])?)?;
    Ok(0)
}

/// An absolute time on the real-time clock. `EINVAL`, `EFAULT`.
fn deadline(at: UserPtr<Timespec>) -> Result<Option<Until>> {
    Ok(Timespec::read_optional(at)?.map(Until::Real))
}

fn patience(open: &OpenFile, deadline: Option<Nanos>) -> Patience {
    if open.flags().contains(OpenFlags::NONBLOCK) { Patience::None } else { Patience::Until(deadline) }
}

pub(crate) fn mq_timedsend(cx: &mut Context, a: Args) -> Result<usize> {
    let (len, priority) = (a.size(2), a.uint(3));
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(a.ptr(4))?;
    let open = cx.task.files().get(a.fd(0))?;
    let queue = mqueue::of(&open)?;
    if !open.access().contains(Access::WRITE) {
        return Err(Errno::EBADF);
    }
    if len > queue.attributes().size {
        return Err(Errno::EMSGSIZE);
    }
    let mut text = Vec::new();
    text.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    text.resize(len, 0);
    hal::user::copy_in(&mut text, a.0[1])?;
    let sender = Sender { pid: cx.task.pid(), uid: cx.task.cred().uid };
    Until::follow(deadline, |end| queue.send(text, priority, sender, patience(&open, end)))?;
    Ok(0)
}

pub(crate) fn mq_timedreceive(cx: &mut Context, a: Args) -> Result<usize> {
    let deadline = deadline(a.ptr(4))?;
    let open = cx.task.files().get(a.fd(0))?;
    let queue = mqueue::of(&open)?;
    if !open.access().contains(Access::READ) {
        return Err(Errno::EBADF);
    }
    if a.size(2) < queue.attributes().size {
        return Err(Errno::EMSGSIZE);
    }
    let (text, priority) = Until::follow(deadline, |end| queue.receive(patience(&open, end)))?;
    hal::user::copy_out(a.0[1], &text)?;
    if let Some(at) = a.ptr::<u32>(3).non_null() {
        at.write(&priority)?;
    }
    Ok(text.len())
}

/// How a process is told (mq_notify(3)).
type Tell = Box<dyn Fn(News) + Send + Sync>;

/// Tells by a signal. `EINVAL`.
fn tell_by_signal(cx: &Context, event: &Sigevent) -> Result<Tell> {
    // As on Linux, no signal at all is accepted.
    let Some(signal) = Signal::or_zero(event.signo)? else { return Ok(Box::new(|_| {})) };
    let (process, value) = (Arc::downgrade(cx.task.process()), event.value);
    Ok(Box::new(move |news| {
        if let (News::Message(sender), Some(process)) = (news, process.upgrade()) {
            let fields = SigFields::Queued { pid: sender.pid, uid: sender.uid, value };
            // A process that is just ending needs no signal any more.
            let _ = send::to_process(&process, SigInfo { signal, errno: 0, code: SI_MESGQ, fields });
        }
    }))
}

/// Tells a thread of the C library, which reads a netlink socket (the event's signal number is its descriptor): by the bytes that the event's
/// value points to, whose last one says why. `EBADF`, `EINVAL`, `EFAULT`.
fn tell_by_socket(cx: &Context, event: &Sigevent) -> Result<Tell> {
    const WOKEN: u8 = 1;
    const REMOVED: u8 = 2;
    let cookie = UserPtr::<[u8; 32]>::new(event.value as usize).read()?;
    let open = cx.task.files().get(event.signo)?;
    let socket = net::netlink_socket_of(&open)?;
    Ok(Box::new(move |news| {
        let mut bytes = cookie;
        bytes[31] = if news == News::Removed { REMOVED } else { WOKEN };
        socket.put(&bytes);
    }))
}

pub(crate) fn mq_notify(cx: &mut Context, a: Args) -> Result<usize> {
    let event = a.ptr::<Sigevent>(1).non_null().map(UserPtr::read).transpose()?;
    let tell: Tell = match &event {
        Some(event) if event.notify == SIGEV_SIGNAL => tell_by_signal(cx, event)?,
        Some(event) if event.notify == SIGEV_THREAD => tell_by_socket(cx, event)?,
        Some(event) if event.notify != SIGEV_NONE => return Err(Errno::EINVAL),
        _ => Box::new(|_| {}),
    };
    let queue = mqueue::of(&*cx.task.files().get(a.fd(0))?)?;
    let (table, pid) = (cx.task.files().id(), cx.task.pid());
    let Some(event) = event else {
        queue.cancel_notification(table);
        return Ok(0);
    };
    let shown = (event.notify, if event.notify == SIGEV_SIGNAL { event.signo } else { 0 });
    queue.notify(Notification { table, pid, shown, tell })?;
    Ok(0)
}

pub(crate) fn mq_getsetattr(cx: &mut Context, a: Args) -> Result<usize> {
    let new = a.ptr::<MqAttr>(1).non_null().map(UserPtr::read).transpose()?;
    let nonblocking = OpenFlags::NONBLOCK.bits();
    if new.is_some_and(|new| new.flags & !i64::from(nonblocking) != 0) {
        return Err(Errno::EINVAL);
    }
    let open = cx.task.files().get(a.fd(0))?;
    let queue = mqueue::of(&open)?;
    let old = MqAttr {
        flags: i64::from(open.flags().bits() & nonblocking),
        messages: queue.attributes().messages as i64,
        size: queue.attributes().size as i64,
        count: queue.len() as i64,
        reserved: [0; 4],
    };
    if let Some(new) = new {
        let rest = open.flags() - OpenFlags::NONBLOCK;
        open.set_flags(rest | OpenFlags::from_bits_truncate(new.flags as u32))?;
    }
    if let Some(at) = a.ptr::<MqAttr>(2).non_null() {
        at.write(&old)?;
    }
    Ok(0)
}
