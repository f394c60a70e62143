//! Byte streams between memory and files: [`Sink`] is where a read goes, [`Source`] is where a write comes from.
//!
//! Both count what passed. A fault in the middle ends the transfer: the call that hit it gives what it moved, and `EFAULT` if that was nothing.

use base::{Errno, Result};
use hal::frame::Frame;
use hal::user::{self, UserBuf};

/// User buffers in turn.
struct UserBuffers<'a> {
    /// What is left of the one in use.
    current: UserBuf,
    rest: &'a [UserBuf],
}

impl<'a> UserBuffers<'a> {
    #[inline]
    fn new(buffers: &'a [UserBuf]) -> UserBuffers<'a> {
        match buffers {
            [] => UserBuffers { current: UserBuf::new(0, 0), rest: &[] },
            [current, rest @ ..] => UserBuffers { current: *current, rest },
        }
    }

    fn len(&self) -> usize {
        self.rest.iter().fold(self.current.len, |sum, buffer| sum + buffer.len)
    }

    /// Moves `len` bytes (at most what is left) by `step(user address, offset in the data, length) -> moved`, buffer by buffer, until one moves
    /// less than asked: how many in all.
    #[inline]
    fn advance(&mut self, len: usize, mut step: impl FnMut(usize, usize, usize) -> usize) -> usize {
        let mut moved = 0;
        while moved < len {
            let want = self.current.len.min(len - moved);
            let n = if want == 0 { 0 } else { step(self.current.addr, moved, want) };
            moved += n;
            self.current = UserBuf::new(self.current.addr.wrapping_add(n), self.current.len - n);
            if n < want {
                break;
            }
            if self.current.len == 0 {
                let [next, rest @ ..] = self.rest else { break };
                (self.current, self.rest) = (*next, rest);
            }
        }
        moved
    }
}

/// How far a transfer has got.
#[derive(Default)]
struct Progress {
    remaining: usize,
    done: usize,
}

impl Progress {
    /// `moved` bytes of the `len` that were asked for have passed.
    #[inline]
    fn moved(&mut self, moved: usize, len: usize) -> Result<usize> {
        self.remaining -= moved;
        self.done += moved;
        if moved == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }
}

enum To<'a> {
    User(UserBuffers<'a>),
    Kernel(&'a mut [u8]),
}

/// Where bytes go to: user buffers or a kernel slice.
pub struct Sink<'a> {
    to: To<'a>,
    progress: Progress,
}

impl<'a> Sink<'a> {
    /// User buffers in turn. The caller has checked that the lengths add up to at most `isize::MAX`.
    #[inline]
    pub fn user(buffers: &'a [UserBuf]) -> Sink<'a> {
        let buffers = UserBuffers::new(buffers);
        Sink { progress: Progress { remaining: buffers.len(), done: 0 }, to: To::User(buffers) }
    }

    /// A kernel buffer.
    pub fn kernel(buffer: &'a mut [u8]) -> Sink<'a> {
        Sink { progress: Progress { remaining: buffer.len(), done: 0 }, to: To::Kernel(buffer) }
    }

    /// How many more bytes it takes.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.progress.remaining
    }

    /// How many bytes it took so far.
    #[inline]
    pub fn done(&self) -> usize {
        self.progress.done
    }

    /// Takes at most `max` bytes from now on.
    pub fn limit(&mut self, max: usize) {
        self.progress.remaining = self.remaining().min(max);
    }

    /// Puts as much of `bytes` as there is room for; how much that was. `EFAULT` if not even one byte could be stored.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        self.advance(
            bytes.len(),
            |at, from, len| user::copy_out_some(at, &bytes[from..from + len]),
            |slice| slice.copy_from_slice(&bytes[..slice.len()]),
        )
    }

    /// As [`Sink::put`], from a frame.
    #[inline]
    pub fn put_frame(&mut self, frame: &Frame, offset: usize, len: usize) -> Result<usize> {
        self.advance(
            len,
            |at, from, len| user::frame_to_user(frame, offset + from, at, len),
            |slice| frame.read(offset, slice),
        )
    }

    /// As [`Sink::put`], of zero bytes.
    #[inline]
    pub fn put_zeros(&mut self, len: usize) -> Result<usize> {
        self.advance(len, |at, _, len| user::clear(at, len).map_or(0, |()| len), |slice| slice.fill(0))
    }

    /// Moves up to `len` bytes, by `user(address, offset in the data, length) -> moved` or by `kernel(where to)`.
    #[inline]
    fn advance(
        &mut self,
        len: usize,
        user: impl FnMut(usize, usize, usize) -> usize,
        kernel: impl FnOnce(&mut [u8]),
    ) -> Result<usize> {
        let len = len.min(self.remaining());
        let moved = match &mut self.to {
            To::User(buffers) => buffers.advance(len, user),
            To::Kernel(slice) => {
                let (now, later) = core::mem::take(slice).split_at_mut(len);
                kernel(now);
                *slice = later;
                len
            }
        };
        self.progress.moved(moved, len)
    }
}

/// A part of a page.
#[derive(Clone, Debug)]
pub struct FramePart {
    /// The page.
    pub frame: Frame,
    /// Where it begins in the page.
    pub offset: usize,
    /// Bytes, of which the last is in the page.
    pub len: usize,
}

