//! A connection: the variables of RFC 9293, 3.3.1, and what its user does with it.
//!
//! The machine is pure: time and random numbers are arguments, segments go in and come out, and it tells what happened ([`Effects`]) and when it
//! wants to be called again ([`Connection::deadline`]). Its variables are in [`super::control_block`]; what segments bring is in [`super::input`], acknowledgements and losses in
//! [`super::acknowledge`], received data in [`super::receive`], sending in [`super::output`], timers in [`super::timers`].

use alloc::boxed::Box;

use base::{Errno, NANOS_PER_SEC, Nanos};
use bitflags::bitflags;

use super::congestion::{Algorithm, Window};
pub(super) use super::control_block::{Flight, Loss, Receive, Recovery, Send, SendTimer, Sent, Undo};
use super::ecn::Ecn;
use super::fast_open::Fast;
use super::mark::Marks;
use super::memory::Pressure;
use super::rtt::{MS, RoundTrip};
use super::segment::{FastOpen, Flags, Segment};
use super::seq::Seq;
use crate::packet::Rope;

/// The states of RFC 9293, with Linux's numbers. (LISTEN is not a connection's.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "RFC 9293, 3.3.2 names them")]
#[repr(u8)]
pub enum State {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

bitflags! {
    /// What a call has brought about, for the layer above to tell.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Effects: u8 {
        /// There is data to receive, or its end.
        const READABLE = 1;
        /// There is room to send.
        const WRITABLE = 2;
        /// It is established.
        const CONNECTED = 4;
        /// It ended by an error.
        const FAILED = 8;
        /// Nothing is left: it can be forgotten.
        const CLOSED = 0x10;
        /// Urgent data is announced.
        const URGENT = 0x20;
        /// Something has become of data that the user wanted to hear of.
        const NOTICE = 0x40;
    }
}

/// Where segments go.
pub type Out<'a> = &'a mut dyn FnMut(Segment);

/// What the user of a connection sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// TCP_CORK.
    pub cork: bool,
    /// SO_KEEPALIVE.
    pub keep_alive: bool,
    /// TCP_KEEPIDLE.
    pub keep_idle: Nanos,
    /// TCP_KEEPINTVL.
    pub keep_interval: Nanos,
    /// TCP_KEEPCNT.
    pub keep_count: u32,
    /// TCP_USER_TIMEOUT; 0 for the system's.
    pub user_timeout: Nanos,
    /// TCP_LINGER2: how long FIN_WAIT2 lasts without a user.
    pub linger2: Nanos,
    /// TCP_MAXSEG; 0 for the path's.
    pub max_segment: u16,
    /// TCP_SYNCNT.
    pub syn_retries: u32,
    /// `tcp_retries2`.
    pub retries: u32,
    /// SO_OOBINLINE.
    pub urgent_inline: bool,
    /// Offer selective acknowledgements (`tcp_sack`).
    pub sack: bool,
    /// Offer timestamps (`tcp_timestamps`).
    pub timestamps: bool,
    /// Offer window scaling (`tcp_window_scaling`), and by how many bits: for the most that the receive buffer grows to.
    pub scaling: bool,
    /// The scale.
    pub scale: u8,
    /// ECN: never, asked for and accepted, accepted (`tcp_ecn`).
    pub ecn: u32,
    /// Repetitions for a connection without a user (`tcp_orphan_retries`).
    pub orphan_retries: u32,
    /// Probe for losses of the last segments (`tcp_early_retrans`).
    pub tail_probes: bool,
    /// Report duplicates (`tcp_dsack`).
    pub duplicate_reports: bool,
    /// Undo time-outs that were spurious (`tcp_frto`).
    pub spurious_timeouts: bool,
    /// Duplicates that show a loss (`tcp_reordering`).
    pub duplicates: u32,
    /// The receive buffer follows what the user takes (`tcp_moderate_rcvbuf`).
    pub follows_reader: bool,
    /// A reset does not end TIME_WAIT (`tcp_rfc1337`).
    pub keeps_time_wait: bool,
    /// Begin with a small window after a pause (`tcp_slow_start_after_idle`).
    pub restart_after_idle: bool,
    /// SO_MAX_PACING_RATE in bytes a second; `u64::MAX` for none.
    pub max_pacing: u64,
    /// TCP_NOTSENT_LOWAT, or `tcp_notsent_lowat`.
    pub unsent_low: usize,
    /// The least, first and largest send buffer (`tcp_wmem`).
    pub send_buffers: [u32; 3],
    /// The same for receiving (`tcp_rmem`).
    pub receive_buffers: [u32; 3],
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            no_delay: false,
            cork: false,
            keep_alive: false,
            keep_idle: 7200 * NANOS_PER_SEC,
            keep_interval: 75 * NANOS_PER_SEC,
            keep_count: 9,
            user_timeout: 0,
            linger2: 60 * NANOS_PER_SEC,
            max_segment: 0,
            syn_retries: 6,
            retries: 15,
            urgent_inline: false,
            sack: true,
            timestamps: true,
            scaling: true,
            scale: SCALE,
            ecn: 2,
            orphan_retries: 8,
            tail_probes: true,
            restart_after_idle: true,
            duplicate_reports: true,
            spurious_timeouts: true,
            duplicates: 3,
            follows_reader: true,
            keeps_time_wait: false,
            max_pacing: u64::MAX,
            unsent_low: u32::MAX as usize,
            send_buffers: SEND_BUFFER,
            receive_buffers: RECEIVE_BUFFER,
        }
    }
}

