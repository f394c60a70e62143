//! What a new program finds on its stack: strings, auxiliary vector, environment, arguments. The layout is pure; the bytes are
//! written to the new memory by [`super`].

use alloc::vec::Vec;

use base::{Errno, Result};

use super::strings::Strings;

/// Auxiliary vector entry types, by Linux's numbers.
#[allow(missing_docs, reason = "getauxval(3) documents each")]
pub mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// A stack ready to be written.
pub struct Stack {
    /// Its bytes, from `pointer` up to the top.
    pub bytes: Vec<u8>,
    /// The stack pointer to start with: it points at argc.
    pub pointer: usize,
    /// The argument strings.
    pub arguments: (usize, usize),
    /// The environment strings.
    pub environment: (usize, usize),
    /// The auxiliary vector, for `/proc/PID/auxv`.
    pub auxv: Vec<u64>,
}

/// What goes on it.
pub struct Contents<'a> {
    /// One past its highest address.
    pub top: usize,
    /// Arguments.
    pub args: &'a Strings,
    /// Environment.
    pub env: &'a Strings,
    /// The path that exec was given.
    pub file_name: &'a [u8],
    /// For AT_RANDOM.
    pub random: [u8; 16],
    /// How far to move the pointers down at random, in bytes.
    pub jitter: usize,
    /// The auxiliary vector but for the entries that point into the stack.
    pub auxv: &'a [(u64, u64)],
}

/// Lays it out. `ENOMEM`, `E2BIG`.
pub fn lay_out(contents: &Contents) -> Result<Stack> {
    const PLATFORM: &[u8] = b"x86_64\0";
    let Contents { top, args, env, .. } = *contents;
    // From the top down: a null word, the file's name, environment, arguments, then what the vector points to.
    let name_at = top - 8 - contents.file_name.len() - 1;
    let env_at = name_at.checked_sub(env.bytes().len()).ok_or(Errno::E2BIG)?;
    let args_at = env_at.checked_sub(args.bytes().len()).ok_or(Errno::E2BIG)?;
    let platform_at = (args_at.checked_sub(contents.jitter).ok_or(Errno::E2BIG)? & !15) - PLATFORM.len();
    let random_at = platform_at - contents.random.len();
    let mut auxv: Vec<u64> = Vec::new();
    auxv.try_reserve(2 * contents.auxv.len() + 10).map_err(|_| Errno::ENOMEM)?;
    let pointers = [
        (at::RANDOM, random_at as u64),
        (at::EXECFN, name_at as u64),
        (at::PLATFORM, platform_at as u64),
        (at::NULL, 0),
    ];
    auxv.extend(contents.auxv.iter().chain(&pointers).flat_map(|&(kind, value)| [kind, value]));
    let words = 1 + args.count() + 1 + env.count() + 1 + auxv.len();
    let pointer = (random_at.checked_sub(8 * words).ok_or(Errno::E2BIG)?) & !15;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(top - pointer).map_err(|_| Errno::ENOMEM)?;
    bytes.extend_from_slice(&(args.count() as u64).to_ne_bytes());
    put_pointers(&mut bytes, args, args_at);
    put_pointers(&mut bytes, env, env_at);
    auxv.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
    let mut put_at = |address: usize, data: &[u8]| {
        bytes.resize(address - pointer, 0);
        bytes.extend_from_slice(data);
    };
    put_at(random_at, &contents.random);
    put_at(platform_at, PLATFORM);
    put_at(args_at, args.bytes());
    put_at(env_at, env.bytes());
    put_at(name_at, contents.file_name);
    bytes.resize(top - pointer, 0);
    Ok(Stack { bytes, pointer, arguments: (args_at, env_at), environment: (env_at, name_at), auxv })
}

/// The pointers to strings that start at `address`, and a NULL.
fn put_pointers(bytes: &mut Vec<u8>, strings: &Strings, mut address: usize) {
    for string in strings.iter() {
        bytes.extend_from_slice(&address.to_ne_bytes());
        address += string.len();
    }
    bytes.extend_from_slice(&[0; 8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(stack: &Stack, address: usize) -> usize {
        let at = address - stack.pointer;
        usize::from_ne_bytes(stack.bytes[at..at + 8].try_into().unwrap())
    }

    fn string(stack: &Stack, address: usize) -> &[u8] {
        stack.bytes[address - stack.pointer..].split(|&b| b == 0).next().unwrap()
    }

    #[test]
    fn a_program_finds_its_arguments_environment_and_vector() {
        let args = Strings::of(&[b"prog", b"one"]).unwrap();
        let env = Strings::of(&[b"A=1"]).unwrap();
        let stack = lay_out(&Contents {
            top: 0x8000_0000,
            args: &args,
            env: &env,
            file_name: b"/bin/prog",
            random: [7; 16],
            jitter: 100,
            auxv: &[(at::PAGESZ, 4096)],
        })
        .unwrap();
        assert_eq!(stack.pointer % 16, 0);
        assert_eq!(stack.pointer + stack.bytes.len(), 0x8000_0000);
        let at_word = |n: usize| word(&stack, stack.pointer + 8 * n);
        assert_eq!(at_word(0), 2);
        assert_eq!(string(&stack, at_word(1)), b"prog");
        assert_eq!(string(&stack, at_word(2)), b"one");
        assert_eq!(at_word(3), 0);
        assert_eq!(string(&stack, at_word(4)), b"A=1");
        assert_eq!(at_word(5), 0);
        assert_eq!((at_word(6), at_word(7)), (6, 4096));
        assert_eq!(at_word(8), 25);
        assert!(string(&stack, at_word(9)).starts_with(&[7; 16]));
        assert_eq!(string(&stack, at_word(11)), b"/bin/prog");
        assert_eq!(string(&stack, at_word(13)), b"x86_64");
        assert_eq!(stack.arguments.1 - stack.arguments.0, 9);
    }
}
