//! The ring of pages behind a pipe.

use alloc::collections::VecDeque;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use hal::frame::Frame;
use mm::{Sink, Source};

/// A piece of a page in a pipe.
#[derive(Clone)]
pub struct Buffer {
    /// The page.
    pub frame: Frame,
    /// Where the bytes begin.
    pub offset: usize,
    /// How many there are.
    pub len: usize,
    /// The page is the pipe's own: what follows may be written behind the bytes.
    pub mergeable: bool,
    /// A packet (O_DIRECT): read at once, what the reader has no room for is lost.
    pub packet: bool,
}

/// The buffers of a pipe, oldest first.
pub(super) struct Ring {
    buffers: VecDeque<Buffer>,
    slots: usize,
    /// A page that was read out, to be used again.
    spare: Option<Frame>,
}

impl Ring {
    pub(super) fn new(slots: usize) -> Ring {
        Ring { buffers: VecDeque::new(), slots, spare: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffers.len() >= self.slots
    }

    pub(super) fn used(&self) -> usize {
        self.buffers.len()
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> usize {
        self.buffers.iter().map(|b| b.len).sum()
    }

    /// Changes the number of slots. `EBUSY` where more are in use, `ENOMEM`.
    pub(super) fn resize(&mut self, slots: usize) -> Result<()> {
        if slots < self.buffers.len() {
            return Err(Errno::EBUSY);
        }
        self.buffers.try_reserve(slots - self.buffers.len()).map_err(|_| Errno::ENOMEM)?;
        self.slots = slots;
        Ok(())
    }

    /// Takes a buffer. The caller saw that there is a slot.
    pub(super) fn push(&mut self, buffer: Buffer) {
        self.buffers.push_back(buffer);
    }

    pub(super) fn get(&self, index: usize) -> Option<&Buffer> {
        self.buffers.get(index)
    }

    /// Takes up to `max` bytes off the front as a buffer of their own.
    pub(super) fn pop(&mut self, max: usize) -> Option<Buffer> {
        let front = self.buffers.front_mut()?;
        if front.len <= max {
            return self.buffers.pop_front();
        }
        let part = Buffer { len: max, mergeable: false, ..front.clone() };
        front.offset += max;
        front.len -= max;
        Some(part)
    }

    /// Puts bytes back that [`Ring::pop`] took and nobody wanted.
    pub(super) fn unpop(&mut self, buffer: Buffer) {
        match self.buffers.front_mut() {
            Some(front) if front.frame == buffer.frame && front.offset == buffer.offset + buffer.len => {
                front.offset = buffer.offset;
                front.len += buffer.len;
            }
            _ => self.buffers.push_front(buffer),
        }
    }

    /// Moves bytes to the sink until it is full, the ring is empty or a packet ends; how many. `EFAULT` if none could be stored.
    pub(super) fn read(&mut self, sink: &mut Sink) -> Result<usize> {
        let mut total = 0;
        while sink.remaining() > 0
            && let Some(front) = self.buffers.front_mut()
        {
            let n = match sink.put_frame(&front.frame, front.offset, front.len) {
                Ok(n) => n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            };
            total += n;
            let (packet, whole) = (front.packet, n == front.len);
            front.offset += n;
            front.len -= n;
            if whole || packet {
                let done = self.buffers.pop_front();
                self.keep_spare(done);
            }
            if packet || !whole {
                break;
            }
        }
        Ok(total)
    }

    fn keep_spare(&mut self, buffer: Option<Buffer>) {
        if let Some(buffer) = buffer
            && buffer.mergeable
            && buffer.frame.refs() == 1
        {
            self.spare = Some(buffer.frame);
        }
    }

    /// Takes bytes from the source until it is empty or the slots are used up; how many. Up to a page is taken whole or not at all
    /// (0). `EFAULT`, `ENOMEM` if none could be taken.
    pub(super) fn write(&mut self, source: &mut Source, packet: bool) -> Result<usize> {
        let mut total = 0;
        if !packet {
            total = self.merge(source)?;
        }
        while source.remaining() > 0 && !self.is_full() {
            let len = source.remaining().min(PAGE_SIZE);
            match self.write_page(source, len, packet) {
                Ok(n) => total += n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Puts what goes beyond whole pages behind the last bytes, if it fits there.
    fn merge(&mut self, source: &mut Source) -> Result<usize> {
        let len = source.remaining() % PAGE_SIZE;
        let Some(last) = self.buffers.back_mut() else { return Ok(0) };
        let end = last.offset + last.len;
        if len == 0 || !last.mergeable || last.packet || end + len > PAGE_SIZE {
            return Ok(0);
        }
        let n = source.take_frame(&last.frame, end, len)?;
        last.len += n;
        Ok(n)
    }

    fn write_page(&mut self, source: &mut Source, len: usize, packet: bool) -> Result<usize> {
        self.buffers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let frame = self.spare.take().or_else(Frame::alloc).ok_or(Errno::ENOMEM)?;
        match source.take_frame(&frame, 0, len) {
            Ok(n) => {
                self.buffers.push_back(Buffer { frame, offset: 0, len: n, mergeable: true, packet });
                Ok(n)
            }
            Err(error) => {
                self.spare = Some(frame);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn write(ring: &mut Ring, bytes: &[u8], packet: bool) -> usize {
        ring.write(&mut Source::kernel(bytes), packet).unwrap()
    }

    fn read(ring: &mut Ring, len: usize) -> Vec<u8> {
        let mut buffer = vec![0; len];
        let n = ring.read(&mut Sink::kernel(&mut buffer)).unwrap();
        buffer.truncate(n);
        buffer
    }

    #[test]
    fn bytes_come_out_in_order_and_small_writes_share_a_page() {
        let mut ring = Ring::new(2);
        for piece in [&b"one "[..], b"two ", b"three"] {
            assert_eq!(write(&mut ring, piece, false), piece.len());
        }
        assert_eq!((ring.used(), ring.bytes()), (1, 13));
        assert_eq!(read(&mut ring, 5), b"one t");
        assert_eq!(read(&mut ring, 99), b"wo three");
        assert!(ring.is_empty());
    }

    #[test]
    fn a_full_ring_takes_what_fits_by_pages() {
        let mut ring = Ring::new(2);
        let big = vec![7; 3 * PAGE_SIZE];
        assert_eq!(write(&mut ring, &big, false), 2 * PAGE_SIZE);
        assert_eq!(write(&mut ring, b"x", false), 0);
        assert_eq!(read(&mut ring, PAGE_SIZE + 1).len(), PAGE_SIZE + 1);
        assert_eq!(write(&mut ring, b"x", false), 1);
        assert_eq!(ring.bytes(), PAGE_SIZE);
    }

    #[test]
    fn packets_are_read_one_at_a_time_and_cut_short() {
        let mut ring = Ring::new(4);
        write(&mut ring, b"first", true);
        write(&mut ring, b"second", true);
        assert_eq!(read(&mut ring, 3), b"fir");
        assert_eq!(read(&mut ring, 99), b"second");
    }

    #[test]
    fn what_was_taken_can_be_put_back() {
        let mut ring = Ring::new(4);
        write(&mut ring, b"abcdef", false);
        let part = ring.pop(4).unwrap();
        ring.unpop(part);
        assert_eq!(read(&mut ring, 99), b"abcdef");
    }

    #[test]
    fn it_can_shrink_only_to_what_is_used() {
        let mut ring = Ring::new(4);
        write(&mut ring, &[0; 2 * PAGE_SIZE], false);
        assert_eq!(ring.resize(1), Err(Errno::EBUSY));
        assert_eq!(ring.resize(2), Ok(()));
        assert!(ring.is_full());
    }

    /// Random reads, writes, and pieces taken and put back, against a plain queue of bytes.
    #[test]
    fn it_is_a_queue_of_bytes_whatever_comes() {
        for seed in 1..200u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below as u64) as usize
            };
            let (mut ring, mut model) = (Ring::new(1 + random(5)), VecDeque::new());
            let mut next = 0u8;
            for _ in 0..200 {
                match random(4) {
                    0 | 1 => {
                        let len = random(3 * PAGE_SIZE);
                        let bytes: Vec<u8> = (0..len)
                            .map(|_| {
                                next = next.wrapping_add(1);
                                next
                            })
                            .collect();
                        let n = write(&mut ring, &bytes, false);
                        assert!(n == len || len > PAGE_SIZE || n == 0, "up to a page goes whole or not at all");
                        model.extend(&bytes[..n]);
                    }
                    2 => {
                        let wanted = random(3 * PAGE_SIZE);
                        let got = read(&mut ring, wanted);
                        assert_eq!(got.len(), wanted.min(model.len()));
                        assert!(got.into_iter().eq(model.drain(..wanted.min(model.len()))));
                    }
                    _ => {
                        let part = ring.pop(1 + random(PAGE_SIZE));
                        part.into_iter().for_each(|part| ring.unpop(part));
                    }
                }
                assert_eq!((ring.bytes(), ring.is_empty()), (model.len(), model.is_empty()));
                // What was put back may take a slot more than there are.
                assert!(ring.used() <= ring.slots() + 1);
            }
        }
    }
}
