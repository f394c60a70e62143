//! Pseudo-terminals: a terminal whose other end is a file.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use abi::general as c;
use abi::ioctl as n;
use base::{Errno, Events, Result};
use hal::sync::{Once, SpinLock};
use hal::user::UserPtr;
use mm::{Sink, Source};
use sched::{Sleep, WaitQueue};

use super::termios::{Termios, cc};
use super::{Driver, Tty, devpts, ioctl};
use crate::{DeviceNumber, File, Io, IoctlContext, OpenFlags, PollTable};

/// Output that waits for the master.
const CAPACITY: usize = 8192;

/// Status bytes of packet mode (TIOCPKT_*).
mod packet {
    pub(super) const FLUSHREAD: u8 = 1;
    pub(super) const FLUSHWRITE: u8 = 2;
    pub(super) const STOP: u8 = 4;
    pub(super) const START: u8 = 8;
    pub(super) const NOSTOP: u8 = 16;
    pub(super) const DOSTOP: u8 = 32;
    pub(super) const IOCTL: u8 = 64;
}

/// What lies between the master and the slave: the slave's driver.
pub(super) struct Pair {
    pub(super) index: u32,
    slave: Once<Weak<Tty>>,
    output: SpinLock<VecDeque<u8>>,
    master_waits: Arc<WaitQueue>,
    packet_mode: AtomicBool,
    status: AtomicU8,
    /// TIOCSPTLCK: the slave can't be opened yet.
    locked: AtomicBool,
    slave_opens: AtomicU32,
    /// The slave was open once, and is not any more.
    slave_closed: AtomicBool,
}

impl Pair {
    /// A new pair: the slave and the master's file.
    pub(super) fn open(index: u32) -> (Arc<Tty>, Arc<MasterFile>) {
        let pair = Arc::new(Pair {
            index,
            slave: Once::new(),
            output: SpinLock::new(VecDeque::new()),
            master_waits: Arc::new(WaitQueue::new()),
            packet_mode: AtomicBool::new(false),
            status: AtomicU8::new(0),
            locked: AtomicBool::new(true),
            slave_opens: AtomicU32::new(0),
            slave_closed: AtomicBool::new(false),
        });
        let slave = Tty::new(DeviceNumber::new(devpts::SLAVE_MAJOR, index), true, pair.clone());
        let _ = pair.slave.set(Arc::downgrade(&slave));
        (slave.clone(), Arc::new(MasterFile { pair, slave }))
    }

    fn tell_status(&self, set: u8, clear: u8) {
        if self.packet_mode.load(Ordering::Acquire) {
            self.status.fetch_and(!clear, Ordering::AcqRel);
            self.status.fetch_or(set, Ordering::AcqRel);
            self.master_waits.wake_for(Events::PRI | Events::READABLE, usize::MAX);
        }
    }
}

impl Driver for Pair {
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.output.lock().len())
    }

    fn write(&self, bytes: &[u8]) {
        let mut output = self.output.lock();
        // Echo is not held back by `room`, so it is cut off at twice that.
        let room = (2 * CAPACITY).saturating_sub(output.len());
        output.extend(&bytes[..bytes.len().min(room)]);
        drop(output);
        self.master_waits.wake_for(Events::READABLE, usize::MAX);
    }

    fn flush(&self) {
        self.output.lock().clear();
        self.tell_status(packet::FLUSHWRITE, 0);
    }

    fn stop(&self, stopped: bool) {
        let (set, clear) = if stopped { (packet::STOP, packet::START) } else { (packet::START, packet::STOP) };
        self.tell_status(set, clear);
    }

    fn input_flushed(&self) {
        self.tell_status(packet::FLUSHREAD, 0);
    }

    fn settings_changed(&self, old: &Termios, new: &Termios) {
        let stops = |t: &Termios| t.input(c::IXON) && t.cc[cc::VSTOP] == 19 && t.cc[cc::VSTART] == 17;
        match (stops(old), stops(new)) {
            (false, true) => self.tell_status(packet::DOSTOP, packet::NOSTOP),
            (true, false) => self.tell_status(packet::NOSTOP, packet::DOSTOP),
            _ => {}
        }
        if (old.local(c::EXTPROC) || new.local(c::EXTPROC)) && old != new {
            self.tell_status(packet::IOCTL, 0);
        }
    }

    fn input_wanted(&self) {
        self.master_waits.wake_for(Events::WRITABLE, usize::MAX);
    }

    fn closed(&self) {
        self.slave_opens.store(0, Ordering::Release);
        self.slave_closed.store(true, Ordering::Release);
        self.master_waits.wake_all();
    }
}

/// The master's end.
pub(super) struct MasterFile {
    pub(super) pair: Arc<Pair>,
    pub(super) slave: Arc<Tty>,
}

impl MasterFile {
    /// The slave is about to be opened. `EIO` while it is locked.
    pub(super) fn admit(pair: &Pair) -> Result<()> {
        if pair.locked.load(Ordering::Acquire) {
            return Err(Errno::EIO);
        }
        pair.slave_closed.store(false, Ordering::Release);
        Ok(())
    }

