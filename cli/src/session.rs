//! One guest's life as the host sees it: events come in from the machine, the user and the clock;
//! messages go out to the guest's PID 1; the program's status comes out at the end.

use crate::accel::Attempt;
use crate::failure::{Context, FAILED, Failure, PANICKED, TIMED_OUT};
use crate::image;
use crate::inquiry;
use crate::kernel_log::KernelLog;
use crate::machine::{self, Running};
use crate::streams::{Meter, carry_output, carry_stdin};
use crate::symbolize;
use crate::terminal::{self, Raw};
use protocol::{Decoder, Message, Output, Start, ToGuest, ToHost, VERSION, encode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

const SIGNALS: [i32; 7] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH];
/// How many times Ctrl-C has to be pressed to end a guest that does not react.
const INSISTENCE: u32 = 3;
/// How long a guest may take to switch itself off.
const POWER_OFF: Duration = Duration::from_secs(2);
/// How long a panicked guest may take to end by itself, and its last output to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a kernel that runs may take to PID 1 before another way to run it is tried.
const START: Duration = Duration::from_secs(10);
/// When to tell the user how to see what a guest is doing that does not come up.
const SLOW_BOOT: Duration = Duration::from_secs(30);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The guest's PID 1 says something.
    Message(ToHost),
    /// The guest's PID 1 says something that makes no sense.
    Nonsense(String),
    /// The kernel wrote the first bytes of its log.
    SignOfLife,
    /// The kernel panicked and said all about it.
    PanicComplete,
    /// QEMU has closed its lines.
    MachineEnded,
    /// Nobody reads this output of ours any more.
    OutputClosed(Output),
    /// An output stream has arrived whole.
    OutputComplete,
    /// Our standard input ended after this many bytes.
    StdinEnded(u64),
    /// We got a signal.
    Signal(i32),
    /// The user typed the escape sequence.
    Escape,
    /// `quintet deadlocks` asks, for a graph if so; where the answer goes.
    Inquiry(bool, UnixStream),
}

/// How a session ended.
#[derive(Debug)]
pub enum Outcome {
    /// With this exit status.
    Status(u8),
    /// The guest did not come up under this accelerator, and why we think so.
    NotUp(String),
}

/// What a session needs besides the machine.
pub struct Plan {
    /// What to run.
    pub start: Start,
    /// How the machine runs.
    pub attempt: Attempt,
    /// End the guest after this time.
    pub timeout: Option<Duration>,
    /// The kernel's file, for symbols.
    pub kernel: PathBuf,
    /// Someone debugs the kernel: time does not count.
    pub debugged: bool,
    /// Where to write when the machine started and when PID 1 was there.
    pub times: Option<PathBuf>,
}

/// Runs a started machine to its end.
pub fn run(running: Running, plan: &Plan, log: &KernelLog) -> Result<Outcome, Failure> {
    let (sender, events) = channel();
    let signals = watch_signals(&sender)?;
    // A session that can't be asked is a session all the same.
    let _desk = inquiry::listen(&sender).inspect_err(|error| eprintln!("quintet: {error}")).ok();
    let mut session = Session::new(running, plan, log, sender)?;
    session.send(&ToGuest::Start(plan.start.clone()));
    let outcome = session.drive(&events);
    signals.close();
    outcome
}

fn watch_signals(events: &Sender<Event>) -> Result<Handle, Failure> {
    let mut signals = Signals::new(SIGNALS).or_fail(|| "cannot watch for signals".into())?;
    let handle = signals.handle();
    let events = events.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(handle)
}

fn watch_serial(mut serial: UnixStream, log: KernelLog, events: Sender<Event>) {
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        let mut alive = false;
        while let Ok(length @ 1..) = serial.read(&mut buffer) {
            if !alive {
                alive = true;
                let _ = events.send(Event::SignOfLife);
            }
            if log.push(&buffer[..length]) {
                let _ = events.send(Event::PanicComplete);
            }
        }
        let _ = events.send(Event::MachineEnded);
    });
}

