//! Packets from this machine to itself. Who sends one leaves it here, under whatever locks; who has let go of its locks runs the backlog, so the
//! receiver gets its data in the sender's context, without a switch of threads.
//!
//! Each processor has its own. The kernel is not preempted, and nothing here sleeps: a run is never disturbed by another on its processor.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicBool, Ordering};

use hal::cpu::PerCpu;
use hal::sync::SpinLock;

use crate::ip;
use crate::packet::Packet;

struct Backlog {
    packets: SpinLock<VecDeque<Box<Packet>>>,
    waiting: AtomicBool,
    running: AtomicBool,
}

static BACKLOGS: PerCpu<Backlog> = hal::per_cpu!(Backlog {
    packets: SpinLock::new(VecDeque::new()),
    waiting: AtomicBool::new(false),
    running: AtomicBool::new(false),
});

/// Packets that may wait (`net.core.netdev_max_backlog`).
const MAX: usize = 1000;

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

fn run_slow() {
    let backlog = BACKLOGS.get();
    if backlog.running.swap(true, Ordering::Relaxed) {
        return;
    }
    loop {
        let mut packets = backlog.packets.lock();
        let Some(packet) = packets.pop_front() else {
            backlog.waiting.store(false, Ordering::Relaxed);
            break;
        };
        drop(packets);
        ip::input(packet);
    }
    backlog.running.store(false, Ordering::Relaxed);
}
