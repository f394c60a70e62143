//! `struct tcp_info` (linux/tcp.h).

use alloc::vec::Vec;

use base::Nanos;

use super::connection::{Connection, Recovery};
use super::rtt::MS;

fn us(nanos: Nanos) -> u32 {
    (nanos / 1000) as u32
}

/// Bytes of the structure in Linux 6.1.
pub(super) const SIZE: usize = 240;

impl Connection {
    /// Bytes a second that window and round trip make, with the headroom that a paced sender would take.
    fn window_rate(&self) -> u64 {
        let percent = if self.window.size < self.window.threshold / 2 { 200 } else { 120 };
        let window = u64::from(self.window.size.max(self.flying)) * self.send.mss as u64;
        match self.rtt.smoothed {
            0 => u64::MAX,
            rtt => (window * percent / 100).saturating_mul(1_000_000) / (rtt / 1000).max(1),
        }
    }

    /// The eight single bytes that the structure begins with.
    fn info_bytes(&self) -> [u8; 8] {
        let ca_state = match self.loss.state {
            Recovery::Open if self.sacked > 0 => 1,
            Recovery::Open => 0,
            Recovery::Reduce => 2,
            Recovery::Repair => 3,
            Recovery::Timeout => 4,
        };
        const TIMESTAMPS: u8 = 1;
        const SACK: u8 = 2;
        const SCALE: u8 = 4;
        const ECN: u8 = 8;
        const ECN_SEEN: u8 = 0x10;
        const SYN_DATA: u8 = 0x20;
        let mut options = if self.timestamps { TIMESTAMPS } else { 0 };
        options |= if self.sack { SACK } else { 0 };
        options |= if self.receive.scale != 0 { SCALE } else { 0 };
        options |= if self.ecn.on { ECN } else { 0 } | if self.ecn.seen { ECN_SEEN } else { 0 };
        options |= if self.fast.acknowledged { SYN_DATA } else { 0 };
        let limited = u8::from(self.app_limited != 0);
        [
            self.state as u8,
            ca_state,
            self.rtt.backoff as u8,
            self.probes as u8,
            self.rtt.backoff as u8,
            options,
            self.send.scale | self.receive.scale << 4,
            limited,
        ]
    }

    /// The words that follow, up to the first long one.
    fn info_words(&self, now: Nanos) -> [u32; 24] {
        let ms = |at: Nanos| (now.saturating_sub(at) / MS) as u32;
        let under_way = self.flying + self.lost + self.sacked;
        [
            us(self.rtt.timeout()),
            40_000,
            self.send.mss as u32,
            self.receive.mss as u32,
            under_way,
            self.sacked,
            self.lost,
            self.send.queue.iter().filter(|sent| sent.again).count() as u32,
            0,
            ms(self.send.last_data_at),
            0,
            ms(self.receive.last_data_at),
            ms(self.last_heard),
            u32::from(self.path.mss) + 40,
            (self.receive.limit / 2) as u32,
            us(self.rtt.smoothed),
            us(self.rtt.variation),
            self.window.threshold.min(i32::MAX as u32),
            self.window.size,
            self.receive.advertised_mss.into(),
            3,
            us(self.rtt.smoothed),
            (self.receive.limit / 2) as u32,
            self.loss.retransmitted as u32,
        ]
    }

    /// The structure as of now.
    pub fn info(&self, now: Nanos) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE);
        out.extend_from_slice(&self.info_bytes());
        out.extend(self.info_words(now).iter().flat_map(|word| word.to_ne_bytes()));
        let pacing = self.pacing_rate().unwrap_or_else(|| self.window_rate());
        let c = &self.counts;
        out.extend(
            [pacing, self.settings.max_pacing, c.bytes_acked, c.bytes_received].iter().flat_map(|n| n.to_ne_bytes()),
        );
        let words =
            [c.segments_out, c.segments_in, self.send.unsent.len() as u32, us(self.rtt.least), c.data_in, c.data_out];
        out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        out.extend([self.delivery_rate, 0, 0, 0].iter().flat_map(|n| n.to_ne_bytes()));
        out.extend_from_slice(&(c.delivered as u32).to_ne_bytes());
        out.extend_from_slice(&self.ecn.delivered.to_ne_bytes());
        out.extend_from_slice(&c.bytes_sent.to_ne_bytes());
        out.extend_from_slice(&c.bytes_again.to_ne_bytes());
        let last = [0u32, u32::from(self.loss.reordered), c.early, self.send.window as u32];
        out.extend(last.iter().flat_map(|word| word.to_ne_bytes()));
        out.resize(SIZE, 0);
        out
    }
}
