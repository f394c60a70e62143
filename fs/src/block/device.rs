//! Disks and partitions: names, numbers, and moving bytes.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use abi::PAGE_SIZE;
use base::{Errno, Result};
use dev::{BlockDevice, BlockGeometry, BlockOp, SECTOR, Segment};
use hal::frame::Frame;
use hal::sync::SpinLock;
use mm::{PageCache, Pager};

use super::loop_device::{self, LoopDisk};
use super::partition;
use super::queue::{Bio, Group, RequestQueue};
use super::statistics::Statistics;
use super::{BlockIo, Direction, Piece};
use crate::writeback::{self, DirtyStore};
use crate::{DeviceNumber, FileKind, devices};

const PAGE: u64 = PAGE_SIZE as u64;
/// Pieces that are under way at a time for one caller (4 MiB of whole pages).
const BATCH: usize = 1024;
/// Minor numbers of one disk: itself and its partitions.
const MINORS: u32 = 256;
/// The group "disk" of Debian.
pub(super) const GROUP: u32 = 6;

/// What moves a device's bytes.
#[derive(Clone)]
enum Store {
    /// A driver, by way of a queue.
    Queue(Arc<RequestQueue>),
    /// A file.
    Loop(Arc<LoopDisk>),
}

impl Store {
    fn geometry(&self) -> BlockGeometry {
        match self {
            Store::Queue(queue) => queue.geometry(),
            Store::Loop(disk) => disk.geometry(),
        }
    }
}

/// A disk or a partition.
pub struct BlockDev {
    name: String,
    number: DeviceNumber,
    store: Store,
    /// The whole disk, of a partition, and the partition's number there.
    disk: Option<(Arc<BlockDev>, u32)>,
    /// Where it begins on the disk, and its size, in sectors. (A loop device gets its size later.)
    start: u64,
    sectors: AtomicU64,
    serial: Vec<u8>,
    pub(super) statistics: Arc<Statistics>,
    cache: Arc<PageCache>,
    /// Set by BLKROSET.
    read_only: AtomicBool,
    /// Set by BLKBSZSET.
    pub(super) block_size: AtomicU32,
    /// A file system, or a program with O_EXCL, has it.
    claimed: AtomicBool,
}

static DEVICES: SpinLock<Vec<Arc<BlockDev>>> = SpinLock::new(Vec::new());

/// All disks, each followed by its partitions.
pub fn list() -> Vec<Arc<BlockDev>> {
    DEVICES.lock().clone()
}

/// The device with that number. `ENXIO`.
pub fn by_number(number: DeviceNumber) -> Result<Arc<BlockDev>> {
    DEVICES.lock().iter().find(|device| device.number == number).cloned().ok_or(Errno::ENXIO)
}

/// The name of the `index`th disk of a driver: `vda` to `vdz`, then `vdaa`.
pub fn disk_name(prefix: &str, index: u32) -> String {
    let mut letters = Vec::new();
    let mut left = index + 1;
    while left > 0 {
        left -= 1;
        letters.push(b'a' + (left % 26) as u8);
        left /= 26;
    }
    let letters = letters.iter().rev().map(|&b| char::from(b));
    prefix.chars().chain(letters).collect()
}

/// Makes a disk known as `/dev/NAME`, the `index`th of its driver, and its partitions. `EEXIST`, `ENOMEM`.
pub fn add_disk(name: &str, major: u32, index: u32, device: Arc<dyn BlockDevice>) -> Result<Arc<BlockDev>> {
    let serial = device.serial();
    let store = Store::Queue(RequestQueue::new(device));
    let disk = add(name, DeviceNumber::new(major, index * MINORS), store, serial)?;
    if let Err(error) = rescan(&disk) {
        log::warn!("{name}: the partition table can't be read: {error}");
    }
    Ok(disk)
}

