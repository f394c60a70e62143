//! The context switch and what it switches.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::page_table::PageTable;
use super::stack::KernelStack;
use super::{cpu_regs, descriptors, features, fpu, tlb};
use crate::cpu::PerCpu;
use crate::heap::AlignedBuf;
use crate::regs::UserRegs;
use crate::sync::SpinLock;
use crate::task::{HasTask, Start};

/// A kernel thread's context.
pub struct Task {
    stack: Option<KernelStack>,
    /// Where the stack pointer was when it was switched out. Only touched by the processor that switches it.
    saved_rsp: UnsafeCell<usize>,
    /// A processor is on its stack.
    on_cpu: AtomicBool,
    pub(super) work: AtomicU32,
    page_table: SpinLock<Option<Arc<PageTable>>>,
    fs_base: AtomicUsize,
    gs_base: AtomicUsize,
    fpu: Option<UnsafeCell<AlignedBuf>>,
    /// The processor that loaded `fpu` last; `usize::MAX` if that image has changed since, or none has.
    pub(super) fpu_loaded_on: AtomicUsize,
    start: SpinLock<Option<Start>>,
    /// What the switched-to side does with the one it came from: monomorphic in the scheduler's thread type.
    after_switch: AtomicPtr<()>,
}

// SAFETY: `saved_rsp` is only used by the processor that holds `on_cpu`; `fpu` only by the processor that runs the task (or with the
// task stopped, under `on_cpu`); all else is atomic or locked.
unsafe impl Sync for Task {}
// SAFETY: a task is not tied to a processor while it is switched out.
unsafe impl Send for Task {}

impl Task {
    /// The boot flow of a processor, which becomes its idle thread: already running, on the boot stack.
    pub fn idle() -> Task {
        Task::with(None, 0, None, None)
    }

    /// A new kernel thread. `None` when memory is exhausted.
    pub fn kernel(body: Box<dyn FnOnce() + Send>) -> Option<Task> {
        let stack = KernelStack::new()?;
        let rsp = stack.top() - 8;
        // SAFETY: the stack is new and ours; the word is its first, read back by the `ret` of the first switch.
        unsafe { push_initial(rsp, kernel_thread_start as *const () as usize) };
        Some(Task::with(Some(stack), rsp - 48, Some(Start::Kernel(body)), None))
    }

    /// A new user thread that enters user mode with `regs` in `page_table`, after `first` has run. With `inherit`, floating-point state and
    /// TLS bases are copied from the running task. `None` when memory is exhausted.
    pub fn user(
        regs: UserRegs,
        page_table: Arc<PageTable>,
        first: Box<dyn FnOnce(&mut UserRegs) + Send>,
        inherit: bool,
    ) -> Option<Task> {
        let stack = KernelStack::new()?;
        let mut area = fpu::new_area()?;
        let (mut fs, mut gs) = (0, 0);
        if inherit {
            let from = current();
            if from.fpu.is_some() {
                fpu::inherit(from, area.bytes());
            }
            (fs, gs) = (from.fs_base(), from.gs_base());
        }
        let frame = stack.top() - size_of::<UserRegs>();
        // SAFETY: the frame lies at the top of the new stack, below nothing else; the word under it is what the first switch returns to.
        unsafe {
            (frame as *mut UserRegs).write(regs);
            push_initial(frame - 8, user_thread_entry as *const () as usize);
        }
        let task = Task::with(Some(stack), frame - 8 - 48, Some(Start::User(first)), Some(area));
        *task.page_table.lock() = Some(page_table);
        task.fs_base.store(fs, Ordering::Relaxed);
        task.gs_base.store(gs, Ordering::Relaxed);
        Some(task)
    }

