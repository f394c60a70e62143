//! What the user of a connection asks of it and asks about it (RFC 9293, 3.9.1: user calls), and what ends it.

use alloc::boxed::Box;

use base::{Errno, Nanos};

use super::congestion::{self, Algorithm};
use super::connection::{Connection, Effects, MIN_MSS, Out, SendTimer, State};
use super::memory::Pressure;
use super::rtt::MS;
use super::seq::Seq;
use crate::packet::Rope;

impl Connection {
    /// May the user send (now or when there is room)?
    pub fn can_send_ever(&self) -> bool {
        let open = matches!(self.state, State::Established | State::CloseWait)
            || self.state == State::SynReceived && self.fast.passive;
        open && !self.send.fin
    }

    /// Is it still being opened?
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// Will there be nothing more to receive after what is here?
    pub fn at_end(&self) -> bool {
        self.receive.fin
            || self.receive.shut
            || matches!(self.state, State::Closed | State::TimeWait | State::Closing | State::LastAck)
    }

    /// The timer that runs, as tables show it: which (1 retransmission, 2 keep-alive or another, 3 TIME_WAIT, 4 window probes), how often it ran
    /// out, and milliseconds until it does.
    pub fn timer(&self, now: Nanos) -> (u8, u8, u32) {
        let left = |at: Nanos| (at.saturating_sub(now) / MS) as u32;
        let send = self.send_timer.map(|(at, kind)| match kind {
            SendTimer::Retransmit | SendTimer::Probe => (1, self.rtt.backoff as u8, left(at)),
            SendTimer::Persist => (4, self.probes as u8, left(at)),
        });
        let end = self.end_timer.map(|at| (if self.state == State::TimeWait { 3 } else { 2 }, 0, left(at)));
        let keep = self.keep_timer.map(|at| (2, self.probes as u8, left(at)));
        send.or(end).or(keep).unwrap_or((0, 0, 0))
    }

    /// Segments that were sent again, in all.
    pub fn retransmitted(&self) -> u64 {
        self.loss.retransmitted
    }

    /// Bytes that can be received now.
    pub fn readable(&self) -> usize {
        self.receive.queue.len()
    }

