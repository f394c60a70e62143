//! Fast opening (RFC 7413): data with the SYN for who has shown a cookie before. The client remembers cookies, the server makes them from the addresses
//! and a key.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use alloc::vec::Vec;
use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;

use super::connection::{Connection, Effects, Out};
use super::segment::{Cookie, FastOpen, Flags, Segment};
use super::seq::Seq;
use crate::hash::{BuildKeyed, Table, siphash24};
use crate::packet::Rope;

/// Bits of `net.ipv4.tcp_fastopen`.
pub(crate) mod mode {
    /// Clients may.
    pub(crate) const CLIENT: u32 = 1;
    /// Servers may.
    pub(crate) const SERVER: u32 = 2;
    /// Clients send data without a cookie.
    pub(crate) const CLIENT_WITHOUT_COOKIE: u32 = 4;
    /// Servers take data without a cookie.
    pub(crate) const SERVER_WITHOUT_COOKIE: u32 = 0x200;
    /// All listeners do, even if they did not ask for it.
    pub(crate) const ALL_LISTENERS: u32 = 0x400;
}

/// `net.ipv4.tcp_fastopen`.
pub(crate) static MODE: AtomicU32 = AtomicU32::new(mode::CLIENT);

/// Is it allowed?
pub(super) fn allows(bits: u32) -> bool {
    MODE.load(Ordering::Relaxed) & bits == bits
}

/// The key of one machine, or of one listener: the current one, and the one before.
pub(crate) type Keys = ([u32; 4], Option<[u32; 4]>);

static KEYS: SpinLock<Option<Keys>> = SpinLock::new(None);

/// The machine's keys, drawn when they are first needed.
pub(crate) fn keys() -> Keys {
    let draw = || {
        let words = [hal::random::word(), hal::random::word()];
        ([words[0] as u32, (words[0] >> 32) as u32, words[1] as u32, (words[1] >> 32) as u32], None)
    };
    *KEYS.lock().get_or_insert_with(draw)
}

/// Sets the machine's keys.
pub(crate) fn set_keys(keys: Keys) {
    *KEYS.lock() = Some(keys);
}

/// Keys as bytes of TCP_FASTOPEN_KEY: one of 16 bytes, or two. `EINVAL`.
pub(super) fn parse_keys(bytes: &[u8]) -> Result<Keys> {
    let key = |bytes: &[u8]| -> [u32; 4] {
        [0, 4, 8, 12].map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    };
    match bytes.len() {
        16 => Ok((key(bytes), None)),
        32 => Ok((key(bytes), Some(key(&bytes[16..])))),
        _ => Err(Errno::EINVAL),
    }
}

/// The bytes of keys.
pub(super) fn key_bytes(keys: Keys) -> Vec<u8> {
    [Some(keys.0), keys.1].into_iter().flatten().flatten().flat_map(u32::to_le_bytes).collect()
}

/// The cookie that a server has for a client.
fn cookie_for(key: [u32; 4], client: IpAddr, server: IpAddr) -> Cookie {
    let mut bytes = crate::netlink::octets(client);
    bytes.extend(crate::netlink::octets(server));
    let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let value = siphash24([wide(key[0], key[1]), wide(key[2], key[3])], &bytes);
    value.to_le_bytes().into_iter().collect()
}

/// What a server does with a SYN.
pub(super) enum Verdict {
    /// Open as usual, and answer with this option.
    Usual(Option<FastOpen>),
    /// Open at once, and answer with this option.
    Fast(Option<FastOpen>),
}

/// Judges a SYN to a server that allows fast opening, from and to these addresses.
pub(super) fn judge(keys: Keys, syn: &Segment, client: IpAddr, server: IpAddr) -> Verdict {
    let has_data = !syn.payload.is_empty();
    if allows(mode::SERVER_WITHOUT_COOKIE) && (has_data || syn.options.fast_open.is_some()) {
        return Verdict::Fast(None);
    }
    let Some(offered) = &syn.options.fast_open else { return Verdict::Usual(None) };
    let experimental = offered.experimental;
    let fresh = FastOpen { cookie: cookie_for(keys.0, client, server), experimental };
    if offered.cookie == fresh.cookie {
        return Verdict::Fast(None);
    }
    // A cookie of the key before is good, and its owner gets a new one.
    let old = keys.1.is_some_and(|key| cookie_for(key, client, server) == offered.cookie);
    if old { Verdict::Fast(Some(fresh)) } else { Verdict::Usual(Some(fresh)) }
}

/// What a client knows of a server.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The cookie it gave.
    pub(crate) option: FastOpen,
    /// Its maximum segment size.
    pub(crate) mss: u16,
}

/// Servers that are remembered.
const KNOWN_MAX: usize = 1024;

static KNOWN: SpinLock<Table<(IpAddr, IpAddr), Known>> = SpinLock::new(Table::with_hasher(BuildKeyed));

/// What is known of a server, seen from a local address.
pub(super) fn known(local: IpAddr, server: IpAddr) -> Option<Known> {
    KNOWN.lock().get(&(local, server)).cloned()
}

