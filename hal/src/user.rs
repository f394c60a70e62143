//! Copies to and from the user half of the current address space.
//!
//! A raw `usize` from a register never passes for memory: it is first made a [`UserPtr`] or [`UserBuf`], which proves nothing about
//! what is mapped there. Each copy checks the range against the user half and survives faults: a page that the fault hook can't
//! bring in ends the copy with `EFAULT`, and bytes before it have been copied. Copies may sleep: never call them under a spin lock.

use base::{Errno, Result};
use core::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::arch;
use crate::sync::lockdep::may_fault;

/// One past the highest address that user mode may use (47 bits, less a guard page, as Linux's `TASK_SIZE`).
pub const USER_END: usize = 0x7fff_ffff_f000;

/// An address in user space where a `T` may be.
pub struct UserPtr<T> {
    addr: usize,
    _type: PhantomData<*const T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}

impl<T> UserPtr<T> {
    /// The pointer that a register holds.
    #[inline]
    pub const fn new(addr: usize) -> UserPtr<T> {
        UserPtr { addr, _type: PhantomData }
    }

    /// The address.
    #[inline]
    pub const fn addr(self) -> usize {
        self.addr
    }

    /// Is it NULL?
    #[inline]
    pub const fn is_null(self) -> bool {
        self.addr == 0
    }

    /// `None` for NULL.
    #[inline]
    pub fn non_null(self) -> Option<UserPtr<T>> {
        (!self.is_null()).then_some(self)
    }

    /// The `index`th element of an array that starts here.
    #[inline]
    pub const fn at(self, index: usize) -> UserPtr<T> {
        UserPtr::new(self.addr.wrapping_add(index.wrapping_mul(size_of::<T>())))
    }

    /// The same address, as a pointer to another type.
    #[inline]
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }

    /// The bytes of `count` elements from here. `EFAULT` where that overflows.
    pub fn buf(self, count: usize) -> Result<UserBuf> {
        Ok(UserBuf::new(self.addr, count.checked_mul(size_of::<T>()).ok_or(Errno::EFAULT)?))
    }
}

impl<T: FromBytes + IntoBytes> UserPtr<T> {
    /// Copies the value in. `EFAULT` where it can't be read.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn read(self) -> Result<T> {
        let mut value = T::new_zeroed();
        copy_in(value.as_mut_bytes(), self.addr)?;
        Ok(value)
    }
}

impl<T: IntoBytes + Immutable> UserPtr<T> {
    /// Copies the value out. `EFAULT` where it can't be written.
    #[cfg_attr(feature = "lockdep", track_caller)]
    pub fn write(self, value: &T) -> Result<()> {
        copy_out(self.addr, value.as_bytes())
    }
}

/// A range of user space, nothing of which need be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserBuf {
    /// Where it starts.
    pub addr: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl UserBuf {
    /// The range of `len` bytes from `addr`.
    pub const fn new(addr: usize, len: usize) -> UserBuf {
        UserBuf { addr, len }
    }

    /// Does it lie in the user half? What access_ok tests: says nothing about what is mapped.
    pub const fn in_user_half(self) -> bool {
        self.len <= USER_END && self.addr <= USER_END - self.len
    }
}

/// Copies `dst.len()` bytes in from `src`. `EFAULT`.
#[inline]
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn copy_in(dst: &mut [u8], src: usize) -> Result<()> {
    if copy_in_some(dst, src) == dst.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies in as much as can be read before a fault; how much that was.
#[inline]
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn copy_in_some(dst: &mut [u8], src: usize) -> usize {
    if !UserBuf::new(src, dst.len()).in_user_half() {
        return 0;
    }
    may_fault();
    arch::copy_from_user(dst, src)
}

/// Copies `src` out to `dst`. `EFAULT`.
#[inline]
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn copy_out(dst: usize, src: &[u8]) -> Result<()> {
    if copy_out_some(dst, src) == src.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies out as much as can be written before a fault; how much that was.
#[inline]
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn copy_out_some(dst: usize, src: &[u8]) -> usize {
    if !UserBuf::new(dst, src.len()).in_user_half() {
        return 0;
    }
    may_fault();
    arch::copy_to_user(dst, src)
}

/// Writes `len` zero bytes at `dst`. `EFAULT`.
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn clear(dst: usize, len: usize) -> Result<()> {
    if !UserBuf::new(dst, len).in_user_half() {
        return Err(Errno::EFAULT);
    }
    may_fault();
    if arch::clear_user(dst, len) == len { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies in a NUL-terminated string into `buf` and returns it without the NUL.
/// `ENAMETOOLONG` where `buf` has no room for it with its NUL, `EFAULT`.
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn read_cstr(buf: &mut [u8], src: usize) -> Result<&mut [u8]> {
    let mut done = 0;
    while done < buf.len() {
        // Not past the page's end in one step: the string may end before an unmapped page.
        let addr = src.checked_add(done).ok_or(Errno::EFAULT)?;
        let step = (abi::PAGE_SIZE - addr % abi::PAGE_SIZE).min(buf.len() - done).min(256);
        copy_in(&mut buf[done..done + step], addr)?;
        if let Some(end) = buf[done..done + step].iter().position(|&b| b == 0) {
            return Ok(&mut buf[..done + end]);
        }
        done += step;
    }
    Err(Errno::ENAMETOOLONG)
}

/// Reads an aligned 32-bit word atomically, as futexes do. `EFAULT`, `EINVAL` if not aligned.
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn load_u32(addr: usize) -> Result<u32> {
    check_word(addr)?;
    may_fault();
    arch::user_load_u32(addr).ok_or(Errno::EFAULT)
}

/// Stores `new` at an aligned word if it holds `old`; gives what it held. `EFAULT`, `EINVAL` if not aligned.
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn compare_exchange_u32(addr: usize, old: u32, new: u32) -> Result<u32> {
    check_word(addr)?;
    may_fault();
    arch::user_cmpxchg_u32(addr, old, new).ok_or(Errno::EFAULT)
}

fn check_word(addr: usize) -> Result<()> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if UserBuf::new(addr, 4).in_user_half() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies `len` bytes from `offset` of a frame out to user space, without a detour; how much was copied before a fault.
/// Panics where the range exceeds the frame.
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn frame_to_user(frame: &crate::frame::Frame, offset: usize, dst: usize, len: usize) -> usize {
    assert!(offset <= abi::PAGE_SIZE && len <= abi::PAGE_SIZE - offset);
    if !UserBuf::new(dst, len).in_user_half() {
        return 0;
    }
    may_fault();
    // SAFETY: the range lies in the frame, which `frame` keeps allocated, and the copy tolerates concurrent changes.
    unsafe { arch::copy_to_user_raw(dst, frame.as_ptr().add(offset), len) }
}

/// Copies `len` bytes from user space into a frame at `offset`; how much was copied before a fault.
/// Panics where the range exceeds the frame.
#[cfg_attr(feature = "lockdep", track_caller)]
pub fn user_to_frame(frame: &crate::frame::Frame, offset: usize, src: usize, len: usize) -> usize {
    assert!(offset <= abi::PAGE_SIZE && len <= abi::PAGE_SIZE - offset);
    if !UserBuf::new(src, len).in_user_half() {
        return 0;
    }
    may_fault();
    // SAFETY: as for `frame_to_user`.
    unsafe { arch::copy_from_user_raw(frame.as_ptr().add(offset), src, len) }
}
