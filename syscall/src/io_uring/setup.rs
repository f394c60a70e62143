//! io_uring_setup(2).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Result};
use fs::OpenFlags;
use fs::vfs::pseudo::open_anonymous;
use ipc::io_uring::abi::{FEATURES, Params, Setup};
use ipc::io_uring::rings::{Rings, sizes};

use super::ring::{Ring, RingFile};
use super::run::address;
use super::sq_thread;
use crate::args::Args;
use crate::context::Context;

/// Flags that don't go together. `EINVAL`.
fn check(flags: Setup, params: &Params) -> Result<()> {
    let has = |flag: Setup| flags.contains(flag);
    let polls = has(Setup::SQPOLL);
    let wrong = polls && flags.intersects(Setup::COOP_TASKRUN | Setup::TASKRUN_FLAG | Setup::DEFER_TASKRUN)
        || has(Setup::TASKRUN_FLAG) && !flags.intersects(Setup::COOP_TASKRUN | Setup::DEFER_TASKRUN)
        || has(Setup::DEFER_TASKRUN) && !has(Setup::SINGLE_ISSUER)
        || has(Setup::SQ_AFF) && (!polls || params.sq_thread_cpu as usize >= hal::cpu::count());
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(crate) fn io_uring_setup(cx: &mut Context, a: Args) -> Result<usize> {
    let pointer = a.ptr::<Params>(1);
    let mut params = pointer.read()?;
    if params.reserved != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let flags = Setup::from_bits(params.flags).ok_or(Errno::EINVAL)?;
    let sizes = sizes(a.uint(0), &params, flags)?;
    check(flags, &params)?;
    let other = match flags.contains(Setup::ATTACH_WQ) {
        true => {
            let open = cx.task.files().get(params.wq_fd as i32).map_err(|_| Errno::ENXIO)?;
            Some(Ring::of(&open).map_err(|_| Errno::EINVAL)?)
        }
        false => None,
    };
    (params.sq, params.cq) = Default::default();
    let rings = Rings::new(sizes, flags, &mut params)?;
    params.features = FEATURES;
    let ring = Ring::new(rings, flags);
    if flags.contains(Setup::SINGLE_ISSUER) && !flags.contains(Setup::R_DISABLED) {
        ring.issuer.store(address(cx.task), Ordering::Relaxed);
    }
    let open = open_anonymous(Arc::new(RingFile(ring.clone())), "[io_uring]", OpenFlags::RDWR);
    if flags.contains(Setup::SQPOLL) {
        sq_thread::start(cx, &ring, &params, other.as_deref())?;
    }
    pointer.write(&params)?;
    crate::open::install(cx.task, open, true)
}
