//! Virtio devices that answer messages: 9P servers (the device type 9 of virtio 1.2) and FUSE servers (section 5.11).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dev::{Exchange, ExchangeDevice, Segment};
use hal::sync::SpinLock;

use super::Transport;
use super::queue::{Buffer, Queue};

/// VIRTIO_9P_MOUNT_TAG.
const MOUNT_TAG: u64 = 1;
/// Entries of a queue that are used.
const QUEUE_SIZE: u16 = 256;
/// The longest tag of a 9P server that is read.
const TAG_MAX: usize = 32;
/// Bytes of a FUSE server's tag.
const FS_TAG: usize = 36;
/// The queue of a FUSE server that takes ordinary requests.
const FS_REQUESTS: u16 = 1;

type Done = Box<dyn FnOnce(usize) + Send>;

struct Lane {
    queue: Queue,
    /// Of each request by its number in the queue: what is called when it is done.
    under_way: Vec<Option<Done>>,
}

struct Server {
    transport: Transport,
    tag: Vec<u8>,
    segments: usize,
    lane: SpinLock<Lane>,
}

/// Sets a 9P server up. `None` where it can't be used, which the log then tells.
pub fn start_ninep(transport: Transport) -> Option<Arc<dyn ExchangeDevice>> {
    let Some(features) = transport.begin(MOUNT_TAG) else {
        log::warn!("virtio-9p: the device refused the features");
        return None;
    };
    let mut tag = Vec::new();
    if features & MOUNT_TAG != 0 {
        let len = usize::from(transport.config8(0)) | usize::from(transport.config8(1)) << 8;
        tag.extend((0..len.min(TAG_MAX)).map(|i| transport.config8(2 + i)));
    }
    start(transport, tag, 0)
}

/// Sets a FUSE server up. `None` where it can't be used, which the log then tells.
pub fn start_fs(transport: Transport) -> Option<Arc<dyn ExchangeDevice>> {
    if transport.begin(0).is_none() {
        log::warn!("virtio-fs: the device refused the features");
        return None;
    }
    let mut tag: Vec<u8> = (0..FS_TAG).map(|i| transport.config8(i)).collect();
    tag.truncate(tag.iter().position(|&b| b == 0).unwrap_or(FS_TAG));
    start(transport, tag, FS_REQUESTS)
}

fn start(transport: Transport, tag: Vec<u8>, index: u16) -> Option<Arc<dyn ExchangeDevice>> {
    // Queues before ours are not used, but a device may want them to be there.
    let unused: Vec<Queue> = (0..index).filter_map(|i| transport.queue(i, QUEUE_SIZE)).collect();
    let Some(queue) = transport.queue(index, QUEUE_SIZE) else {
        log::warn!("virtio: the server {:?} has no queue", tag.escape_ascii());
        return None;
    };
    let size = queue.size();
    transport.start();
    let lane = SpinLock::new(Lane { under_way: (0..size).map(|_| None).collect(), queue });
    let server = Arc::new(Server { transport, tag, segments: usize::from(size), lane });
    let handler = server.clone();
    let listens = server.transport.set_handler(Box::new(move || {
        // Their memory belongs to the device as long as it runs.
        let _keep = &unused;
        handler.on_interrupt()
    }));
    if !listens {
        log::warn!("virtio: no interrupt line for a server");
        return None;
    }
    Some(server)
}

impl Server {
    fn on_interrupt(&self) {
        self.transport.acknowledge();
        loop {
            let taken = {
                let mut lane = self.lane.lock_irq();
                let Some((number, written)) = lane.queue.take_used() else { break };
                lane.under_way[usize::from(number)].take().map(|done| (done, written))
            };
            // Without the lock: what is told may put the next one in.
            if let Some((done, written)) = taken {
                done(written as usize);
            }
        }
    }
}

impl ExchangeDevice for Server {
    fn tag(&self) -> &[u8] {
        &self.tag
    }

    fn max_segments(&self) -> usize {
        self.segments
    }

    fn submit(&self, exchange: Exchange) -> Result<(), Exchange> {
        let buffer = |device_writes| move |s: &Segment| Buffer { physical: s.physical, len: s.len, device_writes };
        let mut chain: Vec<Buffer> = exchange.request.iter().map(buffer(false)).collect();
        chain.extend(exchange.reply.iter().map(buffer(true)));
        let mut lane = self.lane.lock_irq();
        let Some(number) = lane.queue.add(&chain) else { return Err(exchange) };
        lane.under_way[usize::from(number)] = Some(exchange.done);
        let notify = lane.queue.wants_notification().then(|| lane.queue.index());
        drop(lane);
        if let Some(index) = notify {
            self.transport.notify(index);
        }
        Ok(())
    }
}
