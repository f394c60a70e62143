//! Passive opening: the SYN queue (requests), the accept queue, and what happens when either is full (listen(2), tcp(7)).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{NANOS_PER_SEC, Nanos};
use hal::sync::SpinLock;

use super::connection::{Agreed, Connection, Effects, Path as Limits, State};
use super::fast_open::Verdict;
use super::link::{Link, answer, refuse};
use super::segment::{FastOpen, Flags, Options, Segment};
use super::seq::Seq;
use super::socket::TcpSocket;
use super::sysctl;
use super::table::{self, End, Entry, Key};
use super::{congestion, cookie};
use crate::alarm::{Alarm, Rings};
use crate::hash;
use crate::inet::Endpoint;
use crate::ip::Header;
use crate::netlink::diag::inet::{Facts, facts};
use crate::route;
use crate::statistics::{self, Counter};

/// SYN cookies: never, when the SYN queue is full, always (`net.ipv4.tcp_syncookies`).
pub(crate) static SYN_COOKIES: AtomicU32 = AtomicU32::new(1);
/// Repetitions of a SYN-ACK (`net.ipv4.tcp_synack_retries`).
pub(crate) static SYNACK_RETRIES: AtomicU32 = AtomicU32::new(5);
/// The most requests of a listener (`net.ipv4.tcp_max_syn_backlog`).
pub(crate) static SYN_BACKLOG: AtomicU32 = AtomicU32::new(1024);

/// The queues of a listening socket.
pub(super) struct Listener {
    /// Connections that accept(2) gives.
    pub(super) waiting: VecDeque<Arc<TcpSocket>>,
    /// How many may wait.
    pub(super) backlog: usize,
    /// How many are half open.
    pub(super) requests: usize,
    /// How many were opened fast and are not confirmed yet.
    pub(super) unconfirmed: usize,
}

impl Listener {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() > self.backlog
    }
}

struct Progress {
    /// It was answered without data, which TCP_DEFER_ACCEPT waits for.
    answered: bool,
    repeated: u32,
    due: Nanos,
}

/// A connection that is half open: our SYN-ACK is not acknowledged yet.
pub(crate) struct Request {
    listener: Arc<TcpSocket>,
    local: Endpoint,
    remote: Endpoint,
    iss: Seq,
    irs: Seq,
    agreed: Agreed,
    limits: Limits,
    stamp_offset: u32,
    progress: SpinLock<Progress>,
    alarm: Alarm,
    /// The cookie that the peer has asked for.
    fast_open: Option<FastOpen>,
}

/// The flags by which a SYN asks for ECN.
const ECN_OFFER: Flags = Flags::ECE.union(Flags::CWR);
/// The window of a SYN-ACK.
const WINDOW: u16 = 65535;

/// The first sequence number of a connection (RFC 6528).
pub(super) fn initial_sequence(now: Nanos, local: End, remote: End) -> Seq {
    Seq((hash::of_pair(local, remote, 4) as u32).wrapping_add((now >> 6) as u32))
}

/// What is added to the timestamps towards a peer.
pub(super) fn stamp_offset(local: End, remote: End) -> u32 {
    hash::of_pair((local.0, 0), (remote.0, 0), 5) as u32
}

fn clock(now: Nanos, offset: u32) -> u32 {
    ((now / super::rtt::MS) as u32).wrapping_add(offset)
}

impl Request {
    fn key(&self) -> Key {
        ((self.local.ip, self.local.port), (self.remote.ip, self.remote.port))
    }

    fn link(&self) -> Link {
        let (ttl, tos) = self.listener.header_fields(self.remote.ip);
        Link {
            local: self.local,
            remote: self.remote,
            ttl,
            tos,
            device: if self.remote.scope != 0 { self.remote.scope } else { self.listener.bound_to().device },
            path: None,
            mss: self.limits.mss,
            confirmed: 0,
        }
    }

    /// Is a segment in the window, and not older than the SYN? Only such a one completes the opening.
    fn is_acceptable(&self, segment: &Segment) -> bool {
        let first = self.irs + 1;
        let older = |old: u32, new: u32| (new.wrapping_sub(old) as i32) < 0;
        let stale = match (self.agreed.timestamp, segment.options.timestamps) {
            (Some(old), Some((new, _))) => older(old, new),
            _ => false,
        };
        !stale && segment.seq.within(first, first + usize::from(WINDOW))
    }

    /// An acknowledgement of the SYN alone.
    fn acknowledge(&self, now: Nanos) {
        let stamp = clock(now, self.stamp_offset);
        self.link().send(Segment {
            seq: self.iss + 1,
            ack: self.irs + 1,
            flags: Flags::ACK,
            window: WINDOW >> self.agreed.scale.map_or(0, |_| sysctl::scale()),
            options: Options { timestamps: self.agreed.timestamp.map(|theirs| (stamp, theirs)), ..Options::default() },
            ..Segment::default()
        });
    }

