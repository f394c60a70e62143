//! Linux AIO: io_setup, io_submit, io_getevents, io_pgetevents, io_cancel, io_destroy.

use alloc::sync::Arc;

use base::{Errno, Events, Nanos, Result};
use fs::{Access, OpenFile, PollTable};
use hal::user::UserPtr;
use ipc::aio::{self, Context as AioContext, Event};
use mm::{MapRequest, Prot, Sink, Source};
use process::signal::{SigSet, with_temporary_mask};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::scheduling::check_io_priority;
use crate::timespec::Timespec;
use crate::transfer::{buffer, buffers, with_rwf, write_source};

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: i32,
    buf: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: i32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct RawEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// IOCB_CMD_*.
mod command {
    pub(super) const PREAD: u16 = 0;
    pub(super) const PWRITE: u16 = 1;
    pub(super) const FSYNC: u16 = 2;
    pub(super) const FDSYNC: u16 = 3;
    pub(super) const POLL: u16 = 5;
    pub(super) const PREADV: u16 = 7;
    pub(super) const PWRITEV: u16 = 8;
}

/// IOCB_FLAG_RESFD: tell an eventfd.
const RESFD: u32 = 1;
/// IOCB_FLAG_IOPRIO: the request has a priority of its own.
const HAS_PRIORITY: u32 = 2;
/// More than this would not fit the counts that Linux keeps.
const SIZE_MAX: u32 = 0x1000_0000 / 32 / 2;

pub(crate) fn io_setup(cx: &mut Context, a: Args) -> Result<usize> {
    let pointer = a.ptr::<usize>(1);
    if pointer.read()? != 0 || a.uint(0) == 0 {
        return Err(Errno::EINVAL);
    }
    if a.uint(0) > SIZE_MAX {
        return Err(Errno::EINVAL);
    }
    // A context's number is the address of a page. Its zeros tell the C library that events are not to be had without a call.
    let space = cx.task.address_space();
    let id = space.map(MapRequest::anonymous(abi::PAGE_SIZE, Prot::READ | Prot::WRITE))?;
    let made = aio::create(cx.task.pid(), id, a.uint(0) as usize).and_then(|()| {
        pointer.write(&id).inspect_err(|_| {
            let _ = aio::destroy(cx.task.pid(), id);
        })
    });
    if let Err(error) = made {
        space.unmap(id, abi::PAGE_SIZE)?;
        return Err(error);
    }
    Ok(0)
}

pub(crate) fn io_destroy(cx: &mut Context, a: Args) -> Result<usize> {
    aio::destroy(cx.task.pid(), a.size(0))?;
    cx.task.address_space().unmap(a.size(0), abi::PAGE_SIZE)?;
    Ok(0)
}

pub(crate) fn io_submit(cx: &mut Context, a: Args) -> Result<usize> {
    let context = aio::find(cx.task.pid(), a.size(0))?;
    let count = usize::try_from(a.0[1] as isize).map_err(|_| Errno::EINVAL)?;
    let blocks = a.ptr::<usize>(2);
    for index in 0..count {
        let one = blocks.at(index).read().and_then(|at| submit(cx, &context, at));
        if let Err(error) = one {
            return if index > 0 { Ok(index) } else { Err(error) };
        }
    }
    Ok(count)
}

fn submit(cx: &mut Context, context: &Arc<AioContext>, at: usize) -> Result<()> {
    let block = UserPtr::<ControlBlock>::new(at).read()?;
    if block.reserved != 0 || block.bytes > isize::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    context.check_room()?;
    let open = cx.task.files().get(block.fd)?;
    let eventfd = match block.flags & RESFD != 0 {
        true => Some(eventfd(cx, block.eventfd)?),
        false => None,
    };
    UserPtr::<u32>::new(at.wrapping_add(8)).write(&0)?;
    if block.opcode == command::POLL {
        let wrong = block.buf > 0xffff || block.offset != 0 || block.bytes != 0 || block.rw_flags != 0;
        let events = Events::from_bits_truncate(block.buf as u32);
        // What can't be waited for is ready at once, or never.
        let never = || !open.file().pollable() && !open.poll(&mut PollTable::ask()).intersects(events);
        if wrong || never() {
            return Err(Errno::EINVAL);
        }
        return context.poll(&open, events, (block.data, at as u64), eventfd);
    }
    let result = transfer(cx, &open, &block)?;
    let result = match result {
        Ok(moved) => moved as i64,
        Err(Errno::ERESTARTSYS) => -i64::from(Errno::EINTR.code()),
        Err(error) => -i64::from(error.code()),
    };
    context.complete(Event { data: block.data, object: at as u64, result }, eventfd.as_deref());
    Ok(())
}

