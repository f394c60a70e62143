//! Receiving data: putting it in order, the window, and when to acknowledge (RFC 9293, 3.8.6; RFC 5681, 4.2; RFC 2018).

use base::Nanos;

use super::connection::{Connection, Effects, Out, State};
use super::memory::Pressure;
use super::rtt::MS;
use super::segment::{Block, Flags, Segment};
use super::seq::Seq;
use crate::packet::Rope;

/// How long an acknowledgement waits for data to ride on.
const DELAY: Nanos = 40 * MS;
/// Out-of-order parts that are kept at most.
const EARLY_MAX: usize = 4096;

impl Connection {
    /// Bytes of window that the buffer makes: half, the rest is for bookkeeping.
    fn space(&self) -> usize {
        self.receive.limit / 2
    }

    /// The window to announce; the edge never moves back.
    pub(super) fn select_window(&mut self, _now: Nanos, syn: bool) -> usize {
        let nxt = self.receive.nxt;
        let current = if self.receive.edge.after(nxt) { self.receive.edge.since(nxt) } else { 0 };
        let used = self.receive.queue.len() + self.receive.early_bytes.min(self.space() / 4);
        let free = self.space().saturating_sub(used);
        let mut window = if syn { free.min(65535) } else { free };
        if window < self.receive.mss.min(self.space() / 2) {
            window = 0;
        }
        let unit = if syn { 1 } else { 1usize << self.receive.scale };
        window -= window % unit;
        let most = if syn { 65535 } else { 65535usize << self.receive.scale };
        // A window that was announced in finer steps is kept at least.
        let window = window.max(current.next_multiple_of(unit)).min(most);
        self.receive.edge = self.receive.edge.max(nxt + window);
        window
    }

    /// The window that would be announced now, without announcing it.
    fn possible_window(&self) -> usize {
        self.space().saturating_sub(self.receive.queue.len())
    }

    /// Room in the window as the peer knows it.
    fn announced(&self) -> usize {
        let receive = &self.receive;
        if receive.edge.after(receive.nxt) { receive.edge.since(receive.nxt) } else { 0 }
    }