    fn answer(&self, now: Nanos) {
        let stamp = clock(now, self.stamp_offset);
        let mut segment = syn_ack(self.iss, self.irs, &self.agreed, self.limits.mss, stamp);
        segment.options.fast_open = self.fast_open.clone();
        self.link().send(segment);
    }
}

fn syn_ack(iss: Seq, irs: Seq, agreed: &Agreed, mss: u16, stamp: u32) -> Segment {
    Segment {
        seq: iss,
        ack: irs + 1,
        flags: Flags::SYN | Flags::ACK | if agreed.ecn { Flags::ECE } else { Flags::empty() },
        window: WINDOW,
        options: Options {
            mss: Some(mss),
            scale: agreed.scale.map(|_| sysctl::scale()),
            sack_permitted: agreed.sack,
            timestamps: agreed.timestamp.map(|theirs| (stamp, theirs)),
            ..Options::default()
        },
        ..Segment::default()
    }
}

impl Rings for Request {
    /// The SYN-ACK is not answered: again, or never again.
    fn ring(self: Arc<Self>, now: Nanos) {
        let mut progress = self.progress.lock();
        self.alarm.rung(now);
        let gone = !matches!(table::get(&self.key()), Some(Entry::Request(r)) if Arc::ptr_eq(&r, &self));
        if gone {
            return;
        }
        if progress.repeated >= SYNACK_RETRIES.load(Ordering::Relaxed) || !self.listener.listens() {
            drop(progress);
            forget(&self);
            return;
        }
        progress.repeated += 1;
        progress.due = now + (NANOS_PER_SEC << progress.repeated.min(7));
        self.alarm.set(Some(progress.due), || Some(self.clone()));
        let waits = progress.answered && progress.repeated < self.listener.defers_accept();
        drop(progress);
        if waits {
            return;
        }
        statistics::add(Counter::TcpRetransSegs, 1);
        self.answer(now);
    }
}

impl Request {
    /// What sock_diag tells.
    pub(crate) fn facts(&self) -> Facts {
        let now = sched::time::now();
        let mut facts = facts(&*self.listener, self.listener.socket_family(), self.local, self.remote);
        let progress = self.progress.lock();
        let left = (progress.due.saturating_sub(now) / super::rtt::MS) as u32;
        facts.state = State::SynReceived as u8;
        facts.timer = (1, progress.repeated as u8, left);
        // It has no file of its own yet.
        facts.inode = 0;
        facts
    }

    /// SOCK_DESTROY: it is forgotten.
    pub(crate) fn destroy(&self) {
        forget(self);
    }
}

fn forget(request: &Request) {
    if table::remove_request(&request.key(), request) {
        request.listener.with_listener(|listener| listener.requests = listener.requests.saturating_sub(1));
    }
    request.alarm.cancel();
}

/// A segment for a listener: a SYN, or the answer to a cookie.
pub(super) fn on_segment(listener: &Arc<TcpSocket>, segment: Segment, header: &Header, ports: (u16, u16)) {
    if segment.has(Flags::SYN) && !segment.has(Flags::ACK) {
        if !segment.has(Flags::FIN) && !header.destination.is_multicast() {
            on_syn(listener, segment, header, ports);
        }
    } else if !on_cookie(listener, &segment, header, ports) {
        refuse(&segment, header, ports);
    }
}

fn ends(header: &Header, ports: (u16, u16)) -> (Endpoint, Endpoint) {
    let scope = if route::is_link_local(header.source) { header.interface } else { 0 };
    let local = Endpoint { ip: header.destination, port: ports.1, scope };
    (local, Endpoint { ip: header.source, port: ports.0, scope })
}

/// What a SYN offers, as far as this machine takes it.
fn offered(syn: &Segment) -> Agreed {
    sysctl::accepted(Agreed {
        mss: syn.options.mss,
        scale: syn.options.scale,
        sack: syn.options.sack_permitted,
        timestamp: syn.options.timestamps.map(|(value, _)| value),
        ecn: syn.flags & ECN_OFFER == ECN_OFFER && syn.codepoint == 0,
    })
}

/// Answers a SYN of which nothing is remembered: options that the timestamp cannot carry are left out.
fn answer_with_cookie(
    iss: Seq,
    stamp: u32,
    syn: &Segment,
    agreed: Agreed,
    limits: Limits,
    header: &Header,
    ports: (u16, u16),
) {
    statistics::add(Counter::SyncookiesSent, 1);
    let agreed = Agreed { ecn: false, ..agreed };
    let agreed = if agreed.timestamp.is_some() { agreed } else { Agreed { scale: None, sack: false, ..agreed } };
    answer(syn_ack(iss, syn.seq, &agreed, limits.mss, stamp), header, ports);
}

