//! Who a process is: user and group ids, groups, capabilities.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{CapSet, Cred, Errno, Result};
use hal::user::UserPtr;
use process::credentials::{self, NGROUPS_MAX, capability};
use process::tree;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;

pub(crate) fn getuid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.cred().uid as usize)
}

pub(crate) fn geteuid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.cred().euid as usize)
}

pub(crate) fn getgid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.cred().gid as usize)
}

pub(crate) fn getegid(cx: &mut Context, _: Args) -> Result<usize> {
    Ok(cx.task.cred().egid as usize)
}

fn write_three(a: Args, ids: [u32; 3]) -> Result<usize> {
    for (index, id) in ids.iter().enumerate() {
        a.ptr::<u32>(index).write(id)?;
    }
    Ok(0)
}

pub(crate) fn getresuid(cx: &mut Context, a: Args) -> Result<usize> {
    let cred = cx.task.cred();
    write_three(a, [cred.uid, cred.euid, cred.suid])
}

pub(crate) fn getresgid(cx: &mut Context, a: Args) -> Result<usize> {
    let cred = cx.task.cred();
    write_three(a, [cred.gid, cred.egid, cred.sgid])
}

/// Installs new credentials. A program that changes who it is is no longer to be looked into by its old user.
fn commit(cx: &Context, new: Cred) -> Result<usize> {
    let old = cx.task.cred();
    let moved = (old.euid, old.egid, old.fsuid, old.fsgid) != (new.euid, new.egid, new.fsuid, new.fsgid);
    if moved || !old.permitted.contains(new.permitted) {
        cx.task.process().set_dumpable(0);
    }
    cx.task.set_cred(Arc::new(new));
    Ok(0)
}

pub(crate) fn setuid(cx: &mut Context, a: Args) -> Result<usize> {
    commit(cx, credentials::setuid(&cx.task.cred(), a.uint(0))?)
}

pub(crate) fn setgid(cx: &mut Context, a: Args) -> Result<usize> {
    commit(cx, credentials::setgid(&cx.task.cred(), a.uint(0))?)
}

pub(crate) fn setreuid(cx: &mut Context, a: Args) -> Result<usize> {
    commit(cx, credentials::setreuid(&cx.task.cred(), a.uint(0), a.uint(1))?)
}

pub(crate) fn setregid(cx: &mut Context, a: Args) -> Result<usize> {
    commit(cx, credentials::setregid(&cx.task.cred(), a.uint(0), a.uint(1))?)
}

pub(crate) fn setresuid(cx: &mut Context, a: Args) -> Result<usize> {
    commit(cx, credentials::setresuid(&cx.task.cred(), [a.uint(0), a.uint(1), a.uint(2)])?)
}

pub(crate) fn setresgid(cx: &mut Context, a: Args) -> Result<usize> {
    commit(cx, credentials::setresgid(&cx.task.cred(), [a.uint(0), a.uint(1), a.uint(2)])?)
}

pub(crate) fn setfsuid(cx: &mut Context, a: Args) -> Result<usize> {
    let old = cx.task.cred();
    if let Some(new) = credentials::setfsuid(&old, a.uint(0)) {
        commit(cx, new)?;
    }
    Ok(old.fsuid as usize)
}

pub(crate) fn setfsgid(cx: &mut Context, a: Args) -> Result<usize> {
    let old = cx.task.cred();
    if let Some(new) = credentials::setfsgid(&old, a.uint(0)) {
        commit(cx, new)?;
    }
    Ok(old.fsgid as usize)
}

pub(crate) fn getgroups(cx: &mut Context, a: Args) -> Result<usize> {
    let (size, cred) = (a.int(0), cx.task.cred());
    let count = cred.groups.len();
    if size < 0 || size != 0 && (size as usize) < count {
        return Err(Errno::EINVAL);
    }
    if size != 0 {
        hal::user::copy_out(a.size(1), cred.groups.as_bytes())?;
    }
    Ok(count)
}

pub(crate) fn setgroups(cx: &mut Context, a: Args) -> Result<usize> {
    let cred = cx.task.cred();
    // Permission comes before the count, as on Linux.
    credentials::setgroups(&cred, Vec::new())?;
    let count = a.uint(0) as usize;
    if count > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut groups: Vec<u32> = Vec::new();
    groups.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    groups.resize(count, 0);
    hal::user::copy_in(groups.as_mut_bytes(), a.size(1))?;
    commit(cx, credentials::setgroups(&cred, groups)?)
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: 32 capabilities of each set.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_1: u32 = 0x1998_0330;
const CAP_VERSION_2: u32 = 0x2007_1026;
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Reads the header and says how many data structures follow; an unknown version is answered with the one to use. `EINVAL`, `EFAULT`.
fn read_cap_header(at: UserPtr<CapHeader>) -> Result<(CapHeader, usize)> {
    let header = at.read()?;
    match header.version {
        CAP_VERSION_1 => Ok((header, 1)),
        CAP_VERSION_2 | CAP_VERSION_3 => Ok((header, 2)),
        _ => {
            at.cast::<u32>().write(&CAP_VERSION_3)?;
            Err(Errno::EINVAL)
        }
    }
}

pub(crate) fn capget(cx: &mut Context, a: Args) -> Result<usize> {
    let data = a.ptr::<CapData>(1);
    let (header, count) = match read_cap_header(a.ptr(0)) {
        // A probe for the version.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        other => other?,
    };
    if header.pid < 0 {
        return Err(Errno::EINVAL);
    }
    let cred = match header.pid {
        0 => cx.task.cred(),
        pid => tree::task(pid).ok_or(Errno::ESRCH)?.cred(),
    };
    if data.is_null() {
        return Ok(0);
    }
    for index in 0..count {
        let part = |set: CapSet| (set.bits() >> (32 * index)) as u32;
        let (effective, permitted, inheritable) = (part(cred.effective), part(cred.permitted), part(cred.inheritable));
        data.at(index).write(&CapData { effective, permitted, inheritable })?;
    }
    Ok(0)
}

pub(crate) fn capset(cx: &mut Context, a: Args) -> Result<usize> {
    let (header, count) = read_cap_header(a.ptr(0))?;
    if header.pid != 0 && header.pid != cx.task.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for index in 0..count {
        let data = a.ptr::<CapData>(1).at(index).read()?;
        for (set, part) in sets.iter_mut().zip([data.effective, data.permitted, data.inheritable]) {
            *set |= u64::from(part) << (32 * index);
        }
    }
    let [effective, permitted, inheritable] = sets.map(CapSet::from_bits_retain);
    commit(cx, capability::set(&cx.task.cred(), effective, permitted, inheritable)?)
}