fn watch_control(mut control: UnixStream, events: Sender<Event>) {
    thread::spawn(move || {
        let mut decoder = Decoder::default();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = control.read(&mut buffer) {
            decoder.push(&buffer[..length]);
            loop {
                match decoder.decode() {
                    Ok(Some(message)) => {
                        let _ = events.send(Event::Message(message));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let _ = events.send(Event::Nonsense(error.to_string()));
                        return;
                    }
                }
            }
        }
    });
}

/// A guest that does not read must not hold up the session, so a thread of its own writes.
fn write_control(mut control: UnixStream) -> Sender<Vec<u8>> {
    let (sender, frames) = channel::<Vec<u8>>();
    thread::spawn(move || {
        for frame in frames {
            if control.write_all(&frame).is_err() {
                return;
            }
        }
    });
    sender
}

/// The machine's data ports, before the guest is ready for them.
struct DataPorts {
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
}

struct Session<'a> {
    plan: &'a Plan,
    log: &'a KernelLog,
    running: Running,
    events: Sender<Event>,
    frames: Sender<Vec<u8>>,
    ports: Option<DataPorts>,
    outputs: Vec<Arc<Meter>>,
    raw: Option<Raw>,
    alive: bool,
    /// The program's status, once it has ended.
    status: Option<u8>,
    powering_off: bool,
    machine_ended: bool,
    interrupts: u32,
    /// Those who wait for an answer of the guest, in the order they came.
    inquirers: VecDeque<UnixStream>,
    clock: Clock,
}

/// The moments at which something has to happen.
struct Clock {
    give_up: Option<Instant>,
    time_out: Option<Instant>,
    hint: Option<Instant>,
    kill: Option<Instant>,
}

impl Clock {
    fn next(&self) -> Option<Instant> {
        [self.give_up, self.time_out, self.hint, self.kill].into_iter().flatten().min()
    }
}

fn due(moment: Option<Instant>) -> bool {
    moment.is_some_and(|moment| moment <= Instant::now())
}

