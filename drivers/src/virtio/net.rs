//! The virtio network device (virtio 1.2, section 5.1): one queue each way, mergeable receive buffers, checksum and TCP segmentation offload.
//!
//! Interrupts are off while frames are being taken: an interrupt turns them off and tells the listener, who takes frames until there are none
//! and then asks for the next ([`NetDevice::listen`]).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

use dev::{NetDevice, NetFeatures, Page, Received, Transmit};
use hal::dma::DmaBuffer;
use hal::sync::{Once, SpinLock};

use super::Transport;
use super::queue::{Buffer, Queue};
use super::transport::buffers;

const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_MRG_RXBUF: u64 = 1 << 15;
const F_STATUS: u64 = 1 << 16;

/// `struct virtio_net_hdr_v1`.
const HEADER: usize = 12;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Room for our header and the frame's, for each frame that is being sent.
const HEAD_SLOT: usize = 256;
const QUEUE_SIZE: u16 = 256;
/// Buffers of one received frame: 64 KiB and the headers.
const PARTS_MAX: u16 = 18;
const RX: u16 = 0;
const TX: u16 = 1;

struct ReceiveQueue {
    queue: Queue,
    /// What each request was given.
    pages: Vec<Option<Box<dyn Page>>>,
}

struct TransmitQueue {
    queue: Queue,
    heads: DmaBuffer,
    /// What is kept until each request is done.
    kept: Vec<Option<Box<dyn Any + Send>>>,
    /// Slots of `heads`, by request.
    slots: Vec<u16>,
    free: Vec<u16>,
    /// Someone waits for room.
    wanted: bool,
}

/// A network device.
struct Net {
    transport: Transport,
    features: u64,
    mac: [u8; 6],
    mtu: u32,
    receive: SpinLock<ReceiveQueue>,
    transmit: SpinLock<TransmitQueue>,
    listener: Once<Box<dyn Fn() + Send + Sync>>,
    /// The listener was told and has not asked for more yet.
    told: AtomicBool,
}

fn mac(transport: &Transport) -> [u8; 6] {
    let (low, high) = (transport.config32(0).to_le_bytes(), transport.config32(4).to_le_bytes());
    [low[0], low[1], low[2], low[3], high[0], high[1]]
}

/// Sets a device up.
pub fn start(transport: Transport) -> Option<Arc<dyn NetDevice>> {
    let wanted = F_CSUM
        | F_GUEST_CSUM
        | F_MTU
        | F_MAC
        | F_GUEST_TSO4
        | F_GUEST_TSO6
        | F_HOST_TSO4
        | F_HOST_TSO6
        | F_MRG_RXBUF
        | F_STATUS;
    let Some(features) = transport.begin(wanted) else {
        log::warn!("virtio-net: the device refused the features");
        return None;
    };
    if features & F_MRG_RXBUF == 0 {
        log::warn!("virtio-net: a device without mergeable buffers is not used");
        return None;
    }
    let queue = transport.queue(RX, QUEUE_SIZE)?;
    let pages = (0..queue.size()).map(|_| None).collect();
    let receive = ReceiveQueue { queue, pages };
    let queue = transport.queue(TX, QUEUE_SIZE)?;
    let count = queue.size();
    let transmit = TransmitQueue {
        heads: buffers(count, HEAD_SLOT)?,
        kept: (0..count).map(|_| None).collect(),
        slots: (0..count).map(|_| 0).collect(),
        free: (0..count).rev().collect(),
        queue,
        wanted: false,
    };
    let mtu = if features & F_MTU != 0 { transport.config32(8) >> 16 } else { 1500 };
    let mac = if features & F_MAC != 0 { mac(&transport) } else { [0x52, 0x54, 0, 0x12, 0x34, 0x56] };
    let device = Arc::new(Net {
        transport,
        features,
        mac,
        mtu: mtu.clamp(68, 65535),
        receive: SpinLock::new(receive),
        transmit: SpinLock::new(transmit),
        listener: Once::new(),
        told: AtomicBool::new(false),
    });
    device.transmit.lock_irq().queue.set_interrupts(false);
    device.transport.start();
    let handler = device.clone();
    if !device.transport.set_handler(Box::new(move || handler.on_interrupt())) {
        log::warn!("virtio-net: no interrupt line");
    }
    Some(device)
}

impl Net {
    fn on_interrupt(&self) {
        self.transport.acknowledge();
        if !self.told.swap(true, Ordering::AcqRel) {
            self.receive.lock_irq().queue.set_interrupts(false);
            if let Some(listener) = self.listener.get() {
                listener();
            }
        }
    }
}

impl TransmitQueue {
    /// Lets go of what the device is done with.
    fn reclaim(&mut self) -> Vec<Box<dyn Any + Send>> {
        let mut done = Vec::new();
        while let Some((request, _)) = self.queue.take_used() {
            let request = usize::from(request);
            self.free.push(self.slots[request]);
            done.extend(self.kept[request].take());
        }
        done
    }

