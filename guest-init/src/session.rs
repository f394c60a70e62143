//! One program's life: start it, carry its streams and signals, report its end.

use crate::ports::{Control, Ports};
use crate::pump::{Pump, Source};
use crate::spawn::{self, Program, Streams};
use crate::volumes;
use protocol::{Ending, Output, Start, ToGuest, ToHost, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a terminal may be silent after the program's end before its output counts as complete.
const TERMINAL_SILENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 30_000_000 };
const END_OF_TRANSMISSION: u8 = 4;
/// How long killed processes may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// The status for what is wrong before the program.
const CANNOT_START: u8 = 125;

/// What the session's loop should do next.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    PowerOff,
}

/// Ends every process but this one, so that none has files open to be written when the root is left.
pub(crate) fn end_all() {
    // Process group 1 as kill(2) takes it: all that there are.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    let deadline = Instant::now() + END_PATIENCE;
    while wait(WaitOptions::NOHANG).is_ok() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the program that the host asks for, and returns when the machine should be switched off.
pub(crate) fn run(mut ports: Ports) -> io::Result<()> {
    let children = watch_children()?;
    ports.control.send(&ToHost::Ready { version: VERSION })?;
    let Some(start) = wait_for_start(&mut ports.control)? else {
        return Ok(());
    };
    if !start.hostname.is_empty() {
        // A name is a nicety; the program runs without it.
        let _ = rustix::system::sethostname(&start.hostname);
    }
    if let Err(what) = volumes::mount_all(&start.volumes) {
        ports.control.send(&ToHost::Failed { status: CANNOT_START, what })?;
        return wait_for_power_off(&mut ports.control);
    }
    match spawn::spawn(&start) {
        Ok(program) => Session::new(program, ports, children).run(),
        Err(failure) => {
            ports.control.send(&ToHost::Failed { status: failure.status, what: failure.what })?;
            wait_for_power_off(&mut ports.control)
        }
    }
}

/// A pipe that gets a byte whenever a child changes its state.
fn watch_children() -> io::Result<OwnedFd> {
    let (receiver, sender) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, sender)?;
    Ok(receiver)
}

fn wait_for_start(control: &mut Control) -> io::Result<Option<Start>> {
    loop {
        if let Some(message) = control.take()? {
            match message {
                ToGuest::Start(start) => return Ok(Some(start)),
                ToGuest::PowerOff => return Ok(None),
                _ => continue,
            }
        }
        if !control.receive()? {
            return Ok(None);
        }
    }
}

/// What the kernel says of who waits for whom, as far as it fits a message; empty on a kernel that does not.
fn deadlocks(graph: bool) -> Vec<u8> {
    let path = if graph { "/proc/deadlocks.dot" } else { "/proc/deadlocks" };
    let mut text = std::fs::read(path).unwrap_or_default();
    text.truncate(protocol::MAX_FRAME / 2);
    text
}

fn wait_for_power_off(control: &mut Control) -> io::Result<()> {
    loop {
        while let Some(message) = control.take()? {
            if message == ToGuest::PowerOff {
                return Ok(());
            }
        }
        if !control.receive()? {
            return Ok(());
        }
    }
}

struct Session {
    control: Control,
    children: OwnedFd,
    leader: Pid,
    ending: Option<Ending>,
    reported: bool,
    terminal: Option<Rc<OwnedFd>>,
    stdin: Pump,
    stdout: Pump,
    stderr: Option<Pump>,
}

impl Session {
    fn new(program: Program, ports: Ports, children: OwnedFd) -> Session {
        let (stdin, stdout, stderr, terminal) = match program.streams {
            Streams::Pipes { stdin, stdout, stderr } => (stdin, stdout, Some(stderr), None),
            Streams::Terminal(master) => (master.clone(), master.clone(), None, Some(master)),
        };
        Session {
            control: ports.control,
            children,
            leader: program.pid,
            ending: None,
            reported: false,
            terminal,
            stdin: Pump::new(ports.stdin, stdin, Source::Port),
            stdout: Pump::new(stdout, ports.stdout, Source::Program),
            stderr: stderr.map(|stderr| Pump::new(stderr, ports.stderr, Source::Program)),
        }
    }

