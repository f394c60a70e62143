//! Classic BPF: the little programs that choose packets (SO_ATTACH_FILTER) and system calls (seccomp).
//!
//! A [`Program`] was checked when it was made: it ends, it jumps forwards only and inside itself, it does not divide by a constant zero and uses no
//! register of its memory that was not written. Running one cannot fail; a load outside of the data ends it with 0. The instructions and the
//! rules of the check are those of Linux's `Documentation/networking/filter.rst` and of the BSD packet filter (McCanne and Jacobson, 1993).
#![cfg_attr(not(test), no_std)]
extern crate alloc;

use alloc::vec::Vec;

use base::{Errno, Result};

/// `struct sock_filter`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How far to jump if a condition holds, and if not.
    pub jt: u8,
    /// If not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

impl Instruction {
    /// Bytes of one.
    pub const SIZE: usize = 8;

    /// From the bytes of a `struct sock_filter`.
    pub fn parse(raw: [u8; Instruction::SIZE]) -> Instruction {
        Instruction {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        }
    }

    /// As the bytes of a `struct sock_filter`.
    pub fn bytes(&self) -> [u8; Instruction::SIZE] {
        let (code, k) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [code[0], code[1], self.jt, self.jf, k[0], k[1], k[2], k[3]]
    }
}

/// The most instructions of a program (BPF_MAXINSNS).
pub const LENGTH_MAX: usize = 4096;
/// Registers of its memory.
const MEMORY: usize = 16;

const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;

const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;

/// The source of an operation is the register X.
const X: u16 = 0x08;

/// What a program looks at. Offsets are as in the program: negative ones name things about the data (SKF_AD_OFF and such).
pub trait Data {
    /// Its length.
    fn len(&self) -> u32;
    /// Is it empty?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The number in `size` (1, 2 or 4) bytes at an offset, in network order; `None` outside.
    fn load(&self, offset: i32, size: usize) -> Option<u32>;
}

impl Data for [u8] {
    fn len(&self) -> u32 {
        <[u8]>::len(self) as u32
    }

    fn load(&self, offset: i32, size: usize) -> Option<u32> {
        let at = usize::try_from(offset).ok()?;
        let bytes = self.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
    }
}

/// A program that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// Checks a program. `EINVAL`.
    pub fn new(instructions: Vec<Instruction>) -> Result<Program> {
        if instructions.is_empty() || instructions.len() > LENGTH_MAX {
            return Err(Errno::EINVAL);
        }
        let last = instructions.len() - 1;
        for (at, instruction) in instructions.iter().enumerate() {
            if !is_known(instruction) || !stays_inside(instruction, last - at) {
                return Err(Errno::EINVAL);
            }
        }
        if instructions[last].code & 7 != RET || !memory_is_written_first(&instructions) {
            return Err(Errno::EINVAL);
        }
        Ok(Program { instructions })
    }

    /// Its instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Runs it: the number that it returns.
    pub fn run<D: Data + ?Sized>(&self, data: &D) -> u32 {
        let mut machine = Machine { a: 0, x: 0, memory: [0; MEMORY] };
        let mut at = 0;
        // Every step goes forward, so this ends.
        while let Some(instruction) = self.instructions.get(at) {
            at += 1;
            match instruction.code & 7 {
                RET => return machine.result(instruction),
                JMP => at += machine.jump(instruction),
                _ => {
                    if machine.step(instruction, data).is_none() {
                        return 0;
                    }
                }
            }
        }
        0
    }
}

fn is_known(i: &Instruction) -> bool {
    let class = i.code & 7;
    match class {
        LD => match i.code & !7 {
            IMM | LEN => true,
            MEM => i.k < MEMORY as u32,
            mode => matches!(mode & 0xe0, ABS | IND) && matches!(mode & 0x18, 0x00 | 0x08 | 0x10),
        },
        LDX => match i.code & !7 {
            IMM | LEN => true,
            MEM => i.k < MEMORY as u32,
            // Four times the low half of a byte: the length of an IPv4 header.
            mode => mode == MSH | 0x10,
        },
        ST | STX => i.code & !7 == 0 && i.k < MEMORY as u32,
        ALU => alu_is_known(i),
        JMP => match i.code & 0xf0 {
            0x00 => i.code & 0x08 == 0,
            0x10..=0x40 => true,
            _ => false,
        },
        RET => matches!(i.code & !7, 0x00 | 0x10),
        MISC => matches!(i.code & !7, 0x00 | 0x80),
        _ => false,
    }
}

