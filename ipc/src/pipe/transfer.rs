//! splice(2), tee(2) and vmsplice(2): pages move into and out of pipes by reference.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use fs::{Mapping, OpenFile, OpenFlags, SeekFrom};
use hal::frame::Frame;
use hal::user::UserBuf;
use mm::{FramePart, Sink, Source};

use super::{Buffer, Pipe, PipeEnd};

/// Which sides of a transfer are pipes.
pub struct PipeEnds {
    /// The pipe that is read from.
    pub from: Option<Arc<Pipe>>,
    /// The pipe that is written to.
    pub to: Option<Arc<Pipe>>,
}

impl PipeEnds {
    /// Looks at both sides.
    pub fn of(from: &OpenFile, to: &OpenFile) -> PipeEnds {
        let pipe = |open: &OpenFile| open.file().downcast::<PipeEnd>().map(|end| end.pipe.clone());
        PipeEnds { from: pipe(from), to: pipe(to) }
    }
}

/// Moves up to `len` bytes of a file into a pipe: pages of the cache where the file has one, copies else. `offset` is advanced; without
/// one the file's own position is. How many bytes.
pub fn splice_in(
    from: &Arc<OpenFile>,
    mut offset: Option<&mut u64>,
    pipe: &Pipe,
    len: usize,
    nonblocking: bool,
) -> Result<usize> {
    if offset.is_none() && from.file().positioned() {
        let mut at = from.position();
        let moved = splice_in(from, Some(&mut at), pipe, len, nonblocking);
        from.seek(SeekFrom::Start(i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?))?;
        return moved;
    }
    let mut total = 0;
    while total < len {
        if let Err(error) = wait_slot(pipe, nonblocking || total > 0) {
            return if total > 0 { Ok(total) } else { Err(error) };
        }
        let step = match read_piece(from, offset.as_deref_mut(), len - total) {
            Ok(Some(buffer)) => buffer,
            Ok(None) => break,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        };
        total += step.len;
        pipe.with_ring(|ring| ring.push(step));
        pipe.data_added();
        // What comes from a stream comes in the pieces it has now.
        if !from.file().positioned() {
            break;
        }
    }
    Ok(total)
}

fn wait_slot(pipe: &Pipe, nonblocking: bool) -> Result<()> {
    while pipe.has_readers() {
        if !pipe.is_full() {
            return Ok(());
        }
        pipe.wait_room(nonblocking)?;
    }
    Err(Errno::EPIPE)
}

/// The next piece of a file as a buffer, up to the end of a page; `None` at the end of the file.
fn read_piece(from: &Arc<OpenFile>, offset: Option<&mut u64>, len: usize) -> Result<Option<Buffer>> {
    if let (Some(at), Ok(Mapping::Pages(pages))) = (&offset, from.file().mapping())
        && from.access().contains(fs::Access::READ)
        && let Some(FramePart { frame, offset: within, len }) = pages.part(**at, len)?
    {
        if let Some(at) = offset {
            *at += len as u64;
        }
        return Ok(Some(Buffer { frame, offset: within, len, mergeable: false, packet: false }));
    }
    let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
    let mut bytes = Vec::new();
    let want = len.min(PAGE_SIZE);
    bytes.try_reserve_exact(want).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(want, 0);
    let mut sink = Sink::kernel(&mut bytes);
    let n = match offset {
        Some(at) => {
            let n = from.read_at(*at, &mut sink)?;
            *at += n as u64;
            n
        }
        None => from.read(&mut sink)?,
    };
    frame.write(0, &bytes[..n]);
    Ok((n > 0).then_some(Buffer { frame, offset: 0, len: n, mergeable: false, packet: false }))
}

/// Moves up to `len` bytes of a pipe into a file. How many.
pub fn splice_out(
    pipe: &Pipe,
    to: &Arc<OpenFile>,
    mut offset: Option<&mut u64>,
    len: usize,
    nonblocking: bool,
) -> Result<usize> {
    let mut total = 0;
    while total < len {
        let taken = pipe.with_ring(|ring| ring.pop(len - total));
        let Some(buffer) = taken else {
            if total > 0 || !pipe.has_writers() {
                break;
            }
            pipe.wait_data(nonblocking)?;
            continue;
        };
        pipe.room_made();
        match write_piece(&buffer, to, offset.as_deref_mut(), nonblocking) {
            Ok(n) => {
                total += n;
                if n < buffer.len {
                    let rest = Buffer { offset: buffer.offset + n, len: buffer.len - n, ..buffer };
                    pipe.with_ring(|ring| ring.unpop(rest));
                    break;
                }
            }
            Err(error) => {
                pipe.with_ring(|ring| ring.unpop(buffer));
                return if total > 0 { Ok(total) } else { Err(error) };
            }
        }
    }
    Ok(total)
}

fn write_piece(buffer: &Buffer, to: &Arc<OpenFile>, offset: Option<&mut u64>, nonblocking: bool) -> Result<usize> {
    let part = FramePart { frame: buffer.frame.clone(), offset: buffer.offset, len: buffer.len };
    let mut source = Source::frames(core::slice::from_ref(&part));
    let flags = if nonblocking { to.flags() | OpenFlags::NONBLOCK } else { to.flags() };
    match offset {
        Some(at) => {
            let n = to.write_at_with(*at, &mut source, flags)?;
            *at += n as u64;
            Ok(n)
        }
        None => to.write_with(&mut source, flags),
    }
}

/// Moves (`keep` false) or duplicates (tee(2)) up to `len` bytes of one pipe into another, by reference. How many. `EINVAL` for a pipe
/// and itself.
pub fn link(from: &Arc<Pipe>, to: &Arc<Pipe>, len: usize, keep: bool, nonblocking: bool) -> Result<usize> {
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL);
    }
    loop {
        if !to.has_readers() {
            return Err(Errno::EPIPE);
        }
        let moved = link_now(from, to, len, keep);
        if moved > 0 || len == 0 {
            return Ok(moved);
        }
        if from.is_empty() {
            if !from.has_writers() {
                return Ok(0);
            }
            from.wait_data(nonblocking)?;
        } else {
            to.wait_room(nonblocking)?;
        }
    }
}

fn link_now(from: &Arc<Pipe>, to: &Arc<Pipe>, len: usize, keep: bool) -> usize {
    // Two threads may link two pipes both ways: lock them in one order.
    let from_first = Arc::as_ptr(from).addr() < Arc::as_ptr(to).addr();
    let mut moved = 0;
    let mut work = |source: &mut super::Ring, target: &mut super::Ring| {
        let mut index = 0;
        while moved < len && !target.is_full() {
            let Some(buffer) = (if keep { source.get(index).cloned() } else { source.pop(len - moved) }) else { break };
            let part = Buffer { len: buffer.len.min(len - moved), mergeable: false, ..buffer };
            moved += part.len;
            target.push(part);
            index += 1;
        }
    };
    if from_first {
        from.with_ring(|source| to.with_ring(|target| work(source, target)));
    } else {
        to.with_ring(|target| from.with_ring(|source| work(source, target)));
    }
    if moved > 0 {
        to.data_added();
        if !keep {
            from.room_made();
        }
    }
    moved
}

/// vmsplice(2) into a pipe: the bytes are copied, which SPLICE_F_GIFT allows.
pub fn vmsplice_in(buffers: &[UserBuf], pipe_end: &Arc<OpenFile>, nonblocking: bool) -> Result<usize> {
    let flags = if nonblocking { pipe_end.flags() | OpenFlags::NONBLOCK } else { pipe_end.flags() };
    pipe_end.write_with(&mut Source::user(buffers), flags)
}
