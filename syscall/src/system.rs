//! The system as a whole: its name, its state, its end; random numbers; logs.

use base::{Capability, Errno, NANOS_PER_SEC, Result};
use hal::sync::{Once, SpinLock};
use hal::user::UserPtr;
use process::tree;
use zerocopy::{Immutable, IntoBytes};

use crate::args::Args;
use crate::context::Context;

/// Bytes of a name in `struct new_utsname`.
const NAME: usize = 65;
type Name = [u8; NAME];

const fn name(text: &str) -> Name {
    let mut name = [0; NAME];
    let mut i = 0;
    while i < text.len() && i < NAME - 1 {
        name[i] = text.as_bytes()[i];
        i += 1;
    }
    name
}

/// The release that programs see: the Linux whose interface this is.
pub const RELEASE: &str = "6.1.0-quintet";
/// The version line of uname(2).
pub const VERSION: &str = "#1 SMP PREEMPT Quintet";

static HOST: SpinLock<(Name, Name)> = SpinLock::new((name("quintet"), name("(none)")));

/// The host's name, for `/proc/sys/kernel/hostname`.
pub fn host_name() -> alloc::vec::Vec<u8> {
    let host = HOST.lock().0;
    host.iter().copied().take_while(|&b| b != 0).collect()
}

/// Sets the host's name, cut to 64 bytes.
pub fn set_host_name(text: &[u8]) {
    let mut name = [0; NAME];
    let len = text.len().min(NAME - 1);
    name[..len].copy_from_slice(&text[..len]);
    HOST.lock().0 = name;
}

/// personality(2)'s UNAME26 and PER_LINUX32 matter to uname(2).
const PER_LINUX32: u32 = 8;

pub(crate) fn uname(cx: &mut Context, a: Args) -> Result<usize> {
    let (host, domain) = *HOST.lock();
    let personality = cx.task.personality.load(core::sync::atomic::Ordering::Relaxed) & 0xff;
    let machine = if personality == PER_LINUX32 { name("i686") } else { name("x86_64") };
    let names: [Name; 6] = [name("Linux"), host, name(RELEASE), name(VERSION), machine, domain];
    hal::user::copy_out(a.size(0), names.as_flattened())?;
    Ok(0)
}

fn read_name(cx: &Context, a: Args) -> Result<Name> {
    if !cx.task.cred().capable(Capability::SysAdmin) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(a.int(1)).map_err(|_| Errno::EINVAL)?;
    let mut name = [0; NAME];
    if len > NAME - 1 {
        return Err(Errno::EINVAL);
    }
    hal::user::copy_in(&mut name[..len], a.size(0))?;
    Ok(name)
}

pub(crate) fn sethostname(cx: &mut Context, a: Args) -> Result<usize> {
    let name = read_name(cx, a)?;
    HOST.lock().0 = name;
    Ok(0)
}

pub(crate) fn setdomainname(cx: &mut Context, a: Args) -> Result<usize> {
    let name = read_name(cx, a)?;
    HOST.lock().1 = name;
    Ok(0)
}

/// `struct sysinfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
struct Sysinfo {
    uptime: u64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    processes: u16,
    pad: u16,
    pad2: u32,
    total_high: u64,
    free_high: u64,
    unit: u32,
    pad3: u32,
}

pub(crate) fn sysinfo(_: &mut Context, a: Args) -> Result<usize> {
    let memory = mm::frames::stats();
    let info = Sysinfo {
        uptime: sched::time::now() / NANOS_PER_SEC,
        total_ram: memory.total,
        free_ram: memory.free,
        shared_ram: memory.shmem,
        processes: tree::count().0 as u16,
        unit: 1,
        ..Sysinfo::default()
    };
    a.ptr(0).write(&info)?;
    Ok(0)
}

pub(crate) fn getrandom(cx: &mut Context, a: Args) -> Result<usize> {
    const GRND_NONBLOCK: u32 = 1;
    const GRND_RANDOM: u32 = 2;
    const GRND_INSECURE: u32 = 4;
    let flags = a.uint(2);
    let both = GRND_RANDOM | GRND_INSECURE;
    if flags & !(GRND_NONBLOCK | both) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let (at, len) = (a.size(0), a.size(1).min(i32::MAX as usize & !0xfff));
    let mut block = [0; 256];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(block.len());
        hal::random::fill(&mut block[..step]);
        let put = hal::user::copy_out_some(at.wrapping_add(done), &block[..step]);
        done += put;
        if put < step {
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
        sched::preempt_point();
        if done.is_multiple_of(abi::PAGE_SIZE) && cx.task.has_signal() {
            break;
        }
    }
    Ok(done)
}

