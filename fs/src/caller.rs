//! Who asks, for file systems that need to know where no context reaches: a program behind FUSE is told, and ext4 keeps blocks for some.

use alloc::sync::Arc;

use base::Cred;
use hal::sync::Once;

/// The process that a system call or page fault is worked on for.
#[allow(missing_docs, reason = "they are what credentials(7) calls them")]
pub struct Caller {
    pub cred: Arc<Cred>,
    pub pid: u32,
}

static SOURCE: Once<fn() -> Option<Caller>> = Once::new();

/// Sets who knows; `None` for the kernel's own threads. Once, at boot.
pub fn set_source(source: fn() -> Option<Caller>) {
    assert!(SOURCE.set(source).is_ok(), "the source of callers is set twice");
}

/// The calling process.
pub(crate) fn caller() -> Option<Caller> {
    SOURCE.get().and_then(|source| source())
}
