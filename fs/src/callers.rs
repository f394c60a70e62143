//! What files ask of the layer that has processes, where no context reaches: who calls (a program behind FUSE is told, ext4 keeps blocks for
//! some), and descriptors of the caller.

use alloc::sync::Arc;

use base::{Cred, Errno, Result};
use hal::sync::Once;
use mm::AddressSpace;

use crate::{Fd, OpenFile};

/// What the layer that has processes answers.
pub trait Callers: Send + Sync {
    /// The process and thread that run now; 0 for the kernel's own.
    fn ids(&self) -> (i32, i32);
    /// The credentials of the running process; `None` for the kernel's own threads.
    fn cred(&self) -> Option<Arc<Cred>>;
    /// The file behind a descriptor of the running process. `EBADF`.
    fn descriptor(&self, fd: Fd) -> Result<Arc<OpenFile>>;
    /// RLIMIT_MSGQUEUE of the running process, in bytes.
    fn message_queue_limit(&self) -> u64;
    /// The memory of the running process. `ESRCH`.
    fn address_space(&self) -> Result<Arc<AddressSpace>>;
    /// Makes a descriptor of the running process. `EMFILE`.
    fn install(&self, open: Arc<OpenFile>, close_on_exec: bool) -> Result<Fd>;
    /// Makes a descriptor of the running process for that process. `ESRCH`, `EMFILE`.
    fn install_process(&self, pid: i32) -> Result<Fd>;
}

static CALLERS: Once<&'static dyn Callers> = Once::new();

/// Sets who answers. Once, at boot.
pub fn set(callers: &'static dyn Callers) {
    assert!(CALLERS.set(callers).is_ok(), "who answers for processes is set twice");
}

/// Who answers. `EBADF` before there are processes.
pub fn get() -> Result<&'static dyn Callers> {
    CALLERS.get().copied().ok_or(Errno::EBADF)
}

/// The process that a system call or page fault is worked on for.
#[allow(missing_docs, reason = "they are what credentials(7) calls them")]
pub(crate) struct Caller {
    pub(crate) cred: Arc<Cred>,
    pub(crate) pid: u32,
}

/// The calling process; `None` for the kernel's own threads.
pub(crate) fn caller() -> Option<Caller> {
    let callers = CALLERS.get()?;
    Some(Caller { cred: callers.cred()?, pid: callers.ids().0.cast_unsigned() })
}
