//! What was seen, as stacks of function names, and how often.

use super::gdb::Registers;
use crate::Failure;
use addr2line::Loader;
use std::collections::BTreeMap;
use std::path::Path;

/// More frames than a kernel stack has.
const DEEPEST: usize = 64;
/// Where the kernel's code lies.
const KERNEL: u64 = 0xffff_ffff_8000_0000;

/// Turns addresses of the kernel into names.
pub(super) struct Names {
    loader: Loader,
}

impl Names {
    pub(super) fn open(kernel: &Path) -> Result<Names, Failure> {
        let loader = Loader::new(kernel).map_err(|error| format!("no symbols from {}: {error}", kernel.display()))?;
        Ok(Names { loader })
    }

    /// The functions at an address, outermost first: the one it is in, then those inlined there.
    fn at(&self, address: u64) -> Vec<String> {
        let mut names = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|name| name.demangle().ok().map(|name| tidy(&name)));
                names.extend(name);
            }
        }
        if names.is_empty() {
            let symbol = self.loader.find_symbol(address).map(|name| addr2line::demangle_auto(name.into(), None));
            names.push(symbol.map_or_else(|| "unknown".to_owned(), |name| tidy(&name)));
        }
        // The last is the function itself. Of what is inlined, the standard library's steps only hide it.
        let own = names.len() - 1;
        let mut place = 0..;
        names.retain(|name| place.next() == Some(own) || !is_standard(name));
        names.reverse();
        names
    }
}

/// A function's name without the compiler's hash, and without what folded stacks take for separators.
fn tidy(name: &str) -> String {
    let name = name.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(name, |(name, _)| name);
    name.replace(';', ",").replace(' ', "_")
}

/// True for functions of the standard library, and for its traits' methods.
fn is_standard(name: &str) -> bool {
    let own = name.trim_start_matches(['<', '&']);
    let library = ["core::", "alloc::", "hashbrown::", "usize", "u64", "u32", "u8", "i32", "i64", "bool"];
    library.iter().any(|start| own.starts_with(start)) && !name.contains("_as_core::ops::drop::Drop>")
}

/// Counts by stack.
#[derive(Default)]
pub(super) struct Stacks {
    counts: BTreeMap<Vec<String>, u64>,
}

impl Stacks {
    /// Notes what one CPU was doing.
    pub(super) fn add(&mut self, names: &Names, registers: &Registers, words: &[u64]) {
        let stack = if registers.user {
            vec!["a program".to_owned()]
        } else {
            let mut addresses = vec![registers.rip];
            // Of a caller, the address behind the call is known; the call may be its last instruction.
            addresses.extend(callers(registers, words).iter().map(|address| address - 1));
            addresses.iter().rev().flat_map(|address| names.at(*address)).collect()
        };
        *self.counts.entry(stack).or_default() += 1;
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Each stack and its count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.counts.iter().map(|(stack, count)| (stack.as_slice(), *count))
    }

    /// One line a stack, `outer;inner COUNT`: what other tools read.
    pub(super) fn folded(&self) -> String {
        self.iter().map(|(stack, count)| format!("{} {count}\n", stack.join(";"))).collect()
    }

    /// The functions in which most time goes: by themselves, and with all they call.
    pub(super) fn list(&self, most: usize) -> String {
        let mut functions: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (stack, count) in self.iter() {
            if let Some(innermost) = stack.last() {
                functions.entry(innermost).or_default().0 += count;
            }
            let mut seen: Vec<&str> = stack.iter().map(String::as_str).collect();
            seen.sort_unstable();
            seen.dedup();
            seen.into_iter().for_each(|name| functions.entry(name).or_default().1 += count);
        }
        let mut order: Vec<(&str, (u64, u64))> = functions.into_iter().collect();
        order.sort_by_key(|(_, (own, _))| std::cmp::Reverse(*own));
        let share = |count: u64| count as f64 * 100.0 / self.total().max(1) as f64;
        let mut text = String::from("  itself  with callees\n");
        for (name, (own, all)) in order.into_iter().take(most) {
            text += &format!("{:>6.1} %  {:>6.1} %  {name}\n", share(own), share(all));
        }
        text
    }
}

/// The return addresses, innermost first, by the chain of frame pointers.
fn callers(registers: &Registers, words: &[u64]) -> Vec<u64> {
    let word = |address: u64| {
        let offset = address.checked_sub(registers.rsp)?;
        words.get(usize::try_from(offset / 8).ok()?).copied()
    };
    let mut addresses = Vec::new();
    let mut frame = registers.rbp;
    while addresses.len() < DEEPEST {
        let (Some(next), Some(address)) = (word(frame), word(frame.wrapping_add(8))) else { break };
        if address <= KERNEL {
            break;
        }
        addresses.push(address);
        if next <= frame {
            break;
        }
        frame = next;
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_pointers_are_followed() {
        let code = KERNEL + 0x1000;
        // rsp at 0x100: a local, then two frames, then the end.
        let words = [7, 0x120, code, 9, 0, code + 5, 0];
        let registers = Registers { rip: code, rbp: 0x108, rsp: 0x100, user: false };
        assert_eq!(callers(&registers, &words), [code, code + 5]);
        let lost = Registers { rbp: 0xdead_0000, ..registers };
        assert!(callers(&lost, &words).is_empty());
    }

    #[test]
    fn shares_and_folded_stacks() {
        let mut stacks = Stacks::default();
        stacks.counts.insert(vec!["a".into(), "b".into()], 3);
        stacks.counts.insert(vec!["a".into()], 1);
        assert_eq!(stacks.folded(), "a 1\na;b 3\n");
        let list = stacks.list(1);
        assert!(list.contains("75.0 %    75.0 %  b"), "{list}");
        assert_eq!(tidy("a::b::h0123456789abcdef"), "a::b");
        assert!(is_standard("<usize_as_core::cmp::Ord>::cmp") && !is_standard("<mm::A_as_core::fmt::Debug>::fmt"));
    }
}
