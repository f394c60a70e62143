//! tty_ioctl(4).

use alloc::sync::Arc;

use abi::ioctl as n;
use base::{Capability, Errno, Result};
use core::sync::atomic::Ordering;
use hal::user::{UserPtr, copy_out};
use zerocopy::{FromBytes, IntoBytes};

use super::termios::{TERMIOS_LEN, Termio, Termios, WindowSize};
use super::{SIGTTOU, Tty, job_control};
use crate::IoctlContext;

/// TIOCGDEV and other requests that the ABI crate does not name.
mod extra {
    pub(super) const TCGETS2: u32 = 0x802c_542a;
    pub(super) const TCSETS2: u32 = 0x402c_542b;
    pub(super) const TCSETSW2: u32 = 0x402c_542c;
    pub(super) const TCSETSF2: u32 = 0x402c_542d;
    pub(super) const TIOCGDEV: u32 = 0x8004_5432;
    pub(super) const TIOCVHANGUP: u32 = 0x5437;
    pub(super) const TIOCGEXCL: u32 = 0x8004_5440;
}

/// What waits before settings change, and what is thrown away then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    Drained,
    DrainedAndFlushed,
}

/// The form in which settings come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Old,
    Plain,
    WithSpeeds,
}

/// An ioctl on a terminal (or, where they share it, on its pty's master). `ENOTTY` for what it does not know.
pub(super) fn ioctl(tty: &Arc<Tty>, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
    if let Some((form, when)) = settings_request(request) {
        return set_settings(tty, form, when, arg);
    }
    match request {
        n::TCGETS => copy_out(arg, &tty.termios().as_bytes()[..TERMIOS_LEN])?,
        extra::TCGETS2 => UserPtr::new(arg).write(&tty.termios())?,
        n::TCGETA => UserPtr::new(arg).write(&tty.termios().to_termio())?,
        n::TIOCGWINSZ => UserPtr::new(arg).write(&tty.window())?,
        n::TIOCSWINSZ => tty.set_window(UserPtr::<WindowSize>::new(arg).read()?),
        n::TIOCGPGRP | n::TIOCSPGRP | n::TIOCGSID | n::TIOCSCTTY | n::TIOCNOTTY => {
            return jobs_ioctl(tty, cx, request, arg);
        }
        n::FIONREAD => {
            let count = tty.discipline.lock().readable(&tty.termios());
            UserPtr::new(arg).write(&(count as i32))?;
        }
        n::TIOCOUTQ => UserPtr::new(arg).write(&i32::try_from(tty.driver.pending()).unwrap_or(i32::MAX))?,
        n::TCXONC => return flow(tty, arg),
        n::TCFLSH => return flush(tty, arg),
        n::TCSBRK | n::TCSBRKP => {
            tty.check_background(SIGTTOU)?;
            tty.drain()?;
        }
        n::TIOCEXCL => tty.exclusive.store(true, Ordering::Release),
        n::TIOCNXCL => tty.exclusive.store(false, Ordering::Release),
        extra::TIOCGEXCL => UserPtr::new(arg).write(&i32::from(tty.exclusive.load(Ordering::Acquire)))?,
        n::TIOCSTI => {
            let byte = UserPtr::<u8>::new(arg).read()?;
            let own = job_control()?.terminal().is_some_and(|t| Arc::ptr_eq(&t, tty));
            if !own && !cx.cred.capable(Capability::SysAdmin) {
                return Err(Errno::EPERM);
            }
            tty.input(&[byte]);
        }
        n::TIOCGETD => UserPtr::new(arg).write(&i32::from(tty.termios().line))?,
        n::TIOCSETD => {
            // There is only the one discipline, N_TTY.
            if UserPtr::<i32>::new(arg).read()? != 0 {
                return Err(Errno::EINVAL);
            }
        }
        extra::TIOCGDEV => UserPtr::new(arg).write(&(tty.number.encode() as u32))?,
        extra::TIOCVHANGUP => {
            if !cx.cred.capable(Capability::SysAdmin) {
                return Err(Errno::EPERM);
            }
            tty.hang_up();
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn settings_request(request: u32) -> Option<(Form, When)> {
    Some(match request {
        n::TCSETS => (Form::Plain, When::Now),
        n::TCSETSW => (Form::Plain, When::Drained),
        n::TCSETSF => (Form::Plain, When::DrainedAndFlushed),
        n::TCSETA => (Form::Old, When::Now),
        n::TCSETAW => (Form::Old, When::Drained),
        n::TCSETAF => (Form::Old, When::DrainedAndFlushed),
        extra::TCSETS2 => (Form::WithSpeeds, When::Now),
        extra::TCSETSW2 => (Form::WithSpeeds, When::Drained),
        extra::TCSETSF2 => (Form::WithSpeeds, When::DrainedAndFlushed),
        _ => return None,
    })
}

fn set_settings(tty: &Arc<Tty>, form: Form, when: When, arg: usize) -> Result<usize> {
    tty.check_background(SIGTTOU)?;
    let old = tty.termios();
    let new = match form {
        Form::WithSpeeds => UserPtr::<Termios>::new(arg).read()?,
        Form::Old => old.with_termio(&UserPtr::<Termio>::new(arg).read()?),
        Form::Plain => {
            let mut raw = [0; size_of::<Termios>()];
            raw[TERMIOS_LEN..].copy_from_slice(&old.as_bytes()[TERMIOS_LEN..]);
            hal::user::copy_in(&mut raw[..TERMIOS_LEN], arg)?;
            let mut new = Termios::read_from_bytes(&raw).map_err(|_| Errno::EINVAL)?;
            new.set_speeds_from_flags();
            new
        }
    };
    if when != When::Now {
        tty.drain()?;
    }
    if when == When::DrainedAndFlushed {
        tty.flush_input();
    }
    tty.set_termios(new);
    Ok(0)
}

fn flow(tty: &Tty, arg: usize) -> Result<usize> {
    const OFF_OUTPUT: usize = 0;
    const ON_OUTPUT: usize = 1;
    const OFF_INPUT: usize = 2;
    const ON_INPUT: usize = 3;
    tty.check_background(SIGTTOU)?;
    let termios = tty.termios();
    match arg {
        OFF_OUTPUT => tty.set_stopped(true),
        ON_OUTPUT => tty.set_stopped(false),
        OFF_INPUT => tty.driver.write(&[termios.cc[super::cc::VSTOP]]),
        ON_INPUT => tty.driver.write(&[termios.cc[super::cc::VSTART]]),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn flush(tty: &Tty, arg: usize) -> Result<usize> {
    const INPUT: usize = 0;
    const OUTPUT: usize = 1;
    const BOTH: usize = 2;
    tty.check_background(SIGTTOU)?;
    if !matches!(arg, INPUT | OUTPUT | BOTH) {
        return Err(Errno::EINVAL);
    }
    if arg != OUTPUT {
        tty.flush_input();
    }
    if arg != INPUT {
        tty.driver.flush();
        tty.writers.wake_all();
    }
    Ok(0)
}

fn jobs_ioctl(tty: &Arc<Tty>, cx: &IoctlContext, request: u32, arg: usize) -> Result<usize> {
    let jobs = job_control()?;
    let caller = jobs.caller().ok_or(Errno::ENOTTY)?;
    let own = jobs.terminal().is_some_and(|t| Arc::ptr_eq(&t, tty));
    // The master of a pty may ask about the slave's session, which is not its own.
    let through_master = cx.open.file().downcast::<super::pty::MasterFile>().is_some();
    match request {
        n::TIOCGPGRP => {
            if !own && !through_master {
                return Err(Errno::ENOTTY);
            }
            UserPtr::new(arg).write(&tty.foreground())?;
        }
        n::TIOCGSID => {
            if !own && !through_master || tty.session() == 0 {
                return Err(Errno::ENOTTY);
            }
            UserPtr::new(arg).write(&tty.session())?;
        }
        n::TIOCSPGRP => {
            if !through_master {
                tty.check_background(SIGTTOU)?;
            }
            if !own || caller.session != tty.session() {
                return Err(Errno::ENOTTY);
            }
            let group = UserPtr::<i32>::new(arg).read()?;
            if group < 0 {
                return Err(Errno::EINVAL);
            }
            if jobs.session_of_group(group).ok_or(Errno::ESRCH)? != caller.session {
                return Err(Errno::EPERM);
            }
            tty.foreground.store(group, Ordering::Release);
        }
        n::TIOCSCTTY => take_terminal(tty, cx, arg, own, &caller)?,
        _ => {
            if !own {
                return Err(Errno::ENOTTY);
            }
            give_up_terminal(tty, &caller)?;
        }
    }
    Ok(0)
}

/// TIOCSCTTY: only a session's leader without a terminal may, and with `arg` 1 and CAP_SYS_ADMIN even take it from another session.
fn take_terminal(tty: &Arc<Tty>, cx: &IoctlContext, arg: usize, own: bool, caller: &super::Caller) -> Result<()> {
    let jobs = job_control()?;
    if caller.is_leader && own && tty.session() == caller.session {
        return Ok(());
    }
    if !caller.is_leader || jobs.terminal().is_some() {
        return Err(Errno::EPERM);
    }
    if tty.session() > 0 {
        if arg != 1 || !cx.cred.capable(Capability::SysAdmin) {
            return Err(Errno::EPERM);
        }
        jobs.set_terminal(tty.session(), None);
    }
    if !cx.open.access().contains(crate::Access::READ) && !cx.cred.capable(Capability::SysAdmin) {
        return Err(Errno::EPERM);
    }
    tty.set_session(caller.session, caller.group);
    jobs.set_terminal(caller.session, Some(tty.clone()));
    Ok(())
}

/// TIOCNOTTY: for the leader, the whole session loses it.
fn give_up_terminal(tty: &Tty, caller: &super::Caller) -> Result<()> {
    if caller.is_leader {
        tty.leader_exits();
        job_control()?.set_terminal(caller.session, None);
    }
    Ok(())
}
