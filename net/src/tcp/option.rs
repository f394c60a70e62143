//! Options at the level IPPROTO_TCP (tcp(7)).

use alloc::vec::Vec;

use base::{Capability, Errno, NANOS_PER_SEC, Nanos, Result};
use core::sync::atomic::Ordering;

use super::connection::{Connection, Effects, Settings, State};
use super::socket::{Core, Role, TcpSocket};
use super::{congestion, fast_open, sysctl};
use crate::backlog;
use crate::inet::{Setter, steering};
use crate::options::{Options, option};
use crate::socket::{Caller, Socket};

const SOL_TCP: i32 = 6;
const NODELAY: i32 = 1;
const MAXSEG: i32 = 2;
const CORK: i32 = 3;
const KEEPIDLE: i32 = 4;
const KEEPINTVL: i32 = 5;
const KEEPCNT: i32 = 6;
const SYNCNT: i32 = 7;
const LINGER2: i32 = 8;
const DEFER_ACCEPT: i32 = 9;
const WINDOW_CLAMP: i32 = 10;
const INFO: i32 = 11;
const QUICKACK: i32 = 12;
const CONGESTION: i32 = 13;
const USER_TIMEOUT: i32 = 18;
const REPAIR: i32 = 19;
const FASTOPEN: i32 = 23;
const FASTOPEN_CONNECT: i32 = 30;
const FASTOPEN_KEY: i32 = 33;
const TIMESTAMP: i32 = 24;
const NOTSENT_LOWAT: i32 = 25;
const ULP: i32 = 31;
const INQ: i32 = 36;

const MS: Nanos = 1_000_000;

pub(super) fn set(socket: &TcpSocket, caller: &Caller, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
    if level == SOL_TCP {
        return Some(set_tcp(socket, caller, name, value));
    }
    let bound = socket.core.lock().link.local.port != 0;
    if let Some(result) = steering::set_option(&socket.options, bound, level, name, value) {
        return Some(result);
    }
    let result =
        socket.settings.lock().set(socket.family, level, name, value, Setter::new(caller, socket.kind(), bound));
    if result.is_some() {
        refresh_link(socket);
    }
    result
}

/// The time to live or the type of service may have changed.
fn refresh_link(socket: &TcpSocket) {
    let remote = socket.core.lock().link.remote.ip;
    let (ttl, tos) = socket.header_fields(remote);
    let mut core = socket.core.lock();
    core.link.ttl = ttl;
    core.link.tos = tos;
}

fn seconds(value: i32, most: i32) -> Result<Nanos> {
    if (1..=most).contains(&value) { Ok(value as u64 * NANOS_PER_SEC) } else { Err(Errno::EINVAL) }
}

