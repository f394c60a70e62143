//! The table of operations.

use alloc::sync::Arc;

use base::{Errno, Result};
use ipc::io_uring::abi::op;

use super::request::{Body, Request};
use super::run::{Mode, Step};
use super::{cancel, message, notice, path, poll, timeout, transfer};
use crate::context::Context;

/// EPOLLEXCLUSIVE among a poll's events.
pub(super) const POLL_EXCLUSIVE: u32 = 1 << 28;

type Prepare = fn(&mut Context, &Arc<Request>, &mut Body) -> Result<()>;
type Issue = fn(&mut Context, &Arc<Request>, &mut Body, Mode) -> Step;

/// What is known of an operation.
pub(super) struct Operation {
    /// Its descriptor names a file.
    pub(super) needs_file: bool,
    /// It may use provided buffers.
    pub(super) selects_buffers: bool,
    /// It has a use for the field `ioprio`.
    pub(super) has_priority: bool,
    /// It goes with IOPOLL.
    pub(super) can_poll_device: bool,
    /// It goes to a worker at once: it may sleep for long, and no wait queue tells when it would not.
    pub(super) may_block: bool,
    /// Checks the submission and copies what it points to.
    pub(super) prepare: Prepare,
    /// Does it, or as much as goes without blocking.
    pub(super) issue: Issue,
}

const fn plain(prepare: Prepare, issue: Issue) -> Operation {
    Operation {
        needs_file: false,
        selects_buffers: false,
        has_priority: false,
        can_poll_device: false,
        may_block: false,
        prepare,
        issue,
    }
}

const fn on_file(prepare: Prepare, issue: Issue) -> Operation {
    Operation { needs_file: true, ..plain(prepare, issue) }
}

const fn blocking(operation: Operation) -> Operation {
    Operation { may_block: true, ..operation }
}

const fn data(prepare: Prepare, issue: Issue) -> Operation {
    Operation { has_priority: true, can_poll_device: true, ..on_file(prepare, issue) }
}

const fn socket(prepare: Prepare, issue: Issue) -> Operation {
    Operation { has_priority: true, ..on_file(prepare, issue) }
}

const fn selecting(operation: Operation) -> Operation {
    Operation { selects_buffers: true, ..operation }
}

const fn with_device_polling(operation: Operation) -> Operation {
    Operation { can_poll_device: true, ..operation }
}

fn nothing(_: &mut Context, _: &Arc<Request>, _: &mut Body) -> Result<()> {
    Ok(())
}

fn nop(_: &mut Context, _: &Arc<Request>, _: &mut Body, _: Mode) -> Step {
    Step::Done(Ok(0))
}

fn unsupported(_: &mut Context, _: &Arc<Request>, _: &mut Body) -> Result<()> {
    Err(Errno::EOPNOTSUPP)
}