fn add(name: &str, number: DeviceNumber, store: Store, serial: Vec<u8>) -> Result<Arc<BlockDev>> {
    let sectors = store.geometry().sectors;
    let disk = BlockDev::new(name.into(), number, store, None, 0, sectors, serial);
    devices::add_node(name, FileKind::BlockDevice, 0o660, GROUP, number)?;
    DEVICES.lock().push(disk.clone());
    Ok(disk)
}

/// Makes a loop device known, the `index`th. `EEXIST`, `ENOMEM`.
pub(super) fn add_loop(name: &str, index: u32, disk: Arc<LoopDisk>) -> Result<Arc<BlockDev>> {
    add(name, DeviceNumber::new(loop_device::MAJOR, index), Store::Loop(disk), Vec::new())
}

/// Forgets a disk that nobody uses.
pub(super) fn remove_disk(disk: &BlockDev) {
    remove_partitions(disk);
    DEVICES.lock().retain(|device| device.number != disk.number);
    devices::remove_node(&disk.name);
}

/// Forgets the partitions of a disk that is not what it was.
pub(super) fn remove_partitions(disk: &BlockDev) {
    let old: Vec<Arc<BlockDev>> = list().into_iter().filter(|device| device.is_part_of(disk)).collect();
    for gone in &old {
        devices::remove_node(&gone.name);
    }
    DEVICES.lock().retain(|device| !device.is_part_of(disk));
}

/// Is the disk or a partition of it in a file system's or a program's sole use?
pub(super) fn is_claimed(disk: &BlockDev) -> bool {
    let claimed = |device: &BlockDev| device.claimed.load(Ordering::Acquire);
    claimed(disk) || list().iter().any(|device| device.is_part_of(disk) && claimed(device))
}

/// Reads the partition table again. `EBUSY` where a partition is in use, `EINVAL` for a partition, `EIO`.
pub fn rescan(disk: &Arc<BlockDev>) -> Result<()> {
    if disk.disk.is_some() {
        return Err(Errno::EINVAL);
    }
    let is_ours = |d: &Arc<BlockDev>| d.disk.as_ref().is_some_and(|(whole, _)| Arc::ptr_eq(whole, disk));
    let old: Vec<Arc<BlockDev>> = list().into_iter().filter(|d| is_ours(d)).collect();
    if old.iter().any(|d| d.claimed.load(Ordering::Acquire)) {
        return Err(Errno::EBUSY);
    }
    let found = partition::read(&**disk)?;
    for gone in &old {
        devices::remove_node(&gone.name);
    }
    let mut made = Vec::new();
    for part in found {
        let separator = if disk.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        let name = format!("{}{separator}{}", disk.name, part.number);
        let number = match disk.store {
            Store::Queue(_) => DeviceNumber::new(disk.number.major, disk.number.minor + part.number),
            Store::Loop(_) => DeviceNumber::new(loop_device::PARTITION_MAJOR, disk.number.minor * MINORS + part.number),
        };
        let place = Some((disk.clone(), part.number));
        let device =
            BlockDev::new(name.clone(), number, disk.store.clone(), place, part.start, part.sectors, Vec::new());
        devices::add_node(&name, FileKind::BlockDevice, 0o660, GROUP, number)?;
        made.push(device);
    }
    let mut all = DEVICES.lock();
    all.retain(|d| !is_ours(d));
    let at = all.iter().position(|d| Arc::ptr_eq(d, disk)).map_or(all.len(), |i| i + 1);
    for (i, device) in made.into_iter().enumerate() {
        all.insert(at + i, device);
    }
    Ok(())
}

