//! Terminals: the line discipline, job control, pseudo-terminals and the console.
//!
//! A [`Tty`] is what programs see: settings, a line discipline, a foreground process group. A [`Driver`] takes its output away: a pty's
//! master, or the console's port. `discipline` and `termios` are pure.
//!
//! Lock order: discipline -> settings. Drivers are called without either held. All of this runs in thread context: a driver whose bytes
//! arrive by interrupt hands them to a thread first.

pub mod console;
pub mod devpts;
mod discipline;
mod file;
mod ioctl;
mod job_control;
mod pty;
mod termios;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use base::{Errno, Events, Nanos, Result};
use hal::sync::SpinLock;
use mm::{Sink, Source};
use sched::{Sleep, WaitError, WaitQueue};

use abi::general as c;
use discipline::{Discipline, Effects};
use job_control::job_control;

pub use file::{TtyFile, register};
pub use job_control::{Caller, JobControl, set_job_control};
pub use termios::{Termios, WindowSize, cc};

use crate::{DeviceNumber, PollTable};

const SIGHUP: i32 = 1;
const SIGCONT: i32 = 18;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
const SIGWINCH: i32 = 28;

/// What takes a terminal's output, and is told of changes.
pub trait Driver: Send + Sync {
    /// Bytes it takes without blocking; a little more is never refused.
    fn room(&self) -> usize;
    /// Takes bytes.
    fn write(&self, bytes: &[u8]);
    /// Bytes that have not gone out yet.
    fn pending(&self) -> usize {
        0
    }
    /// Throws away what has not gone out yet.
    fn flush(&self) {}
    /// Output was stopped or started by flow control.
    fn stop(&self, stopped: bool) {
        let _ = stopped;
    }
    /// Typed input was thrown away.
    fn input_flushed(&self) {}
    /// Settings have changed.
    fn settings_changed(&self, old: &Termios, new: &Termios) {
        let _ = (old, new);
    }
    /// Somebody can type again: input was read.
    fn input_wanted(&self) {}
    /// The last open file is gone.
    fn closed(&self) {}
}

/// A terminal.
pub struct Tty {
    /// Its device number.
    pub number: DeviceNumber,
    /// Is it a pty's slave?
    pub is_pty: bool,
    driver: Arc<dyn Driver>,
    termios: SpinLock<Termios>,
    window: SpinLock<WindowSize>,
    discipline: SpinLock<Discipline>,
    /// The session it controls; 0 for none.
    session: AtomicI32,
    /// The foreground process group; 0 for none.
    foreground: AtomicI32,
    /// TIOCEXCL.
    exclusive: AtomicBool,
    opens: AtomicU32,
    /// Counts hang-ups: files opened before the last are dead.
    generation: AtomicU32,
    /// The other side is gone (a pty's master): reading ends, writing fails.
    other_closed: AtomicBool,
    readers: Arc<WaitQueue>,
    writers: Arc<WaitQueue>,
}

impl Tty {
    /// A terminal with fresh settings.
    pub fn new(number: DeviceNumber, is_pty: bool, driver: Arc<dyn Driver>) -> Arc<Tty> {
        Arc::new(Tty {
            number,
            is_pty,
            driver,
            termios: SpinLock::new(if is_pty { Termios::for_pty() } else { Termios::default() }),
            window: SpinLock::new(WindowSize::default()),
            discipline: SpinLock::new(Discipline::default()),
            session: AtomicI32::new(0),
            foreground: AtomicI32::new(0),
            exclusive: AtomicBool::new(false),
            opens: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            other_closed: AtomicBool::new(false),
            readers: Arc::new(WaitQueue::new()),
            writers: Arc::new(WaitQueue::new()),
        })
    }

    /// The settings.
    pub fn termios(&self) -> Termios {
        *self.termios.lock()
    }

    /// The window's size.
    pub fn window(&self) -> WindowSize {
        *self.window.lock()
    }

