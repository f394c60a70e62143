//! Virtio devices on PCI (virtio 1.2, section 4.1), modern interface only, interrupts by MSI-X.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::irq;
use hal::mmio::{Mmio, PciAddress};
use hal::sync::{Once, SpinLock};

use super::transport::{Addresses, Transport};

const VENDOR: u32 = 0x1af4;
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;
const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;

/// Memory space and bus mastering on, legacy interrupts off.
const COMMAND_BITS: u32 = 0x406;

const DEVICE_FEATURE_SELECT: usize = 0;
const DEVICE_FEATURE: usize = 4;
const DRIVER_FEATURE_SELECT: usize = 8;
const DRIVER_FEATURE: usize = 12;
const CONFIG_VECTOR: usize = 16;
const STATUS: usize = 20;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_VECTOR: usize = 26;
const QUEUE_ENABLE: usize = 28;
const QUEUE_NOTIFY_OFF: usize = 30;
const QUEUE_DESC: usize = 32;
const QUEUE_DRIVER: usize = 40;
const QUEUE_DEVICE: usize = 48;

/// Where unassigned BARs are put, upwards: firmware that assigns none (qboot) leaves this part of the PCI hole free.
static NEXT_BAR: AtomicU32 = AtomicU32::new(0xd000_0000);

/// A device on PCI.
pub struct PciTransport {
    address: PciAddress,
    common: Mmio,
    notify: Mmio,
    notify_multiplier: usize,
    /// Of each queue, where in the notification window it is told of.
    offsets: SpinLock<Vec<u16>>,
    config: Option<Mmio>,
    /// Register of the MSI-X capability.
    msix: Option<u8>,
    /// The vector that was set up.
    line: Once<()>,
    pub(super) device_type: u32,
}

