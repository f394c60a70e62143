//! The error queue (IP_RECVERR, IPV6_RECVERR, SO_TIMESTAMPING): what became of messages that were sent, with the messages themselves.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::Ordering;

use base::{Errno, Events, NANOS_PER_SEC, Nanos, Result};
use mm::Sink;

use super::address::{Endpoint, Family};
use super::datagram::DatagramSocket;
use super::options::{SOL_IP, SOL_IPV6};
use crate::ip::icmp::Report;
use crate::options::{Options, level, option};
use crate::packet::{Packet, Rope};
use crate::socket::{ControlMessage, MessageFlags, Received};
use crate::tcp::mark::Wish;

/// SO_EE_ORIGIN_*: who found the error.
const LOCAL: u8 = 1;
const ICMP: u8 = 2;
const ICMP6: u8 = 3;
const TIMESTAMPING: u8 = 4;
const ZEROCOPY: u8 = 5;
/// SO_EE_CODE_ZEROCOPY_COPIED: the data was copied after all.
const COPIED: u8 = 1;

/// SOF_TIMESTAMPING_*.
const TX_SOFTWARE: u32 = 2;
const RX_SOFTWARE: u32 = 8;
const SOFTWARE: u32 = 0x10;
const OPT_ID: u32 = 0x80;
const TX_SCHED: u32 = 0x100;
const OPT_TSONLY: u32 = 0x800;
const TX_ACKNOWLEDGED: u32 = 0x200;
/// The flags that concern data sent by TCP, and of them those about sending and about acknowledgements.
pub(crate) const TCP_STAMPS: u32 = STAMPS_SENT | STAMPS_ACKNOWLEDGED;
pub(crate) const STAMPS_SENT: u32 = TX_SOFTWARE | TX_SCHED;
pub(crate) const STAMPS_ACKNOWLEDGED: u32 = TX_ACKNOWLEDGED;
/// The bits that there are.
const KNOWN: u32 = 0xffff;

/// One message of the queue.
#[derive(Clone)]
pub(crate) struct Failure {
    errno: Option<Errno>,
    origin: u8,
    kind: u8,
    code: u8,
    /// The MTU, or which timestamp.
    info: u32,
    /// The number of the message (SOF_TIMESTAMPING_OPT_ID).
    number: u32,
    offender: Option<IpAddr>,
    /// Where the message was to go.
    to: Option<Endpoint>,
    payload: Rope,
    /// When it was sent, for a timestamp.
    stamp: Option<Nanos>,
}

impl Failure {
    fn nothing() -> Failure {
        Failure {
            errno: None,
            origin: 0,
            kind: 0,
            code: 0,
            info: 0,
            number: 0,
            offender: None,
            to: None,
            payload: Rope::new(),
            stamp: None,
        }
    }

    /// A timestamp of now, without the data.
    fn stamp(info: u32, flags: u32, number: u32) -> Failure {
        Failure {
            errno: Some(Errno::ENOMSG),
            origin: TIMESTAMPING,
            info,
            number: if flags & OPT_ID != 0 { number } else { 0 },
            stamp: Some(sched::time::realtime()),
            ..Failure::nothing()
        }
    }

    /// Stores it where recvmsg(2) with MSG_ERRQUEUE wants it.
    pub(crate) fn give(&self, options: &Options, family: Family, sink: &mut Sink) -> Result<Received> {
        let whole = self.payload.len();
        let stored = if whole == 0 || sink.remaining() == 0 { 0 } else { self.payload.put(sink)? };
        let mut received = Received { len: stored, flags: MessageFlags::ERRQUEUE, ..Received::default() };
        if stored < whole {
            received.flags |= MessageFlags::TRUNC;
        }
        if let Some(to) = self.to.filter(|_| self.stamp.is_none()) {
            received.from = to.encode(family);
        }
        if let Some(at) = self.stamp.filter(|_| options.timestamping.load(Ordering::Relaxed) & SOFTWARE != 0) {
            received.control.messages.push(timestamps(at));
        }
        received.control.messages.push(describe(self, family));
        Ok(received)
    }

