//! Queueing disciplines (tc(8)): what waits between the network layer and a device, and in which order it goes.
//!
//! A [`Discipline`] is a pure data structure: packets and times go in, packets come out. [`Queue`] drives one for an interface.

mod fair;
mod fifo;
mod netem;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{Errno, Nanos, Result};
use hal::sync::SpinLock;

use super::{Interface, by_index};
use crate::alarm::{Alarm, Rings};
use crate::backlog;
use crate::packet::Packet;

/// What a discipline has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Bytes that went out.
    pub bytes: u64,
    /// Packets that went out.
    pub packets: u32,
    /// Packets that were dropped.
    pub drops: u32,
    /// Packets that were put off because the limit was reached.
    pub over_limits: u32,
    /// Packets that wait, and their bytes.
    pub waiting: (u32, u32),
}

/// What a discipline may say of a packet that it is offered.
pub(crate) enum Offered {
    /// It has it.
    Taken,
    /// It was dropped.
    Dropped,
}

/// An order in which packets go.
pub(crate) trait Discipline: Send {
    /// Its name for `tc`.
    fn name(&self) -> &'static str;
    /// Takes a packet at a time.
    fn offer(&mut self, packet: Box<Packet>, now: Nanos) -> Offered;
    /// The next packet that may go now.
    fn take(&mut self, now: Nanos) -> Option<Box<Packet>>;
    /// When the next one may go, if one waits.
    fn due(&self) -> Option<Nanos>;
    /// Packets and bytes that wait.
    fn waiting(&self) -> (usize, usize);
    /// Sets its options (TCA_OPTIONS). `EINVAL`.
    fn configure(&mut self, options: &[u8]) -> Result<()>;
    /// Its options.
    fn options(&self) -> Vec<u8>;
    /// Drops all.
    fn clear(&mut self);
}

struct Active {
    discipline: Box<dyn Discipline>,
    handle: u32,
    tally: Tally,
}

/// Sends what was put off when its time comes.
struct Clock {
    interface: AtomicU32,
    alarm: Alarm,
}

/// An interface's discipline.
pub(crate) struct Queue {
    /// Nothing was set, so packets go straight to the device.
    direct: AtomicBool,
    /// Devices have a queue of their own even where nothing was set: it shows as `pfifo_fast`.
    hardware: bool,
    active: SpinLock<Option<Active>>,
    clock: Arc<Clock>,
    running: AtomicBool,
    /// Something was added or is due since the last run began.
    pending: AtomicBool,
}

/// What `tc` shows of a discipline.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) handle: u32,
    pub(crate) options: Vec<u8>,
    pub(crate) tally: Tally,
}

/// A new discipline of that name. `ENOENT`.
fn make(name: &str, limit: usize) -> Result<Box<dyn Discipline>> {
    match name {
        "pfifo_fast" => Ok(Box::new(fifo::Bands::new(limit))),
        "pfifo" => Ok(Box::new(fifo::Fifo::packets(limit))),
        "bfifo" => Ok(Box::new(fifo::Fifo::bytes(limit * 1514))),
        "fq" => Ok(Box::new(fair::Fair::default())),
        "netem" => Ok(Box::new(netem::Netem::default())),
        _ => Err(Errno::ENOENT),
    }
}

impl Queue {
    pub(super) fn new(hardware: bool) -> Queue {
        Queue {
            direct: AtomicBool::new(true),
            hardware,
            active: SpinLock::new(None),
            clock: Arc::new(Clock { interface: AtomicU32::new(0), alarm: Alarm::default() }),
            running: AtomicBool::new(false),
            pending: AtomicBool::new(false),
        }
    }

    /// Do packets go straight to the device?
    #[inline]
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// Puts a packet into the order, and sends what may go.
    pub(super) fn send(&self, interface: &Interface, packet: Box<Packet>) {
        let now = sched::time::now();
        {
            let mut active = self.active.lock();
            let Some(active) = active.as_mut() else {
                drop(active);
                interface.emit(packet);
                return;
            };
            if matches!(active.discipline.offer(packet, now), Offered::Dropped) {
                active.tally.drops += 1;
                interface.counts.dropped();
            }
        }
        self.run(interface, now);
    }

