//! Memory-mapped virtio devices (virtio 1.2, section 4.2).

use alloc::boxed::Box;

use hal::irq::{self, Line};
use hal::mmio::Mmio;

use super::transport::{Addresses, Transport};

/// "virt" in little endian.
const MAGIC: u32 = 0x7472_6976;

const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SEL: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SEL: usize = 0x024;
const QUEUE_SEL: usize = 0x030;
const QUEUE_NUM_MAX: usize = 0x034;
const QUEUE_NUM: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_STATUS: usize = 0x060;
const INTERRUPT_ACK: usize = 0x064;
const STATUS: usize = 0x070;
const QUEUE_DESC: usize = 0x080;
const QUEUE_DRIVER: usize = 0x090;
const QUEUE_DEVICE: usize = 0x0a0;
const CONFIG: usize = 0x100;

/// Where a device is said to be.
#[derive(Clone, Copy, Debug)]
pub struct MmioDevice {
    /// Physical address of its registers.
    pub base: usize,
    /// Bytes of registers.
    pub size: usize,
    /// Its interrupt.
    pub gsi: u32,
}

/// A memory-mapped device.
pub struct MmioTransport {
    registers: Mmio,
    gsi: u32,
    pub(super) device_type: u32,
}

/// Looks whether there is a device of the current version.
pub(super) fn probe(at: MmioDevice) -> Option<Transport> {
    let registers = Mmio::map(at.base, at.size.max(0x200))?;
    let device_type = registers.read32(DEVICE_ID);
    if registers.read32(0) != MAGIC || device_type == 0 {
        return None;
    }
    if registers.read32(VERSION) != 2 {
        log::warn!("virtio-mmio device at {:#x} is a legacy one: not used", at.base);
        return None;
    }
    Some(Transport::Mmio(MmioTransport { registers, gsi: at.gsi, device_type }))
}

impl MmioTransport {
    pub(super) fn status(&self) -> u8 {
        self.registers.read32(STATUS) as u8
    }

    pub(super) fn set_status(&self, status: u8) {
        self.registers.write32(STATUS, u32::from(status));
    }

    pub(super) fn device_features(&self) -> u64 {
        let half = |n: u32| {
            self.registers.write32(DEVICE_FEATURES_SEL, n);
            u64::from(self.registers.read32(DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    pub(super) fn set_driver_features(&self, features: u64) {
        for (n, half) in [features as u32, (features >> 32) as u32].into_iter().enumerate() {
            self.registers.write32(DRIVER_FEATURES_SEL, n as u32);
            self.registers.write32(DRIVER_FEATURES, half);
        }
    }

    pub(super) fn queue_size(&self, index: u16) -> u16 {
        self.registers.write32(QUEUE_SEL, u32::from(index));
        self.registers.read32(QUEUE_NUM_MAX) as u16
    }

    pub(super) fn enable_queue(&self, index: u16, size: u16, at: Addresses) {
        self.registers.write32(QUEUE_SEL, u32::from(index));
        self.registers.write32(QUEUE_NUM, u32::from(size));
        for (register, address) in [(QUEUE_DESC, at.descriptors), (QUEUE_DRIVER, at.available), (QUEUE_DEVICE, at.used)]
        {
            self.registers.write32(register, address as u32);
            self.registers.write32(register + 4, (address >> 32) as u32);
        }
        self.registers.write32(QUEUE_READY, 1);
    }

    pub(super) fn notify(&self, index: u16) {
        self.registers.write32(QUEUE_NOTIFY, u32::from(index));
    }

    pub(super) fn acknowledge(&self) {
        let status = self.registers.read32(INTERRUPT_STATUS);
        self.registers.write32(INTERRUPT_ACK, status);
    }

    pub(super) fn set_handler(&self, handler: Box<dyn Fn() + Send + Sync>) -> bool {
        irq::register(Line::Gsi { number: self.gsi, level: false, low: false }, handler)
    }

    pub(super) fn config8(&self, offset: usize) -> u8 {
        self.registers.read8(CONFIG + offset)
    }

    pub(super) fn config32(&self, offset: usize) -> u32 {
        self.registers.read32(CONFIG + offset)
    }
}
