//! Readiness events, in poll(2)'s bits (epoll uses the same values for these).

use bitflags::bitflags;

bitflags! {
    /// What a file is ready for, or what a waiter asks about.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        /// Data to read.
        const IN = 0x001;
        /// Urgent data.
        const PRI = 0x002;
        /// Room to write.
        const OUT = 0x004;
        /// An error: always reported.
        const ERR = 0x008;
        /// The other end has gone: always reported.
        const HUP = 0x010;
        /// Not an open descriptor (poll only).
        const NVAL = 0x020;
        /// Normal data to read.
        const RDNORM = 0x040;
        /// Priority band data to read.
        const RDBAND = 0x080;
        /// Room for normal data.
        const WRNORM = 0x100;
        /// Room for priority data.
        const WRBAND = 0x200;
        /// A message (unused by Linux).
        const MSG = 0x400;
        /// The peer has shut down its writing half.
        const RDHUP = 0x2000;
        /// Everything of a file with data.
        const READABLE = 0x001 | 0x040;
        /// Everything of a file with room.
        const WRITABLE = 0x004 | 0x100;
        /// Reported whether asked for or not.
        const ALWAYS = 0x008 | 0x010;
    }
}