    /// The session that it controls; 0 for none.
    pub fn session(&self) -> i32 {
        self.session.load(Ordering::Acquire)
    }

    /// The foreground process group; 0 for none.
    pub fn foreground(&self) -> i32 {
        self.foreground.load(Ordering::Acquire)
    }

    /// Makes it control `session`, with `group` in the foreground. The session's side is the caller's.
    pub fn set_session(&self, session: i32, group: i32) {
        self.session.store(session, Ordering::Release);
        self.foreground.store(group, Ordering::Release);
    }

    /// The leader of the session that it controls exits: the foreground group gets SIGHUP and SIGCONT, and it controls nothing any more.
    pub fn leader_exits(&self) {
        let group = self.foreground();
        if group > 0
            && let Ok(jobs) = job_control()
        {
            jobs.signal_group(group, SIGHUP);
            jobs.signal_group(group, SIGCONT);
        }
        self.set_session(0, 0);
    }

    fn signal_foreground(&self, signal: i32) {
        let group = self.foreground();
        if group > 0
            && let Ok(jobs) = job_control()
        {
            jobs.signal_group(group, signal);
        }
    }

    /// Sets the window's size; the foreground group gets SIGWINCH if it changed.
    pub fn set_window(&self, size: WindowSize) {
        let old = core::mem::replace(&mut *self.window.lock(), size);
        if old != size {
            self.signal_foreground(SIGWINCH);
        }
    }

    /// Changes the settings.
    pub fn set_termios(&self, new: Termios) {
        let mut discipline = self.discipline.lock();
        let old = core::mem::replace(&mut *self.termios.lock(), new);
        discipline.settings_change(&old, &new);
        let restart = !new.input(c::IXON) && old.input(c::IXON) && discipline.stopped;
        if restart {
            discipline.stopped = false;
        }
        drop(discipline);
        if restart {
            self.driver.stop(false);
        }
        self.driver.settings_changed(&old, &new);
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// Bytes have been typed: how many could be taken. Echoes, signals and flow control follow from them.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let termios = self.termios();
        let mut fx = Effects::default();
        let mut discipline = self.discipline.lock();
        let mut taken = 0;
        for &byte in bytes {
            if !discipline.has_room(&termios) {
                break;
            }
            discipline.input(&termios, byte, &mut fx);
            taken += 1;
        }
        let readable = discipline.available(&termios) > 0;
        drop(discipline);
        self.carry_out(fx);
        if readable {
            self.readers.wake_for(Events::READABLE, 1);
        }
        taken
    }

    /// Could [`Tty::input`] take something?
    pub fn takes_input(&self) -> bool {
        let termios = self.termios();
        self.discipline.lock().has_room(&termios)
    }

    fn carry_out(&self, fx: Effects) {
        if fx.flush_output {
            self.driver.flush();
        }
        for signal in fx.signals {
            self.signal_foreground(signal);
        }
        if let Some(stopped) = fx.stop {
            self.flow(stopped);
        }
        if !fx.echo.is_empty() {
            self.driver.write(&fx.echo);
        }
    }

    fn flow(&self, stopped: bool) {
        self.driver.stop(stopped);
        if !stopped {
            self.writers.wake_all();
        }
    }

    /// Stops or starts output (TCXONC, tcflow(3)).
    fn set_stopped(&self, stopped: bool) {
        let was = core::mem::replace(&mut self.discipline.lock().stopped, stopped);
        if was != stopped {
            self.flow(stopped);
        }
    }

    /// The driver has room again.
    pub fn output_drained(&self) {
        self.writers.wake_for(Events::WRITABLE, usize::MAX);
    }

    /// Throws typed input away (TCFLSH).
    fn flush_input(&self) {
        self.discipline.lock().flush_input();
        self.driver.input_flushed();
        self.driver.input_wanted();
    }