    /// What it counts against the buffer.
    fn cost(&self) -> usize {
        const OVERHEAD: usize = 512;
        self.payload.true_size() + OVERHEAD
    }
}

/// What waits.
#[derive(Default)]
pub(crate) struct ErrorQueue {
    failures: VecDeque<Failure>,
    bytes: usize,
}

impl ErrorQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }

    fn push(&mut self, failure: Failure, limit: usize) -> bool {
        let cost = failure.cost();
        if self.bytes + cost > limit || self.failures.try_reserve(1).is_err() {
            return false;
        }
        self.bytes += cost;
        self.failures.push_back(failure);
        true
    }

    /// The oldest message.
    pub(crate) fn pop(&mut self) -> Option<Failure> {
        let failure = self.failures.pop_front()?;
        self.bytes -= failure.cost();
        Some(failure)
    }

    /// Something has become of data that was sent.
    pub(crate) fn note(&mut self, wish: &Wish, options: &Options) {
        const SENT: u32 = 0;
        const SCHEDULED: u32 = 1;
        const ACKNOWLEDGED: u32 = 2;
        let flags = options.timestamping.load(Ordering::Relaxed);
        let limit = options.receive_buffer.load(Ordering::Relaxed);
        match *wish {
            Wish::Released(number) => self.release(number, limit),
            Wish::Sent(number) => {
                for (bit, info) in [(TX_SCHED, SCHEDULED), (TX_SOFTWARE, SENT)] {
                    if flags & bit != 0 {
                        self.push(Failure::stamp(info, flags, number), limit);
                    }
                }
            }
            Wish::Acknowledged(number) => {
                self.push(Failure::stamp(ACKNOWLEDGED, flags, number), limit);
            }
        }
    }

    /// The memory of a call with MSG_ZEROCOPY is free: calls in a row are told of together.
    pub(crate) fn release(&mut self, number: u32, limit: usize) {
        if let Some(last) = self.failures.back_mut().filter(|last| last.origin == ZEROCOPY)
            && last.number.wrapping_add(1) == number
        {
            last.number = number;
            return;
        }
        let told = Failure { origin: ZEROCOPY, code: COPIED, info: number, number, ..Failure::nothing() };
        self.push(told, limit);
    }

    /// The error that the next message is about, if a router told it.
    fn next_error(&self) -> Option<Errno> {
        self.failures.front().filter(|next| matches!(next.origin, ICMP | ICMP6)).and_then(|next| next.errno)
    }
}

impl DatagramSocket {
    fn wants_errors(&self) -> bool {
        let settings = self.settings.lock();
        settings.receive_errors || settings.receive_errors6
    }

    fn queue_failure(&self, failure: Failure) {
        let limit = self.options.receive_buffer.load(Ordering::Relaxed);
        self.failures.lock().push(failure, limit);
        self.news.wake_for(Events::ERR, usize::MAX);
    }

    /// An error message about one of its messages, which went to `to`; `quoted` is what it carried.
    pub(super) fn on_failure(&self, report: &Report, to: Endpoint, hard: bool, quoted: Option<&Packet>) {
        if self.wants_errors() {
            let payload = quoted.and_then(|packet| alloc::boxed::Box::new(packet.clone()).into_rope().ok());
            self.queue_failure(Failure {
                errno: Some(report.errno),
                origin: if report.from.is_ipv4() { ICMP } else { ICMP6 },
                kind: report.kind,
                code: report.code,
                info: if report.errno == Errno::EMSGSIZE { report.mtu } else { 0 },
                number: 0,
                offender: Some(report.from),
                to: Some(to),
                payload: payload.unwrap_or_default(),
                stamp: None,
            });
        }
        self.report_error(report.errno, hard);
    }

    /// A message is too large for its way: known before it left.
    pub(super) fn on_too_large(&self, to: Endpoint, mtu: usize) {
        if self.wants_errors() {
            self.queue_failure(Failure {
                errno: Some(Errno::EMSGSIZE),
                origin: LOCAL,
                kind: 0,
                code: 0,
                info: mtu as u32,
                number: 0,
                offender: None,
                to: Some(to),
                payload: Rope::new(),
                stamp: None,
            });
        }
    }

