//! Sending: what may go, in which pieces, and the header around it (RFC 9293, 3.8; Nagle: RFC 1122, 4.2.3.4).

use base::{NANOS_PER_SEC, Nanos};

use super::congestion::INITIAL;
use super::connection::{Connection, Flight, Out, SEGMENT_MAX, SendTimer, Sent, State};
use super::rtt::MS;
use super::segment::{Flags, Options, Segment};
use super::seq::Seq;
use crate::packet::Rope;

impl Connection {
    /// Segments of the maximum size that so many bytes make.
    pub(super) fn segments(&self, bytes: usize) -> u32 {
        (bytes.div_ceil(self.send.mss.max(1))).max(1) as u32
    }

    /// The largest segment for a peer that never announced much: half its window.
    fn usable_mss(&self) -> usize {
        let half = self.send.max_window / 2;
        if self.send.max_window > 536 && half < self.send.mss { half.max(64) } else { self.send.mss }
    }

    /// Puts SYN or FIN into the queue of what was sent.
    pub(super) fn queue_mark(&mut self, now: Nanos, mark: Flags) {
        let seq = self.send.nxt;
        self.queue(now, seq, Rope::new(), mark);
    }

    fn queue(&mut self, now: Nanos, seq: Seq, payload: Rope, flags: Flags) {
        let app_limited = self.app_limited != 0;
        if self.send.queue.is_empty() {
            self.delivered_at = now;
            self.first_at = now;
            self.stalled_at = now;
        }
        let sent = Sent {
            seq,
            payload,
            flags,
            sent_at: now,
            again: false,
            flight: Flight::Flying,
            delivered: self.counts.delivered,
            delivered_at: self.delivered_at,
            first_at: self.first_at,
            app_limited,
        };
        self.send.nxt = sent.end();
        self.flying += self.segments(sent.payload.len());
        self.send.queue.push_back(sent);
    }

    /// A header for now.
    fn header(&mut self, now: Nanos, seq: Seq, flags: Flags) -> Segment {
        let mut segment = Segment { seq, flags, ..Segment::default() };
        let syn = flags.contains(Flags::SYN);
        if self.state != State::SynSent {
            segment.ack = self.receive.nxt;
            segment.flags |= Flags::ACK;
        }
        let window = self.select_window(now, syn);
        segment.window = if syn { window.min(65535) as u16 } else { (window >> self.receive.scale).min(65535) as u16 };
        if let Some(urgent) = self.send.urgent.filter(|urgent| urgent.after(seq)) {
            segment.flags |= Flags::URG;
            segment.urgent = urgent.since(seq).min(0xffff) as u16;
        }
        segment.options = self.options(now, syn);
        if syn {
            // On a repetition the peer may be one that drops what it does not know (RFC 3168, 6.1.1.1).
            let first = self.rtt.backoff == 0;
            match self.state {
                State::SynSent if self.offers_ecn() && first => segment.flags |= Flags::ECE | Flags::CWR,
                State::SynReceived if self.ecn.on => segment.flags |= Flags::ECE,
                _ => {}
            }
        }
        segment
    }

    fn options(&mut self, now: Nanos, syn: bool) -> Options {
        let mut options = Options::default();
        if self.timestamps {
            options.timestamps = Some((self.stamp(now), self.peer_stamp));
        }
        if syn {
            options.mss = Some(self.receive.advertised_mss);
            options.sack_permitted = self.sack;
            options.scale = (self.receive.scale != 0).then_some(self.receive.scale);
            options.fast_open = self.fast.option.take();
        } else if self.sack {
            let room = if self.timestamps { 3 } else { 4 };
            let duplicate = self.receive.duplicate.take().filter(|_| self.settings.duplicate_reports);
            let blocks = duplicate.into_iter().chain(self.receive.blocks.iter().copied());
            options.blocks.extend(blocks.take(room));
        }
        options
    }

