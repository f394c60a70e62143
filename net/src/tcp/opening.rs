//! bind(2), connect(2), listen(2) and accept(2) of TCP sockets.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use mm::Source;
use sched::Sleep;

use super::connection::{Connection, Effects, State};
use super::link::Link;
use super::listener::{Listener, initial_sequence, stamp_offset};
use super::segment::{FastOpen, HEADER};
use super::socket::{Core, Role, TcpSocket, reachable};
use super::sysctl;
use super::table::{self, Entry};
use super::{congestion, fast_open, option as options};
use crate::backlog;
use crate::inet::address::{AF_INET6, AF_UNSPEC, family_of};
use crate::inet::port::{Binding, Claim, Ports};
use crate::inet::{Endpoint, Family, check_bindable, check_port};
use crate::ip::header_len;
use crate::options::option;
use crate::packet::{Filler, Rope};
use crate::route::Kind;
use crate::socket::{Caller, wait_error};
use crate::statistics::{self, Counter};

static PORTS: Ports = Ports::new();
/// The most connections that may wait (`net.core.somaxconn`).
pub(crate) static BACKLOG_MAX: AtomicU32 = AtomicU32::new(4096);

fn claim(socket: &TcpSocket, ip: IpAddr, user: u32) -> Claim {
    let settings = socket.settings.lock();
    Claim {
        ip,
        v6_only: settings.v6_only,
        device: settings.device,
        reuse_address: socket.options.flag(option::SO_REUSEADDR),
        reuse_port: socket.options.flag(option::SO_REUSEPORT),
        user,
        steering: socket.options.steering.lock().clone(),
    }
}

pub(super) fn bind(socket: &TcpSocket, caller: &Caller, address: &[u8]) -> Result<()> {
    let named = family_of(address)?;
    let at = if named == AF_UNSPEC && socket.family == Family::V4 && address.len() >= 16 && address[4..8] == [0; 4] {
        Endpoint { port: u16::from_be_bytes([address[2], address[3]]), ..Endpoint::any(Family::V4) }
    } else {
        Endpoint::parse(address, socket.family)?
    };
    if socket.family == Family::V6 && named != AF_INET6 {
        return Err(Errno::EAFNOSUPPORT);
    }
    let settings = socket.settings.lock().clone();
    check_bindable(&at, &settings, false)?;
    check_port(caller, at.port)?;
    {
        let core = socket.core.lock();
        if core.binding.is_some() || !matches!(core.role, Role::Fresh) {
            return Err(Errno::EINVAL);
        }
    }
    let claim = claim(socket, at.ip, caller.fs.cred.euid);
    let binding = if at.port == 0 { PORTS.bind_any(claim, false, |_| false)? } else { PORTS.bind(at.port, claim)? };
    let mut core = socket.core.lock();
    core.link.local = Endpoint { port: binding.port, ..at };
    core.link.device = if at.scope != 0 { at.scope } else { settings.device };
    core.bound = Some(at.ip);
    socket.options.steering.lock().clone_from(&binding.steering);
    core.binding = Some(binding);
    Ok(())
}

pub(super) fn listen(socket: &TcpSocket, caller: &Caller, backlog: i32) -> Result<()> {
    let most = BACKLOG_MAX.load(Ordering::Relaxed) as usize;
    let backlog = usize::try_from(backlog).unwrap_or(most).min(most);
    if socket.with_listener(|listener| listener.backlog = backlog).is_some() {
        return Ok(());
    }
    let unbound = {
        let core = socket.core.lock();
        if !matches!(core.role, Role::Fresh) {
            return Err(Errno::EINVAL);
        }
        core.binding.is_none()
    };
    if unbound {
        let binding = PORTS.bind_any(claim(socket, socket.family.any(), caller.fs.cred.euid), false, |_| false)?;
        let mut core = socket.core.lock();
        core.link.local.port = binding.port;
        socket.options.steering.lock().clone_from(&binding.steering);
        core.binding = Some(binding);
    }
    let mut core = socket.core.lock();
    let binding: Arc<Binding> = core.binding.clone().ok_or(Errno::EINVAL)?;
    binding.listen()?;
    core.role = Role::Listening(Listener { waiting: VecDeque::new(), backlog, requests: 0, unconfirmed: 0 });
    if core.fast_open == 0 && fast_open::allows(fast_open::mode::SERVER | fast_open::mode::ALL_LISTENERS) {
        core.fast_open = backlog as i32;
    }
    core.error = None;
    drop(core);
    table::listen(binding.port, socket.me.upgrade().ok_or(Errno::EINVAL)?);
    Ok(())
}

pub(super) fn accept(socket: &TcpSocket, nonblocking: bool) -> Result<Arc<TcpSocket>> {
    let deadline = socket.options.receive_deadline();
    let attempt = || match socket.with_listener(|listener| listener.waiting.pop_front()) {
        None => Some(Err(Errno::EINVAL)),
        Some(Some(child)) => Some(Ok(child)),
        Some(None) if nonblocking => Some(Err(Errno::EAGAIN)),
        Some(None) => None,
    };
    let waited = socket.news.wait_exclusive(Sleep::Interruptible, deadline, attempt);
    waited.map_err(|e| wait_error(e, deadline.is_some()))?
}

