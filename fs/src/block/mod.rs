//! Block devices: disks and partitions as the file systems and `/dev` see them.
//!
//! From the outside in: [`BlockIo`] is what a file system asks of its storage, a disk in the kernel, memory or a file in tests.
//! [`BlockDev`] is a disk or a partition and implements it; its requests go through the [`queue`] of its disk, which merges neighbours
//! and keeps the driver (`dev::BlockDevice`) busy. [`node`] is `/dev/vda` and its ioctls, over a page cache of its own; [`partition`]
//! reads partition tables; [`report`] is `/proc/diskstats`, `/proc/partitions` and `/sys/block`.
//!
//! A [`loop_device`] has a file in the place of a queue and a driver.
//!
//! Lock order: list of devices -> queue of a disk -> driver. Completion runs in interrupt handlers and takes the queue's lock.

mod device;
mod io;
pub mod loop_device;
pub mod node;
pub mod partition;
mod queue;
pub mod report;
mod statistics;

pub use device::{BlockDev, add_disk, by_number, disk_name, list, rescan};
#[cfg(test)]
pub(crate) use io::MemoryDisk;
pub use io::{BlockIo, Direction, Piece};