    /// Hands a segment out. Whatever it is, it acknowledges.
    fn emit(&mut self, mut segment: Segment, fresh: bool, out: Out) {
        self.mark_segment(&mut segment, fresh);
        if segment.has(Flags::ACK) {
            self.receive.acked = self.receive.nxt;
            self.receive.ack_at = None;
            self.receive.quick = self.receive.quick.saturating_sub(1);
        }
        self.counts.segments_out += 1;
        if !segment.payload.is_empty() {
            self.counts.data_out += 1;
            self.counts.bytes_sent += segment.payload.len() as u64;
        }
        out(segment);
    }

    /// Sends entry `index` of the queue, for the first time or again.
    pub(super) fn transmit(&mut self, now: Nanos, index: usize, out: Out) {
        let Some(sent) = self.send.queue.get_mut(index) else { return };
        let (seq, flags, payload, fresh) = (sent.seq, sent.flags, sent.payload.clone(), !sent.again);
        sent.sent_at = now;
        let mut segment = self.header(now, seq, flags);
        segment.payload = payload;
        if fresh && flags.contains(Flags::SYN) && self.state == State::SynSent {
            // Data that goes with the SYN stays to be sent until it is acknowledged.
            segment.payload = self.send.unsent.slice(0, self.fast.with_syn);
        }
        self.send.last_data_at = now;
        self.emit(segment, fresh, out);
    }

    /// Sends an acknowledgement without data.
    pub(super) fn send_ack(&mut self, now: Nanos, out: Out) {
        let seq = self.send.nxt;
        let segment = self.header(now, seq, Flags::empty());
        self.emit(segment, false, out);
    }

    /// A segment of an old sequence number, to which the peer has to answer.
    pub(super) fn send_probe(&mut self, now: Nanos, out: Out) {
        let segment = self.header(now, Seq(self.send.una.0.wrapping_sub(1)), Flags::empty());
        self.emit(segment, false, out);
    }

    /// An acknowledgement to something suspicious (RFC 5961), a limited number a second.
    pub(super) fn send_challenge(&mut self, now: Nanos, out: Out) {
        const PER_SECOND: u32 = 100;
        let second = now / NANOS_PER_SEC;
        if self.challenge.0 != second {
            self.challenge = (second, 0);
        }
        if self.challenge.1 < PER_SECOND {
            self.challenge.1 += 1;
            self.send_ack(now, out);
        }
    }

    pub(super) fn send_reset(&mut self, now: Nanos, out: Out) {
        let seq = self.send.nxt;
        let mut segment = self.header(now, seq, Flags::RST);
        segment.options.blocks.clear();
        self.emit(segment, false, out);
    }

    /// After a pause the window of old says nothing of the path (RFC 2861).
    pub(super) fn restart_after_idle(&mut self, now: Nanos) {
        let idle = now.saturating_sub(self.send.last_data_at);
        let rto = self.rtt.base_timeout();
        if idle < rto || self.algorithm.steers_recovery() || !self.settings.restart_after_idle {
            return;
        }
        let halvings = (idle / rto.max(1)).min(32);
        self.window.threshold = self.window.threshold.max(self.window.size / 4 * 3);
        self.window.size = (self.window.size >> halvings).max(INITIAL.min(self.window.size));
    }

    /// Sends all that may go: first what was lost, then what is new.
    pub(super) fn pump(&mut self, now: Nanos, out: Out) {
        if self.awaits_peer() || self.state == State::Closed {
            return;
        }
        let mut paced = self.lost > 0 && self.send_lost(now, out);
        self.window_limited = false;
        while !paced && (!self.send.unsent.is_empty() || self.send.fin && !self.send.fin_sent) {
            if self.flying >= self.window.size {
                self.window_limited = true;
                break;
            }
            if self.is_paced(now) {
                paced = true;
                break;
            }
            let Some(len) = self.next_len() else { break };
            self.send_new(now, len, out);
        }
        if self.send.unsent.is_empty() && self.flying < self.window.size {
            self.app_limited = (self.counts.delivered + u64::from(self.flying)).max(1);
        }
        self.arm_after_pump(now, paced);
    }

