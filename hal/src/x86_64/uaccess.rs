//! Copies to and from user space that survive faults (their addresses stand in the fixup table), and plain memory moves.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU8, Ordering};

use super::features;

/// 1 where SMAP is on, so that `stac`/`clac` exist and are needed. Read by the assembly below.
#[unsafe(no_mangle)]
static SMAP_ON: AtomicU8 = AtomicU8::new(0);
/// 1 where `rep movsb` is fast for all lengths.
#[unsafe(no_mangle)]
static FAST_REP: AtomicU8 = AtomicU8::new(0);

pub(super) fn init() {
    SMAP_ON.store(u8::from(features::get().smap), Ordering::Relaxed);
    // Under TCG each step of a `rep` is emulated, so loops of plain moves are faster there.
    FAST_REP.store(u8::from(features::get().fsrm && !features::get().tcg), Ordering::Relaxed);
}

global_asm!(
    r#"
.macro FIXUP from, to
    .pushsection __ex_table, "a"
    .quad \from, \to
    .popsection
.endm

.section .text
// rdi: to, rsi: from, rdx: length. rax: bytes left when a fault ended it. Clobbers rcx, r8-r11.
.align 16
.global user_copy
user_copy:
    cmp byte ptr [rip + SMAP_ON], 0
    je 1f
    stac
1:  cmp byte ptr [rip + FAST_REP], 0
    jne 30f
    sub rdx, 64
    jb 12f
10: mov r8, [rsi]
11: mov r9, [rsi + 8]
101: mov r10, [rsi + 16]
102: mov r11, [rsi + 24]
103: mov [rdi], r8
104: mov [rdi + 8], r9
105: mov [rdi + 16], r10
106: mov [rdi + 24], r11
107: mov r8, [rsi + 32]
108: mov r9, [rsi + 40]
109: mov r10, [rsi + 48]
110: mov r11, [rsi + 56]
111: mov [rdi + 32], r8
112: mov [rdi + 40], r9
113: mov [rdi + 48], r10
114: mov [rdi + 56], r11
    add rsi, 64
    add rdi, 64
    sub rdx, 64
    jae 10b
12: add rdx, 64
13: sub rdx, 8
    jb 16f
14: mov r8, [rsi]
15: mov [rdi], r8
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jae 14b
16: add rdx, 8
    jz 21f
    cmp rdx, 4
    jb 20f
17: mov r8d, [rsi]
18: mov [rdi], r8d
    add rsi, 4
    add rdi, 4
    sub rdx, 4
    jz 21f
// Byte by byte: the rest, or after a fault, up to the byte that faults.
20: mov r8b, [rsi]
22: mov [rdi], r8b
    inc rsi
    inc rdi
    dec rdx
    jnz 20b
21: mov rax, rdx
    cmp byte ptr [rip + SMAP_ON], 0
    je 23f
    clac
23: ret
30: mov rcx, rdx
31: rep movsb
    mov rdx, rcx
    jmp 21b
32: mov rdx, rcx
    jmp 21b
40: add rdx, 64
    jmp 20b
41: add rdx, 8
    jmp 20b
    FIXUP 10b, 40b
    FIXUP 11b, 40b
    FIXUP 101b, 40b
    FIXUP 102b, 40b
    FIXUP 103b, 40b
    FIXUP 104b, 40b
    FIXUP 105b, 40b
    FIXUP 106b, 40b
    FIXUP 107b, 40b
    FIXUP 108b, 40b
    FIXUP 109b, 40b
    FIXUP 110b, 40b
    FIXUP 111b, 40b
    FIXUP 112b, 40b
    FIXUP 113b, 40b
    FIXUP 114b, 40b
    FIXUP 14b, 41b
    FIXUP 15b, 41b
    FIXUP 17b, 20b
    FIXUP 18b, 20b
    FIXUP 20b, 21b
    FIXUP 22b, 21b
    FIXUP 31b, 32b

// rdi: to, rdx: length. rax: bytes left when a fault ended it.
.align 16
.global user_zero
user_zero:
    cmp byte ptr [rip + SMAP_ON], 0
    je 1f
    stac
1:  xor eax, eax
    sub rdx, 32
    jb 3f
2:  mov [rdi], rax
50: mov [rdi + 8], rax
51: mov [rdi + 16], rax
52: mov [rdi + 24], rax
    add rdi, 32
    sub rdx, 32
    jae 2b
3:  add rdx, 32
    jz 5f
4:  mov [rdi], al
    inc rdi
    dec rdx
    jnz 4b
5:  mov rax, rdx
    cmp byte ptr [rip + SMAP_ON], 0
    je 6f
    clac
6:  ret
7:  add rdx, 32
    jmp 4b
    FIXUP 2b, 7b
    FIXUP 50b, 7b
    FIXUP 51b, 7b
    FIXUP 52b, 7b
    FIXUP 4b, 5b

// rdi: address. rax: the value, or -1.
.align 16
.global user_load
user_load:
    cmp byte ptr [rip + SMAP_ON], 0
    je 1f
    stac
1:  mov eax, [rdi]
    jmp 3f
2:  mov rax, -1
3:  cmp byte ptr [rip + SMAP_ON], 0
    je 4f
    clac
4:  ret
    FIXUP 1b, 2b

// rdi: address, esi: expected, edx: new. rax: what was there, or -1.
.align 16
.global user_cmpxchg
user_cmpxchg:
    cmp byte ptr [rip + SMAP_ON], 0
    je 1f
    stac
1:  mov eax, esi
5:  lock cmpxchg [rdi], edx
    mov eax, eax
    jmp 3f
2:  mov rax, -1
3:  cmp byte ptr [rip + SMAP_ON], 0
    je 4f
    clac
4:  ret
    FIXUP 5b, 2b

// rdi: address, 64-aligned. Saves the floating-point registers there. rax: 0, or -1 at a fault.
.align 16
.global user_xsave
user_xsave:
    cmp byte ptr [rip + SMAP_ON], 0
    je 1f
    stac
1:  xor eax, eax
// XSAVE leaves the header's reserved bytes alone.
5:  mov [rdi + 512], rax
50: mov [rdi + 520], rax
51: mov [rdi + 528], rax
52: mov [rdi + 536], rax
53: mov [rdi + 544], rax
54: mov [rdi + 552], rax
55: mov [rdi + 560], rax
56: mov [rdi + 568], rax
    mov eax, -1
    mov edx, -1
57: xsave64 [rdi]
    xor eax, eax
    jmp 3f
2:  mov rax, -1
3:  cmp byte ptr [rip + SMAP_ON], 0
    je 4f
    clac
4:  ret
    FIXUP 5b, 2b
    FIXUP 50b, 2b
    FIXUP 51b, 2b
    FIXUP 52b, 2b
    FIXUP 53b, 2b
    FIXUP 54b, 2b
    FIXUP 55b, 2b
    FIXUP 56b, 2b
    FIXUP 57b, 2b

// rdi: address, 64-aligned. Loads the floating-point registers from there. rax: 0, or -1 at a fault or a bad image.
.align 16
.global user_xrstor
user_xrstor:
    cmp byte ptr [rip + SMAP_ON], 0
    je 1f
    stac
1:  mov eax, -1
    mov edx, -1
5:  xrstor64 [rdi]
    xor eax, eax
    jmp 3f
2:  mov rax, -1
3:  cmp byte ptr [rip + SMAP_ON], 0
    je 4f
    clac
4:  ret
    FIXUP 5b, 2b
"#
);

