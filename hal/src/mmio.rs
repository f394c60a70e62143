//! Device registers in memory, and PCI configuration space.

use crate::arch;

/// A window of device registers, mapped uncached for ever. All accesses are checked against its size and alignment.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
    len: usize,
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads a register. Panics where it is outside the window or not aligned.
        pub fn $read(&self, offset: usize) -> $type {
            self.check(offset, size_of::<$type>());
            // SAFETY: `map` mapped the window for ever, and `check` keeps the access in it.
            unsafe { ((self.base + offset) as *const $type).read_volatile() }
        }

        /// Writes a register. Panics where it is outside the window or not aligned.
        pub fn $write(&self, offset: usize, value: $type) {
            self.check(offset, size_of::<$type>());
            // SAFETY: as for the read; what a device does to memory is bounded by the addresses that drivers give it, which come from `dma`.
            unsafe { ((self.base + offset) as *mut $type).write_volatile(value) };
        }
    };
}

impl Mmio {
    /// Maps `len` bytes of device memory at a physical address; `None` if that is RAM that the kernel manages.
    pub fn map(physical: usize, len: usize) -> Option<Mmio> {
        let last = physical.checked_add(len.checked_sub(1)?)?;
        let is_ram =
            |at: usize| crate::frame::meta(at / abi::PAGE_SIZE).is_some_and(|m| m.refs() != crate::frame::RESERVED);
        if (physical / abi::PAGE_SIZE..=last / abi::PAGE_SIZE).any(|frame| is_ram(frame * abi::PAGE_SIZE)) {
            return None;
        }
        Some(Mmio { base: arch::map_device(physical, len), len })
    }

    /// A part of the window; `None` where it doesn't fit.
    pub fn part(&self, offset: usize, len: usize) -> Option<Mmio> {
        (offset <= self.len && len <= self.len - offset).then(|| Mmio { base: self.base + offset, len })
    }

    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    fn check(&self, offset: usize, size: usize) {
        assert!(offset <= self.len && size <= self.len - offset && (self.base + offset).is_multiple_of(size));
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
    access!(read64, write64, u64);
}

/// A PCI function's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciAddress {
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl PciAddress {
    /// Reads a 32-bit configuration register (`register` a multiple of 4).
    pub fn read(self, register: u8) -> u32 {
        arch::pci::read(self.bus, self.device, self.function, register)
    }

    /// Writes one.
    pub fn write(self, register: u8, value: u32) {
        arch::pci::write(self.bus, self.device, self.function, register, value);
    }
}