    /// Bytes of the next new segment (0 for a lone FIN); `None` while nothing may go.
    fn next_len(&self) -> Option<usize> {
        let waiting = self.send.unsent.len();
        let edge = self.send.una + self.send.window;
        let window = if edge.after(self.send.nxt) { edge.since(self.send.nxt) } else { 0 };
        if waiting == 0 {
            // A FIN goes even into a full window: it takes no buffer.
            return Some(0);
        }
        let mss = self.usable_mss();
        let full = waiting.min(mss);
        if window < full {
            return None;
        }
        let quota = (self.window.size - self.flying) as usize;
        let most = self.burst(mss);
        let mut len = waiting.min(window).min(quota.saturating_mul(mss)).min(most);
        if len < waiting && len > mss {
            len -= len % mss;
        }
        if len % mss != 0 && len == waiting && !self.send.fin && self.hold_back(len) {
            len -= len % mss;
        }
        (len > 0).then_some(len)
    }

    /// Bytes that go at once: what a device cuts into segments, but who is paced sends not more than a millisecond's worth, or two segments.
    fn burst(&self, mss: usize) -> usize {
        if !self.path.segmentation {
            return mss;
        }
        let paced = self.pacing_rate().map_or(usize::MAX, |rate| (rate / 1000) as usize).max(2 * mss);
        SEGMENT_MAX.min(paced).max(mss) / mss * mss
    }

    /// Is a last segment that is not full to wait? With TCP_CORK always, by Nagle's rule while another such is under way.
    fn hold_back(&self, _len: usize) -> bool {
        if self.settings.cork || self.send.more {
            return true;
        }
        let small_under_way = self.send.small.after(self.send.una) && !self.send.small.after(self.send.nxt);
        !self.settings.no_delay && small_under_way && self.send.urgent.is_none()
    }

    fn send_new(&mut self, now: Nanos, len: usize, out: Out) {
        let payload = self.send.unsent.split_to(len);
        let mut flags = Flags::empty();
        if self.send.unsent.is_empty() {
            if len > 0 {
                flags |= Flags::PSH;
            }
            if self.send.fin {
                flags |= Flags::FIN;
                self.send.fin_sent = true;
            }
        }
        let seq = self.send.nxt;
        self.queue(now, seq, payload, flags);
        if !len.is_multiple_of(self.send.mss) {
            self.send.small = self.send.nxt;
        }
        self.pace(now, len);
        if self.is_reducing() {
            self.loss.sent += self.segments(len);
        }
        self.transmit(now, self.send.queue.len() - 1, out);
        self.note_marks_sent();
    }