/// The outcome of an opening that has begun, if it is known.
fn outcome(core: &mut Core) -> Option<Result<()>> {
    let Role::Open(connection) = &mut core.role else { return Some(Err(Errno::ECONNABORTED)) };
    if connection.is_opening() {
        return None;
    }
    if connection.state() == State::Closed {
        let error = connection.take_error().unwrap_or(Errno::ECONNABORTED);
        // The socket may try again.
        fall_back(core);
        return Some(Err(error));
    }
    core.told = true;
    Some(Ok(()))
}

/// After a failed opening: as before it.
fn fall_back(core: &mut Core) {
    core.role = Role::Fresh;
    if core.bound.is_none() {
        core.binding = None;
        core.link.local.port = 0;
        core.link.local.ip = unspecified(core.link.local.ip);
    }
    core.link.path = None;
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

pub(super) fn connect(socket: &TcpSocket, caller: &Caller, address: &[u8], nonblocking: bool) -> Result<()> {
    if family_of(address)? == AF_UNSPEC {
        return disconnect(socket);
    }
    {
        let mut core = socket.core.lock();
        match &core.role {
            Role::Listening(_) => return Err(Errno::EISCONN),
            Role::Open(connection) if connection.is_opening() => {
                if nonblocking {
                    return Err(Errno::EALREADY);
                }
                drop(core);
                return wait_opened(socket);
            }
            Role::Open(_) if core.told => return Err(Errno::EISCONN),
            // The first call after the outcome of an earlier one tells it.
            Role::Open(_) => return outcome(&mut core).unwrap_or(Err(Errno::EALREADY)),
            Role::Fresh => {}
        }
    }
    let to = Endpoint::parse(address, socket.family)?;
    let fast = {
        let core = socket.core.lock();
        if core.deferred.is_some() {
            return Err(Errno::EISCONN);
        }
        core.fast_connect
    };
    let mut option = None;
    if fast {
        let found = fast_option(socket, &to)?.0;
        if found.cookie.is_empty() {
            option = Some(found);
        } else {
            // The first data goes with the SYN.
            socket.core.lock().deferred = Some(to);
            return Ok(());
        }
    }
    begin(socket, Some(caller), to, option, Rope::new())?;
    backlog::run();
    if nonblocking {
        return Err(Errno::EINPROGRESS);
    }
    wait_opened(socket)
}

fn wait_opened(socket: &TcpSocket) -> Result<()> {
    let deadline = socket.options.send_deadline();
    let waited = socket.room.wait_until(Sleep::Interruptible, deadline, || outcome(&mut socket.core.lock()));
    match waited {
        Ok(result) => result,
        Err(sched::WaitError::TimedOut) => Err(Errno::EINPROGRESS),
        Err(error) => Err(wait_error(error, deadline.is_some())),
    }
}

/// The option for a fast opening: the cookie that the server gave once, or the wish for one; and bytes that fit its SYN.
pub(super) fn fast_option(socket: &TcpSocket, to: &Endpoint) -> Result<(FastOpen, usize)> {
    const OPTIONS: usize = 40;
    let path = reachable(socket, to)?;
    let local = socket.core.lock().bound.filter(|ip| !ip.is_unspecified()).unwrap_or(path.source);
    let mss = path.mtu().saturating_sub(header_len(to.ip) + HEADER);
    Ok(match fast_open::known(local, to.ip) {
        Some(known) => (known.option, mss.min(known.mss.into()).saturating_sub(OPTIONS)),
        None => (FastOpen::default(), mss.saturating_sub(OPTIONS)),
    })
}

/// Opens with data in the SYN, and waits unless `nonblocking`: MSG_FASTOPEN. How much of the data has been taken. `EINPROGRESS` where none could go.
pub(super) fn connect_with(
    socket: &TcpSocket,
    caller: Option<&Caller>,
    to: Endpoint,
    source: &mut Source,
    nonblocking: bool,
) -> Result<usize> {
    let to = here_if_unspecified(to);
    let (option, room) = fast_option(socket, &to)?;
    let may = !option.cookie.is_empty() || fast_open::allows(fast_open::mode::CLIENT_WITHOUT_COOKIE);
    let data = if may && source.remaining() > 0 {
        Filler::shared(|filler| filler.take(source, room.min(source.remaining())))?
    } else {
        Rope::new()
    };
    let len = data.len();
    begin(socket, caller, to, Some(option), data)?;
    backlog::run();
    if len > 0 {
        statistics::add(Counter::TcpFastOpenActive, 1);
    }
    if nonblocking {
        return if len > 0 { Ok(len) } else { Err(Errno::EINPROGRESS) };
    }
    wait_opened(socket).map(|()| len)
}

/// Who connects to no address in particular connects to this machine.
fn here_if_unspecified(mut to: Endpoint) -> Endpoint {
    if to.ip.is_unspecified() {
        to.ip = if to.ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    }
    to
}

/// The ends of a connection to be, the way between them, and the port if it was chosen now.
fn choose_ends(socket: &TcpSocket, caller: Option<&Caller>, to: Endpoint) -> Result<(Link, Option<Arc<Binding>>)> {
    let to = here_if_unspecified(to);
    let path = reachable(socket, &to)?;
    if matches!(path.kind, Kind::Multicast | Kind::Broadcast) {
        return Err(Errno::ENETUNREACH);
    }
    let (bound, port) = {
        let core = socket.core.lock();
        (core.bound.filter(|ip| !ip.is_unspecified()), core.binding.as_ref().map(|b| b.port))
    };
    let local_ip = bound.unwrap_or(path.source);
    if local_ip.is_ipv4() != to.ip.is_ipv4() {
        return Err(Errno::ENETUNREACH);
    }
    let binding = match port {
        Some(_) => None,
        None => {
            let user = caller.map_or(socket.options.owner.load(Ordering::Relaxed), |caller| caller.fs.cred.euid);
            let claim = claim(socket, local_ip, user);
            Some(PORTS.bind_any(claim, true, |port| is_free((local_ip, port), (to.ip, to.port)))?)
        }
    };
    let port = port.or(binding.as_ref().map(|b| b.port)).unwrap_or(0);
    let local = Endpoint { ip: local_ip, port, scope: to.scope };
    let (ttl, tos) = socket.header_fields(to.ip);
    let device = if to.scope != 0 { to.scope } else { socket.settings.lock().device };
    Ok((Link { local, remote: to, ttl, tos, device, path: Some(path), mss: u16::MAX, confirmed: 0 }, binding))
}

/// Sends the SYN, perhaps with an option for fast opening and with data.
fn begin(
    socket: &TcpSocket,
    caller: Option<&Caller>,
    to: Endpoint,
    option: Option<FastOpen>,
    data: Rope,
) -> Result<()> {
    let (mut link, binding) = choose_ends(socket, caller, to)?;
    let limits = link.limits()?;
    link.mss = limits.mss;
    let remote = (link.remote.ip, link.remote.port);
    let key = ((link.local.ip, link.local.port), remote);
    if !is_free(key.0, remote) || !table::insert(key, Entry::Socket(socket.me.upgrade().ok_or(Errno::EINVAL)?)) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    let now = sched::time::now();
    let random = (initial_sequence(now, key.0, remote).0, stamp_offset(key.0, remote));
    {
        let mut core = socket.core.lock();
        core.link = link;
        core.listed = true;
        core.told = false;
        core.deferred = None;
        core.error = None;
        if let Some(binding) = binding {
            core.binding = Some(binding);
        }
        let algorithm = congestion::named(core.congestion);
        let mut settings = core.settings.clone();
        sysctl::refresh(&mut settings);
        let link = &mut core.link;
        let mut connection =
            Connection::connect_fast(now, limits, settings, algorithm, random, (option, data), &mut |s| link.send(s));
        options::apply_buffers(&socket.options, &mut connection);
        core.role = Role::Open(Box::new(connection));
    }
    statistics::add(Counter::TcpActiveOpens, 1);
    // Sets the alarm.
    socket.drive(|_, _, _| ((), Effects::empty()));
    Ok(())
}

/// May a new connection have these ends? One in TIME_WAIT that is told apart by timestamps makes room.
fn is_free(local: table::End, remote: table::End) -> bool {
    match table::get(&(local, remote)) {
        None => true,
        Some(Entry::Request(_)) => false,
        Some(Entry::Socket(old)) => {
            let allowed = match sysctl::TIME_WAIT_REUSE.load(Ordering::Relaxed) {
                0 => false,
                1 => true,
                _ => local.0.is_loopback(),
            };
            let reusable = allowed
                && match &old.core.lock().role {
                    Role::Open(connection) => connection.can_be_reused(sched::time::now()),
                    _ => false,
                };
            if reusable {
                statistics::add(Counter::TimeWaitRecycled, 1);
                old.end_time_wait();
            }
            reusable
        }
    }
}

/// connect(2) with AF_UNSPEC: the connection is reset, the socket as new.
fn disconnect(socket: &TcpSocket) -> Result<()> {
    if socket.listens() {
        let (waiting, port) = {
            let mut core = socket.core.lock();
            let waiting = match &mut core.role {
                Role::Listening(listener) => core::mem::take(&mut listener.waiting),
                _ => VecDeque::new(),
            };
            core.role = Role::Fresh;
            if let Some(binding) = &core.binding {
                binding.listening.store(false, Ordering::Relaxed);
            }
            (waiting, core.link.local.port)
        };
        table::unlisten(port, socket);
        for child in waiting {
            child.abort();
        }
    }
    socket.abort();
    backlog::run();
    let mut core = socket.core.lock();
    fall_back(&mut core);
    core.shut_read = false;
    core.shut_write = false;
    core.deferred = None;
    drop(core);
    socket.room.wake_all();
    socket.news.wake_all();
    Ok(())
}