    /// Writes the device's header and the frame's into a slot.
    fn write_head(&mut self, slot: u16, frame: &Transmit) {
        let mut header = [0; HEADER];
        if let Some((start, offset)) = frame.offload.checksum {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        if frame.offload.segment_size != 0 {
            header[1] = if frame.offload.v6 { GSO_TCPV6 } else { GSO_TCPV4 };
            header[2..4].copy_from_slice(&frame.offload.header_len.to_le_bytes());
            header[4..6].copy_from_slice(&frame.offload.segment_size.to_le_bytes());
        }
        let at = usize::from(slot) * HEAD_SLOT;
        self.heads.write(at, &header);
        self.heads.write(at + HEADER, frame.head);
    }
}

impl NetDevice for Net {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn features(&self) -> NetFeatures {
        let has = |bit: u64| self.features & bit != 0;
        NetFeatures { checksum: has(F_CSUM), tso4: has(F_HOST_TSO4), tso6: has(F_HOST_TSO6) }
    }

    fn link_up(&self) -> bool {
        const LINK_UP: u32 = 1;
        self.features & F_STATUS == 0 || self.transport.config32(4) >> 16 & LINK_UP != 0
    }

    fn transmit(&self, frame: &Transmit, keep: &mut Option<Box<dyn Any + Send>>) -> bool {
        if frame.head.len() > HEAD_SLOT - HEADER {
            return true;
        }
        let mut tx = self.transmit.lock_irq();
        let mut done = Vec::new();
        if tx.queue.room() < frame.pieces.len() + 1 + usize::from(PARTS_MAX) {
            done = tx.reclaim();
        }
        let slot = tx.free.pop();
        let room = tx.queue.room() > frame.pieces.len();
        let (Some(slot), true) = (slot, room) else {
            tx.free.extend(slot);
            tx.wanted = true;
            tx.queue.set_interrupts(true);
            drop(tx);
            drop(done);
            return false;
        };
        tx.write_head(slot, frame);
        let physical = tx.heads.physical() + u64::from(slot) * HEAD_SLOT as u64;
        let mut chain = Vec::with_capacity(frame.pieces.len() + 1);
        chain.push(Buffer { physical, len: (HEADER + frame.head.len()) as u32, device_writes: false });
        chain.extend(frame.pieces.iter().map(|&(physical, len)| Buffer { physical, len, device_writes: false }));
        let request = tx.queue.add(&chain);
        let sent = match request {
            Some(request) => {
                tx.slots[usize::from(request)] = slot;
                tx.kept[usize::from(request)] = keep.take();
                true
            }
            None => {
                tx.free.push(slot);
                false
            }
        };
        let notify = tx.queue.wants_notification();
        drop(tx);
        if notify {
            self.transport.notify(TX);
        }
        drop(done);
        sent
    }

    fn post(&self, page: Box<dyn Page>) -> Result<(), Box<dyn Page>> {
        let mut rx = self.receive.lock_irq();
        let buffer = Buffer { physical: page.physical(), len: page.size() as u32, device_writes: true };
        match rx.queue.add(&[buffer]) {
            Some(request) => {
                rx.pages[usize::from(request)] = Some(page);
                Ok(())
            }
            None => Err(page),
        }
    }

    fn flush(&self) {
        if self.receive.lock_irq().queue.wants_notification() {
            self.transport.notify(RX);
        }
    }

    fn receive(&self) -> Option<Received> {
        let mut rx = self.receive.lock_irq();
        loop {
            let (request, len) = rx.queue.take_used()?;
            let page = rx.pages[usize::from(request)].take()?;
            let len = (len as usize).min(page.size());
            if len <= HEADER {
                continue;
            }
            let mut header = [0; HEADER];
            page.read(0, &mut header);
            // Checksums that a neighbour left to its device never went over a wire; those that the device looked at are right.
            let checked = header[0] & 3 != 0;
            let count = u16::from_le_bytes([header[10], header[11]]).clamp(1, PARTS_MAX);
            let mut parts = Vec::with_capacity(count.into());
            parts.push((page, HEADER, len - HEADER));
            for _ in 1..count {
                let Some((request, len)) = rx.queue.take_used() else { break };
                let Some(page) = rx.pages[usize::from(request)].take() else { break };
                let len = (len as usize).min(page.size());
                parts.push((page, 0, len));
            }
            return Some(Received { parts, checked });
        }
    }

    fn listen(&self) -> bool {
        let mut tx = self.transmit.lock_irq();
        let done = tx.reclaim();
        let room = tx.wanted && tx.queue.room() > usize::from(PARTS_MAX);
        if room {
            tx.wanted = false;
            tx.queue.set_interrupts(false);
        }
        drop(tx);
        drop(done);
        self.told.store(false, Ordering::Release);
        let mut rx = self.receive.lock_irq();
        rx.queue.set_interrupts(true);
        let more = rx.queue.has_used() || room;
        if more {
            rx.queue.set_interrupts(false);
            self.told.store(true, Ordering::Release);
        }
        more
    }

    fn set_listener(&self, listener: Box<dyn Fn() + Send + Sync>) {
        assert!(self.listener.set(listener).is_ok(), "a network device has one listener");
    }
}
