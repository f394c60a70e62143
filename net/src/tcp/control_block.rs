//! The transmission control block (RFC 9293, 3.3.1): the variables of the sending side, the receiving side, and loss recovery.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::Nanos;

use super::connection::{RECEIVE_BUFFER, SEND_BUFFER};
use super::patience::Patience;
use super::segment::{Block, Flags};
use super::seq::Seq;
use crate::packet::Rope;

/// Where a segment that was sent is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flight {
    /// Under way.
    Flying,
    /// The peer has it, out of order.
    Sacked,
    /// Lost, to be sent again.
    Lost,
}

/// A segment that was sent and is not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) seq: Seq,
    pub(super) payload: Rope,
    /// SYN or FIN, PSH.
    pub(super) flags: Flags,
    pub(super) sent_at: Nanos,
    pub(super) again: bool,
    pub(super) flight: Flight,
    /// Segments delivered, and when, as it was sent: for the delivery rate.
    pub(super) delivered: u64,
    pub(super) delivered_at: Nanos,
    /// When the segment was sent that was the last to be delivered then.
    pub(super) first_at: Nanos,
    pub(super) app_limited: bool,
}

impl Sent {
    pub(super) fn span(&self) -> usize {
        self.payload.len() + (self.flags & (Flags::SYN | Flags::FIN)).bits().count_ones() as usize
    }

    pub(super) fn end(&self) -> Seq {
        self.seq + self.span()
    }
}

/// The sending side.
pub(super) struct Send {
    pub(super) una: Seq,
    pub(super) nxt: Seq,
    pub(super) iss: Seq,
    /// The peer's window in bytes.
    pub(super) window: usize,
    pub(super) max_window: usize,
    /// The segment that set the window last.
    pub(super) wl1: Seq,
    pub(super) wl2: Seq,
    pub(super) scale: u8,
    pub(super) mss: usize,
    pub(super) unsent: Rope,
    /// SYN or FIN is still to be sent after `unsent`.
    pub(super) fin: bool,
    pub(super) fin_sent: bool,
    pub(super) queue: VecDeque<Sent>,
    /// The end of the last segment that was short of a full one.
    pub(super) small: Seq,
    /// One past the urgent byte.
    pub(super) urgent: Option<Seq>,
    /// Bytes that may wait here.
    pub(super) limit: usize,
    /// The user has fixed `limit`.
    pub(super) fixed: bool,
    /// The user wanted to send more than that: tell it when there is room.
    pub(super) wanted: bool,
    /// More is to come (MSG_MORE).
    pub(super) more: bool,
    pub(super) last_data_at: Nanos,
}

/// The receiving side.
pub(super) struct Receive {
    pub(super) nxt: Seq,
    pub(super) irs: Seq,
    /// The right edge of the window as last announced.
    pub(super) edge: Seq,
    /// `nxt` as last acknowledged.
    pub(super) acked: Seq,
    pub(super) scale: u8,
    pub(super) queue: Rope,
    /// Out of order: by sequence number, not overlapping.
    pub(super) early: Vec<(Seq, Rope, bool)>,
    pub(super) early_bytes: usize,
    /// The ranges to report, the latest first.
    pub(super) blocks: Vec<Block>,
    /// A duplicate to report (RFC 2883).
    pub(super) duplicate: Option<Block>,
    pub(super) fin: bool,
    /// Bytes that may wait here, bookkeeping included.
    pub(super) limit: usize,
    /// The user has fixed `limit`.
    pub(super) fixed: bool,
    pub(super) copied_in_round: usize,
    pub(super) round_at: Nanos,
    /// The round trip as the receiver sees it: the least of late; 0 if unknown.
    pub(super) rtt: Nanos,
    /// The largest segment seen lately.
    pub(super) mss: usize,
    pub(super) advertised_mss: u16,
    /// Acknowledgements to send at once.
    pub(super) quick: u32,
    /// Data flows both ways: acknowledgements wait to ride along.
    pub(super) interactive: bool,
    pub(super) ack_at: Option<Nanos>,
    pub(super) last_data_at: Nanos,
    /// One past the urgent byte.
    pub(super) urgent: Option<Seq>,
    pub(super) urgent_byte: Option<u8>,
    /// The user takes nothing more.
    pub(super) shut: bool,
}

