//! A disk's queue of requests: merges neighbours, and hands as many to the driver as it takes.
//!
//! Requests are submitted in batches. Within a batch, and with what is waiting already, a request that begins where the one before it
//! ends becomes part of it, up to what the driver can do at a time.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{Errno, Nanos, Result};
use dev::{BlockDevice, BlockFault, BlockGeometry, BlockOp, BlockRequest, SECTOR, Segment};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::{Sleep, WaitQueue};

use super::statistics::Statistics;

/// Bytes of one request.
const MAX_BYTES: u64 = 1 << 20;

/// What several requests have in common: who waits for them all.
pub(crate) struct Group {
    left: AtomicUsize,
    failed: AtomicBool,
    unsupported: AtomicBool,
    waiters: WaitQueue,
}

impl Group {
    pub(crate) fn new() -> Arc<Group> {
        Arc::new(Group {
            left: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            unsupported: AtomicBool::new(false),
            waiters: WaitQueue::new(),
        })
    }

    /// Waits until all that was submitted with it is done. `EIO`, `EOPNOTSUPP`.
    pub(crate) fn wait(&self) -> Result<()> {
        let _ = self
            .waiters
            .wait_until(Sleep::Uninterruptible, None, || (self.left.load(Ordering::Acquire) == 0).then_some(()));
        if self.failed.load(Ordering::Acquire) {
            Err(Errno::EIO)
        } else if self.unsupported.load(Ordering::Acquire) {
            Err(Errno::EOPNOTSUPP)
        } else {
            Ok(())
        }
    }

    fn done(&self, result: Result<(), BlockFault>) {
        match result {
            Ok(()) => {}
            Err(BlockFault::Io) => self.failed.store(true, Ordering::Release),
            Err(BlockFault::Unsupported) => self.unsupported.store(true, Ordering::Release),
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.waiters.wake_all();
        }
    }
}

/// A request of the layers above, before merging.
pub(crate) struct Bio {
    pub(crate) op: BlockOp,
    pub(crate) sector: u64,
    pub(crate) sectors: u32,
    /// The memory, which stays allocated while the request is under way.
    pub(crate) memory: Vec<(Frame, Segment)>,
    pub(crate) group: Arc<Group>,
    /// Who counts it.
    pub(crate) counted: Arc<Statistics>,
    pub(crate) began: Nanos,
}

/// One or more [`Bio`]s that go to the driver as one request.
struct Merged {
    op: BlockOp,
    sector: u64,
    sectors: u64,
    segments: Vec<Segment>,
    parts: Vec<Bio>,
}

impl Merged {
    fn new(bio: Bio) -> Merged {
        let segments = join(bio.memory.iter().map(|(_, segment)| *segment));
        Merged { op: bio.op, sector: bio.sector, sectors: u64::from(bio.sectors), segments, parts: alloc::vec![bio] }
    }

    /// Takes `bio` in behind what is there, if it follows and fits.
    fn take(&mut self, bio: Bio, geometry: &BlockGeometry) -> Result<(), Bio> {
        let sectors = self.sectors + u64::from(bio.sectors);
        let fits = matches!(bio.op, BlockOp::Read | BlockOp::Write)
            && bio.op == self.op
            && bio.sector == self.sector + self.sectors
            && sectors * SECTOR <= MAX_BYTES
            && self.segments.len() + bio.memory.len() <= geometry.max_segments;
        if !fits {
            return Err(bio);
        }
        bio.counted.merged(bio.op);
        let all = self.segments.iter().copied().chain(bio.memory.iter().map(|(_, segment)| *segment));
        self.segments = join(all);
        self.sectors = sectors;
        self.parts.push(bio);
        Ok(())
    }
}

/// Joins segments that lie behind each other in memory.
fn join(segments: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(last)
                if last.physical + u64::from(last.len) == segment.physical
                    && u64::from(last.len) + u64::from(segment.len) <= 64 << 10 =>
            {
                last.len += segment.len;
            }
            _ => joined.push(segment),
        }
    }
    joined
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Merged>,
    under_way: usize,
}

/// The queue.
pub(crate) struct RequestQueue {
    device: Arc<dyn BlockDevice>,
    geometry: SpinLock<BlockGeometry>,
    state: SpinLock<State>,
}

impl RequestQueue {
    pub(crate) fn new(device: Arc<dyn BlockDevice>) -> Arc<RequestQueue> {
        let geometry = SpinLock::new(device.geometry());
        Arc::new(RequestQueue { device, geometry, state: SpinLock::new(State::default()) })
    }

    pub(crate) fn geometry(&self) -> BlockGeometry {
        *self.geometry.lock_irq()
    }

    /// The device has changed (a loop device got a file).
    pub(crate) fn refresh(&self) {
        *self.geometry.lock_irq() = self.device.geometry();
    }

