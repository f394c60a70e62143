//! Loop devices (loop(4)): block devices whose storage is a file.
//!
//! [`LoopDisk`] reads and writes the file it is bound to in the context of who asks, through the file's own page cache. [`control`] has the
//! ioctls of `/dev/loopN` and `/dev/loop-control`.
//!
//! Lock order: [`BINDING`] -> [`LoopDisk::changing`] -> list of devices; the file's own locks are taken with none of ours held.

pub(super) mod control;
mod info;
pub(super) mod report;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use dev::{BlockGeometry, BlockOp, SECTOR};
use hal::sync::SpinLock;
use mm::{Sink, Source};

use super::statistics::Statistics;
use super::{BlockDev, Direction, Piece};
use crate::{FileKind, Io, OpenFile, OpenFlags, chardev, devices};
use info::Info;

/// The major number of loop devices, and of partitions that have no place among their disk's numbers (BLOCK_EXT_MAJOR).
pub(super) const MAJOR: u32 = 7;
pub(super) const PARTITION_MAJOR: u32 = 259;
/// Devices that are there from the start (CONFIG_BLK_DEV_LOOP_MIN_COUNT).
const FIRST_DEVICES: u32 = 8;
/// The most devices.
const DEVICES_MAX: u32 = 1 << 12;
/// How deep devices may lie on one another: each moves its data in the context of who asks, on one stack.
const DEPTH_MAX: usize = 4;
/// Bytes that are moved at a time.
const CHUNK: usize = 16 * PAGE_SIZE;

/// Flags in the bits of `lo_flags`.
pub(super) mod flag {
    pub(in super::super) const READ_ONLY: u32 = 1;
    pub(in super::super) const AUTOCLEAR: u32 = 4;
    pub(in super::super) const PARTSCAN: u32 = 8;
    pub(in super::super) const DIRECT_IO: u32 = 16;
}

/// Held while a device gets another file, so that no two become each other's storage.
static BINDING: sched::Mutex<()> = sched::Mutex::new(());

/// The file that a device is bound to, and how.
#[derive(Clone)]
pub(super) struct Bound {
    open: Arc<OpenFile>,
    info: Info,
    block_size: u32,
    sectors: u64,
}

/// A loop device's storage.
pub(crate) struct LoopDisk {
    index: u32,
    bound: SpinLock<Option<Arc<Bound>>>,
    /// Held while it is bound, changed or let go.
    changing: sched::Mutex<()>,
    /// How many have it or a partition of it open.
    openers: AtomicUsize,
}

impl Bound {
    /// The size of the file, or of the device that the file is. `EIO`.
    fn file_size(&self) -> u64 {
        let inode = self.open.inode();
        match inode.kind() {
            FileKind::BlockDevice => super::by_number(inode.rdev()).map_or(0, |device| device.sectors() * SECTOR),
            _ => inode.ops().size(),
        }
    }

    /// Counts the sectors anew.
    fn measure(&mut self) {
        let behind = self.file_size().saturating_sub(self.info.offset);
        let limit = self.info.size_limit;
        self.sectors = if limit == 0 { behind } else { behind.min(limit) } / SECTOR;
    }

    fn io(&self, offset: u64) -> Io {
        Io { offset, flags: OpenFlags::RDWR | OpenFlags::NOATIME }
    }

    /// Reads; what is behind the end of the file is zeros.
    fn read(&self, mut offset: u64, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = self.open.file().read(&mut Sink::kernel(bytes), &mut self.io(offset))?;
            if n == 0 {
                bytes.fill(0);
                break;
            }
            bytes = &mut bytes[n..];
            offset += n as u64;
        }
        Ok(())
    }

    fn write(&self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = self.open.file().write(&mut Source::kernel(bytes), &mut self.io(offset))?;
            if n == 0 {
                return Err(Errno::EIO);
            }
            bytes = &bytes[n..];
            offset += n as u64;
        }
        Ok(())
    }
}

