//! The files about a process's memory, and those whose content lies in it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use mm::{AccessOrder, AddressSpace, Backing, MappingInfo, MappingName, Prot};

use super::Subject;

/// The most that is read of arguments or environment.
const STRINGS_MAX: usize = 4 << 20;

/// Memory of the process from `start` to `end`, as far as it can be read; nothing for a zombie.
fn read(subject: &Subject, start: usize, end: usize) -> Result<Vec<u8>> {
    let Some(space) = subject.process().address_space() else { return Ok(Vec::new()) };
    let len = end.saturating_sub(start).min(STRINGS_MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    let read = space.read_remote(start, &mut bytes);
    bytes.truncate(read);
    Ok(bytes)
}

pub(super) fn cmdline(subject: &Subject) -> Result<Vec<u8>> {
    let image = subject.process().image();
    let args = read(subject, image.arg_start, image.arg_end)?;
    if args.last().is_none_or(|&last| last == 0) {
        return Ok(args);
    }
    // The program wrote over its arguments, perhaps on into the environment: one string, up to its NUL.
    let mut title = read(subject, image.arg_start, image.env_end)?;
    let end = title.iter().position(|&b| b == 0).unwrap_or(title.len());
    title.truncate(end);
    title.push(0);
    Ok(title)
}

pub(super) fn environ(subject: &Subject) -> Result<Vec<u8>> {
    let image = subject.process().image();
    read(subject, image.env_start, image.env_end)
}

pub(super) fn auxv(subject: &Subject) -> Result<Vec<u8>> {
    Ok(subject.process().image().auxv.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// All mappings; nothing for a zombie.
fn mappings(subject: &Subject) -> Result<(Option<alloc::sync::Arc<AddressSpace>>, Vec<MappingInfo>)> {
    let Some(space) = subject.process().address_space() else { return Ok((None, Vec::new())) };
    let mut all: Vec<MappingInfo> = Vec::new();
    space.for_each_mapping(0, |mapping| {
        let room = all.try_reserve(1).is_ok();
        if room {
            all.push(mapping.clone());
        }
        room
    });
    Ok((Some(space), all))
}

/// Where a name begins in a line of `maps`.
const NAME_COLUMN: usize = 73;

fn line(mapping: &MappingInfo) -> Vec<u8> {
    let letter = |prot, letter| if mapping.prot.contains(prot) { letter } else { '-' };
    let (offset, (major, minor, inode, name)) = match &mapping.backing {
        Backing::Anonymous => (0, (0, 0, 0, Vec::new())),
        Backing::File { file, offset } => (*offset, file.describe()),
    };
    let mut text = format!(
        "{:08x}-{:08x} {}{}{}{} {offset:08x} {major:02x}:{minor:02x} {inode} ",
        mapping.start,
        mapping.end,
        letter(Prot::READ, 'r'),
        letter(Prot::WRITE, 'w'),
        letter(Prot::EXEC, 'x'),
        if mapping.shared { 's' } else { 'p' },
    )
    .into_bytes();
    let special: &[u8] = match mapping.name {
        MappingName::None => b"",
        MappingName::Heap => b"[heap]",
        MappingName::Stack => b"[stack]",
        MappingName::Vdso => b"[vdso]",
        MappingName::Vvar => b"[vvar]",
    };
    let name = if name.is_empty() { special } else { &name };
    if !name.is_empty() {
        text.resize(text.len().max(NAME_COLUMN), b' ');
        for &byte in name {
            if byte == b'\n' { text.extend_from_slice(b"\\012") } else { text.push(byte) }
        }
    }
    text.push(b'\n');
    text
}

pub(super) fn maps(subject: &Subject) -> Result<Vec<u8>> {
    Ok(mappings(subject)?.1.iter().flat_map(line).collect())
}

/// Sums of smaps, in pages but for `pss`, which is in 1/4096 of a page.
#[derive(Clone, Copy, Default)]
struct Sums {
    resident: usize,
    pss: usize,
    private: usize,
    swapped: usize,
    anonymous: usize,
    locked: usize,
}

impl Sums {
    fn of(space: &AddressSpace, mapping: &MappingInfo) -> Sums {
        let (resident, pss, private, swapped) = space.residency(mapping.start, mapping.end);
        let anonymous = if matches!(mapping.backing, Backing::Anonymous) { resident } else { 0 };
        let locked = if mapping.lock.is_locked() { resident } else { 0 };
        Sums { resident, pss, private, swapped, anonymous, locked }
    }

    fn add(&mut self, other: &Sums) {
        self.resident += other.resident;
        self.pss += other.pss;
        self.private += other.private;
        self.swapped += other.swapped;
        self.anonymous += other.anonymous;
        self.locked += other.locked;
    }

    fn lines(&self, writable: bool) -> String {
        let kb = |pages: usize| pages * (PAGE_SIZE / 1024);
        let (clean, dirty) = if writable { (0, self.private) } else { (self.private, 0) };
        let lines = [
            ("Rss", kb(self.resident)),
            ("Pss", self.pss / 1024),
            ("Pss_Dirty", if writable { self.pss / 1024 } else { 0 }),
            ("Shared_Clean", kb(self.resident - self.private)),
            ("Shared_Dirty", 0),
            ("Private_Clean", kb(clean)),
            ("Private_Dirty", kb(dirty)),
            ("Referenced", kb(self.resident)),
            ("Anonymous", kb(self.anonymous)),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", kb(self.swapped)),
            ("SwapPss", kb(self.swapped)),
            ("Locked", kb(self.locked)),
        ];
        lines.iter().map(|(name, value)| format!("{:<16}{value:>8} kB\n", format!("{name}:"))).collect()
    }
}

fn flags(mapping: &MappingInfo) -> String {
    let set = [
        (mapping.prot.contains(Prot::READ), "rd"),
        (mapping.prot.contains(Prot::WRITE), "wr"),
        (mapping.prot.contains(Prot::EXEC), "ex"),
        (mapping.shared, "sh"),
        (true, "mr"),
        (true, "mw"),
        (true, "me"),
        (mapping.shared, "ms"),
        (mapping.grows_down, "gd"),
        (mapping.lock.is_locked(), "lo"),
        (mapping.order == AccessOrder::Sequential, "sr"),
        (mapping.order == AccessOrder::Random, "rr"),
        (mapping.not_inherited, "dc"),
        (!mapping.shared && mapping.prot.contains(Prot::WRITE) && !mapping.no_reserve, "ac"),
        (mapping.no_reserve, "nr"),
        (mapping.wiped_on_fork, "wf"),
        (mapping.not_dumped, "dd"),
    ];
    let names: String = set.iter().filter(|(on, _)| *on).map(|(_, name)| format!(" {name}")).collect();
    format!("VmFlags:{names} \n")
}

pub(super) fn smaps(subject: &Subject) -> Result<Vec<u8>> {
    let (space, all) = mappings(subject)?;
    let Some(space) = space else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    for mapping in &all {
        text.extend_from_slice(&line(mapping));
        let size = (mapping.end - mapping.start) / 1024;
        for (name, value) in [("Size", size), ("KernelPageSize", 4), ("MMUPageSize", 4)] {
            text.extend_from_slice(format!("{:<16}{value:>8} kB\n", format!("{name}:")).as_bytes());
        }
        text.extend_from_slice(Sums::of(&space, mapping).lines(mapping.prot.contains(Prot::WRITE)).as_bytes());
        text.extend_from_slice(b"THPeligible:    0\n");
        text.extend_from_slice(flags(mapping).as_bytes());
        sched::preempt_point();
    }
    Ok(text)
}

pub(super) fn smaps_rollup(subject: &Subject) -> Result<Vec<u8>> {
    let (space, all) = mappings(subject)?;
    let Some(space) = space else { return Ok(Vec::new()) };
    let mut sums = Sums::default();
    for mapping in &all {
        sums.add(&Sums::of(&space, mapping));
        sched::preempt_point();
    }
    let (start, end) = (all.first().map_or(0, |m| m.start), all.last().map_or(0, |m| m.end));
    let mut text = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0 ").into_bytes();
    text.resize(text.len().max(NAME_COLUMN), b' ');
    text.extend_from_slice(b"[rollup]\n");
    text.extend_from_slice(sums.lines(true).as_bytes());
    Ok(text)
}