/// The eventfd of a request. `EBADF`, `EINVAL`.
fn eventfd(cx: &Context, fd: i32) -> Result<Arc<OpenFile>> {
    let open = cx.task.files().get(fd)?;
    if ipc::eventfd::is_eventfd(&open) { Ok(open) } else { Err(Errno::EINVAL) }
}

/// Does what a request asks for: the outer error is io_submit(2)'s, the inner one the request's.
fn transfer(cx: &mut Context, open: &Arc<OpenFile>, block: &ControlBlock) -> Result<Result<usize>> {
    let writes = matches!(block.opcode, command::PWRITE | command::PWRITEV);
    match block.opcode {
        command::FSYNC | command::FDSYNC => {
            if block.buf != 0 || block.offset != 0 || block.bytes != 0 || block.rw_flags != 0 {
                return Err(Errno::EINVAL);
            }
            let file = open.file();
            let result = if block.opcode == command::FSYNC { file.sync() } else { file.sync_data() };
            // An object without storage has nothing to be asked for.
            return if result == Err(Errno::EINVAL) { Err(Errno::EINVAL) } else { Ok(result.map(|()| 0)) };
        }
        command::PREAD | command::PWRITE | command::PREADV | command::PWRITEV => {}
        _ => return Err(Errno::EINVAL),
    }
    if block.flags & HAS_PRIORITY != 0 {
        check_io_priority(cx.task, i32::from(block.priority))?;
    }
    let flags = with_rwf(open, block.rw_flags)?;
    if !open.access().contains(if writes { Access::WRITE } else { Access::READ }) {
        return Err(Errno::EBADF);
    }
    let list = match block.opcode {
        command::PREAD | command::PWRITE => alloc::vec![buffer(block.buf as usize, block.bytes as usize)?],
        _ => buffers(block.buf as usize, block.bytes as usize)?,
    };
    let positioned = open.file().positioned();
    let at = if positioned { Some(u64::try_from(block.offset).map_err(|_| Errno::EINVAL)?) } else { None };
    if writes {
        return Ok(write_source(cx, open, at, &mut Source::user(&list), flags));
    }
    let mut sink = Sink::user(&list);
    Ok(match at {
        Some(at) => open.read_at_with(at, &mut sink, flags),
        None => open.read_with(&mut sink, flags),
    })
}

fn get_events(cx: &Context, a: Args, deadline: Option<Nanos>) -> Result<usize> {
    let context = aio::find(cx.task.pid(), a.size(0))?;
    let (least, most) = (a.0[1] as isize, a.0[2] as isize);
    if least < 0 || most < least {
        return Err(Errno::EINVAL);
    }
    let events = context.wait(least as usize, most as usize, deadline)?;
    let pointer = a.ptr::<RawEvent>(3);
    for (index, event) in events.iter().enumerate() {
        let raw = RawEvent { data: event.data, object: event.object, result: event.result, result2: 0 };
        if let Err(error) = pointer.at(index).write(&raw) {
            context.put_back(&events[index..]);
            return if index > 0 { Ok(index) } else { Err(error) };
        }
    }
    Ok(events.len())
}

fn deadline(pointer: UserPtr<Timespec>) -> Result<Option<Nanos>> {
    let timeout = Timespec::read_optional(pointer)?;
    Ok(timeout.map(|time| sched::time::now().saturating_add(time)))
}

pub(crate) fn io_getevents(cx: &mut Context, a: Args) -> Result<usize> {
    get_events(cx, a, deadline(a.ptr(4))?)
}

pub(crate) fn io_pgetevents(cx: &mut Context, a: Args) -> Result<usize> {
    let deadline = deadline(a.ptr(4))?;
    let mask = match a.ptr::<[usize; 2]>(5).non_null() {
        None => None,
        Some(pointer) => match pointer.read()? {
            [0, _] => None,
            [_, size] if size != 8 => return Err(Errno::EINVAL),
            [at, _] => Some(SigSet(UserPtr::<u64>::new(at).read()?)),
        },
    };
    with_temporary_mask(cx.task, mask, || get_events(cx, a, deadline))
}

pub(crate) fn io_cancel(cx: &mut Context, a: Args) -> Result<usize> {
    let key = UserPtr::<u32>::new(a.0[1].wrapping_add(8)).read()?;
    if key != 0 {
        return Err(Errno::EINVAL);
    }
    let context = aio::find(cx.task.pid(), a.size(0))?;
    // The result comes as an event, which is what the error says.
    if context.cancel(a.0[1] as u64) { Err(Errno::EINPROGRESS) } else { Err(Errno::EINVAL) }
}
