//! `/dev/fuse`: where the program reads requests and writes answers.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use hal::sync::Once;
use hal::user::UserPtr;
use mm::{Sink, Source};
use sched::Sleep;

use super::connection::Connection;
use crate::{DeviceNumber, Fd, File, FileKind, Io, IoctlContext, OpenFile, OpenFlags, PollTable, chardev, devices};

const NUMBER: DeviceNumber = DeviceNumber::new(10, 229);
/// The least that a program has to offer for a request (FUSE_MIN_READ_BUFFER).
const READ_MIN: usize = 8192;
/// The longest answer: data, its header, and something to spare.
const ANSWER_MAX: usize = 1 << 20;
/// FUSE_DEV_IOC_CLONE.
const CLONE: u32 = 0x8004_e500;

/// An open `/dev/fuse`, which belongs to a connection from mounting on.
pub(super) struct Device {
    connection: Once<Arc<Connection>>,
}

/// Registers the device. Once, at boot.
pub fn register() -> Result<()> {
    let open = |_: DeviceNumber, _: &crate::FsContext, _: OpenFlags| -> Result<Arc<dyn File>> {
        Ok(Arc::new(Device { connection: Once::new() }))
    };
    chardev::register("fuse", NUMBER.major, NUMBER.minor, NUMBER.minor, Arc::new(chardev::OpenWith(Box::new(open))))?;
    devices::add_node("fuse", FileKind::CharDevice, 0o666, 0, NUMBER)
}

impl Device {
    /// Makes it the device of a connection. `EINVAL` where it has one.
    pub(super) fn connect(&self, connection: &Arc<Connection>) -> Result<()> {
        self.connection.set(connection.clone()).map_err(|_| Errno::EINVAL)?;
        connection.devices.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Is it free for a mount?
    pub(super) fn is_free(&self) -> bool {
        self.connection.get().is_none()
    }

    fn connection(&self) -> Result<&Arc<Connection>> {
        self.connection.get().ok_or(Errno::EPERM)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get()
            && connection.devices.fetch_sub(1, Ordering::AcqRel) == 1
        {
            connection.abort();
        }
    }
}

impl File for Device {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let connection = self.connection()?;
        let room = sink.remaining();
        if room < READ_MIN {
            return Err(Errno::EINVAL);
        }
        let next = || match connection.next_request(room) {
            Err(Errno::EAGAIN) => None,
            result => Some(result),
        };
        let request = if io.nonblocking() {
            connection.next_request(room)?
        } else {
            connection.readers.wait_until(Sleep::Interruptible, None, next)??
        };
        let message = request.message();
        match sink.put(message) {
            Ok(n) if n == message.len() => Ok(n),
            _ => {
                connection.lost(&request);
                Err(Errno::EFAULT)
            }
        }
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        let connection = self.connection()?;
        let len = source.remaining();
        if len > ANSWER_MAX {
            return Err(Errno::EINVAL);
        }
        let mut message = crate::image::buffer(len)?;
        if source.take(&mut message)? < len {
            return Err(Errno::EFAULT);
        }
        connection.answer(&message)?;
        Ok(len)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        let Ok(connection) = self.connection() else { return Events::ERR };
        table.register(&connection.readers);
        match connection.is_readable() {
            Ok(true) => Events::READABLE | Events::WRITABLE,
            Ok(false) => Events::WRITABLE,
            Err(_) => Events::ERR,
        }
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        if request != CLONE {
            return Err(Errno::ENOTTY);
        }
        let fd = UserPtr::<u32>::new(arg).read()?;
        let other: Arc<OpenFile> = (cx.lookup)(fd as Fd)?;
        let device = other.file().downcast::<Device>().ok_or(Errno::EINVAL)?;
        self.connect(device.connection()?).map(|()| 0)
    }
}
