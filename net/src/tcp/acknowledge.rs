//! Acknowledgements: what they take off the queue, round trips and rates they measure, losses they show (RFC 6675, RACK-TLP RFC 8985), and the
//! recovery from those (PRR RFC 6937, Eifel undo RFC 4015).

use base::{NANOS_PER_SEC, Nanos};

use super::congestion::Ack;
use super::connection::{Connection, Effects, Flight, Out, Recovery, SendTimer, State, Undo};
use super::memory::Pressure;
use super::rtt::MS;
use super::segment::{Flags, Segment};
use super::seq::Seq;

/// What was known as a segment was sent: from there to its delivery a rate is measured (draft-cheng-iccrg-delivery-rate-estimation).
#[derive(Clone, Copy)]
struct Prior {
    /// Segments delivered, and when the last of them was.
    delivered: u64,
    delivered_at: Nanos,
    app_limited: bool,
    /// From the sending of that last one to the sending of this one.
    sending: Nanos,
}

/// What one acknowledgement brought, in the making.
#[derive(Default)]
struct Progress {
    /// Segments newly delivered.
    delivered: u32,
    /// Round trip of the last segment that was not sent again.
    rtt: Nanos,
    /// Of the newest segment.
    prior: Option<Prior>,
    /// The cumulative acknowledgement moved.
    advanced: bool,
    /// Some of what was acknowledged had been sent once only.
    original: bool,
    /// In-order data was acknowledged that had been passed over by SACKs: the network reorders.
    reordered: bool,
    /// The highest sequence number that earlier SACKs have named.
    highest_before: Seq,
    /// The timestamp that the acknowledgement echoes; 0 for none.
    echo: u32,
}

impl Connection {
    /// Takes the acknowledgement of a segment in a synchronised state. False if the segment is to be dropped.
    pub(super) fn take_ack(&mut self, now: Nanos, segment: &Segment, effects: &mut Effects, out: Out) -> bool {
        let ack = segment.ack;
        if ack.after(self.send.nxt) {
            self.send_ack(now, out);
            return false;
        }
        if ack.before(self.send.una) {
            // Too old to be honest (RFC 5961, 5.2), or only old.
            if self.send.una - ack > self.send.max_window.min(i32::MAX as usize) as i32 {
                self.send_challenge(now, out);
                return false;
            }
            return true;
        }
        let had_data = !segment.payload.is_empty() || segment.has(Flags::FIN);
        let window_before = self.send.window;
        self.update_window(segment);
        let in_flight = self.flying;
        let mut progress = Progress {
            highest_before: self.loss.highest_sacked.max(self.send.una),
            echo: segment.options.timestamps.filter(|_| self.timestamps).map_or(0, |(_, echo)| echo),
            ..Progress::default()
        };
        if self.sack {
            self.note_duplicate(segment);
            for &block in &segment.options.blocks {
                self.take_block(now, block, &mut progress);
            }
        }
        if ack.after(self.send.una) {
            self.advance(now, ack, &mut progress);
        } else if !had_data && self.send.window == window_before && !self.send.queue.is_empty() {
            self.loss.duplicates += 1;
        }
        self.probes = 0;
        self.pass_marks(effects);
        let echoes = self.ecn.on && segment.has(Flags::ECE);
        if progress.delivered == 0 && !progress.advanced && self.loss.duplicates == 0 && !echoes {
            return true;
        }
        self.measure(now, segment, &mut progress);
        self.recover(now, segment, &progress, in_flight);
        if progress.advanced {
            self.after_advance(now, effects);
        }
        true
    }

    fn update_window(&mut self, segment: &Segment) {
        let (wl1, wl2) = (self.send.wl1, self.send.wl2);
        let newer = wl1.before(segment.seq)
            || wl1 == segment.seq && (!segment.ack.before(wl2))
            || segment.ack.after(self.send.una);
        if newer {
            let scale = if segment.has(Flags::SYN) { 0 } else { self.send.scale };
            self.send.window = usize::from(segment.window) << scale;
            self.send.max_window = self.send.max_window.max(self.send.window);
            self.send.wl1 = segment.seq;
            self.send.wl2 = segment.ack;
        }
    }

