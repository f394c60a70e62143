//! Network devices: Ethernet frames in and out.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;

/// Memory that a device fills with a received frame, or a part of one.
pub trait Page: Send + Sync {
    /// Where it is, for the device.
    fn physical(&self) -> u64;
    /// Bytes.
    fn size(&self) -> usize;
    /// Copies out; the range is inside.
    fn read(&self, offset: usize, dst: &mut [u8]);
    /// Back to what its owner made it of.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// Work that the device takes over, or has taken over, for a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The transport checksum is left to the device: from here (counted from the frame's begin) to the end, to be stored so many bytes on.
    pub checksum: Option<(u16, u16)>,
    /// A TCP segment to be cut into segments with so much data; 0 for none.
    pub segment_size: u16,
    /// Bytes of all headers up to the data, where it is to be cut.
    pub header_len: u16,
    /// It is IPv6.
    pub v6: bool,
}

/// A frame to be sent: its headers, copied by the driver, then pieces of memory (physical address, length) that stay until `keep` is dropped.
pub struct Transmit<'a> {
    /// The headers.
    pub head: &'a [u8],
    /// What follows them.
    pub pieces: &'a [(u64, u32)],
    /// What the device is to do.
    pub offload: Offload,
}

/// Where a part of a received frame lies: memory, offset, length.
pub type Part = (Box<dyn Page>, usize, usize);

/// A received frame.
pub struct Received {
    /// Where it lies.
    pub parts: Vec<Part>,
    /// Its checksums are right, or need not be looked at.
    pub checked: bool,
}

/// What a device can do by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetFeatures {
    /// Compute checksums of what is sent.
    pub checksum: bool,
    /// Cut TCP segments over IPv4.
    pub tso4: bool,
    /// Cut TCP segments over IPv6.
    pub tso6: bool,
}

/// A network device. All calls are from threads.
pub trait NetDevice: Send + Sync {
    /// Its hardware address.
    fn mac(&self) -> [u8; 6];
    /// The largest packet (without Ethernet's header) that it takes.
    fn mtu(&self) -> u32;
    /// What it can do.
    fn features(&self) -> NetFeatures;
    /// Is a cable plugged in?
    fn link_up(&self) -> bool;
    /// Sends a frame; false if there is no room now (the listener will hear when there is). `keep` is dropped when the device is done.
    fn transmit(&self, frame: &Transmit, keep: &mut Option<Box<dyn Any + Send>>) -> bool;
    /// Gives memory for frames to come; given back if there is no room.
    fn post(&self, page: Box<dyn Page>) -> Result<(), Box<dyn Page>>;
    /// Tells the device of what was posted.
    fn flush(&self);
    /// The next received frame.
    fn receive(&self) -> Option<Received>;
    /// Asks for an interrupt at the next frame (and when there is room again, if that was asked for); true if one has come meanwhile.
    fn listen(&self) -> bool;
    /// Sets what is called, with interrupts off, when there are frames. It is not called again before [`NetDevice::listen`]. Once.
    fn set_listener(&self, listener: Box<dyn Fn() + Send + Sync>);
}
