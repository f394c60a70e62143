//! Devices that answer messages: servers of file protocols.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Segment;

/// A message and where its answer goes. Whoever makes one keeps the memory allocated until it is done.
pub struct Exchange {
    /// The message.
    pub request: Vec<Segment>,
    /// Where the device writes its answer.
    pub reply: Vec<Segment>,
    /// Called once, with interrupts off, when the answer is there: how many bytes it says it has, which a faulty device may overstate.
    pub done: Box<dyn FnOnce(usize) + Send>,
}

/// A server.
pub trait ExchangeDevice: Send + Sync {
    /// The name that it goes by.
    fn tag(&self) -> &[u8];

    /// Memory segments that one exchange may have.
    fn max_segments(&self) -> usize;

    /// Starts an exchange. Gives it back when there is no room: there is again when one that is under way is done.
    fn submit(&self, exchange: Exchange) -> Result<(), Exchange>;
}