    /// May the caller, if it is in the background, do what `signal` stands against (SIGTTIN: read; SIGTTOU: write or change)?
    /// `EIO` where the signal would do no good, else it is sent and the call starts again.
    fn check_background(&self, signal: i32) -> Result<()> {
        let Ok(jobs) = job_control() else { return Ok(()) };
        let Some(caller) = jobs.caller() else { return Ok(()) };
        let foreground = self.foreground();
        if self.session() == 0 || caller.session != self.session() || foreground == 0 || caller.group == foreground {
            return Ok(());
        }
        if jobs.caller_ignores(signal) {
            return if signal == SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
        }
        if caller.orphaned {
            return Err(Errno::EIO);
        }
        jobs.signal_group(caller.group, signal);
        Err(Errno::ERESTARTSYS)
    }

    fn hung_up(&self, generation: u32) -> bool {
        self.generation.load(Ordering::Acquire) != generation
    }

    /// Everybody who has it open loses it: reading ends, writing fails. Its session's leader gets SIGHUP.
    pub fn hang_up(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let (session, group) = (self.session(), self.foreground());
        if session > 0
            && let Ok(jobs) = job_control()
        {
            jobs.signal_leader(session, SIGHUP);
            jobs.signal_leader(session, SIGCONT);
            if group > 0 {
                jobs.signal_group(group, SIGHUP);
                jobs.signal_group(group, SIGCONT);
            }
            jobs.set_terminal(session, None);
        }
        self.set_session(0, 0);
        self.discipline.lock().flush_input();
        self.readers.wake_all();
        self.writers.wake_all();
    }

    fn set_other_closed(&self, closed: bool) {
        self.other_closed.store(closed, Ordering::Release);
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// Reads for a file opened in `generation`.
    fn read(&self, sink: &mut Sink, nonblocking: bool, generation: u32) -> Result<usize> {
        if self.hung_up(generation) {
            return Ok(0);
        }
        self.check_background(SIGTTIN)?;
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let mut total = 0;
        loop {
            let mut chunk = [0; 256];
            let want = sink.remaining().min(chunk.len());
            let (n, ends) = match self.wait_input(&mut chunk[..want], total, nonblocking, generation) {
                Ok(got) => got,
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error),
            };
            if n > 0 {
                total += sink.put(&chunk[..n])?;
            }
            self.driver.input_wanted();
            let lines = self.termios().local(c::ICANON);
            if ends || n == 0 || sink.remaining() == 0 || lines && n < want {
                return Ok(total);
            }
        }
    }

    /// Waits for input as VMIN and VTIME say (or for a line), `have` bytes having been read before.
    fn wait_input(&self, buffer: &mut [u8], have: usize, nonblocking: bool, generation: u32) -> Result<(usize, bool)> {
        let termios = self.termios();
        let lines = termios.local(c::ICANON);
        let (min, time) = (usize::from(termios.cc[cc::VMIN]), u64::from(termios.cc[cc::VTIME]) * 100_000_000);
        // With a minimum, the time runs between bytes; without, from the start.
        let timed = !lines && time > 0 && (min == 0 || have > 0);
        let at_once = nonblocking || have > 0 && (lines || have >= min) || !lines && min == 0 && time == 0;
        let deadline: Option<Nanos> = timed.then(|| sched::time::now() + time);
        let attempt = || {
            if self.hung_up(generation) {
                return Some(Ok((0, true)));
            }
            let termios = self.termios();
            let (n, ends) = self.discipline.lock().read(&termios, buffer);
            if n > 0 || ends {
                return Some(Ok((n, ends)));
            }
            if self.other_closed.load(Ordering::Acquire) {
                return Some(Err(Errno::EIO));
            }
            match at_once {
                true if have > 0 || !lines && min == 0 => Some(Ok((0, true))),
                true => Some(Err(Errno::EAGAIN)),
                false => None,
            }
        };
        match self.readers.wait_until(Sleep::Interruptible, deadline, attempt) {
            Ok(result) => result,
            Err(WaitError::TimedOut) => Ok((0, true)),
            Err(WaitError::Interrupted) => Err(Errno::ERESTARTSYS),
        }
    }

