//! Options at the level SOL_SOCKET that all sockets have (socket(7)).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::{NANOS_PER_SEC, Nanos, Result};
use fs::async_notify::{self, OwnerCell};
use hal::sync::{Once, SpinLock};

use crate::filter::Filter;
use crate::inet::steering::Steering;
use crate::socket::ControlMessage;

/// Levels of getsockopt(2).
#[allow(missing_docs, reason = "socket(7) names them")]
pub mod level {
    pub const SOL_SOCKET: i32 = 1;
}

/// Options at SOL_SOCKET.
#[allow(missing_docs, reason = "socket(7) documents each")]
pub mod option {
    pub const SO_DEBUG: i32 = 1;
    pub const SO_REUSEADDR: i32 = 2;
    pub const SO_TYPE: i32 = 3;
    pub const SO_ERROR: i32 = 4;
    pub const SO_DONTROUTE: i32 = 5;
    pub const SO_BROADCAST: i32 = 6;
    pub const SO_SNDBUF: i32 = 7;
    pub const SO_RCVBUF: i32 = 8;
    pub const SO_KEEPALIVE: i32 = 9;
    pub const SO_OOBINLINE: i32 = 10;
    pub const SO_PRIORITY: i32 = 12;
    pub const SO_LINGER: i32 = 13;
    pub const SO_REUSEPORT: i32 = 15;
    pub const SO_PASSCRED: i32 = 16;
    pub const SO_PEERCRED: i32 = 17;
    pub const SO_RCVLOWAT: i32 = 18;
    pub const SO_SNDLOWAT: i32 = 19;
    pub const SO_RCVTIMEO: i32 = 20;
    pub const SO_SNDTIMEO: i32 = 21;
    pub const SO_ATTACH_FILTER: i32 = 26;
    pub const SO_DETACH_FILTER: i32 = 27;
    pub const SO_PEERNAME: i32 = 28;
    pub const SO_TIMESTAMP: i32 = 29;
    pub const SO_ACCEPTCONN: i32 = 30;
    pub const SO_MARK: i32 = 36;
    pub const SO_TIMESTAMPING: i32 = 37;
    pub const SO_MAX_PACING_RATE: i32 = 47;
    pub const SO_INCOMING_CPU: i32 = 49;
    pub const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
    pub const SO_DETACH_REUSEPORT_BPF: i32 = 68;
    pub const SO_COOKIE: i32 = 57;
    pub const SO_ZEROCOPY: i32 = 60;
    pub const SO_TXTIME: i32 = 61;
    pub const SO_NETNS_COOKIE: i32 = 71;
    pub const SO_TIMESTAMPNS: i32 = 35;
    pub const SO_SNDBUFFORCE: i32 = 32;
    pub const SO_RCVBUFFORCE: i32 = 33;
    pub const SO_PASSSEC: i32 = 34;
    pub const SO_PROTOCOL: i32 = 38;
    pub const SO_DOMAIN: i32 = 39;
    pub const SO_LOCK_FILTER: i32 = 44;
    pub const SO_PEERGROUPS: i32 = 59;
}

/// Bytes that a socket may have under way at first, to send and received (`net.core.wmem_default`, `rmem_default`).
pub(crate) static BUFFER_DEFAULT: [AtomicU32; 2] = [AtomicU32::new(212_992), AtomicU32::new(212_992)];
/// The least that SO_SNDBUF and SO_RCVBUF set.
const MIN_BUFFER: usize = 4608;
/// The most that SO_SNDBUF and SO_RCVBUF set (`net.core.wmem_max`, `rmem_max`), before doubling.
pub(crate) static BUFFER_MAX: [AtomicU32; 2] = [AtomicU32::new(212_992), AtomicU32::new(212_992)];

