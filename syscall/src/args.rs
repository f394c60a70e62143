//! Decoding of system-call arguments: each register is read as the C type that the manual page names, as Linux does.

use fs::Fd;
use hal::user::UserPtr;

/// The six argument registers.
#[derive(Clone, Copy)]
pub(crate) struct Args(pub(crate) [usize; 6]);

impl Args {
    /// An `int`: the low 32 bits.
    #[inline]
    pub(crate) fn int(self, n: usize) -> i32 {
        self.0[n] as u32 as i32
    }

    /// An `unsigned int`: the low 32 bits.
    #[inline]
    pub(crate) fn uint(self, n: usize) -> u32 {
        self.0[n] as u32
    }

    /// An `unsigned long` or `size_t`.
    #[inline]
    pub(crate) fn size(self, n: usize) -> usize {
        self.0[n]
    }

    /// A `loff_t`.
    #[inline]
    pub(crate) fn offset(self, n: usize) -> i64 {
        self.0[n] as i64
    }

    /// A file descriptor.
    #[inline]
    pub(crate) fn fd(self, n: usize) -> Fd {
        self.int(n)
    }

    /// A pointer.
    #[inline]
    pub(crate) fn ptr<T>(self, n: usize) -> UserPtr<T> {
        UserPtr::new(self.0[n])
    }
}