    /// Writes for a file opened in `generation`.
    fn write(&self, source: &mut Source, nonblocking: bool, generation: u32) -> Result<usize> {
        if self.hung_up(generation) {
            return Err(Errno::EIO);
        }
        if self.termios().local(c::TOSTOP) {
            self.check_background(SIGTTOU)?;
        }
        let mut total = 0;
        let mut chunk = [0; 256];
        while source.remaining() > 0 {
            let n = match source.take(&mut chunk) {
                Ok(n) => n,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            };
            match self.write_chunk(&chunk[..n], nonblocking, generation) {
                (done, Ok(())) => total += done,
                (done, Err(error)) => {
                    total += done;
                    return if total > 0 { Ok(total) } else { Err(error) };
                }
            }
        }
        Ok(total)
    }

    /// Writes a piece: how much of it, and why not all.
    fn write_chunk(&self, bytes: &[u8], nonblocking: bool, generation: u32) -> (usize, Result<()>) {
        let mut done = 0;
        while done < bytes.len() {
            let room = self.writers.wait_until(Sleep::Interruptible, None, || {
                if self.hung_up(generation) || self.other_closed.load(Ordering::Acquire) {
                    return Some(Err(Errno::EIO));
                }
                let room = if self.discipline.lock().stopped { 0 } else { self.driver.room() };
                match room {
                    0 if nonblocking => Some(Err(Errno::EAGAIN)),
                    0 => None,
                    room => Some(Ok(room)),
                }
            });
            let room = match room {
                Ok(Ok(room)) => room,
                Ok(Err(error)) => return (done, Err(error)),
                Err(error) => return (done, Err(error.into())),
            };
            let termios = self.termios();
            let mut out = Vec::new();
            let mut discipline = self.discipline.lock();
            while done < bytes.len() && out.len() < room {
                discipline.put(&termios, bytes[done], &mut out);
                done += 1;
            }
            drop(discipline);
            self.driver.write(&out);
        }
        (done, Ok(()))
    }

    /// Waits until all output has gone out (tcdrain(3)).
    fn drain(&self) -> Result<()> {
        let empty = || (self.driver.pending() == 0 || self.other_closed.load(Ordering::Acquire)).then_some(());
        Ok(self.writers.wait_until(Sleep::Interruptible, None, empty)?)
    }

    fn poll(&self, table: &mut PollTable, generation: u32) -> Events {
        table.register(&self.readers);
        table.register(&self.writers);
        if self.hung_up(generation) {
            return Events::READABLE | Events::WRITABLE | Events::ERR | Events::HUP;
        }
        let termios = self.termios();
        let discipline = self.discipline.lock();
        let mut ready = Events::empty();
        let least = if !termios.local(c::ICANON) && termios.cc[cc::VTIME] == 0 {
            usize::from(termios.cc[cc::VMIN]).max(1)
        } else {
            1
        };
        if discipline.available(&termios) >= least {
            ready |= Events::READABLE;
        }
        if self.other_closed.load(Ordering::Acquire) {
            ready |= Events::HUP | Events::READABLE;
        }
        if !discipline.stopped && self.driver.room() > 0 {
            ready |= Events::WRITABLE;
        }
        ready
    }

    /// Somebody opens it: counts, and gives the generation. `EBUSY` while another has it for itself (TIOCEXCL).
    fn open(&self, privileged: bool) -> Result<u32> {
        if self.exclusive.load(Ordering::Acquire) && !privileged {
            return Err(Errno::EBUSY);
        }
        self.opens.fetch_add(1, Ordering::AcqRel);
        Ok(self.generation.load(Ordering::Acquire))
    }

    fn close(&self) {
        if self.opens.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.exclusive.store(false, Ordering::Release);
            self.driver.closed();
        }
    }
}