fn set_tcp(socket: &TcpSocket, caller: &Caller, name: i32, value: &[u8]) -> Result<()> {
    match name {
        CONGESTION => return set_congestion(socket, value),
        // No upper layer protocol (TLS) is here: as where Linux lacks the module.
        ULP => return Err(Errno::ENOENT),
        FASTOPEN_KEY => {
            socket.core.lock().fast_keys = Some(fast_open::parse_keys(value)?);
            return Ok(());
        }
        _ => {}
    }
    let word = value.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
    let mut core = socket.core.lock();
    let listening_or_fresh = !matches!(core.role, Role::Open(_));
    let settings = &mut core.settings;
    match name {
        NODELAY => settings.no_delay = word != 0,
        CORK => settings.cork = word != 0,
        MAXSEG if word == 0 || (88..=32767).contains(&word) => settings.max_segment = word as u16,
        KEEPIDLE => settings.keep_idle = seconds(word, 32767)?,
        KEEPINTVL => settings.keep_interval = seconds(word, 32767)?,
        KEEPCNT if (1..=127).contains(&word) => settings.keep_count = word as u32,
        SYNCNT if (1..=127).contains(&word) => settings.syn_retries = word as u32,
        LINGER2 => settings.linger2 = if word < 0 { 0 } else { (word as u64).min(120) * NANOS_PER_SEC },
        USER_TIMEOUT if word >= 0 => settings.user_timeout = word as u64 * MS,
        DEFER_ACCEPT => core.defer_accept = repetitions(word),
        WINDOW_CLAMP if word != 0 || listening_or_fresh => core.window_clamp = word,
        QUICKACK => {}
        NOTSENT_LOWAT => {
            core.unsent_low = word as u32;
            core.settings.unsent_low = word as u32 as usize;
        }
        FASTOPEN if word >= 0 && listening_or_fresh => core.fast_open = word,
        FASTOPEN_CONNECT if !(0..=1).contains(&word) => return Err(Errno::EINVAL),
        FASTOPEN_CONNECT if !fast_open::allows(fast_open::mode::CLIENT) => return Err(Errno::EOPNOTSUPP),
        FASTOPEN_CONNECT if listening_or_fresh => core.fast_connect = word == 1,
        INQ if (0..=1).contains(&word) => core.tells_queue = word == 1,
        TIMESTAMP | REPAIR if !caller.fs.cred.capable(Capability::NetAdmin) => return Err(Errno::EPERM),
        MAXSEG | KEEPCNT | SYNCNT | USER_TIMEOUT | WINDOW_CLAMP | FASTOPEN | FASTOPEN_CONNECT | INQ => {
            return Err(Errno::EINVAL);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    drop(core);
    apply(socket, name == QUICKACK && word != 0);
    Ok(())
}

/// Passes the settings on to the connection.
fn apply(socket: &TcpSocket, quick: bool) {
    let mut settings = socket.core.lock().settings.clone();
    sysctl::refresh(&mut settings);
    socket.drive(|connection, now, out| {
        connection.settings = settings;
        connection.settings_changed(now, out);
        if quick {
            connection.acknowledge_now(now, out);
        }
        ((), Effects::empty())
    });
    backlog::run();
}

/// How often an answer to a SYN is repeated in so many seconds.
fn repetitions(seconds: i32) -> u32 {
    let (mut count, mut wait, mut passed) = (1, 1i64, 1i64);
    while i64::from(seconds) > passed && count < 255 {
        count += 1;
        wait = (wait * 2).min(120);
        passed += wait;
    }
    if seconds > 0 { count } else { 0 }
}

/// The seconds that so many repetitions take.
fn waiting_time(repetitions: u32) -> i32 {
    (0..repetitions).map(|i| (1i32 << i.min(7)).min(120)).sum()
}

fn set_congestion(socket: &TcpSocket, value: &[u8]) -> Result<()> {
    let name = value.split(|&b| b == 0).next().unwrap_or_default();
    let known = congestion::AVAILABLE.iter().find(|known| known.as_bytes() == name).ok_or(Errno::ENOENT)?;
    let mut core = socket.core.lock();
    core.congestion = known;
    if let Role::Open(connection) = &mut core.role {
        connection.choose_congestion(name);
    }
    Ok(())
}

pub(super) fn get(socket: &TcpSocket, level: i32, name: i32) -> Option<Result<Vec<u8>>> {
    if level == SOL_TCP {
        return Some(get_tcp(socket, name));
    }
    if level == crate::inet::SOL_IP && name == crate::inet::IP_MTU || level == crate::inet::SOL_IPV6 && name == 24 {
        let mtu = socket.core.lock().link.path.as_ref().map(|path| path.interface.mtu() as i32);
        return Some(mtu.map(|mtu| mtu.to_ne_bytes().to_vec()).ok_or(Errno::ENOTCONN));
    }
    socket.settings.lock().get(socket.family, level, name)
}

fn get_tcp(socket: &TcpSocket, name: i32) -> Result<Vec<u8>> {
    let mut core = socket.core.lock();
    let to_seconds = |nanos: Nanos| (nanos / NANOS_PER_SEC) as i32;
    let settings = core.settings.clone();
    let value = match name {
        NODELAY => settings.no_delay.into(),
        CORK => settings.cork.into(),
        MAXSEG => max_segment(&mut core, &settings),
        KEEPIDLE => to_seconds(settings.keep_idle),
        KEEPINTVL => to_seconds(settings.keep_interval),
        KEEPCNT => settings.keep_count as i32,
        SYNCNT => settings.syn_retries as i32,
        LINGER2 => to_seconds(settings.linger2),
        USER_TIMEOUT => (settings.user_timeout / MS) as i32,
        DEFER_ACCEPT => waiting_time(core.defer_accept),
        WINDOW_CLAMP => core.window_clamp,
        QUICKACK => 1,
        NOTSENT_LOWAT => core.unsent_low as i32,
        FASTOPEN => core.fast_open,
        FASTOPEN_CONNECT => core.fast_connect.into(),
        FASTOPEN_KEY => return Ok(fast_open::key_bytes(core.fast_keys.unwrap_or_else(fast_open::keys))),
        INQ => core.tells_queue.into(),
        TIMESTAMP => 0,
        INFO => return Ok(info(&core)),
        CONGESTION => {
            let mut text = core.congestion.as_bytes().to_vec();
            text.resize(16, 0);
            return Ok(text);
        }
        ULP => return Ok(Vec::new()),
        REPAIR => return Err(Errno::EPERM),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(value.to_ne_bytes().to_vec())
}

fn max_segment(core: &mut Core, settings: &Settings) -> i32 {
    match &core.role {
        Role::Open(connection) if connection.state() != State::Closed => connection.mss() as i32,
        _ if settings.max_segment != 0 => settings.max_segment.into(),
        _ => 536,
    }
}

fn info(core: &Core) -> Vec<u8> {
    match &core.role {
        Role::Open(connection) => connection.info(sched::time::now()),
        role => {
            let state = if matches!(role, Role::Fresh) { State::Closed } else { State::Listen };
            let mut out = alloc::vec![0; super::info::SIZE];
            out[0] = state as u8;
            if let Role::Listening(listener) = role {
                // A listener shows its queue and its limit here.
                out[24..28].copy_from_slice(&(listener.waiting.len() as u32).to_ne_bytes());
                out[28..32].copy_from_slice(&(listener.backlog as u32).to_ne_bytes());
            }
            out
        }
    }
}

/// An option of SOL_SOCKET was set.
pub(super) fn changed(socket: &TcpSocket, name: i32) {
    let options = &socket.options;
    match name {
        option::SO_KEEPALIVE => socket.core.lock().settings.keep_alive = options.flag(name),
        option::SO_MAX_PACING_RATE => {
            socket.core.lock().settings.max_pacing = options.max_pacing.load(Ordering::Relaxed);
        }
        option::SO_TIMESTAMPING => {
            let mut core = socket.core.lock();
            if let Role::Open(connection) = &core.role {
                core.stamps_from = connection.unacknowledged_from();
            }
            return;
        }
        option::SO_OOBINLINE => socket.core.lock().settings.urgent_inline = options.flag(name),
        option::SO_SNDBUF | option::SO_RCVBUF | option::SO_SNDBUFFORCE | option::SO_RCVBUFFORCE => {
            options.fix_size(name);
            socket.drive(|connection, _, _| {
                apply_buffers(options, connection);
                ((), Effects::empty())
            });
            return;
        }
        _ => return,
    }
    apply(socket, false);
}

/// Passes buffer sizes on that the program has fixed.
pub(super) fn apply_buffers(options: &Options, connection: &mut Connection) {
    if options.is_fixed(option::SO_SNDBUF) {
        connection.set_send_limit(options.send_buffer.load(Ordering::Relaxed));
    }
    if options.is_fixed(option::SO_RCVBUF) {
        connection.set_receive_limit(options.receive_buffer.load(Ordering::Relaxed));
    }
}
