//! The processor's caches, as CPUID tells them.

use alloc::vec::Vec;

use super::cpu_regs::cpuid;
use crate::cpu::{Cache, CacheKind};

/// The first leaf of those that AMD began.
const EXTENDED: u32 = 0x8000_0000;
/// AMD's leaf that is laid out as Intel's (AMD64 manual volume 3, E.4.15).
const AMD: u32 = 0x8000_001d;
/// AMD's older leaves: of the first level, and of the others (E.4.4, E.4.5).
const AMD_FIRST: u32 = 0x8000_0005;
const AMD_OTHERS: u32 = 0x8000_0006;
/// More levels than any processor has: one that never says that there are no more must not be believed.
const MOST: u32 = 16;

/// By leaf 4 (Intel SDM volume 2), or by AMD's.
pub(super) fn read() -> Vec<Cache> {
    let most = cpuid(EXTENDED, 0).eax;
    let leaf = if most >= AMD && cpuid(0x8000_0001, 0).ecx & 1 << 22 != 0 { AMD } else { 4 };
    let told = |leaf| (0..MOST).map_while(|index| modern(&cpuid(leaf, index))).collect::<Vec<_>>();
    let found = if leaf == AMD || cpuid(0, 0).eax >= leaf { told(leaf) } else { Vec::new() };
    if found.is_empty() && most >= AMD_OTHERS { older() } else { found }
}

fn modern(said: &core::arch::x86_64::CpuidResult) -> Option<Cache> {
    let kind = match said.eax & 31 {
        1 => CacheKind::Data,
        2 => CacheKind::Instruction,
        3 => CacheKind::Unified,
        _ => return None,
    };
    Some(Cache {
        level: said.eax >> 5 & 7,
        kind,
        line: (said.ebx & 0xfff) + 1,
        partitions: (said.ebx >> 12 & 0x3ff) + 1,
        ways: (said.ebx >> 22) + 1,
        sets: said.ecx.saturating_add(1),
        sharers: (said.eax >> 14 & 0xfff) + 1,
    })
}

/// What processors of AMD tell that have neither: sizes, and the ways by a code. The third level is all processors'.
fn older() -> Vec<Cache> {
    let (first, others) = (cpuid(AMD_FIRST, 0), cpuid(AMD_OTHERS, 0));
    let of = |level, kind, kib: u32, ways: u32, word: u32, sharers| {
        let (line, partitions) = (word & 0xff, (word >> 8 & if level == 1 { 0xff } else { 0xf }).max(1));
        // All of it one set.
        let ways = if ways == 0xff { kib.saturating_mul(1024) / line.max(1) } else { ways };
        let sets =
            kib.saturating_mul(1024).checked_div((line * partitions).saturating_mul(ways)).filter(|&sets| sets > 0)?;
        Some(Cache { level, kind, line, partitions, ways, sets, sharers })
    };
    let one = |kind, word: u32| of(1, kind, word >> 24, word >> 16 & 0xff, word, 1);
    let all = crate::cpu::count() as u32;
    let third = (others.edx >> 18).saturating_mul(512);
    [
        one(CacheKind::Data, first.ecx),
        one(CacheKind::Instruction, first.edx),
        of(2, CacheKind::Unified, others.ecx >> 16, ways(others.ecx >> 12 & 15), others.ecx, 1),
        of(3, CacheKind::Unified, third, ways(others.edx >> 12 & 15), others.edx, all),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The ways that a code of the second and third level stands for; 0xff: all.
fn ways(code: u32) -> u32 {
    match code {
        1 | 2 | 4 => code,
        6 => 8,
        8 => 16,
        0xa => 32,
        0xb => 48,
        0xc => 64,
        0xd => 96,
        0xe => 128,
        0xf => 0xff,
        _ => 0,
    }
}
