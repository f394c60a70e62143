//! Who asks, and from where.

use alloc::sync::Arc;

use base::Cred;

use crate::Path;

/// What a file operation needs to know of its caller: a snapshot that the system call takes of its process.
#[derive(Clone)]
pub struct FsContext {
    /// The credentials: `fsuid`, `fsgid`, groups and capabilities count.
    pub cred: Arc<Cred>,
    /// The working directory.
    pub cwd: Path,
    /// The root directory (chroot(2)).
    pub root: Path,
    /// Mode bits that new files don't get.
    pub umask: u32,
}