/// The values.
pub struct Options {
    /// SO_SNDBUF.
    pub send_buffer: AtomicUsize,
    /// SO_RCVBUF.
    pub receive_buffer: AtomicUsize,
    /// SO_SNDTIMEO in nanoseconds; 0 for none.
    pub send_timeout: AtomicU64,
    /// SO_RCVTIMEO in nanoseconds; 0 for none.
    pub receive_timeout: AtomicU64,
    /// Who gets SIGURG.
    async_owner: Once<OwnerCell>,
    /// SO_PASSCRED.
    pub pass_credentials: AtomicBool,
    /// SO_REUSEADDR, SO_KEEPALIVE and others that only matter to other families, one bit each by number.
    flags: AtomicU64,
    /// SO_RCVLOWAT.
    pub low_water: AtomicI32,
    /// SO_LINGER: on or off, and seconds. Nothing lingers on a unix socket.
    pub linger: [AtomicI32; 2],
    /// SO_MARK.
    pub mark: AtomicI32,
    /// SO_PRIORITY.
    pub priority: AtomicI32,
    fixed: AtomicU64,
    /// SO_TIMESTAMPING: SOF_TIMESTAMPING_*.
    pub timestamping: AtomicU32,
    /// SO_MAX_PACING_RATE: bytes a second; `u64::MAX` for no limit.
    pub max_pacing: AtomicU64,
    /// Calls with MSG_ZEROCOPY so far.
    pub(crate) zero_copies: AtomicU32,
    /// The number of the next message that is stamped.
    pub(crate) sent_number: AtomicU32,
    /// SO_ATTACH_FILTER.
    pub filter: Filter,
    /// What chooses among the sockets that share its port.
    pub(crate) steering: SpinLock<Option<Arc<Steering>>>,
    /// The number of its inode, and who made it: for tables of sockets.
    pub(crate) inode: AtomicU64,
    /// The user who made it.
    pub(crate) owner: AtomicU32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            send_buffer: AtomicUsize::new(BUFFER_DEFAULT[0].load(Ordering::Relaxed) as usize),
            receive_buffer: AtomicUsize::new(BUFFER_DEFAULT[1].load(Ordering::Relaxed) as usize),
            send_timeout: AtomicU64::new(0),
            receive_timeout: AtomicU64::new(0),
            async_owner: Once::new(),
            pass_credentials: AtomicBool::new(false),
            flags: AtomicU64::new(0),
            low_water: AtomicI32::new(1),
            linger: [AtomicI32::new(0), AtomicI32::new(0)],
            mark: AtomicI32::new(0),
            priority: AtomicI32::new(0),
            fixed: AtomicU64::new(0),
            timestamping: AtomicU32::new(0),
            max_pacing: AtomicU64::new(u64::MAX),
            zero_copies: AtomicU32::new(0),
            sent_number: AtomicU32::new(0),
            filter: Filter::default(),
            steering: SpinLock::new(None),
            inode: AtomicU64::new(0),
            owner: AtomicU32::new(0),
        }
    }
}

impl Options {
    /// Bytes that it may have under way.
    pub fn send_limit(&self) -> usize {
        self.send_buffer.load(Ordering::Relaxed)
    }

    /// The end of a wait to send.
    pub(crate) fn send_deadline(&self) -> Option<Nanos> {
        crate::socket::deadline(self.send_timeout.load(Ordering::Relaxed))
    }

    /// The end of a wait to receive.
    pub(crate) fn receive_deadline(&self) -> Option<Nanos> {
        crate::socket::deadline(self.receive_timeout.load(Ordering::Relaxed))
    }

    /// Sets a buffer's size: doubled, as Linux does to make room for its own bookkeeping.
    pub fn set_buffer(&self, receive: bool, bytes: i32, forced: bool) {
        let buffer = if receive { &self.receive_buffer } else { &self.send_buffer };
        let most = BUFFER_MAX[usize::from(receive)].load(Ordering::Relaxed) as usize;
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let bytes = if forced { bytes.min(i32::MAX as usize / 2) } else { bytes.min(most) };
        buffer.store((bytes * 2).max(MIN_BUFFER), Ordering::Relaxed);
    }

    /// Sets both buffers' sizes as a family starts with.
    pub(crate) fn set_sizes(&self, send: usize, receive: usize) {
        self.send_buffer.store(send, Ordering::Relaxed);
        self.receive_buffer.store(receive, Ordering::Relaxed);
    }

