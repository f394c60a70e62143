//! The bytes that packets and sockets carry: references to parts of pages, so that data is copied once from the sender (not even that where it is a
//! file's) and once to the receiver.

use alloc::collections::VecDeque;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::cpu::PerCpu;
use hal::frame::Frame;
use hal::sync::SpinLock;
use mm::{Sink, Source};

/// Bytes that are only referred to: a part of a page. What was copied in is never written again; a file's page may be, as on Linux.
#[derive(Clone, Debug)]
pub struct Piece {
    frame: Frame,
    start: u16,
    len: u16,
}

impl Piece {
    /// Bytes `start..start + len` of a page; both are cut to the page.
    pub fn new(frame: Frame, start: usize, len: usize) -> Piece {
        let start = start.min(PAGE_SIZE);
        Piece { frame, start: start as u16, len: len.min(PAGE_SIZE - start) as u16 }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The physical address of the first byte, for devices.
    pub fn physical(&self) -> u64 {
        self.frame.physical() as u64 + u64::from(self.start)
    }

    /// Copies from `offset` on; the range must be inside.
    fn read(&self, offset: usize, dst: &mut [u8]) {
        self.frame.read(usize::from(self.start) + offset, dst);
    }

    fn slice(&self, offset: usize, len: usize) -> Piece {
        Piece { frame: self.frame.clone(), start: self.start + offset as u16, len: len as u16 }
    }

    fn continues(&self, next: &Piece) -> bool {
        self.frame == next.frame && self.start + self.len == next.start
    }
}

/// A sequence of pieces. The first lies inside the rope itself: most packets have one.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    first: Option<Piece>,
    rest: VecDeque<Piece>,
    len: usize,
}

impl Rope {
    /// An empty rope.
    pub const fn new() -> Rope {
        Rope { first: None, rest: VecDeque::new(), len: 0 }
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has it no bytes?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.first.iter().chain(self.rest.iter())
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        let last = if self.rest.is_empty() { self.first.as_mut() } else { self.rest.back_mut() };
        match last {
            Some(last) if last.continues(&piece) => last.len += piece.len,
            Some(_) => self.rest.push_back(piece),
            None => self.first = Some(piece),
        }
    }

