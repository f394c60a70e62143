//! Reno (RFC 5681): one segment more each round trip, half after a loss.

use super::{Ack, Algorithm, Window};
use base::Nanos;

/// Reno.
pub(super) struct Reno;

impl Algorithm for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        if !ack.window_limited {
            return;
        }
        let mut delivered = ack.delivered;
        if window.in_slow_start() {
            delivered = window.slow_start(delivered);
        }
        if delivered > 0 {
            window.grow(window.size, delivered);
        }
    }

    fn threshold_after_loss(&mut self, window: &Window, _now: Nanos) -> u32 {
        (window.size / 2).max(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_one_each_round_trip() {
        let mut window = Window { size: 10, threshold: 10, credit: 0 };
        let ack = Ack { delivered: 1, window_limited: true, ..Ack::default() };
        for _ in 0..10 {
            Reno.on_ack(&mut window, &ack);
        }
        assert_eq!(window.size, 11);
        assert_eq!(Reno.threshold_after_loss(&window, 0), 5);
        Reno.on_ack(&mut window, &Ack { window_limited: false, delivered: 100, ..ack });
        assert_eq!(window.size, 11, "a window that is not used does not grow");
    }
}