impl LoopDisk {
    fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.lock().clone()
    }

    fn require(&self) -> Result<Arc<Bound>> {
        self.bound().ok_or(Errno::EIO)
    }

    pub(super) fn geometry(&self) -> BlockGeometry {
        let bound = self.bound();
        let block = bound.as_ref().map_or(SECTOR as u32, |bound| bound.block_size);
        let punches = bound.as_ref().is_some_and(|bound| bound.open.inode().kind() == FileKind::Regular);
        BlockGeometry {
            sectors: bound.as_ref().map_or(0, |bound| bound.sectors),
            logical_block: block,
            physical_block: block,
            read_only: bound.as_ref().is_some_and(|bound| bound.info.flags & flag::READ_ONLY != 0),
            volatile_cache: true,
            max_segments: 128,
            max_segment_size: 65536,
            max_discard: if punches { u32::MAX / SECTOR as u32 } else { 0 },
            max_write_zeroes: if punches { u32::MAX / SECTOR as u32 } else { 0 },
            depth: 128,
            queues: 1,
        }
    }

    /// Moves pieces, whose offsets are counted from sector `start`. `EIO`, and what the file gives.
    pub(super) fn transfer(
        &self,
        direction: Direction,
        start: u64,
        pieces: &[Piece],
        counted: &Statistics,
    ) -> Result<()> {
        let bound = self.require()?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(CHUNK).map_err(|_| Errno::ENOMEM)?;
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let (mut len, mut count) = (0, 0);
            for piece in rest.iter().take(CHUNK / PAGE_SIZE) {
                if piece.offset != first.offset + len as u64 || len + piece.len > CHUNK {
                    break;
                }
                len += piece.len;
                count += 1;
            }
            let (now, later) = rest.split_at(count.max(1));
            rest = later;
            buffer.resize(len, 0);
            let at = bound.info.offset + start * SECTOR + first.offset;
            let op = if direction == Direction::Read { BlockOp::Read } else { BlockOp::Write };
            let began = sched::time::now();
            counted.begin(began);
            let result = LoopDisk::move_run(&bound, direction, at, now, &mut buffer);
            let (took, sectors) = (sched::time::now().saturating_sub(began), len as u64 / SECTOR);
            counted.end(op, sectors, took, true, result.is_err());
            result?;
        }
        Ok(())
    }

    fn move_run(bound: &Bound, direction: Direction, at: u64, pieces: &[Piece], buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        match direction {
            Direction::Read => {
                bound.read(at, buffer)?;
                for piece in pieces {
                    piece.frame.write(piece.within, &buffer[done..done + piece.len]);
                    done += piece.len;
                }
                Ok(())
            }
            Direction::Write => {
                for piece in pieces {
                    piece.frame.read(piece.within, &mut buffer[done..done + piece.len]);
                    done += piece.len;
                }
                bound.write(at, buffer)
            }
        }
    }

    /// Discards or zeroes sectors, or makes what was written last. `EOPNOTSUPP`, `EIO`.
    pub(super) fn run(&self, op: BlockOp, first: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 16;
        let bound = self.require()?;
        let at = bound.info.offset + first * SECTOR;
        match op {
            BlockOp::Discard => bound.open.file().allocate(PUNCH_HOLE | KEEP_SIZE, at, len),
            BlockOp::WriteZeroes => bound.open.file().allocate(ZERO_RANGE | KEEP_SIZE, at, len),
            BlockOp::Flush => match bound.open.file().sync() {
                // What can't be synced needs no syncing.
                Err(Errno::EINVAL) => Ok(()),
                result => result,
            },
            BlockOp::Read | BlockOp::Write => Err(Errno::EINVAL),
        }
    }

    pub(super) fn opened(&self) {
        self.openers.fetch_add(1, Ordering::AcqRel);
    }

    /// Somebody has closed it, or a file system let go of it: with the last, a device that is to be cleared then is.
    pub(super) fn closed(&self, device: &BlockDev, opener: bool) {
        if opener {
            self.openers.fetch_sub(1, Ordering::AcqRel);
        }
        let clears = self.bound().is_some_and(|bound| bound.info.flags & flag::AUTOCLEAR != 0);
        if clears && self.openers.load(Ordering::Acquire) == 0 && !super::device::is_claimed(device) {
            let _changing = self.changing.lock();
            if self.openers.load(Ordering::Acquire) == 0 {
                self.let_go(device);
            }
        }
    }

    /// Ends the binding. The caller holds [`LoopDisk::changing`].
    fn let_go(&self, device: &BlockDev) {
        if let Err(error) = device.settle() {
            log::warn!("{}: {error} at the end of its binding", device.name());
        }
        if let Err(error) = self.run(BlockOp::Flush, 0, 0) {
            log::warn!("{}: {error} at the end of its binding", device.name());
        }
        super::device::remove_partitions(device);
        let old = self.bound.lock().take();
        device.refresh();
        drop(old);
    }
}

fn name(index: u32) -> String {
    format!("loop{index}")
}

/// Makes device `index`. `EEXIST`, `ENOMEM`.
fn add(index: u32) -> Result<Arc<BlockDev>> {
    let disk = Arc::new(LoopDisk {
        index,
        bound: SpinLock::new(None),
        changing: sched::Mutex::new(()),
        openers: AtomicUsize::new(0),
    });
    super::device::add_loop(&name(index), index, disk)
}

/// Makes the devices that are there from the start, and `/dev/loop-control`. `EBUSY`, `ENOMEM`.
pub fn register() -> Result<()> {
    (0..FIRST_DEVICES).try_for_each(|index| add(index).map(drop))?;
    chardev::register_file("loop-control", control::NUMBER, Arc::new(control::Control))?;
    devices::add_node("loop-control", FileKind::CharDevice, 0o660, super::device::GROUP, control::NUMBER)
}