impl BlockDev {
    fn new(
        name: String,
        number: DeviceNumber,
        store: Store,
        disk: Option<(Arc<BlockDev>, u32)>,
        start: u64,
        sectors: u64,
        serial: Vec<u8>,
    ) -> Arc<BlockDev> {
        let made = Arc::new_cyclic(|this: &Weak<BlockDev>| BlockDev {
            name,
            number,
            start,
            sectors: AtomicU64::new(sectors),
            serial,
            statistics: Arc::new(match &disk {
                Some((disk, _)) => Statistics::of_partition(&disk.statistics),
                None => Statistics::default(),
            }),
            cache: PageCache::with_pager(Arc::new(DevicePager(this.clone())), sectors * SECTOR),
            read_only: AtomicBool::new(store.geometry().read_only),
            block_size: AtomicU32::new(PAGE_SIZE as u32),
            claimed: AtomicBool::new(false),
            store,
            disk,
        });
        let store: Weak<BlockDev> = Arc::downgrade(&made);
        writeback::register(store);
        made
    }

    /// Its name in `/dev`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// The whole disk, and the number of this partition on it; `None` for disks.
    pub fn partition(&self) -> Option<(&Arc<BlockDev>, u32)> {
        self.disk.as_ref().map(|(disk, number)| (disk, *number))
    }

    /// Where it begins on its disk, in sectors.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Acquire)
    }

    /// The disk's serial number.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// What the disk is like.
    pub fn geometry(&self) -> BlockGeometry {
        self.store.geometry()
    }

    /// What is read and written through `/dev`.
    pub fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    /// Makes it read-only or writable (BLKROSET). `EACCES` where the disk itself is read-only.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        if !read_only && self.geometry().read_only {
            return Err(Errno::EACCES);
        }
        self.read_only.store(read_only, Ordering::Relaxed);
        Ok(())
    }

    /// Takes it for one user alone. `EBUSY`.
    pub fn claim(&self) -> Result<()> {
        if self.claimed.swap(true, Ordering::AcqRel) { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// Takes back [`BlockDev::claim`].
    pub fn unclaim(&self) {
        self.claimed.store(false, Ordering::Release);
        self.closed(false);
    }

    /// Is it a partition of `disk`?
    fn is_part_of(&self, disk: &BlockDev) -> bool {
        self.disk.as_ref().is_some_and(|(whole, _)| whole.number == disk.number)
    }

    /// What it is as a loop device, if it is one.
    pub(super) fn loop_disk(&self) -> Option<&LoopDisk> {
        match &self.store {
            Store::Loop(disk) if self.disk.is_none() => Some(disk),
            _ => None,
        }
    }

    /// A program has opened it.
    pub(super) fn opened(&self) {
        if let Store::Loop(disk) = &self.store {
            disk.opened();
        }
    }

    /// A program has closed it, or a file system is done with it.
    pub(super) fn closed(&self, opener: bool) {
        if let Store::Loop(disk) = &self.store {
            disk.closed(self.disk.as_ref().map_or(self, |(whole, _)| whole), opener);
        }
    }

    /// Writes what programs wrote through `/dev`, and forgets the rest of what was read through it: a file system begins or ends to use
    /// it. `EIO`.
    pub fn settle(&self) -> Result<()> {
        self.cache.sync_range(0, u64::MAX)?;
        self.cache.drop_clean(0, u64::MAX);
        Ok(())
    }

    /// The driver's side has another size now.
    pub fn refresh(&self) {
        if let Store::Queue(queue) = &self.store {
            queue.refresh();
        }
        let sectors = self.geometry().sectors;
        self.sectors.store(sectors, Ordering::Release);
        self.read_only.store(self.geometry().read_only, Ordering::Relaxed);
        // Growing never fails, and shrinking drops pages that have nothing behind them.
        let _ = self.cache.resize(sectors * SECTOR);
    }

    /// The sector on the disk of a byte range. `EINVAL` where it is not made of blocks, `EIO` where it is not on the device.
    fn locate(&self, offset: u64, len: u64) -> Result<u64> {
        let block = u64::from(self.geometry().logical_block.max(512));
        if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(len).ok_or(Errno::EIO)?;
        if end > self.sectors() * SECTOR {
            return Err(Errno::EIO);
        }
        Ok(self.start + offset / SECTOR)
    }

    fn bio(&self, op: BlockOp, sector: u64, len: u64, memory: Vec<(Frame, Segment)>, group: &Arc<Group>) -> Bio {
        let sectors = u32::try_from(len / SECTOR).unwrap_or(u32::MAX);
        let counted = self.statistics.clone();
        Bio { op, sector, sectors, memory, group: group.clone(), counted, began: 0 }
    }

    /// Submits requests without memory and waits for them.
    fn run(&self, op: BlockOp, offset: u64, len: u64, max_sectors: u32) -> Result<()> {
        let first = self.locate(offset, len)?;
        let queue = match &self.store {
            Store::Queue(queue) => queue,
            Store::Loop(disk) => return disk.run(op, first, len),
        };
        let block = u64::from(self.geometry().logical_block.max(512)) / SECTOR;
        let step = (u64::from(max_sectors) / block * block).max(block);
        let group = Group::new();
        let mut bios = Vec::new();
        let mut at = 0;
        while at < len / SECTOR {
            let n = (len / SECTOR - at).min(step);
            bios.push(self.bio(op, first + at, n * SECTOR, Vec::new(), &group));
            at += n;
        }
        queue.submit(bios);
        group.wait()
    }

    /// Frames for `len` bytes, and the pieces that they make at `offset`.
    fn bounce(offset: u64, len: usize) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(len.div_ceil(PAGE_SIZE)).map_err(|_| Errno::ENOMEM)?;
        let mut at = 0;
        while at < len {
            let n = (len - at).min(PAGE_SIZE);
            let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
            pieces.push(Piece { offset: offset + at as u64, frame, within: 0, len: n });
            at += n;
        }
        Ok(pieces)
    }
}

