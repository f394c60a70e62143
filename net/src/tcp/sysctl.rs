//! The settings of `/proc/sys/net/ipv4/tcp_*`: what new sockets and connections begin with.

use core::sync::atomic::{AtomicU32, Ordering};

use base::{NANOS_PER_SEC, Nanos};

use crate::options::BUFFER_MAX;

use super::connection::{Agreed, RECEIVE_BUFFER, SEND_BUFFER, Settings};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $initial:expr;)*) => {
        $($(#[$doc])* pub(crate) static $name: AtomicU32 = AtomicU32::new($initial);)*
    };
}

numbers! {
    /// Seconds that FIN_WAIT2 lasts without a user.
    FIN_TIMEOUT = 60;
    /// Seconds of silence before the first keep-alive probe.
    KEEPALIVE_TIME = 7200;
    /// Seconds between two.
    KEEPALIVE_INTERVAL = 75;
    /// How many go unanswered.
    KEEPALIVE_PROBES = 9;
    /// Repetitions of a SYN.
    SYN_RETRIES = 6;
    /// Repetitions before a connection is given up.
    RETRIES2 = 15;
    /// Selective acknowledgements.
    SACK = 1;
    /// Timestamps.
    TIMESTAMPS = 1;
    /// Window scaling.
    WINDOW_SCALING = 1;
    /// ECN: 0 never, 1 asked for and accepted, 2 accepted.
    ECN = 2;
    /// Repetitions for a connection without a user; 0 for the usual 8.
    ORPHAN_RETRIES = 0;
    /// An opening for which the accept queue has no room is reset.
    ABORT_ON_OVERFLOW = 0;
    /// A pause makes the window small again.
    SLOW_START_AFTER_IDLE = 1;
    /// Probes for losses of the last segments: 3 and 4 on, others off.
    EARLY_RETRANS = 3;
    /// A reset does not end TIME_WAIT (RFC 1337).
    RFC1337 = 0;
    /// Duplicates are reported (RFC 2883).
    DSACK = 1;
    /// Time-outs that turn out to be spurious are undone (RFC 5682).
    FRTO = 2;
    /// Duplicates that show a loss.
    REORDERING = 3;
    /// The receive buffer follows what the program takes.
    MODERATE_RCVBUF = 1;
    /// Bytes that may wait unsent.
    NOTSENT_LOWAT = u32::MAX;
    /// Connections in TIME_WAIT make room for new ones to the same end: 0 never, 1 always, 2 on the loopback interface.
    TIME_WAIT_REUSE = 2;
}

/// The least, first and largest receive buffer.
pub(crate) static RECEIVE: [AtomicU32; 3] = buffers(RECEIVE_BUFFER);
/// The least, first and largest send buffer.
pub(crate) static SEND: [AtomicU32; 3] = buffers(SEND_BUFFER);

const fn buffers(sizes: [u32; 3]) -> [AtomicU32; 3] {
    [AtomicU32::new(sizes[0]), AtomicU32::new(sizes[1]), AtomicU32::new(sizes[2])]
}

/// Settings that are kept without effect, because what they tune is done in another way here, with what they begin with.
pub(crate) static KEPT: [(&str, AtomicU32); 20] = [
    ("tcp_adv_win_scale", AtomicU32::new(1)),
    ("tcp_app_win", AtomicU32::new(31)),
    ("tcp_autocorking", AtomicU32::new(1)),
    ("tcp_base_mss", AtomicU32::new(1024)),
    ("tcp_challenge_ack_limit", AtomicU32::new(i32::MAX as u32)),
    ("tcp_ecn_fallback", AtomicU32::new(1)),
    ("tcp_fack", AtomicU32::new(0)),
    ("tcp_fastopen_blackhole_timeout_sec", AtomicU32::new(0)),
    ("tcp_invalid_ratelimit", AtomicU32::new(500)),
    ("tcp_limit_output_bytes", AtomicU32::new(1 << 20)),
    ("tcp_max_reordering", AtomicU32::new(300)),
    ("tcp_min_tso_segs", AtomicU32::new(2)),
    ("tcp_mtu_probing", AtomicU32::new(0)),
    ("tcp_no_metrics_save", AtomicU32::new(0)),
    ("tcp_pacing_ca_ratio", AtomicU32::new(120)),
    ("tcp_pacing_ss_ratio", AtomicU32::new(200)),
    ("tcp_recovery", AtomicU32::new(1)),
    ("tcp_retries1", AtomicU32::new(3)),
    ("tcp_stdurg", AtomicU32::new(0)),
    ("tcp_tso_win_divisor", AtomicU32::new(3)),
];

fn is_on(setting: &AtomicU32) -> bool {
    setting.load(Ordering::Relaxed) != 0
}

fn sizes(of: &[AtomicU32; 3]) -> [u32; 3] {
    [0, 1, 2].map(|i: usize| of[i].load(Ordering::Relaxed))
}

/// The first send and receive buffer of a socket.
pub(super) fn first_buffers() -> (usize, usize) {
    (sizes(&SEND)[1] as usize, sizes(&RECEIVE)[1] as usize)
}

/// What a new socket begins with.
pub(super) fn settings() -> Settings {
    let seconds = |setting: &AtomicU32| Nanos::from(setting.load(Ordering::Relaxed)) * NANOS_PER_SEC;
    Settings {
        keep_idle: seconds(&KEEPALIVE_TIME),
        keep_interval: seconds(&KEEPALIVE_INTERVAL),
        keep_count: KEEPALIVE_PROBES.load(Ordering::Relaxed),
        linger2: seconds(&FIN_TIMEOUT),
        syn_retries: SYN_RETRIES.load(Ordering::Relaxed),
        retries: RETRIES2.load(Ordering::Relaxed),
        // Until the program sets its own.
        unsent_low: 0,
        ..Settings::default()
    }
}

/// Fills in what is the system's and not the socket's: as of now, when a connection is opened.
pub(super) fn refresh(settings: &mut Settings) {
    settings.sack = is_on(&SACK);
    settings.timestamps = is_on(&TIMESTAMPS);
    settings.scaling = is_on(&WINDOW_SCALING);
    settings.scale = scale();
    settings.send_buffers = sizes(&SEND);
    settings.receive_buffers = sizes(&RECEIVE);
    settings.ecn = ECN.load(Ordering::Relaxed);
    settings.orphan_retries = match ORPHAN_RETRIES.load(Ordering::Relaxed) {
        0 => 8,
        retries => retries,
    };
    settings.restart_after_idle = is_on(&SLOW_START_AFTER_IDLE);
    settings.duplicate_reports = is_on(&DSACK);
    settings.spurious_timeouts = is_on(&FRTO);
    settings.duplicates = REORDERING.load(Ordering::Relaxed);
    settings.follows_reader = is_on(&MODERATE_RCVBUF);
    settings.keeps_time_wait = is_on(&RFC1337);
    settings.tail_probes = EARLY_RETRANS.load(Ordering::Relaxed) >= 3;
    settings.unsent_low = match settings.unsent_low {
        0 => NOTSENT_LOWAT.load(Ordering::Relaxed) as usize,
        own => own,
    };
}

/// The window scale for the most that a receive buffer grows to, by itself or by SO_RCVBUF.
pub(super) fn scale() -> u8 {
    const MOST: u8 = 14;
    let largest = RECEIVE[2].load(Ordering::Relaxed).max(BUFFER_MAX[1].load(Ordering::Relaxed));
    (0..MOST).find(|scale| largest >> scale <= 0xffff).unwrap_or(MOST)
}

/// What of a peer's offers is accepted.
pub(super) fn accepted(offered: Agreed) -> Agreed {
    Agreed {
        mss: offered.mss,
        scale: offered.scale.filter(|_| is_on(&WINDOW_SCALING)),
        sack: offered.sack && is_on(&SACK),
        timestamp: offered.timestamp.filter(|_| is_on(&TIMESTAMPS)),
        ecn: offered.ecn && is_on(&ECN),
    }
}