/// All virtio devices on all buses.
pub(super) fn probe_all() -> Vec<Transport> {
    let mut found = Vec::new();
    let host = PciAddress { bus: 0, device: 0, function: 0 };
    if host.read(0) == u32::MAX {
        return found;
    }
    for bus in 0..=255u8 {
        let mut empty = true;
        for device in 0..32 {
            for function in 0..8 {
                let address = PciAddress { bus, device, function };
                if address.read(0) as u16 == 0xffff {
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                empty = false;
                found.extend(probe(address));
                if function == 0 && address.read(0x0c) & 1 << 23 == 0 {
                    break;
                }
            }
        }
        // Buses behind bridges are numbered without holes.
        if empty {
            break;
        }
    }
    found
}

fn probe(address: PciAddress) -> Option<Transport> {
    let id = address.read(0);
    if id & 0xffff != VENDOR {
        return None;
    }
    let device_type = match id >> 16 {
        modern @ 0x1040..=0x107f => modern - 0x1040,
        0x1000..=0x103f => address.read(0x2c) >> 16,
        _ => return None,
    };
    assign_bars(address);
    address.write(4, address.read(4) & 0xffff | COMMAND_BITS);
    let (mut common, mut notify, mut config, mut msix) = (None, None, None, None);
    for capability in capabilities(address) {
        let head = address.read(capability);
        match head as u8 {
            CAPABILITY_MSIX => msix = Some(capability),
            CAPABILITY_VENDOR => {
                let window = || window(address, capability);
                match (head >> 24) as u8 {
                    COMMON if common.is_none() => common = window(),
                    NOTIFY if notify.is_none() => {
                        notify = window().map(|w| (w, address.read(capability + 16) as usize));
                    }
                    DEVICE if config.is_none() => config = window(),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let (notify, notify_multiplier) = notify?;
    let common = common?;
    Some(Transport::Pci(PciTransport {
        address,
        common,
        notify,
        notify_multiplier,
        offsets: SpinLock::new(Vec::new()),
        config,
        msix,
        line: Once::new(),
        device_type,
    }))
}

/// The registers of the capabilities in a function's list.
fn capabilities(address: PciAddress) -> Vec<u8> {
    let mut list = Vec::new();
    let mut next = address.read(0x34) as u8 & 0xfc;
    while next != 0 && list.len() < 48 {
        list.push(next);
        next = (address.read(next) >> 8) as u8 & 0xfc;
    }
    list
}

/// The physical address of a memory BAR.
fn bar(address: PciAddress, number: u8) -> Option<u64> {
    if number > 5 {
        return None;
    }
    let register = 0x10 + 4 * number;
    let low = address.read(register);
    if low & 1 != 0 {
        return None;
    }
    let high = if low & 6 == 4 && number < 5 { address.read(register + 4) } else { 0 };
    Some(u64::from(high) << 32 | u64::from(low & !0xf)).filter(|&at| at != 0)
}

/// Gives addresses to memory BARs that have none.
fn assign_bars(address: PciAddress) {
    let mut number = 0;
    while number < 6 {
        let register = 0x10 + 4 * number;
        let low = address.read(register);
        let wide = low & 7 == 4;
        if low & 1 == 0 && bar(address, number).is_none() {
            address.write(register, u32::MAX);
            let mask = address.read(register) & !0xf;
            if mask != 0 {
                let size = mask.wrapping_neg().max(4096);
                let at = NEXT_BAR.fetch_add(2 * size, Ordering::Relaxed).next_multiple_of(size);
                address.write(register, at);
                if wide {
                    address.write(register + 4, 0);
                }
            }
        }
        number += if wide { 2 } else { 1 };
    }
}

/// The registers that a vendor capability describes.
fn window(address: PciAddress, capability: u8) -> Option<Mmio> {
    let base = bar(address, address.read(capability + 4) as u8)?;
    let (offset, len) = (address.read(capability + 8), address.read(capability + 12));
    Mmio::map(usize::try_from(base).ok()? + offset as usize, len as usize)
}

impl PciTransport {
    pub(super) fn status(&self) -> u8 {
        self.common.read8(STATUS)
    }

    pub(super) fn set_status(&self, status: u8) {
        self.common.write8(STATUS, status);
    }

    pub(super) fn device_features(&self) -> u64 {
        let half = |n: u32| {
            self.common.write32(DEVICE_FEATURE_SELECT, n);
            u64::from(self.common.read32(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    pub(super) fn set_driver_features(&self, features: u64) {
        for (n, half) in [features as u32, (features >> 32) as u32].into_iter().enumerate() {
            self.common.write32(DRIVER_FEATURE_SELECT, n as u32);
            self.common.write32(DRIVER_FEATURE, half);
        }
    }

    pub(super) fn queue_size(&self, index: u16) -> u16 {
        self.common.write16(QUEUE_SELECT, index);
        self.common.read16(QUEUE_SIZE)
    }

    pub(super) fn enable_queue(&self, index: u16, size: u16, at: Addresses) {
        self.common.write16(QUEUE_SELECT, index);
        self.common.write16(QUEUE_SIZE, size);
        self.common.write16(QUEUE_VECTOR, 0);
        for (register, address) in [(QUEUE_DESC, at.descriptors), (QUEUE_DRIVER, at.available), (QUEUE_DEVICE, at.used)]
        {
            self.common.write32(register, address as u32);
            self.common.write32(register + 4, (address >> 32) as u32);
        }
        let mut offsets = self.offsets.lock_irq();
        while offsets.len() <= usize::from(index) {
            let next = offsets.len() as u16;
            offsets.push(next);
        }
        offsets[usize::from(index)] = self.common.read16(QUEUE_NOTIFY_OFF);
        self.common.write16(QUEUE_ENABLE, 1);
    }

    pub(super) fn notify(&self, index: u16) {
        let offset = self.offsets.lock_irq().get(usize::from(index)).copied().unwrap_or(index);
        let at = usize::from(offset) * self.notify_multiplier;
        self.notify.write16(at.min(self.notify.len() - 2), index);
    }

    pub(super) fn set_handler(&self, handler: Box<dyn Fn() + Send + Sync>) -> bool {
        let (Some(capability), Some((line, target, data))) = (self.msix, irq::allocate_msi()) else {
            return false;
        };
        let location = self.address.read(capability + 4);
        let table = bar(self.address, location as u8 & 7)
            .and_then(|base| Mmio::map(base as usize + (location & !7) as usize, 16));
        let Some(table) = table else { return false };
        if !irq::register(line, handler) || self.line.set(()).is_err() {
            return false;
        }
        table.write32(0, target as u32);
        table.write32(4, (target >> 32) as u32);
        table.write32(8, data);
        table.write32(12, 0);
        self.address.write(capability, self.address.read(capability) & !(1 << 30) | 1 << 31);
        self.common.write16(CONFIG_VECTOR, 0);
        true
    }

    pub(super) fn config8(&self, offset: usize) -> u8 {
        self.config.as_ref().map_or(0, |c| c.read8(offset))
    }

    pub(super) fn config32(&self, offset: usize) -> u32 {
        self.config.as_ref().map_or(0, |c| c.read32(offset))
    }
}
