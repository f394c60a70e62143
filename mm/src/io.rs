//! Byte streams between memory and files: [`Sink`] is where a read goes, [`Source`] is where a write comes from.
//!
//! Both count what passed. A fault in the middle ends the transfer: the call that hit it gives what it moved, and `EFAULT` if that was nothing.

use base::{Errno, Result};
use hal::frame::Frame;
use hal::user::{self, UserBuf};

enum To<'a> {
    User(&'a [UserBuf]),
    Kernel(&'a mut [u8]),
}

/// Where bytes go to: user buffers or a kernel slice.
pub struct Sink<'a> {
    to: To<'a>,
    /// In the first buffer that is left.
    offset: usize,
    remaining: usize,
    done: usize,
}

impl<'a> Sink<'a> {
    /// User buffers in turn. The caller has checked that the lengths add up to at most `isize::MAX`.
    pub fn user(buffers: &'a [UserBuf]) -> Sink<'a> {
        Sink { remaining: buffers.iter().map(|b| b.len).sum(), to: To::User(buffers), offset: 0, done: 0 }
    }

    /// A kernel buffer.
    pub fn kernel(buffer: &'a mut [u8]) -> Sink<'a> {
        Sink { remaining: buffer.len(), to: To::Kernel(buffer), offset: 0, done: 0 }
    }

    /// How many more bytes it takes.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// How many bytes it took so far.
    #[inline]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Takes at most `max` bytes from now on.
    pub fn limit(&mut self, max: usize) {
        self.remaining = self.remaining.min(max);
    }

    /// Puts as much of `bytes` as there is room for; how much that was. `EFAULT` if not even one byte could be stored.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        self.advance(bytes.len(), |to, at, from, len| match to {
            Chunk::User => user::copy_out_some(at, &bytes[from..from + len]),
            Chunk::Kernel(slice) => {
                slice.copy_from_slice(&bytes[from..from + len]);
                len
            }
        })
    }

    /// As [`Sink::put`], from a frame.
    #[inline]
    pub fn put_frame(&mut self, frame: &Frame, offset: usize, len: usize) -> Result<usize> {
        self.advance(len, |to, at, from, len| match to {
            Chunk::User => user::frame_to_user(frame, offset + from, at, len),
            Chunk::Kernel(slice) => {
                frame.read(offset + from, slice);
                len
            }
        })
    }

    /// As [`Sink::put`], of zero bytes.
    pub fn put_zeros(&mut self, len: usize) -> Result<usize> {
        self.advance(len, |to, at, _, len| match to {
            Chunk::User => user::clear(at, len).map_or(0, |()| len),
            Chunk::Kernel(slice) => {
                slice.fill(0);
                len
            }
        })
    }

    /// Moves up to `len` bytes by `step(chunk, user address, offset in the data, length) -> moved`, chunk by chunk.
    #[inline]
    fn advance(&mut self, len: usize, mut step: impl FnMut(Chunk<'_>, usize, usize, usize) -> usize) -> Result<usize> {
        let len = len.min(self.remaining);
        let mut moved = 0;
        while moved < len {
            let (n, want) = match &mut self.to {
                To::User(buffers) => {
                    let first = buffers[0];
                    let want = (first.len - self.offset).min(len - moved);
                    let n = if want == 0 {
                        0
                    } else {
                        step(Chunk::User, first.addr.wrapping_add(self.offset), moved, want)
                    };
                    self.offset += n;
                    if self.offset == first.len {
                        *buffers = &buffers[1..];
                        self.offset = 0;
                    }
                    (n, want)
                }
                To::Kernel(slice) => {
                    let want = len - moved;
                    let n = step(Chunk::Kernel(&mut slice[self.offset..self.offset + want]), 0, moved, want);
                    self.offset += n;
                    (n, want)
                }
            };
            moved += n;
            if n < want {
                break;
            }
        }
        self.remaining -= moved;
        self.done += moved;
        if moved == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }
}

enum Chunk<'a> {
    User,
    Kernel(&'a mut [u8]),
}

enum From<'a> {
    User(&'a [UserBuf]),
    Kernel(&'a [u8]),
}

/// Where bytes come from: user buffers or a kernel slice.
pub struct Source<'a> {
    from: From<'a>,
    offset: usize,
    remaining: usize,
    done: usize,
}

impl<'a> Source<'a> {
    /// User buffers in turn. The caller has checked that the lengths add up to at most `isize::MAX`.
    pub fn user(buffers: &'a [UserBuf]) -> Source<'a> {
        Source { remaining: buffers.iter().map(|b| b.len).sum(), from: From::User(buffers), offset: 0, done: 0 }
    }

    /// A kernel buffer.
    pub fn kernel(buffer: &'a [u8]) -> Source<'a> {
        Source { remaining: buffer.len(), from: From::Kernel(buffer), offset: 0, done: 0 }
    }

    /// How many bytes are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// How many bytes were taken so far.
    #[inline]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Gives at most `max` bytes from now on.
    pub fn limit(&mut self, max: usize) {
        self.remaining = self.remaining.min(max);
    }

    /// Takes up to `bytes.len()` bytes; how many. `EFAULT` if not even one byte could be read.
    #[inline]
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let len = bytes.len();
        self.advance(len, |from, at, offset, len| match from {
            Some(slice) => {
                bytes[offset..offset + len].copy_from_slice(slice);
                len
            }
            None => user::copy_in_some(&mut bytes[offset..offset + len], at),
        })
    }

    /// As [`Source::take`], into a frame.
    #[inline]
    pub fn take_frame(&mut self, frame: &Frame, start: usize, len: usize) -> Result<usize> {
        self.advance(len, |from, at, offset, len| match from {
            Some(slice) => {
                frame.write(start + offset, slice);
                len
            }
            None => user::user_to_frame(frame, start + offset, at, len),
        })
    }

    #[inline]
    fn advance(
        &mut self,
        len: usize,
        mut step: impl FnMut(Option<&[u8]>, usize, usize, usize) -> usize,
    ) -> Result<usize> {
        let len = len.min(self.remaining);
        let mut moved = 0;
        while moved < len {
            let (n, want) = match &mut self.from {
                From::User(buffers) => {
                    let first = buffers[0];
                    let want = (first.len - self.offset).min(len - moved);
                    let n = if want == 0 { 0 } else { step(None, first.addr.wrapping_add(self.offset), moved, want) };
                    self.offset += n;
                    if self.offset == first.len {
                        *buffers = &buffers[1..];
                        self.offset = 0;
                    }
                    (n, want)
                }
                From::Kernel(slice) => {
                    let want = len - moved;
                    let n = step(Some(&slice[self.offset..self.offset + want]), 0, moved, want);
                    self.offset += n;
                    (n, want)
                }
            };
            moved += n;
            if n < want {
                break;
            }
        }
        self.remaining -= moved;
        self.done += moved;
        if moved == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(moved) }
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
