//! The virtio block device (virtio 1.2, section 5.2): disks.
//!
//! Each queue of the device is a lane with a lock of its own; a processor uses the lane of its number.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dev::{BlockDevice, BlockFault, BlockGeometry, BlockOp, BlockRequest, SECTOR};
use hal::dma::DmaBuffer;
use hal::sync::SpinLock;

use super::Transport;
use super::queue::{Buffer, Queue};
use super::transport::buffers;

/// Feature bits of section 5.2.3.
mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const READ_ONLY: u64 = 1 << 5;
    pub(super) const BLOCK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const MULTI_QUEUE: u64 = 1 << 12;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
    pub(super) const ALL: u64 =
        SIZE_MAX | SEG_MAX | READ_ONLY | BLOCK_SIZE | FLUSH | TOPOLOGY | MULTI_QUEUE | DISCARD | WRITE_ZEROES;
}

/// Request types of section 5.2.6.
mod request {
    pub(super) const READ: u32 = 0;
    pub(super) const WRITE: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// Offsets in the device's configuration.
mod config {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const SIZE_MAX: usize = 8;
    pub(super) const SEG_MAX: usize = 12;
    pub(super) const BLOCK_SIZE: usize = 20;
    pub(super) const TOPOLOGY: usize = 24;
    pub(super) const NUM_QUEUES: usize = 32;
    pub(super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
}

const STATUS_OK: u16 = 0;
const STATUS_UNSUPPORTED: u16 = 2;

/// Entries of a queue that are used.
const QUEUE_SIZE: u16 = 256;
/// Queues that are used.
const MAX_QUEUES: usize = 16;
/// Segments of one request: more would leave few requests room in the queue.
const MAX_SEGMENTS: usize = 64;
/// What the device is told of a request and tells of it: a header of 16 bytes, a status byte, and a range of 16 or an id of 20 bytes.
const SLOT: usize = 64;
const STATUS_AT: usize = 16;
const PAYLOAD_AT: usize = 32;
const ID_LEN: usize = 20;

type Done = Box<dyn FnOnce(Result<(), BlockFault>) + Send>;

/// A queue, and the requests that are in it.
struct Lane {
    queue: Queue,
    slots: DmaBuffer,
    free: Vec<u16>,
    /// Of each request by its number in the queue: its slot, and what is called when it is done.
    under_way: Vec<Option<(u16, Done)>>,
}

/// A disk.
struct Disk {
    transport: Transport,
    lanes: Vec<SpinLock<Lane>>,
    geometry: BlockGeometry,
}

/// Sets a device up. `None` where it can't be used, which the log then tells.
pub fn start(transport: Transport) -> Option<Arc<dyn BlockDevice>> {
    let Some(features) = transport.begin(feature::ALL) else {
        log::warn!("virtio-blk: the device refused the features");
        return None;
    };
    let lanes = lanes(&transport, features);
    let Some(entries) = lanes.iter().map(|lane| usize::from(lane.queue.size())).min().filter(|&n| n >= 4) else {
        log::warn!("virtio-blk: the device has no queue that could be used");
        return None;
    };
    let geometry = geometry(&transport, features, entries, lanes.len());
    transport.start();
    let disk = Arc::new(Disk { transport, lanes: lanes.into_iter().map(SpinLock::new).collect(), geometry });
    let handler = disk.clone();
    if !disk.transport.set_handler(Box::new(move || handler.on_interrupt())) {
        log::warn!("virtio-blk: no interrupt line");
        return None;
    }
    Some(disk)
}

fn lanes(transport: &Transport, features: u64) -> Vec<Lane> {
    let offered = match features & feature::MULTI_QUEUE {
        0 => 1,
        _ => (transport.config32(config::NUM_QUEUES) >> 16) as usize,
    };
    let count = offered.clamp(1, hal::cpu::count().min(MAX_QUEUES));
    (0..count as u16).map_while(|index| Lane::new(transport, index)).collect()
}

fn geometry(transport: &Transport, features: u64, entries: usize, queues: usize) -> BlockGeometry {
    let has = |bit: u64| features & bit != 0;
    let field = |bit: u64, at: usize| if has(bit) { transport.config32(at) } else { 0 };
    let sectors =
        u64::from(transport.config32(config::CAPACITY)) | u64::from(transport.config32(config::CAPACITY + 4)) << 32;
    let sane = |n: u32| n.is_power_of_two() && (512..=4096).contains(&n);
    let logical_block = Some(field(feature::BLOCK_SIZE, config::BLOCK_SIZE)).filter(|&n| sane(n)).unwrap_or(512);
    let exponent = field(feature::TOPOLOGY, config::TOPOLOGY) & 0xff;
    let physical_block =
        logical_block.checked_shl(exponent).filter(|&n| n != 0 && n <= 1 << 20).unwrap_or(logical_block);
    let positive = |n: u32| (n != 0).then_some(n);
    let seg_max = positive(field(feature::SEG_MAX, config::SEG_MAX)).unwrap_or(1) as usize;
    BlockGeometry {
        sectors,
        logical_block,
        physical_block,
        read_only: has(feature::READ_ONLY),
        volatile_cache: has(feature::FLUSH),
        max_segments: seg_max.min(entries - 2).min(MAX_SEGMENTS),
        max_segment_size: positive(field(feature::SIZE_MAX, config::SIZE_MAX)).unwrap_or(1 << 20).clamp(4096, 1 << 20),
        max_discard: field(feature::DISCARD, config::MAX_DISCARD_SECTORS),
        max_write_zeroes: field(feature::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS),
        depth: entries / 2,
        queues,
    }
}

impl Lane {
    fn new(transport: &Transport, index: u16) -> Option<Lane> {
        let queue = transport.queue(index, QUEUE_SIZE)?;
        let size = queue.size();
        Some(Lane {
            slots: buffers(size, SLOT)?,
            free: (0..size).rev().collect(),
            under_way: (0..size).map(|_| None).collect(),
            queue,
        })
    }

