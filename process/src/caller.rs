//! What file systems ask of the calling process: who it is, and FUSE for its descriptors.

use base::Errno;
use fs::caller::Caller;
use fs::fuse::Host;

use crate::task::try_current;

/// Registers the answers. Once, at boot.
pub(crate) fn register() {
    fs::caller::set_source(|| {
        let task = try_current()?;
        Some(Caller { cred: task.cred(), pid: task.pid().cast_unsigned() })
    });
    fs::fuse::set_host(Host { descriptor: |fd| try_current().ok_or(Errno::EBADF)?.files().get(fd) });
}
