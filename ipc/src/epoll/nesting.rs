//! Epoll instances that watch each other: no circles, and not too deep, since news travels up by recursion.

use alloc::sync::Arc;

use base::{Errno, Result};
use sched::{Mutex, MutexGuard};

use super::Epoll;

/// How many instances may stand above one another (Linux's EP_MAX_NESTS and one).
const DEPTH_MAX: usize = 5;

/// Held while an instance is added to another, so that two additions can't close a circle together.
static NESTING: Mutex<()> = Mutex::new(());

/// May `parent` watch `child`? Hold the guard while the item is added. `ELOOP`.
pub(super) fn check(parent: &Epoll, child: &Arc<Epoll>) -> Result<MutexGuard<'static, ()>> {
    let guard = NESTING.lock();
    if core::ptr::eq(parent, &**child) {
        return Err(Errno::EINVAL);
    }
    let below = depth_below(child, parent, 1)?;
    if below + height_above(parent, 1) > DEPTH_MAX { Err(Errno::ELOOP) } else { Ok(guard) }
}

/// How many instances there are on the longest way down from `at`, itself included. `ELOOP` if that leads to `parent` or is too deep.
fn depth_below(at: &Arc<Epoll>, parent: &Epoll, level: usize) -> Result<usize> {
    if core::ptr::eq(&**at, parent) || level > DEPTH_MAX {
        return Err(Errno::ELOOP);
    }
    let mut deepest = 0;
    let files: alloc::vec::Vec<_> = at.items.lock().values().filter_map(|item| item.file()).collect();
    for open in files {
        if let Ok(child) = Epoll::of(&open) {
            deepest = deepest.max(depth_below(&child, parent, level + 1)?);
        }
    }
    Ok(deepest + 1)
}

/// How many instances there are on the longest way up from `at`, itself included.
fn height_above(at: &Epoll, level: usize) -> usize {
    if level > DEPTH_MAX {
        return level;
    }
    let mut parents = at.parents.lock();
    parents.retain(|item| item.strong_count() > 0);
    let items: alloc::vec::Vec<_> = parents.iter().filter_map(|item| item.upgrade()).collect();
    drop(parents);
    let above = items.iter().filter_map(|item| item.epoll()).map(|epoll| height_above(&epoll, level + 1)).max();
    1 + above.unwrap_or(0)
}
