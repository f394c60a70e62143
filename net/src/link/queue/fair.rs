//! `fq` (tc-fq(8)): a queue for each flow, served in turn by bytes; a flow that has just begun goes first.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use base::{NANOS_PER_SEC, Nanos, Result};

use super::{Discipline, Offered};
use crate::netlink::message::{Attributes, attributes_of};
use crate::packet::Packet;

const PLIMIT: u16 = 1;
const FLOW_PLIMIT: u16 = 2;
const QUANTUM: u16 = 3;
const INITIAL_QUANTUM: u16 = 4;
const RATE_ENABLE: u16 = 5;
const FLOW_MAX_RATE: u16 = 7;

struct Flow {
    packets: VecDeque<Box<Packet>>,
    /// Bytes that it may still send in this turn.
    credit: i64,
    /// When the next packet may go, under a limit of the rate.
    next: Nanos,
}

/// The flows and their turns.
pub(super) struct Fair {
    flows: BTreeMap<u32, Flow>,
    /// Flows that have just begun, and the others, in the order of their turns.
    fresh: VecDeque<u32>,
    old: VecDeque<u32>,
    count: usize,
    bytes: usize,
    limit: u32,
    flow_limit: u32,
    quantum: u32,
    first_quantum: u32,
    pacing: bool,
    most_rate: u32,
}

impl Default for Fair {
    fn default() -> Fair {
        Fair {
            flows: BTreeMap::new(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
            count: 0,
            bytes: 0,
            limit: 10_000,
            flow_limit: 100,
            quantum: 2 * 1514,
            first_quantum: 10 * 1514,
            pacing: true,
            most_rate: u32::MAX,
        }
    }
}

impl Discipline for Fair {
    fn name(&self) -> &'static str {
        "fq"
    }

    fn offer(&mut self, packet: Box<Packet>, _now: Nanos) -> Offered {
        if self.count >= self.limit as usize {
            return Offered::Dropped;
        }
        let number = packet.flow_hash();
        let first = i64::from(self.first_quantum);
        let flow = self.flows.entry(number).or_insert_with(|| {
            self.fresh.push_back(number);
            Flow { packets: VecDeque::new(), credit: first, next: 0 }
        });
        if flow.packets.len() >= self.flow_limit as usize {
            return Offered::Dropped;
        }
        self.count += 1;
        self.bytes += packet.len();
        flow.packets.push_back(packet);
        Offered::Taken
    }

    fn take(&mut self, now: Nanos) -> Option<Box<Packet>> {
        // However large a packet was: by then its flow has credit again.
        const TURNS_MAX: usize = 64;
        for _ in 0..TURNS_MAX * self.flows.len() {
            let from_fresh = !self.fresh.is_empty();
            let number = *self.fresh.front().or(self.old.front())?;
            let line = if from_fresh { &mut self.fresh } else { &mut self.old };
            let Some(flow) = self.flows.get_mut(&number) else {
                line.pop_front();
                continue;
            };
            if flow.credit <= 0 {
                flow.credit += i64::from(self.quantum);
                line.pop_front();
                self.old.push_back(number);
                continue;
            }
            if flow.packets.is_empty() {
                line.pop_front();
                self.flows.remove(&number);
                continue;
            }
            if self.pacing && flow.next > now {
                line.pop_front();
                self.old.push_back(number);
                continue;
            }
            let packet = flow.packets.pop_front()?;
            let len = packet.len();
            flow.credit -= len as i64;
            // What the sender wants, and what is allowed: 0 and the largest number say nothing.
            let rate = [packet.rate, self.most_rate].into_iter().filter(|&rate| rate != 0).min().unwrap_or(u32::MAX);
            if self.pacing && rate != u32::MAX {
                flow.next = flow.next.max(now) + len as u64 * NANOS_PER_SEC / u64::from(rate);
            }
            self.count -= 1;
            self.bytes -= len;
            return Some(packet);
        }
        None
    }

    fn due(&self) -> Option<Nanos> {
        self.flows.values().filter(|flow| !flow.packets.is_empty()).map(|flow| flow.next).min()
    }

    fn waiting(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    fn configure(&mut self, options: &[u8]) -> Result<()> {
        for (kind, data) in attributes_of(options) {
            let Some(word) = data.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)) else { continue };
            match kind {
                PLIMIT => self.limit = word,
                FLOW_PLIMIT => self.flow_limit = word,
                QUANTUM => self.quantum = word.clamp(1, 1 << 20),
                INITIAL_QUANTUM => self.first_quantum = word.min(i32::MAX as u32),
                RATE_ENABLE => self.pacing = word != 0,
                FLOW_MAX_RATE => self.most_rate = word,
                _ => {}
            }
        }
        Ok(())
    }

    fn options(&self) -> Vec<u8> {
        let mut put = Attributes::default();
        put.word(PLIMIT, self.limit);
        put.word(FLOW_PLIMIT, self.flow_limit);
        put.word(QUANTUM, self.quantum);
        put.word(INITIAL_QUANTUM, self.first_quantum);
        put.word(RATE_ENABLE, self.pacing.into());
        put.word(FLOW_MAX_RATE, self.most_rate);
        put.into_bytes()
    }

    fn clear(&mut self) {
        self.flows.clear();
        self.fresh.clear();
        self.old.clear();
        (self.count, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Filler, Rope};

    fn packet(flow: u8, len: usize) -> Box<Packet> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, flow, 0, 1, 0, 2];
        header.resize(len, 0);
        let rope: Rope = Filler::new().bytes(&header).unwrap();
        let mut packet = Packet::incoming(rope);
        packet.ensure(24);
        packet
    }

    #[test]
    fn senders_are_kept_to_their_rates() {
        let mut fair = Fair { most_rate: 100_000, ..Fair::default() };
        for rate in [10_000, 0, 0] {
            let mut packet = packet(1, 1000);
            packet.rate = rate;
            fair.offer(packet, 0);
        }
        assert!(fair.take(0).is_some() && fair.take(99_000_000).is_none());
        assert_eq!(fair.due(), Some(100_000_000));
        // The next has only the limit of all flows.
        assert!(fair.take(100_000_000).is_some());
        assert_eq!(fair.due(), Some(110_000_000));
    }

    #[test]
    fn flows_share() {
        let mut fair = Fair { first_quantum: 1000, quantum: 1000, ..Fair::default() };
        for _ in 0..20 {
            fair.offer(packet(1, 1000), 0);
        }
        for _ in 0..4 {
            fair.offer(packet(2, 1000), 0);
        }
        let order: Vec<u8> = (0..8).map(|_| fair.take(0).unwrap().head()[19]).collect();
        assert!(order.iter().filter(|&&flow| flow == 2).count() >= 3, "{order:?}");
        let rest = core::iter::from_fn(|| fair.take(0)).count();
        assert_eq!((rest, fair.waiting()), (16, (0, 0)));
    }
}
