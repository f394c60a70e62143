//! `memcpy` and friends. The ones that the compiler's runtime brings use `rep` for everything, which processors start slowly and
//! emulators run step by step; these use plain moves for all lengths up to a page.

use core::arch::naked_asm;

/// # Safety
/// As C's memcpy.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "sub rdx, 32",
        "jb 3f",
        "2: mov r8, [rsi]",
        "mov r9, [rsi + 8]",
        "mov r10, [rsi + 16]",
        "mov r11, [rsi + 24]",
        "mov [rdi], r8",
        "mov [rdi + 8], r9",
        "mov [rdi + 16], r10",
        "mov [rdi + 24], r11",
        "add rsi, 32",
        "add rdi, 32",
        "sub rdx, 32",
        "jae 2b",
        "3: add rdx, 32",
        "sub rdx, 8",
        "jb 5f",
        "4: mov r8, [rsi]",
        "mov [rdi], r8",
        "add rsi, 8",
        "add rdi, 8",
        "sub rdx, 8",
        "jae 4b",
        "5: add rdx, 8",
        "jz 7f",
        "6: mov r8b, [rsi]",
        "mov [rdi], r8b",
        "inc rsi",
        "inc rdi",
        "dec rdx",
        "jnz 6b",
        "7: ret",
    )
}

/// # Safety
/// As C's memmove.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    naked_asm!(
        // Forward unless the destination starts inside the source.
        "mov rax, rdi",
        "sub rax, rsi",
        "cmp rax, rdx",
        "jae {memcpy}",
        "mov rax, rdi",
        "2: cmp rdx, 8",
        "jb 4f",
        "sub rdx, 8",
        "mov r8, [rsi + rdx]",
        "mov [rdi + rdx], r8",
        "jmp 2b",
        "4: test rdx, rdx",
        "jz 5f",
        "dec rdx",
        "mov r8b, [rsi + rdx]",
        "mov [rdi + rdx], r8b",
        "jmp 4b",
        "5: ret",
        memcpy = sym memcpy,
    )
}

/// # Safety
/// As C's memset.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dst: *mut u8, byte: i32, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx r8d, sil",
        "movabs r9, 0x0101010101010101",
        "imul r8, r9",
        "sub rdx, 32",
        "jb 3f",
        "2: mov [rdi], r8",
        "mov [rdi + 8], r8",
        "mov [rdi + 16], r8",
        "mov [rdi + 24], r8",
        "add rdi, 32",
        "sub rdx, 32",
        "jae 2b",
        "3: add rdx, 32",
        "sub rdx, 8",
        "jb 5f",
        "4: mov [rdi], r8",
        "add rdi, 8",
        "sub rdx, 8",
        "jae 4b",
        "5: add rdx, 8",
        "jz 7f",
        "6: mov [rdi], r8b",
        "inc rdi",
        "dec rdx",
        "jnz 6b",
        "7: ret",
    )
}