    fn run(mut self) -> io::Result<()> {
        // More may have come along with the message that started the program.
        let mut flow = self.obey()?;
        while flow == Flow::Continue {
            flow = self.turn()?;
        }
        Ok(())
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<Flow> {
        let [children, control, stdin, stdout, stderr] = self.wait()?;
        if children {
            self.reap();
        }
        if control && self.serve_control()? == Flow::PowerOff {
            return Ok(Flow::PowerOff);
        }
        if stdin {
            self.stdin.step();
        }
        if stdout {
            self.stdout.step();
        }
        if let (true, Some(pump)) = (stderr, &mut self.stderr) {
            pump.step();
        }
        if self.ending.is_some() && !self.reported {
            let quiet = !stdout && !stderr;
            self.finish(quiet)?;
        }
        Ok(Flow::Continue)
    }

    fn wait(&self) -> io::Result<[bool; 5]> {
        let mut fds = vec![PollFd::new(&self.children, PollFlags::IN), PollFd::new(&self.control.port, PollFlags::IN)];
        let mut slots = [Some(0), Some(1), None, None, None];
        let pumps = [Some(&self.stdin), Some(&self.stdout), self.stderr.as_ref()];
        for (pump, slot) in pumps.into_iter().zip(&mut slots[2..]) {
            if let Some((fd, flags)) = pump.and_then(Pump::interest) {
                *slot = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = self.drain_timeout();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(slots.map(|slot| slot.is_some_and(|slot| !fds[slot].revents().is_empty())))
    }

    /// After the program's end: how long to wait for more output. None while it runs.
    fn drain_timeout(&self) -> Option<Timespec> {
        let draining = self.ending.is_some() && !self.reported && self.outputs_delivered();
        draining.then_some(match self.terminal {
            Some(_) => TERMINAL_SILENCE,
            None => Timespec { tv_sec: 0, tv_nsec: 0 },
        })
    }

    fn outputs_delivered(&self) -> bool {
        self.stdout.is_empty() && self.stderr.as_ref().is_none_or(Pump::is_empty)
    }

    /// Reports the end once nothing is left in the pipes: no output was ready (`quiet`) and all
    /// that was read is delivered.
    fn finish(&mut self, quiet: bool) -> io::Result<()> {
        let ended = self.stdout.ended() && self.stderr.as_ref().is_none_or(Pump::ended);
        let (true, Some(ending)) = (self.outputs_delivered() && (quiet || ended), self.ending) else {
            return Ok(());
        };
        self.stdin.close();
        self.stdout.close();
        let mut stderr_bytes = 0;
        if let Some(stderr) = &mut self.stderr {
            stderr.close();
            stderr_bytes = stderr.moved();
        }
        self.reported = true;
        let stdout_bytes = self.stdout.moved();
        self.control.send(&ToHost::Exited { ending, stdout_bytes, stderr_bytes })
    }

    /// Collects the children that ended, the program and orphans alike.
    fn reap(&mut self) {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.children, &mut bytes).is_ok_and(|length| length == bytes.len()) {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let ending = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ending::Code(code as u8),
                (None, Some(signal)) => Ending::Signal(signal as u8),
                (None, None) => continue,
            };
            if pid == self.leader {
                self.ending = Some(ending);
            }
        }
    }

    fn serve_control(&mut self) -> io::Result<Flow> {
        if !self.control.receive()? {
            // The host is gone, so nobody waits for the program.
            return Ok(Flow::PowerOff);
        }
        self.obey()
    }

    /// Does what the messages received so far ask for.
    fn obey(&mut self) -> io::Result<Flow> {
        while let Some(message) = self.control.take()? {
            match message {
                ToGuest::Start(_) => {}
                ToGuest::StdinEnd { bytes } => self.end_stdin(bytes),
                ToGuest::CloseOutput(Output::Stdout) => self.stdout.close(),
                ToGuest::CloseOutput(Output::Stderr) => {
                    self.stderr.iter_mut().for_each(Pump::close);
                }
                ToGuest::Signal(number) => self.signal(number),
                ToGuest::Resize(size) => {
                    if let Some(master) = &self.terminal {
                        // The worst outcome is a picture of the old size.
                        let _ = spawn::resize(master, size);
                    }
                }
                ToGuest::PowerOff => return Ok(Flow::PowerOff),
                ToGuest::Deadlocks { graph } => self.control.send(&ToHost::Deadlocks { text: deadlocks(graph) })?,
            }
        }
        Ok(Flow::Continue)
    }

    fn end_stdin(&mut self, bytes: u64) {
        self.stdin.ends_after(bytes);
        if let (true, Some(master)) = (self.stdin.ended(), &self.terminal) {
            // A terminal cannot be closed from this side alone: type what a user would.
            let _ = rustix::io::write(master, &[END_OF_TRANSMISSION]);
        }
    }

    fn signal(&self, number: u8) {
        if self.ending.is_none()
            && let Some(signal) = Signal::from_named_raw(i32::from(number))
        {
            // The group may be gone already.
            let _ = kill_process_group(self.leader, signal);
        }
    }
}
