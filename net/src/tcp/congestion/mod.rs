//! Congestion control: how much may be under way (RFC 5681). Each algorithm is a module behind [`Algorithm`].

mod bbr;
mod cubic;
mod reno;

use alloc::boxed::Box;
use base::Nanos;
use core::sync::atomic::{AtomicU8, Ordering};

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ack {
    /// The time.
    pub now: Nanos,
    /// Segments that have newly arrived, in order or not.
    pub delivered: u32,
    /// The round trip that it measured; 0 for none.
    pub rtt: Nanos,
    /// The smoothed round trip.
    pub smoothed: Nanos,
    /// Segments under way before it.
    pub in_flight: u32,
    /// Bytes a second that the path delivered, by its last sample; 0 for none.
    pub delivery_rate: u64,
    /// A round trip has gone by since the last acknowledgement with this set.
    pub round_start: bool,
    /// The sender had less to send than it might.
    pub app_limited: bool,
    /// The window was what kept the sender from sending more.
    pub window_limited: bool,
    /// The maximum segment size.
    pub mss: u32,
}

/// The windows, in segments.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The congestion window.
    pub size: u32,
    /// Slow start ends here.
    pub threshold: u32,
    /// Segments acknowledged towards the next increase.
    pub credit: u32,
}

/// The initial window (RFC 6928).
pub const INITIAL: u32 = 10;

impl Default for Window {
    fn default() -> Window {
        Window::new()
    }
}

impl Window {
    /// As a connection starts.
    pub const fn new() -> Window {
        Window { size: INITIAL, threshold: u32::MAX, credit: 0 }
    }

    /// Is the window still below the threshold?
    pub fn in_slow_start(&self) -> bool {
        self.size < self.threshold
    }

    /// Grows by what was delivered up to the threshold; what is left of it.
    pub fn slow_start(&mut self, delivered: u32) -> u32 {
        let grown = self.size.saturating_add(delivered).min(self.threshold);
        let left = delivered - (grown - self.size);
        self.size = grown;
        left
    }

    /// Grows by one for each `per` segments delivered.
    pub fn grow(&mut self, per: u32, delivered: u32) {
        let per = per.max(1);
        if self.credit >= per {
            self.credit = 0;
            self.size = self.size.saturating_add(1);
        }
        self.credit += delivered;
        if self.credit >= per {
            let more = self.credit / per;
            self.credit -= more * per;
            self.size = self.size.saturating_add(more);
        }
    }
}

/// A congestion control.
pub trait Algorithm: Send + Sync {
    /// Its name, for TCP_CONGESTION.
    fn name(&self) -> &'static str;
    /// Segments have arrived, and nothing is being recovered (or the algorithm steers recovery itself).
    fn on_ack(&mut self, window: &mut Window, ack: &Ack);
    /// The threshold after a loss.
    fn threshold_after_loss(&mut self, window: &Window, now: Nanos) -> u32;
    /// A time-out has ended all that was known.
    fn on_timeout(&mut self) {}
    /// The loss turned out not to be one.
    fn on_undo(&mut self) {}
    /// Bytes a second to pace at; `None` for what window and round trip give.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }
    /// Does it set the window during recovery by itself?
    fn steers_recovery(&self) -> bool {
        false
    }
}

/// The names that can be chosen, the default of a fresh machine first.
pub const AVAILABLE: [&str; 3] = ["cubic", "reno", "bbr"];

/// An algorithm by its name, reno where there is none of that name.
pub fn named(name: &str) -> Box<dyn Algorithm> {
    by_name(name.as_bytes()).unwrap_or_else(|| Box::new(reno::Reno))
}

static DEFAULT: AtomicU8 = AtomicU8::new(0);

/// An algorithm by its name.
pub fn by_name(name: &[u8]) -> Option<Box<dyn Algorithm>> {
    match name {
        b"reno" => Some(Box::new(reno::Reno)),
        b"cubic" => Some(Box::new(cubic::Cubic::default())),
        b"bbr" => Some(Box::new(bbr::Bbr::new())),
        _ => None,
    }
}

/// The name of what new connections use (`net.ipv4.tcp_congestion_control`).
pub fn default_name() -> &'static str {
    AVAILABLE[usize::from(DEFAULT.load(Ordering::Relaxed)) % AVAILABLE.len()]
}

/// Sets what new connections use; false if there is no such algorithm.
pub fn set_default(name: &[u8]) -> bool {
    let found = AVAILABLE.iter().position(|known| known.as_bytes() == name);
    if let Some(index) = found {
        DEFAULT.store(index as u8, Ordering::Relaxed);
    }
    found.is_some()
}