    /// Sends what may go, and comes back for what may not yet. Who finds another at it leaves a mark, so that nothing is overlooked.
    fn run(&self, interface: &Interface, now: Nanos) {
        self.pending.store(true, Ordering::SeqCst);
        while self.pending.load(Ordering::SeqCst) {
            if self.running.swap(true, Ordering::SeqCst) {
                return;
            }
            self.pending.store(false, Ordering::SeqCst);
            while let Some(packet) = self.next(interface, now) {
                interface.emit(packet);
            }
            self.running.store(false, Ordering::SeqCst);
        }
    }

    /// The next packet that may go; else the alarm is set for the time when one may.
    fn next(&self, interface: &Interface, now: Nanos) -> Option<Box<Packet>> {
        let mut active = self.active.lock();
        let inside = active.as_mut()?;
        let Some(packet) = inside.discipline.take(now) else {
            let due = inside.discipline.due();
            self.clock.interface.store(interface.index, Ordering::Relaxed);
            self.clock.alarm.set(due.map(|due| due.max(now + 1)), || Some(self.clock.clone()));
            return None;
        };
        inside.tally.packets += 1;
        inside.tally.bytes += packet.len() as u64;
        Some(packet)
    }

    /// Drops what waits.
    pub(super) fn clear(&self) {
        if let Some(active) = self.active.lock().as_mut() {
            active.discipline.clear();
        }
    }

    /// Sets a discipline. `ENOENT` for one that is not here, `EINVAL`.
    pub(crate) fn set(&self, name: &str, handle: u32, options: Option<&[u8]>, limit: usize) -> Result<()> {
        if name == "noqueue" {
            self.reset();
            return Ok(());
        }
        let mut discipline = make(name, limit)?;
        if let Some(options) = options {
            discipline.configure(options)?;
        }
        let handle = if handle == 0 { 0x8001_0000 } else { handle };
        let old = self.active.lock().replace(Active { discipline, handle, tally: Tally::default() });
        self.direct.store(false, Ordering::Relaxed);
        drop(old);
        Ok(())
    }

    /// Changes the options of the discipline that is set. `ENOENT` where it is another, `EINVAL`.
    pub(crate) fn change(&self, name: &str, options: &[u8]) -> Result<()> {
        let mut active = self.active.lock();
        let active = active.as_mut().filter(|a| a.discipline.name() == name).ok_or(Errno::ENOENT)?;
        active.discipline.configure(options)
    }

    /// Takes the discipline away; false if none was set.
    pub(crate) fn reset(&self) -> bool {
        self.direct.store(true, Ordering::Relaxed);
        let old = self.active.lock().take();
        old.is_some()
    }

    /// What `tc` shows, for an interface whose counts these are.
    pub(crate) fn show(&self, interface: &Interface) -> Shown {
        if let Some(active) = self.active.lock().as_ref() {
            let (packets, bytes) = active.discipline.waiting();
            let tally = Tally { waiting: (packets as u32, bytes as u32), ..active.tally };
            let (name, handle) = (active.discipline.name(), active.handle);
            return Shown { name, handle, options: active.discipline.options(), tally };
        }
        let tally = Tally {
            bytes: interface.counts.tx_bytes.load(Ordering::Relaxed),
            packets: interface.counts.tx_packets.load(Ordering::Relaxed) as u32,
            drops: interface.counts.tx_dropped.load(Ordering::Relaxed) as u32,
            ..Tally::default()
        };
        let (name, options) = if self.hardware { ("pfifo_fast", fifo::band_map()) } else { ("noqueue", Vec::new()) };
        let tally = if self.hardware { tally } else { Tally::default() };
        Shown { name, handle: 0, options, tally }
    }

    /// Its name for lists of interfaces.
    pub(crate) fn name(&self) -> &'static str {
        match self.active.lock().as_ref() {
            Some(active) => active.discipline.name(),
            None if self.hardware => "pfifo_fast",
            None => "noqueue",
        }
    }
}

impl Rings for Clock {
    fn ring(self: Arc<Self>, now: Nanos) {
        self.alarm.rung(now);
        if let Some(interface) = by_index(self.interface.load(Ordering::Relaxed)) {
            interface.queue.run(&interface, now);
            backlog::run();
        }
    }
}
