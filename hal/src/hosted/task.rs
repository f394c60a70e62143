//! Tasks that exist but never run.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::page_table::PageTable;
use crate::regs::UserRegs;
use crate::task::HasTask;

/// A kernel thread's context.
#[derive(Default)]
pub struct Task {
    work: AtomicU32,
    fs_base: AtomicUsize,
    gs_base: AtomicUsize,
}

#[allow(missing_docs, reason = "documented on the target's Task")]
impl Task {
    pub fn idle() -> Task {
        Task::default()
    }

    pub fn kernel(_body: Box<dyn FnOnce() + Send>) -> Option<Task> {
        Some(Task::default())
    }

    pub fn user(
        _regs: UserRegs,
        _page_table: Arc<PageTable>,
        _first: Box<dyn FnOnce(&mut UserRegs) + Send>,
        _inherit: bool,
    ) -> Option<Task> {
        Some(Task::default())
    }

    pub fn set_work(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::AcqRel);
    }

    pub fn clear_work(&self, bits: u32) {
        self.work.fetch_and(!bits, Ordering::AcqRel);
    }

    pub fn work(&self) -> u32 {
        self.work.load(Ordering::Acquire)
    }

    pub fn on_cpu(&self) -> bool {
        false
    }

    pub fn page_table(&self) -> Option<Arc<PageTable>> {
        None
    }

    pub fn set_page_table(&self, _page_table: Option<Arc<PageTable>>) {}

    pub fn fs_base(&self) -> usize {
        self.fs_base.load(Ordering::Relaxed)
    }

    pub fn set_fs_base(&self, base: usize) -> base::Result<()> {
        self.fs_base.store(base, Ordering::Relaxed);
        Ok(())
    }

    pub fn gs_base(&self) -> usize {
        self.gs_base.load(Ordering::Relaxed)
    }

    pub fn set_gs_base(&self, base: usize) -> base::Result<()> {
        self.gs_base.store(base, Ordering::Relaxed);
        Ok(())
    }

    pub fn fpu_image(&self, _out: &mut Vec<u8>) {}

    pub fn set_fpu_image(&self, _image: &[u8]) -> base::Result<()> {
        Ok(())
    }

    pub fn fpu_size() -> usize {
        512
    }

    pub fn fpu_to_user(&self, _dst: usize) -> base::Result<()> {
        Ok(())
    }

    pub fn fpu_from_user(&self, _src: usize, _len: usize) -> base::Result<()> {
        Ok(())
    }

    pub fn reset_user_state(&self) {}

    pub fn fpu_components() -> u64 {
        3
    }

    pub fn user_regs(&self) -> Option<UserRegs> {
        None
    }
}

/// In the timer hook: did the interrupt hit user mode?
pub fn interrupted_user() -> bool {
    false
}

/// Which thread runs: none.
pub struct Running<T: HasTask>(PhantomData<fn() -> T>);

#[allow(missing_docs, clippy::new_without_default, reason = "documented on the target's Running")]
impl<T: HasTask> Running<T> {
    pub const fn new() -> Running<T> {
        Running(PhantomData)
    }

    pub fn bind(&'static self) {}

    pub fn adopt(&'static self, _thread: Arc<T>) {}

    pub fn is_set(&self) -> bool {
        false
    }

    pub fn with<R>(&self, _f: impl FnOnce(&T) -> R) -> R {
        panic!("no thread runs on the host")
    }

    pub fn current(&self) -> Arc<T> {
        panic!("no thread runs on the host")
    }

    pub fn switch_to(&'static self, _next: Arc<T>) {
        panic!("a hosted test sleeps")
    }
}