    fn with(stack: Option<KernelStack>, rsp: usize, start: Option<Start>, fpu: Option<AlignedBuf>) -> Task {
        let running = stack.is_none();
        Task {
            stack,
            saved_rsp: UnsafeCell::new(rsp),
            on_cpu: AtomicBool::new(running),
            work: AtomicU32::new(if fpu.is_some() { LOAD_FPU } else { 0 }),
            page_table: SpinLock::new(None),
            fs_base: AtomicUsize::new(0),
            gs_base: AtomicUsize::new(0),
            fpu: fpu.map(UnsafeCell::new),
            fpu_loaded_on: AtomicUsize::new(usize::MAX),
            start: SpinLock::new(start),
            after_switch: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Notes work to be done before it enters user mode. Another processor that runs it finds out at its next entry to the kernel:
    /// see [`crate::cpu::kick`].
    #[inline]
    pub fn set_work(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears work that is about to be done.
    #[inline]
    pub fn clear_work(&self, bits: u32) {
        self.work.fetch_and(!bits, Ordering::AcqRel);
    }

    /// The work that is noted.
    #[inline]
    pub fn work(&self) -> u32 {
        self.work.load(Ordering::Acquire) & !LOAD_FPU
    }

    /// Is a processor running it?
    pub fn on_cpu(&self) -> bool {
        self.on_cpu.load(Ordering::Acquire)
    }

    /// Its address space.
    pub fn page_table(&self) -> Option<Arc<PageTable>> {
        self.page_table.lock().clone()
    }

    /// Gives the running task another address space, or none, at once. Panics if it isn't the running one.
    pub fn set_page_table(&self, page_table: Option<Arc<PageTable>>) {
        assert!(core::ptr::eq(self, current()), "only the running task may change its address space");
        let _irq = crate::irq::disable();
        match &page_table {
            Some(table) => tlb::load(table),
            None => tlb::unload(),
        }
        let old = core::mem::replace(&mut *self.page_table.lock(), page_table);
        drop(_irq);
        drop(old);
    }

    /// The base of `fs`: the thread pointer.
    pub fn fs_base(&self) -> usize {
        if core::ptr::eq(self, current()) && features::get().fsgsbase {
            // SAFETY: fsgsbase says that the instruction exists, and `fpu`-independent boot code turned it on.
            return unsafe { rdfsbase() };
        }
        self.fs_base.load(Ordering::Relaxed)
    }

    /// Sets the base of `fs`. `EPERM` outside the user half.
    pub fn set_fs_base(&self, base: usize) -> base::Result<()> {
        if base >= crate::user::USER_END {
            return Err(base::Errno::EPERM);
        }
        let _irq = crate::irq::disable();
        self.fs_base.store(base, Ordering::Relaxed);
        if core::ptr::eq(self, current()) {
            // SAFETY: the kernel doesn't use fs.
            unsafe { cpu_regs::wrmsr(cpu_regs::FS_BASE, base as u64) };
        }
        Ok(())
    }

    /// The base of the user's `gs`.
    pub fn gs_base(&self) -> usize {
        let _irq = crate::irq::disable();
        if core::ptr::eq(self, current()) {
            return cpu_regs::rdmsr(cpu_regs::KERNEL_GS_BASE) as usize;
        }
        self.gs_base.load(Ordering::Relaxed)
    }

    /// Sets the base of the user's `gs`. `EPERM` outside the user half.
    pub fn set_gs_base(&self, base: usize) -> base::Result<()> {
        if base >= crate::user::USER_END {
            return Err(base::Errno::EPERM);
        }
        let _irq = crate::irq::disable();
        self.gs_base.store(base, Ordering::Relaxed);
        if core::ptr::eq(self, current()) {
            // SAFETY: while in the kernel this register holds the user's base, loaded by the next swapgs.
            unsafe { cpu_regs::wrmsr(cpu_regs::KERNEL_GS_BASE, base as u64) };
        }
        Ok(())
    }

    /// Appends the running task's floating-point state as a signal frame holds it (an XSAVE image).
    pub fn fpu_image(&self, out: &mut Vec<u8>) {
        assert!(core::ptr::eq(self, current()));
        fpu::image(self, out);
    }

    /// Replaces the running task's floating-point state; `EINVAL` if the image is not one that the processor would take.
    pub fn set_fpu_image(&self, image: &[u8]) -> base::Result<()> {
        assert!(core::ptr::eq(self, current()));
        if fpu::set_image(self, image) { Ok(()) } else { Err(base::Errno::EINVAL) }
    }

    /// Bytes of the floating-point state that [`Task::fpu_to_user`] writes.
    pub fn fpu_size() -> usize {
        fpu::size()
    }

    /// Writes the running task's floating-point state (an XSAVE image, 64-byte aligned by the caller) to user space. `EFAULT`.
    pub fn fpu_to_user(&self, dst: usize) -> base::Result<()> {
        assert!(core::ptr::eq(self, current()));
        let fits = crate::user::UserBuf::new(dst, fpu::size()).in_user_half();
        if fits && fpu::to_user(self, dst) { Ok(()) } else { Err(base::Errno::EFAULT) }
    }

    /// Replaces the running task's floating-point state by an image of `len` bytes in user space. `EFAULT` (the state is then the initial
    /// one), `EINVAL` (not a length that an image can have).
    pub fn fpu_from_user(&self, src: usize, len: usize) -> base::Result<()> {
        assert!(core::ptr::eq(self, current()));
        if len < 512 || len > fpu::size() {
            return Err(base::Errno::EINVAL);
        }
        let fits = crate::user::UserBuf::new(src, len).in_user_half();
        if fits && fpu::from_user(self, src, len) { Ok(()) } else { Err(base::Errno::EFAULT) }
    }

    /// Puts the running task's floating-point state and TLS bases into the state that exec leaves.
    pub fn reset_user_state(&self) {
        assert!(core::ptr::eq(self, current()));
        fpu::reset_task(self);
        // Zero is in the user half.
        let _ = self.set_fs_base(0);
        let _ = self.set_gs_base(0);
    }

    /// The state components in an image, as XCR0 names them.
    pub fn fpu_components() -> u64 {
        fpu::component_mask()
    }

    /// The user registers with which the task last entered the kernel. `None` while it runs on another processor, and for a kernel thread.
    pub fn user_regs(&self) -> Option<UserRegs> {
        let frame = (self.stack.as_ref()?.top() - size_of::<UserRegs>()) as *const UserRegs;
        self.fpu.as_ref()?;
        let _irq = crate::irq::disable();
        let own = core::ptr::eq(self, current());
        if !own && self.on_cpu.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: the frame is at the top of a user task's stack, which lives as long as the task. Nobody writes it meanwhile: this
        // processor runs on that stack itself, or holds `on_cpu`.
        let regs = unsafe { frame.read_volatile() };
        if !own {
            self.on_cpu.store(false, Ordering::Release);
        }
        Some(regs)
    }

    pub(super) fn with_fpu<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        // SAFETY: called by the processor that runs the task, with interrupts off, or before it has started.
        self.fpu.as_ref().map(|area| f(unsafe { &mut *area.get() }.bytes()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        assert!(!*self.on_cpu.get_mut() || self.stack.is_none(), "a running task is dropped");
    }
}

unsafe fn rdfsbase() -> usize {
    let base;
    // SAFETY: the caller knows that the instruction is enabled.
    unsafe { core::arch::asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

/// Writes the first word of a new stack.
///
/// # Safety
/// `at` must be inside a stack that nobody else uses.
unsafe fn push_initial(at: usize, value: usize) {
    // SAFETY: the caller's promise.
    unsafe { (at as *mut usize).write(value) };
}

/// In the work word, hal's own bit: the floating-point registers have to be loaded before user mode.
pub(super) const LOAD_FPU: u32 = 1 << 31;

/// The running task. It lives as long as it runs, so the reference is good for as long as the caller, who runs on it, can hold it.
#[inline]
pub(super) fn current<'a>() -> &'a Task {
    let task = descriptors::current_task();
    assert!(!task.is_null(), "no task runs yet");
    // SAFETY: `Running` sets it to the task that runs on this stack, and keeps that alive while it does.
    unsafe { &*task }
}

/// Is the running task without a user address space?
pub(super) fn lazy() -> bool {
    let task = descriptors::current_task();
    // SAFETY: as for `current`.
    task.is_null() || unsafe { &*task }.fpu.is_none()
}

static TICK_IN_USER: PerCpu<AtomicBool> = crate::per_cpu!(AtomicBool::new(false));

pub(super) fn note_tick(from_user: bool) {
    TICK_IN_USER.get().store(from_user, Ordering::Relaxed);
}

/// In the timer hook: did the interrupt hit user mode?
pub fn interrupted_user() -> bool {
    TICK_IN_USER.get().load(Ordering::Relaxed)
}

/// Which of the scheduler's threads runs on each processor. One static of it exists.
pub struct Running<T: HasTask> {
    /// Per processor, the thread that runs, owned as by `Arc::into_raw`.
    current: PerCpu<AtomicPtr<T>>,
    /// Per processor, the thread that was switched from, until the other side has let go of it.
    previous: PerCpu<AtomicPtr<T>>,
    _threads: PhantomData<Arc<T>>,
}

impl<T: HasTask> Running<T> {
    /// Nothing runs yet.
    #[allow(clippy::new_without_default, reason = "a const fn, for a static")]
    pub const fn new() -> Running<T> {
        Running {
            current: crate::per_cpu!(AtomicPtr::new(core::ptr::null_mut())),
            previous: crate::per_cpu!(AtomicPtr::new(core::ptr::null_mut())),
            _threads: PhantomData,
        }
    }

    /// Makes the flow that calls it this processor's idle thread. Once on each processor, with a task made by [`Task::idle`].
    pub fn adopt(&'static self, thread: Arc<T>) {
        let task = core::ptr::from_ref(thread.task()).cast_mut();
        assert!(thread.task().stack.is_none(), "only an idle task can be adopted");
        let thread = Arc::into_raw(thread).cast_mut();
        let old = self.current.get().swap(thread, Ordering::AcqRel);
        assert!(old.is_null(), "this processor runs a thread already");
        let area = descriptors::area(crate::cpu::id());
        area.thread.store(thread.cast(), Ordering::Release);
        area.current.store(task, Ordering::Release);
    }

    /// Is there a current thread (after [`Running::adopt`])?
    pub fn is_set(&self) -> bool {
        !self.current.get().load(Ordering::Relaxed).is_null()
    }

    /// Runs `f` on the running thread.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        let thread = descriptors::current_thread().cast::<T>();
        assert!(!thread.is_null(), "no thread runs yet");
        // SAFETY: the pointer is to the thread that runs this very code, whichever processor it is on by now; it stays alive while
        // it runs: its own processor's slot owns it, and `switch_to` hands that ownership on only after it has left its stack. One
        // `Running` exists (`bind`), so the type is the one that it stored.
        f(unsafe { &*thread })
    }

    /// The running thread.
    #[inline]
    pub fn current(&self) -> Arc<T> {
        self.with(|thread| {
            // SAFETY: the reference came from an `Arc` (see `adopt`, `switch_to`), and is alive.
            unsafe {
                Arc::increment_strong_count(thread);
                Arc::from_raw(thread)
            }
        })
    }

    /// Leaves the running thread for `next`; returns when something switches back. Interrupts are off, no spin lock is held.
    pub fn switch_to(&'static self, next: Arc<T>) {
        debug_assert!(!crate::irq::enabled());
        let me = self.current.get().load(Ordering::Relaxed);
        assert!(!me.is_null(), "no thread runs yet");
        // SAFETY: it runs this code.
        let from = unsafe { &*me }.task();
        let to = next.task();
        if core::ptr::eq(from, to) {
            return;
        }
        // It may still be on its way out on another processor.
        while to.on_cpu.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        to.after_switch.store(Self::after_switch as fn(&Self) as *mut (), Ordering::Relaxed);
        leave(from);
        let to_stack = to.stack.as_ref().map(KernelStack::top);
        arrive(to, to_stack);
        let (save, load) = (from.saved_rsp.get(), to.saved_rsp.get());
        let to = core::ptr::from_ref(to).cast_mut();
        let next = Arc::into_raw(next).cast_mut();
        self.current.get().store(next, Ordering::Relaxed);
        self.previous.get().store(me, Ordering::Relaxed);
        let area = descriptors::area(crate::cpu::id());
        area.thread.store(next.cast(), Ordering::Relaxed);
        area.current.store(to, Ordering::Relaxed);
        // SAFETY: `on_cpu` of both is ours, so both saved stack pointers are; `load` holds what an earlier switch or the task's making
        // left there.
        unsafe { switch(save, *load) };
        Self::after_switch(self);
    }

    /// Runs on the new thread's stack: lets go of the thread that we came from.
    fn after_switch(&self) {
        let previous = self.previous.get().swap(core::ptr::null_mut(), Ordering::Relaxed);
        if previous.is_null() {
            return;
        }
        // SAFETY: `current` owned it until the switch, which passed that ownership to `previous`.
        let thread = unsafe { Arc::from_raw(previous) };
        thread.task().on_cpu.store(false, Ordering::Release);
    }
}

/// Saves what the processor holds for the user side of the task that leaves.
#[inline]
fn leave(task: &Task) {
    if task.fpu.is_none() {
        return;
    }
    if fpu::holds(task) {
        fpu::save(task);
    }
    if features::get().fsgsbase {
        // SAFETY: fsgsbase is on.
        task.fs_base.store(unsafe { rdfsbase() }, Ordering::Relaxed);
    }
    task.gs_base.store(cpu_regs::rdmsr(cpu_regs::KERNEL_GS_BASE) as usize, Ordering::Relaxed);
}

/// Loads what the processor needs for the task that comes, but for its floating-point registers.
#[inline]
fn arrive(task: &Task, stack_top: Option<usize>) {
    if let Some(top) = stack_top {
        descriptors::set_kernel_stack(top);
    }
    if task.fpu.is_none() {
        return;
    }
    if !fpu::holds(task) {
        task.work.fetch_or(LOAD_FPU, Ordering::Relaxed);
    }
    if let Some(table) = task.page_table.lock().as_ref() {
        tlb::load(table);
    }
    // SAFETY: user bases; the kernel's gs is untouched (KERNEL_GS_BASE holds the user's while in the kernel).
    unsafe {
        cpu_regs::wrmsr(cpu_regs::FS_BASE, task.fs_base.load(Ordering::Relaxed) as u64);
        cpu_regs::wrmsr(cpu_regs::KERNEL_GS_BASE, task.gs_base.load(Ordering::Relaxed) as u64);
    }
}

/// Saves the callee-saved registers and the stack pointer, and takes up those of the other stack.
///
/// # Safety
/// `load` must be the stack pointer of a stack that is switched out, or prepared by `push_initial` with six words of room below.
#[unsafe(naked)]
unsafe extern "C" fn switch(save: *mut usize, load: usize) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Where the first switch to a kernel thread returns to.
#[unsafe(naked)]
unsafe extern "C" fn kernel_thread_start() {
    naked_asm!("xor ebp, ebp", "call {first}", "ud2", first = sym kernel_first_steps)
}

/// Where the first switch to a user thread returns to.
#[unsafe(naked)]
unsafe extern "C" fn user_thread_entry() {
    naked_asm!("xor ebp, ebp", "jmp user_thread_start")
}

fn finish_first_switch() -> Option<Start> {
    let task = current();
    let after = task.after_switch.load(Ordering::Relaxed);
    assert!(!after.is_null());
    after_first_switch(after);
    let start = task.start.lock().take();
    crate::arch::irq_enable();
    start
}

/// The `Running` that `after_switch` belongs to.
static RUNNING: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

fn after_first_switch(function: *mut ()) {
    let running = RUNNING.load(Ordering::Relaxed);
    assert!(!running.is_null());
    // SAFETY: `switch_to` stored `Running::<T>::after_switch` and `bind` the `Running<T>` of the same T: one static exists.
    let function: fn(*mut ()) = unsafe { core::mem::transmute(function) };
    function(running);
}

impl<T: HasTask> Running<T> {
    /// Tells hal which static it is. Once, at boot.
    pub fn bind(&'static self) {
        let old = RUNNING.swap(core::ptr::from_ref(self).cast_mut().cast(), Ordering::AcqRel);
        assert!(old.is_null(), "only one Running may exist");
    }
}

extern "C" fn kernel_first_steps() -> ! {
    match finish_first_switch() {
        Some(Start::Kernel(body)) => body(),
        _ => panic!("a kernel thread without a body"),
    }
    panic!("a kernel thread returned");
}

/// The first steps of a user thread, called by the trap code with its frame.
pub(super) fn first_steps(regs: &mut UserRegs) {
    match finish_first_switch() {
        Some(Start::User(first)) => first(regs),
        _ => panic!("a user thread without a start"),
    }
}
