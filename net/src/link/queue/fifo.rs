//! First in, first out: by packets, by bytes, and in three bands of priority.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::{Errno, Nanos, Result};

use super::{Discipline, Offered};
use crate::packet::Packet;

/// `pfifo` and `bfifo`.
pub(super) struct Fifo {
    packets: VecDeque<Box<Packet>>,
    bytes: usize,
    limit: usize,
    by_bytes: bool,
}

impl Fifo {
    pub(super) fn packets(limit: usize) -> Fifo {
        Fifo { packets: VecDeque::new(), bytes: 0, limit, by_bytes: false }
    }

    pub(super) fn bytes(limit: usize) -> Fifo {
        Fifo { by_bytes: true, ..Fifo::packets(limit) }
    }

    fn push(&mut self, packet: Box<Packet>) -> Offered {
        let full =
            if self.by_bytes { self.bytes + packet.len() > self.limit } else { self.packets.len() >= self.limit };
        if full || self.packets.try_reserve(1).is_err() {
            return Offered::Dropped;
        }
        self.bytes += packet.len();
        self.packets.push_back(packet);
        Offered::Taken
    }

    fn pop(&mut self) -> Option<Box<Packet>> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }
}

impl Discipline for Fifo {
    fn name(&self) -> &'static str {
        if self.by_bytes { "bfifo" } else { "pfifo" }
    }

    fn offer(&mut self, packet: Box<Packet>, _now: Nanos) -> Offered {
        self.push(packet)
    }

    fn take(&mut self, _now: Nanos) -> Option<Box<Packet>> {
        self.pop()
    }

    fn due(&self) -> Option<Nanos> {
        None
    }

    fn waiting(&self) -> (usize, usize) {
        (self.packets.len(), self.bytes)
    }

    /// `struct tc_fifo_qopt`.
    fn configure(&mut self, options: &[u8]) -> Result<()> {
        let limit = options.first_chunk::<4>().ok_or(Errno::EINVAL)?;
        self.limit = u32::from_ne_bytes(*limit) as usize;
        Ok(())
    }

    fn options(&self) -> Vec<u8> {
        (self.limit as u32).to_ne_bytes().to_vec()
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.bytes = 0;
    }
}

/// Which band each of the 16 priorities goes to.
const BAND_OF: [u8; 16] = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];

/// `struct tc_prio_qopt` of the three bands.
pub(super) fn band_map() -> Vec<u8> {
    let mut out = 3i32.to_ne_bytes().to_vec();
    out.extend_from_slice(&BAND_OF);
    out
}

/// `pfifo_fast`.
pub(super) struct Bands([Fifo; 3]);

impl Bands {
    pub(super) fn new(limit: usize) -> Bands {
        Bands([Fifo::packets(limit), Fifo::packets(limit), Fifo::packets(limit)])
    }
}

impl Discipline for Bands {
    fn name(&self) -> &'static str {
        "pfifo_fast"
    }

    fn offer(&mut self, packet: Box<Packet>, _now: Nanos) -> Offered {
        let band = BAND_OF[(packet.priority & 15) as usize];
        self.0[usize::from(band)].push(packet)
    }

    fn take(&mut self, _now: Nanos) -> Option<Box<Packet>> {
        self.0.iter_mut().find_map(Fifo::pop)
    }

    fn due(&self) -> Option<Nanos> {
        None
    }

    fn waiting(&self) -> (usize, usize) {
        self.0.iter().fold((0, 0), |all, band| (all.0 + band.packets.len(), all.1 + band.bytes))
    }

    fn configure(&mut self, _options: &[u8]) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn options(&self) -> Vec<u8> {
        band_map()
    }

    fn clear(&mut self) {
        self.0.iter_mut().for_each(Discipline::clear);
    }
}
