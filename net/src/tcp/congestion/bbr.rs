//! BBR, version 1 (draft-cardwell-iccrg-bbr-congestion-control-00): sends at the rate that the path has delivered, with as much under way as that rate
//! fills in the least round trip; probes for more bandwidth in cycles, and for a shorter round trip every ten seconds.

use super::{Ack, Algorithm, INITIAL, Window};
use base::{NANOS_PER_SEC, Nanos};

/// Gains in 256ths.
const HIGH_GAIN: u64 = 739;
const DRAIN_GAIN: u64 = 88;
const WINDOW_GAIN: u64 = 512;
const UNIT: u64 = 256;
const CYCLE: [u64; 8] = [320, 192, 256, 256, 256, 256, 256, 256];
/// Round trips that a bandwidth sample counts for.
const BANDWIDTH_ROUNDS: u64 = 10;
/// How long the least round trip counts.
const RTT_LASTS: Nanos = 10 * NANOS_PER_SEC;
/// How long it is probed for.
const PROBE_RTT: Nanos = 200_000_000;
const LEAST_WINDOW: u32 = 4;
/// Round trips that a lump of acknowledgements counts for, and how much time's worth of data it counts at most.
const LUMP_ROUNDS: u64 = 5;
const LUMP_MOST: Nanos = NANOS_PER_SEC / 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt,
}

/// BBR.
pub(super) struct Bbr {
    mode: Mode,
    rounds: u64,
    /// The best samples: bytes a second, and the round they were taken in.
    best: [(u64, u64); 3],
    full: u64,
    full_rounds: u32,
    least_rtt: Nanos,
    least_at: Nanos,
    probe_until: Nanos,
    phase: usize,
    phase_at: Nanos,
    prior_window: u32,
    lumps: Lumps,
}

/// How much more is acknowledged at once than the path can deliver in the meantime: acknowledgements were held up, and as much more has to be under
/// way.
#[derive(Default)]
struct Lumps {
    /// Since when it is counted, and bytes acknowledged since.
    since: Nanos,
    acknowledged: u64,
    /// The largest lump of the last rounds and of those before.
    most: [u64; 2],
    until: u64,
}

impl Lumps {
    fn note(&mut self, ack: &Ack, bandwidth: u64, round: u64) {
        let expected = |since: Nanos| bytes_in(bandwidth, ack.now.saturating_sub(since));
        if self.acknowledged <= expected(self.since) {
            (self.since, self.acknowledged) = (ack.now, 0);
        }
        self.acknowledged += u64::from(ack.delivered) * u64::from(ack.mss);
        if round >= self.until {
            self.most = [0, self.most[0]];
            self.until = round + LUMP_ROUNDS;
        }
        let lump = self.acknowledged - expected(self.since).min(self.acknowledged);
        self.most[0] = self.most[0].max(lump.min(bytes_in(bandwidth, LUMP_MOST)));
    }

    fn most(&self) -> u64 {
        self.most[0].max(self.most[1])
    }
}

/// Bytes that come in a time at a rate.
fn bytes_in(rate: u64, time: Nanos) -> u64 {
    (u128::from(rate) * u128::from(time) / u128::from(NANOS_PER_SEC)) as u64
}

impl Bbr {
    /// As a connection starts.
    pub(super) fn new() -> Bbr {
        Bbr {
            mode: Mode::Startup,
            rounds: 0,
            best: [(0, 0); 3],
            full: 0,
            full_rounds: 0,
            least_rtt: 0,
            least_at: 0,
            probe_until: 0,
            phase: 2,
            phase_at: 0,
            prior_window: 0,
            lumps: Lumps::default(),
        }
    }

    fn bandwidth(&self) -> u64 {
        self.best.iter().map(|&(rate, _)| rate).max().unwrap_or(0)
    }

    fn note_bandwidth(&mut self, rate: u64) {
        let rounds = self.rounds;
        for slot in &mut self.best {
            if rounds.saturating_sub(slot.1) > BANDWIDTH_ROUNDS {
                *slot = (0, rounds);
            }
        }
        // One slot for each recent third of the window, so that an old maximum goes when its time is up.
        let slot = &mut self.best[(rounds / (BANDWIDTH_ROUNDS / 3 + 1) % 3) as usize];
        if rate >= slot.0 {
            *slot = (rate, rounds);
        }
    }

    /// Segments that fill the path, times a gain.
    fn fill(&self, gain: u64, mss: u32) -> u32 {
        if self.least_rtt == 0 || self.bandwidth() == 0 {
            return INITIAL;
        }
        let bytes = bytes_in(self.bandwidth(), self.least_rtt);
        let segments = u128::from(bytes) * u128::from(gain) / u128::from(UNIT) / u128::from(mss.max(1));
        // Room for what is under way in lumps itself.
        u32::try_from(segments).unwrap_or(u32::MAX / 2).saturating_add(3)
    }