fn alu_is_known(i: &Instruction) -> bool {
    let constant = i.code & X == 0;
    match i.code & 0xf0 {
        // Division and remainder: not by a constant zero.
        0x30 | 0x90 => !constant || i.k != 0,
        // Shifts: not by a constant beyond the word.
        0x60 | 0x70 => !constant || i.k < 32,
        0x00..=0x20 | 0x40 | 0x50 | 0xa0 => true,
        0x80 => constant,
        _ => false,
    }
}

/// Do its jumps end at an instruction, of which `after` follow?
fn stays_inside(i: &Instruction, after: usize) -> bool {
    if i.code & 7 != JMP {
        return true;
    }
    if i.code & 0xf0 == 0 {
        return (i.k as usize) < after;
    }
    usize::from(i.jt.max(i.jf)) < after
}

/// Is a register of the memory written on every way before it is read?
fn memory_is_written_first(instructions: &[Instruction]) -> bool {
    // What is written for certain when an instruction is reached.
    let mut known = alloc::vec![u16::MAX; instructions.len()];
    let mut now: u16 = 0;
    for (at, i) in instructions.iter().enumerate() {
        now &= known[at];
        let reads = matches!(i.code & 7, LD | LDX) && i.code & !7 == MEM;
        if reads && now & 1 << i.k == 0 {
            return false;
        }
        match i.code & 7 {
            ST | STX => now |= 1 << i.k,
            RET => now = u16::MAX,
            JMP => {
                let jumps = if i.code & 0xf0 == 0 { [i.k as usize; 2] } else { [i.jt.into(), i.jf.into()] };
                for jump in jumps {
                    known[at + 1 + jump] &= now;
                }
                now = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

struct Machine {
    a: u32,
    x: u32,
    memory: [u32; MEMORY],
}

impl Machine {
    fn result(&self, i: &Instruction) -> u32 {
        if i.code & !7 == 0x10 { self.a } else { i.k }
    }

    fn jump(&self, i: &Instruction) -> usize {
        let other = if i.code & X != 0 { self.x } else { i.k };
        let holds = match i.code & 0xf0 {
            0x00 => return i.k as usize,
            0x10 => self.a == other,
            0x20 => self.a > other,
            0x30 => self.a >= other,
            _ => self.a & other != 0,
        };
        usize::from(if holds { i.jt } else { i.jf })
    }

    /// Does an instruction that is no jump; `None` ends the program.
    fn step<D: Data + ?Sized>(&mut self, i: &Instruction, data: &D) -> Option<()> {
        match i.code & 7 {
            LD => self.a = self.load(i, data)?,
            LDX if i.code & !7 == MSH | 0x10 => self.x = (data.load(i.k as i32, 1)? & 0xf) * 4,
            LDX => self.x = self.load(i, data)?,
            ST => self.memory[i.k as usize % MEMORY] = self.a,
            STX => self.memory[i.k as usize % MEMORY] = self.x,
            ALU => self.a = self.compute(i)?,
            _ if i.code & 0x80 == 0 => self.x = self.a,
            _ => self.a = self.x,
        }
        Some(())
    }

    fn load<D: Data + ?Sized>(&self, i: &Instruction, data: &D) -> Option<u32> {
        let size = match i.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            _ => 1,
        };
        match i.code & 0xe0 {
            IMM => Some(i.k),
            LEN => Some(data.len()),
            MEM => Some(self.memory[i.k as usize % MEMORY]),
            ABS => data.load(i.k as i32, size),
            _ => data.load(i32::try_from(i64::from(self.x) + i64::from(i.k as i32)).ok()?, size),
        }
    }

    fn compute(&self, i: &Instruction) -> Option<u32> {
        let other = if i.code & X != 0 { self.x } else { i.k };
        Some(match i.code & 0xf0 {
            0x00 => self.a.wrapping_add(other),
            0x10 => self.a.wrapping_sub(other),
            0x20 => self.a.wrapping_mul(other),
            0x30 => self.a.checked_div(other)?,
            0x40 => self.a | other,
            0x50 => self.a & other,
            0x60 => self.a.wrapping_shl(other),
            0x70 => self.a.wrapping_shr(other),
            0x80 => self.a.wrapping_neg(),
            0x90 => self.a.checked_rem(other)?,
            _ => self.a ^ other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    fn program(instructions: &[Instruction]) -> Program {
        Program::new(instructions.to_vec()).unwrap()
    }

    #[test]
    fn a_filter_for_udp_to_port_53() {
        let udp53 = program(&[
            i(0x28, 0, 0, 12),
            i(0x15, 0, 6, 0x800),
            i(0x30, 0, 0, 23),
            i(0x15, 0, 4, 17),
            i(0xb1, 0, 0, 14),
            i(0x48, 0, 0, 16),
            i(0x15, 0, 1, 53),
            i(0x06, 0, 0, 65535),
            i(0x06, 0, 0, 0),
        ]);
        let mut frame = [0u8; 60];
        (frame[12], frame[14], frame[23], frame[37]) = (8, 0x45, 17, 53);
        assert_eq!(udp53.run(&frame[..]), 65535);
        frame[37] = 54;
        assert_eq!(udp53.run(&frame[..]), 0);
        assert_eq!(udp53.run(&frame[..20]), 0, "a load outside ends it");
    }

    #[test]
    fn arithmetic_and_memory() {
        let sum = program(&[
            i(0x00, 0, 0, 6),
            i(0x02, 0, 0, 3),
            i(0x01, 0, 0, 7),
            i(0x2c, 0, 0, 0),
            i(0x61, 0, 0, 3),
            i(0x1c, 0, 0, 0),
            i(0x84, 0, 0, 0),
            i(0x16, 0, 0, 0),
        ]);
        assert_eq!(sum.run(&[][..]), 36u32.wrapping_neg());
        let divide = program(&[i(0x01, 0, 0, 0), i(0x3c, 0, 0, 0), i(0x06, 0, 0, 1)]);
        assert_eq!(divide.run(&[][..]), 0, "a division by zero ends it");
    }

    #[test]
    fn bad_programs_are_refused() {
        let ret = i(0x06, 0, 0, 0);
        for bad in [
            &[][..],
            &[i(0x00, 0, 0, 0)],
            &[i(0x15, 1, 0, 0), ret],
            &[i(0x05, 0, 0, 1), ret],
            &[i(0x05, 0, 0, u32::MAX), ret],
            &[i(0x34, 0, 0, 0), ret],
            &[i(0x64, 0, 0, 32), ret],
            &[i(0x60, 0, 0, 2), ret],
            &[i(0x60, 0, 0, 16), ret],
            &[i(0x02, 0, 0, 16), ret],
            &[i(0xff, 0, 0, 0), ret],
            &[i(0x15, 0, 1, 0), i(0x02, 0, 0, 0), i(0x60, 0, 0, 0), ret],
        ] {
            assert_eq!(Program::new(bad.to_vec()), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn whatever_passes_the_check_runs_to_its_end() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut passed = 0;
        for _ in 0..200_000 {
            let len = 1 + random() as usize % 6;
            let mut all: Vec<Instruction> = (0..len)
                .map(|_| {
                    i((random() % 0xc0) as u16, (random() % 3) as u8, (random() % 3) as u8, (random() % 20) as u32)
                })
                .collect();
            all.push(i(0x16, 0, 0, 0));
            if let Ok(program) = Program::new(all) {
                passed += 1;
                program.run(&[1, 2, 3, 4, 5, 6, 7, 8][..]);
            }
        }
        assert!(passed > 1000, "{passed}");
    }
}
