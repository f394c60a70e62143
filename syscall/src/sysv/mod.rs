//! System V IPC: semget(2), msgget(2), shmget(2) and their kin.

pub(crate) mod message_queue;
pub(crate) mod semaphore;
pub(crate) mod shared_memory;

use alloc::sync::Arc;

use base::{Cred, Result};
use hal::user::UserPtr;
use ipc::sysv::Caller;
use ipc::sysv::registry::{Entry, Permission, READ, Registry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::context::Context;

/// IPC_RMID.
const REMOVE: i32 = 0;
/// IPC_SET.
const SET: i32 = 1;
/// IPC_STAT.
const STAT: i32 = 2;
/// IPC_INFO.
const INFO: i32 = 3;

/// `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawPermission {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    sequence: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl From<Permission> for RawPermission {
    fn from(p: Permission) -> RawPermission {
        RawPermission {
            key: p.key,
            uid: p.uid,
            gid: p.gid,
            cuid: p.cuid,
            cgid: p.cgid,
            mode: p.mode,
            sequence: p.sequence,
            pad: [0; 3],
            unused: [0; 2],
        }
    }
}

/// Calls `f` as the calling process.
fn with_caller<R>(cx: &Context, f: impl FnOnce(Caller) -> R) -> R {
    let cred: Arc<Cred> = cx.task.cred();
    f(Caller { cred: &cred, pid: cx.task.pid() })
}

/// How an object is named and what has to be allowed for a look at it.
enum Look {
    /// By identifier, with read permission.
    Identifier,
    /// By index, with read permission.
    Index,
    /// By index.
    IndexOfAny,
}

/// The object to look at, and what the call returns: nothing for an identifier, the identifier for an index.
fn look<T>(cx: &Context, registry: &Registry<T>, number: i32, how: Look) -> Result<(Arc<Entry<T>>, usize)> {
    let entry = match how {
        Look::Identifier => registry.find(number)?,
        Look::Index | Look::IndexOfAny => registry.at_index(number)?,
    };
    if !matches!(how, Look::IndexOfAny) {
        with_caller(cx, |caller| entry.permission().check(caller, READ))?;
    }
    let result = if matches!(how, Look::Identifier) { 0 } else { entry.id as usize };
    Ok((entry, result))
}

/// IPC_SET's part that all share: owner and mode from the structure at `pointer`. `EFAULT`, `EPERM`, `EINVAL`.
fn change<T>(cx: &Context, entry: &Entry<T>, new: &RawPermission) -> Result<()> {
    let mut permission = entry.permission.lock();
    with_caller(cx, |caller| permission.check_owner(caller))?;
    permission.change(new.uid, new.gid, new.mode)?;
    drop(permission);
    entry.changed.touch();
    Ok(())
}

fn store<T: IntoBytes + Immutable>(pointer: usize, value: &T) -> Result<()> {
    UserPtr::<T>::new(pointer).write(value)
}