    /// What a reader gets now: in packet mode, a status byte first. `EIO` once the slave is closed and all is read.
    fn take(&self, buffer: &mut [u8]) -> Option<Result<usize>> {
        let packets = self.pair.packet_mode.load(Ordering::Acquire);
        if packets {
            let status = self.pair.status.swap(0, Ordering::AcqRel);
            if status != 0 {
                buffer[0] = status;
                return Some(Ok(1));
            }
        }
        let header = usize::from(packets);
        let mut output = self.pair.output.lock();
        let len = output.len().min(buffer.len() - header);
        if len > 0 {
            buffer[0] = 0;
            for (to, byte) in buffer[header..].iter_mut().zip(output.drain(..len)) {
                *to = byte;
            }
            return Some(Ok(len + header));
        }
        drop(output);
        self.pair.slave_closed.load(Ordering::Acquire).then_some(Err(Errno::EIO))
    }
}

impl File for MasterFile {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let mut total = 0;
        while sink.remaining() > 0 {
            let mut buffer = [0; 512];
            let want = sink.remaining().min(buffer.len());
            let at_once = io.nonblocking() || total > 0;
            let taken = self.pair.master_waits.wait_until(Sleep::Interruptible, None, || {
                let taken = self.take(&mut buffer[..want]);
                if taken.is_none() && at_once { Some(Err(Errno::EAGAIN)) } else { taken }
            });
            match taken.map_err(Errno::from).flatten() {
                Ok(n) => {
                    total += sink.put(&buffer[..n])?;
                    self.slave.output_drained();
                }
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
            if self.pair.packet_mode.load(Ordering::Acquire) {
                break;
            }
        }
        Ok(total)
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let mut total = 0;
        while source.remaining() > 0 {
            let mut buffer = [0; 256];
            let n = match source.take(&mut buffer) {
                Ok(n) => n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            };
            let mut done = 0;
            while done < n {
                let waited =
                    self.pair.master_waits.wait_until(Sleep::Interruptible, None, || match self.slave.takes_input() {
                        true => Some(Ok(())),
                        false if io.nonblocking() => Some(Err(Errno::EAGAIN)),
                        false => None,
                    });
                if let Err(error) = waited.map_err(Errno::from).flatten() {
                    total += done;
                    return if total > 0 { Ok(total) } else { Err(error) };
                }
                done += self.slave.input(&buffer[done..n]);
            }
            total += n;
        }
        Ok(total)
    }

    fn poll(&self, table: &mut PollTable) -> Events {
        table.register(&self.pair.master_waits);
        let mut ready = Events::empty();
        if self.pair.packet_mode.load(Ordering::Acquire) && self.pair.status.load(Ordering::Acquire) != 0 {
            ready |= Events::PRI | Events::READABLE;
        }
        if !self.pair.output.lock().is_empty() {
            ready |= Events::READABLE;
        }
        if self.pair.slave_closed.load(Ordering::Acquire) {
            ready |= Events::HUP;
        }
        if self.slave.takes_input() {
            ready |= Events::WRITABLE;
        }
        ready
    }

    fn ioctl(&self, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
        match request {
            n::TIOCGPTN => UserPtr::new(arg).write(&self.pair.index)?,
            n::TIOCSPTLCK => self.pair.locked.store(UserPtr::<i32>::new(arg).read()? != 0, Ordering::Release),
            n::TIOCGPTLCK => UserPtr::new(arg).write(&i32::from(self.pair.locked.load(Ordering::Acquire)))?,
            n::TIOCPKT => {
                let on = UserPtr::<i32>::new(arg).read()? != 0;
                if on && !self.pair.packet_mode.load(Ordering::Acquire) {
                    self.pair.status.store(0, Ordering::Release);
                }
                self.pair.packet_mode.store(on, Ordering::Release);
            }
            n::TIOCGPKT => UserPtr::new(arg).write(&i32::from(self.pair.packet_mode.load(Ordering::Acquire)))?,
            n::TIOCSIG => {
                let signal = i32::try_from(arg).ok().filter(|s| matches!(s, 2 | 3 | 20)).ok_or(Errno::EINVAL)?;
                self.slave.signal_foreground(signal);
            }
            n::TIOCGPTPEER => {
                let flags = OpenFlags::from_bits_truncate(arg as u32);
                let open = devpts::open_peer(self.pair.index, cx, flags)?;
                return (cx.install)(open, flags.contains(OpenFlags::CLOEXEC)).map(|fd| fd as usize);
            }
            n::FIONREAD => UserPtr::new(arg).write(&(self.pair.output.lock().len() as i32))?,
            n::TIOCSCTTY | n::TIOCNOTTY => return Err(Errno::ENOTTY),
            _ => return ioctl::ioctl(&self.slave, cx, request, arg),
        }
        Ok(0)
    }
}

impl Drop for MasterFile {
    fn drop(&mut self) {
        devpts::master_closed(self.pair.index);
        self.slave.set_other_closed(true);
        self.slave.hang_up();
    }
}