    /// Queues requests, each within the limits of the device, and starts them. They count in their groups at once.
    pub(crate) fn submit(self: &Arc<RequestQueue>, bios: Vec<Bio>) {
        let geometry = self.geometry();
        let now = sched::time::now();
        let read: u64 = bios.iter().filter(|bio| bio.op == BlockOp::Read).map(|bio| u64::from(bio.sectors) << 9).sum();
        sched::transfers::from_storage(read as usize);
        {
            let mut state = self.state.lock_irq();
            for mut bio in bios {
                bio.began = now;
                bio.group.left.fetch_add(1, Ordering::AcqRel);
                bio.counted.begin(now);
                let rest = match state.waiting.back_mut() {
                    Some(last) => last.take(bio, &geometry),
                    None => Err(bio),
                };
                if let Err(bio) = rest {
                    state.waiting.push_back(Merged::new(bio));
                }
            }
        }
        self.dispatch(&geometry);
    }

    /// Hands waiting requests to the driver, as many as it takes.
    fn dispatch(self: &Arc<RequestQueue>, geometry: &BlockGeometry) {
        let mut state = self.state.lock_irq();
        while state.under_way < geometry.depth.max(1)
            && let Some(next) = state.waiting.pop_front()
        {
            let Merged { op, sector, sectors, segments, parts } = next;
            let queue = self.clone();
            // The parts sit in a slot, so that they are not lost where the driver has no room.
            let slot = Arc::new(SpinLock::new(parts));
            let theirs = slot.clone();
            let done = move |result| queue.finished(core::mem::take(&mut *theirs.lock_irq()), result);
            let request = BlockRequest {
                op,
                sector,
                sectors: u32::try_from(sectors).unwrap_or(u32::MAX),
                segments,
                done: Box::new(done),
            };
            state.under_way += 1;
            if let Err(back) = self.device.submit(request) {
                state.under_way -= 1;
                let parts = core::mem::take(&mut *slot.lock_irq());
                let BlockRequest { op, sector, segments, .. } = back;
                state.waiting.push_front(Merged { op, sector, sectors, segments, parts });
                break;
            }
        }
    }

    fn finished(self: &Arc<RequestQueue>, parts: Vec<Bio>, result: Result<(), BlockFault>) {
        let now = sched::time::now();
        if let (Err(BlockFault::Io), Some(first)) = (result, parts.first()) {
            log::warn!("I/O error: {:?} of {} sectors at sector {}", first.op, first.sectors, first.sector);
        }
        for (i, bio) in parts.into_iter().enumerate() {
            let (took, failed) = (now.saturating_sub(bio.began), result == Err(BlockFault::Io));
            bio.counted.end(bio.op, u64::from(bio.sectors), took, i == 0, failed && i == 0);
            bio.group.done(result);
        }
        let geometry = {
            self.state.lock_irq().under_way -= 1;
            *self.geometry.lock_irq()
        };
        self.dispatch(&geometry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that takes `room` requests and finishes them when told.
    struct Slow {
        room: usize,
        taken: SpinLock<Vec<BlockRequest>>,
    }

    impl BlockDevice for Slow {
        fn geometry(&self) -> BlockGeometry {
            BlockGeometry { sectors: 1 << 20, max_segments: 4, depth: 8, ..BlockGeometry::default() }
        }

        fn serial(&self) -> Vec<u8> {
            Vec::new()
        }

        fn submit(&self, request: BlockRequest) -> Result<(), BlockRequest> {
            let mut taken = self.taken.lock_irq();
            if taken.len() == self.room {
                return Err(request);
            }
            taken.push(request);
            Ok(())
        }
    }

    fn bio(op: BlockOp, sector: u64, physical: u64, group: &Arc<Group>) -> Bio {
        let frame = Frame::alloc().expect("memory");
        let memory = alloc::vec![(frame, Segment { physical, len: 4096 })];
        Bio { op, sector, sectors: 8, memory, group: group.clone(), counted: Arc::default(), began: 0 }
    }

    #[test]
    fn neighbours_become_one_request_up_to_the_segment_limit() {
        let device = Arc::new(Slow { room: 2, taken: SpinLock::new(Vec::new()) });
        let queue = RequestQueue::new(device.clone());
        let group = Group::new();
        let mut bios: Vec<Bio> = (0..6).map(|i| bio(BlockOp::Write, i * 8, i * 8192, &group)).collect();
        bios.push(bio(BlockOp::Read, 48, 1 << 20, &group));
        queue.submit(bios);
        let shape = |r: &BlockRequest| (r.op, r.sector, r.sectors, r.segments.len());
        assert_eq!(
            device.taken.lock_irq().iter().map(shape).collect::<Vec<_>>(),
            [(BlockOp::Write, 0, 32, 4), (BlockOp::Write, 32, 16, 2),]
        );
        // The third had no room, and goes when there is.
        let first = device.taken.lock_irq().remove(0);
        (first.done)(Ok(()));
        assert_eq!(device.taken.lock_irq().last().map(shape), Some((BlockOp::Read, 48, 8, 1)));
        let rest = core::mem::take(&mut *device.taken.lock_irq());
        for request in rest {
            (request.done)(Ok(()));
        }
        assert_eq!(group.wait(), Ok(()));
    }

    #[test]
    fn memory_that_touches_is_one_segment() {
        let segment = |physical, len| Segment { physical, len };
        let joined = join([segment(0, 4096), segment(4096, 4096), segment(16384, 512)].into_iter());
        assert_eq!(joined, [segment(0, 8192), segment(16384, 512)]);
    }
}
