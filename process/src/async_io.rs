//! Signal-driven I/O: SIGIO (or what F_SETSIG says) to the owner of a file.

use alloc::sync::Arc;

use base::Events;
use fs::async_notify::{AsyncOwner, AsyncSignals, set_signals};

use crate::signal::{SIGIO, SIGURG, SigFields, SigInfo, Signal, send};
use crate::{Process, Task, tree, try_current};

/// F_OWNER_TID and F_OWNER_PGRP.
const OWNER_TID: u32 = 0;
const OWNER_PGRP: u32 = 2;
/// `si_code` POLL_IN and POLL_OUT.
const POLL_IN: i32 = 1;
const POLL_OUT: i32 = 2;
/// POLL_MSG, of leases and directories.
const POLL_MSG: i32 = 3;
/// POLL_PRI, of urgent data.
const POLL_PRI: i32 = 5;

struct Sender;

/// May the user who set the owner signal this thread?
fn allowed(owner: &AsyncOwner, task: &Task) -> bool {
    let (uid, euid) = owner.users;
    let cred = task.cred();
    euid == 0 || [uid, euid].iter().any(|user| *user == cred.uid || *user == cred.suid)
}

fn info(owner: &AsyncOwner, fd: fs::Fd, events: Events) -> SigInfo {
    let signal = Signal::new(owner.signal).unwrap_or(SIGIO);
    if owner.signal == 0 {
        return SigInfo::kernel(signal);
    }
    let (code, band) = if events.contains(Events::MSG) {
        (POLL_MSG, Events::READABLE | Events::MSG)
    } else if events.intersects(Events::READABLE) {
        (POLL_IN, Events::READABLE)
    } else if events.contains(Events::PRI) {
        (POLL_PRI, Events::PRI | Events::RDBAND)
    } else {
        (POLL_OUT, Events::WRITABLE | Events::WRBAND)
    };
    SigInfo { signal, errno: 0, code, fields: SigFields::Poll { band: band.bits().into(), fd } }
}

fn to_process(owner: &AsyncOwner, process: &Arc<Process>, info: SigInfo) {
    if tree::task(process.pid()).is_some_and(|leader| allowed(owner, &leader)) {
        // A process that is just ending needs no signal any more.
        let _ = send::to_process(process, info);
    }
}

impl AsyncSignals for Sender {
    fn caller(&self) -> (i32, (u32, u32)) {
        try_current().map_or((0, (0, 0)), |task| {
            let cred = task.cred();
            (task.pid(), (cred.uid, cred.euid))
        })
    }

    fn send(&self, owner: &AsyncOwner, fd: fs::Fd, events: Events) {
        to_owner(owner, info(owner, fd, events));
    }

    fn send_urgent(&self, owner: &AsyncOwner) {
        to_owner(owner, SigInfo::kernel(SIGURG));
    }
}

fn to_owner(owner: &AsyncOwner, info: SigInfo) {
    match owner.kind {
        OWNER_TID => {
            if let Some(task) = tree::task(owner.id).filter(|task| allowed(owner, task)) {
                let _ = send::to_task(&task, info);
            }
        }
        OWNER_PGRP => {
            for process in tree::group(owner.id) {
                to_process(owner, &process, info);
            }
        }
        _ => {
            if let Some(process) = tree::process(owner.id) {
                to_process(owner, &process, info);
            }
        }
    }
}

/// Registers it with the file layer. Once, at boot.
pub(crate) fn register() {
    set_signals(Arc::new(Sender));
}
