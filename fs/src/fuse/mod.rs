//! FUSE: file systems that are programs (fuse(4), linux/fuse.h, protocol 7.31).
//!
//! A program opens `/dev/fuse` ([`device`]) and mounts with its descriptor. What is asked of the file system becomes requests of a
//! [`connection`], which the program reads from the device and answers by writing to it; [`wire`] is their format. An inode ([`node`]) is
//! known by the number that the program gives it. Names and attributes hold as long as the program says; reads and writes
//! ([`handle`]) go to the program as they are, and pages are kept for mappings only.
//!
//! The program may also be outside of the machine, behind a device ([`virtiofs`]): then the kernel carries the messages.
//!
//! What a program answers is checked; a wrong answer is `EIO`. Who waits for an answer can be killed. When the program closes the
//! device, all that waits ends with `ENOTCONN`.
//!
//! Lock order: a directory's content -> a node's handles -> the connection's requests.

mod connection;
mod device;
mod directory;
mod handle;
mod mount;
mod node;
mod virtiofs;
mod wire;

pub use device::register;
pub(crate) use mount::Kind;
pub(crate) use virtiofs::Kind as VirtiofsKind;
pub use virtiofs::add_server;
