//! Sockets: sending and receiving.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Capability, Errno, Nanos, Result};
use fs::OpenFile;
use hal::user::{UserBuf, UserPtr, copy_in, copy_out};
use mm::{Sink, Source};
use net::{Control, ControlMessage, MessageFlags, Outgoing, Received, Socket, Ucred};
use process::Task;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;
use crate::open::fd_limit;
use crate::socket::{caller, nonblocking, read_address, socket_file, store_address};
use crate::timespec::Timespec;
use crate::transfer::{MAX_COUNT, buffers, raise_pipe};

/// `struct msghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(crate) struct RawMessage {
    name: usize,
    pub(crate) name_len: i32,
    _pad: u32,
    pub(crate) iov: usize,
    pub(crate) iov_len: usize,
    pub(crate) control: usize,
    pub(crate) control_len: usize,
    flags: u32,
    _pad2: u32,
}

impl RawMessage {
    /// The same, with the room for the address and the control data elsewhere.
    pub(crate) fn at(&self, name: usize, control: usize) -> RawMessage {
        let name = if self.name_len == 0 { 0 } else { name };
        let control = if self.control_len == 0 { 0 } else { control };
        RawMessage { name, control, ..*self }
    }
}

/// `struct mmsghdr` is a message and the bytes it moved.
const MMSG_SIZE: usize = size_of::<RawMessage>() + 8;
/// `struct cmsghdr`: length, level, type.
const CONTROL_HEADER: usize = 16;
/// The most descriptors in one message (SCM_MAX_FD).
const FILES_MAX: usize = 253;
/// The most bytes of control data (`net.core.optmem_max`).
const CONTROL_MAX: usize = 20480;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;

fn int_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

