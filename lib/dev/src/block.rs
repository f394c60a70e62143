//! Block devices: disks that read and write sectors of 512 bytes.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes of a sector, the unit of all addresses here, whatever the disk's own block size.
pub const SECTOR: u64 = 512;

/// What a disk is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockGeometry {
    /// Size in sectors.
    pub sectors: u64,
    /// Bytes that it reads and writes at a time (a power of two, at least 512).
    pub logical_block: u32,
    /// Bytes that it writes without reading others first.
    pub physical_block: u32,
    /// Nothing can be written.
    pub read_only: bool,
    /// It has a cache that forgets what was written, unless it is flushed.
    pub volatile_cache: bool,
    /// Memory segments that one request may have.
    pub max_segments: usize,
    /// Bytes that one segment may have.
    pub max_segment_size: u32,
    /// Sectors that one discard may have; 0 where it can't.
    pub max_discard: u32,
    /// Sectors that one request to write zeros may have; 0 where it can't.
    pub max_write_zeroes: u32,
    /// Requests that it takes at once.
    pub depth: usize,
    /// Queues that it has, for as many processors to use at once.
    pub queues: usize,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOp {
    /// Reads sectors to memory.
    Read,
    /// Writes sectors from memory.
    Write,
    /// Makes all finished writes last.
    Flush,
    /// The sectors' contents are no longer needed.
    Discard,
    /// The sectors are to read as zeros.
    WriteZeroes,
}

/// Physically contiguous memory. Whoever makes a request keeps it allocated until the request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address.
    pub physical: u64,
    /// Bytes; a multiple of the logical block.
    pub len: u32,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// The disk could not.
    Io,
    /// It does not know such requests.
    Unsupported,
}

/// A request.
pub struct BlockRequest {
    /// What it does.
    pub op: BlockOp,
    /// The first sector.
    pub sector: u64,
    /// How many.
    pub sectors: u32,
    /// The memory, for reads and writes.
    pub segments: Vec<Segment>,
    /// Called once, with interrupts off, when it is done.
    pub done: Box<dyn FnOnce(Result<(), BlockFault>) + Send>,
}

/// A disk.
pub trait BlockDevice: Send + Sync {
    /// What it is like.
    fn geometry(&self) -> BlockGeometry;

    /// The serial number that it says it has; may be empty.
    fn serial(&self) -> Vec<u8>;

    /// Starts a request. Gives it back when there is no room: there is again when one that is under way is done.
    fn submit(&self, request: BlockRequest) -> Result<(), BlockRequest>;
}