    /// A message has left: its time goes to the queue, if the program asked for it.
    pub(super) fn on_sent(&self, to: Endpoint, data: &Rope) {
        let flags = self.options.timestamping.load(Ordering::Relaxed);
        if flags & (TX_SOFTWARE | TX_SCHED) == 0 {
            return;
        }
        let number = if flags & OPT_ID != 0 { self.options.sent_number.fetch_add(1, Ordering::Relaxed) } else { 0 };
        const SENT: u32 = 0;
        const SCHEDULED: u32 = 1;
        for (bit, info) in [(TX_SCHED, SCHEDULED), (TX_SOFTWARE, SENT)] {
            if flags & bit != 0 {
                self.queue_failure(Failure {
                    errno: Some(Errno::ENOMSG),
                    origin: TIMESTAMPING,
                    kind: 0,
                    code: 0,
                    info,
                    number,
                    offender: None,
                    to: Some(to),
                    payload: if flags & OPT_TSONLY != 0 { Rope::new() } else { data.clone() },
                    stamp: Some(sched::time::realtime()),
                });
            }
        }
    }

    /// recvmsg(2) with MSG_ERRQUEUE. `EAGAIN`.
    pub(super) fn receive_failure(&self, sink: &mut Sink) -> Result<Received> {
        let (failure, next) = {
            let mut queue = self.failures.lock();
            (queue.pop().ok_or(Errno::EAGAIN)?, queue.next_error())
        };
        if matches!(failure.origin, ICMP | ICMP6) {
            // The pending error follows the queue.
            self.state.lock().error = next;
        }
        failure.give(&self.options, self.family, sink)
    }
}

/// SCM_TIMESTAMPING: three times, of which only software's is there.
fn timestamps(at: Nanos) -> ControlMessage {
    let words = [at / NANOS_PER_SEC, at % NANOS_PER_SEC, 0, 0, 0, 0];
    let data = words.map(u64::to_ne_bytes).concat();
    ControlMessage { level: level::SOL_SOCKET, kind: option::SO_TIMESTAMPING, data }
}

/// `struct sock_extended_err` and the offender's address.
fn describe(failure: &Failure, family: Family) -> ControlMessage {
    const IP_RECVERR: i32 = 11;
    const IPV6_RECVERR: i32 = 25;
    let mut data = failure.errno.map_or(0, Errno::code).to_ne_bytes().to_vec();
    data.extend_from_slice(&[failure.origin, failure.kind, failure.code, 0]);
    data.extend_from_slice(&failure.info.to_ne_bytes());
    data.extend_from_slice(&failure.number.to_ne_bytes());
    let mut address: Vec<u8> = match failure.offender {
        Some(offender) => Endpoint::new(offender, 0).encode(family),
        None => Vec::new(),
    };
    address.resize(if family == Family::V4 { 16 } else { 28 }, 0);
    data.extend_from_slice(&address);
    match family {
        Family::V4 => ControlMessage { level: SOL_IP, kind: IP_RECVERR, data },
        Family::V6 => ControlMessage { level: SOL_IPV6, kind: IPV6_RECVERR, data },
    }
}

/// SO_TIMESTAMPING's flags. `EINVAL` for bits that are not there.
pub(crate) fn check_flags(flags: u32) -> Result<u32> {
    if flags & !KNOWN != 0 { Err(Errno::EINVAL) } else { Ok(flags) }
}

/// Adds the time that a message was received, if the program asked for it by SO_TIMESTAMPING.
pub(super) fn stamp(flags: u32, received: Nanos, messages: &mut Vec<ControlMessage>) {
    if flags & (RX_SOFTWARE | SOFTWARE) == RX_SOFTWARE | SOFTWARE {
        messages.push(timestamps(received));
    }
}

/// The endpoint that a quoted message went to.
pub(super) fn endpoint(ip: IpAddr, port: u16, interface: u32) -> Endpoint {
    let local = matches!(ip, IpAddr::V6(v6) if Ipv6Addr::is_unicast_link_local(&v6));
    Endpoint { ip, port, scope: if local { interface } else { 0 } }
}
