//! Sockets: making, connecting, options.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Capability, Errno, NANOS_PER_SEC, Result};
use fs::{Fd, OpenFile, OpenFlags};
use hal::user::{UserPtr, copy_in, copy_out};
use net::{Caller, Options, Shutdown, Socket, level, option, socket_of};
use process::Task;
use zerocopy::IntoBytes;

use crate::args::Args;
use crate::context::Context;
use crate::open::{fd_limit, install};
use crate::timespec::Timeval;
use crate::transfer::store_pair;

/// The longest address (`struct sockaddr_storage`).
const ADDRESS_MAX: usize = 128;

/// The longest option value that is looked at.
const OPTION_MAX: usize = 4096;

/// Who calls, as sockets want to know.
pub(crate) fn caller(task: &Task) -> Caller {
    Caller { fs: task.fs_context(), pid: task.pid(), fd_limit: fd_limit(task) }
}

/// The open file of a socket. `EBADF`, `ENOTSOCK`.
pub(crate) fn socket_file(task: &Task, fd: Fd) -> Result<(Arc<OpenFile>, Arc<dyn Socket>)> {
    let open = task.files().get(fd)?;
    let socket = socket_of(&open)?.clone();
    Ok((open, socket))
}

/// Is the file non-blocking?
pub(crate) fn nonblocking(open: &OpenFile) -> bool {
    open.flags().contains(OpenFlags::NONBLOCK)
}

/// Copies an address in. `EINVAL`, `EFAULT`.
pub(crate) fn read_address(addr: usize, len: i32) -> Result<Vec<u8>> {
    let len = usize::try_from(len).ok().filter(|&len| len <= ADDRESS_MAX).ok_or(Errno::EINVAL)?;
    let mut address = alloc::vec![0; len];
    copy_in(&mut address, addr)?;
    Ok(address)
}

/// Stores an address, cut to the room there is, and its whole length. `EINVAL`, `EFAULT`.
pub(crate) fn store_address(address: &[u8], addr: usize, len: UserPtr<i32>) -> Result<()> {
    let room = usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)?;
    copy_out(addr, &address[..address.len().min(room)])?;
    len.write(&(address.len() as i32))
}

/// A type argument without the flags that go with it. `EINVAL`.
fn kind_and_flags(kind: i32) -> Result<(i32, OpenFlags)> {
    let flags = OpenFlags::from_bits_retain(kind as u32 & !0xf);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    Ok((kind & 0xf, flags))
}

pub(crate) fn socket(cx: &mut Context, a: Args) -> Result<usize> {
    let (kind, flags) = kind_and_flags(a.int(1))?;
    let caller = caller(cx.task);
    let socket = net::create(&caller, a.int(0), kind, a.int(2))?;
    let open = net::open_file(&caller.fs, socket, flags & OpenFlags::NONBLOCK);
    install(cx.task, open, flags.contains(OpenFlags::CLOEXEC))
}

pub(crate) fn socketpair(cx: &mut Context, a: Args) -> Result<usize> {
    let (kind, flags) = kind_and_flags(a.int(1))?;
    let caller = caller(cx.task);
    if a.int(0) != net::AF_UNIX {
        net::create(&caller, a.int(0), kind, a.int(2))?;
        return Err(Errno::EOPNOTSUPP);
    }
    let pair = net::unix::UnixSocket::pair(&caller, kind, a.int(2))?;
    let status = flags & OpenFlags::NONBLOCK;
    let pair = pair.map(|socket| net::open_file(&caller.fs, socket, status));
    store_pair(cx.task, pair, flags.contains(OpenFlags::CLOEXEC), a.ptr(3))
}

pub(crate) fn bind(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    let address = read_address(a.0[1], a.int(2))?;
    socket.bind(&caller(cx.task), &address).map(|()| 0)
}

pub(crate) fn connect(cx: &mut Context, a: Args) -> Result<usize> {
    let (open, socket) = socket_file(cx.task, a.fd(0))?;
    let address = read_address(a.0[1], a.int(2))?;
    socket.connect(&caller(cx.task), &address, nonblocking(&open)).map(|()| 0)
}

