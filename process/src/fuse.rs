//! What FUSE asks of the calling process: its descriptors, and who it is.

use base::Errno;
use fs::fuse::{Caller, Host};

use crate::task::try_current;

/// Registers the answers. Once, at boot.
pub(crate) fn register() {
    fs::fuse::set_host(Host {
        descriptor: |fd| try_current().ok_or(Errno::EBADF)?.files().get(fd),
        caller: || {
            try_current().map_or_else(Caller::default, |task| {
                let cred = task.cred();
                Caller { uid: cred.fsuid, gid: cred.fsgid, pid: task.pid().cast_unsigned() }
            })
        },
    });
}
