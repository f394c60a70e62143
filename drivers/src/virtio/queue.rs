//! Split virtqueues (virtio 1.2, section 2.7).

use alloc::vec::Vec;

use hal::dma::{DmaBuffer, barrier};

use super::transport::Addresses;

const NEXT: u16 = 1;
/// The device writes the buffer.
const WRITE: u16 = 2;

/// One buffer of a request.
#[derive(Clone, Copy)]
pub struct Buffer {
    /// Where it is, for the device.
    pub physical: u64,
    /// Its length in bytes.
    pub len: u32,
    /// The device writes it (else reads it).
    pub device_writes: bool,
}

/// A queue of requests to a device.
pub struct Queue {
    index: u16,
    size: u16,
    memory: DmaBuffer,
    /// Offsets of the available and used rings.
    available: usize,
    used: usize,
    free: Vec<u16>,
    /// The chain's further descriptors, for each that heads one.
    chains: Vec<Vec<u16>>,
    /// How many requests were made available, and how many used ones were seen.
    made: u16,
    seen: u16,
}

impl Queue {
    pub(super) fn new(index: u16, size: u16) -> Option<Queue> {
        let n = usize::from(size);
        let available = 16 * n;
        let used = (available + 6 + 2 * n).next_multiple_of(4);
        let memory = DmaBuffer::new(used + 6 + 8 * n)?;
        Some(Queue {
            index,
            size,
            memory,
            available,
            used,
            free: (0..size).rev().collect(),
            chains: (0..size).map(|_| Vec::new()).collect(),
            made: 0,
            seen: 0,
        })
    }

    /// Its index on the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn addresses(&self) -> Addresses {
        let base = self.memory.physical();
        Addresses { descriptors: base, available: base + self.available as u64, used: base + self.used as u64 }
    }

    /// Makes a request available to the device: its number, or `None` while there are too few descriptors.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || self.free.len() < buffers.len() {
            return None;
        }
        let chain: Vec<u16> = self.free.split_off(self.free.len() - buffers.len());
        for (i, buffer) in buffers.iter().enumerate() {
            let at = usize::from(chain[i]) * 16;
            let next = chain.get(i + 1).copied();
            let flags = if buffer.device_writes { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
            self.memory.store64(at, buffer.physical);
            self.memory.store32(at + 8, buffer.len);
            self.memory.store16(at + 12, flags);
            self.memory.store16(at + 14, next.unwrap_or(0));
        }
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        let slot = usize::from(self.made % self.size);
        self.memory.store16(self.available + 4 + 2 * slot, head);
        barrier();
        self.made = self.made.wrapping_add(1);
        self.memory.store16(self.available + 2, self.made);
        barrier();
        Some(head)
    }

    /// Does the device want to be notified?
    pub fn wants_notification(&self) -> bool {
        self.memory.load16(self.used) & 1 == 0
    }

    /// The next request that the device has finished: its number, and how many bytes it wrote.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if self.memory.load16(self.used + 2) == self.seen {
            return None;
        }
        barrier();
        let at = self.used + 4 + 8 * usize::from(self.seen % self.size);
        let (id, len) = (self.memory.load32(at), self.memory.load32(at + 4));
        self.seen = self.seen.wrapping_add(1);
        // A faulty device may name what it was never given.
        let head = u16::try_from(id).ok().filter(|&h| h < self.size)?;
        let chain = core::mem::take(&mut self.chains[usize::from(head)]);
        if chain.is_empty() {
            return None;
        }
        self.free.extend(chain);
        Some((head, len))
    }

    /// Asks the device for an interrupt when it has finished a request, or not to.
    pub fn set_interrupts(&mut self, on: bool) {
        const NO_INTERRUPT: u16 = 1;
        self.memory.store16(self.available, if on { 0 } else { NO_INTERRUPT });
        barrier();
    }

    /// How many descriptors are free.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Is there a finished request to take?
    pub fn has_used(&self) -> bool {
        self.memory.load16(self.used + 2) != self.seen
    }
}