/// A server gave a cookie.
pub(super) fn remember(local: IpAddr, server: IpAddr, known: Known) {
    let mut all = KNOWN.lock();
    if all.len() >= KNOWN_MAX && !all.contains_key(&(local, server)) {
        let other = all.keys().next().copied();
        other.map(|key| all.remove(&key));
    }
    all.insert((local, server), known);
}

/// All servers that are known: `ip tcp_metrics`.
pub(crate) fn all_known() -> Vec<((IpAddr, IpAddr), Known)> {
    KNOWN.lock().iter().map(|(key, known)| (*key, known.clone())).collect()
}

/// Forgets one server, or all.
pub(crate) fn forget(server: Option<IpAddr>) {
    KNOWN.lock().retain(|(_, other), _| server.is_some_and(|server| server != *other));
}

/// Fast opening of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Fast {
    /// The option for the next SYN; it is not repeated.
    pub(super) option: Option<FastOpen>,
    /// The option was sent.
    pub(super) asked: bool,
    /// Bytes that went with the SYN.
    pub(super) with_syn: usize,
    /// Data with the SYN was acknowledged by the answer to it.
    pub(super) acknowledged: bool,
    /// The user may send before the opening is over: the peer has shown its cookie.
    pub(super) passive: bool,
    /// The cookie that the peer gave, and its segment size.
    pub(super) received: Option<Known>,
}

impl Connection {
    /// What goes with the SYN: as much data as fits with all options, if there is a cookie for it.
    pub(super) fn offer_fast(&mut self, option: Option<FastOpen>, data: Rope) {
        const OPTIONS: usize = 40;
        self.fast.asked = option.is_some();
        let may = option.is_some() && !data.is_empty();
        self.fast.with_syn = if may { data.len().min(self.send.mss.saturating_sub(OPTIONS)) } else { 0 };
        // An option without a cookie goes with data only where none is needed: then it is not sent either.
        let needless = self.fast.with_syn > 0 && option.as_ref().is_some_and(|option| option.cookie.is_empty());
        self.fast.option = option.filter(|_| !needless);
        self.send.unsent = data;
    }

    /// Bytes that went with the SYN.
    pub fn sent_with_syn(&self) -> usize {
        self.fast.with_syn
    }

    /// The answer to our SYN has come: what it acknowledges of the data, and the cookie that it may bring.
    pub(super) fn take_fast_answer(&mut self, segment: &Segment) {
        if let Some(option) = segment.options.fast_open.clone().filter(|option| !option.cookie.is_empty())
            && self.fast.asked
        {
            let mss = segment.options.mss.unwrap_or(536);
            self.fast.received = Some(Known { option, mss });
        }
        let taken = if segment.ack.after(self.send.nxt) { segment.ack.since(self.send.nxt) } else { 0 };
        if taken > 0 {
            self.send.unsent.advance(taken);
            self.send.nxt += taken;
            self.counts.data_out += 1;
            self.fast.acknowledged = taken == self.fast.with_syn;
        }
        self.fast.with_syn = 0;
    }

    /// Opens passively with what a SYN carries: its data can be received, and the answer to it can be, too.
    pub(super) fn open_fast(&mut self, now: Nanos, syn: &Segment, option: Option<FastOpen>, out: Out) -> Effects {
        self.fast.passive = true;
        self.fast.option = option;
        self.send.nxt = self.send.iss;
        self.send.una = self.send.iss;
        self.send.window = syn.window.into();
        self.send.max_window = self.send.window;
        let mut effects = Effects::empty();
        if !syn.payload.is_empty() {
            self.counts.data_in += 1;
            self.take_syn_data(syn.payload.clone(), &mut effects);
            self.fast.acknowledged = true;
        }
        self.queue_mark(now, Flags::SYN);
        self.transmit(now, 0, out);
        self.arm_retransmit(now);
        effects
    }

    /// The highest acknowledgement that the answer to our SYN can have.
    pub(super) fn most_acknowledged(&self) -> Seq {
        self.send.nxt + self.fast.with_syn
    }

    /// The cookie that the peer gave with the opening.
    pub(crate) fn take_cookie(&mut self) -> Option<Known> {
        self.fast.received.take()
    }

    /// Is it being opened, so that nothing can be sent yet?
    pub fn awaits_peer(&self) -> bool {
        self.is_opening() && !self.fast.passive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_those_that_other_machines_make_with_the_key() {
        // SipHash-2-4's own test vector: the key 00..0f, the bytes 00..0e.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(siphash24(key, &bytes), 0xa129_ca61_49be_45e5);
        // As Linux has it for this key, client and server.
        let key = [0xa1a1_a1a1, 0xb2b2_b2b2, 0xc3c3_c3c3, 0xd4d4_d4d4];
        let cookie = cookie_for(key, [192, 0, 2, 1].into(), [192, 168, 0, 1].into());
        assert_eq!(cookie[..], [0x30, 0x21, 0xb9, 0xd8, 0x89, 0x01, 0x7e, 0xeb]);
    }

    #[test]
    fn keys_come_back() {
        let bytes: Vec<u8> = (0..32).collect();
        for len in [16, 32] {
            assert_eq!(key_bytes(parse_keys(&bytes[..len]).unwrap()), bytes[..len]);
        }
        assert_eq!(parse_keys(&bytes[..15]), Err(Errno::EINVAL));
    }
}