/// What the path gives a new connection.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The largest segment that fits the interface.
    pub mss: u16,
    /// The interface (or the layer below) cuts large segments by itself.
    pub segmentation: bool,
}

/// What two ends have agreed on in their SYNs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreed {
    /// The peer's maximum segment size.
    pub mss: Option<u16>,
    /// The peer's window scale; `None` for no scaling.
    pub scale: Option<u8>,
    /// SACK.
    pub sack: bool,
    /// The peer's last timestamp; `None` for no timestamps.
    pub timestamp: Option<u32>,
    /// ECN.
    pub ecn: bool,
}

/// Counts for TCP_INFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Bytes that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes sent, repetitions included.
    pub bytes_sent: u64,
    /// Bytes sent again.
    pub bytes_again: u64,
    /// Segments out.
    pub segments_out: u32,
    /// Segments in.
    pub segments_in: u32,
    /// Segments with data out.
    pub data_out: u32,
    /// Segments with data in.
    pub data_in: u32,
    /// Segments delivered.
    pub delivered: u64,
    /// Out of order segments in.
    pub early: u32,
}

/// A connection.
pub struct Connection {
    pub(super) state: State,
    /// What its user has set. After a change call [`Connection::settings_changed`].
    pub settings: Settings,
    pub(super) send: Send,
    pub(super) receive: Receive,
    pub(super) rtt: RoundTrip,
    pub(super) loss: Loss,
    pub(super) window: Window,
    pub(super) algorithm: Box<dyn Algorithm>,
    pub(super) path: Path,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
    pub(super) ecn: Ecn,
    pub(super) fast: Fast,
    /// `None` while nobody has set one.
    pub(super) marks: Option<Box<Marks>>,
    /// The peer's last timestamp, and when it came.
    pub(super) peer_stamp: u32,
    pub(super) peer_stamp_at: Nanos,
    /// Added to our clock, so that it tells strangers nothing.
    pub(super) stamp_offset: u32,
    /// Segments (of the maximum size) under way, lost, and arrived out of order.
    pub(super) flying: u32,
    pub(super) lost: u32,
    pub(super) sacked: u32,
    pub(super) delivered_at: Nanos,
    /// When the newest segment that has been delivered was sent.
    pub(super) first_at: Nanos,
    pub(super) delivery_rate: u64,
    pub(super) round_end: u64,
    pub(super) app_limited: u64,
    pub(super) window_limited: bool,
    pub(super) pace_at: Nanos,
    pub(super) send_timer: Option<(Nanos, SendTimer)>,
    pub(super) keep_timer: Option<Nanos>,
    /// The end of FIN_WAIT2 without a user, or of TIME_WAIT.
    pub(super) end_timer: Option<Nanos>,
    pub(super) probes: u32,
    /// When what is now unanswered was first sent.
    pub(super) stalled_at: Nanos,
    pub(super) last_heard: Nanos,
    pub(super) challenge: (Nanos, u32),
    pub(super) error: Option<Errno>,
    /// The last error that did not end it (an ICMP message).
    pub soft_error: Option<Errno>,
    /// How scarce memory for all connections is.
    pub pressure: Pressure,
    /// The user has closed it.
    pub(super) orphan: bool,
    /// Counts.
    pub counts: Counts,
}

/// There may be very many: this is a size that the heap cuts a page into without loss.
const _: () = assert!(size_of::<Connection>() <= 1024);

/// How long TIME_WAIT lasts.
pub const TIME_WAIT: Nanos = 60 * NANOS_PER_SEC;
/// The window scale that is offered for the usual largest receive buffer.
pub const SCALE: u8 = 7;
/// The first and the largest receive buffer (`net.ipv4.tcp_rmem`).
pub const RECEIVE_BUFFER: [u32; 3] = [4096, 131_072, 6_291_456];
/// The first and the largest send buffer (`net.ipv4.tcp_wmem`).
pub const SEND_BUFFER: [u32; 3] = [4096, 16384, 4_194_304];
/// The largest piece that is handed to a device that segments.
pub(super) const SEGMENT_MAX: usize = 65_483;
/// The least maximum segment size that is used.
pub const MIN_MSS: usize = 48;

