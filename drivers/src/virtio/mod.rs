//! Virtio devices (OASIS virtio 1.2), over PCI and memory-mapped registers.

pub mod block;
pub mod console;
pub mod exchange;
mod mmio;
pub mod net;
mod pci;
mod queue;
mod transport;

use alloc::vec::Vec;

pub use mmio::MmioDevice;
pub use transport::Transport;

/// The device types that have a driver here.
pub const CONSOLE: u32 = 3;
/// A network device.
pub const NET: u32 = 1;
/// A server of the 9P protocol.
pub const NINEP: u32 = 9;
/// A server of the FUSE protocol.
pub const FS: u32 = 26;
/// Disks.
pub const BLOCK: u32 = 2;

/// All virtio devices of the machine: on PCI, and the memory-mapped ones that the firmware named.
pub fn find(memory_mapped: impl IntoIterator<Item = MmioDevice>) -> Vec<Transport> {
    let mut memory_mapped: Vec<MmioDevice> = memory_mapped.into_iter().collect();
    // QEMU's microvm fills its slots from the highest address down: so devices are found in the order that they were asked for.
    memory_mapped.sort_by_key(|device| core::cmp::Reverse(device.base));
    let mut found: Vec<Transport> = memory_mapped.into_iter().filter_map(mmio::probe).collect();
    found.extend(pci::probe_all());
    found
}
