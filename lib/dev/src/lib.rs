//! Device traits: what a driver offers, without saying how. Drivers implement them, the layers above use them, and neither sees the other.
#![no_std]
extern crate alloc;

mod block;
mod exchange;
mod net;

use alloc::boxed::Box;

pub use block::{BlockDevice, BlockFault, BlockGeometry, BlockOp, BlockRequest, SECTOR, Segment};
pub use exchange::{Exchange, ExchangeDevice};
pub use net::{NetDevice, NetFeatures, Offload, Page, Part, Received, Transmit};

/// A byte-stream port to the host (a virtio-serial port).
pub trait Port: Send + Sync {
    /// The port's number on its device.
    fn number(&self) -> u32;

    /// Tells the host that a program has opened the port, or that the last has closed it. Data flows only while it is open.
    fn set_open(&self, open: bool);

    /// Takes received bytes; how many, 0 when there are none.
    fn read(&self, dst: &mut [u8]) -> usize;

    /// Queues bytes to send; how many, 0 when there is no room.
    fn write(&self, src: &[u8]) -> usize;

    /// Are there received bytes?
    fn can_read(&self) -> bool;

    /// Is there room to send?
    fn can_write(&self) -> bool;

    /// Is the host's end open?
    fn host_connected(&self) -> bool;

    /// Sets what is called, with interrupts off, when any of the above may have changed. Once.
    fn set_listener(&self, listener: Box<dyn Fn() + Send + Sync>);
}
