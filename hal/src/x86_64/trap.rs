//! Ways into the kernel and out of it: system calls, exceptions, interrupts.
//!
//! Every entry leaves a [`UserRegs`] frame on the kernel stack (for an entry from user mode, at its very top) and calls a Rust
//! function with a pointer to it. On the way to user mode, work that was noted for the thread is done until none is left.

use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering;

use super::descriptors::{KERNEL_RSP, USER_RSP};
use super::{apic, cpu_regs, fpu, lines, symbols, task, tlb};
use crate::hooks;
use crate::regs::{Exception, PageFault, USER_CS, UserRegs};
use crate::user::USER_END;

global_asm!(
    r#"
.section .text
.macro SAVE_REGISTERS
    push rsi
    push rdx
    push rcx
    push rax
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
.endm
.macro RESTORE_REGISTERS
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
.endm

.align 16
.global syscall_entry
syscall_entry:
    swapgs
    mov gs:[{USER_RSP}], rsp
    mov rsp, gs:[{KERNEL_RSP}]
    push {USER_SS}
    push gs:[{USER_RSP}]
    push r11
    push {USER_CS}
    push rcx
    push rax
    push rdi
    SAVE_REGISTERS
    mov rdi, rsp
    xor ebp, ebp
    sub rsp, 8
    sti
    call {system_call}
    add rsp, 8
    test al, al
    jz return_by_iret
    RESTORE_REGISTERS
    add rsp, 8
    pop rcx
    add rsp, 8
    pop r11
    pop rsp
    swapgs
    sysretq

// The frame is at rsp, interrupts are off, and it goes back to user mode.
.global return_by_iret
return_by_iret:
    RESTORE_REGISTERS
    add rsp, 8
    swapgs
    iretq

// A new user thread comes here with its frame at rsp - 8 made by task creation.
.global user_thread_start
user_thread_start:
    mov rdi, rsp
    sub rsp, 8
    call {leave_kernel}
    add rsp, 8
    jmp return_by_iret

.align 16
.global interrupt_entry
interrupt_entry:
    // On the stack: vector, error code, rip, cs, rflags, rsp, ss. The vector's place is rdi's.
    xchg rdi, [rsp]
    cld
    test byte ptr [rsp + 24], 3
    jz 1f
    swapgs
1:  SAVE_REGISTERS
    mov rsi, rdi
    mov rdx, [rsp + 120]
    mov qword ptr [rsp + 120], -1
    mov rdi, rsp
    // A frame of our own for backtraces: the interrupted rbp and rip.
    push [rsp + 128]
    push [rdi + 32]
    mov rbp, rsp
    sub rsp, 8
    call {interrupt}
    add rsp, 24
    test byte ptr [rsp + 136], 3
    jz 2f
    jmp return_by_iret
2:  RESTORE_REGISTERS
    add rsp, 8
    iretq
"#,
    USER_RSP = const USER_RSP,
    KERNEL_RSP = const KERNEL_RSP,
    USER_CS = const USER_CS,
    USER_SS = const crate::regs::USER_SS,
    system_call = sym system_call,
    leave_kernel = sym leave_kernel,
    interrupt = sym interrupt,
);

unsafe extern "C" {
    pub(super) static syscall_entry: u8;
}

/// A `syscall` instruction. True if `sysret` can return from it.
extern "C" fn system_call(regs: &mut UserRegs) -> bool {
    let (rip, flags) = (regs.rip, regs.rflags);
    (hooks::get().syscall)(regs);
    exit_work(regs);
    // sysret loads rip from rcx and flags from r11: only if the program can't tell, and not with a trap or resume flag.
    regs.rip == rip && regs.rflags == flags && regs.rcx == rip && regs.r11 == flags && flags & 0x1_0100 == 0
}

/// The last steps of a new user thread in the kernel.
extern "C" fn leave_kernel(regs: &mut UserRegs) {
    task::first_steps(regs);
    regs.sanitize();
    exit_work(regs);
}

/// Does what is noted for the current task; returns with interrupts off, ready for user mode.
#[inline]
fn exit_work(regs: &mut UserRegs) {
    disable();
    if task::current().work.load(Ordering::Acquire) != 0 || regs.rip >= USER_END {
        do_exit_work(regs);
    }
}