    fn gain(&self) -> u64 {
        match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBandwidth => CYCLE[self.phase],
            Mode::ProbeRtt => UNIT,
        }
    }

    fn check_full(&mut self, ack: &Ack) {
        if self.mode != Mode::Startup || !ack.round_start || ack.app_limited {
            return;
        }
        if self.bandwidth() >= self.full + self.full / 4 {
            self.full = self.bandwidth();
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        if self.full_rounds >= 3 {
            self.mode = Mode::Drain;
        }
    }

    fn update_mode(&mut self, window: &mut Window, ack: &Ack, expired: bool) {
        match self.mode {
            Mode::Drain if ack.in_flight <= self.fill(UNIT, ack.mss) => {
                self.mode = Mode::ProbeBandwidth;
                self.phase = 2 + (ack.now / 1000 % 6) as usize;
                self.phase_at = ack.now;
            }
            Mode::ProbeBandwidth if ack.now.saturating_sub(self.phase_at) > self.least_rtt => {
                self.phase = (self.phase + 1) % CYCLE.len();
                self.phase_at = ack.now;
            }
            Mode::ProbeRtt if self.probe_until != 0 && ack.now >= self.probe_until => {
                self.least_at = ack.now;
                window.size = window.size.max(self.prior_window);
                self.mode = if self.full_rounds >= 3 { Mode::ProbeBandwidth } else { Mode::Startup };
                self.phase_at = ack.now;
            }
            Mode::ProbeRtt if self.probe_until == 0 && ack.in_flight <= LEAST_WINDOW => {
                self.probe_until = ack.now + PROBE_RTT.max(self.least_rtt);
            }
            _ => {}
        }
        if expired && self.mode != Mode::ProbeRtt {
            self.mode = Mode::ProbeRtt;
            self.prior_window = window.size;
            self.probe_until = 0;
        }
    }
}

impl Algorithm for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        if ack.round_start {
            self.rounds += 1;
        }
        if ack.delivery_rate > 0 && (!ack.app_limited || ack.delivery_rate >= self.bandwidth()) {
            self.note_bandwidth(ack.delivery_rate);
        }
        let expired = self.least_rtt != 0 && ack.now.saturating_sub(self.least_at) > RTT_LASTS;
        if ack.rtt != 0 && (self.least_rtt == 0 || ack.rtt <= self.least_rtt || expired) {
            self.least_rtt = ack.rtt;
            self.least_at = ack.now;
        }
        self.check_full(ack);
        self.update_mode(window, ack, expired);
        if self.mode == Mode::ProbeRtt {
            window.size = window.size.min(LEAST_WINDOW);
            return;
        }
        let gain = if self.mode == Mode::ProbeBandwidth { WINDOW_GAIN } else { HIGH_GAIN };
        if self.full_rounds >= 3 {
            self.lumps.note(ack, self.bandwidth(), self.rounds);
        }
        let target = self.fill(gain, ack.mss) + (self.lumps.most() / u64::from(ack.mss.max(1))) as u32;
        let grown = window.size.saturating_add(ack.delivered);
        window.size = if self.full_rounds >= 3 {
            grown.min(target)
        } else if window.size < target || self.rounds < 3 {
            grown
        } else {
            window.size
        }
        .max(LEAST_WINDOW);
    }

    fn threshold_after_loss(&mut self, window: &Window, _now: Nanos) -> u32 {
        window.threshold
    }

    fn on_timeout(&mut self) {
        self.full = 0;
    }

    fn pacing_rate(&self) -> Option<u64> {
        let bandwidth = self.bandwidth();
        (bandwidth > 0).then(|| (u128::from(bandwidth) * u128::from(self.gain()) / u128::from(UNIT)) as u64)
    }

    fn steers_recovery(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_startup_when_bandwidth_stops_growing_and_fills_the_pipe_twice() {
        let mut bbr = Bbr::new();
        let mut window = Window::new();
        let rtt = 10_000_000;
        // 1 MB/s and 10 ms with segments of 1000 bytes: ten segments fill the path, and ten are acknowledged at once.
        for round in 1..60u64 {
            let ack = Ack {
                now: round * rtt,
                delivered: 10,
                rtt,
                smoothed: rtt,
                in_flight: 10,
                delivery_rate: (round * 300_000).min(1_000_000),
                round_start: true,
                mss: 1000,
                window_limited: true,
                ..Ack::default()
            };
            bbr.on_ack(&mut window, &ack);
        }
        assert_eq!(bbr.mode, Mode::ProbeBandwidth);
        assert!((30..=36).contains(&window.size), "{}", window.size);
        assert!((700_000..=1_300_000).contains(&bbr.pacing_rate().unwrap()));
    }
}
