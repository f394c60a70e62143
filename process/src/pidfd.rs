//! pidfds: descriptors that stand for a process (pidfd_open(2), CLONE_PIDFD).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Events, Result};
use fs::vfs::pseudo::open_anonymous;
use fs::{Fd, File, OpenFile, OpenFlags, PollTable};
use hal::user::UserPtr;

use crate::rlimit::Resource;
use crate::{Process, Task};

/// The object behind a pidfd. Readable once the process has ended.
pub struct PidFile {
    process: Arc<Process>,
}

impl File for PidFile {
    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(self.process.exit_wait());
        if self.process.has_ended() { Events::READABLE } else { Events::empty() }
    }

    fn fdinfo(&self) -> Vec<u8> {
        let pid = if self.process.is_reaped() { -1 } else { self.process.pid() };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n").into_bytes()
    }
}

/// A pidfd for `process`, close-on-exec. `EMFILE`, `ENOMEM`.
pub fn install(task: &Task, process: &Arc<Process>, nonblock: bool) -> Result<Fd> {
    let flags = if nonblock { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    let open = open_anonymous(Arc::new(PidFile { process: process.clone() }), "[pidfd]", flags);
    task.files().install(open, true, task.rlimit(Resource::NoFile).0)
}

/// As [`install`], and stores the number at user address `at`. `EFAULT`.
pub(crate) fn install_at(task: &Task, process: &Arc<Process>, at: usize) -> Result<Fd> {
    let fd = install(task, process, false)?;
    if let Err(error) = UserPtr::new(at).write(&fd) {
        let _ = task.files().close(fd);
        return Err(error);
    }
    Ok(fd)
}

/// The process that `open` stands for, and whether it was opened with PIDFD_NONBLOCK. `EBADF` if it is no pidfd.
pub fn process_of(open: &OpenFile) -> Result<(Arc<Process>, bool)> {
    let file = open.file().downcast::<PidFile>().ok_or(Errno::EBADF)?;
    Ok((file.process.clone(), open.flags().contains(OpenFlags::NONBLOCK)))
}

/// As [`process_of`], but a directory `/proc/PID` will do as well: what pidfd_send_signal(2) accepts. `EBADF`.
pub fn process_or_directory(open: &OpenFile) -> Result<Arc<Process>> {
    if open.path().mount.superblock.kind == "proc" {
        let name = open.path().name_in_mount();
        let number = name.strip_prefix(b"/").and_then(|name| core::str::from_utf8(name).ok());
        let pid = number.and_then(|number| number.parse().ok()).ok_or(Errno::EBADF)?;
        return crate::tree::process(pid).ok_or(Errno::ESRCH);
    }
    process_of(open).map(|(process, _)| process)
}
