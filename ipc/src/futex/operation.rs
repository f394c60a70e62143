//! The small language of FUTEX_WAKE_OP: how to change a word, and how to compare what it held.

use base::{Errno, Result};

/// The encoded operation, futex(2)'s `val3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WakeOperation(pub u32);

impl WakeOperation {
    fn argument(self) -> u32 {
        let argument = sign_extend_12(self.0 >> 12);
        if self.0 >> 28 & 8 != 0 { 1u32.wrapping_shl(argument & 31) } else { argument }
    }

    /// The new value of a word that held `old`. `ENOSYS`.
    pub fn apply(self, old: u32) -> Result<u32> {
        let argument = self.argument();
        Ok(match self.0 >> 28 & 7 {
            0 => argument,
            1 => old.wrapping_add(argument),
            2 => old | argument,
            3 => old & !argument,
            4 => old ^ argument,
            _ => return Err(Errno::ENOSYS),
        })
    }

    /// Does `old` compare as asked? `ENOSYS`.
    pub fn compare(self, old: u32) -> Result<bool> {
        let (old, with) = (old as i32, sign_extend_12(self.0) as i32);
        Ok(match self.0 >> 24 & 15 {
            0 => old == with,
            1 => old != with,
            2 => old < with,
            3 => old <= with,
            4 => old > with,
            5 => old >= with,
            _ => return Err(Errno::ENOSYS),
        })
    }
}

fn sign_extend_12(value: u32) -> u32 {
    (((value & 0xfff) << 20) as i32 >> 20) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(operation: u32, compare: u32, argument: u32, with: u32) -> WakeOperation {
        WakeOperation(operation << 28 | compare << 24 | (argument & 0xfff) << 12 | with & 0xfff)
    }

    #[test]
    fn operations_change_and_compare() {
        let add = encode(1, 4, 1, 0);
        assert_eq!(add.apply(5), Ok(6));
        assert_eq!((add.compare(1), add.compare(0)), (Ok(true), Ok(false)));
        assert_eq!(encode(8 | 2, 0, 4, 0).apply(1), Ok(17));
        assert_eq!(encode(3, 0, 3, 0).apply(7), Ok(4));
        assert_eq!(encode(0, 2, 0xfff, 0).apply(7), Ok(u32::MAX));
        assert_eq!(encode(0, 0, 0, 0xfff).compare(u32::MAX), Ok(true));
        assert_eq!(encode(5, 0, 0, 0).apply(0), Err(Errno::ENOSYS));
        assert_eq!(encode(0, 6, 0, 0).compare(0), Err(Errno::ENOSYS));
    }
}
