//! CUBIC (RFC 9438): the window is a cubic function of the time since the last loss, so it grows fast far from the last maximum and
//! carefully near it. Integer arithmetic; time in milliseconds, windows in thousandths of a segment where fractions matter.

use super::{Ack, Algorithm, Window};
use base::Nanos;

/// The share of the window that is kept after a loss, in 1024ths (0.7).
const BETA: u64 = 717;

/// CUBIC.
#[derive(Default)]
pub(super) struct Cubic {
    /// The window before the last loss.
    last_max: u32,
    /// When this epoch began; 0 for none yet.
    epoch: Nanos,
    /// Where the cubic's plateau lies, in segments.
    origin: u32,
    /// Milliseconds from the epoch's beginning to the plateau.
    plateau: u64,
    /// The window that Reno would have, in thousandths.
    reno: u64,
    /// The least round trip.
    least_rtt: Nanos,
    before_loss: (u32, Nanos),
}

/// The cube root.
fn cube_root(n: u64) -> u64 {
    let mut root = 0u64;
    for bit in (0..21).rev() {
        let candidate = root | 1 << bit;
        if candidate * candidate * candidate <= n {
            root = candidate;
        }
    }
    root
}

impl Cubic {
    fn begin_epoch(&mut self, window: &Window, now: Nanos) {
        self.epoch = now.max(1);
        self.reno = u64::from(window.size) * 1000;
        if window.size >= self.last_max {
            self.plateau = 0;
            self.origin = window.size;
        } else {
            // K = cbrt((W_max - cwnd) / C) seconds with C = 0.4; in milliseconds the cube is of 10^9.
            self.plateau = cube_root(u64::from(self.last_max - window.size) * 2_500_000_000);
            self.origin = self.last_max;
        }
    }

    /// The window that the cubic wants a round trip from now, in segments.
    fn target(&self, now: Nanos) -> u32 {
        let t = (now.saturating_sub(self.epoch) + self.least_rtt) / 1_000_000;
        let distance = t.abs_diff(self.plateau).min(1 << 20);
        // C * d^3 with C = 0.4 for seconds: 0.4e-9 for milliseconds.
        let delta = u32::try_from(distance.pow(3) / 1000 * 4 / 10_000_000).unwrap_or(u32::MAX);
        if t < self.plateau { self.origin.saturating_sub(delta) } else { self.origin.saturating_add(delta) }
    }
}

impl Algorithm for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        if ack.rtt != 0 && (self.least_rtt == 0 || ack.rtt < self.least_rtt) {
            self.least_rtt = ack.rtt;
        }
        if !ack.window_limited {
            return;
        }
        let mut delivered = ack.delivered;
        if window.in_slow_start() {
            delivered = window.slow_start(delivered);
        }
        if delivered == 0 {
            return;
        }
        if self.epoch == 0 {
            self.begin_epoch(window, ack.now);
        }
        let target = self.target(ack.now);
        let size = u64::from(window.size.max(1));
        // Reno's estimate grows by 3(1-b)/(1+b) = 0.53 segments a round trip.
        self.reno += u64::from(delivered) * 529 / size;
        let reno = (self.reno / 1000) as u32;
        let mut per = match target.saturating_sub(window.size) {
            0 => 100 * window.size,
            missing => window.size / missing,
        };
        if reno > window.size {
            per = per.min(window.size / (reno - window.size));
        }
        // At most one segment for two acknowledged.
        window.grow(per.max(2), delivered);
    }

    fn threshold_after_loss(&mut self, window: &Window, _now: Nanos) -> u32 {
        self.before_loss = (self.last_max, self.epoch);
        self.epoch = 0;
        // Fast convergence: who loses below the last maximum leaves room for others.
        self.last_max = if window.size < self.last_max {
            (u64::from(window.size) * (1024 + BETA) / 2048) as u32
        } else {
            window.size
        };
        ((u64::from(window.size) * BETA / 1024) as u32).max(2)
    }

    fn on_timeout(&mut self) {
        *self = Cubic { least_rtt: self.least_rtt, ..Cubic::default() };
    }

    fn on_undo(&mut self) {
        (self.last_max, self.epoch) = self.before_loss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cube_roots() {
        for n in [0u64, 1, 7, 8, 26, 27, 1_000_000, 2_500_000_000_000] {
            let r = cube_root(n);
            assert!(r.pow(3) <= n && (r + 1).pow(3) > n, "{n}");
        }
    }

    #[test]
    fn returns_to_the_last_maximum_after_its_time_and_then_beyond() {
        let mut cubic = Cubic::default();
        let mut window = Window { size: 1000, threshold: 1000, credit: 0 };
        window.threshold = cubic.threshold_after_loss(&window, 0);
        window.size = window.threshold;
        assert_eq!(window.size, 700);
        // K = cbrt(300 / 0.4) = 9.1 s at a round trip of 100 ms.
        let mut now = 1_000_000_000;
        let mut at_k = 0;
        for round in 0..150 {
            for _ in 0..window.size {
                let ack = Ack { now, delivered: 1, rtt: 100_000_000, window_limited: true, ..Ack::default() };
                cubic.on_ack(&mut window, &ack);
            }
            now += 100_000_000;
            if round == 90 {
                at_k = window.size;
            }
        }
        assert!((960..=1010).contains(&at_k), "{at_k} at K");
        assert!(window.size > 1050, "{} after K", window.size);
    }
}
