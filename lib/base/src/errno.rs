//! Linux error numbers, as errno(3) lists them.

use core::fmt;

/// What every fallible kernel operation returns.
pub type Result<T, E = Errno> = core::result::Result<T, E>;

/// A Linux error number (1..=4095), returned to user space as its negative.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident = $value:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "errno(3) documents each")]
        impl Errno {
            $(pub const $name: Errno = Errno($value);)*
        }

        impl Errno {
            /// The symbolic name, or `E?` for a number that has none here.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    512 => "ERESTARTSYS",
                    513 => "ERESTARTNOINTR",
                    514 => "ERESTARTNOHAND",
                    516 => "ERESTART_RESTARTBLOCK",
                    _ => "E?",
                }
            }
        }
    };
}

errnos! {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    ENOEXEC = 8,
    EBADF = 9,
    ECHILD = 10,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    ENOTBLK = 15,
    EBUSY = 16,
    EEXIST = 17,
    EXDEV = 18,
    ENODEV = 19,
    ENOTDIR = 20,
    EISDIR = 21,
    EINVAL = 22,
    ENFILE = 23,
    EMFILE = 24,
    ENOTTY = 25,
    ETXTBSY = 26,
    EFBIG = 27,
    ENOSPC = 28,
    ESPIPE = 29,
    EROFS = 30,
    EMLINK = 31,
    EPIPE = 32,
    EDOM = 33,
    ERANGE = 34,
    EDEADLK = 35,
    ENAMETOOLONG = 36,
    ENOLCK = 37,
    ENOSYS = 38,
    ENOTEMPTY = 39,
    ELOOP = 40,
    ENOMSG = 42,
    EIDRM = 43,
    ENODATA = 61,
    ETIME = 62,
    EPROTO = 71,
    EBADMSG = 74,
    EOVERFLOW = 75,
    EBADFD = 77,
    EILSEQ = 84,
    EUSERS = 87,
    ENOTSOCK = 88,
    EDESTADDRREQ = 89,
    EMSGSIZE = 90,
    EPROTOTYPE = 91,
    ENOPROTOOPT = 92,
    EPROTONOSUPPORT = 93,
    ESOCKTNOSUPPORT = 94,
    EOPNOTSUPP = 95,
    EPFNOSUPPORT = 96,
    EAFNOSUPPORT = 97,
    EADDRINUSE = 98,
    EADDRNOTAVAIL = 99,
    ENETDOWN = 100,
    ENETUNREACH = 101,
    ENETRESET = 102,
    ECONNABORTED = 103,
    ECONNRESET = 104,
    ENOBUFS = 105,
    EISCONN = 106,
    ENOTCONN = 107,
    ESHUTDOWN = 108,
    ETOOMANYREFS = 109,
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    EHOSTDOWN = 112,
    EHOSTUNREACH = 113,
    EALREADY = 114,
    EINPROGRESS = 115,
    ESTALE = 116,
    EUCLEAN = 117,
    EDQUOT = 122,
    ENOMEDIUM = 123,
    ECANCELED = 125,
    ENOKEY = 126,
    EOWNERDEAD = 130,
    ENOTRECOVERABLE = 131,
}

impl Errno {
    /// EWOULDBLOCK is EAGAIN on Linux.
    pub const EWOULDBLOCK: Errno = Errno::EAGAIN;
    /// ENOTSUP is EOPNOTSUPP on Linux.
    pub const ENOTSUP: Errno = Errno::EOPNOTSUPP;
    /// Interrupted before anything was done: restart if the handler has SA_RESTART, else EINTR. Never seen by user space.
    pub const ERESTARTSYS: Errno = Errno(512);
    /// Interrupted: always restart. Never seen by user space.
    pub const ERESTARTNOINTR: Errno = Errno(513);
    /// Interrupted: restart only if no handler ran, else EINTR. Never seen by user space.
    pub const ERESTARTNOHAND: Errno = Errno(514);
    /// Interrupted with a restart block (nanosleep, poll, futex): restart by restart_syscall(2) if no handler ran, else EINTR.
    pub const ERESTART_RESTARTBLOCK: Errno = Errno(516);

    /// The positive number.
    pub const fn code(self) -> i32 {
        self.0 as i32
    }

    /// The error that a number in 1..=4095 stands for.
    pub const fn from_code(code: i32) -> Option<Errno> {
        if code >= 1 && code <= 4095 { Some(Errno(code as u16)) } else { None }
    }

    /// The value a system call returns for it: `-errno` as a register.
    pub const fn to_return(self) -> usize {
        (-(self.0 as isize)) as usize
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_agree_with_linux() {
        assert_eq!(Errno::ENOENT.code(), 2);
        assert_eq!(Errno::ENOTRECOVERABLE.code(), 131);
        assert_eq!(Errno::EDEADLK.name(), "EDEADLK");
        assert_eq!(Errno::EPERM.to_return(), usize::MAX);
        assert_eq!(Errno::from_code(0), None);
        assert_eq!(Errno::from_code(11), Some(Errno::EWOULDBLOCK));
    }
}
