//! Interrupts: masking them on this processor, and handlers for devices' lines.

use alloc::boxed::Box;
use core::marker::PhantomData;

use crate::arch;

/// Interrupts are off on this processor until it drops.
pub struct IrqGuard {
    were_on: bool,
    _not_send: PhantomData<*mut ()>,
}

/// Turns interrupts off on this processor.
#[inline]
pub fn disable() -> IrqGuard {
    IrqGuard { were_on: arch::irq_save(), _not_send: PhantomData }
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        if self.were_on {
            crate::sync::lockdep::interrupts_go_on();
            arch::irq_enable();
        }
    }
}

/// Are interrupts on?
pub fn enabled() -> bool {
    arch::irq_enabled()
}

/// What runs when a line fires: interrupts off, no sleeping.
pub type Handler = Box<dyn Fn() + Send + Sync>;

/// Where a device's interrupts come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// A global system interrupt (an input of an I/O APIC, or of the 8259 where there is none).
    Gsi {
        /// Its number.
        number: u32,
        /// Level-triggered (PCI) or edge-triggered.
        level: bool,
        /// Active low (PCI) or active high.
        low: bool,
    },
    /// A message-signalled vector, allocated by [`allocate_msi`].
    Msi(u8),
}

/// Sets the handler of a line and unmasks it. Lines may be shared: each handler is called.
/// Fails with `false` where the machine has no such line.
pub fn register(line: Line, handler: Handler) -> bool {
    arch::register_irq(line, handler)
}

/// Reserves a vector for message-signalled interrupts: the line, and the address and data that the device has to write.
pub fn allocate_msi() -> Option<(Line, u64, u32)> {
    arch::allocate_msi()
}

/// How often each vector fired on each processor, for `/proc/interrupts`: calls `f(vector, name, cpu, count)`.
pub fn for_each_count(mut f: impl FnMut(u8, &'static str, usize, u64)) {
    arch::for_each_irq_count(&mut f);
}
