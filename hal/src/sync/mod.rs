//! Spin locks and once-cells. Locks that sleep belong to `sched`.

pub mod lockdep;
mod once;
pub mod rw_cell;
mod spin_lock;

pub use once::Once;
pub use spin_lock::{IrqSpinGuard, SpinGuard, SpinLock};
