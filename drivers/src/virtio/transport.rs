//! What drivers ask of a device, whichever bus it sits on.

use alloc::boxed::Box;

use hal::dma::DmaBuffer;

use super::mmio::MmioTransport;
use super::pci::PciTransport;
use super::queue::Queue;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// A device on its bus.
pub enum Transport {
    /// Memory-mapped.
    Mmio(MmioTransport),
    /// PCI.
    Pci(PciTransport),
}

macro_rules! on_bus {
    ($self:ident, $t:ident => $call:expr) => {
        match $self {
            Transport::Mmio($t) => $call,
            Transport::Pci($t) => $call,
        }
    };
}

impl Transport {
    /// The device type.
    pub fn device_type(&self) -> u32 {
        on_bus!(self, t => t.device_type)
    }

    /// Resets the device and agrees on features: those of `wanted` that it offers. `None` if it won't have them.
    pub fn begin(&self, wanted: u64) -> Option<u64> {
        on_bus!(self, t => t.set_status(0));
        on_bus!(self, t => t.set_status(ACKNOWLEDGE | DRIVER));
        let agreed = on_bus!(self, t => t.device_features()) & (wanted | VERSION_1);
        on_bus!(self, t => t.set_driver_features(agreed));
        on_bus!(self, t => t.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK));
        (agreed & VERSION_1 != 0 && on_bus!(self, t => t.status()) & FEATURES_OK != 0).then_some(agreed)
    }

    /// The device may use its queues from now on.
    pub fn start(&self) {
        on_bus!(self, t => t.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK));
    }

    /// Makes queue `index` with at most `size` entries. `None` if the device has no such queue or memory is exhausted.
    pub fn queue(&self, index: u16, size: u16) -> Option<Queue> {
        let size = on_bus!(self, t => t.queue_size(index)).min(size);
        if size == 0 {
            return None;
        }
        let queue = Queue::new(index, size)?;
        on_bus!(self, t => t.enable_queue(index, size, queue.addresses()));
        Some(queue)
    }

    /// Tells the device that queue `index` has something new.
    pub fn notify(&self, index: u16) {
        on_bus!(self, t => t.notify(index));
    }

    /// Sets the interrupt handler and unmasks the interrupt. False if the machine has no line for it.
    pub fn set_handler(&self, handler: Box<dyn Fn() + Send + Sync>) -> bool {
        on_bus!(self, t => t.set_handler(handler))
    }

    /// Tells the device that its interrupt was seen. For the handler.
    pub fn acknowledge(&self) {
        if let Transport::Mmio(t) = self {
            t.acknowledge();
        }
    }

    /// Reads a byte of the device's configuration.
    pub fn config8(&self, offset: usize) -> u8 {
        on_bus!(self, t => t.config8(offset))
    }

    /// Reads a 32-bit field of the device's configuration.
    pub fn config32(&self, offset: usize) -> u32 {
        on_bus!(self, t => t.config32(offset))
    }
}

/// Where a queue's three parts are, for the device.
pub(super) struct Addresses {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// Memory for buffers of equal size, one for each descriptor.
pub(super) fn buffers(count: u16, size: usize) -> Option<DmaBuffer> {
    DmaBuffer::new(usize::from(count) * size)
}