    /// Puts a request into the queue: `Err` gives it back where there is no room.
    fn add(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        let Some(slot) = self.free.pop() else {
            return Err(request);
        };
        let at = usize::from(slot) * SLOT;
        let physical = |offset: usize| self.slots.physical() + (at + offset) as u64;
        let (kind, sector) = match request.op {
            BlockOp::Read => (request::READ, request.sector),
            BlockOp::Write => (request::WRITE, request.sector),
            BlockOp::Flush => (request::FLUSH, 0),
            BlockOp::Discard => (request::DISCARD, 0),
            BlockOp::WriteZeroes => (request::WRITE_ZEROES, 0),
        };
        self.slots.store32(at, kind);
        self.slots.store32(at + 4, 0);
        self.slots.store64(at + 8, sector);
        self.slots.store16(at + STATUS_AT, 0xff);
        let mut chain = Vec::with_capacity(request.segments.len() + 3);
        chain.push(Buffer { physical: physical(0), len: 16, device_writes: false });
        if matches!(request.op, BlockOp::Discard | BlockOp::WriteZeroes) {
            self.slots.store64(at + PAYLOAD_AT, request.sector);
            self.slots.store32(at + PAYLOAD_AT + 8, request.sectors);
            self.slots.store32(at + PAYLOAD_AT + 12, 0);
            chain.push(Buffer { physical: physical(PAYLOAD_AT), len: 16, device_writes: false });
        }
        let device_writes = request.op == BlockOp::Read;
        chain.extend(request.segments.iter().map(|s| Buffer { physical: s.physical, len: s.len, device_writes }));
        chain.push(Buffer { physical: physical(STATUS_AT), len: 1, device_writes: true });
        let Some(number) = self.queue.add(&chain) else {
            self.free.push(slot);
            return Err(request);
        };
        self.under_way[usize::from(number)] = Some((slot, request.done));
        Ok(())
    }

    /// The next request that is done, and how it went.
    fn take(&mut self) -> Option<(Done, Result<(), BlockFault>)> {
        loop {
            let (number, _) = self.queue.take_used()?;
            let Some((slot, done)) = self.under_way[usize::from(number)].take() else { continue };
            let status = self.slots.load16(usize::from(slot) * SLOT + STATUS_AT) & 0xff;
            self.free.push(slot);
            let result = match status {
                STATUS_OK => Ok(()),
                STATUS_UNSUPPORTED => Err(BlockFault::Unsupported),
                _ => Err(BlockFault::Io),
            };
            return Some((done, result));
        }
    }
}

impl Disk {
    fn on_interrupt(&self) {
        self.transport.acknowledge();
        for lane in &self.lanes {
            loop {
                let taken = lane.lock_irq().take();
                let Some((done, result)) = taken else { break };
                // Without the lock: what is told may put the next request in.
                done(result);
            }
        }
    }

    fn lane(&self) -> &SpinLock<Lane> {
        &self.lanes[hal::cpu::id() % self.lanes.len()]
    }

    fn notify(&self, lane: &Lane) -> Option<u16> {
        lane.queue.wants_notification().then(|| lane.queue.index())
    }
}

impl BlockDevice for Disk {
    fn geometry(&self) -> BlockGeometry {
        self.geometry
    }

    fn serial(&self) -> Vec<u8> {
        let mut lane = self.lane().lock_irq();
        let Some(slot) = lane.free.pop() else { return Vec::new() };
        let at = usize::from(slot) * SLOT;
        lane.slots.store32(at, request::GET_ID);
        lane.slots.store64(at + 8, 0);
        lane.slots.store16(at + STATUS_AT, 0xff);
        let base = lane.slots.physical() + at as u64;
        let chain = [
            Buffer { physical: base, len: 16, device_writes: false },
            Buffer { physical: base + PAYLOAD_AT as u64, len: ID_LEN as u32, device_writes: true },
            Buffer { physical: base + STATUS_AT as u64, len: 1, device_writes: true },
        ];
        if lane.queue.add(&chain).is_none() {
            lane.free.push(slot);
            return Vec::new();
        }
        self.transport.notify(lane.queue.index());
        // Asked once, before the disk is used, and answered by the device itself: it is waited for here.
        let deadline = hal::clock::now() + 1_000_000_000;
        let answered = loop {
            if lane.queue.take_used().is_some() {
                break true;
            }
            if hal::clock::now() > deadline {
                break false;
            }
            core::hint::spin_loop();
        };
        if !answered || lane.slots.load16(at + STATUS_AT) & 0xff != STATUS_OK {
            return Vec::new();
        }
        let mut id = alloc::vec![0; ID_LEN];
        lane.slots.read(at + PAYLOAD_AT, &mut id);
        lane.free.push(slot);
        let end = id.iter().position(|&b| b == 0).unwrap_or(ID_LEN);
        id.truncate(end);
        id
    }

    fn submit(&self, request: BlockRequest) -> Result<(), BlockRequest> {
        debug_assert!(request.sector.checked_mul(SECTOR).is_some());
        let mut lane = self.lane().lock_irq();
        lane.add(request)?;
        let notify = self.notify(&lane);
        drop(lane);
        if let Some(index) = notify {
            self.transport.notify(index);
        }
        Ok(())
    }
}
