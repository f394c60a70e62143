//! Decoding of system-call arguments: each register is read as the C type that the manual page names, as Linux does.

use base::{Errno, Result};
use fs::Fd;
use hal::user::{self, UserPtr};
use zerocopy::{FromZeros, IntoBytes};

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

/// Reads a structure that grows from version to version, of which the caller has `size` bytes: a shorter one is filled up with zeros, a
/// longer one must end in zeros. `E2BIG` (also over a page), `EFAULT`.
pub(crate) fn extensible<T: FromZeros + IntoBytes + zerocopy::FromBytes>(addr: usize, size: usize) -> Result<T> {
    if size > abi::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut value = T::new_zeroed();
    let known = size.min(size_of::<T>());
    user::copy_in(&mut value.as_mut_bytes()[..known], addr)?;
    let mut rest = known;
    while rest < size {
        let mut chunk = [0; 64];
        let chunk = &mut chunk[..(size - rest).min(64)];
        user::copy_in(chunk, addr.wrapping_add(rest))?;
        if chunk.iter().any(|&byte| byte != 0) {
            return Err(Errno::E2BIG);
        }
        rest += chunk.len();
    }
    Ok(value)
}
