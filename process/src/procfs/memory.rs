//! The files about a process's memory, and those whose content lies in it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use mm::{AccessOrder, AddressSpace, Backing, MappingInfo, MappingName, Prot, Residency};

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
        // Memory that is shared is a file of the kernel's own instance of tmpfs, which has always been called so.
        Backing::Anonymous if mapping.shared => (0, (0, 1, 0, b"/dev/zero (deleted)".to_vec())),
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

/// The sums that `smaps` shows: of one mapping, or of all.
#[derive(Clone, Copy, Default)]
struct Sums {
    pages: Residency,
    /// Shares of pages that are locked, in 1/4096 of a page.
    locked: usize,
}

impl Sums {
    fn of(space: &AddressSpace, mapping: &MappingInfo) -> Sums {
        let pages = space.residency(mapping.start, mapping.end);
        Sums { pages, locked: if mapping.lock.is_locked() { pages.share } else { 0 } }
    }

    fn add(&mut self, other: &Sums) {
        self.pages += other.pages;
        self.locked += other.locked;
    }

    /// The lines, with what only the sum over all mappings shows if `rollup`.
    fn lines(&self, rollup: bool) -> String {
        let (pages, page) = (&self.pages, |pages: usize| pages * (PAGE_SIZE / 1024));
        // A share of 1/4096 of a page is a byte.
        let share = |bytes: usize| bytes / 1024;
        let first =
            [("Rss", page(pages.resident)), ("Pss", share(pages.share)), ("Pss_Dirty", share(pages.share_dirty))];
        let file = pages.share - pages.share_anonymous - pages.share_shmem;
        let kinds = [
            ("Pss_Anon", share(pages.share_anonymous)),
            ("Pss_File", share(file)),
            ("Pss_Shmem", share(pages.share_shmem)),
        ];
        let rest = [
            ("Shared_Clean", page(pages.shared.clean)),
            ("Shared_Dirty", page(pages.shared.dirty)),
            ("Private_Clean", page(pages.private.clean)),
            ("Private_Dirty", page(pages.private.dirty)),
            ("Referenced", page(pages.referenced)),
            ("Anonymous", page(pages.anonymous)),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", share(self.locked)),
        ];
        let kinds = kinds.iter().filter(|_| rollup);
        let text = |(name, value): &(&str, usize)| format!("{:<16}{value:>8} kB\n", format!("{name}:"));
        first.iter().chain(kinds).chain(&rest).map(text).collect()
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
        (mapping.changed, "sd"),
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
        text.extend_from_slice(Sums::of(&space, mapping).lines(false).as_bytes());
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
