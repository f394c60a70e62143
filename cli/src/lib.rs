//! `quintet`, the host command, as a library: boots the Quintet kernel in a microVM and runs a
//! Linux program on it as if it ran here: same streams, same signals, same exit status.
//!
//! The way of a `quintet run`: [`args`] -> [`root`] makes the initrd -> [`machine`] starts QEMU ->
//! [`session`] carries streams and signals between the terminal and the guest's PID 1 -> the
//! program's status. [`inquiry`] is how other commands ask about a running guest. [`kernel_log`] and [`symbolize`] turn a kernel panic into a report.
//!
//! May depend on `protocol`. Locks: [`session`]'s control socket, [`kernel_log`]'s log; neither is
//! held while the other is taken.

pub mod accel;
pub mod args;
pub mod artifacts;
pub mod cache;
pub mod cpio;
pub mod disk;
pub mod failure;
mod image;
pub mod inquiry;
pub mod kernel_log;
pub mod linux;
pub mod machine;
pub mod network;
pub mod root;
pub mod run;
pub mod session;
pub mod streams;
pub mod symbolize;
pub mod terminal;
pub mod virtiofsd;
pub mod volume;