/// How reboot(2) ends the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reboot {
    /// Restart.
    Restart,
    /// Stop the processors.
    Halt,
    /// Turn the power off.
    PowerOff,
}

static REBOOT: Once<fn(Reboot)> = Once::new();

/// Sets what reboot(2) does. Once, at boot.
pub fn set_reboot(f: fn(Reboot)) {
    let _ = REBOOT.set(f);
}

pub(crate) fn reboot(cx: &mut Context, a: Args) -> Result<usize> {
    const MAGIC1: u32 = 0xfee1_dead;
    const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const RESTART: u32 = 0x0123_4567;
    const HALT: u32 = 0xcdef_0123;
    const CAD_ON: u32 = 0x89ab_cdef;
    const CAD_OFF: u32 = 0;
    const POWER_OFF: u32 = 0x4321_fedc;
    const RESTART2: u32 = 0xa1b2_c3d4;
    if !cx.task.cred().capable(Capability::SysBoot) {
        return Err(Errno::EPERM);
    }
    if a.uint(0) != MAGIC1 || !MAGIC2.contains(&a.uint(1)) {
        return Err(Errno::EINVAL);
    }
    let how = match a.uint(2) {
        RESTART | RESTART2 => Reboot::Restart,
        HALT => Reboot::Halt,
        POWER_OFF => Reboot::PowerOff,
        // There is no Ctrl-Alt-Del to turn on or off.
        CAD_ON | CAD_OFF => return Ok(0),
        _ => return Err(Errno::EINVAL),
    };
    let act = REBOOT.get().ok_or(Errno::EINVAL)?;
    act(how);
    Ok(0)
}

pub(crate) fn syslog(cx: &mut Context, a: Args) -> Result<usize> {
    const CLOSE: i32 = 0;
    const OPEN: i32 = 1;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CONSOLE_OFF: i32 = 6;
    const CONSOLE_ON: i32 = 7;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    let action = a.int(0);
    let privileged = cx.task.cred().capable(Capability::Syslog) || cx.task.cred().capable(Capability::SysAdmin);
    if !privileged && !matches!(action, READ_ALL | SIZE_BUFFER) {
        return Err(Errno::EPERM);
    }
    match action {
        CLOSE | OPEN | CONSOLE_OFF | CONSOLE_ON | CONSOLE_LEVEL | SIZE_UNREAD => Ok(0),
        READ_ALL | READ_CLEAR => read_log(a.size(1), a.int(2)),
        SIZE_BUFFER => Ok(LOG_SIZE),
        _ => Err(Errno::EINVAL),
    }
}

const LOG_SIZE: usize = 1 << 17;

/// The end of the kernel's log, as much as fits.
fn read_log(at: usize, len: i32) -> Result<usize> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(LOG_SIZE);
    let mut all = alloc::vec::Vec::new();
    all.try_reserve_exact(LOG_SIZE).map_err(|_| Errno::ENOMEM)?;
    let mut piece = [0; 1024];
    let mut from = 0;
    loop {
        let (n, next) = hal::console::read(from, &mut piece);
        if n == 0 || all.len() + n > LOG_SIZE {
            break;
        }
        all.extend_from_slice(&piece[..n]);
        from = next;
    }
    let tail = &all[all.len().saturating_sub(len)..];
    hal::user::copy_out(at, tail)?;
    Ok(tail.len())
}

pub(crate) fn arch_prctl(cx: &mut Context, a: Args) -> Result<usize> {
    const ARCH_SET_GS: i32 = 0x1001;
    const ARCH_SET_FS: i32 = 0x1002;
    const ARCH_GET_FS: i32 = 0x1003;
    const ARCH_GET_GS: i32 = 0x1004;
    const ARCH_GET_CPUID: i32 = 0x1011;
    const ARCH_SET_CPUID: i32 = 0x1012;
    const ARCH_GET_XCOMP_SUPP: i32 = 0x1021;
    const ARCH_GET_XCOMP_PERM: i32 = 0x1022;
    let thread = cx.task.thread().ok_or(Errno::ESRCH)?;
    let (task, value) = (thread.task(), a.size(1));
    match a.int(0) {
        ARCH_SET_FS => task.set_fs_base(value)?,
        ARCH_SET_GS => task.set_gs_base(value)?,
        ARCH_GET_FS => UserPtr::new(value).write(&task.fs_base())?,
        ARCH_GET_GS => UserPtr::new(value).write(&task.gs_base())?,
        ARCH_GET_CPUID => return Ok(1),
        // CPUID can't be made to fault here.
        ARCH_SET_CPUID => return Err(Errno::ENODEV),
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM => UserPtr::new(value).write(&hal::task::Task::fpu_components())?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