/// Calls one of the routines above: three arguments, the result in rax.
macro_rules! call {
    ($routine:literal, $a:expr, $b:expr, $c:expr) => {{
        let result: usize;
        asm!(
            concat!("call ", $routine),
            inout("rdi") $a => _, inout("rsi") $b => _, inout("rdx") $c => _,
            out("rax") result, out("rcx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
        result
    }};
}

/// Copies from user space: how many bytes were copied. The caller checked that `[src, src + len)` is in the user half.
///
/// # Safety
/// `dst` must be valid for writes of `len` bytes.
#[inline]
pub(crate) unsafe fn copy_from_user_raw(dst: *mut u8, src: usize, len: usize) -> usize {
    // SAFETY: `dst` by the caller's promise; faults on `src` end in the fixup.
    len - unsafe { call!("user_copy", dst, src, len) }
}

/// Copies to user space: how many bytes were copied. The caller checked that `[dst, dst + len)` is in the user half.
///
/// # Safety
/// `src` must be valid for reads of `len` bytes.
#[inline]
pub(crate) unsafe fn copy_to_user_raw(dst: usize, src: *const u8, len: usize) -> usize {
    // SAFETY: `src` by the caller's promise; faults on `dst` end in the fixup; user memory is not Rust's.
    len - unsafe { call!("user_copy", dst, src, len) }
}

pub(crate) fn copy_from_user(dst: &mut [u8], src: usize) -> usize {
    // SAFETY: the slice is valid for writes.
    unsafe { copy_from_user_raw(dst.as_mut_ptr(), src, dst.len()) }
}

pub(crate) fn copy_to_user(dst: usize, src: &[u8]) -> usize {
    // SAFETY: the slice is valid for reads.
    unsafe { copy_to_user_raw(dst, src.as_ptr(), src.len()) }
}

pub(crate) fn clear_user(dst: usize, len: usize) -> usize {
    // SAFETY: faults on `dst` end in the fixup; the caller checked that it is in the user half.
    len - unsafe { call!("user_zero", dst, 0usize, len) }
}

pub(crate) fn user_load_u32(addr: usize) -> Option<u32> {
    // SAFETY: as for `clear_user`.
    u32::try_from(unsafe { call!("user_load", addr, 0usize, 0usize) }).ok()
}

pub(crate) fn user_cmpxchg_u32(addr: usize, old: u32, new: u32) -> Option<u32> {
    // SAFETY: as for `clear_user`.
    u32::try_from(unsafe { call!("user_cmpxchg", addr, old as usize, new as usize) }).ok()
}

/// Saves this processor's floating-point registers to user memory; false at a fault. Interrupts are off, so that a page that isn't there is
/// not waited for; the caller checked that the image is in the user half.
pub(super) fn user_xsave(dst: usize) -> bool {
    // SAFETY: as for `clear_user`.
    unsafe { call!("user_xsave", dst, 0usize, 0usize) == 0 }
}

/// Loads them from user memory; false at a fault or where the processor does not take the image. As [`user_xsave`].
pub(super) fn user_xrstor(src: usize) -> bool {
    // SAFETY: the kernel uses none of the registers that this changes.
    unsafe { call!("user_xrstor", src, 0usize, 0usize) == 0 }
}

/// Copies between kernel pointers, tolerating that user programs change either side meanwhile.
///
/// # Safety
/// `dst` must be valid for writes and `src` for reads of `len` bytes.
#[inline]
pub(crate) unsafe fn copy_bytes(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's promise; done in assembly, so concurrent changes are torn bytes only.
    unsafe { call!("user_copy", dst, src, len) };
}

/// # Safety
/// `dst` must be valid for writes of `len` bytes.
pub(crate) unsafe fn zero_bytes(dst: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { call!("user_zero", dst, 0usize, len) };
}

/// # Safety
/// `dst` must be a whole page.
#[inline]
pub(crate) unsafe fn zero_page(dst: *mut u8) {
    // SAFETY: the caller's promise; 32 rounds of 128 bytes.
    unsafe {
        asm!(
            "2:",
            "mov [{p}], {z}", "mov [{p} + 8], {z}", "mov [{p} + 16], {z}", "mov [{p} + 24], {z}",
            "mov [{p} + 32], {z}", "mov [{p} + 40], {z}", "mov [{p} + 48], {z}", "mov [{p} + 56], {z}",
            "mov [{p} + 64], {z}", "mov [{p} + 72], {z}", "mov [{p} + 80], {z}", "mov [{p} + 88], {z}",
            "mov [{p} + 96], {z}", "mov [{p} + 104], {z}", "mov [{p} + 112], {z}", "mov [{p} + 120], {z}",
            "add {p}, 128",
            "dec {n:e}",
            "jnz 2b",
            p = inout(reg) dst => _, z = in(reg) 0u64, n = inout(reg) 32u32 => _,
            options(nostack),
        );
    }
}

/// # Safety
/// Both must be whole pages.
#[inline]
pub(crate) unsafe fn copy_page(dst: *mut u8, src: *const u8) {
    // SAFETY: the caller's promise.
    unsafe { copy_bytes(dst, src, abi::PAGE_SIZE) };
}
