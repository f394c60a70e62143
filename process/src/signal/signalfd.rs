//! The calling thread's signals as signalfd(2) reads them.

use alloc::sync::Arc;

use ipc::signalfd::{RECORD, SignalSource};
use sched::WaitQueue;

use super::{SigFields, SigInfo, SigSet, deliver};
use crate::with_current;

/// Whatever thread calls.
pub struct CallerSignals;

impl SignalSource for CallerSignals {
    fn take(&self, mask: u64) -> Option<[u8; RECORD]> {
        with_current(|task| deliver::dequeue(task, SigSet(mask).without(SigSet::UNBLOCKABLE))).map(|info| layout(&info))
    }

    fn pending(&self, mask: u64) -> bool {
        with_current(|task| !task.own_pending().or(task.process().pending()).and(SigSet(mask)).is_empty())
    }

    fn queue(&self) -> Arc<WaitQueue> {
        with_current(|task| task.process().signal_wait().clone())
    }
}

/// Lays a signal out as `struct signalfd_siginfo`.
fn layout(info: &SigInfo) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &info.signal.number().to_ne_bytes());
    put(4, &info.errno.to_ne_bytes());
    put(8, &info.code.to_ne_bytes());
    let mut sender = |pid: i32, uid: u32| {
        put(12, &pid.to_ne_bytes());
        put(16, &uid.to_ne_bytes());
    };
    match info.fields {
        SigFields::None => {}
        SigFields::Sender { pid, uid } => sender(pid, uid),
        SigFields::Queued { pid, uid, value } => {
            sender(pid, uid);
            put(44, &(value as i32).to_ne_bytes());
            put(48, &value.to_ne_bytes());
        }
        SigFields::Timer { id, overrun, value } => {
            put(24, &id.to_ne_bytes());
            put(32, &overrun.to_ne_bytes());
            put(44, &(value as i32).to_ne_bytes());
            put(48, &value.to_ne_bytes());
        }
        SigFields::Child { pid, uid, status, utime, stime } => {
            sender(pid, uid);
            put(40, &status.to_ne_bytes());
            put(56, &utime.to_ne_bytes());
            put(64, &stime.to_ne_bytes());
        }
        SigFields::Fault { addr } => put(72, &(addr as u64).to_ne_bytes()),
        SigFields::Poll { band, fd } => {
            put(20, &fd.to_ne_bytes());
            put(28, &(band as i32).to_ne_bytes());
        }
        SigFields::Syscall { addr, number, arch } => {
            put(84, &number.to_ne_bytes());
            put(88, &(addr as u64).to_ne_bytes());
            put(96, &arch.to_ne_bytes());
        }
        SigFields::Raw(bytes) => {
            // pid, uid and value as siginfo_t has them, behind the first 12 bytes and a hole of 4.
            put(12, &bytes[4..12]);
            put(44, &bytes[12..16]);
            put(48, &bytes[12..20]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_linux_puts_them() {
        let info = SigInfo::from_user(super::super::SIGUSR1, -6, 7, 8);
        let bytes = layout(&info);
        assert_eq!((bytes[0], bytes[12], bytes[16]), (10, 7, 8));
        assert_eq!(bytes[8..12], (-6i32).to_ne_bytes());
    }
}