#[cold]
fn do_exit_work(regs: &mut UserRegs) {
    loop {
        let current = task::current();
        let work = current.work.load(Ordering::Acquire);
        if work == task::LOAD_FPU {
            fpu::load(current);
        }
        if work & !task::LOAD_FPU == 0 && regs.rip < USER_END {
            return;
        }
        enable();
        if regs.rip >= USER_END {
            fault_outside(regs);
        }
        if current.work.load(Ordering::Acquire) & !task::LOAD_FPU != 0 {
            (hooks::get().before_user)(regs);
            regs.sanitize();
        }
        disable();
    }
}

/// Going back to where no program can be might fault inside the kernel: gives the fault that user mode would have got.
fn fault_outside(regs: &mut UserRegs) {
    let address = regs.rip;
    if address.cast_signed() >> 47 == -1 {
        let fault = PageFault { address, present: false, write: false, execute: true, from_user: true };
        (hooks::get().page_fault)(&fault);
    } else {
        (hooks::get().user_exception)(regs, Exception { vector: 13, code: 0 });
    }
}

fn enable() {
    // SAFETY: the interrupt table is in place when any of this runs.
    unsafe { asm!("sti", options(nomem, nostack)) };
}

fn disable() {
    // SAFETY: fewer interruptions harm nobody.
    unsafe { asm!("cli", options(nomem, nostack)) };
}

const PAGE_FAULT: usize = 14;

/// An exception or interrupt, interrupts off.
extern "C" fn interrupt(regs: &mut UserRegs, vector: usize, code: usize) {
    let from_user = regs.cs & 3 != 0;
    if vector == PAGE_FAULT {
        page_fault(regs, code, from_user);
    } else if vector < 32 {
        exception(regs, vector, code, from_user);
    } else {
        device_interrupt(vector as u8, from_user);
    }
    if from_user {
        exit_work(regs);
    }
}

fn device_interrupt(vector: u8, from_user: bool) {
    lines::count(vector);
    match vector {
        apic::TIMER_VECTOR => {
            apic::end_of_interrupt();
            task::note_tick(from_user);
            (hooks::get().timer)();
        }
        apic::RESCHEDULE_VECTOR => {
            apic::end_of_interrupt();
            (hooks::get().reschedule)();
        }
        apic::FLUSH_VECTOR => {
            apic::end_of_interrupt();
            tlb::on_request();
        }
        apic::STOP_VECTOR => super::stop_here(),
        apic::SPURIOUS_VECTOR => {}
        _ => {
            lines::dispatch(vector);
            apic::end_of_interrupt();
        }
    }
}

fn page_fault(regs: &mut UserRegs, code: usize, from_user: bool) {
    let address = cpu_regs::read_cr2();
    let fault = PageFault { address, present: code & 1 != 0, write: code & 2 != 0, execute: code & 16 != 0, from_user };
    if from_user {
        enable();
        (hooks::get().page_fault)(&fault);
        disable();
        return;
    }
    let Some(fixup) = fixup_of(regs.rip) else {
        fatal(regs, PAGE_FAULT, code, address);
    };
    // A copy in `crate::user`: only with interrupts on may it wait for a page.
    if address < USER_END && regs.rflags & 0x200 != 0 {
        enable();
        let resolved = (hooks::get().page_fault)(&fault);
        disable();
        if resolved {
            return;
        }
    }
    regs.rip = fixup;
}

fn exception(regs: &mut UserRegs, vector: usize, code: usize, from_user: bool) {
    if vector == 2 {
        return;
    }
    if from_user && vector != 8 && vector != 18 {
        enable();
        (hooks::get().user_exception)(regs, Exception { vector: vector as u8, code });
        disable();
        return;
    }
    match fixup_of(regs.rip) {
        Some(fixup) => regs.rip = fixup,
        None => fatal(regs, vector, code, cpu_regs::read_cr2()),
    }
}

/// Where to go on after a fault at `rip` in an instruction that is allowed to fault.
fn fixup_of(rip: usize) -> Option<usize> {
    let (start, end) = (symbols::fixups_start(), symbols::fixups_end());
    let count = (end - start) / size_of::<[usize; 2]>();
    // SAFETY: the linker script puts the pairs that `fixup!` emits between these two symbols, in read-only memory.
    let table = unsafe { core::slice::from_raw_parts(start as *const [usize; 2], count) };
    table.iter().find(|pair| pair[0] == rip).map(|pair| pair[1])
}

fn fatal(regs: &UserRegs, vector: usize, code: usize, address: usize) -> ! {
    panic!(
        "exception {vector} (code {code:#x}, address {address:#x}) in the kernel at {:#x}, stack {:#x}\n{regs:#x?}",
        regs.rip, regs.rsp
    );
}