impl BlockIo for BlockDev {
    fn size(&self) -> u64 {
        self.sectors() * SECTOR
    }

    fn logical_block(&self) -> u32 {
        self.geometry().logical_block.max(512)
    }

    fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        for (i, chunk) in buffer.chunks_mut(1 << 20).enumerate() {
            let pieces = BlockDev::bounce(offset + ((i as u64) << 20), chunk.len())?;
            self.transfer(Direction::Read, &pieces)?;
            for (piece, part) in pieces.iter().zip(chunk.chunks_mut(PAGE_SIZE)) {
                piece.frame.read(0, part);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_many(&[(offset, data)])
    }

    fn write_many(&self, writes: &[(u64, &[u8])]) -> Result<()> {
        let mut pieces = Vec::new();
        for (offset, data) in writes {
            for (i, chunk) in data.chunks(PAGE_SIZE).enumerate() {
                let frame = Frame::alloc().ok_or(Errno::ENOMEM)?;
                frame.write(0, chunk);
                pieces.push(Piece { offset: offset + i as u64 * PAGE, frame, within: 0, len: chunk.len() });
                if pieces.len() == BATCH {
                    self.transfer(Direction::Write, &pieces)?;
                    pieces.clear();
                }
            }
        }
        self.transfer(Direction::Write, &pieces)
    }

    fn transfer(&self, direction: Direction, pieces: &[Piece]) -> Result<()> {
        let op = if direction == Direction::Read { BlockOp::Read } else { BlockOp::Write };
        if op == BlockOp::Write && self.is_read_only() && !pieces.is_empty() {
            return Err(Errno::EROFS);
        }
        let queue = match &self.store {
            Store::Queue(queue) => queue,
            Store::Loop(disk) => {
                pieces.iter().try_for_each(|piece| self.locate(piece.offset, piece.len as u64).map(drop))?;
                return disk.transfer(direction, self.start, pieces, &self.statistics);
            }
        };
        for batch in pieces.chunks(BATCH) {
            let group = Group::new();
            let mut bios = Vec::new();
            bios.try_reserve_exact(batch.len()).map_err(|_| Errno::ENOMEM)?;
            for piece in batch {
                let sector = self.locate(piece.offset, piece.len as u64)?;
                let physical = (piece.frame.physical() + piece.within) as u64;
                let memory = vec![(piece.frame.clone(), Segment { physical, len: piece.len as u32 })];
                bios.push(self.bio(op, sector, piece.len as u64, memory, &group));
            }
            queue.submit(bios);
            group.wait()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if !self.geometry().volatile_cache {
            return Ok(());
        }
        let queue = match &self.store {
            Store::Queue(queue) => queue,
            Store::Loop(disk) => return disk.run(BlockOp::Flush, 0, 0),
        };
        let group = Group::new();
        queue.submit(vec![self.bio(BlockOp::Flush, 0, 0, Vec::new(), &group)]);
        group.wait()
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        match self.geometry().max_discard {
            0 => Err(Errno::EOPNOTSUPP),
            max => self.run(BlockOp::Discard, offset, len, max),
        }
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let max = self.geometry().max_write_zeroes;
        if max > 0 {
            match self.run(BlockOp::WriteZeroes, offset, len, max) {
                Err(Errno::EOPNOTSUPP) => {}
                result => return result,
            }
        }
        let zeros = Frame::alloc_zeroed().ok_or(Errno::ENOMEM)?;
        let mut at = 0;
        while at < len {
            let mut pieces = Vec::new();
            while at < len && pieces.len() < BATCH {
                let n = (len - at).min(PAGE);
                pieces.push(Piece { offset: offset + at, frame: zeros.clone(), within: 0, len: n as usize });
                at += n;
            }
            self.transfer(Direction::Write, &pieces)?;
        }
        Ok(())
    }
}

impl DirtyStore for BlockDev {
    fn write_back(&self, _older_than: Option<base::Nanos>) -> Result<()> {
        self.cache.write_back(0, u64::MAX, usize::MAX).map(drop)
    }

    fn sync(&self) -> Result<()> {
        if !self.cache.is_dirty() {
            return Ok(());
        }
        self.cache.sync_range(0, u64::MAX)?;
        self.flush()
    }
}

/// The pages of a device are its bytes in their order.
struct DevicePager(Weak<BlockDev>);

impl DevicePager {
    /// The piece of page `index` that is on the device, whose last page may be less than a whole one.
    fn piece(device: &BlockDev, index: u64, frame: &Frame) -> Option<Piece> {
        let offset = index.checked_mul(PAGE)?;
        let len = device.size().checked_sub(offset)?.min(PAGE) as usize;
        (len > 0).then(|| Piece { offset, frame: frame.clone(), within: 0, len })
    }
}

impl Pager for DevicePager {
    fn read(&self, first: u64, frames: &[Frame]) -> Result<()> {
        let device = self.0.upgrade().ok_or(Errno::EIO)?;
        let mut pieces = Vec::new();
        for (i, frame) in frames.iter().enumerate() {
            match DevicePager::piece(&device, first + i as u64, frame) {
                Some(piece) => {
                    frame.zero_range(piece.len, PAGE_SIZE - piece.len);
                    pieces.push(piece);
                }
                None => frame.zero(),
            }
        }
        device.transfer(Direction::Read, &pieces)
    }

    fn is_prompt(&self) -> bool {
        true
    }

    fn write(&self, pages: &[(u64, Frame)]) -> Result<()> {
        let device = self.0.upgrade().ok_or(Errno::EIO)?;
        let pieces: Vec<Piece> =
            pages.iter().filter_map(|(index, frame)| DevicePager::piece(&device, *index, frame)).collect();
        device.transfer(Direction::Write, &pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_by_letters() {
        let names: Vec<String> = [0, 1, 25, 26, 27, 701, 702].into_iter().map(|i| disk_name("vd", i)).collect();
        assert_eq!(names, ["vda", "vdb", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
    }
}