impl Connection {
    fn new(path: Path, settings: Settings, algorithm: Box<dyn Algorithm>, iss: Seq, offset: u32) -> Connection {
        let mss = usize::from(path.mss).max(MIN_MSS);
        let mut send = Send::new(iss, mss);
        send.limit = settings.send_buffers[1] as usize;
        let mut receive = Receive::new(path.mss);
        receive.limit = settings.receive_buffers[1] as usize;
        Connection {
            state: State::Closed,
            settings,
            send,
            receive,
            rtt: RoundTrip::new(),
            loss: Loss::new(iss),
            window: Window::new(),
            algorithm,
            path,
            sack: false,
            timestamps: false,
            ecn: Ecn::default(),
            fast: Fast::default(),
            marks: None,
            peer_stamp: 0,
            peer_stamp_at: 0,
            stamp_offset: offset,
            flying: 0,
            lost: 0,
            sacked: 0,
            delivered_at: 0,
            first_at: 0,
            delivery_rate: 0,
            round_end: 0,
            app_limited: 0,
            window_limited: false,
            pace_at: 0,
            send_timer: None,
            keep_timer: None,
            end_timer: None,
            probes: 0,
            stalled_at: 0,
            last_heard: 0,
            challenge: (0, 0),
            error: None,
            soft_error: None,
            pressure: Pressure::None,
            orphan: false,
            counts: Counts::default(),
        }
    }

    /// Opens actively: the SYN goes out. `random` becomes the first sequence number and the offset of the timestamps.
    pub fn connect(
        now: Nanos,
        path: Path,
        settings: Settings,
        algorithm: Box<dyn Algorithm>,
        random: (u32, u32),
        out: Out,
    ) -> Connection {
        Connection::connect_fast(now, path, settings, algorithm, random, (None, Rope::new()), out)
    }

    /// Opens actively with the option for fast opening, and with data if it has a cookie (RFC 7413, 4.1.2).
    pub fn connect_fast(
        now: Nanos,
        path: Path,
        settings: Settings,
        algorithm: Box<dyn Algorithm>,
        random: (u32, u32),
        (option, data): (Option<FastOpen>, Rope),
        out: Out,
    ) -> Connection {
        let iss = Seq(random.0);
        let mut this = Connection::new(path, settings, algorithm, iss, random.1);
        this.state = State::SynSent;
        this.timestamps = this.settings.timestamps;
        this.sack = this.settings.sack;
        this.receive.scale = if this.settings.scaling { this.settings.scale } else { 0 };
        this.apply_max_segment();
        this.stalled_at = now;
        this.delivered_at = now;
        this.last_heard = now;
        this.offer_fast(option, data);
        this.queue_mark(now, Flags::SYN);
        this.transmit(now, 0, out);
        this.arm_retransmit(now);
        this
    }

    /// Opens passively: the peer has answered our SYN-ACK of sequence number `iss` to its SYN of `irs`. The segment that did so is to be passed to
    /// [`Connection::on_segment`] next. `edge` is the window that the SYN-ACK announced.
    #[allow(clippy::too_many_arguments, reason = "each is one fact of the handshake")]
    pub fn accept(
        now: Nanos,
        path: Path,
        settings: Settings,
        algorithm: Box<dyn Algorithm>,
        (iss, irs): (Seq, Seq),
        agreed: Agreed,
        stamp_offset: u32,
        window: usize,
    ) -> Connection {
        let mut this = Connection::new(path, settings, algorithm, iss, stamp_offset);
        this.state = State::SynReceived;
        this.send.nxt = iss + 1;
        this.receive.irs = irs;
        this.receive.nxt = irs + 1;
        this.receive.acked = this.receive.nxt;
        this.receive.edge = this.receive.nxt + window;
        this.send.wl1 = irs;
        this.delivered_at = now;
        this.last_heard = now;
        this.apply_max_segment();
        this.agree(now, agreed);
        this
    }

    /// Takes over what the SYNs agreed on.
    pub(super) fn agree(&mut self, now: Nanos, agreed: Agreed) {
        let peers = usize::from(agreed.mss.unwrap_or(536)).max(MIN_MSS);
        self.send.mss = self.send.mss.min(peers);
        self.timestamps = agreed.timestamp.is_some();
        if let Some(stamp) = agreed.timestamp {
            self.peer_stamp = stamp;
            self.peer_stamp_at = now;
            self.send.mss = self.send.mss.saturating_sub(super::segment::TIMESTAMPS_LEN).max(MIN_MSS - 12);
        }
        self.sack = agreed.sack;
        self.ecn.on = agreed.ecn;
        match agreed.scale {
            Some(scale) => {
                self.send.scale = scale.min(14);
                self.receive.scale = self.settings.scale;
            }
            None => {
                self.send.scale = 0;
                self.receive.scale = 0;
            }
        }
        self.receive.mss = self.send.mss.min(536);
    }

    fn apply_max_segment(&mut self) {
        let max = usize::from(self.settings.max_segment);
        if max != 0 {
            self.send.mss = self.send.mss.min(max);
            self.receive.advertised_mss = self.receive.advertised_mss.min(self.settings.max_segment);
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Our clock for timestamps, in milliseconds.
    pub(super) fn stamp(&self, now: Nanos) -> u32 {
        ((now / MS) as u32).wrapping_add(self.stamp_offset)
    }
}
