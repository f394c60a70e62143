//! The vDSO: a small shared object that the kernel maps into every program, with the clock calls that need no system call (vdso(7)).
//!
//! It is one page, an ELF image put together by the assembler; the page before it is data that the kernel keeps up to date. Its
//! symbols have the version LINUX_2.6, which Go's run-time insists on.

use core::arch::global_asm;

use super::{features, tsc};
use crate::frame::Frame;
use crate::sync::{Once, SpinLock};

/// Layout of the data page, as the assembly below reads it: a count that is odd while the rest changes, ...
const SEQUENCE: usize = 0;
/// ... the time-stamp at boot,
const START: usize = 8;
/// nanoseconds in 2^32 time-stamps,
const SCALE: usize = 16;
/// what makes monotonic time real time, in nanoseconds,
const OFFSET: usize = 24;
/// and whether RDTSCP gives the processor's number.
const HAS_CPU: usize = 32;

global_asm!(
    r#"
.section .rodata.vdso, "a"
.align 4096
.global vdso_image
vdso_image:
    // ELF header.
    .byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 3, 62
    .long 1
    .quad 0
    .quad 7f - vdso_image
    .quad 0
    .long 0
    .short 64, 56, 3, 64, 0, 0
    .align 8
7:  // Program headers: everything loaded read-execute, the dynamic section, an empty note of the stack.
    .long 1, 5
    .quad 0, 0, 0, vdso_end - vdso_image, vdso_end - vdso_image, 4096
    .long 2, 4
    .quad 8f - vdso_image, 8f - vdso_image, 8f - vdso_image, 9f - 8f, 9f - 8f, 8
    .long 0x6474e551, 6
    .quad 0, 0, 0, 0, 0, 16
8:  // Dynamic section: SONAME, HASH, STRTAB, SYMTAB, STRSZ, SYMENT, VERSYM, VERDEF, VERDEFNUM.
    .quad 14, name_soname - vdso_strings
    .quad 4, vdso_hash - vdso_image
    .quad 5, vdso_strings - vdso_image
    .quad 6, vdso_symbols - vdso_image
    .quad 10, vdso_strings_end - vdso_strings
    .quad 11, 24
    .quad 0x6ffffff0, vdso_versions - vdso_image
    .quad 0x6ffffffc, vdso_definitions - vdso_image
    .quad 0x6ffffffd, 2
    .quad 0, 0
9:
.macro SYMBOL name, function, end
    .long \name - vdso_strings
    .byte 0x12, 0
    .short 1
    .quad \function - vdso_image, \end - \function
.endm
    .align 8
vdso_symbols:
    .quad 0, 0, 0
    SYMBOL name_clock_gettime, vdso_clock_gettime, vdso_gettimeofday
    SYMBOL name_gettimeofday, vdso_gettimeofday, vdso_time
    SYMBOL name_time, vdso_time, vdso_clock_getres
    SYMBOL name_clock_getres, vdso_clock_getres, vdso_getcpu
    SYMBOL name_getcpu, vdso_getcpu, vdso_end
    // Versions that there are: the object's own, and that of the symbols. Hashes are those of the names.
vdso_definitions:
    .short 1, 1, 1, 1
    .long 0xdeebfa1, 20, 28
    .long name_soname - vdso_strings, 0
    .short 1, 0, 2, 1
    .long 0x3ae75f6, 20, 0
    .long name_version - vdso_strings, 0
    // The version of each symbol.
vdso_versions:
    .short 0, 2, 2, 2, 2, 2
    .align 4
    // A hash table of one bucket: a chain through all symbols.
vdso_hash:
    .long 1, 6, 1, 0, 2, 3, 4, 5, 0
vdso_strings:
    .byte 0
name_soname: .asciz "linux-vdso.so.1"
name_version: .asciz "LINUX_2.6"
name_clock_gettime: .asciz "__vdso_clock_gettime"
name_gettimeofday: .asciz "__vdso_gettimeofday"
name_time: .asciz "__vdso_time"
name_clock_getres: .asciz "__vdso_clock_getres"
name_getcpu: .asciz "__vdso_getcpu"
vdso_strings_end:

    .align 16
// r8: the data page; edi's low bit: real time. rax: nanoseconds. Clobbers rcx, rdx, r9, r10.
vdso_now:
    lea r8, [rip + vdso_image - 4096]
1:  mov r9d, [r8 + {SEQUENCE}]
    test r9d, 1
    jnz 2f
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, [r8 + {START}]
    mul qword ptr [r8 + {SCALE}]
    shrd rax, rdx, 32
    xor r10d, r10d
    test edi, 1
    cmovnz r10, [r8 + {OFFSET}]
    cmp r9d, [r8 + {SEQUENCE}]
    jne 2f
    add rax, r10
    ret
2:  pause
    jmp 1b

    .align 16
vdso_clock_gettime:
    // 0, 5: real time; 1, 4, 6, 7: since boot; others by system call.
    mov eax, edi
    cmp eax, 7
    ja 3f
    mov ecx, 0xf3
    bt ecx, eax
    jnc 3f
    mov ecx, 0x21
    xor edi, edi
    bt ecx, eax
    setc dil
    call vdso_now
    mov ecx, 1000000000
    xor edx, edx
    div rcx
    mov [rsi], rax
    mov [rsi + 8], rdx
    xor eax, eax
    ret
3:  mov eax, 228
    syscall
    ret

    .align 16
vdso_gettimeofday:
    mov r11, rsi
    mov rsi, rdi
    test rsi, rsi
    jz 1f
    mov edi, 1
    call vdso_now
    mov ecx, 1000
    xor edx, edx
    div rcx
    mov ecx, 1000000
    xor edx, edx
    div rcx
    mov [rsi], rax
    mov [rsi + 8], rdx
1:  test r11, r11
    jz 2f
    mov qword ptr [r11], 0
2:  xor eax, eax
    ret

    .align 16
vdso_time:
    mov rsi, rdi
    mov edi, 1
    call vdso_now
    mov ecx, 1000000000
    xor edx, edx
    div rcx
    test rsi, rsi
    jz 1f
    mov [rsi], rax
1:  ret

    .align 16
vdso_clock_getres:
    mov eax, 229
    syscall
    ret

    .align 16
vdso_getcpu:
    lea r8, [rip + vdso_image - 4096]
    cmp dword ptr [r8 + {HAS_CPU}], 0
    je 3f
    rdtscp
    test rdi, rdi
    jz 1f
    mov [rdi], ecx
1:  test rsi, rsi
    jz 2f
    mov dword ptr [rsi], 0
2:  xor eax, eax
    ret
3:  mov eax, 309
    syscall
    ret
vdso_end:
    // Nothing else of the kernel's may lie in the page that programs see.
    .align 4096
.text
"#,
    SEQUENCE = const SEQUENCE,
    START = const START,
    SCALE = const SCALE,
    OFFSET = const OFFSET,
    HAS_CPU = const HAS_CPU,
);