/// Parts of pages in a row, of which the first so many bytes are gone.
struct FrameParts<'a> {
    parts: &'a [FramePart],
    gone: usize,
}

impl FrameParts<'_> {
    /// Takes up to `max` bytes off the front, of one part.
    fn next(&mut self, max: usize) -> Option<FramePart> {
        let first = self.parts.first()?;
        let len = (first.len - self.gone).min(max);
        let part = FramePart { frame: first.frame.clone(), offset: first.offset + self.gone, len };
        self.gone += len;
        if self.gone == first.len {
            (self.parts, self.gone) = (&self.parts[1..], 0);
        }
        Some(part)
    }

    /// Takes `len` bytes, part by part, each with its place among them.
    fn each(&mut self, len: usize, mut f: impl FnMut(usize, &FramePart)) -> usize {
        let mut done = 0;
        while done < len
            && let Some(part) = self.next(len - done)
        {
            f(done, &part);
            done += part.len;
        }
        done
    }
}

enum From<'a> {
    User(UserBuffers<'a>),
    Kernel(&'a [u8]),
    Frames(FrameParts<'a>),
}

/// Where bytes come from: user buffers, a kernel slice, or parts of pages.
pub struct Source<'a> {
    from: From<'a>,
    progress: Progress,
}

impl<'a> Source<'a> {
    /// User buffers in turn. The caller has checked that the lengths add up to at most `isize::MAX`.
    #[inline]
    pub fn user(buffers: &'a [UserBuf]) -> Source<'a> {
        let buffers = UserBuffers::new(buffers);
        Source { progress: Progress { remaining: buffers.len(), done: 0 }, from: From::User(buffers) }
    }

    /// A kernel buffer.
    pub fn kernel(buffer: &'a [u8]) -> Source<'a> {
        Source { progress: Progress { remaining: buffer.len(), done: 0 }, from: From::Kernel(buffer) }
    }

    /// Parts of pages in turn, none of them empty.
    pub fn frames(parts: &'a [FramePart]) -> Source<'a> {
        let len = parts.iter().map(|part| part.len).sum();
        Source { progress: Progress { remaining: len, done: 0 }, from: From::Frames(FrameParts { parts, gone: 0 }) }
    }

    /// Takes up to `max` of the next bytes where they are, if they are in a page that may be kept: `None` means that they have to be
    /// copied. The owner of the page may still change them.
    pub fn take_part(&mut self, max: usize) -> Option<FramePart> {
        let max = max.min(self.remaining());
        let From::Frames(frames) = &mut self.from else { return None };
        let part = frames.next(max).filter(|_| max > 0)?;
        self.progress.remaining -= part.len;
        self.progress.done += part.len;
        Some(part)
    }

    /// How many bytes are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.progress.remaining
    }

    /// How many bytes were taken so far.
    #[inline]
    pub fn done(&self) -> usize {
        self.progress.done
    }

    /// Gives at most `max` bytes from now on.
    pub fn limit(&mut self, max: usize) {
        self.progress.remaining = self.remaining().min(max);
    }

    /// Takes up to `bytes.len()` bytes; how many. `EFAULT` if not even one byte could be read.
    #[inline]
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let len = bytes.len().min(self.remaining());
        let moved = match &mut self.from {
            From::User(buffers) => buffers.advance(len, |at, to, len| user::copy_in_some(&mut bytes[to..to + len], at)),
            From::Kernel(slice) => {
                bytes[..len].copy_from_slice(slice.split_off(..len).unwrap_or_default());
                len
            }
            From::Frames(frames) => {
                frames.each(len, |at, part| part.frame.read(part.offset, &mut bytes[at..at + part.len]))
            }
        };
        self.progress.moved(moved, len)
    }

    /// As [`Source::take`], into a frame.
    #[inline]
    pub fn take_frame(&mut self, frame: &Frame, start: usize, len: usize) -> Result<usize> {
        let len = len.min(self.remaining());
        let moved = match &mut self.from {
            From::User(buffers) => buffers.advance(len, |at, to, len| user::user_to_frame(frame, start + to, at, len)),
            From::Kernel(slice) => {
                frame.write(start, slice.split_off(..len).unwrap_or_default());
                len
            }
            From::Frames(frames) => {
                frames.each(len, |at, part| frame.copy_part(start + at, &part.frame, part.offset, part.len))
            }
        };
        self.progress.moved(moved, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_sink_and_source_count_and_stop_at_their_limit() {
        let mut out = [0; 8];
        let mut sink = Sink::kernel(&mut out);
        sink.limit(5);
        assert_eq!(sink.put(b"abc"), Ok(3));
        assert_eq!(sink.put(b"defg"), Ok(2));
        assert_eq!(sink.put(b"x"), Ok(0));
        assert_eq!((sink.done(), sink.remaining()), (5, 0));
        assert_eq!(&out, b"abcde\0\0\0");

        let mut source = Source::kernel(b"hello");
        let mut two = [0; 2];
        assert_eq!(source.take(&mut two), Ok(2));
        let mut rest = [0; 9];
        assert_eq!(source.take(&mut rest), Ok(3));
        assert_eq!(&rest[..3], b"llo");
        assert_eq!((source.done(), source.remaining()), (5, 0));
    }
}
