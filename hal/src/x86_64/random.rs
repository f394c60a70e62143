//! The processor's random numbers.

use core::arch::asm;

use super::{cpu_regs, features};

/// A 64-bit seed: RDSEED or RDRAND mixed with the time-stamp counter, whose jitter is all there is where neither exists.
pub(crate) fn seed() -> u64 {
    let mut value = cpu_regs::rdtsc();
    for _ in 0..16 {
        let (word, ok): (u64, u8);
        // SAFETY: executed only where CPUID has the instruction.
        unsafe {
            if features::get().rdseed {
                asm!("rdseed {}", "setc {}", out(reg) word, out(reg_byte) ok, options(nomem, nostack));
            } else if features::get().rdrand {
                asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) ok, options(nomem, nostack));
            } else {
                break;
            }
        }
        if ok != 0 {
            return value.rotate_left(32) ^ word;
        }
    }
    for _ in 0..64 {
        value = value.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ cpu_regs::rdtsc();
    }
    value
}
