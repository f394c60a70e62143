//! Reading and writing: read, write and their vectored and positioned forms, sendfile, copy_file_range, splice.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::{Access, FileKind, Mapping, OpenFile, OpenFlags};
use hal::user::{UserBuf, UserPtr};
use ipc::pipe;
use mm::{Sink, Source};
use process::{Resource, Task};
use sched::transfers;

use crate::args::Args;
use crate::context::Context;

/// The most that one call moves (MAX_RW_COUNT).
pub(crate) const MAX_COUNT: usize = 0x7fff_f000;
/// The most buffers of a vectored call (UIO_MAXIOV).
pub(crate) const MAX_BUFFERS: usize = 1024;

/// A buffer argument, cut to what one call moves. `EFAULT` outside the user half, `EINVAL` for a negative length.
pub(crate) fn buffer(addr: usize, len: usize) -> Result<UserBuf> {
    if len > isize::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let whole = UserBuf::new(addr, len);
    if whole.in_user_half() { Ok(UserBuf::new(addr, len.min(MAX_COUNT))) } else { Err(Errno::EFAULT) }
}

/// The buffers of a vectored call. `EINVAL` (too many, negative lengths), `EFAULT`, `ENOMEM`.
pub(crate) fn buffers(addr: usize, count: usize) -> Result<Vec<UserBuf>> {
    if count > MAX_BUFFERS {
        return Err(Errno::EINVAL);
    }
    let mut buffers = Vec::new();
    buffers.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    let mut left = MAX_COUNT;
    for index in 0..count {
        let [base, len] = UserPtr::<[usize; 2]>::new(addr).at(index).read()?;
        let whole = buffer(base, len)?;
        let len = whole.len.min(left);
        left -= len;
        buffers.push(UserBuf::new(base, len));
    }
    Ok(buffers)
}

/// Raises SIGPIPE for a write that nobody will read.
pub(crate) fn raise_pipe<T>(task: &Task, result: Result<T>) -> Result<T> {
    if matches!(result, Err(Errno::EPIPE)) {
        task.raise(process::signal::SIGPIPE);
    }
    result
}

