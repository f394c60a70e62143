//! Packets from this machine to itself. Who sends one leaves it here, under whatever locks; who has let go of its locks runs the backlog, so the
//! receiver gets its data in the sender's context, without a switch of threads.
//!
//! Each processor has its own. The kernel is not preempted, and nothing here sleeps: a run is never disturbed by another on its processor.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicBool, Ordering};

use hal::cpu::PerCpu;
use hal::sync::SpinLock;
use sched::statistics::{Deferred, note_deferred};

use crate::packet::{Addressed, Packet};
use crate::{af_packet, ip, link, worker};

struct Backlog {
    packets: SpinLock<VecDeque<Box<Packet>>>,
    waiting: AtomicBool,
    running: AtomicBool,
    /// The network's thread works it off.
    deferred: AtomicBool,
}

static BACKLOGS: PerCpu<Backlog> = hal::per_cpu!(Backlog {
    packets: SpinLock::new(VecDeque::new()),
    waiting: AtomicBool::new(false),
    running: AtomicBool::new(false),
    deferred: AtomicBool::new(false),
});

/// Packets that may wait (`net.core.netdev_max_backlog`).
const MAX: usize = 1000;
/// Packets that a sender receives on behalf of others before it goes on with its own work.
const BUDGET: usize = 256;

/// Leaves a packet; false if there are too many.
pub(crate) fn push(packet: Box<Packet>) -> bool {
    let backlog = BACKLOGS.get();
    let mut packets = backlog.packets.lock();
    if packets.len() >= MAX {
        return false;
    }
    packets.push_back(packet);
    backlog.waiting.store(true, Ordering::Relaxed);
    true
}

/// Receives what waits on this processor. The caller holds no lock of the network.
#[inline]
pub fn run() {
    if BACKLOGS.get().waiting.load(Ordering::Relaxed) {
        run_slow();
    }
}

/// Frames go to the interface that they are for, packets of the loopback interface straight to the network layer.
fn receive(packet: Box<Packet>) {
    if packet.link != 0 {
        if let Some(interface) = link::by_index(packet.interface) {
            interface.receive(packet);
        }
        return;
    }
    if af_packet::is_watching()
        && packet.addressed != Addressed::Loopback
        && let Some(lo) = link::by_index(packet.interface)
    {
        af_packet::deliver(&packet, &lo);
    }
    ip::input(packet);
}

/// Works off what waits, a budget's worth. What is left then is the network thread's, which other threads may interrupt.
fn run_slow() {
    let backlog = BACKLOGS.get();
    if backlog.deferred.load(Ordering::Relaxed) || backlog.running.swap(true, Ordering::Relaxed) {
        return;
    }
    note_deferred(Deferred::Receive);
    if !work(backlog, BUDGET) {
        backlog.deferred.store(true, Ordering::Relaxed);
        worker::wake(worker::BACKLOGS);
    }
    backlog.running.store(false, Ordering::Relaxed);
}

/// Receives up to `budget` packets; true if none is left.
fn work(backlog: &Backlog, budget: usize) -> bool {
    for _ in 0..budget {
        let mut packets = backlog.packets.lock();
        let Some(packet) = packets.pop_front() else {
            backlog.waiting.store(false, Ordering::Relaxed);
            backlog.deferred.store(false, Ordering::Relaxed);
            return true;
        };
        drop(packets);
        receive(packet);
    }
    false
}

/// Works off what all processors left. In the network's thread.
pub(crate) fn run_deferred() {
    for backlog in BACKLOGS.iter() {
        while backlog.deferred.load(Ordering::Relaxed) && !work(backlog, BUDGET) {
            sched::preempt_point();
        }
    }
}
