//! `/dev/vportNpM`: the byte-stream ports of a console device, as Linux's virtio_console driver offers them.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Events, Result};
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use crate::chardev::OpenWith;
use crate::{DeviceNumber, File, FileKind, Io, OpenFlags, PollTable, chardev};

/// The first dynamic major number, which Linux's driver gets as well.
const MAJOR: u32 = 247;
/// What moves at a time between the device's buffers and user memory.
const CHUNK: usize = 2048;

struct PortFile {
    port: Arc<dyn dev::Port>,
    /// One opener at a time.
    open: AtomicBool,
    waiters: Arc<WaitQueue>,
}

/// Makes the port `port` of console device `device` appear in `/dev`. `EEXIST`, `EBUSY`, `ENOMEM`.
pub fn add_port(device: u32, port: Arc<dyn dev::Port>) -> Result<()> {
    let number = DeviceNumber::new(MAJOR, device * 32 + port.number());
    let name = format!("vport{device}p{}", port.number());
    let waiters = Arc::new(WaitQueue::new());
    let wake = waiters.clone();
    port.set_listener(Box::new(move || wake.wake_all()));
    let file = Arc::new(PortFile { port, open: AtomicBool::new(false), waiters });
    let open = move |_, _: &_, _| {
        if file.open.swap(true, Ordering::AcqRel) {
            return Err(Errno::EBUSY);
        }
        file.port.set_open(true);
        Ok(file.clone() as Arc<dyn File>)
    };
    chardev::register("virtio-portsdev", MAJOR, number.minor, number.minor, Arc::new(OpenWith(Box::new(open))))?;
    super::add_node(&name, FileKind::CharDevice, 0o600, 0, number)
}

impl PortFile {
    /// Waits for `ready`, unless the transfer must not block: `EAGAIN`.
    fn wait(&self, io: &Io, ready: impl Fn() -> bool) -> Result<()> {
        if io.nonblocking() && !ready() {
            return Err(Errno::EAGAIN);
        }
        Ok(self.waiters.wait_until(Sleep::Interruptible, None, || ready().then_some(()))?)
    }
}

impl File for PortFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let mut buffer = [0; CHUNK];
        loop {
            let want = sink.remaining().min(CHUNK);
            let n = self.port.read(&mut buffer[..want]);
            if n > 0 || want == 0 {
                return sink.put(&buffer[..n]);
            }
            // Linux reads end-of-file while the host's end is closed.
            if !self.port.host_connected() {
                return Ok(0);
            }
            self.wait(io, || self.port.can_read() || !self.port.host_connected())?;
        }
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let mut done = 0;
        let mut buffer = [0; CHUNK];
        while source.remaining() > 0 {
            let ready = || self.port.can_write() && self.port.host_connected();
            match self.wait(io, ready) {
                Err(_) if done > 0 => break,
                other => other?,
            }
            let n = match source.take(&mut buffer) {
                Err(_) if done > 0 => break,
                other => other?,
            };
            let sent = self.send(&buffer[..n])?;
            done += sent;
        }
        Ok(done)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.waiters);
        let mut events = Events::empty();
        if !self.port.host_connected() {
            events |= Events::HUP;
        }
        if self.port.can_read() || !self.port.host_connected() {
            events |= Events::READABLE;
        }
        if self.port.can_write() && self.port.host_connected() {
            events |= Events::WRITABLE;
        }
        events
    }

    fn release(&self, _flags: OpenFlags) {
        self.port.set_open(false);
        self.open.store(false, Ordering::Release);
    }
}

impl PortFile {
    /// Sends all of `bytes`, which were taken from the caller already: waits for room, however long.
    fn send(&self, bytes: &[u8]) -> Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            let n = self.port.write(&bytes[sent..]);
            sent += n;
            if n == 0 {
                let gone = || !self.port.host_connected();
                self.waiters
                    .wait_until(Sleep::Uninterruptible, None, || (self.port.can_write() || gone()).then_some(()))?;
                if gone() {
                    return Err(Errno::EPIPE);
                }
            }
        }
        Ok(sent)
    }
}
