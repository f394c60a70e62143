//! What a file system asks of its storage.

use alloc::vec;

use base::{Errno, Result};
use hal::frame::Frame;

/// A part of a frame that goes to or comes from the storage.
#[derive(Clone)]
pub struct Piece {
    /// Where on the storage, in bytes.
    pub offset: u64,
    /// The memory.
    pub frame: Frame,
    /// Where in the frame.
    pub within: usize,
    /// How many bytes.
    pub len: usize,
}

/// Which way pieces go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the storage to memory.
    Read,
    /// From memory to the storage.
    Write,
}

/// Storage made of blocks. Offsets and lengths are in bytes and multiples of the logical block. What was written lasts once a later
/// [`BlockIo::flush`] has succeeded, not before. All calls wait until they are done; `EIO`.
pub trait BlockIo: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Bytes that it reads and writes at a time.
    fn logical_block(&self) -> u32 {
        512
    }

    /// Can nothing be written?
    fn is_read_only(&self) -> bool {
        false
    }

    /// Reads.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Writes many places, in any order.
    fn write_many(&self, writes: &[(u64, &[u8])]) -> Result<()> {
        writes.iter().try_for_each(|(offset, data)| self.write(*offset, data))
    }

    /// Moves pieces of frames, in any order.
    fn transfer(&self, direction: Direction, pieces: &[Piece]) -> Result<()> {
        for piece in pieces {
            let mut bytes = vec![0; piece.len];
            match direction {
                Direction::Read => {
                    self.read(piece.offset, &mut bytes)?;
                    piece.frame.write(piece.within, &bytes);
                }
                Direction::Write => {
                    piece.frame.read(piece.within, &mut bytes);
                    self.write(piece.offset, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Makes all that was written before last.
    fn flush(&self) -> Result<()>;

    /// Says that the contents are no longer needed. `EOPNOTSUPP`.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// Fills with zeros.
    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        const CHUNK: u64 = 64 << 10;
        let zeros = vec![0; len.min(CHUNK) as usize];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(CHUNK);
            self.write(offset + at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }
}

/// A disk in memory, for tests. It remembers what was flushed, and can lose what was not.
#[cfg(test)]
pub(crate) struct MemoryDisk {
    now: hal::sync::SpinLock<alloc::vec::Vec<u8>>,
    unflushed: hal::sync::SpinLock<alloc::vec::Vec<(u64, alloc::vec::Vec<u8>)>>,
    flushed: hal::sync::SpinLock<alloc::vec::Vec<u8>>,
    pub(crate) flushes: core::sync::atomic::AtomicUsize,
    /// Writes that still succeed; then all fail.
    pub(crate) writes_left: core::sync::atomic::AtomicUsize,
}

#[cfg(test)]
impl MemoryDisk {
    pub(crate) fn new(image: alloc::vec::Vec<u8>) -> MemoryDisk {
        MemoryDisk {
            flushed: hal::sync::SpinLock::new(image.clone()),
            now: hal::sync::SpinLock::new(image),
            unflushed: hal::sync::SpinLock::new(alloc::vec::Vec::new()),
            flushes: 0.into(),
            writes_left: usize::MAX.into(),
        }
    }

    /// The contents as a reader sees them now.
    pub(crate) fn image(&self) -> alloc::vec::Vec<u8> {
        self.now.lock().clone()
    }

    /// The contents after the power failed: what was flushed, and of the writes since then those that `keep` wants.
    pub(crate) fn after_power_loss(&self, mut keep: impl FnMut() -> bool) -> alloc::vec::Vec<u8> {
        let mut image = self.flushed.lock().clone();
        for (offset, data) in self.unflushed.lock().iter() {
            // A sector is written as a whole or not at all.
            for (i, sector) in data.chunks(512).enumerate() {
                if keep() {
                    let at = *offset as usize + i * 512;
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }
}

#[cfg(test)]
impl BlockIo for MemoryDisk {
    fn size(&self) -> u64 {
        self.now.lock().len() as u64
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let now = self.now.lock();
        let from = now.get(offset as usize..).and_then(|rest| rest.get(..buffer.len())).ok_or(Errno::EIO)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        use core::sync::atomic::Ordering;
        self.writes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .map_err(|_| Errno::EIO)?;
        let mut now = self.now.lock();
        let to = now.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..data.len())).ok_or(Errno::EIO)?;
        to.copy_from_slice(data);
        self.unflushed.lock().push((offset, data.to_vec()));
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let mut flushed = self.flushed.lock();
        for (offset, data) in self.unflushed.lock().drain(..) {
            flushed[offset as usize..][..data.len()].copy_from_slice(&data);
        }
        Ok(())
    }
}
