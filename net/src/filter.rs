//! Socket filters (SO_ATTACH_FILTER): programs of classic BPF that choose what a socket receives, and how much of it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Result};
use bpf::{Data, Instruction, LENGTH_MAX, Program};
use hal::sync::SpinLock;
use hal::user::copy_in;

use crate::link::{self, ethernet};
use crate::options::Options;
use crate::packet::Packet;

/// What an offset in a program is counted from, besides the data itself.
const LINK: i32 = -0x20_0000;
const NETWORK: i32 = -0x10_0000;
const ABOUT: i32 = -0x1000;

/// A socket's filter.
#[derive(Default)]
pub struct Filter {
    program: SpinLock<Option<Arc<Program>>>,
    there: AtomicBool,
    locked: AtomicBool,
}

/// Bytes of `struct sock_fprog`.
const SIZE: usize = 16;

/// Reads a `struct sock_fprog` at an address and checks its program. `EFAULT`, `EINVAL`.
pub fn read(addr: usize, len: usize) -> Result<Program> {
    let mut raw = [0; SIZE];
    if len != SIZE {
        return Err(Errno::EINVAL);
    }
    copy_in(&mut raw, addr)?;
    parse(&raw)
}

/// Checks the program that a `struct sock_fprog` points to. `EFAULT`, `EINVAL`.
pub fn parse(raw: &[u8; SIZE]) -> Result<Program> {
    let count = usize::from(u16::from_ne_bytes([raw[0], raw[1]]));
    let at = usize::from_ne_bytes([raw[8], raw[9], raw[10], raw[11], raw[12], raw[13], raw[14], raw[15]]);
    if count == 0 || count > LENGTH_MAX || at == 0 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count * Instruction::SIZE).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(count * Instruction::SIZE, 0);
    copy_in(&mut bytes, at)?;
    let (chunks, _) = bytes.as_chunks::<{ Instruction::SIZE }>();
    Program::new(chunks.iter().map(|raw| Instruction::parse(*raw)).collect())
}

impl Filter {
    /// SO_ATTACH_FILTER. `EPERM` where it is locked, `EINVAL`, `EFAULT`.
    pub fn attach(&self, addr: usize, len: usize) -> Result<()> {
        self.check_unlocked()?;
        let program = read(addr, len)?;
        *self.program.lock() = Some(Arc::new(program));
        self.there.store(true, Ordering::Release);
        Ok(())
    }

    /// SO_DETACH_FILTER. `EPERM` where it is locked, `ENOENT` where there is none.
    pub fn detach(&self) -> Result<()> {
        self.check_unlocked()?;
        self.there.store(false, Ordering::Release);
        self.program.lock().take().map(drop).ok_or(Errno::ENOENT)
    }

    fn check_unlocked(&self) -> Result<()> {
        if self.locked.load(Ordering::Relaxed) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// SO_LOCK_FILTER, which cannot be taken back. `EPERM`.
    pub fn lock(&self, on: bool) -> Result<()> {
        if !on {
            return self.check_unlocked();
        }
        self.locked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Is it locked?
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// SO_GET_FILTER: the instructions.
    pub fn instructions(&self) -> Vec<Instruction> {
        self.program.lock().as_ref().map_or(Vec::new(), |program| program.instructions().to_vec())
    }

    /// Takes over a listener's.
    pub(crate) fn inherit(&self, from: &Filter) {
        if from.there.load(Ordering::Relaxed) {
            *self.program.lock() = from.program.lock().clone();
            self.there.store(true, Ordering::Release);
        }
        self.locked.store(from.is_locked(), Ordering::Relaxed);
    }

    /// How much of a packet the socket is to get: all where there is no filter.
    #[inline]
    pub(crate) fn run<'a>(&self, view: impl FnOnce() -> View<'a>) -> usize {
        if !self.there.load(Ordering::Acquire) { usize::MAX } else { self.run_program(view()) }
    }

    fn run_program(&self, view: View) -> usize {
        let program = self.program.lock().clone();
        program.map_or(usize::MAX, |program| program.run(&view) as usize)
    }
}

/// Runs the filter of a socket for a packet that is at its transport header.
pub(crate) fn passes(options: &Options, packet: &Packet) -> bool {
    options.filter.run(|| View { packet, skip: 0, before: &[] }) > 0
}

/// A packet as a program sees it.
pub(crate) struct View<'a> {
    pub(crate) packet: &'a Packet,
    /// Bytes of the packet that the socket does not get.
    pub(crate) skip: usize,
    /// Bytes that the socket gets before the packet's own.
    pub(crate) before: &'a [u8],
}

impl View<'_> {
    fn number(&self, at: usize, size: usize) -> Option<u32> {
        let mut bytes = [0; 4];
        let bytes = &mut bytes[..size];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = at.checked_add(i)?;
            match at.checked_sub(self.before.len()) {
                None => *byte = self.before[at],
                Some(at) => {
                    let place = core::slice::from_mut(byte);
                    if self.packet.read(at.checked_add(self.skip)?, place) == 0 {
                        return None;
                    }
                }
            }
        }
        Some(bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
    }

    /// What SKF_AD_* offsets name.
    fn about(&self, offset: i32) -> Option<u32> {
        let packet = self.packet;
        match offset {
            0 if packet.link != 0 => Some(ethernet::frame_type(packet).into()),
            0 => Some(ethernet::type_of(packet).into()),
            4 => Some(packet.addressed as u32),
            8 => Some(packet.interface),
            20 => Some(packet.mark),
            28 => Some(link::by_index(packet.interface).map_or(0, |i| link::ioctl::hardware(&i)).into()),
            32 => Some(packet.flow_hash()),
            // No tag is taken out of its frame.
            44 | 48 => Some(0),
            60 => Some(0x8100),
            _ => about_machine(ABOUT + offset),
        }
    }
}

/// What a program may ask that has nothing to do with a packet: which processor works, a random number.
pub(crate) fn about_machine(offset: i32) -> Option<u32> {
    match offset - ABOUT {
        36 => Some(hal::cpu::id() as u32),
        56 => Some(hal::random::word() as u32),
        _ => None,
    }
}

impl Data for View<'_> {
    fn len(&self) -> u32 {
        (self.packet.len() + self.before.len()).saturating_sub(self.skip) as u32
    }

    fn load(&self, offset: i32, size: usize) -> Option<u32> {
        match offset {
            0.. => self.number(offset as usize, size),
            ABOUT..0 => self.about(offset - ABOUT),
            NETWORK..ABOUT => {
                let network = usize::from(self.packet.link) + self.before.len();
                self.number((network + (offset - NETWORK) as usize).checked_sub(self.skip)?, size)
            }
            LINK..NETWORK => self.number(((offset - LINK) as usize).checked_sub(self.skip)?, size),
            _ => None,
        }
    }
}