pub(crate) fn listen(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    socket.listen(&caller(cx.task), a.int(1)).map(|()| 0)
}

fn accept_with(cx: &Context, a: Args, flags: u32) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let (open, socket) = socket_file(cx.task, a.fd(0))?;
    let accepted = socket.accept(nonblocking(&open))?;
    if a.0[1] != 0 {
        store_address(&accepted.accepted_name(), a.0[1], a.ptr(2))?;
    }
    let made = net::open_file(&cx.task.fs_context(), accepted, flags & OpenFlags::NONBLOCK);
    install(cx.task, made, flags.contains(OpenFlags::CLOEXEC))
}

pub(crate) fn accept(cx: &mut Context, a: Args) -> Result<usize> {
    accept_with(cx, a, 0)
}

pub(crate) fn accept4(cx: &mut Context, a: Args) -> Result<usize> {
    accept_with(cx, a, a.uint(3))
}

pub(crate) fn shutdown(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    socket.shutdown(Shutdown::new(a.int(1))?).map(|()| 0)
}

pub(crate) fn getsockname(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    store_address(&socket.name(), a.0[1], a.ptr(2)).map(|()| 0)
}

pub(crate) fn getpeername(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    store_address(&socket.peer_name()?, a.0[1], a.ptr(2)).map(|()| 0)
}

/// Flags: kept here, looked at by the families that they matter to.
const KEPT: [i32; 11] = [
    option::SO_ZEROCOPY,
    option::SO_DEBUG,
    option::SO_REUSEADDR,
    option::SO_DONTROUTE,
    option::SO_BROADCAST,
    option::SO_KEEPALIVE,
    option::SO_OOBINLINE,
    option::SO_REUSEPORT,
    option::SO_PASSSEC,
    option::SO_TIMESTAMP,
    option::SO_TIMESTAMPNS,
];

/// A timeout option in nanoseconds; 0 for none. `EDOM`.
fn timeout(addr: usize, len: usize) -> Result<u64> {
    if len < size_of::<Timeval>() {
        return Err(Errno::EINVAL);
    }
    let raw = UserPtr::<Timeval>::new(addr).read()?;
    if !(0..1_000_000).contains(&raw.usec) {
        return Err(Errno::EDOM);
    }
    // A negative time counts as one that has run out: the shortest there is.
    if raw.sec < 0 {
        return Ok(1);
    }
    Ok((raw.sec as u64).saturating_mul(NANOS_PER_SEC).saturating_add(raw.usec as u64 * 1000))
}