/// Loss recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recovery {
    /// Nothing is missing.
    Open,
    /// The peer tells of congestion: the window shrinks, and nothing is missing.
    Reduce,
    /// A loss is being repaired.
    Repair,
    /// A time-out has happened.
    Timeout,
}

/// What a recovery that was in vain is undone to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    pub(super) window: u32,
    pub(super) threshold: u32,
    /// The timestamp of the first retransmission.
    pub(super) stamp: u32,
}

pub(super) struct Loss {
    pub(super) state: Recovery,
    /// Recovery ends when this is acknowledged.
    pub(super) high: Seq,
    pub(super) undo: Option<Undo>,
    pub(super) duplicates: u32,
    /// Proportional rate reduction (RFC 6937): segments delivered and sent since it began, and how many were under way then.
    pub(super) delivered: u32,
    pub(super) sent: u32,
    pub(super) flight_at_start: u32,
    /// RACK: when the last delivered segment was sent, where it ended, its round trip.
    pub(super) rack_at: Nanos,
    pub(super) rack_end: Seq,
    pub(super) rack_rtt: Nanos,
    /// Reordering was seen.
    pub(super) reordered: bool,
    pub(super) highest_sacked: Seq,
    pub(super) reorder_timer: Option<Nanos>,
    /// A tail loss probe went out for the data up to here.
    pub(super) probed: Option<Seq>,
    pub(super) retransmitted: u64,
    pub(super) timeouts: u32,
    pub(super) patience: Patience,
}

/// What the timer of the sending side is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SendTimer {
    /// Retransmission.
    Retransmit,
    /// A tail loss probe (RFC 8985, 7).
    Probe,
    /// A probe of a closed window, or a corked segment whose time is up.
    Persist,
}

impl Send {
    /// The sending side from a first sequence number on.
    pub(super) fn new(iss: Seq, mss: usize) -> Send {
        Send {
            una: iss,
            nxt: iss,
            iss,
            window: 0,
            max_window: 0,
            wl1: Seq(0),
            wl2: Seq(0),
            scale: 0,
            mss,
            unsent: Rope::new(),
            fin: false,
            fin_sent: false,
            queue: VecDeque::new(),
            small: iss,
            urgent: None,
            limit: SEND_BUFFER[1] as usize,
            fixed: false,
            wanted: false,
            more: false,
            last_data_at: 0,
        }
    }
}

impl Receive {
    /// The receiving side before anything has come.
    pub(super) fn new(advertised_mss: u16) -> Receive {
        Receive {
            nxt: Seq(0),
            irs: Seq(0),
            edge: Seq(0),
            acked: Seq(0),
            scale: 0,
            queue: Rope::new(),
            early: Vec::new(),
            early_bytes: 0,
            blocks: Vec::new(),
            duplicate: None,
            fin: false,
            limit: RECEIVE_BUFFER[1] as usize,
            fixed: false,
            copied_in_round: 0,
            round_at: 0,
            rtt: 0,
            mss: 536,
            advertised_mss,
            quick: 16,
            interactive: false,
            ack_at: None,
            last_data_at: 0,
            urgent: None,
            urgent_byte: None,
            shut: false,
        }
    }
}

impl Loss {
    /// Nothing is lost yet.
    pub(super) fn new(iss: Seq) -> Loss {
        Loss {
            state: Recovery::Open,
            high: iss,
            undo: None,
            patience: Patience::default(),
            duplicates: 0,
            delivered: 0,
            sent: 0,
            flight_at_start: 0,
            rack_at: 0,
            rack_end: iss,
            rack_rtt: 0,
            reordered: false,
            highest_sacked: iss,
            reorder_timer: None,
            probed: None,
            retransmitted: 0,
            timeouts: 0,
        }
    }
}