fn on_syn(listener: &Arc<TcpSocket>, syn: Segment, header: &Header, ports: (u16, u16)) {
    let now = sched::time::now();
    let (local, remote) = ends(header, ports);
    let (local_end, remote_end) = ((local.ip, local.port), (remote.ip, remote.port));
    let mut link = Link { local, remote, ttl: 64, tos: 0, device: 0, path: None, mss: u16::MAX, confirmed: 0 };
    let Ok(mut limits) = link.limits() else { return };
    if let Some(most) = listener.max_segment() {
        limits.mss = limits.mss.min(most);
    }
    let agreed = offered(&syn);
    let state = listener.with_listener(|l| (l.is_full(), l.requests >= l.backlog.max(8).min(most_requests())));
    let Some((accept_full, requests_full)) = state else { return };
    if accept_full {
        statistics::add(Counter::ListenOverflows, 1);
        statistics::add(Counter::ListenDrops, 1);
        return;
    }
    let cookies = SYN_COOKIES.load(Ordering::Relaxed);
    let offset = stamp_offset(local_end, remote_end);
    if cookies == 2 || requests_full && cookies == 1 {
        let iss = cookie::make(now, local_end, remote_end, syn.seq, agreed.mss.unwrap_or(536));
        let stamp = cookie::stamp(clock(now, offset), &agreed);
        answer_with_cookie(iss, stamp, &syn, agreed, limits, header, ports);
        return;
    }
    if requests_full {
        statistics::add(Counter::ListenDrops, 1);
        return;
    }
    let iss = initial_sequence(now, local_end, remote_end);
    let verdict = listener.judge_fast(&syn, remote.ip, local.ip);
    let option = match verdict {
        Verdict::Usual(option) => option,
        Verdict::Fast(option) => {
            let fresh = Fresh { local, remote, limits, agreed, offset, iss };
            open_fast(now, listener, syn, fresh, option);
            return;
        }
    };
    let request = Arc::new(Request {
        listener: listener.clone(),
        local,
        remote,
        iss,
        irs: syn.seq,
        agreed,
        limits,
        stamp_offset: offset,
        progress: SpinLock::new(Progress { answered: false, repeated: 0, due: now + NANOS_PER_SEC }),
        alarm: Alarm::default(),
        fast_open: option,
    });
    if !table::insert(request.key(), Entry::Request(request.clone())) {
        return;
    }
    listener.with_listener(|listener| listener.requests += 1);
    request.answer(now);
    let _held = request.progress.lock();
    request.alarm.set(Some(now + NANOS_PER_SEC), || Some(request.clone()));
}

/// A connection that is to be opened fast.
struct Fresh {
    local: Endpoint,
    remote: Endpoint,
    limits: Limits,
    agreed: Agreed,
    offset: u32,
    iss: Seq,
}

/// Opens a connection with the data of its SYN, before the peer has confirmed that it is where it says.
fn open_fast(now: Nanos, listener: &Arc<TcpSocket>, syn: Segment, fresh: Fresh, option: Option<FastOpen>) {
    let Fresh { local, remote, limits, agreed, offset, iss } = fresh;
    let (ttl, tos) = listener.header_fields(remote.ip);
    let device = if remote.scope != 0 { remote.scope } else { listener.bound_to().device };
    let link = Link { local, remote, ttl, tos, device, path: None, mss: limits.mss, confirmed: 0 };
    let numbers = (iss, syn.seq);
    let child = make_child(now, listener, link, limits, numbers, agreed, offset);
    if !table::insert(((local.ip, local.port), (remote.ip, remote.port)), Entry::Socket(child.clone())) {
        return;
    }
    child.confirm_with(listener);
    child.drive(|connection, now, out| ((), connection.open_fast(now, &syn, option, out)));
    let queued = listener.with_listener(|queue| {
        queue.unconfirmed += 1;
        queue.waiting.push_back(child.clone());
    });
    statistics::add(Counter::TcpFastOpenPassive, 1);
    match queued {
        Some(()) => listener.announce_connection(),
        None => child.abort(),
    }
}

fn most_requests() -> usize {
    SYN_BACKLOG.load(Ordering::Relaxed) as usize
}