    /// Adds another rope at the end.
    pub fn append(&mut self, other: Rope) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for piece in other.first.into_iter().chain(other.rest) {
            self.push(piece);
        }
    }

    fn pop_piece(&mut self) -> Option<Piece> {
        let piece = core::mem::replace(&mut self.first, self.rest.pop_front())?;
        self.len -= piece.len();
        Some(piece)
    }

    /// Takes the first `n` bytes off, or all there are.
    pub fn split_to(&mut self, n: usize) -> Rope {
        if n >= self.len {
            return core::mem::take(self);
        }
        let mut taken = Rope::new();
        while taken.len < n {
            let want = n - taken.len;
            let Some(first) = &mut self.first else { break };
            if first.len() > want {
                taken.push(first.slice(0, want));
                first.start += want as u16;
                first.len -= want as u16;
                self.len -= want;
            } else if let Some(piece) = self.pop_piece() {
                taken.push(piece);
            }
        }
        taken
    }

    /// Drops the first `n` bytes.
    pub fn advance(&mut self, n: usize) {
        if n > 0 {
            drop(self.split_to(n));
        }
    }

    /// Drops all but the first `n` bytes.
    pub fn truncate(&mut self, n: usize) {
        if n < self.len {
            let kept = self.split_to(n);
            *self = kept;
        }
    }

    /// References to `len` bytes from `offset` on, cut to what there is.
    pub fn slice(&self, offset: usize, len: usize) -> Rope {
        let mut out = Rope::new();
        let (mut skip, mut left) = (offset, len);
        for piece in self.pieces() {
            if left == 0 {
                break;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let n = (piece.len() - skip).min(left);
            out.push(piece.slice(skip, n));
            (skip, left) = (0, left - n);
        }
        out
    }

    /// Copies from `offset` on; how many bytes there were.
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for piece in self.pieces() {
            if done == dst.len() {
                break;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let n = (piece.len() - skip).min(dst.len() - done);
            piece.read(skip, &mut dst[done..done + n]);
            (skip, done) = (0, done + n);
        }
        done
    }

    /// Calls `each` with all bytes, part by part.
    pub fn for_each_chunk(&self, mut each: impl FnMut(&[u8])) {
        let mut buffer = [0; 256];
        for piece in self.pieces() {
            let mut at = 0;
            while at < piece.len() {
                let n = (piece.len() - at).min(buffer.len());
                piece.read(at, &mut buffer[..n]);
                each(&buffer[..n]);
                at += n;
            }
        }
    }

    /// Copies as much as the sink takes; how much. `EFAULT` if not even one byte could be stored.
    pub fn put(&self, sink: &mut Sink) -> Result<usize> {
        let mut done = 0;
        for piece in self.pieces() {
            if sink.remaining() == 0 {
                break;
            }
            let want = piece.len().min(sink.remaining());
            match sink.put_frame(&piece.frame, usize::from(piece.start), want) {
                Ok(n) => {
                    done += n;
                    if n < want {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// All bytes, for small ropes. `ENOBUFS`.
    pub fn to_vec(&self) -> Result<alloc::vec::Vec<u8>> {
        let mut bytes = alloc::vec::Vec::new();
        bytes.try_reserve_exact(self.len).map_err(|_| Errno::ENOBUFS)?;
        bytes.resize(self.len, 0);
        self.read(0, &mut bytes);
        Ok(bytes)
    }

    /// What it pins, about, as socket buffers count it: a short piece has the bookkeeping of a packet with it.
    pub fn true_size(&self) -> usize {
        self.len + 64 * (self.rest.len() + usize::from(self.first.is_some()))
    }
}

/// Fills pages with what is to be sent. Small messages share a page; what was given out is never written again.
#[derive(Default)]
pub struct Filler {
    page: Option<Frame>,
    used: usize,
}

/// Each processor's filler.
static SHARED: PerCpu<SpinLock<Filler>> = hal::per_cpu!(SpinLock::new(Filler::new()));

impl Filler {
    /// Uses this processor's filler: a socket that has sent something small does not keep a page for what it may send next.
    pub fn shared<R>(f: impl FnOnce(&mut Filler) -> R) -> R {
        let mut filler = core::mem::take(&mut *SHARED.get().lock());
        let result = f(&mut filler);
        // Another thread may have left one meanwhile, and this may be another processor.
        let other = core::mem::replace(&mut *SHARED.get().lock(), filler);
        drop(other);
        result
    }

    /// A filler without a page.
    pub const fn new() -> Filler {
        Filler { page: None, used: 0 }
    }

    fn room(&mut self) -> Result<&Frame> {
        if self.page.is_none() || self.used == PAGE_SIZE {
            self.page = Some(Frame::alloc().ok_or(Errno::ENOBUFS)?);
            self.used = 0;
        }
        self.page.as_ref().ok_or(Errno::ENOBUFS)
    }

    /// Takes up to `len` bytes for a stream: a reference where they are in pages that may be kept, a copy of a user's data. May sleep.
    /// `EFAULT` and `ENOBUFS` only if nothing was taken.
    pub fn take(&mut self, source: &mut Source, len: usize) -> Result<Rope> {
        let mut rope = Rope::new();
        while rope.len() < len
            && let Some(part) = source.take_part(len - rope.len())
        {
            rope.push(Piece::new(part.frame, part.offset, part.len));
        }
        if rope.is_empty() { self.copy(source, len) } else { Ok(rope) }
    }

    /// Copies up to `len` bytes. May sleep. `EFAULT` and `ENOBUFS` only if nothing was taken.
    fn copy(&mut self, source: &mut Source, len: usize) -> Result<Rope> {
        let mut rope = Rope::new();
        let len = len.min(source.remaining());
        while rope.len() < len {
            let used = self.used % PAGE_SIZE;
            let step = self.room().and_then(|page| {
                let used = if used == 0 { 0 } else { used };
                let want = (len - rope.len()).min(PAGE_SIZE - used);
                let n = source.take_frame(page, used, want)?;
                Ok((Piece::new(page.clone(), used, n), want))
            });
            match step {
                Ok((piece, want)) => {
                    self.used = used + piece.len();
                    let short = piece.len() < want;
                    rope.push(piece);
                    if short {
                        break;
                    }
                }
                Err(error) if rope.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        // A page that is full is the rope's alone.
        if self.used == PAGE_SIZE {
            self.page = None;
            self.used = 0;
        }
        Ok(rope)
    }

    /// Takes a user's datagram whole. `EFAULT`, `ENOBUFS`.
    pub fn take_all(&mut self, source: &mut Source) -> Result<Rope> {
        let len = source.remaining();
        if len == 0 {
            return Ok(Rope::new());
        }
        let rope = self.copy(source, len)?;
        if rope.len() < len { Err(Errno::EFAULT) } else { Ok(rope) }
    }

    /// A rope of these bytes. `ENOBUFS`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<Rope> {
        self.take_all(&mut Source::kernel(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ropes_split_slice_and_merge() {
        let mut filler = Filler::new();
        let bytes: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let mut rope = filler.bytes(&bytes).unwrap();
        rope.append(filler.bytes(b"tail").unwrap());
        assert_eq!(rope.len(), 10_004);
        assert_eq!(rope.pieces().count(), 3, "pieces that touch are one");
        let mut middle = [0; 9];
        assert_eq!(rope.slice(4090, 9).read(0, &mut middle), 9);
        assert_eq!(middle, bytes[4090..4099]);
        let front = rope.split_to(5000);
        assert_eq!((front.len(), rope.len()), (5000, 5004));
        assert_eq!(front.to_vec().unwrap(), bytes[..5000]);
        assert_eq!(rope.to_vec().unwrap(), [&bytes[5000..], b"tail"].concat());
        rope.advance(5000);
        rope.truncate(2);
        assert_eq!(rope.to_vec().unwrap(), b"ta");
    }
}