    /// Takes the data and the FIN of an acceptable segment.
    pub(super) fn take_data(&mut self, now: Nanos, mut segment: Segment, out: Out) -> Effects {
        let len = segment.payload.len();
        let fin = segment.has(Flags::FIN);
        if len == 0 && !fin {
            return Effects::empty();
        }
        if !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            return Effects::empty();
        }
        if len > 0 {
            self.counts.data_in += 1;
            if self.receive.shut && self.orphan && segment.end().after(self.receive.nxt) {
                // Data for a user who has gone (RFC 1122, 4.2.2.13).
                self.send_reset(now, out);
                return self.die(None);
            }
        }
        let can_wait = !self.receive.queue.is_empty() || segment.seq.after(self.receive.nxt);
        if self.pressure == Pressure::Full && can_wait && len > 0 {
            // The peer will send it again.
            return Effects::empty();
        }
        let mut start = segment.seq;
        if start.before(self.receive.nxt) {
            let old = self.receive.nxt.since(start);
            if segment.end().within(start, self.receive.nxt) {
                self.receive.duplicate = Some((start, segment.end()));
                self.send_ack(now, out);
                return Effects::empty();
            }
            self.receive.duplicate = (old > 1).then_some((start, self.receive.nxt));
            segment.payload.advance(old);
            start = self.receive.nxt;
        }
        // What lies beyond the window is cut off; a FIN with it.
        let room = self.receive.edge.since(start);
        let cut = segment.payload.len() > room;
        segment.payload.truncate(room);
        let fin = fin && !cut;
        self.note_segment_size(now, len);
        self.note_round_trip(now, &segment);
        if start == self.receive.nxt {
            let effects = self.take_in_order(now, segment.payload, fin);
            self.acknowledge_data(now, cut, out);
            effects
        } else {
            self.counts.early += 1;
            self.take_early(start, segment.payload, fin);
            self.receive.quick = self.receive.quick.max(16);
            self.send_ack(now, out);
            Effects::empty()
        }
    }

    fn note_segment_size(&mut self, now: Nanos, len: usize) {
        if len >= self.receive.mss {
            self.receive.mss = len.min(65535);
        } else if len >= 536 {
            self.receive.mss = len;
        }
        if now.saturating_sub(self.receive.last_data_at) > self.rtt.base_timeout() {
            self.receive.quick = self.receive.quick.max(16);
        }
        self.receive.last_data_at = now;
    }

    /// The round trip from the echo of our timestamp: a sender that waits makes it look longer, so the least counts, and slowly fades.
    fn note_round_trip(&mut self, now: Nanos, segment: &Segment) {
        let Some((_, echo)) = segment.options.timestamps.filter(|&(_, echo)| self.timestamps && echo != 0) else {
            return;
        };
        let elapsed = self.stamp(now).wrapping_sub(echo);
        if elapsed < 1 << 24 {
            let rtt = (u64::from(elapsed) * MS).max(MS);
            let old = self.receive.rtt;
            self.receive.rtt = if old == 0 || rtt < old { rtt } else { old - old / 8 + rtt / 8 };
        }
    }

    fn take_in_order(&mut self, now: Nanos, payload: Rope, fin: bool) -> Effects {
        let mut effects = Effects::empty();
        let mut fin = fin;
        self.append(payload, &mut effects);
        if !self.receive.early.is_empty() {
            fin |= self.join_early(&mut effects);
        }
        if fin {
            effects |= self.take_fin(now);
        }
        effects
    }

    fn append(&mut self, payload: Rope, effects: &mut Effects) {
        let len = payload.len();
        if len == 0 {
            return;
        }
        self.find_urgent_byte(&payload);
        self.receive.nxt += len;
        self.counts.bytes_received += len as u64;
        if !self.receive.shut && !self.orphan {
            self.receive.queue.append(payload);
            *effects |= Effects::READABLE;
        }
    }

    /// Takes what came with a SYN.
    pub(super) fn take_syn_data(&mut self, payload: Rope, effects: &mut Effects) {
        self.append(payload, effects);
    }

    fn find_urgent_byte(&mut self, payload: &Rope) {
        let (nxt, len) = (self.receive.nxt, payload.len());
        let Some(urgent) = self.receive.urgent.filter(|u| u.after(nxt) && !u.after(nxt + len)) else { return };
        let mut byte = [0];
        if self.receive.urgent_byte.is_none() && payload.read(urgent.since(nxt) - 1, &mut byte) == 1 {
            self.receive.urgent_byte = Some(byte[0]);
        }
    }

    /// Moves what has come into order out of `early`; true if the FIN was there.
    fn join_early(&mut self, effects: &mut Effects) -> bool {
        let mut fin = false;
        while let Some((start, ..)) = self.receive.early.first() {
            if start.after(self.receive.nxt) {
                break;
            }
            let (start, mut payload, last) = self.receive.early.remove(0);
            self.receive.early_bytes -= payload.len();
            payload.advance(self.receive.nxt.since(start));
            self.append(payload, effects);
            fin |= last;
        }
        let nxt = self.receive.nxt;
        self.receive.blocks.retain(|(_, to)| to.after(nxt));
        fin
    }

    /// Keeps data that came too early, without overlaps.
    fn take_early(&mut self, start: Seq, payload: Rope, fin: bool) {
        let mut start = start;
        let mut payload = payload;
        let end = start + payload.len();
        if self.receive.early.len() >= EARLY_MAX {
            return;
        }
        // Where it belongs; what the part before it has already is cut off.
        let at = self.receive.early.partition_point(|(s, ..)| !s.after(start));
        if let Some((s, p, _)) = at.checked_sub(1).and_then(|i| self.receive.early.get(i)) {
            let have = (*s + p.len()).since(start);
            if have >= payload.len() && !payload.is_empty() {
                self.receive.duplicate = Some((start, end));
                return;
            }
            payload.advance(have);
            start += have;
        }
        // Parts that it covers go; one that it overlaps keeps what is its own.
        while let Some((s, p, last)) = self.receive.early.get(at) {
            let (s, len, last) = (*s, p.len(), *last);
            if !end.after(s) {
                break;
            }
            if !(s + len).after(end) && !last {
                self.receive.early_bytes -= len;
                self.receive.early.remove(at);
                continue;
            }
            payload.truncate(s.since(start));
            break;
        }
        self.receive.early_bytes += payload.len();
        if !payload.is_empty() || fin {
            self.receive.early.insert(at, (start, payload, fin));
        }
        self.note_block((start, end));
    }

    /// The block to report first is the one that the newest segment belongs to.
    fn note_block(&mut self, (mut from, mut to): Block) {
        self.receive.blocks.retain(|&(a, b)| {
            let touches = !b.before(from) && !a.after(to);
            if touches {
                from = from.min(a);
                to = to.max(b);
            }
            !touches
        });
        self.receive.blocks.insert(0, (from, to));
        self.receive.blocks.truncate(4);
    }

    fn take_fin(&mut self, now: Nanos) -> Effects {
        self.receive.fin = true;
        self.receive.nxt += 1;
        self.receive.quick = self.receive.quick.max(1);
        self.receive.interactive = false;
        self.receive.ack_at = Some(now);
        self.receive.early.clear();
        self.receive.early_bytes = 0;
        self.receive.blocks.clear();
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(now),
            _ => {}
        }
        Effects::READABLE
    }

    /// Acknowledges data now or a little later.
    fn acknowledge_data(&mut self, now: Nanos, at_once: bool, out: Out) {
        if self.receive.acked == self.receive.nxt {
            return;
        }
        let waiting = self.receive.nxt.since(self.receive.acked);
        let full = waiting > self.receive.mss && self.possible_window() >= self.announced();
        let quick = self.receive.quick > 0 && !self.receive.interactive;
        if at_once || full || quick || !self.receive.early.is_empty() || self.receive.fin {
            self.send_ack(now, out);
        } else if self.receive.ack_at.is_none() {
            self.receive.ack_at = Some(now + DELAY);
        }
    }

    /// References to the next bytes to receive, at most `max`, from `skip` on; they stop before the urgent mark.
    pub fn peek(&self, skip: usize, max: usize) -> Rope {
        let mut max = max;
        if let Some(mark) = self.mark_distance().filter(|&mark| mark > skip) {
            max = max.min(mark - skip);
        }
        self.receive.queue.slice(skip, max)
    }

    /// Takes bytes out that the user has received.
    pub fn consume(&mut self, now: Nanos, n: usize, out: Out) {
        if n == 0 {
            return;
        }
        self.receive.queue.advance(n);
        self.skip_urgent();
        self.tune(now, n);
        if matches!(self.state, State::Closed | State::TimeWait) {
            return;
        }
        let (announced, possible) = (self.announced(), self.possible_window());
        let drained = self.receive.queue.is_empty();
        let waiting = self.receive.nxt.since(self.receive.acked);
        // The window has opened much: the peer may be waiting for that.
        let opened = possible >= 2 * announced.max(1) && possible - announced >= self.receive.mss.min(self.space() / 2);
        let due = self.receive.ack_at.is_some() && drained && waiting > self.receive.mss;
        if opened && !self.receive.fin || due {
            self.send_ack(now, out);
        }
    }

    /// Bytes before the urgent byte; `None` without one (or if it stays in line).
    fn mark_distance(&self) -> Option<usize> {
        let urgent = self.receive.urgent.filter(|_| self.receive.urgent_byte.is_some())?;
        let copied = self.copied();
        let mark = Seq(urgent.0.wrapping_sub(1));
        mark.within(copied, self.receive.nxt).then(|| mark.since(copied))
    }

    /// The sequence number of the next byte to receive.
    fn copied(&self) -> Seq {
        Seq(self.receive.nxt.0.wrapping_sub(self.receive.queue.len() as u32 + u32::from(self.receive.fin)))
    }

    /// At the mark, the urgent byte is left out of the stream (unless it is to stay in line).
    pub fn skip_urgent(&mut self) {
        if self.mark_distance() == Some(0) {
            if self.settings.urgent_inline {
                return;
            }
            self.receive.queue.advance(1);
        }
    }

    /// Is the next byte to receive the urgent one (SIOCATMARK)?
    pub fn at_mark(&self) -> bool {
        self.receive.urgent.is_some_and(|urgent| {
            let copied = self.copied();
            copied == urgent || copied + 1 == urgent
        })
    }

    /// The urgent byte: `None` while it is only announced. Taking it leaves none.
    pub fn urgent(&mut self, take: bool) -> Option<Option<u8>> {
        self.receive.urgent?;
        let byte = self.receive.urgent_byte;
        if take && byte.is_some() {
            self.skip_urgent();
            if self.mark_distance().is_none() {
                self.receive.urgent = None;
                self.receive.urgent_byte = None;
            } else {
                self.receive.urgent_byte = byte;
            }
        }
        Some(byte)
    }

    /// Is there urgent data to take?
    pub fn has_urgent(&self) -> bool {
        self.receive.urgent.is_some()
    }

    /// Grows the buffer with what the user takes in a round trip.
    fn tune(&mut self, now: Nanos, n: usize) {
        self.receive.copied_in_round += n;
        let round = self.receive.rtt.max(self.rtt.smoothed).max(MS);
        if now.saturating_sub(self.receive.round_at) < round {
            return;
        }
        let wanted = 4 * self.receive.copied_in_round + 32 * usize::from(self.receive.advertised_mss).min(4096);
        let grows = !self.receive.fixed && self.settings.follows_reader && self.pressure == Pressure::None;
        if grows && wanted > self.receive.limit {
            self.receive.limit = wanted.min(self.settings.receive_buffers[2] as usize).max(self.receive.limit);
        }
        self.receive.copied_in_round = 0;
        self.receive.round_at = now;
    }
}
