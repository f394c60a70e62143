//! Who may look into whom: the rule of ptrace(2), which `/proc` and process_vm_readv(2) follow too.

use alloc::sync::Arc;

use base::{Capability, Errno, Result};

use crate::Task;

/// May `caller` look into `target`'s memory and files? Its own process always; another's if all its ids are the caller's, it holds no
/// capability that the caller lacks, and it has not been made undumpable. `EPERM`.
pub fn check(caller: &Task, target: &Task) -> Result<()> {
    if Arc::ptr_eq(caller.process(), target.process()) {
        return Ok(());
    }
    let (mine, other) = (caller.cred(), target.cred());
    let same_user = [other.uid, other.euid, other.suid] == [mine.fsuid; 3];
    let same_group = [other.gid, other.egid, other.sgid] == [mine.fsgid; 3];
    let open = target.process().dumpable() == 1 && mine.permitted.contains(other.permitted);
    fs::landlock::may_trace(&mine, &other)?;
    let allowed = same_user && same_group && open || mine.capable(Capability::SysPtrace);
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// As [`check`], for the calling thread; `EACCES`, as `/proc` says it. Kernel threads may.
pub fn check_current(target: &Task) -> Result<()> {
    crate::try_current().map_or(Ok(()), |caller| check(&caller, target).map_err(|_| Errno::EACCES))
}
