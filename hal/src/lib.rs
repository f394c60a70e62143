//! Hardware abstraction: the only crate with `unsafe` code.
//!
//! It gives the layers above safe, checked building blocks and no policy: spin locks and once-cells ([`sync`]), per-CPU data
//! ([`cpu`]), page frames owned by handles ([`frame`]), the kernel heap ([`heap`]), page tables ([`paging`]), kernel threads and the
//! context switch ([`task`]), copies to and from user space ([`user`]), the clock and its interrupt ([`clock`]), interrupts ([`irq`]),
//! device memory ([`mmio`], [`dma`]) and boot ([`boot`]).
//!
//! What a processor must supply lives under `x86_64/`; `hosted/` is the stand-in that lets the crates above be tested as ordinary
//! host programs. Depends on `abi` and `base`. Upcalls go through [`hooks`], set once at boot by the kernel crate.
//!
//! Lock order (outermost first): frame source (above us) -> heap size class -> stack pool -> console.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(
    not(target_os = "none"),
    allow(dead_code, reason = "hosted builds have no traps, no heap and no processors")
)]
extern crate alloc;

pub mod boot;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod dma;
pub mod frame;
pub mod heap;
pub mod hooks;
pub mod irq;
pub mod mmio;
pub mod paging;
pub mod random;
pub mod regs;
pub mod sync;
pub mod task;
pub mod user;
pub mod vdso;

#[cfg(target_os = "none")]
mod x86_64;
#[cfg(target_os = "none")]
use x86_64 as arch;

#[cfg(not(target_os = "none"))]
mod hosted;
#[cfg(not(target_os = "none"))]
use hosted as arch;