pub(crate) fn setsockopt(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    let (name, addr) = (a.int(2), a.0[3]);
    let len = usize::try_from(a.int(4)).map_err(|_| Errno::EINVAL)?;
    if let Some(result) = own_option(cx.task, &socket, a.int(1), name, addr, len)? {
        return result.map(|()| 0);
    }
    if a.int(1) != level::SOL_SOCKET {
        return Err(if socket.family() == net::AF_UNIX { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
    }
    let options = socket.options();
    match name {
        option::SO_ATTACH_FILTER => options.filter.attach(addr, len)?,
        option::SO_DETACH_FILTER => options.filter.detach()?,
        option::SO_LOCK_FILTER if len >= 4 => options.filter.lock(UserPtr::<i32>::new(addr).read()? != 0)?,
        option::SO_RCVTIMEO => options.receive_timeout.store(timeout(addr, len)?, Ordering::Relaxed),
        option::SO_SNDTIMEO => options.send_timeout.store(timeout(addr, len)?, Ordering::Relaxed),
        _ => {
            if len < 4 {
                return Err(Errno::EINVAL);
            }
            let value = UserPtr::<i32>::new(addr).read()?;
            if name == option::SO_ZEROCOPY {
                check_zero_copy(&socket, value)?;
            }
            set_int(cx.task, options, name, value, addr, len)?;
            socket.option_changed(name);
        }
    }
    Ok(0)
}

/// SO_ZEROCOPY is for TCP and UDP. `EOPNOTSUPP`, `EINVAL`.
fn check_zero_copy(socket: &Arc<dyn Socket>, value: i32) -> Result<()> {
    const TCP: i32 = 6;
    const UDP: i32 = 17;
    let internet = matches!(socket.family(), net::AF_INET | net::AF_INET6);
    if !internet || !matches!(socket.protocol(), TCP | UDP) {
        return Err(Errno::EOPNOTSUPP);
    }
    if (0..=1).contains(&value) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Sets an option of the socket's family or protocol, if it is one. `EFAULT`, `EINVAL`.
fn own_option(
    task: &Task,
    socket: &Arc<dyn Socket>,
    level: i32,
    name: i32,
    addr: usize,
    len: usize,
) -> Result<Option<Result<()>>> {
    if socket.family() == net::AF_UNIX {
        return Ok(None);
    }
    let mut value = alloc::vec![0; len.min(OPTION_MAX)];
    copy_in(&mut value, addr)?;
    Ok(socket.set_option(&caller(task), level, name, &value))
}

fn set_int(task: &Task, options: &Options, name: i32, value: i32, addr: usize, len: usize) -> Result<()> {
    let privileged = || task.cred().capable(Capability::NetAdmin);
    match name {
        option::SO_SNDBUF => options.set_buffer(false, value, false),
        option::SO_RCVBUF => options.set_buffer(true, value, false),
        option::SO_SNDBUFFORCE if privileged() => options.set_buffer(false, value, true),
        option::SO_RCVBUFFORCE if privileged() => options.set_buffer(true, value, true),
        option::SO_SNDBUFFORCE | option::SO_RCVBUFFORCE => return Err(Errno::EPERM),
        option::SO_PASSCRED => options.pass_credentials.store(value != 0, Ordering::Relaxed),
        option::SO_RCVLOWAT => {
            options.low_water.store(if value < 0 { i32::MAX } else { value.max(1) }, Ordering::Relaxed)
        }
        option::SO_PRIORITY if (0..=6).contains(&value) || privileged() => {
            options.priority.store(value, Ordering::Relaxed);
        }
        option::SO_TIMESTAMPING => options.set_timestamping(value as u32)?,
        // An `unsigned long`, or a word whose largest value means no limit.
        option::SO_MAX_PACING_RATE if len >= 8 => {
            options.max_pacing.store(UserPtr::<u64>::new(addr).read()?, Ordering::Relaxed);
        }
        option::SO_MAX_PACING_RATE => {
            let rate = if value == -1 { u64::MAX } else { u64::from(value as u32) };
            options.max_pacing.store(rate, Ordering::Relaxed);
        }
        option::SO_MARK if privileged() => options.mark.store(value, Ordering::Relaxed),
        option::SO_MARK => return Err(Errno::EPERM),
        option::SO_PRIORITY => return Err(Errno::EPERM),
        option::SO_LINGER => {
            if len < 8 {
                return Err(Errno::EINVAL);
            }
            let [on, seconds] = UserPtr::<[i32; 2]>::new(addr).read()?;
            options.linger[0].store(on, Ordering::Relaxed);
            options.linger[1].store(seconds, Ordering::Relaxed);
        }
        name if KEPT.contains(&name) => options.set_flag(name, value != 0),
        option::SO_TYPE | option::SO_PROTOCOL | option::SO_DOMAIN | option::SO_ERROR | option::SO_ACCEPTCONN => {
            return Err(Errno::ENOPROTOOPT);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// The value of an option as bytes.
fn get_option(socket: &Arc<dyn Socket>, name: i32) -> Result<Vec<u8>> {
    let options = socket.options();
    let time = |nanos: u64| Timeval::from_nanos(nanos).as_bytes().to_vec();
    let value = match name {
        option::SO_TYPE => socket.kind() as i32,
        option::SO_DOMAIN => socket.family(),
        option::SO_PROTOCOL => socket.protocol(),
        option::SO_ERROR => socket.take_error().map_or(0, Errno::code),
        option::SO_SNDBUF => options.send_buffer.load(Ordering::Relaxed) as i32,
        option::SO_RCVBUF => options.receive_buffer.load(Ordering::Relaxed) as i32,
        option::SO_PASSCRED => i32::from(options.pass_credentials.load(Ordering::Relaxed)),
        option::SO_RCVLOWAT => options.low_water.load(Ordering::Relaxed),
        option::SO_SNDLOWAT => 1,
        option::SO_PRIORITY => options.priority.load(Ordering::Relaxed),
        option::SO_MARK => options.mark.load(Ordering::Relaxed),
        option::SO_TIMESTAMPING => options.timestamping.load(Ordering::Relaxed) as i32,
        option::SO_MAX_PACING_RATE => return Ok(options.max_pacing.load(Ordering::Relaxed).to_ne_bytes().to_vec()),
        option::SO_INCOMING_CPU => -1,
        option::SO_COOKIE => return Ok(options.cookie().to_ne_bytes().to_vec()),
        option::SO_NETNS_COOKIE => return Ok(1u64.to_ne_bytes().to_vec()),
        option::SO_ACCEPTCONN => i32::from(socket.is_listening()),
        option::SO_RCVTIMEO => return Ok(time(options.receive_timeout.load(Ordering::Relaxed))),
        option::SO_SNDTIMEO => return Ok(time(options.send_timeout.load(Ordering::Relaxed))),
        option::SO_LINGER => {
            let linger = [0, 1].map(|i: usize| options.linger[i].load(Ordering::Relaxed));
            return Ok(linger.as_bytes().to_vec());
        }
        option::SO_PEERCRED => return Ok(socket.peer_credentials().as_bytes().to_vec()),
        option::SO_PEERGROUPS => return Ok(socket.peer_groups()?.as_slice().as_bytes().to_vec()),
        option::SO_PEERNAME => return socket.peer_name(),
        option::SO_LOCK_FILTER => i32::from(options.filter.is_locked()),
        name if KEPT.contains(&name) => i32::from(options.flag(name)),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(value.to_ne_bytes().to_vec())
}

/// SO_GET_FILTER: its length counts instructions, as does the buffer's. `EINVAL` where they don't fit.
fn get_filter(socket: &Arc<dyn Socket>, addr: usize, room: usize, length: UserPtr<i32>) -> Result<usize> {
    let instructions = socket.options().filter.instructions();
    if room != 0 && !instructions.is_empty() {
        if room < instructions.len() {
            return Err(Errno::EINVAL);
        }
        let bytes: Vec<u8> = instructions.iter().flat_map(|instruction| instruction.bytes()).collect();
        copy_out(addr, &bytes)?;
    }
    length.write(&(instructions.len() as i32))?;
    Ok(0)
}

/// A number at IPPROTO_IP that fits a byte may be asked for as one.
fn short_value(value: Vec<u8>, level: i32, room: usize) -> Vec<u8> {
    let byte = level == 0 && (1..4).contains(&room) && value.len() == 4 && value[1..] == [0; 3];
    if byte { value[..1].to_vec() } else { value }
}

pub(crate) fn getsockopt(cx: &mut Context, a: Args) -> Result<usize> {
    let (_, socket) = socket_file(cx.task, a.fd(0))?;
    let length: UserPtr<i32> = a.ptr(4);
    let room = usize::try_from(length.read()?).map_err(|_| Errno::EINVAL)?;
    if (a.int(1), a.int(2)) == (level::SOL_SOCKET, option::SO_ATTACH_FILTER) {
        return get_filter(&socket, a.0[3], room, length);
    }
    let reads = socket.reads_buffer(a.int(1), a.int(2));
    let mut given = alloc::vec![0; if reads { room.min(OPTION_MAX) } else { 0 }];
    copy_in(&mut given, a.0[3])?;
    let value = match socket.get_option_for(a.int(1), a.int(2), &given) {
        Some(value) => short_value(value?, a.int(1), room),
        None if a.int(1) == level::SOL_SOCKET => get_option(&socket, a.int(2))?,
        None => return Err(Errno::EOPNOTSUPP),
    };
    if a.int(2) == option::SO_PEERGROUPS && value.len() > room {
        length.write(&(value.len() as i32))?;
        return Err(Errno::ERANGE);
    }
    let len = value.len().min(room);
    copy_out(a.0[3], &value[..len])?;
    length.write(&(len as i32))?;
    Ok(0)
}