    /// The program has set this buffer's size: it no longer follows the need.
    pub(crate) fn fix_size(&self, name: i32) {
        let name = match name {
            option::SO_SNDBUFFORCE => option::SO_SNDBUF,
            option::SO_RCVBUFFORCE => option::SO_RCVBUF,
            name => name,
        };
        self.fixed.fetch_or(1 << name, Ordering::Relaxed);
    }

    /// Has the program set this buffer's size?
    pub(crate) fn is_fixed(&self, name: i32) -> bool {
        self.fixed.load(Ordering::Relaxed) & 1 << name != 0
    }

    /// How long close(2) waits; 0 for a reset, `None` for not at all.
    pub(crate) fn linger_time(&self) -> Option<Nanos> {
        let [on, seconds] = [0, 1].map(|i: usize| self.linger[i].load(Ordering::Relaxed));
        (on != 0).then(|| u64::try_from(seconds).unwrap_or(0).saturating_mul(NANOS_PER_SEC))
    }

    /// Takes over what a listener's connections inherit.
    pub(crate) fn inherit(&self, from: &Options) {
        let copy = |to: &AtomicU64, from: &AtomicU64| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        copy(&self.flags, &from.flags);
        copy(&self.fixed, &from.fixed);
        copy(&self.max_pacing, &from.max_pacing);
        self.filter.inherit(&from.filter);
        copy(&self.send_timeout, &from.send_timeout);
        copy(&self.receive_timeout, &from.receive_timeout);
        self.set_sizes(from.send_buffer.load(Ordering::Relaxed), from.receive_buffer.load(Ordering::Relaxed));
        for (to, from) in self.linger.iter().zip(&from.linger) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.low_water.store(from.low_water.load(Ordering::Relaxed), Ordering::Relaxed);
        self.mark.store(from.mark.load(Ordering::Relaxed), Ordering::Relaxed);
        self.priority.store(from.priority.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// SO_TIMESTAMPING. `EINVAL`.
    pub fn set_timestamping(&self, flags: u32) -> Result<()> {
        const OPT_ID: u32 = 0x80;
        let flags = crate::inet::errors::check_flags(flags)?;
        if flags & OPT_ID != 0 && self.timestamping.load(Ordering::Relaxed) & OPT_ID == 0 {
            self.sent_number.store(0, Ordering::Relaxed);
        }
        self.timestamping.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// A number that stands for the socket for as long as the machine runs (SO_COOKIE).
    pub fn cookie(&self) -> u64 {
        self.inode.load(Ordering::Relaxed) | 1 << 63
    }

    /// Its file has an owner.
    pub(crate) fn set_async_owner(&self, owner: &OwnerCell) {
        let _ = self.async_owner.set(owner.clone());
    }

    /// Urgent data came.
    pub(crate) fn tell_urgent(&self) {
        if let Some(owner) = self.async_owner.get() {
            async_notify::urgent(owner);
        }
    }

    /// A flag that is only kept.
    pub fn flag(&self, option: i32) -> bool {
        self.flags.load(Ordering::Relaxed) & (1 << (option & 63)) != 0
    }

    /// Sets a flag that is only kept.
    pub fn set_flag(&self, option: i32, on: bool) {
        let bit = 1 << (option & 63);
        if on {
            self.flags.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

/// Adds the time a message was received, if the program asked for it (SO_TIMESTAMP, SO_TIMESTAMPNS).
pub(crate) fn stamp(options: &Options, received: Nanos, messages: &mut Vec<ControlMessage>) {
    for (name, unit) in [(option::SO_TIMESTAMP, 1000), (option::SO_TIMESTAMPNS, 1)] {
        if options.flag(name) {
            let mut data = (received / NANOS_PER_SEC).to_ne_bytes().to_vec();
            data.extend_from_slice(&(received % NANOS_PER_SEC / unit).to_ne_bytes());
            messages.push(ControlMessage { level: level::SOL_SOCKET, kind: name, data });
        }
    }
}
