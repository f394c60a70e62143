//! How long a segment that others have overtaken may be late before it counts as lost (RFC 8985, 6.2): a quarter of the least round trip, and more
//! where the peer reports that what was sent again had arrived already (RFC 2883).

use base::Nanos;

use super::connection::{Connection, Recovery};
use super::segment::Segment;

/// Quarters of the least round trip that patience grows to.
const STEPS_MAX: u8 = 255;
/// It shrinks again after so many recoveries without such reports.
const LASTS: u8 = 16;

/// What duplicates have taught.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// Quarters of the least round trip, besides the first.
    more: u8,
    /// Recoveries until that is forgotten.
    lasts: u8,
    /// A duplicate was reported since the last change.
    hasty: bool,
    /// Duplicates that were reported, in all.
    reported: u32,
    /// Segments that were delivered at the last change: the next comes a round trip later.
    changed_at: u64,
}

impl Connection {
    /// Looks whether an acknowledgement reports a duplicate of something that was sent again. What the network itself has doubled teaches nothing.
    pub(super) fn note_duplicate(&mut self, segment: &Segment) {
        let blocks = &segment.options.blocks;
        let Some(&(from, to)) = blocks.first() else { return };
        let inside = blocks.get(1).is_some_and(|&(start, end)| !from.before(start) && !to.after(end));
        if !from.before(segment.ack) && !inside || self.loss.probed == Some(to) {
            return;
        }
        self.loss.patience.reported += 1;
        self.loss.patience.hasty |= u64::from(self.loss.patience.reported) <= self.loss.retransmitted;
    }

    /// Grows patience, at most once a round trip. `prior` was delivered when the newest of what is now acknowledged was sent.
    pub(super) fn adapt_patience(&mut self, prior: u64) {
        let delivered = self.counts.delivered;
        let patience = &mut self.loss.patience;
        if core::mem::take(&mut patience.hasty) && prior >= patience.changed_at {
            patience.more = patience.more.saturating_add(1).min(STEPS_MAX - 1);
            patience.changed_at = delivered;
            patience.lasts = LASTS;
        }
    }

    /// A recovery is over.
    pub(super) fn wear_patience(&mut self) {
        let patience = &mut self.loss.patience;
        patience.lasts = patience.lasts.saturating_sub(1);
        if patience.lasts == 0 {
            patience.more = 0;
        }
    }

    /// How late a segment may be.
    pub(super) fn patience(&self) -> Nanos {
        let repairs = self.loss.state != Recovery::Open || self.sacked >= self.settings.duplicates;
        if !self.loss.reordered && repairs {
            return 0;
        }
        (self.rtt.least / 4 * (1 + u64::from(self.loss.patience.more))).min(self.rtt.smoothed)
    }
}