    /// Bytes a second at most: what the congestion control says, or the user (SO_MAX_PACING_RATE).
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        let most = (self.settings.max_pacing != u64::MAX).then_some(self.settings.max_pacing);
        self.algorithm.pacing_rate().into_iter().chain(most).min()
    }

    /// Is it too early for the next segment?
    fn is_paced(&self, now: Nanos) -> bool {
        self.pace_at > now && self.pacing_rate().is_some()
    }

    fn pace(&mut self, now: Nanos, len: usize) {
        if let Some(rate) = self.pacing_rate().filter(|&rate| rate > 0) {
            let spent = (len as u64).saturating_mul(NANOS_PER_SEC) / rate;
            // A timer that was late is made up for, as far as that is no burst.
            let credit = (self.rtt.smoothed / 4).clamp(MS, 10 * MS);
            self.pace_at = self.pace_at.max(now.saturating_sub(credit)) + spent;
        }
    }

    /// Sends lost segments again as far as the window allows; true if it is too early for the next.
    fn send_lost(&mut self, now: Nanos, out: Out) -> bool {
        let mut index = 0;
        while self.lost > 0 && self.flying < self.window.size && index < self.send.queue.len() {
            if self.send.queue[index].flight == Flight::Lost {
                if self.is_paced(now) {
                    return true;
                }
                self.send_again(now, index, out);
                let len = self.send.queue.get(index).map_or(0, |sent| sent.payload.len());
                self.pace(now, len);
            }
            index += 1;
        }
        false
    }

    /// Sends entry `index` again, at most as much of it as fits one segment (or the window, where the device segments).
    pub(super) fn send_again(&mut self, now: Nanos, index: usize, out: Out) {
        let quota = (self.window.size.saturating_sub(self.flying)).max(1) as usize;
        let most = quota.saturating_mul(self.send.mss).min(self.burst(self.send.mss));
        self.split(index, most);
        let stamp = self.stamp(now);
        let Some(sent) = self.send.queue.get_mut(index) else { return };
        sent.again = true;
        sent.delivered = self.counts.delivered;
        sent.delivered_at = self.delivered_at;
        sent.first_at = self.first_at;
        let len = sent.payload.len();
        self.set_flight(index, Flight::Flying);
        self.loss.retransmitted += 1;
        self.counts.bytes_again += len as u64;
        self.loss.sent += self.segments(len);
        if let Some(undo) = self.loss.undo.as_mut().filter(|undo| undo.stamp == 0) {
            undo.stamp = stamp.max(1);
        }
        self.transmit(now, index, out);
    }

    /// Splits an entry of the queue so that it has at most `len` bytes.
    pub(super) fn split(&mut self, index: usize, len: usize) {
        let mss = self.send.mss.max(1);
        let Some(sent) = self.send.queue.get_mut(index) else { return };
        if sent.payload.len() <= len || len == 0 {
            return;
        }
        let before = sent.payload.len().div_ceil(mss).max(1) as u32;
        let mut tail = sent.clone();
        tail.payload.advance(len);
        tail.seq = sent.seq + len;
        sent.payload.truncate(len);
        sent.flags -= Flags::FIN | Flags::PSH;
        let after = (len.div_ceil(mss).max(1) + tail.payload.len().div_ceil(mss).max(1)) as u32;
        let counter = match sent.flight {
            Flight::Flying => &mut self.flying,
            Flight::Lost => &mut self.lost,
            Flight::Sacked => &mut self.sacked,
        };
        *counter = (*counter + after).saturating_sub(before);
        self.send.queue.insert(index + 1, tail);
    }

    /// Moves an entry from one count to another.
    pub(super) fn set_flight(&mut self, index: usize, to: Flight) {
        let mss = self.send.mss.max(1);
        let Some(sent) = self.send.queue.get_mut(index) else { return };
        let n = sent.payload.len().div_ceil(mss).max(1) as u32;
        let from = core::mem::replace(&mut sent.flight, to);
        *self.counter(from) = self.counter(from).saturating_sub(n);
        *self.counter(to) += n;
    }

    pub(super) fn counter(&mut self, of: Flight) -> &mut u32 {
        match of {
            Flight::Flying => &mut self.flying,
            Flight::Lost => &mut self.lost,
            Flight::Sacked => &mut self.sacked,
        }
    }

    fn arm_after_pump(&mut self, now: Nanos, paced: bool) {
        if paced {
            self.loss.reorder_timer = Some(self.loss.reorder_timer.map_or(self.pace_at, |at| at.min(self.pace_at)));
        }
        if !self.send.queue.is_empty() {
            if self.send_timer.is_none_or(|(_, kind)| kind == SendTimer::Persist) {
                self.arm_retransmit(now);
            }
        } else if !self.send.unsent.is_empty() && !paced {
            // Nothing is under way, so no acknowledgement will open the window or end a cork.
            if self.send_timer.is_none() {
                self.probes = 0;
                self.stalled_at = now;
                self.send_timer = Some((now + self.rtt.timeout(), SendTimer::Persist));
            }
        } else if self.send_timer.is_some() {
            self.send_timer = None;
        }
    }
}