/// Cuts a write to a regular file to what RLIMIT_FSIZE allows. `EFBIG` with SIGXFSZ where it allows nothing.
fn limit_size(task: &Task, open: &OpenFile, offset: Option<u64>, source: &mut Source) -> Result<()> {
    let limit = task.rlimit(Resource::Fsize).0;
    if limit == u64::MAX || open.inode().kind() != FileKind::Regular {
        return Ok(());
    }
    let append = open.flags().contains(OpenFlags::APPEND);
    let at = if append { open.stat().size } else { offset.unwrap_or_else(|| open.position()) };
    if at >= limit && source.remaining() > 0 {
        task.raise(process::signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    source.limit(usize::try_from(limit - at.min(limit)).unwrap_or(usize::MAX));
    Ok(())
}

pub(crate) fn write_source(
    cx: &Context,
    open: &OpenFile,
    offset: Option<u64>,
    source: &mut Source,
    flags: OpenFlags,
) -> Result<usize> {
    limit_size(cx.task, open, offset, source)?;
    let result = match offset {
        Some(at) => open.write_at_with(at, source, flags),
        None => open.write_with(source, flags),
    };
    raise_pipe(cx.task, result)
}

/// Counts a read of bytes that went well, or its failure.
#[inline]
fn counted_read(result: Result<usize>) -> Result<usize> {
    transfers::read_call(result.unwrap_or(0));
    result
}

/// As [`counted_read`], for a write.
#[inline]
fn counted_write(result: Result<usize>) -> Result<usize> {
    transfers::write_call(result.unwrap_or(0));
    result
}

pub(crate) fn read(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get_for(a.fd(0), Access::READ)?;
    counted_read(open.read(&mut Sink::user(&[buffer(a.0[1], a.size(2))?])))
}

pub(crate) fn write(cx: &mut Context, a: Args) -> Result<usize> {
    let open = cx.task.files().get_for(a.fd(0), Access::WRITE)?;
    let buffers = [buffer(a.0[1], a.size(2))?];
    let mut source = Source::user(&buffers);
    counted_write(write_source(cx, &open, None, &mut source, open.flags()))
}

/// An offset argument. `EINVAL` if negative.
fn offset(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Errno::EINVAL)
}

pub(crate) fn pread64(cx: &mut Context, a: Args) -> Result<usize> {
    let at = offset(a.offset(3))?;
    let open = cx.task.files().get(a.fd(0))?;
    if !open.file().positioned() {
        return Err(Errno::ESPIPE);
    }
    if !open.access().contains(Access::READ) {
        return Err(Errno::EBADF);
    }
    counted_read(open.read_at(at, &mut Sink::user(&[buffer(a.0[1], a.size(2))?])))
}

pub(crate) fn pwrite64(cx: &mut Context, a: Args) -> Result<usize> {
    let at = offset(a.offset(3))?;
    let open = cx.task.files().get(a.fd(0))?;
    if !open.file().positioned() {
        return Err(Errno::ESPIPE);
    }
    if !open.access().contains(Access::WRITE) {
        return Err(Errno::EBADF);
    }
    let buffers = [buffer(a.0[1], a.size(2))?];
    let mut source = Source::user(&buffers);
    counted_write(write_source(cx, &open, Some(at), &mut source, open.flags()))
}

/// RWF_* flags of preadv2(2) and pwritev2(2).
mod rwf {
    pub(super) const HIPRI: u32 = 1;
    pub(super) const DSYNC: u32 = 2;
    pub(super) const SYNC: u32 = 4;
    pub(super) const NOWAIT: u32 = 8;
    pub(super) const APPEND: u32 = 16;
}

/// The status flags of a transfer with RWF_* `bits`. `EOPNOTSUPP` for unknown ones, and for NOWAIT on files that can't tell.
pub(crate) fn with_rwf(open: &OpenFile, bits: u32) -> Result<OpenFlags> {
    if bits & !(rwf::HIPRI | rwf::DSYNC | rwf::SYNC | rwf::NOWAIT | rwf::APPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut flags = open.flags();
    if bits & rwf::NOWAIT != 0 {
        let regular = open.inode().kind() == FileKind::Regular;
        if regular && !matches!(open.file().mapping(), Ok(Mapping::Pages(_))) {
            return Err(Errno::EOPNOTSUPP);
        }
        flags |= if regular { OpenFlags::NOWAIT } else { OpenFlags::NONBLOCK };
    }
    if bits & rwf::APPEND != 0 {
        flags |= OpenFlags::APPEND;
    }
    Ok(flags)
}

fn read_vector(cx: &Context, a: Args, at: Option<u64>, bits: u32) -> Result<usize> {
    let open = cx.task.files().get_for(a.fd(0), Access::READ)?;
    let buffers = buffers(a.0[1], a.size(2))?;
    let flags = with_rwf(&open, bits)?;
    let mut sink = Sink::user(&buffers);
    counted_read(match at {
        Some(at) => open.read_at_with(at, &mut sink, flags),
        None => open.read_with(&mut sink, flags),
    })
}

fn write_vector(cx: &Context, a: Args, at: Option<u64>, bits: u32) -> Result<usize> {
    let open = cx.task.files().get_for(a.fd(0), Access::WRITE)?;
    let buffers = buffers(a.0[1], a.size(2))?;
    let flags = with_rwf(&open, bits)?;
    counted_write(write_source(cx, &open, at, &mut Source::user(&buffers), flags))
}

pub(crate) fn readv(cx: &mut Context, a: Args) -> Result<usize> {
    read_vector(cx, a, None, 0)
}

pub(crate) fn writev(cx: &mut Context, a: Args) -> Result<usize> {
    write_vector(cx, a, None, 0)
}

pub(crate) fn preadv(cx: &mut Context, a: Args) -> Result<usize> {
    read_vector(cx, a, Some(offset(a.offset(3))?), 0)
}

pub(crate) fn pwritev(cx: &mut Context, a: Args) -> Result<usize> {
    write_vector(cx, a, Some(offset(a.offset(3))?), 0)
}

/// The offset of the "2" forms: -1 is the file's own position.
fn offset2(a: Args) -> Result<Option<u64>> {
    if a.offset(3) == -1 { Ok(None) } else { offset(a.offset(3)).map(Some) }
}

pub(crate) fn preadv2(cx: &mut Context, a: Args) -> Result<usize> {
    read_vector(cx, a, offset2(a)?, a.uint(5))
}

pub(crate) fn pwritev2(cx: &mut Context, a: Args) -> Result<usize> {
    write_vector(cx, a, offset2(a)?, a.uint(5))
}

/// Pages that are handed on at a time.
const PARTS: usize = 16;

/// Moves up to `len` bytes from file to file: by pages of the cache, which the target may keep or copy, or through a page. Offsets are
/// advanced; without one a file's own position is.
fn copy(
    cx: &Context,
    (from, mut from_at): (&Arc<OpenFile>, Option<&mut u64>),
    (to, mut to_at): (&Arc<OpenFile>, Option<&mut u64>),
    len: usize,
) -> Result<usize> {
    let mut parts = Vec::new();
    parts.try_reserve_exact(PARTS).map_err(|_| Errno::ENOMEM)?;
    let mut page = Vec::new();
    let mut total = 0;
    while total < len {
        let start = from_at.as_ref().map_or_else(|| from.position(), |at| **at);
        parts.clear();
        let got = match from.parts_at(start, len - total, &mut parts) {
            Ok(None) => read_page(from, start, len - total, &mut page),
            got => got.map(Option::unwrap_or_default),
        };
        let n = match got {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        };
        let mut source = if parts.is_empty() { Source::kernel(&page[..n]) } else { Source::frames(&parts) };
        let written = match write_source(cx, to, to_at.as_ref().map(|at| **at), &mut source, to.flags()) {
            Ok(written) => written,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        };
        match &mut from_at {
            Some(at) => **at = start + written as u64,
            None => drop(from.seek(fs::SeekFrom::Start((start + written as u64) as i64))),
        }
        if let Some(at) = &mut to_at {
            **at += written as u64;
        }
        total += written;
        if written < n {
            break;
        }
        sched::preempt_point();
    }
    counted_write(counted_read(Ok(total)))
}

/// Reads up to a page of a file that has no pages to refer to.
fn read_page(from: &OpenFile, start: u64, len: usize, page: &mut Vec<u8>) -> Result<usize> {
    if page.is_empty() {
        page.try_reserve_exact(abi::PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        page.resize(abi::PAGE_SIZE, 0);
    }
    let want = len.min(page.len());
    from.read_at(start, &mut Sink::kernel(&mut page[..want]))
}

pub(crate) fn sendfile(cx: &mut Context, a: Args) -> Result<usize> {
    let files = cx.task.files();
    let from = files.get_for(a.fd(1), Access::READ)?;
    let to = files.get_for(a.fd(0), Access::WRITE)?;
    let len = a.size(3).min(MAX_COUNT);
    if !from.file().positioned() {
        return Err(if a.0[2] != 0 { Errno::ESPIPE } else { Errno::EINVAL });
    }
    if from.inode().is_dir() || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let Some(pointer) = a.ptr::<i64>(2).non_null() else { return copy(cx, (&from, None), (&to, None), len) };
    let mut at = offset(pointer.read()?)?;
    let result = copy(cx, (&from, Some(&mut at)), (&to, None), len);
    pointer.write(&(at as i64))?;
    result
}

/// Reads an offset through a pointer that may be NULL.
fn optional_offset(pointer: UserPtr<i64>) -> Result<Option<u64>> {
    pointer.non_null().map(|p| offset(p.read()?)).transpose()
}

fn store_offset(pointer: UserPtr<i64>, at: Option<u64>) -> Result<()> {
    match (pointer.non_null(), at) {
        (Some(pointer), Some(at)) => pointer.write(&(at as i64)),
        _ => Ok(()),
    }
}

pub(crate) fn copy_file_range(cx: &mut Context, a: Args) -> Result<usize> {
    let files = cx.task.files();
    let (from, to) = (files.get(a.fd(0))?, files.get(a.fd(2))?);
    let (mut from_at, mut to_at) = (optional_offset(a.ptr(1))?, optional_offset(a.ptr(3))?);
    if a.uint(5) != 0 {
        return Err(Errno::EINVAL);
    }
    for open in [&from, &to] {
        match open.inode().kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let appends = to.flags().contains(OpenFlags::APPEND);
    if !from.access().contains(Access::READ) || !to.access().contains(Access::WRITE) || appends {
        return Err(Errno::EBADF);
    }
    if !Arc::ptr_eq(from.inode().superblock(), to.inode().superblock()) {
        return Err(Errno::EXDEV);
    }
    let (f, t) = (from_at.unwrap_or_else(|| from.position()), to_at.unwrap_or_else(|| to.position()));
    let wanted = a.size(4) as u64;
    if f.checked_add(wanted).is_none() || t.checked_add(wanted).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    // What is copied does not come to be copied again, where the file grows by it.
    let len = wanted.min(from.inode().ops().size().saturating_sub(f));
    if Arc::ptr_eq(from.inode(), to.inode()) && f < t + len && t < f + len {
        return Err(Errno::EINVAL);
    }
    let len = usize::try_from(len).unwrap_or(MAX_COUNT).min(MAX_COUNT);
    let copied = copy(cx, (&from, from_at.as_mut()), (&to, to_at.as_mut()), len)?;
    store_offset(a.ptr(1), from_at)?;
    store_offset(a.ptr(3), to_at)?;
    Ok(copied)
}

/// SPLICE_F_* flags.
mod splice_flag {
    pub(super) const NONBLOCK: u32 = 2;
    pub(super) const ALL: u32 = 15;
}

pub(crate) fn splice(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = crate::path::only(a.uint(5), splice_flag::ALL)?;
    let len = a.size(4);
    if len == 0 {
        return Ok(0);
    }
    let files = cx.task.files();
    let (from, to) = (files.get(a.fd(0))?, files.get(a.fd(2))?);
    if !from.access().contains(Access::READ) || !to.access().contains(Access::WRITE) {
        return Err(Errno::EBADF);
    }
    let ends = pipe::PipeEnds::of(&from, &to);
    if ends.from.is_some() && a.0[1] != 0 || ends.to.is_some() && a.0[3] != 0 {
        return Err(Errno::ESPIPE);
    }
    if ends.from.is_none() && ends.to.is_none() {
        return Err(Errno::EINVAL);
    }
    if ends.to.is_none() && to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let from_at = if ends.from.is_none() { seekable_offset(&from, a.ptr(1))? } else { None };
    let to_at = if ends.to.is_none() { seekable_offset(&to, a.ptr(3))? } else { None };
    let result = splice_between(cx, (&from, from_at), (&to, to_at), len, flags);
    let (moved, from_at, to_at) = raise_pipe(cx.task, result)?;
    store_offset(a.ptr(1), from_at)?;
    store_offset(a.ptr(3), to_at)?;
    Ok(moved)
}

/// splice(2) from file to file, one of them a pipe: how much was moved, and the offsets after that. `EBADF`, `EINVAL`, `ESPIPE`, `EAGAIN`.
pub(crate) fn splice_between(
    _cx: &Context,
    (from, mut from_at): (&Arc<OpenFile>, Option<u64>),
    (to, mut to_at): (&Arc<OpenFile>, Option<u64>),
    len: usize,
    flags: u32,
) -> Result<(usize, Option<u64>, Option<u64>)> {
    let len = len.min(MAX_COUNT);
    if !from.access().contains(Access::READ) || !to.access().contains(Access::WRITE) {
        return Err(Errno::EBADF);
    }
    let nonblocking = flags & splice_flag::NONBLOCK != 0;
    let ends = pipe::PipeEnds::of(from, to);
    let moved = match (&ends.from, &ends.to) {
        (None, None) => return Err(Errno::EINVAL),
        (Some(source), Some(target)) => {
            let waits_not = nonblocking || (from.flags() | to.flags()).contains(OpenFlags::NONBLOCK);
            pipe::link(source, target, len, false, waits_not)?
        }
        (Some(source), None) => {
            if to.flags().contains(OpenFlags::APPEND) {
                return Err(Errno::EINVAL);
            }
            if to_at.is_some() && !to.file().positioned() {
                return Err(Errno::ESPIPE);
            }
            pipe::splice_out(source, to, to_at.as_mut(), len, nonblocking)?
        }
        (None, Some(target)) => {
            if from_at.is_some() && !from.file().positioned() {
                return Err(Errno::ESPIPE);
            }
            let waits_not = nonblocking || to.flags().contains(OpenFlags::NONBLOCK);
            pipe::splice_in(from, from_at.as_mut(), target, len, waits_not)?
        }
    };
    Ok((moved, from_at, to_at))
}

fn seekable_offset(open: &OpenFile, pointer: UserPtr<i64>) -> Result<Option<u64>> {
    if !pointer.is_null() && !open.file().positioned() {
        return Err(Errno::ESPIPE);
    }
    optional_offset(pointer)
}

pub(crate) fn tee(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = crate::path::only(a.uint(3), splice_flag::ALL)?;
    let files = cx.task.files();
    tee_between(cx, &files.get(a.fd(0))?, &files.get(a.fd(1))?, a.size(2), flags)
}

/// tee(2) from pipe to pipe. `EBADF`, `EINVAL`, `EAGAIN`.
pub(crate) fn tee_between(
    cx: &Context,
    from: &Arc<OpenFile>,
    to: &Arc<OpenFile>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if !from.access().contains(Access::READ) || !to.access().contains(Access::WRITE) {
        return Err(Errno::EBADF);
    }
    let pipe::PipeEnds { from: Some(source), to: Some(target) } = pipe::PipeEnds::of(from, to) else {
        return Err(Errno::EINVAL);
    };
    let waits_not = flags & splice_flag::NONBLOCK != 0 || (from.flags() | to.flags()).contains(OpenFlags::NONBLOCK);
    raise_pipe(cx.task, pipe::link(&source, &target, len.min(MAX_COUNT), true, waits_not))
}

pub(crate) fn vmsplice(cx: &mut Context, a: Args) -> Result<usize> {
    let flags = crate::path::only(a.uint(3), splice_flag::ALL)?;
    let open = cx.task.files().get(a.fd(0))?;
    let ends = pipe::PipeEnds::of(&open, &open);
    if ends.to.is_none() {
        return Err(Errno::EBADF);
    }
    let buffers = buffers(a.0[1], a.size(2))?;
    let nonblocking = flags & splice_flag::NONBLOCK != 0;
    if open.access().contains(Access::WRITE) {
        return raise_pipe(cx.task, pipe::vmsplice_in(&buffers, &open, nonblocking));
    }
    let flags = if nonblocking { open.flags() | OpenFlags::NONBLOCK } else { open.flags() };
    open.read_with(&mut Sink::user(&buffers), flags)
}

pub(crate) fn pipe(cx: &mut Context, a: Args) -> Result<usize> {
    make_pipe(cx, a.ptr(0), 0)
}

pub(crate) fn pipe2(cx: &mut Context, a: Args) -> Result<usize> {
    make_pipe(cx, a.ptr(0), a.uint(1))
}

fn make_pipe(cx: &Context, result: UserPtr<[i32; 2]>, bits: u32) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(bits);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let ends = pipe::pipe(&cx.task.fs_context(), flags);
    store_pair(cx.task, ends, flags.contains(OpenFlags::CLOEXEC), result)
}

/// Gives two open files descriptors and stores their numbers; takes them back where that fails.
pub(crate) fn store_pair(
    task: &Task,
    pair: [Arc<OpenFile>; 2],
    close_on_exec: bool,
    result: UserPtr<[i32; 2]>,
) -> Result<usize> {
    let files = task.files();
    let numbers = files.install_pair(pair, close_on_exec, crate::open::fd_limit(task))?;
    if let Err(error) = result.write(&numbers) {
        for fd in numbers {
            let _ = files.close(fd);
        }
        return Err(error);
    }
    Ok(0)
}
