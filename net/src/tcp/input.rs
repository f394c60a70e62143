//! What arriving segments do (RFC 9293, 3.10.7; RFC 5961; RFC 7323, 5).

use base::{Errno, NANOS_PER_SEC, Nanos};

use super::connection::{Agreed, Connection, Effects, Out, State, TIME_WAIT};
use super::segment::{Flags, Segment};
use super::seq::Seq;

/// A timestamp is believed for so long (24 days).
const STAMP_LASTS: Nanos = 24 * 86_400 * NANOS_PER_SEC;

impl Connection {
    /// Takes a segment from the peer.
    pub fn on_segment(&mut self, now: Nanos, segment: Segment, out: Out) -> Effects {
        self.counts.segments_in = self.counts.segments_in.wrapping_add(1);
        match self.state {
            State::Closed | State::Listen => Effects::empty(),
            State::SynSent => self.in_syn_sent(now, segment, out),
            State::TimeWait => self.in_time_wait(now, segment, out),
            _ => self.synchronised(now, segment, out),
        }
    }

    fn in_syn_sent(&mut self, now: Nanos, segment: Segment, out: Out) -> Effects {
        let has_ack = segment.has(Flags::ACK);
        if has_ack && !segment.ack.within(self.send.iss + 1, self.most_acknowledged()) {
            if let Some(reset) = segment.reset() {
                out(reset);
            }
            return Effects::empty();
        }
        if segment.has(Flags::RST) {
            return if has_ack { self.die(Some(Errno::ECONNREFUSED)) } else { Effects::empty() };
        }
        if !segment.has(Flags::SYN) {
            return Effects::empty();
        }
        self.receive.irs = segment.seq;
        self.receive.nxt = segment.seq + 1;
        self.receive.acked = segment.seq;
        self.receive.edge = self.receive.nxt + self.receive.edge.since(Seq(0)).min(65535);
        self.agree(
            now,
            Agreed {
                mss: segment.options.mss,
                scale: segment.options.scale.filter(|_| self.settings.scaling),
                sack: segment.options.sack_permitted && self.settings.sack,
                timestamp: segment.options.timestamps.filter(|_| self.settings.timestamps).map(|(value, _)| value),
                ecn: false,
            },
        );
        self.agree_ecn(&segment);
        self.last_heard = now;
        let mut effects = Effects::empty();
        if !has_ack {
            return self.simultaneous(now, &segment, out);
        }
        self.state = State::Established;
        self.take_fast_answer(&segment);
        self.take_ack(now, &segment, &mut effects, out);
        self.send.wl1 = segment.seq;
        self.send.window = segment.window.into();
        self.send.max_window = self.send.max_window.max(self.send.window);
        self.established(now);
        if self.fast.asked && segment.span() > 1 {
            // Who opens fast may answer with data at once.
            let mut data = segment;
            data.seq += 1;
            data.flags -= Flags::SYN;
            effects |= self.take_data(now, data, out);
        }
        if self.send.unsent.is_empty() {
            self.send_ack(now, out);
        } else {
            // The acknowledgement goes with data, if it may go.
            self.receive.ack_at = Some(now);
            self.pump(now, out);
            if self.receive.ack_at.take().is_some() {
                self.send_ack(now, out);
            }
        }
        self.pump(now, out);
        effects | Effects::CONNECTED | Effects::WRITABLE
    }

    /// Both ends open at once.
    fn simultaneous(&mut self, now: Nanos, segment: &Segment, out: Out) -> Effects {
        self.state = State::SynReceived;
        self.fast.with_syn = 0;
        self.ecn.on = self.settings.ecn != 0 && segment.flags & (Flags::ECE | Flags::CWR) == Flags::ECE | Flags::CWR;
        self.send.window = segment.window.into();
        self.send.max_window = self.send.window;
        self.send.wl1 = segment.seq;
        self.transmit(now, 0, out);
        Effects::empty()
    }

    fn established(&mut self, now: Nanos) {
        self.send_timer = None;
        self.keep_timer = None;
        self.probes = 0;
        self.rtt.backoff = 0;
        self.receive.round_at = now;
        self.send.small = self.send.una;
        self.grow_send_buffer();
        self.rearm_keep_alive(now);
    }

    fn in_time_wait(&mut self, now: Nanos, segment: Segment, out: Out) -> Effects {
        if segment.has(Flags::RST) {
            let exact = segment.seq == self.receive.nxt && !self.is_stale(now, &segment);
            return if exact && !self.settings.keeps_time_wait { self.die(None) } else { Effects::empty() };
        }
        if segment.has(Flags::FIN) {
            self.end_timer = Some(now + TIME_WAIT);
        }
        if segment.has(Flags::FIN) || segment.has(Flags::SYN) || !segment.payload.is_empty() {
            self.send_challenge(now, out);
        }
        Effects::empty()
    }

    /// May a SYN of these numbers begin a new connection while this one is in TIME_WAIT (RFC 9293, 3.6.1; RFC 6191)?
    pub fn gives_way_to(&self, segment: &Segment) -> bool {
        if self.state != State::TimeWait
            || !segment.has(Flags::SYN)
            || segment.has(Flags::ACK)
            || segment.has(Flags::RST)
        {
            return false;
        }
        let newer_stamp = self.timestamps
            && segment.options.timestamps.is_some_and(|(value, _)| (value.wrapping_sub(self.peer_stamp) as i32) > 0);
        segment.seq.after(self.receive.nxt) || newer_stamp
    }

    /// Has the last segment of a connection in TIME_WAIT come more than a second ago, so that a new one from here is told apart by its timestamps?
    pub fn can_be_reused(&self, now: Nanos) -> bool {
        self.state == State::TimeWait && self.timestamps && now.saturating_sub(self.peer_stamp_at) > NANOS_PER_SEC
    }

