//! Process groups and sessions.

use base::{Errno, Result};
use process::{Pid, tree};

use crate::args::Args;
use crate::context::Context;

pub(crate) fn setpgid(cx: &mut Context, a: Args) -> Result<usize> {
    let (pid, group) = (a.int(0), a.int(1));
    if pid < 0 {
        return Err(Errno::ESRCH);
    }
    tree::set_group(cx.task.pid(), pid, group)?;
    Ok(0)
}

fn process_or_self(cx: &Context, pid: Pid) -> Result<alloc::sync::Arc<process::Process>> {
    match pid {
        0 => Ok(cx.task.process().clone()),
        pid => tree::task(pid).map(|task| task.process().clone()).ok_or(Errno::ESRCH),
    }
}

pub(crate) fn getpgid(cx: &mut Context, a: Args) -> Result<usize> {
    process_or_self(cx, a.int(0)).map(|process| process.pgid() as usize)
}

pub(crate) fn getpgrp(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.process().pgid() as usize)
}

pub(crate) fn getsid(cx: &mut Context, a: Args) -> Result<usize> {
    process_or_self(cx, a.int(0)).map(|process| process.sid() as usize)
}

pub(crate) fn setsid(cx: &mut Context, _: Args) -> Result<usize> {
    tree::new_session(cx.task.pid()).map(|sid| sid as usize)
}
