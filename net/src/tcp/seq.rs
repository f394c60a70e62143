//! Sequence numbers: 32 bits that wrap (RFC 9293, 3.4).

use core::ops::{Add, AddAssign, Sub};

/// A sequence number. Two are compared by the shorter way around.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// Is it before `other`?
    #[inline]
    pub fn before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Is it after `other`?
    #[inline]
    pub fn after(self, other: Seq) -> bool {
        other.before(self)
    }

    /// Is it `from` or after, and not after `to`?
    #[inline]
    pub fn within(self, from: Seq, to: Seq) -> bool {
        !self.before(from) && !self.after(to)
    }

    /// The later of the two.
    #[inline]
    pub fn max(self, other: Seq) -> Seq {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    pub fn min(self, other: Seq) -> Seq {
        if self.before(other) { self } else { other }
    }

    /// How far it is behind `earlier`; 0 if it is before it.
    #[inline]
    pub fn since(self, earlier: Seq) -> usize {
        (self - earlier).max(0) as usize
    }
}

impl Add<usize> for Seq {
    type Output = Seq;
    #[inline]
    fn add(self, n: usize) -> Seq {
        Seq(self.0.wrapping_add(n as u32))
    }
}

impl AddAssign<usize> for Seq {
    #[inline]
    fn add_assign(&mut self, n: usize) {
        *self = *self + n;
    }
}

impl Sub for Seq {
    type Output = i32;
    #[inline]
    fn sub(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}
