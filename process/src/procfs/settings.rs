//! Small files, several of which can be written.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Capability, Errno, Result};

use super::Subject;
use crate::rlimit::{INFINITY, RESOURCES};
use crate::{inspect, tree, try_current};

pub(super) fn comm(subject: &Subject) -> Result<Vec<u8>> {
    let mut name = subject.task.comm_bytes();
    name.push(b'\n');
    Ok(name)
}

/// Threads of the process may name each other.
pub(super) fn set_comm(subject: &Subject, data: &[u8]) -> Result<()> {
    let own = try_current().is_some_and(|task| Arc::ptr_eq(task.process(), subject.process()));
    if !own {
        return Err(Errno::EINVAL);
    }
    let name = data.strip_suffix(b"\n").unwrap_or(data);
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    subject.task.set_comm(&name[..end]);
    Ok(())
}

pub(super) fn limits(subject: &Subject) -> Result<Vec<u8>> {
    let limits = subject.process().limits();
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |value: u64| if value == INFINITY { String::from("unlimited") } else { format!("{value}") };
    for (resource, name, unit) in RESOURCES {
        let limit = limits.get(resource);
        text += &format!("{name:<25} {:<20} {:<20} {unit:<10}\n", show(limit.soft), show(limit.hard));
    }
    Ok(text.into_bytes())
}

pub(super) fn personality(subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{:08x}\n", subject.task.personality.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn children(subject: &Subject) -> Result<Vec<u8>> {
    let children = tree::children(subject.process().pid());
    Ok(children.iter().map(|pid| format!("{pid} ")).collect::<String>().into_bytes())
}

pub(super) fn identity_map() -> Vec<u8> {
    format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX).into_bytes()
}

/// The number in a write: decimal, blanks around it.
pub(super) fn parse(data: &[u8]) -> Result<i64> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0').parse().map_err(|_| Errno::EINVAL)
}

pub(super) fn oom_score(subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{}\n", crate::oom::score(subject.process())).into_bytes())
}

pub(super) fn oom_score_adj(subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{}\n", subject.process().oom_score_adj.load(Ordering::Relaxed)).into_bytes())
}

fn store_oom(subject: &Subject, value: i64) -> Result<()> {
    let slot = &subject.process().oom_score_adj;
    let privileged = try_current().is_none_or(|task| task.cred().capable(Capability::SysResource));
    if value < i64::from(slot.load(Ordering::Relaxed)) && !privileged {
        return Err(Errno::EACCES);
    }
    slot.store(value as i32, Ordering::Relaxed);
    Ok(())
}

pub(super) fn set_oom_score_adj(subject: &Subject, data: &[u8]) -> Result<()> {
    let value = parse(data)?;
    if (-1000..=1000).contains(&value) { store_oom(subject, value) } else { Err(Errno::EINVAL) }
}

pub(super) fn oom_adj(subject: &Subject) -> Result<Vec<u8>> {
    let adjust = subject.process().oom_score_adj.load(Ordering::Relaxed);
    let old = if adjust == 1000 { 15 } else { adjust * 17 / 1000 };
    Ok(format!("{old}\n").into_bytes())
}

pub(super) fn set_oom_adj(subject: &Subject, data: &[u8]) -> Result<()> {
    match parse(data)? {
        15 => store_oom(subject, 1000),
        value @ -17..15 => store_oom(subject, value * 1000 / 17),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn timer_slack(subject: &Subject) -> Result<Vec<u8>> {
    inspect::check_current(&subject.task).map_err(|_| Errno::EPERM)?;
    Ok(format!("{}\n", subject.task.timer_slack.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn set_timer_slack(subject: &Subject, data: &[u8]) -> Result<()> {
    inspect::check_current(&subject.task).map_err(|_| Errno::EPERM)?;
    let value = u64::try_from(parse(data)?).map_err(|_| Errno::EINVAL)?;
    subject.task.timer_slack.store(if value == 0 { 50_000 } else { value }, Ordering::Relaxed);
    Ok(())
}

/// `loginuid` and `sessionid`.
pub(super) fn login(subject: &Subject, which: usize) -> Result<Vec<u8>> {
    Ok(format!("{}", subject.process().login[which].load(Ordering::Relaxed)).into_bytes())
}

/// A process says who has logged in: once without rights, later only with CAP_AUDIT_CONTROL. `EPERM` for another's, `EINVAL`.
pub(super) fn set_login(subject: &Subject, data: &[u8]) -> Result<()> {
    static SESSIONS: AtomicU32 = AtomicU32::new(0);
    let uid = u32::try_from(parse(data)?).map_err(|_| Errno::EINVAL)?;
    let [login, session] = &subject.process().login;
    let current = try_current().ok_or(Errno::EPERM)?;
    let own = Arc::ptr_eq(current.process(), subject.process());
    let known = login.load(Ordering::Relaxed) != u32::MAX;
    if !own || known && !current.cred().capable(Capability::AuditControl) {
        return Err(Errno::EPERM);
    }
    let number = if uid == u32::MAX { u32::MAX } else { SESSIONS.fetch_add(1, Ordering::Relaxed) + 1 };
    login.store(uid, Ordering::Relaxed);
    session.store(number, Ordering::Relaxed);
    Ok(())
}
