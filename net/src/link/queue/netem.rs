//! `netem` (tc-netem(8)): a network's faults made to order: delay, loss, duplicates, damage, another order, and a rate.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::{Errno, Nanos, Result};

use super::{Discipline, Offered};
use crate::netlink::message::{Attributes, attributes_of};
use crate::packet::Packet;

const CORRELATION: u16 = 1;
const REORDER: u16 = 3;
const CORRUPT: u16 = 4;
const RATE: u16 = 6;
const RATE64: u16 = 8;
const LATENCY64: u16 = 10;
const JITTER64: u16 = 11;
/// Bytes of `struct tc_netem_qopt`.
const FIXED: usize = 24;
/// Nanoseconds of a tick of the packet scheduler.
const TICK: u64 = 64;

/// A chance of one in 2^32, whose draws may depend on the draw before.
#[derive(Clone, Copy, Default)]
struct Chance {
    of: u32,
    correlation: u32,
    last: u32,
}

impl Chance {
    fn draw(&mut self, random: u32) -> u32 {
        let (rho, value) = (u64::from(self.correlation), u64::from(random));
        let mixed = (value * (0x1_0000_0000 - rho) + u64::from(self.last) * rho) >> 32;
        self.last = mixed as u32;
        self.last
    }

    fn comes(&mut self, random: u32) -> bool {
        self.of != 0 && self.draw(random) <= self.of
    }
}

/// What it does, and what waits.
#[derive(Default)]
pub(super) struct Netem {
    latency: Nanos,
    jitter: Nanos,
    limit: u32,
    gap: u32,
    loss: Chance,
    duplicate: Chance,
    reorder: Chance,
    corrupt: Chance,
    delay: Chance,
    rate: u64,
    /// Packets since one went ahead of its turn.
    since: u32,
    waiting: BTreeMap<(Nanos, u64), Box<Packet>>,
    number: u64,
    bytes: usize,
    /// When the last byte of what was sent at the rate is out.
    busy_until: Nanos,
}

fn random() -> u32 {
    hal::random::word() as u32
}

impl Netem {
    fn wait(&mut self, packet: Box<Packet>, now: Nanos) {
        let mut delay = self.latency;
        if self.jitter != 0 {
            let at = u64::from(self.delay.draw(random()));
            delay = (delay + ((at * 2 * self.jitter) >> 32)).saturating_sub(self.jitter);
        }
        let ahead = self.gap != 0 && self.since + 1 >= self.gap && self.reorder.comes(random());
        let mut at = now + delay;
        if ahead {
            self.since = 0;
            at = now;
        } else {
            self.since += 1;
            if let Some(transfer) = (packet.len() as u64 * 1_000_000_000).checked_div(self.rate) {
                self.busy_until = self.busy_until.max(now) + transfer;
                at = self.busy_until + delay;
            }
        }
        self.number += 1;
        self.bytes += packet.len();
        self.waiting.insert((at, self.number), packet);
    }
}

