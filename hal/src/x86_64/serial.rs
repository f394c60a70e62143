//! The first serial port (16550), for the kernel's log.

use super::cpu_regs::{inb, outb};

const COM1: u16 = 0x3f8;

/// 115200 baud, 8N1, FIFOs on.
pub(crate) fn init() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 0x0b)] {
        outb(COM1 + register, value);
    }
}

/// Sends one byte, waiting for room (but not for ever, should there be no port).
pub(crate) fn send(byte: u8) {
    for _ in 0..100_000 {
        if inb(COM1 + 5) & 0x20 != 0 {
            break;
        }
    }
    outb(COM1, byte);
}