/// Reads control messages. `EINVAL`, `EBADF`, `EPERM`, `ENOBUFS`.
pub(crate) fn read_control(task: &Task, addr: usize, len: usize) -> Result<Control> {
    let mut control = Control::default();
    if len == 0 {
        return Ok(control);
    }
    if len > CONTROL_MAX {
        return Err(Errno::ENOBUFS);
    }
    let mut raw = alloc::vec![0; len];
    copy_in(&mut raw, addr)?;
    let mut rest = &raw[..];
    while rest.len() >= CONTROL_HEADER {
        let size = rest.first_chunk::<8>().map_or(0, |b| usize::from_ne_bytes(*b));
        if size < CONTROL_HEADER || size > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = &rest[CONTROL_HEADER..size];
        if int_at(rest, 8) == SOL_SOCKET {
            match int_at(rest, 12) {
                SCM_RIGHTS => add_files(task, data, &mut control)?,
                SCM_CREDENTIALS => control.credentials = Some(check_credentials(task, data)?),
                _ => return Err(Errno::EINVAL),
            }
        } else {
            let message = ControlMessage { level: int_at(rest, 8), kind: int_at(rest, 12), data: data.to_vec() };
            control.messages.push(message);
        }
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(control)
}

fn add_files(task: &Task, data: &[u8], control: &mut Control) -> Result<()> {
    let files = task.files();
    for number in data.chunks_exact(4) {
        if control.files.len() >= FILES_MAX {
            return Err(Errno::EINVAL);
        }
        let open = files.get_any(int_at(number, 0))?;
        // A ring keeps what is registered with it: sent over a socket of its own, it could never be given back.
        if crate::io_uring::is_ring(&open) {
            return Err(Errno::EINVAL);
        }
        control.files.push(open);
    }
    Ok(())
}

/// The credentials that the sender claims: its own, unless it may pretend. `EPERM`, `EINVAL`.
fn check_credentials(task: &Task, data: &[u8]) -> Result<Ucred> {
    let claimed = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
    let cred = task.cred();
    let pid_ok = claimed.pid == task.pid() || cred.capable(Capability::SysAdmin);
    let uid_ok = [cred.uid, cred.euid, cred.suid].contains(&claimed.uid) || cred.capable(Capability::Setuid);
    let gid_ok = [cred.gid, cred.egid, cred.sgid].contains(&claimed.gid) || cred.capable(Capability::Setgid);
    if pid_ok && uid_ok && gid_ok { Ok(claimed) } else { Err(Errno::EPERM) }
}

fn send(
    cx: &Context,
    (open, socket): &(Arc<OpenFile>, Arc<dyn Socket>),
    buffers: &[UserBuf],
    to: Option<&[u8]>,
    control: Control,
    flags: MessageFlags,
) -> Result<usize> {
    let outgoing = Outgoing { to, control, flags };
    let result = socket.send(Some(&caller(cx.task)), &mut Source::user(buffers), outgoing, nonblocking(open));
    if flags.contains(MessageFlags::NOSIGNAL) { result } else { raise_pipe(cx.task, result) }
}

/// A buffer argument. `EFAULT`.
fn buffer(addr: usize, len: usize) -> Result<UserBuf> {
    let buffer = UserBuf::new(addr, len.min(MAX_COUNT));
    if buffer.in_user_half() { Ok(buffer) } else { Err(Errno::EFAULT) }
}

fn message_flags(bits: u32) -> MessageFlags {
    MessageFlags::from_bits_truncate(bits)
}

pub(crate) fn sendto(cx: &mut Context, a: Args) -> Result<usize> {
    let socket = socket_file(cx.task, a.fd(0))?;
    let to = if a.0[4] != 0 { Some(read_address(a.0[4], a.int(5))?) } else { None };
    let buffers = [buffer(a.0[1], a.size(2))?];
    send(cx, &socket, &buffers, to.as_deref(), Control::default(), message_flags(a.uint(3)))
}

/// Where a message goes, if it says. `EINVAL`, `EFAULT`.
pub(crate) fn message_address(raw: &RawMessage) -> Result<Option<Vec<u8>>> {
    let given = raw.name != 0 && raw.name_len != 0;
    given.then(|| read_address(raw.name, raw.name_len.min(128))).transpose()
}

fn send_message(cx: &Context, socket: &(Arc<OpenFile>, Arc<dyn Socket>), addr: usize, flags: u32) -> Result<usize> {
    let raw = UserPtr::<RawMessage>::new(addr).read()?;
    let to = message_address(&raw)?;
    if raw.iov_len > crate::transfer::MAX_BUFFERS {
        return Err(Errno::EMSGSIZE);
    }
    let buffers = buffers(raw.iov, raw.iov_len)?;
    let control = read_control(cx.task, raw.control, if raw.control == 0 { 0 } else { raw.control_len })?;
    send(cx, socket, &buffers, to.as_deref(), control, message_flags(flags))
}

pub(crate) fn sendmsg(cx: &mut Context, a: Args) -> Result<usize> {
    let socket = socket_file(cx.task, a.fd(0))?;
    send_message(cx, &socket, a.0[1], a.uint(2))
}

pub(crate) fn sendmmsg(cx: &mut Context, a: Args) -> Result<usize> {
    let socket = socket_file(cx.task, a.fd(0))?;
    let count = (a.uint(2) as usize).min(crate::transfer::MAX_BUFFERS);
    for index in 0..count {
        let at = a.0[1].wrapping_add(index * MMSG_SIZE);
        match send_message(cx, &socket, at, a.uint(3)) {
            Ok(sent) => UserPtr::<u32>::new(at.wrapping_add(size_of::<RawMessage>())).write(&(sent as u32))?,
            Err(error) => return if index > 0 { Ok(index) } else { Err(error) },
        }
    }
    Ok(count)
}

pub(crate) fn recvfrom(cx: &mut Context, a: Args) -> Result<usize> {
    let (open, socket) = socket_file(cx.task, a.fd(0))?;
    let buffers = [buffer(a.0[1], a.size(2))?];
    let received = socket.receive(&mut Sink::user(&buffers), message_flags(a.uint(3)), nonblocking(&open))?;
    if a.0[4] != 0 {
        store_address(&received.from, a.0[4], a.ptr(5))?;
    }
    Ok(received.len)
}

/// Writes control messages into what room there is, and counts it.
struct ControlWriter {
    at: usize,
    room: usize,
    used: usize,
    truncated: bool,
}

impl ControlWriter {
    /// The bytes of data that still fit into a message of their own.
    fn room(&self) -> usize {
        (self.room - self.used).saturating_sub(CONTROL_HEADER)
    }

    fn put(&mut self, level: i32, kind: i32, data: &[u8]) -> Result<()> {
        if self.room - self.used < CONTROL_HEADER {
            self.truncated = true;
            return Ok(());
        }
        let len = data.len().min(self.room());
        self.truncated |= len < data.len();
        let mut raw = (CONTROL_HEADER + len).to_ne_bytes().to_vec();
        raw.extend_from_slice(&level.to_ne_bytes());
        raw.extend_from_slice(&kind.to_ne_bytes());
        raw.extend_from_slice(&data[..len]);
        copy_out(self.at.wrapping_add(self.used), &raw)?;
        self.used = (self.used + raw.len().next_multiple_of(8)).min(self.room);
        Ok(())
    }
}

/// Gives received files descriptors, as many as there is room for; the rest is closed.
fn install_files(
    task: &Task,
    files: Vec<Arc<OpenFile>>,
    writer: &mut ControlWriter,
    close_on_exec: bool,
) -> Result<()> {
    let mut numbers = Vec::new();
    let room = writer.room() / 4;
    let count = files.len();
    for open in files.into_iter().take(room) {
        match task.files().install(open, close_on_exec, fd_limit(task)) {
            Ok(fd) => numbers.push(fd),
            Err(_) => break,
        }
    }
    writer.truncated |= numbers.len() < count;
    if numbers.is_empty() { Ok(()) } else { writer.put(SOL_SOCKET, SCM_RIGHTS, numbers.as_slice().as_bytes()) }
}

/// Stores what came with a message into the structure at `at` and what that points to. `EFAULT`, `EINVAL`.
pub(crate) fn store_received(
    task: &Task,
    at: usize,
    raw: &RawMessage,
    received: Received,
    flags: MessageFlags,
) -> Result<()> {
    let name_len = received.from.len() as i32;
    let (control_len, told) = put_received(task, raw, received, flags)?;
    let name_len = if raw.name != 0 { name_len } else { raw.name_len };
    UserPtr::<RawMessage>::new(at).write(&RawMessage { name_len, control_len, flags: told, ..*raw })
}

/// Stores the address and the control data that came with a message; bytes of control data, and the flags to tell. `EFAULT`, `EINVAL`.
pub(crate) fn put_received(
    task: &Task,
    raw: &RawMessage,
    received: Received,
    flags: MessageFlags,
) -> Result<(usize, u32)> {
    if raw.name != 0 {
        let room = usize::try_from(raw.name_len).map_err(|_| Errno::EINVAL)?;
        copy_out(raw.name, &received.from[..received.from.len().min(room)])?;
    }
    let room = if raw.control == 0 { 0 } else { raw.control_len };
    let mut writer = ControlWriter { at: raw.control, room, used: 0, truncated: false };
    if let Some(credentials) = received.control.credentials {
        writer.put(SOL_SOCKET, SCM_CREDENTIALS, credentials.as_bytes())?;
    }
    for message in &received.control.messages {
        writer.put(message.level, message.kind, &message.data)?;
    }
    if !received.control.files.is_empty() {
        install_files(task, received.control.files, &mut writer, flags.contains(MessageFlags::CMSG_CLOEXEC))?;
    }
    let mut result = received.flags | flags & MessageFlags::CMSG_CLOEXEC;
    if writer.truncated {
        result |= MessageFlags::CTRUNC;
    }
    Ok((writer.used, result.bits()))
}

fn receive_message(
    cx: &Context,
    (open, socket): &(Arc<OpenFile>, Arc<dyn Socket>),
    at: usize,
    flags: MessageFlags,
) -> Result<usize> {
    let raw = UserPtr::<RawMessage>::new(at).read()?;
    if raw.iov_len > crate::transfer::MAX_BUFFERS {
        return Err(Errno::EMSGSIZE);
    }
    let buffers = buffers(raw.iov, raw.iov_len)?;
    let received = socket.receive(&mut Sink::user(&buffers), flags, nonblocking(open))?;
    let len = received.len;
    store_received(cx.task, at, &raw, received, flags)?;
    Ok(len)
}

pub(crate) fn recvmsg(cx: &mut Context, a: Args) -> Result<usize> {
    let socket = socket_file(cx.task, a.fd(0))?;
    receive_message(cx, &socket, a.0[1], message_flags(a.uint(2)))
}

pub(crate) fn recvmmsg(cx: &mut Context, a: Args) -> Result<usize> {
    let socket = socket_file(cx.task, a.fd(0))?;
    let timeout = Timespec::read_optional(a.ptr(4))?;
    let end: Option<Nanos> = timeout.map(|nanos| sched::time::now().saturating_add(nanos));
    let count = (a.uint(2) as usize).min(crate::transfer::MAX_BUFFERS);
    let mut flags = message_flags(a.uint(3));
    let wait_for_one = flags.contains(MessageFlags::WAITFORONE);
    let mut done = 0;
    while done < count {
        let at = a.0[1].wrapping_add(done * MMSG_SIZE);
        match receive_message(cx, &socket, at, flags - MessageFlags::WAITFORONE) {
            Ok(len) => UserPtr::<u32>::new(at.wrapping_add(size_of::<RawMessage>())).write(&(len as u32))?,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        done += 1;
        if wait_for_one {
            flags |= MessageFlags::DONTWAIT;
        }
        // As on Linux, the timeout is only looked at between messages.
        if end.is_some_and(|end| sched::time::now() >= end) {
            break;
        }
    }
    if let (Some(pointer), Some(end)) = (a.ptr::<Timespec>(4).non_null(), end) {
        pointer.write(&Timespec::from_nanos(end.saturating_sub(sched::time::now())))?;
    }
    Ok(done)
}

const _: () = assert!(size_of::<RawMessage>() == 56 && MMSG_SIZE == 64);