    /// Notes that an entry has arrived.
    fn deliver(&mut self, now: Nanos, index: usize, progress: &mut Progress) {
        let segments = self.send.queue.get(index).map_or(0, |sent| self.segments(sent.payload.len()));
        let Some(sent) = self.send.queue.get(index) else { return };
        let (sent_at, again, end, seq) = (sent.sent_at, sent.again, sent.end(), sent.seq);
        let prior = Prior {
            delivered: sent.delivered,
            delivered_at: sent.delivered_at,
            app_limited: sent.app_limited,
            sending: sent_at.saturating_sub(sent.first_at),
        };
        progress.delivered += segments;
        self.counts.delivered += u64::from(segments);
        self.delivered_at = now;
        if progress.prior.is_none_or(|other| prior.delivered >= other.delivered) {
            progress.prior = Some(prior);
            self.first_at = sent_at;
        }
        let rtt = now.saturating_sub(sent_at);
        if !again {
            progress.rtt = rtt.max(1);
            progress.original = true;
            if progress.highest_before.after(end) && seq.before(progress.highest_before) {
                progress.reordered = true;
            }
        }
        // A segment sent again and acknowledged sooner than any round trip, or by an echo older than the repetition, was the first one
        // after all.
        let repetition = self.stamp(sent_at);
        let old_echo = progress.echo != 0 && (progress.echo.wrapping_sub(repetition) as i32) < 0;
        if !again || rtt >= self.rtt.least && !old_echo {
            let later = sent_at > self.loss.rack_at || sent_at == self.loss.rack_at && end.after(self.loss.rack_end);
            if later {
                self.loss.rack_at = sent_at;
                self.loss.rack_end = end;
                self.loss.rack_rtt = rtt;
            }
        }
    }

    /// Marks what a SACK block covers.
    fn take_block(&mut self, now: Nanos, (from, to): (Seq, Seq), progress: &mut Progress) {
        if !from.before(to) || !from.within(self.send.una, self.send.nxt) || to.after(self.send.nxt) {
            // A duplicate report, or nonsense.
            return;
        }
        let mut index = self.send.queue.partition_point(|sent| !sent.end().after(from));
        while let Some(sent) = self.send.queue.get(index) {
            if !sent.seq.before(to) {
                break;
            }
            if sent.flight == Flight::Sacked {
                index += 1;
                continue;
            }
            let (seq, end) = (sent.seq, sent.end());
            if seq.before(from) {
                self.split(index, from.since(seq));
                index += 1;
                continue;
            }
            if end.after(to) {
                let len = to.since(seq);
                self.split(index, len);
            }
            self.deliver(now, index, progress);
            self.set_flight(index, Flight::Sacked);
            let end = self.send.queue.get(index).map_or(to, |sent| sent.end());
            self.loss.highest_sacked = self.loss.highest_sacked.max(end);
            index += 1;
        }
    }

    /// Takes everything before `ack` off the queue.
    fn advance(&mut self, now: Nanos, ack: Seq, progress: &mut Progress) {
        while let Some(sent) = self.send.queue.front() {
            if !sent.seq.before(ack) {
                break;
            }
            if sent.end().after(ack) {
                self.split(0, ack.since(sent.seq));
                if self.send.queue.front().is_some_and(|sent| sent.end().after(ack)) {
                    break;
                }
            }
            if self.send.queue.front().is_some_and(|sent| sent.flight != Flight::Sacked) {
                self.deliver(now, 0, progress);
            }
            let Some(sent) = self.send.queue.pop_front() else { break };
            let n = self.segments(sent.payload.len());
            *self.counter(sent.flight) = self.counter(sent.flight).saturating_sub(n);
        }
        self.counts.bytes_acked += ack.since(self.send.una) as u64;
        self.send.una = ack;
        self.loss.duplicates = 0;
        self.rtt.backoff = 0;
        progress.advanced = true;
        self.stalled_at = now;
        self.soft_error = None;
    }