static OPERATIONS: [Operation; op::COUNT as usize] = {
    let mut table = [const { plain(unsupported, nop) }; op::COUNT as usize];
    table[op::NOP as usize] = with_device_polling(plain(nothing, nop));
    table[op::READV as usize] = selecting(data(transfer::prepare_vector, transfer::read));
    table[op::WRITEV as usize] = data(transfer::prepare_vector, transfer::write);
    table[op::READ_FIXED as usize] = data(transfer::prepare_fixed, transfer::read);
    table[op::WRITE_FIXED as usize] = data(transfer::prepare_fixed, transfer::write);
    table[op::READ as usize] = selecting(data(transfer::prepare, transfer::read));
    table[op::WRITE as usize] = data(transfer::prepare, transfer::write);
    table[op::READ_MULTISHOT as usize] = selecting(on_file(transfer::prepare_multishot, transfer::read_multishot));
    table[op::FSYNC as usize] = blocking(on_file(transfer::prepare_sync, transfer::sync));
    table[op::SYNC_FILE_RANGE as usize] = blocking(on_file(transfer::prepare_sync_range, transfer::sync_range));
    table[op::FALLOCATE as usize] = blocking(on_file(transfer::prepare_allocate, transfer::allocate));
    table[op::FADVISE as usize] = on_file(transfer::prepare_advise, transfer::advise);
    table[op::MADVISE as usize] = plain(path::prepare_madvise, path::madvise);
    table[op::SPLICE as usize] = blocking(on_file(transfer::prepare_splice, transfer::splice));
    table[op::TEE as usize] = blocking(on_file(transfer::prepare_tee, transfer::splice));
    table[op::POLL_ADD as usize] = on_file(poll::prepare, poll::issue);
    table[op::POLL_REMOVE as usize] = plain(poll::prepare_remove, poll::remove);
    table[op::TIMEOUT as usize] = plain(timeout::prepare, timeout::issue);
    table[op::TIMEOUT_REMOVE as usize] = plain(timeout::prepare_remove, timeout::remove);
    table[op::LINK_TIMEOUT as usize] = plain(timeout::prepare_link, timeout::issue_link);
    table[op::ASYNC_CANCEL as usize] = plain(cancel::prepare, cancel::issue);
    table[op::ACCEPT as usize] = socket(message::prepare_accept, message::accept);
    table[op::CONNECT as usize] = on_file(message::prepare_connect, message::connect);
    table[op::SEND as usize] = socket(message::prepare_send, message::send);
    table[op::SENDMSG as usize] = socket(message::prepare_message, message::send_message);
    table[op::SEND_ZC as usize] = socket(message::prepare_send_zero_copy, message::send);
    table[op::SENDMSG_ZC as usize] = socket(message::prepare_message_zero_copy, message::send_message);
    table[op::RECV as usize] = selecting(socket(message::prepare_receive, message::receive));
    table[op::RECVMSG as usize] = selecting(socket(message::prepare_receive_message, message::receive_message));
    table[op::SHUTDOWN as usize] = on_file(message::prepare_shutdown, message::shutdown);
    table[op::SOCKET as usize] = plain(message::prepare_socket, message::socket);
    table[op::OPENAT as usize] = plain(path::prepare_open, path::open);
    table[op::OPENAT2 as usize] = plain(path::prepare_open, path::open);
    table[op::CLOSE as usize] = plain(path::prepare_close, path::close);
    table[op::STATX as usize] = plain(path::prepare_statx, path::statx);
    table[op::RENAMEAT as usize] = plain(path::prepare_rename, path::rename);
    table[op::UNLINKAT as usize] = plain(path::prepare_unlink, path::unlink);
    table[op::MKDIRAT as usize] = plain(path::prepare_mkdir, path::mkdir);
    table[op::SYMLINKAT as usize] = plain(path::prepare_symlink, path::symlink);
    table[op::LINKAT as usize] = plain(path::prepare_link, path::link);
    table[op::SETXATTR as usize] = plain(path::prepare_xattr, path::set_xattr);
    table[op::GETXATTR as usize] = plain(path::prepare_xattr, path::get_xattr);
    table[op::FSETXATTR as usize] = on_file(path::prepare_xattr, path::set_file_xattr);
    table[op::FGETXATTR as usize] = on_file(path::prepare_xattr, path::get_file_xattr);
    table[op::EPOLL_CTL as usize] = plain(path::prepare_epoll, path::epoll);
    table[op::WAITID as usize] = blocking(plain(path::prepare_waitid, path::waitid));
    table[op::FUTEX_WAIT as usize] = blocking(plain(path::prepare_futex, path::futex_wait));
    table[op::FUTEX_WAKE as usize] = plain(path::prepare_futex, path::futex_wake);
    table[op::FUTEX_WAITV as usize] = blocking(plain(path::prepare_futex_many, path::futex_wait_many));
    table[op::FILES_UPDATE as usize] = plain(notice::prepare_files_update, notice::files_update);
    table[op::PROVIDE_BUFFERS as usize] = with_device_polling(plain(notice::prepare_provide, notice::provide));
    table[op::REMOVE_BUFFERS as usize] = with_device_polling(plain(notice::prepare_remove, notice::remove));
    table[op::MSG_RING as usize] = with_device_polling(on_file(notice::prepare_message, notice::message));
    table[op::URING_CMD as usize] = with_device_polling(on_file(nothing, notice::command));
    table
};

/// The operation with that number; the first for numbers that have none.
pub(super) fn of(opcode: u8) -> &'static Operation {
    OPERATIONS.get(usize::from(opcode)).unwrap_or(&OPERATIONS[0])
}

/// Is it IORING_OP_POLL_ADD?
pub(super) fn is_poll(request: &Request) -> bool {
    request.sqe.opcode == op::POLL_ADD
}

/// Fields that an operation has no use for must be zero. `EINVAL`.
pub(super) fn zero<const N: usize>(fields: [u64; N]) -> Result<()> {
    if fields == [0; N] { Ok(()) } else { Err(Errno::EINVAL) }
}