/// Does a segment complete the opening? If not, it is dealt with.
fn completes(now: Nanos, request: &Arc<Request>, segment: &Segment, header: &Header, ports: (u16, u16)) -> bool {
    if segment.has(Flags::RST) {
        if segment.seq == request.irs + 1 {
            forget(request);
            statistics::add(Counter::TcpAttemptFails, 1);
        }
        return false;
    }
    if segment.has(Flags::SYN) {
        // The SYN again: our answer was lost. Another SYN is none of ours.
        if segment.seq == request.irs {
            request.answer(now);
        }
        return false;
    }
    if !segment.has(Flags::ACK) {
        return false;
    }
    if segment.ack != request.iss + 1 {
        refuse(segment, header, ports);
        return false;
    }
    if !request.is_acceptable(segment) {
        request.acknowledge(now);
        return false;
    }
    let mut progress = request.progress.lock();
    if segment.span() == 0 && progress.repeated < request.listener.defers_accept() {
        progress.answered = true;
        return false;
    }
    true
}

/// A segment for a request.
pub(super) fn on_request_segment(request: &Arc<Request>, segment: Segment, header: &Header, ports: (u16, u16)) {
    let now = sched::time::now();
    if !completes(now, request, &segment, header, ports) {
        return;
    }
    let full = request.listener.with_listener(|listener| listener.is_full());
    match full {
        // The client believes to be connected; it will send again, or we our SYN-ACK.
        Some(true) => {
            statistics::add(Counter::ListenOverflows, 1);
            if sysctl::ABORT_ON_OVERFLOW.load(Ordering::Relaxed) != 0 {
                forget(request);
                refuse(&segment, header, ports);
            }
            return;
        }
        None => {
            forget(request);
            refuse(&segment, header, ports);
            return;
        }
        Some(false) => {}
    }
    let numbers = (request.iss, request.irs);
    let child = make_child(
        now,
        &request.listener,
        request.link(),
        request.limits,
        numbers,
        request.agreed,
        request.stamp_offset,
    );
    if !table::replace(request.key(), request, child.clone()) {
        return;
    }
    request.alarm.cancel();
    request.listener.with_listener(|listener| listener.requests = listener.requests.saturating_sub(1));
    deliver(&request.listener, child, segment);
}

fn make_child(
    now: Nanos,
    listener: &Arc<TcpSocket>,
    link: Link,
    limits: Limits,
    numbers: (Seq, Seq),
    agreed: Agreed,
    stamp_offset: u32,
) -> Arc<TcpSocket> {
    let (settings, name) = listener.inherited();
    let algorithm = congestion::named(name);
    let connection = Connection::accept(now, limits, settings, algorithm, numbers, agreed, stamp_offset, WINDOW.into());
    TcpSocket::child(listener, link, connection)
}

/// Gives a new connection the segment that completes it, and puts it into the accept queue.
fn deliver(listener: &Arc<TcpSocket>, child: Arc<TcpSocket>, segment: Segment) {
    statistics::add(Counter::TcpPassiveOpens, 1);
    let effects = child.take_segment(segment);
    if !effects.contains(Effects::CONNECTED) {
        // What completes an opening was looked at before; should it end all the same, nothing of it stays.
        child.abort();
        return;
    }
    let queued = listener.with_listener(|queue| queue.waiting.push_back(child.clone()));
    match queued {
        Some(()) => listener.announce_connection(),
        None => child.abort(),
    }
}

/// Is it the answer to a cookie? Then the connection is made from it.
fn on_cookie(listener: &Arc<TcpSocket>, segment: &Segment, header: &Header, ports: (u16, u16)) -> bool {
    if SYN_COOKIES.load(Ordering::Relaxed) == 0 || segment.has(Flags::SYN) || !segment.has(Flags::ACK) {
        return false;
    }
    let now = sched::time::now();
    let (local, remote) = ends(header, ports);
    let (local_end, remote_end) = ((local.ip, local.port), (remote.ip, remote.port));
    let irs = Seq(segment.seq.0.wrapping_sub(1));
    let iss = Seq(segment.ack.0.wrapping_sub(1));
    let Some(mss) = cookie::check(now, local_end, remote_end, irs, iss) else {
        statistics::add(Counter::SyncookiesFailed, 1);
        return false;
    };
    let full = listener.with_listener(|listener| listener.is_full());
    if full != Some(false) {
        statistics::add(Counter::ListenOverflows, 1);
        return full.is_some();
    }
    let agreed = match segment.options.timestamps {
        Some((theirs, echo)) => cookie::options(echo, mss, theirs),
        None => Agreed { mss: Some(mss), ..Agreed::default() },
    };
    let (ttl, tos) = listener.header_fields(remote.ip);
    let mut link = Link { local, remote, ttl, tos, device: remote.scope, path: None, mss: u16::MAX, confirmed: 0 };
    let Ok(limits) = link.limits() else { return true };
    statistics::add(Counter::SyncookiesRecv, 1);
    let offset = stamp_offset(local_end, remote_end);
    let child = make_child(now, listener, link, limits, (iss, irs), agreed, offset);
    if table::insert((local_end, remote_end), Entry::Socket(child.clone())) {
        deliver(listener, child, segment.clone());
    }
    true
}