    fn measure(&mut self, now: Nanos, segment: &Segment, progress: &mut Progress) {
        if progress.rtt == 0
            && progress.advanced
            && let Some((_, echo)) = segment.options.timestamps.filter(|&(_, echo)| self.timestamps && echo != 0)
        {
            let elapsed = self.stamp(now).wrapping_sub(echo);
            if elapsed < 1 << 24 {
                progress.rtt = (u64::from(elapsed) * MS).max(1);
            }
        }
        if progress.rtt != 0 {
            self.rtt.sample(now, progress.rtt);
        }
        self.loss.reordered |= progress.reordered;
    }

    fn rate(&mut self, now: Nanos, progress: &Progress) -> (u64, bool, bool) {
        let Some(Prior { delivered, delivered_at, app_limited, sending }) = progress.prior else {
            return (0, false, false);
        };
        let round_start = delivered >= self.round_end;
        if round_start {
            self.round_end = self.counts.delivered;
        }
        if self.app_limited != 0 && self.counts.delivered > self.app_limited {
            self.app_limited = 0;
        }
        // Acknowledgements that were held up come in a lump: nothing arrives faster than it was sent.
        let elapsed = now.saturating_sub(delivered_at).max(sending).max(self.rtt.least).max(1);
        let bytes = (self.counts.delivered - delivered) * self.send.mss as u64;
        let rate = (u128::from(bytes) * u128::from(NANOS_PER_SEC) / u128::from(elapsed)) as u64;
        self.delivery_rate = rate;
        (rate, round_start, app_limited)
    }

    /// Finds losses, and lets the congestion control decide.
    fn recover(&mut self, now: Nanos, segment: &Segment, progress: &Progress, in_flight: u32) {
        self.try_undo(segment, progress);
        if let Some(prior) = progress.prior {
            self.adapt_patience(prior.delivered);
        }
        self.detect(now, progress);
        let una = self.send.una;
        let ended = self.loss.state != Recovery::Open && !una.before(self.loss.high) && progress.advanced;
        if ended {
            self.end_recovery();
        }
        if self.ecn.on && segment.has(Flags::ECE) && !segment.has(Flags::SYN) {
            self.take_echo(now, progress.delivered);
        }
        if self.lost > 0 && matches!(self.loss.state, Recovery::Open | Recovery::Reduce) {
            self.enter_recovery(now);
        }
        let (delivery_rate, round_start, app_limited) = self.rate(now, progress);
        let ack = Ack {
            now,
            delivered: progress.delivered,
            rtt: progress.rtt,
            smoothed: self.rtt.smoothed,
            in_flight,
            delivery_rate,
            round_start,
            app_limited,
            // In slow start half of it in use is enough (RFC 7661).
            window_limited: self.window_limited
                || in_flight >= self.window.size
                || self.window.in_slow_start() && self.window.size < 2 * in_flight,
            mss: self.send.mss as u32,
        };
        if self.is_reducing() && !self.algorithm.steers_recovery() {
            self.reduce(progress.delivered);
        } else if progress.delivered > 0 && (!ended || self.algorithm.steers_recovery()) {
            self.algorithm.on_ack(&mut self.window, &ack);
        }
    }