unsafe extern "C" {
    static vdso_image: [u8; abi::PAGE_SIZE];
}

static PAGES: Once<(Frame, Frame)> = Once::new();
static UPDATING: SpinLock<()> = SpinLock::new(());

/// The data page and the image, to be mapped next to each other, the data first and read-only. `None` when memory is exhausted.
pub(crate) fn pages() -> Option<(Frame, Frame)> {
    if PAGES.get().is_none() {
        let (data, image) = (Frame::alloc_zeroed()?, Frame::alloc()?);
        // SAFETY: the assembly above aligns the image to a page of read-only data, which is padded to whole pages.
        image.write(0, unsafe { &vdso_image });
        let (start, scale) = tsc::parameters();
        data.write(START, &start.to_ne_bytes());
        data.write(SCALE, &scale.to_ne_bytes());
        data.write(OFFSET, &tsc::realtime_offset().to_ne_bytes());
        data.write(HAS_CPU, &u32::from(features::get().rdtscp).to_ne_bytes());
        let _ = PAGES.set((data, image));
    }
    PAGES.get().cloned()
}

/// Tells programs of a new [`tsc::realtime_offset`].
pub(super) fn update() {
    let Some((data, _)) = PAGES.get() else { return };
    let _one_at_a_time = UPDATING.lock_irq();
    let mut sequence = [0; 4];
    data.read(SEQUENCE, &mut sequence);
    let sequence = u32::from_ne_bytes(sequence);
    data.write(SEQUENCE, &(sequence + 1).to_ne_bytes());
    data.write(OFFSET, &tsc::realtime_offset().to_ne_bytes());
    data.write(SEQUENCE, &(sequence.wrapping_add(2)).to_ne_bytes());
}
