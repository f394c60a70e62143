//! What happens when time passes: retransmission (RFC 6298), tail loss and window probes, delayed acknowledgements, keep-alive, the end of waits.

use alloc::vec::Vec;

use base::{Errno, NANOS_PER_SEC, Nanos};

use super::connection::{Connection, Effects, Flight, Out, Recovery, SendTimer, State, Undo};
use super::rtt::RTO_MAX;
use crate::packet::Rope;

impl Connection {
    /// When [`Connection::on_time`] is to be called next.
    pub fn deadline(&self) -> Option<Nanos> {
        let send = self.send_timer.map(|(at, _)| at);
        let timers = [send, self.receive.ack_at, self.keep_timer, self.end_timer, self.loss.reorder_timer];
        timers.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Nanos, out: Out) -> Effects {
        let due = |at: Option<Nanos>| at.is_some_and(|at| at <= now);
        if self.state == State::Closed {
            return Effects::empty();
        }
        if due(self.end_timer) {
            return self.die(None);
        }
        let mut effects = Effects::empty();
        if due(self.receive.ack_at) {
            self.receive.ack_at = None;
            self.receive.interactive = false;
            self.send_ack(now, out);
        }
        if due(self.loss.reorder_timer) {
            self.loss.reorder_timer = None;
            self.detect(now, ());
            if self.lost > 0 && matches!(self.loss.state, Recovery::Open | Recovery::Reduce) {
                self.enter_recovery(now);
                self.window.size = self.window.size.min(self.window.threshold).max(self.flying + 1);
            }
            self.pump(now, out);
        }
        if let Some((at, kind)) = self.send_timer
            && at <= now
        {
            self.send_timer = None;
            effects |= match kind {
                SendTimer::Retransmit => self.on_timeout(now, out),
                SendTimer::Probe => self.on_probe(now, out),
                SendTimer::Persist => self.on_persist(now, out),
            };
        }
        if self.state != State::Closed && due(self.keep_timer) {
            self.keep_timer = None;
            effects |= self.on_keep_alive(now, out);
        }
        self.shrink();
        effects
    }

    /// Gives the memory of empty queues back. A timer runs out some time after the last data: who is busy is not bothered.
    fn shrink(&mut self) {
        if self.send.queue.is_empty() && self.send.unsent.is_empty() {
            self.send.queue = Default::default();
            self.send.unsent = Rope::new();
        }
        if self.receive.queue.is_empty() && self.receive.early.is_empty() {
            self.receive.queue = Rope::new();
            self.receive.early = Vec::new();
            self.receive.blocks = Vec::new();
        }
    }

    /// Is it time to give up, after so many repetitions?
    fn gives_up(&self, now: Nanos, repeated: u32) -> bool {
        if self.settings.user_timeout != 0 && !self.is_opening() {
            return now.saturating_sub(self.stalled_at) >= self.settings.user_timeout;
        }
        let most = match self.state {
            State::SynSent => self.settings.syn_retries,
            State::SynReceived => 5,
            _ if self.orphan => self.settings.orphan_retries.min(self.settings.retries),
            _ => self.settings.retries,
        };
        repeated >= most
    }

    /// The retransmission timer (RFC 6298, 5.4-5.7; RFC 5681, 3.1).
    fn on_timeout(&mut self, now: Nanos, out: Out) -> Effects {
        if self.send.queue.is_empty() {
            self.pump(now, out);
            return Effects::empty();
        }
        if self.gives_up(now, self.rtt.backoff) {
            let error = self.soft_error.take().unwrap_or(Errno::ETIMEDOUT);
            return self.die(Some(error));
        }
        if self.loss.state != Recovery::Timeout {
            if matches!(self.loss.state, Recovery::Open | Recovery::Reduce) {
                self.loss.undo = Some(Undo { window: self.window.size, threshold: self.window.threshold, stamp: 0 });
                self.window.threshold = self.algorithm.threshold_after_loss(&self.window, now);
            }
            self.algorithm.on_timeout();
            self.loss.state = Recovery::Timeout;
        }
        self.loss.timeouts += 1;
        self.loss.high = self.send.nxt;
        self.loss.duplicates = 0;
        self.loss.probed = None;
        self.mark_all_lost();
        // The peer may have thrown away what it reported.
        if self.rtt.backoff > 0 {
            for index in 0..self.send.queue.len() {
                if self.send.queue[index].flight == Flight::Sacked {
                    self.set_flight(index, Flight::Lost);
                }
            }
        }
        self.window.size = 1;
        self.window.credit = 0;
        let first = (0..self.send.queue.len()).find(|&i| self.send.queue[i].flight == Flight::Lost).unwrap_or(0);
        self.send_again(now, first, out);
        self.rtt.backoff += 1;
        self.send_timer = Some((now + self.rtt.timeout(), SendTimer::Retransmit));
        Effects::empty()
    }

