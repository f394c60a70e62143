//! What comes with a signal: `siginfo_t`.

use super::Signal;
use super::info_codes::SI_KERNEL;

/// Bytes in a `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// The part of `siginfo_t` that depends on where the signal comes from.
#[derive(Clone, Copy, Debug)]
pub enum SigFields {
    /// Nothing, all zero.
    None,
    /// Who sent it.
    Sender {
        /// The sender's process.
        pid: i32,
        /// The sender's real user.
        uid: u32,
    },
    /// Who sent it, with a value.
    Queued {
        /// The sender's process.
        pid: i32,
        /// The sender's real user.
        uid: u32,
        /// `sigval`.
        value: u64,
    },
    /// A POSIX timer.
    Timer {
        /// The timer's number.
        id: i32,
        /// How many expirations were missed.
        overrun: i32,
        /// `sigval`.
        value: u64,
    },
    /// A child changed state.
    Child {
        /// The child.
        pid: i32,
        /// Its real user.
        uid: u32,
        /// Exit code or signal number.
        status: i32,
        /// Its user time in clock ticks.
        utime: i64,
        /// Its system time in clock ticks.
        stime: i64,
    },
    /// A fault.
    Fault {
        /// The address.
        addr: usize,
    },
    /// A descriptor became ready (F_SETSIG).
    Poll {
        /// The events.
        band: i64,
        /// The descriptor.
        fd: i32,
    },
    /// A system call that was not made.
    Syscall {
        /// Where it was.
        addr: usize,
        /// Its number.
        number: i32,
        /// AUDIT_ARCH_*.
        arch: u32,
    },
    /// As user space gave it to rt_sigqueueinfo(2): the bytes from offset 12.
    Raw([u8; SIGINFO_SIZE - 12]),
}

/// A signal with what comes with it.
#[derive(Clone, Copy, Debug)]
pub struct SigInfo {
    /// Which.
    pub signal: Signal,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The rest.
    pub fields: SigFields,
}

impl SigInfo {
    /// A signal that the kernel sends.
    pub const fn kernel(signal: Signal) -> SigInfo {
        SigInfo { signal, errno: 0, code: SI_KERNEL, fields: SigFields::None }
    }

    /// A signal that a process sends with kill(2) (`SI_USER`) or tkill(2) (`SI_TKILL`).
    pub const fn from_user(signal: Signal, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo { signal, errno: 0, code, fields: SigFields::Sender { pid, uid } }
    }

    /// A fault at `addr`.
    pub const fn fault(signal: Signal, code: i32, addr: usize) -> SigInfo {
        SigInfo { signal, errno: 0, code, fields: SigFields::Fault { addr } }
    }

    /// Does it come from the kernel rather than from a process?
    pub const fn is_from_kernel(&self) -> bool {
        self.code > 0
    }

    /// The layout of `siginfo_t`.
    pub fn to_bytes(&self) -> [u8; SIGINFO_SIZE] {
        let mut out = [0; SIGINFO_SIZE];
        put(&mut out, 0, &self.signal.number().to_ne_bytes());
        put(&mut out, 4, &self.errno.to_ne_bytes());
        put(&mut out, 8, &self.code.to_ne_bytes());
        match self.fields {
            SigFields::None => {}
            SigFields::Sender { pid, uid } => {
                put(&mut out, 16, &pid.to_ne_bytes());
                put(&mut out, 20, &uid.to_ne_bytes());
            }
            SigFields::Queued { pid, uid, value } => {
                put(&mut out, 16, &pid.to_ne_bytes());
                put(&mut out, 20, &uid.to_ne_bytes());
                put(&mut out, 24, &value.to_ne_bytes());
            }
            SigFields::Timer { id, overrun, value } => {
                put(&mut out, 16, &id.to_ne_bytes());
                put(&mut out, 20, &overrun.to_ne_bytes());
                put(&mut out, 24, &value.to_ne_bytes());
            }
            SigFields::Child { pid, uid, status, utime, stime } => {
                put(&mut out, 16, &pid.to_ne_bytes());
                put(&mut out, 20, &uid.to_ne_bytes());
                put(&mut out, 24, &status.to_ne_bytes());
                put(&mut out, 32, &utime.to_ne_bytes());
                put(&mut out, 40, &stime.to_ne_bytes());
            }
            SigFields::Fault { addr } => put(&mut out, 16, &addr.to_ne_bytes()),
            SigFields::Poll { band, fd } => {
                put(&mut out, 16, &band.to_ne_bytes());
                put(&mut out, 24, &fd.to_ne_bytes());
            }
            SigFields::Syscall { addr, number, arch } => {
                put(&mut out, 16, &addr.to_ne_bytes());
                put(&mut out, 24, &number.to_ne_bytes());
                put(&mut out, 28, &arch.to_ne_bytes());
            }
            SigFields::Raw(bytes) => put(&mut out, 12, &bytes),
        }
        out
    }

    /// What rt_sigqueueinfo(2) was given, for `signal`, whatever the `si_signo` in the bytes says.
    pub fn from_bytes(signal: Signal, bytes: &[u8; SIGINFO_SIZE]) -> SigInfo {
        let mut rest = [0; SIGINFO_SIZE - 12];
        rest.copy_from_slice(&bytes[12..]);
        SigInfo { signal, errno: int(bytes, 4), code: int(bytes, 8), fields: SigFields::Raw(rest) }
    }

    /// The sender and the value, where there are any: for signalfd (`ssi_pid`, `ssi_uid`, `ssi_ptr`).
    pub fn sender(&self) -> (i32, u32) {
        let bytes = self.to_bytes();
        (int(&bytes, 16), int(&bytes, 20) as u32)
    }
}

fn put(out: &mut [u8; SIGINFO_SIZE], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn int(bytes: &[u8; SIGINFO_SIZE], at: usize) -> i32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    i32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::super::info_codes::CLD_EXITED;
    use super::super::{SIGCHLD, SIGUSR1};
    use super::*;

    #[test]
    fn fields_lie_where_linux_puts_them() {
        let fields = SigFields::Child { pid: 7, uid: 8, status: 9, utime: 10, stime: 11 };
        let info = SigInfo { signal: SIGCHLD, errno: 0, code: CLD_EXITED, fields };
        let bytes = info.to_bytes();
        assert_eq!((int(&bytes, 0), int(&bytes, 8)), (17, 1));
        assert_eq!((int(&bytes, 16), int(&bytes, 20), int(&bytes, 24)), (7, 8, 9));
        assert_eq!((bytes[32], bytes[40]), (10, 11));
    }

    #[test]
    fn user_bytes_pass_unchanged_but_for_the_number() {
        let mut bytes = [0xa5; SIGINFO_SIZE];
        bytes[..4].copy_from_slice(&99i32.to_ne_bytes());
        let out = SigInfo::from_bytes(SIGUSR1, &bytes).to_bytes();
        assert_eq!(int(&out, 0), 10);
        assert_eq!(out[4..], bytes[4..]);
    }
}