impl Discipline for Netem {
    fn name(&self) -> &'static str {
        "netem"
    }

    fn offer(&mut self, mut packet: Box<Packet>, now: Nanos) -> Offered {
        let copy = self.duplicate.comes(random()).then(|| packet.clone());
        let lost = self.loss.comes(random());
        if lost && copy.is_none() {
            return Offered::Dropped;
        }
        let room = |netem: &Netem| netem.waiting.len() < netem.limit as usize;
        if !lost {
            if self.corrupt.comes(random()) {
                packet.finish_checksum();
                packet.flip_bit(hal::random::word());
            }
            if !room(self) {
                return Offered::Dropped;
            }
            self.wait(packet, now);
        }
        if let Some(copy) = copy.filter(|_| room(self)) {
            self.wait(copy, now);
        }
        Offered::Taken
    }

    fn take(&mut self, now: Nanos) -> Option<Box<Packet>> {
        let first = self.waiting.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let packet = first.remove();
        self.bytes -= packet.len();
        Some(packet)
    }

    fn due(&self) -> Option<Nanos> {
        self.waiting.first_key_value().map(|(key, _)| key.0)
    }

    fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }

    fn configure(&mut self, options: &[u8]) -> Result<()> {
        let fixed = options.get(..FIXED).ok_or(Errno::EINVAL)?;
        let word = |data: &[u8], at: usize| {
            data.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).ok_or(Errno::EINVAL)
        };
        let long = |data: &[u8]| data.first_chunk::<8>().map(|b| i64::from_ne_bytes(*b)).ok_or(Errno::EINVAL);
        self.latency = u64::from(word(fixed, 0)?) * TICK;
        self.limit = word(fixed, 4)?;
        self.loss = Chance { of: word(fixed, 8)?, ..Chance::default() };
        self.gap = word(fixed, 12)?;
        self.duplicate = Chance { of: word(fixed, 16)?, ..Chance::default() };
        self.jitter = u64::from(word(fixed, 20)?) * TICK;
        self.corrupt = Chance::default();
        self.reorder = Chance { of: if self.gap != 0 { u32::MAX } else { 0 }, ..Chance::default() };
        let mut wide_rate = 0;
        for (kind, data) in attributes_of(options.get(FIXED..).unwrap_or_default()) {
            match kind {
                CORRELATION => {
                    self.delay.correlation = word(data, 0)?;
                    self.loss.correlation = word(data, 4)?;
                    self.duplicate.correlation = word(data, 8)?;
                }
                REORDER => self.reorder = Chance { of: word(data, 0)?, correlation: word(data, 4)?, last: 0 },
                CORRUPT => self.corrupt = Chance { of: word(data, 0)?, correlation: word(data, 4)?, last: 0 },
                RATE => self.rate = word(data, 0)?.into(),
                // Beyond what fits the other attribute, whatever their order.
                RATE64 => wide_rate = long(data)? as u64,
                LATENCY64 => self.latency = u64::try_from(long(data)?).unwrap_or(0),
                JITTER64 => self.jitter = u64::try_from(long(data)?).unwrap_or(0),
                _ => {}
            }
        }
        self.rate = self.rate.max(wide_rate);
        // Packets can only go ahead of others where some are put off.
        if self.reorder.of != 0 && self.gap == 0 {
            self.gap = 1;
        }
        Ok(())
    }

    fn options(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let ticks = |nanos: Nanos| (nanos / TICK).min(u32::MAX.into()) as u32;
        for word in [ticks(self.latency), self.limit, self.loss.of, self.gap, self.duplicate.of, ticks(self.jitter)] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
        let mut put = Attributes::default();
        put.put(LATENCY64, &self.latency.to_ne_bytes());
        put.put(JITTER64, &self.jitter.to_ne_bytes());
        let correlations = [self.delay.correlation, self.loss.correlation, self.duplicate.correlation];
        put.put(CORRELATION, &words(&correlations));
        put.put(REORDER, &words(&[self.reorder.of, self.reorder.correlation]));
        put.put(CORRUPT, &words(&[self.corrupt.of, self.corrupt.correlation]));
        put.put(RATE, &words(&[self.rate.min(u32::MAX.into()) as u32, 0, 0, 0]));
        out.extend_from_slice(&put.into_bytes());
        out
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Rope;

    #[test]
    fn correlated_draws_follow_the_last() {
        let mut chance = Chance { of: 1, correlation: u32::MAX, last: 7 };
        let next = chance.draw(u32::MAX);
        assert!(next < 16, "{next}");
        let mut free = Chance { of: u32::MAX / 2, correlation: 0, last: 0 };
        assert!(free.comes(5) && !free.comes(u32::MAX));
    }

    #[test]
    fn packets_wait_their_time_in_order() {
        let mut netem = Netem { latency: 100, limit: 2, ..Netem::default() };
        for now in [0, 10, 20] {
            netem.offer(Packet::outgoing(Rope::new()), now);
        }
        assert_eq!((netem.waiting().0, netem.due()), (2, Some(100)));
        assert!(netem.take(99).is_none() && netem.take(100).is_some() && netem.take(100).is_none());
        assert!(netem.take(110).is_some());
    }
}