    /// A tail loss probe: new data if there is some, else the last segment again.
    fn on_probe(&mut self, now: Nanos, out: Out) -> Effects {
        self.loss.probed = Some(self.send.nxt);
        let last = self.send.queue.len().checked_sub(1);
        if let Some(last) = last.filter(|&i| self.send.queue[i].flight == Flight::Flying) {
            let len = self.send.queue[last].payload.len();
            let mss = self.send.mss;
            let keep = if len > mss { (len - 1) / mss * mss } else { 0 };
            self.split(last, keep);
            let index = self.send.queue.len() - 1;
            self.send.queue[index].again = true;
            self.loss.retransmitted += 1;
            self.counts.bytes_again += self.send.queue[index].payload.len() as u64;
            self.transmit(now, index, out);
        }
        if !self.send.queue.is_empty() {
            self.send_timer = Some((now + self.rtt.timeout(), SendTimer::Retransmit));
        }
        Effects::empty()
    }

    /// Asks a peer with a closed window, or lets go what a cork has kept long enough.
    fn on_persist(&mut self, now: Nanos, out: Out) -> Effects {
        if self.send.unsent.is_empty() || !self.send.queue.is_empty() {
            self.pump(now, out);
            return Effects::empty();
        }
        if self.gives_up(now, self.probes) {
            return self.die(Some(self.soft_error.unwrap_or(Errno::ETIMEDOUT)));
        }
        let edge = self.send.una + self.send.window;
        let window = if edge.after(self.send.nxt) { edge.since(self.send.nxt) } else { 0 };
        let len = self.send.unsent.len().min(window).min(self.send.mss);
        if len > 0 {
            let payload = self.send.unsent.split_to(len);
            self.force(now, payload, out);
            return Effects::empty();
        }
        self.send_probe(now, out);
        self.probes += 1;
        let wait = self.rtt.base_timeout().saturating_mul(1 << self.probes.min(10)).min(RTO_MAX);
        self.send_timer = Some((now + wait, SendTimer::Persist));
        Effects::empty()
    }

    fn force(&mut self, now: Nanos, payload: crate::packet::Rope, out: Out) {
        let rest = core::mem::replace(&mut self.send.unsent, payload);
        let (cork, more, no_delay) = (self.settings.cork, self.send.more, self.settings.no_delay);
        (self.settings.cork, self.send.more, self.settings.no_delay) = (false, false, true);
        // The FIN comes after the rest, too.
        let fin = core::mem::replace(&mut self.send.fin, false);
        let small = core::mem::replace(&mut self.send.small, self.send.una);
        self.pump(now, out);
        if self.send.small == self.send.una {
            self.send.small = small;
        }
        (self.settings.cork, self.send.more, self.settings.no_delay) = (cork, more, no_delay);
        self.send.fin = fin;
        self.send.unsent.append(rest);
        if !self.send.queue.is_empty() {
            self.arm_retransmit(now);
        }
    }

    /// Starts the keep-alive timer if it is wanted.
    pub(super) fn rearm_keep_alive(&mut self, now: Nanos) {
        let wanted = self.settings.keep_alive && !self.is_opening() && self.state != State::TimeWait;
        self.keep_timer = wanted.then(|| (self.last_heard + self.settings.keep_idle).max(now));
    }

    fn on_keep_alive(&mut self, now: Nanos, out: Out) -> Effects {
        if !self.settings.keep_alive || self.state == State::TimeWait {
            return Effects::empty();
        }
        let quiet = now.saturating_sub(self.last_heard);
        // Data under way has timers of its own.
        if quiet < self.settings.keep_idle || !self.send.queue.is_empty() || !self.send.unsent.is_empty() {
            self.probes = 0;
            self.keep_timer = Some((self.last_heard + self.settings.keep_idle).max(now + NANOS_PER_SEC / 10));
            return Effects::empty();
        }
        let expired = self.settings.user_timeout != 0 && quiet >= self.settings.user_timeout && self.probes > 0;
        let counted = self.settings.user_timeout == 0 && self.probes >= self.settings.keep_count;
        if expired || counted {
            self.send_reset(now, out);
            return self.die(Some(self.soft_error.unwrap_or(Errno::ETIMEDOUT)));
        }
        self.probes += 1;
        self.send_probe(now, out);
        self.keep_timer = Some(now + self.settings.keep_interval);
        Effects::empty()
    }
}
