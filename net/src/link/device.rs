//! A hardware device below an interface: frames wait for room in it, and what it has received is taken in portions.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use abi::PAGE_SIZE;
use dev::{NetDevice, NetFeatures, Offload, Page, Part, Received, Transmit};
use hal::frame::Frame;
use hal::sync::SpinLock;
use sched::statistics::{Deferred, note_deferred};

use super::{Interface, ethernet, segmentation};
use crate::packet::{Checksum, Filler, Packet, Piece, Rope};
use crate::{backlog, worker};

/// Packets that wait for room in the device (as Linux's `txqueuelen`).
const WAITING_MAX: usize = 1000;
/// Frames that are taken before others get their turn.
const BUDGET: usize = 64;

/// Frames up to this length are copied together, so that a short one does not keep a page to itself.
const COPIED_MAX: usize = 256;

/// A device and the frames that wait for it.
pub struct Device {
    device: Arc<dyn NetDevice>,
    waiting: SpinLock<VecDeque<Box<Packet>>>,
}

/// A page that a device fills.
struct ReceivePage(Frame);

impl Page for ReceivePage {
    fn physical(&self) -> u64 {
        self.0.physical() as u64
    }

    fn size(&self) -> usize {
        PAGE_SIZE
    }

    fn read(&self, offset: usize, dst: &mut [u8]) {
        self.0.read(offset, dst);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Device {
    pub(super) fn new(device: Arc<dyn NetDevice>) -> Device {
        let device = Device { device, waiting: SpinLock::new(VecDeque::new()) };
        device.fill();
        device
    }

    /// Is a cable plugged in?
    pub(super) fn link_up(&self) -> bool {
        self.device.link_up()
    }

    /// What it does by itself.
    pub(super) fn features(&self) -> NetFeatures {
        self.device.features()
    }

    /// Gives the device pages for frames.
    fn fill(&self) {
        while let Some(frame) = Frame::alloc() {
            if self.device.post(Box::new(ReceivePage(frame))).is_err() {
                break;
            }
        }
        self.device.flush();
    }

    /// Sends a frame. What the device cannot do by itself is done first.
    pub(super) fn send(&self, interface: &Interface, packet: Box<Packet>) {
        let features = self.device.features();
        let cuts = features.checksum && if packet.is_v6() { features.tso6 } else { features.tso4 };
        if packet.segment_size != 0 && !(cuts && packet.is_tcp()) {
            segmentation::cut(packet).into_iter().for_each(|part| self.send(interface, part));
            return;
        }
        let mut packet = packet;
        if !features.checksum {
            packet.finish_checksum();
        }
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            let Some(packet) = self.try_send(packet) else { return };
            waiting.push_back(packet);
        } else if waiting.len() < WAITING_MAX {
            waiting.push_back(packet);
        } else {
            interface.counts.dropped();
        }
    }

    /// Hands a frame to the device; given back if there is no room.
    fn try_send(&self, packet: Box<Packet>) -> Option<Box<Packet>> {
        let pieces: Vec<(u64, u32)> =
            packet.payload.pieces().map(|piece| (piece.physical(), piece.len() as u32)).collect();
        let mut offload = Offload::default();
        if let Checksum::Partial { start, offset } = packet.checksum {
            offload.checksum = Some((start + u16::from(packet.link), offset));
        }
        if packet.segment_size != 0 {
            offload.segment_size = packet.segment_size;
            offload.header_len = packet.head().len() as u16;
            offload.v6 = packet.is_v6();
        }
        let head = packet.head().to_vec();
        let mut keep: Option<Box<dyn Any + Send>> = Some(Box::new(packet));
        let frame = Transmit { head: &head, pieces: &pieces, offload };
        if self.device.transmit(&frame, &mut keep) {
            return None;
        }
        let packet = keep?.downcast::<Box<Packet>>().ok()?;
        Some(*packet)
    }

    /// Sends what waited for room.
    fn drain(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_empty() {
            note_deferred(Deferred::Send);
        }
        while let Some(packet) = waiting.pop_front() {
            if let Some(packet) = self.try_send(packet) {
                waiting.push_front(packet);
                return;
            }
        }
    }

    /// Takes received frames, a budget's worth; then asks for an interrupt, or comes back if there are more.
    pub(super) fn poll(&self, interface: &Arc<Interface>) {
        note_deferred(Deferred::Receive);
        for _ in 0..BUDGET {
            let Some(received) = self.device.receive() else {
                self.fill();
                self.drain();
                if self.device.listen() {
                    worker::wake(worker::FRAMES);
                }
                return;
            };
            if let Some(packet) = self.packet_of(received) {
                interface.receive(packet);
                backlog::run();
            }
        }
        self.fill();
        worker::wake(worker::FRAMES);
    }

    fn packet_of(&self, received: Received) -> Option<Box<Packet>> {
        let rope = match &received.parts[..] {
            [(_, _, ..=COPIED_MAX)] => self.copy_short(received.parts)?,
            _ => keep_pages(received.parts)?,
        };
        let mut packet = Packet::incoming(rope);
        packet.link = ethernet::HEADER as u8;
        if received.checked {
            packet.checksum = Checksum::Good;
        }
        Some(packet)
    }

    /// Copies a frame that has one part, and gives its page back to the device.
    fn copy_short(&self, parts: Vec<Part>) -> Option<Rope> {
        let (page, offset, len) = parts.into_iter().next()?;
        let mut bytes = [0; COPIED_MAX];
        page.read(offset, &mut bytes[..len]);
        // A device that has all it can take gets the page another time.
        let _ = self.device.post(page);
        Filler::shared(|filler| filler.bytes(&bytes[..len])).ok()
    }
}

/// A packet of the pages that the device has filled.
fn keep_pages(parts: Vec<Part>) -> Option<Rope> {
    let mut rope = Rope::new();
    for (page, offset, len) in parts {
        let page = page.into_any().downcast::<ReceivePage>().ok()?;
        rope.push(Piece::new(page.0, offset, len));
    }
    Some(rope)
}
