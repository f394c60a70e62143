//! Boot: what the loader told, the way to the kernel's main function, and the way out.

use arrayvec::ArrayVec;
use core::ops::Range;

use crate::arch;
use crate::sync::Once;

#[cfg(target_os = "none")]
pub use crate::arch::VirtioMmio;

/// What the firmware tells of the machine.
#[cfg(target_os = "none")]
pub struct Machine {
    /// How many processors the machine has.
    pub cpus: usize,
    /// The virtio-mmio devices that the firmware or the command line names.
    pub virtio_mmio: alloc::vec::Vec<VirtioMmio>,
}

static COMMAND_LINE: Once<ArrayVec<u8, 4096>> = Once::new();

#[cfg(target_os = "none")]
pub(crate) fn set_command_line(bytes: impl Iterator<Item = u8>) {
    let _ = COMMAND_LINE.set(bytes.take(4096).collect());
}

/// The kernel's command line; empty if it isn't UTF-8.
pub fn command_line() -> &'static str {
    COMMAND_LINE.get().and_then(|line| core::str::from_utf8(line).ok()).unwrap_or("")
}

/// The value of `name=value` on the command line.
pub fn option(name: &str) -> Option<&'static str> {
    command_line().split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// Defined by [`entry!`](crate::entry) in the kernel crate.
    safe fn quintet_kernel_main() -> !;
}

#[cfg(target_os = "none")]
pub(crate) fn enter() -> ! {
    quintet_kernel_main()
}

/// Asks the firmware (ACPI, or what stands in for it) about processors and devices, and sets interrupt routing up. Once, when memory
/// can be allocated.
#[cfg(target_os = "none")]
pub fn discover() -> Machine {
    arch::discover()
}

/// Names the kernel's main function, `fn() -> !`: it runs on the boot processor, interrupts off, with nothing but hal set up.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn quintet_kernel_main() -> ! {
            $main()
        }
    };
}

/// The initial RAM disk.
#[derive(Clone)]
pub struct Initrd(Range<usize>);

impl Initrd {
    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "there is none rather than an empty one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The physical address of its byte at `offset`.
    pub fn physical(&self, offset: usize) -> usize {
        self.0.start + offset
    }

    /// Copies from `offset`. Panics past its end.
    pub fn read(&self, offset: usize, dst: &mut [u8]) {
        assert!(offset <= self.len() && dst.len() <= self.len() - offset);
        arch::read_initrd(self.0.start + offset, dst);
    }

    /// A frame that lies wholly in it, given away once ([`crate::frame::Frame::from_initrd`]): `None` unless `offset` is page-aligned in memory.
    pub fn take_frame(&self, offset: usize) -> Option<crate::frame::Frame> {
        crate::frame::Frame::from_initrd(self.0.start + offset)
    }

    /// Frees all pages of it that nobody took. Only for the last owner: the contents are gone.
    pub fn release(self) {
        for physical in (self.0.start & !(abi::PAGE_SIZE - 1)..self.0.end).step_by(abi::PAGE_SIZE) {
            drop(crate::frame::Frame::from_initrd(physical));
        }
    }
}

/// The initial RAM disk, if the loader gave one.
pub fn initrd() -> Option<Initrd> {
    arch::initrd().map(Initrd)
}

/// Starts the machine's other processors (up to `wanted` in all); they wait until [`release_cpus`].
pub fn start_cpus(wanted: usize) {
    arch::start_cpus(wanted);
}

/// Lets the other processors run [`crate::hooks::Hooks::secondary_main`].
pub fn release_cpus() {
    arch::release_cpus();
}

/// How the machine ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Power off.
    PowerOff,
    /// Start again.
    Restart,
    /// Stop without either.
    Halt,
    /// The kernel has panicked.
    Panic,
}

/// Ends the machine.
pub fn end(how: End) -> ! {
    arch::end(how)
}

/// Calls `f` on the return addresses on the stack, innermost first.
pub fn backtrace(f: impl FnMut(usize)) {
    arch::backtrace(f);
}

/// Stops all other processors, for a panic.
pub fn stop_others() {
    arch::stop_others();
}
