//! The first instructions: PVH entry in 32-bit mode, the way into long mode, and the trampoline of the other processors.
//!
//! The boot page tables map the first 4 GiB three times: one to one (for these few instructions), at the direct map, and, the first
//! GiB of it, at the kernel's link address. `boot` replaces them by ones with proper protection.

use core::arch::global_asm;

global_asm!(
    r#"
.section .note.Xen, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start - {KERNEL_BASE}

.section .boot.text, "ax", @progbits
.code32
.global pvh_start
pvh_start:
    cld
    mov edi, ebx
    mov esp, offset boot_stack_top - {KERNEL_BASE}

    // Page directories: 4 x 512 entries of 2 MiB.
    mov eax, 0x83
    xor edx, edx
    mov ecx, 2048
    mov esi, offset boot_pd - {KERNEL_BASE}
1:  mov [esi], eax
    mov [esi + 4], edx
    add eax, 0x200000
    adc edx, 0
    add esi, 8
    dec ecx
    jnz 1b
    // Four entries of the low page-directory-pointer table.
    mov eax, offset boot_pd - {KERNEL_BASE} + 3
    mov esi, offset boot_pdpt - {KERNEL_BASE}
    mov ecx, 4
2:  mov [esi], eax
    add eax, 4096
    add esi, 8
    dec ecx
    jnz 2b
    // The kernel's GiB: entry 510 of the high one.
    mov eax, offset boot_pd - {KERNEL_BASE} + 3
    mov [boot_pdpt_high - {KERNEL_BASE} + 510 * 8], eax
    mov eax, offset boot_pdpt - {KERNEL_BASE} + 3
    mov [boot_pml4 - {KERNEL_BASE}], eax
    mov [boot_pml4 - {KERNEL_BASE} + {DIRECT_SLOT} * 8], eax
    mov eax, offset boot_pdpt_high - {KERNEL_BASE} + 3
    mov [boot_pml4 - {KERNEL_BASE} + 511 * 8], eax

    call enter_long_mode
    lgdt [boot_gdt_pointer - {KERNEL_BASE}]
    ljmp 0x10, offset long_mode - {KERNEL_BASE}

// Paging on, in compatibility mode. Shared with the trampoline. Clobbers eax, ecx, edx.
enter_long_mode:
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, offset boot_pml4 - {KERNEL_BASE}
    mov cr3, eax
    mov eax, 0x80000001
    cpuid
    shr edx, 9
    and edx, 0x800
    push edx
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    pop edx
    or eax, edx
    xor edx, edx
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb
    or eax, 0x80010022
    mov cr0, eax
    ret

.code64
long_mode:
    mov ax, 0x18
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    movabs rax, offset high_half
    jmp rax

.section .text
high_half:
    movabs rsp, offset boot_stack_top
    xor ebp, ebp
    mov edi, edi
    call {boot}
    ud2

// Other processors start here in real mode, copied to a page below 1 MiB; the page's address is in cs.
.section .rodata.trampoline
.global trampoline_start
.global trampoline_end
.code16
trampoline_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    // The pointer below, at a fixed offset from the page's start.
    lgdtd [0x40]
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    // A far jump with a 32-bit offset: ljmp 0x08:trampoline32.
    .byte 0x66, 0xea
    .long trampoline32 - {KERNEL_BASE}
    .word 0x08
    .org trampoline_start + 0x40
    .word 47
    .long boot_gdt - {KERNEL_BASE}
trampoline_end:

.section .boot.text, "ax", @progbits
.code32
trampoline32:
    mov ax, 0x18
    mov ds, ax
    mov es, ax
    mov ss, ax
    // One processor at a time on the small boot stack, until it has its own.
3:  mov eax, 1
    xchg eax, [trampoline_lock - {KERNEL_BASE}]
    test eax, eax
    pause
    jnz 3b
    mov esp, offset boot_stack_top - {KERNEL_BASE}
    call enter_long_mode
    ljmp 0x10, offset ap_long_mode - {KERNEL_BASE}
.code64
ap_long_mode:
    xor eax, eax
    mov fs, ax
    mov gs, ax
    movabs rax, offset ap_high_half
    jmp rax
.section .text
ap_high_half:
    mov eax, 1
    lock xadd [rip + ap_next], eax
    // A processor more than planned parks itself here.
    cmp eax, [rip + ap_planned]
    jae 4f
    lea rcx, [rip + ap_stacks]
    mov rcx, [rcx + rax * 8]
    mov rsp, rcx
    mov dword ptr [rip + trampoline_lock], 0
    mov edi, eax
    xor ebp, ebp
    call {secondary}
    ud2
4:  mov dword ptr [rip + trampoline_lock], 0
5:  cli
    hlt
    jmp 5b

.section .data
    .align 16
boot_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0, 0
.global boot_gdt_pointer
boot_gdt_pointer:
    .word 47
    .long boot_gdt - {KERNEL_BASE}
    .align 8
trampoline_lock: .long 0
.global ap_next
ap_next: .long 1
.global ap_planned
ap_planned: .long 0
    .align 8
.global ap_stacks
ap_stacks: .fill 64, 8, 0

.section .bss
    .align 4096
.global boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 16384
.global boot_stack_bottom
boot_stack_bottom: .skip 32768
boot_stack_top:
.text
"#,
    KERNEL_BASE = const super::layout::KERNEL_BASE,
    DIRECT_SLOT = const super::layout::DIRECT_SLOT,
    boot = sym super::boot::boot,
    secondary = sym super::smp::secondary,
);