    fn is_acceptable(&self, segment: &Segment) -> bool {
        let (nxt, edge) = (self.receive.nxt, self.receive.edge);
        let end = segment.end();
        !end.before(self.receive.acked.min(nxt)) && !segment.seq.after(edge.max(nxt))
    }

    /// Is its timestamp older than what has come before (PAWS)?
    fn is_stale(&self, now: Nanos, segment: &Segment) -> bool {
        let Some((value, _)) = segment.options.timestamps.filter(|_| self.timestamps) else { return false };
        let older = (value.wrapping_sub(self.peer_stamp) as i32) < 0;
        older && now.saturating_sub(self.peer_stamp_at) < STAMP_LASTS
    }

    fn synchronised(&mut self, now: Nanos, segment: Segment, out: Out) -> Effects {
        let again = self.fast.passive && self.state == State::SynReceived && segment.seq == self.receive.irs;
        if again && segment.has(Flags::SYN) && !segment.has(Flags::ACK) {
            // The answer to the SYN was lost.
            self.transmit(now, 0, out);
            return Effects::empty();
        }
        if self.is_stale(now, &segment) && !segment.has(Flags::RST) {
            if segment.span() > 0 {
                self.send_ack(now, out);
            }
            return Effects::empty();
        }
        if !self.is_acceptable(&segment) {
            self.answer_unacceptable(now, &segment, out);
            return Effects::empty();
        }
        if segment.has(Flags::RST) {
            return self.take_reset(now, &segment, out);
        }
        if segment.has(Flags::SYN) {
            let repeated = self.state == State::SynReceived && segment.seq == self.receive.irs;
            if !(repeated && segment.has(Flags::ACK)) {
                self.send_challenge(now, out);
                return Effects::empty();
            }
        }
        if !segment.has(Flags::ACK) {
            return Effects::empty();
        }
        self.note_stamp(now, &segment);
        self.note_mark(&segment);
        self.last_heard = now;
        let mut effects = Effects::empty();
        if self.state == State::SynReceived {
            if !segment.ack.within(self.send.una, self.send.nxt) || segment.ack == self.send.una {
                if let Some(reset) = segment.reset() {
                    out(reset);
                }
                return Effects::empty();
            }
            self.become_established(now, &segment);
            effects |= Effects::CONNECTED | Effects::WRITABLE;
        }
        if !self.take_ack(now, &segment, &mut effects, out) || self.state == State::Closed {
            return effects;
        }
        if segment.has(Flags::URG) {
            effects |= self.take_urgent(&segment);
        }
        effects |= self.take_data(now, segment, out);
        self.pump(now, out);
        effects
    }

    /// A segment that is not in the window is acknowledged, so that the peer learns where we are (RFC 9293, 3.10.7.4).
    fn answer_unacceptable(&mut self, now: Nanos, segment: &Segment, out: Out) {
        if segment.has(Flags::RST) {
            return;
        }
        if segment.has(Flags::SYN) {
            self.send_challenge(now, out);
            return;
        }
        if segment.span() > 0 && segment.seq.before(self.receive.nxt) {
            self.receive.duplicate = Some((segment.seq, segment.end()));
        }
        self.send_ack(now, out);
    }

    fn become_established(&mut self, now: Nanos, segment: &Segment) {
        self.state = if self.send.fin { State::FinWait1 } else { State::Established };
        self.send.window = usize::from(segment.window) << self.send.scale;
        self.send.max_window = self.send.window;
        self.send.wl1 = segment.seq;
        self.send.wl2 = segment.ack;
        if self.send.queue.is_empty() {
            // The SYN-ACK was sent before this connection was made: nobody waits for its acknowledgement in the queue.
            self.send.una = self.send.iss + 1;
        }
        self.established(now);
    }

    fn take_reset(&mut self, now: Nanos, segment: &Segment, out: Out) -> Effects {
        if segment.seq != self.receive.nxt {
            self.send_challenge(now, out);
            return Effects::empty();
        }
        let error = match self.state {
            State::SynReceived => Errno::ECONNREFUSED,
            State::CloseWait => Errno::EPIPE,
            _ => Errno::ECONNRESET,
        };
        self.receive.queue = if self.state == State::CloseWait {
            core::mem::take(&mut self.receive.queue)
        } else {
            crate::packet::Rope::new()
        };
        self.die(Some(error))
    }

    fn note_stamp(&mut self, now: Nanos, segment: &Segment) {
        if let Some((value, _)) = segment.options.timestamps.filter(|_| self.timestamps)
            && !segment.seq.after(self.receive.acked)
            && (value.wrapping_sub(self.peer_stamp) as i32) >= 0
        {
            self.peer_stamp = value;
            self.peer_stamp_at = now;
        }
    }

    fn take_urgent(&mut self, segment: &Segment) -> Effects {
        if segment.urgent == 0 || !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            return Effects::empty();
        }
        let end = segment.seq + usize::from(segment.urgent);
        let known = self.receive.urgent.is_some_and(|urgent| !end.after(urgent));
        if known || !end.after(self.receive.nxt) {
            return Effects::empty();
        }
        self.receive.urgent = Some(end);
        self.receive.urgent_byte = None;
        Effects::URGENT
    }

    pub(super) fn enter_time_wait(&mut self, now: Nanos) {
        self.state = State::TimeWait;
        self.send_timer = None;
        self.keep_timer = None;
        self.loss.reorder_timer = None;
        self.end_timer = Some(now + TIME_WAIT);
    }
}