    /// Marks as lost what RACK (or without SACK, three duplicates) shows.
    pub(super) fn detect(&mut self, now: Nanos, progress_or: impl Into<Hint>) {
        let hint = progress_or.into();
        if !self.sack {
            let partial = hint.advanced && self.loss.state == Recovery::Repair && self.send.una.before(self.loss.high);
            let third = self.loss.duplicates == self.settings.duplicates && self.loss.state == Recovery::Open;
            let first = self.send.queue.front().map(|sent| sent.flight);
            if (partial || third) && first == Some(Flight::Flying) {
                let mss = self.send.mss;
                self.split(0, mss);
                self.set_flight(0, Flight::Lost);
            }
            return;
        }
        self.loss.reorder_timer = None;
        if self.loss.rack_at == 0 {
            return;
        }
        let patience = self.patience();
        let mut next: Option<Nanos> = None;
        for index in 0..self.send.queue.len() {
            let Some(sent) = self.send.queue.get(index) else { break };
            let (rack_at, rack_end) = (self.loss.rack_at, self.loss.rack_end);
            if sent.seq.after(rack_end) && !sent.again && sent.sent_at > rack_at {
                break;
            }
            let earlier = sent.sent_at < rack_at || sent.sent_at == rack_at && sent.end().before(rack_end);
            if sent.flight != Flight::Flying || !earlier {
                continue;
            }
            let due = sent.sent_at + self.loss.rack_rtt + patience;
            // With no patience whatever was sent before counts as overtaken.
            if patience == 0 || due <= now {
                self.set_flight(index, Flight::Lost);
            } else {
                next = Some(next.map_or(due, |n| n.min(due)));
            }
        }
        self.loss.reorder_timer = next;
    }

    /// Is the window being reduced in proportion to what arrives?
    pub(super) fn is_reducing(&self) -> bool {
        matches!(self.loss.state, Recovery::Repair | Recovery::Reduce)
    }

    pub(super) fn enter_recovery(&mut self, now: Nanos) {
        if self.loss.state != Recovery::Reduce {
            self.begin_reduction(now);
        }
        self.loss.state = Recovery::Repair;
        self.loss.high = self.send.nxt;
    }

    /// From now on the window shrinks towards what the congestion control sets as the threshold.
    pub(super) fn begin_reduction(&mut self, now: Nanos) {
        self.loss.high = self.send.nxt;
        self.loss.undo = Some(Undo { window: self.window.size, threshold: self.window.threshold, stamp: 0 });
        self.loss.flight_at_start = (self.flying + self.lost + self.sacked).max(1);
        self.loss.delivered = 0;
        self.loss.sent = 0;
        self.window.threshold = self.algorithm.threshold_after_loss(&self.window, now);
    }

    /// Proportional rate reduction.
    fn reduce(&mut self, delivered: u32) {
        self.loss.delivered += delivered;
        let threshold = self.window.threshold;
        let pipe = self.flying;
        let allowed = if pipe > threshold {
            let target = u64::from(self.loss.delivered) * u64::from(threshold);
            let target = target.div_ceil(u64::from(self.loss.flight_at_start)) as u32;
            target.saturating_sub(self.loss.sent)
        } else {
            let limit = self.loss.delivered.saturating_sub(self.loss.sent).max(delivered) + 1;
            (threshold - pipe).min(limit)
        };
        // The first retransmission goes at once.
        let allowed = if self.loss.sent == 0 { allowed.max(1) } else { allowed };
        self.window.size = pipe + allowed;
    }

    fn end_recovery(&mut self) {
        self.wear_patience();
        if self.is_reducing() && !self.algorithm.steers_recovery() {
            self.window.size = self.window.threshold.max(2);
        }
        self.loss.state = Recovery::Open;
        self.loss.undo = None;
        self.loss.duplicates = 0;
    }

