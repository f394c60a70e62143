//! Explicit congestion notification (RFC 3168): routers mark instead of dropping, the receiver says so, and the sender slows down once a round trip.

use base::Nanos;

use super::connection::{Connection, Recovery};
use super::segment::{Flags, Segment};

/// Code points of the network header.
const ECT0: u8 = 2;
const CONGESTION: u8 = 3;

/// What a connection has agreed on, and what there is to say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ecn {
    /// Both ends use it.
    pub(super) on: bool,
    /// Segments came that could be marked.
    pub(super) seen: bool,
    /// Congestion was seen: every acknowledgement says so until the sender tells that it has slowed down.
    pub(super) echo: bool,
    /// We have slowed down: the next new segment tells.
    pub(super) reduced: bool,
    /// Segments that arrived at the peer with a mark.
    pub(super) delivered: u32,
}

impl Connection {
    /// Is a SYN to ask for it?
    pub(super) fn offers_ecn(&self) -> bool {
        self.settings.ecn == 1
    }

    /// What the answer to our SYN agrees to.
    pub(super) fn agree_ecn(&mut self, segment: &Segment) {
        let agreed = segment.flags & (Flags::ECE | Flags::CWR) == Flags::ECE;
        self.ecn.on = self.offers_ecn() && agreed;
    }

    /// Puts what there is to say on a segment; `fresh` for data that was not sent before.
    pub(super) fn mark_segment(&mut self, segment: &mut Segment, fresh: bool) {
        if !self.ecn.on || segment.has(Flags::SYN) || segment.has(Flags::RST) {
            return;
        }
        if self.ecn.echo {
            segment.flags |= Flags::ECE;
        }
        if fresh && !segment.payload.is_empty() {
            segment.codepoint = ECT0;
            if core::mem::take(&mut self.ecn.reduced) {
                segment.flags |= Flags::CWR;
            }
        }
    }

    /// Notes the mark of a segment that came in, and whether its sender has slowed down.
    pub(super) fn note_mark(&mut self, segment: &Segment) {
        if !self.ecn.on {
            return;
        }
        if segment.has(Flags::CWR) {
            self.ecn.echo = false;
            if segment.span() > 0 {
                self.receive.quick = self.receive.quick.max(1);
            }
        }
        match segment.codepoint {
            CONGESTION => {
                if !self.ecn.echo {
                    self.receive.quick = self.receive.quick.max(2);
                    self.receive.interactive = false;
                }
                self.ecn.echo = true;
                self.ecn.seen = true;
            }
            0 => {}
            _ => self.ecn.seen = true,
        }
    }

    /// The peer echoes a mark: the window is reduced like after a loss, but nothing is sent again.
    pub(super) fn take_echo(&mut self, now: Nanos, delivered: u32) {
        self.ecn.delivered = self.ecn.delivered.wrapping_add(delivered);
        if self.loss.state != Recovery::Open || self.algorithm.steers_recovery() {
            return;
        }
        self.begin_reduction(now);
        self.loss.state = Recovery::Reduce;
        self.loss.undo = None;
        self.ecn.reduced = true;
    }
}
