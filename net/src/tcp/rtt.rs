//! Round-trip time and the retransmission time-out (RFC 6298, with Linux's bounds).

use base::Nanos;

/// A millisecond.
pub const MS: Nanos = 1_000_000;
/// The least time-out.
pub const RTO_MIN: Nanos = 200 * MS;
/// The most.
pub const RTO_MAX: Nanos = 120_000 * MS;
/// The time-out before anything was measured.
pub const RTO_FIRST: Nanos = 1000 * MS;

/// What is known of the round trip.
#[derive(Clone, Debug)]
pub struct RoundTrip {
    /// Smoothed; 0 before the first sample.
    pub smoothed: Nanos,
    /// Its variation.
    pub variation: Nanos,
    /// The least of the last minutes.
    pub least: Nanos,
    least_at: Nanos,
    /// How often the time-out has doubled since something was acknowledged.
    pub backoff: u32,
}

/// How long the least round trip counts.
const LEAST_LASTS: Nanos = 300_000 * MS;

impl Default for RoundTrip {
    fn default() -> RoundTrip {
        RoundTrip::new()
    }
}

impl RoundTrip {
    /// Nothing known.
    pub const fn new() -> RoundTrip {
        RoundTrip { smoothed: 0, variation: 0, least: 0, least_at: 0, backoff: 0 }
    }

    /// A measurement.
    pub fn sample(&mut self, now: Nanos, rtt: Nanos) {
        let rtt = rtt.max(1000);
        if self.smoothed == 0 {
            self.smoothed = rtt;
            self.variation = rtt / 2;
        } else {
            let error = rtt.abs_diff(self.smoothed);
            self.variation = self.variation - self.variation / 4 + error / 4;
            self.smoothed = self.smoothed - self.smoothed / 8 + rtt / 8;
        }
        if self.least == 0 || rtt <= self.least || now.saturating_sub(self.least_at) > LEAST_LASTS {
            self.least = rtt;
            self.least_at = now;
        }
    }

    /// The time-out without doubling.
    pub fn base_timeout(&self) -> Nanos {
        if self.smoothed == 0 {
            return RTO_FIRST;
        }
        (self.smoothed + (4 * self.variation).max(RTO_MIN)).min(RTO_MAX)
    }

    /// The time-out.
    pub fn timeout(&self) -> Nanos {
        self.base_timeout().saturating_mul(1 << self.backoff.min(16)).min(RTO_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_follows_the_samples_and_doubles() {
        let mut rtt = RoundTrip::new();
        assert_eq!(rtt.timeout(), RTO_FIRST);
        rtt.sample(0, 100 * MS);
        assert_eq!(rtt.timeout(), 300 * MS);
        for i in 0..100 {
            rtt.sample(i, 100 * MS);
        }
        assert!(rtt.timeout() <= 301 * MS);
        rtt.backoff = 3;
        assert!(rtt.timeout() >= 8 * 299 * MS);
        rtt.backoff = 40;
        assert_eq!(rtt.timeout(), RTO_MAX);
    }
}