    /// An acknowledgement of the first sending, of what has been sent again since: there was no loss.
    fn try_undo(&mut self, segment: &Segment, progress: &Progress) {
        if !progress.advanced || self.loss.state == Recovery::Open {
            return;
        }
        let Some(undo) = self.loss.undo else { return };
        let echoed_before = segment.options.timestamps.is_some_and(|(_, echo)| {
            self.timestamps && undo.stamp != 0 && echo != 0 && (echo.wrapping_sub(undo.stamp) as i32) < 0
        });
        // F-RTO (RFC 5682) without timestamps: data that was never repeated is acknowledged after a time-out.
        let original = self.settings.spurious_timeouts
            && self.loss.state == Recovery::Timeout
            && progress.original
            && self.sack
            && undo.stamp != 0;
        let unrepeated = original && self.send.una.before(self.loss.high) && self.lost > 0;
        if !echoed_before && !unrepeated {
            return;
        }
        self.window.size = self.window.size.max(undo.window);
        self.window.threshold = undo.threshold;
        self.algorithm.on_undo();
        for index in 0..self.send.queue.len() {
            if self.send.queue[index].flight == Flight::Lost {
                self.set_flight(index, Flight::Flying);
            }
        }
        self.loss.state = Recovery::Open;
        self.loss.undo = None;
    }

    fn after_advance(&mut self, now: Nanos, effects: &mut Effects) {
        if self.loss.probed.is_some_and(|end| !self.send.una.before(end)) {
            self.loss.probed = None;
        }
        if self.send.urgent.is_some_and(|urgent| !urgent.after(self.send.una)) {
            self.send.urgent = None;
        }
        self.grow_send_buffer();
        if self.send.wanted && self.has_room() {
            self.send.wanted = false;
            *effects |= Effects::WRITABLE;
        }
        self.send_timer = None;
        if !self.send.queue.is_empty() {
            self.arm_retransmit(now);
        }
        let finished = self.send.fin_sent && self.send.una == self.send.nxt;
        if finished {
            self.after_fin_acked(now, effects);
        }
    }

    /// The send buffer holds twice what may be under way.
    pub(super) fn grow_send_buffer(&mut self) {
        let limit = self.send.limit;
        if !self.send.fixed && self.pressure == Pressure::None && limit < self.settings.send_buffers[2] as usize {
            let wanted = 2 * self.window.size as usize * (self.send.mss + 256);
            self.send.limit = limit.max(wanted.min(self.settings.send_buffers[2] as usize));
        }
    }

    fn after_fin_acked(&mut self, now: Nanos, effects: &mut Effects) {
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                *effects |= Effects::WRITABLE;
                if self.orphan {
                    self.end_timer = Some(now + self.settings.linger2);
                }
            }
            State::Closing => self.enter_time_wait(now),
            State::LastAck => *effects |= self.die(None),
            _ => {}
        }
    }

    /// Everything under way counts as lost.
    pub(super) fn mark_all_lost(&mut self) {
        for index in 0..self.send.queue.len() {
            if self.send.queue[index].flight == Flight::Flying {
                self.set_flight(index, Flight::Lost);
            }
        }
    }

    /// Arms the timer of the sending side anew: a tail loss probe where that is possible, else the retransmission.
    pub(super) fn arm_retransmit(&mut self, now: Nanos) {
        let rto = self.rtt.timeout();
        let may_probe = self.sack
            && matches!(self.loss.state, Recovery::Open | Recovery::Reduce)
            && self.settings.tail_probes
            && self.loss.probed.is_none()
            && self.rtt.smoothed != 0
            && self.rtt.backoff == 0
            && !self.is_opening();
        if may_probe {
            let late = if self.flying == 1 { super::rtt::RTO_MIN } else { 2 * MS };
            let probe = 2 * self.rtt.smoothed + late;
            if probe < rto {
                self.send_timer = Some((now + probe, SendTimer::Probe));
                return;
            }
        }
        self.send_timer = Some((now + rto, SendTimer::Retransmit));
    }
}

/// What loss detection has to know besides the queue.
pub(super) struct Hint {
    advanced: bool,
}

impl From<&Progress> for Hint {
    fn from(progress: &Progress) -> Hint {
        Hint { advanced: progress.advanced }
    }
}

impl From<()> for Hint {
    fn from(_: ()) -> Hint {
        Hint { advanced: false }
    }
}