impl<'a> Session<'a> {
    fn new(
        running: Running,
        plan: &'a Plan,
        log: &'a KernelLog,
        events: Sender<Event>,
    ) -> Result<Session<'a>, Failure> {
        let duplicate = |line: &UnixStream| line.try_clone().or_fail(|| "cannot duplicate a socket".into());
        let [control, stdin, stdout, stderr] = &running.ports;
        watch_serial(duplicate(&running.serial)?, log.clone(), events.clone());
        watch_control(duplicate(control)?, events.clone());
        let ports = DataPorts { stdin: duplicate(stdin)?, stdout: duplicate(stdout)?, stderr: duplicate(stderr)? };
        let now = Instant::now();
        Ok(Session {
            plan,
            log,
            frames: write_control(duplicate(control)?),
            running,
            events,
            ports: Some(ports),
            outputs: Vec::new(),
            raw: None,
            alive: false,
            status: None,
            powering_off: false,
            machine_ended: false,
            interrupts: 0,
            inquirers: VecDeque::new(),
            clock: Clock {
                give_up: plan.attempt.patience.map(|patience| now + patience),
                time_out: plan.timeout.map(|timeout| now + timeout),
                hint: (!plan.debugged).then_some(now + SLOW_BOOT),
                kill: None,
            },
        })
    }

    fn send(&self, message: &impl Message) {
        // A machine that has ended shows as an event.
        let _ = self.frames.send(encode(message));
    }

    fn drive(&mut self, events: &Receiver<Event>) -> Result<Outcome, Failure> {
        loop {
            let event = match self.clock.next() {
                None => events.recv().ok(),
                Some(moment) => match events.recv_timeout(moment.saturating_duration_since(Instant::now())) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => None,
                },
            };
            let outcome = match event {
                Some(event) => self.handle(event)?,
                None => self.tick(),
            };
            if let Some(outcome) = outcome.or_else(|| self.settle()) {
                return Ok(outcome);
            }
            if self.machine_ended && self.status.is_none() && self.outputs_complete() {
                return self.diagnose();
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<Option<Outcome>, Failure> {
        match event {
            Event::Message(message) => self.message(message)?,
            Event::Nonsense(error) => return Err(self.broken(&error)),
            Event::SignOfLife => self.shows_life(),
            Event::PanicComplete => self.clock.kill = Some(Instant::now() + LAST_WORDS),
            Event::MachineEnded => {
                self.machine_ended = true;
                self.clock.kill.get_or_insert(Instant::now() + LAST_WORDS);
            }
            Event::OutputClosed(output) => self.send(&ToGuest::CloseOutput(output)),
            Event::OutputComplete => {}
            Event::StdinEnded(bytes) => self.send(&ToGuest::StdinEnd { bytes }),
            Event::Signal(signal) => return Ok(self.signal(signal)),
            Event::Inquiry(graph, asker) => {
                self.inquirers.push_back(asker);
                self.send(&ToGuest::Deadlocks { graph });
            }
            Event::Escape => return Ok(Some(Outcome::Status(128 + SIGINT as u8))),
        }
        Ok(None)
    }

    fn broken(&self, error: &str) -> Failure {
        Failure::new("the guest's PID 1 sent a message that makes no sense")
            .because(error)
            .advise("Build the kernel, guest-init and quintet from the same source.")
    }

    /// The kernel runs. That PID 1 will is not said: some hosts' KVM stops a guest on the way.
    fn shows_life(&mut self) {
        if !self.alive {
            self.alive = true;
            self.clock.give_up = self.clock.give_up.map(|_| Instant::now() + START);
        }
    }

    fn message(&mut self, message: ToHost) -> Result<(), Failure> {
        match message {
            ToHost::Ready { version } if version != VERSION => {
                let error = format!("its protocol has version {version}, ours has {VERSION}");
                return Err(self.broken(&error));
            }
            ToHost::Ready { .. } => self.ready()?,
            ToHost::Exited { ending, stdout_bytes, stderr_bytes } => {
                for (meter, bytes) in self.outputs.iter().zip([stdout_bytes, stderr_bytes]) {
                    meter.expect(bytes);
                }
                self.status = Some(ending.shell_status());
            }
            ToHost::Deadlocks { text } => {
                if let Some(asker) = self.inquirers.pop_front() {
                    inquiry::answer(asker, text);
                }
            }
            ToHost::Failed { status, what } => {
                self.raw = None;
                eprintln!("quintet: {what}");
                self.outputs.iter().for_each(|meter| meter.expect(0));
                self.status = Some(status);
            }
        }
        Ok(())
    }

    /// PID 1 listens: connect the program's streams.
    fn ready(&mut self) -> Result<(), Failure> {
        self.alive = true;
        self.clock.give_up = None;
        self.clock.hint = None;
        self.write_times()?;
        let Some(ports) = self.ports.take() else {
            return Ok(());
        };
        let on_terminal = self.plan.start.terminal.is_some();
        if on_terminal {
            self.raw = Some(Raw::enter().or_fail(|| "cannot switch the terminal to raw mode".into())?);
        }
        let (stdout, stderr) = (rustix::stdio::stdout(), rustix::stdio::stderr());
        let events = || self.events.clone();
        self.outputs.push(carry_output(ports.stdout, stdout, Output::Stdout, events()));
        if !on_terminal {
            self.outputs.push(carry_output(ports.stderr, stderr, Output::Stderr, events()));
        }
        carry_stdin(ports.stdin, on_terminal, events());
        Ok(())
    }

    fn write_times(&self) -> Result<(), Failure> {
        let Some(path) = &self.plan.times else { return Ok(()) };
        let started = self.running.started;
        let since = started.elapsed().unwrap_or_default();
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let image = image::size(&self.plan.kernel).unwrap_or(0);
        let (started, ready) = (started.as_secs_f64(), since.as_secs_f64() * 1000.0);
        let text = format!("started {started:.6}\nready {ready:.3}\nimage {image}\n");
        fs::write(path, text).or_fail(|| format!("cannot write {}", path.display()))
    }

    fn signal(&mut self, signal: i32) -> Option<Outcome> {
        if signal == SIGWINCH {
            if self.plan.start.terminal.is_some() {
                self.send(&ToGuest::Resize(terminal::size()));
            }
            return None;
        }
        if signal == SIGINT {
            self.interrupts += 1;
        }
        let number = u8::try_from(signal).unwrap_or(0);
        if self.ports.is_some() || self.status.is_some() || self.interrupts >= INSISTENCE {
            // There is no program to pass it to, or it does not react.
            return Some(Outcome::Status(number.saturating_add(128)));
        }
        self.send(&ToGuest::Signal(number));
        None
    }

    /// A moment of the clock has come.
    fn tick(&mut self) -> Option<Outcome> {
        if due(self.clock.time_out) {
            self.raw = None;
            eprintln!("quintet: the time allowed by --timeout is over");
            return Some(Outcome::Status(TIMED_OUT));
        }
        if due(self.clock.give_up) {
            let why = if self.alive { "the kernel starts, but not PID 1" } else { "no sign of life within a second" };
            return Some(Outcome::NotUp(why.into()));
        }
        if due(self.clock.hint) {
            self.clock.hint = None;
            eprintln!("quintet: the guest is slow to come up; --kernel-log shows what it does");
        }
        if due(self.clock.kill) {
            self.clock.kill = None;
            self.running.kill();
            for meter in &self.outputs {
                meter.expect(0);
            }
            self.machine_ended = true;
        }
        None
    }

    fn outputs_complete(&self) -> bool {
        self.outputs.iter().all(|meter| meter.is_complete())
    }

    /// After the program's end: its status, once its output is delivered and the machine is off.
    fn settle(&mut self) -> Option<Outcome> {
        let status = self.status.filter(|_| self.outputs_complete())?;
        if self.machine_ended {
            return Some(Outcome::Status(status));
        }
        if !self.powering_off {
            self.powering_off = true;
            self.raw = None;
            self.send(&ToGuest::PowerOff);
            self.clock.kill = Some(Instant::now() + POWER_OFF);
        }
        None
    }

    /// The machine ended and nobody told us about the program.
    fn diagnose(&mut self) -> Result<Outcome, Failure> {
        self.raw = None;
        let (status, said) = self.running.wait_at_most(LAST_WORDS);
        if let Some(panic) = self.log.panic() {
            eprint!("{}", symbolize::report(&panic, self.log, &self.plan.kernel));
            return Ok(Outcome::Status(PANICKED));
        }
        let how = machine::describe(status);
        let why = if said.trim().is_empty() { how } else { format!("{how}\n{}", said.trim()) };
        if self.plan.attempt.patience.is_some() && self.ports.is_some() {
            return Ok(Outcome::NotUp(why.lines().last().unwrap_or_default().to_owned()));
        }
        // isa-debug-exit with 0 gives 1.
        let switched_off = status.and_then(|status| status.code()).is_some_and(|code| code <= 1);
        if self.ports.is_none() && switched_off && said.trim().is_empty() {
            // The program switched the machine off, as `poweroff -f` does.
            return Ok(Outcome::Status(0));
        }
        let what = if self.ports.is_some() {
            "the guest did not come up"
        } else {
            "the guest stopped without saying how the program ended"
        };
        let mut failure = Failure::new(what).because(why).status(FAILED);
        if self.alive {
            failure = failure.advise(symbolize::tail(self.log).trim().to_owned());
        }
        Err(failure)
    }
}
