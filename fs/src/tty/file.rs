//! Terminals as files, and the devices `/dev/tty`, `/dev/console`, `/dev/ptmx` and `/dev/pts/N`.

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::{Capability, Errno, Events, Result};
use mm::{Sink, Source};

use crate::chardev::{self, OpenWith};
use crate::tty::{Tty, console, devpts, ioctl, job_control};
use crate::{DeviceNumber, File, FsContext, Io, IoctlContext, OpenFlags, PollTable};

/// An open terminal.
pub struct TtyFile {
    tty: Arc<Tty>,
    generation: u32,
}

impl TtyFile {
    /// Opens the terminal. Where the caller leads a session without one, it becomes that session's controlling terminal, unless
    /// `keeps_apart` (O_NOCTTY). `EBUSY`.
    pub fn open(tty: &Arc<Tty>, cx: &FsContext, keeps_apart: bool) -> Result<Arc<dyn File>> {
        let generation = tty.open(cx.cred.capable(Capability::SysAdmin))?;
        let file = Arc::new(TtyFile { tty: tty.clone(), generation });
        if !keeps_apart {
            become_controlling(tty);
        }
        Ok(file)
    }

    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
}

fn become_controlling(tty: &Arc<Tty>) {
    let Ok(jobs) = job_control() else { return };
    let Some(caller) = jobs.caller() else { return };
    if caller.is_leader && tty.session() == 0 && jobs.terminal().is_none() {
        tty.set_session(caller.session, caller.group);
        jobs.set_terminal(caller.session, Some(tty.clone()));
    }
}

impl File for TtyFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        self.tty.read(sink, io.nonblocking(), self.generation)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        self.tty.write(source, io.nonblocking(), self.generation)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        self.tty.poll(table, self.generation)
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if self.tty.hung_up(self.generation) {
            return Err(if request == abi::ioctl::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        ioctl::ioctl(&self.tty, cx, request, arg)
    }
}

impl Drop for TtyFile {
    fn drop(&mut self) {
        self.tty.close();
    }
}

/// Registers the devices. Once, at boot.
pub fn register() -> Result<()> {
    let noctty = |flags: OpenFlags| flags.contains(OpenFlags::NOCTTY) || !flags.access().contains(crate::Access::READ);
    let current = move |_: DeviceNumber, cx: &FsContext, _: OpenFlags| {
        let tty = job_control().ok().and_then(|jobs| jobs.terminal()).ok_or(Errno::ENXIO)?;
        TtyFile::open(&tty, cx, true)
    };
    chardev::register("/dev/tty", 5, 0, 0, Arc::new(OpenWith(Box::new(current))))?;
    let console =
        |_: DeviceNumber, cx: &FsContext, _: OpenFlags| TtyFile::open(&console::tty().ok_or(Errno::ENODEV)?, cx, true);
    chardev::register("/dev/console", 5, 1, 1, Arc::new(OpenWith(Box::new(console))))?;
    let serial = move |number: DeviceNumber, cx: &FsContext, flags: OpenFlags| {
        let tty = console::tty().filter(|tty| tty.number == number).ok_or(Errno::ENXIO)?;
        TtyFile::open(&tty, cx, noctty(flags))
    };
    chardev::register("ttyS", 4, 64, 67, Arc::new(OpenWith(Box::new(serial))))?;
    let master = |_: DeviceNumber, cx: &FsContext, _: OpenFlags| devpts::open_master(cx);
    chardev::register("/dev/ptmx", 5, 2, 2, Arc::new(OpenWith(Box::new(master))))?;
    let slave = move |number: DeviceNumber, cx: &FsContext, flags: OpenFlags| {
        TtyFile::open(&devpts::slave_to_open(number.minor)?, cx, noctty(flags))
    };
    chardev::register("pts", devpts::SLAVE_MAJOR, 0, u32::MAX, Arc::new(OpenWith(Box::new(slave))))
}