    /// Bytes not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.unsent() + self.send.nxt.since(self.send.una)
    }

    /// Bytes not sent yet.
    pub fn unsent(&self) -> usize {
        self.send.unsent.len()
    }

    /// Bytes that may be added to what is to be sent; 0 where that would exceed the buffer.
    pub fn room(&self) -> usize {
        // Who has set a limit to what waits unsent gets no further.
        let unsent = self.settings.unsent_low.saturating_sub(self.unsent());
        // Where memory is scarce, what waits for its acknowledgement goes first.
        if self.pressure == Pressure::Full && self.queued() >= self.settings.send_buffers[0] as usize {
            return 0;
        }
        self.send.limit.saturating_sub(self.queued()).min(unsent)
    }

    /// Bytes that it holds for sending and receiving.
    pub fn held(&self) -> usize {
        self.queued() + self.receive.queue.len() + self.receive.early_bytes
    }

    /// Is the room to be kept to the byte, because the user has limited what waits unsent?
    pub fn is_limited(&self) -> bool {
        self.settings.unsent_low < u32::MAX as usize
    }

    fn queued(&self) -> usize {
        self.send.unsent.len() + self.send.nxt.since(self.send.una)
    }

    /// Is there so much room that a writer who waits should be told?
    pub fn has_room(&self) -> bool {
        let queued = self.queued();
        queued * 3 <= self.send.limit * 2 && self.unsent().saturating_mul(2) < self.settings.unsent_low
    }

    /// A writer found no room: tell when there is.
    pub fn want_room(&mut self) {
        self.send.wanted = true;
    }

    /// The maximum segment size towards the peer.
    pub fn mss(&self) -> usize {
        self.send.mss
    }

    /// Is this a sequence number of something under way?
    pub fn has_sent(&self, seq: Seq) -> bool {
        seq.within(self.send.una, self.send.nxt)
    }

    /// Acknowledges what is not acknowledged yet.
    pub fn acknowledge_now(&mut self, now: Nanos, out: Out) {
        self.receive.interactive = false;
        if self.receive.ack_at.is_some() {
            self.send_ack(now, out);
        }
    }

    /// Takes the error that ended it.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    /// Is there an error to take?
    pub fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// The congestion control's name.
    pub fn congestion(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Changes the congestion control.
    pub fn set_congestion(&mut self, algorithm: Box<dyn Algorithm>) {
        self.algorithm = algorithm;
        self.window.credit = 0;
    }

    /// Chooses the congestion control by name; false if there is none of that name.
    pub fn choose_congestion(&mut self, name: &[u8]) -> bool {
        let found = congestion::by_name(name);
        let known = found.is_some();
        if let Some(algorithm) = found {
            self.set_congestion(algorithm);
        }
        known
    }

    /// Sets the send buffer.
    pub fn set_send_limit(&mut self, bytes: usize) {
        self.send.limit = bytes.max(self.settings.send_buffers[0] as usize);
        self.send.fixed = true;
    }

    /// Sets the receive buffer; it then no longer grows by itself.
    pub fn set_receive_limit(&mut self, bytes: usize) {
        self.receive.limit = bytes;
        self.receive.fixed = true;
    }

    /// Adds data to send, and sends what may go. `more`: the user has more to come (MSG_MORE). `urgent`: the last byte is urgent data.
    pub fn write(&mut self, now: Nanos, data: Rope, more: bool, urgent: bool, out: Out) {
        if self.queued() == 0 && self.send.last_data_at != 0 {
            self.restart_after_idle(now);
        }
        if now.saturating_sub(self.receive.last_data_at) < 40 * MS {
            self.receive.interactive = true;
        }
        self.send.unsent.append(data);
        self.send.more = more;
        if urgent {
            self.send.urgent = Some(self.send.nxt + self.send.unsent.len());
        }
        self.pump(now, out);
    }

    /// Sends what waited for a change of settings.
    pub fn settings_changed(&mut self, now: Nanos, out: Out) {
        if self.settings.no_delay {
            self.send.more = false;
        }
        self.rearm_keep_alive(now);
        if !self.awaits_peer() {
            self.pump(now, out);
        }
    }

    /// Sends what MSG_MORE or TCP_CORK kept back.
    pub fn flush(&mut self, now: Nanos, out: Out) {
        self.send.more = false;
        self.pump(now, out);
    }

    /// shutdown(2) of the sending side: FIN after all that waits.
    pub fn finish(&mut self, now: Nanos, out: Out) {
        match self.state {
            State::Established | State::SynReceived => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            _ => return,
        }
        self.send.fin = true;
        self.send.more = false;
        self.pump(now, out);
    }

    /// The user takes nothing more.
    pub fn shut_receive(&mut self) {
        self.receive.shut = true;
    }

    /// close(2): FIN if all was received, reset if not or if `abort`.
    pub fn close(&mut self, now: Nanos, abort: bool, out: Out) -> Effects {
        self.orphan = true;
        self.receive.shut = true;
        let unread = !self.receive.queue.is_empty();
        self.receive.queue = Rope::new();
        if self.state == State::SynSent {
            return self.die(None);
        }
        let open = !matches!(self.state, State::Closed | State::TimeWait);
        if open && (abort || unread && self.can_reset_for_unread()) {
            self.send_reset(now, out);
            return self.die(None);
        }
        self.finish(now, out);
        if self.state == State::FinWait2 {
            self.end_timer = Some(now + self.settings.linger2);
        }
        if self.state == State::Closed { Effects::CLOSED } else { Effects::empty() }
    }

    fn can_reset_for_unread(&self) -> bool {
        !matches!(self.state, State::SynReceived)
    }

    /// Ends it, with an error for the user if there is one.
    pub(super) fn die(&mut self, error: Option<Errno>) -> Effects {
        self.state = State::Closed;
        self.error = error.or(self.error);
        self.send.queue.clear();
        self.send.unsent = Rope::new();
        self.send.una = self.send.nxt;
        self.receive.early.clear();
        self.receive.early_bytes = 0;
        (self.flying, self.lost, self.sacked) = (0, 0, 0);
        self.send_timer = None;
        self.keep_timer = None;
        self.end_timer = None;
        self.loss.reorder_timer = None;
        self.receive.ack_at = None;
        self.release_marks();
        let failed = if error.is_some() { Effects::FAILED } else { Effects::empty() };
        failed | Effects::CLOSED | Effects::READABLE | Effects::WRITABLE
    }

    /// Ends it from outside: a listener that closed, an administrator.
    pub fn abort(&mut self, now: Nanos, error: Option<Errno>, out: Out) -> Effects {
        if !matches!(self.state, State::Closed | State::TimeWait | State::SynSent) {
            self.send_reset(now, out);
        }
        self.die(error)
    }

    /// An ICMP message says that the peer cannot be reached: ends an opening, else is only kept for whoever asks.
    pub fn on_unreachable(&mut self, error: Errno, hard: bool) -> Effects {
        if self.is_opening() && (hard || self.state == State::SynSent) {
            return self.die(Some(error));
        }
        self.soft_error = Some(error);
        Effects::empty()
    }

    /// The path takes only segments of this size from now on: what is under way is sent again.
    pub fn on_smaller_path(&mut self, now: Nanos, mss: usize, out: Out) {
        let mss = mss.saturating_sub(if self.timestamps { 12 } else { 0 }).max(MIN_MSS);
        if mss >= self.send.mss || self.is_opening() {
            return;
        }
        self.send.mss = mss;
        self.mark_all_lost();
        self.pump(now, out);
    }
}
