//! Listing a directory: the names of all that it merges, each once, without those that are covered.
//!
//! A name keeps its position as long as it is there, so that a listing under way stays right whatever comes and goes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hashbrown::HashMap;

use super::{Node, real};
use crate::{Dentry, DirEntry, FileKind, Inode};

/// Entries that are taken from a layer at a time.
const BATCH: usize = 128;
/// The position of the first name.
const FIRST: u64 = 2;

struct Entry {
    name: Arc<[u8]>,
    kind: FileKind,
    number: u64,
}

/// The names that a directory shows.
#[derive(Default)]
pub(super) struct Listing {
    by_position: BTreeMap<u64, Entry>,
    positions: HashMap<Arc<[u8]>, u64>,
    next: u64,
    read: bool,
    /// Names have changed since they were read.
    pub(super) stale: bool,
}

/// A name as a layer has it.
struct Raw {
    name: Box<[u8]>,
    kind: FileKind,
    number: u64,
    /// It covers what lower layers have.
    whiteout: bool,
    /// The layer below that has it too, if the upper one has it first: its number there.
    below: Option<(u64, usize)>,
    fs: usize,
}

/// Takes entries from `position` on out of a layer's directory: the position to go on from; `None` at the end.
fn batch(dir: &Arc<Dentry>, position: u64, out: &mut Vec<Raw>, fs: usize) -> Result<Option<u64>> {
    out.try_reserve(BATCH).map_err(|_| Errno::ENOMEM)?;
    let inode = real::inode(dir)?;
    let (mut taken, mut full) = (0, false);
    let next = {
        let _held = inode.content.lock();
        inode.ops().list(inode, position, &mut |entry| {
            if taken == BATCH {
                full = true;
                return false;
            }
            taken += 1;
            let (kind, number) = (entry.kind, entry.inode);
            out.push(Raw { name: entry.name.into(), kind, number, whiteout: false, below: None, fs });
            true
        })?
    };
    for raw in out.iter_mut().rev().take(taken).filter(|raw| raw.kind == FileKind::CharDevice) {
        let found = real::lookup(dir, &raw.name)?;
        raw.whiteout = found.is_some_and(|entry| entry.inode().is_some_and(|inode| real::is_whiteout(inode)));
    }
    Ok(full.then_some(next))
}

fn all(dir: &Arc<Dentry>, fs: usize) -> Result<Vec<Raw>> {
    let mut found = Vec::new();
    let mut position = Some(FIRST);
    while let Some(at) = position {
        position = batch(dir, at, &mut found, fs)?;
        sched::preempt_point();
    }
    Ok(found)
}

impl Node {
    /// Lists names from `position` on: the position after the last that was taken.
    pub(super) fn list_merged(&self, position: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let upper = self.upper.get().map(core::slice::from_ref).unwrap_or_default();
        if let ([only], []) | ([], [only]) = (upper, self.merged_lowers()) {
            return self.list_one(only, position, emit);
        }
        let mut listing = self.listing.lock();
        if !listing.read || listing.stale {
            let merged = self.merge()?;
            listing.update(merged)?;
        }
        let mut next = position;
        for (at, entry) in listing.by_position.range(position..) {
            let shown = DirEntry { name: &entry.name, inode: entry.number, kind: entry.kind, next: at + 1 };
            if !emit(&shown) {
                return Ok(next);
            }
            next = at + 1;
        }
        Ok(next)
    }

    /// Lists a directory that only one layer has.
    fn list_one(&self, dir: &Arc<Dentry>, from: u64, emit: &mut dyn FnMut(&DirEntry) -> bool) -> Result<u64> {
        let fs = self.fs.fs_of(real::inode(dir)?);
        let mut position = from;
        loop {
            let mut found: Vec<Raw> = Vec::new();
            let mut ends: Vec<u64> = Vec::new();
            let inode = real::inode(dir)?;
            found.try_reserve(BATCH).map_err(|_| Errno::ENOMEM)?;
            let next = {
                let _held = inode.content.lock();
                inode.ops().list(inode, position, &mut |entry| {
                    if found.len() == BATCH {
                        return false;
                    }
                    let (kind, number) = (entry.kind, entry.inode);
                    found.push(Raw { name: entry.name.into(), kind, number, whiteout: false, below: None, fs });
                    ends.push(entry.next);
                    true
                })?
            };
            for (raw, end) in found.iter().zip(&ends) {
                let covered = raw.kind == FileKind::CharDevice
                    && real::lookup(dir, &raw.name)?.is_some_and(|e| e.inode().is_some_and(|i| real::is_whiteout(i)));
                if covered {
                    position = *end;
                    continue;
                }
                let number = self.shown(raw.number, fs, raw.kind);
                if !emit(&DirEntry { name: &raw.name, inode: number, kind: raw.kind, next: *end }) {
                    return Ok(position);
                }
                position = *end;
            }
            if found.len() < BATCH {
                return Ok(next.max(position));
            }
        }
    }

    fn shown(&self, number: u64, fs: usize, kind: FileKind) -> u64 {
        self.fs.shown_number(number, fs, kind == FileKind::Directory).0
    }

    /// All names of all layers, each once.
    fn merge(&self) -> Result<Vec<Raw>> {
        let mut merged: Vec<Raw> = Vec::new();
        let mut index: HashMap<Box<[u8]>, usize> = HashMap::new();
        let layers = self.upper.get().into_iter().chain(self.merged_lowers());
        for (depth, dir) in layers.enumerate() {
            let found = all(dir, self.fs.fs_of(real::inode(dir)?))?;
            index.try_reserve(found.len()).map_err(|_| Errno::ENOMEM)?;
            merged.try_reserve(found.len()).map_err(|_| Errno::ENOMEM)?;
            for raw in found {
                match index.get(&raw.name) {
                    Some(&at) => {
                        let above = &mut merged[at];
                        let copied = self.upper.get().is_some() && depth > 0 && above.below.is_none();
                        if copied && !above.whiteout && above.kind == raw.kind && !raw.whiteout {
                            above.below = Some((raw.number, raw.fs));
                        }
                    }
                    None => {
                        index.insert(raw.name.clone(), merged.len());
                        merged.push(raw);
                    }
                }
            }
        }
        merged.retain(|raw| !raw.whiteout);
        for raw in &mut merged {
            raw.number = self.number_of(raw)?;
        }
        Ok(merged)
    }

    /// The inode number to show: that of what a file was copied from.
    fn number_of(&self, raw: &Raw) -> Result<u64> {
        let own = self.shown(raw.number, raw.fs, raw.kind);
        let (Some((number, fs)), Some(upper)) = (raw.below, self.upper.get()) else { return Ok(own) };
        let Some(entry) = real::lookup(upper, &raw.name)? else { return Ok(own) };
        let inode = real::inode(&entry)?;
        let same = if inode.is_dir() { !self.fs.is_opaque(inode) } else { self.is_copy(&raw.name, inode)? };
        Ok(if same { self.shown(number, fs, raw.kind) } else { own })
    }

    fn is_copy(&self, name: &[u8], upper: &Inode) -> Result<bool> {
        let Some(lower) = self.lower_file(name)? else { return Ok(false) };
        let lower = real::inode(&lower)?;
        Ok(lower.nlink() == 1 && self.fs.is_origin(upper, lower))
    }
}

impl Listing {
    /// Takes the names over: those that were there keep their position.
    fn update(&mut self, merged: Vec<Raw>) -> Result<()> {
        let mut positions: HashMap<Arc<[u8]>, u64> = HashMap::new();
        positions.try_reserve(merged.len()).map_err(|_| Errno::ENOMEM)?;
        let mut by_position = BTreeMap::new();
        let mut next = self.next.max(FIRST);
        for raw in merged {
            let name: Arc<[u8]> = raw.name.into();
            let position = self.positions.get(&name).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            by_position.insert(position, Entry { name: name.clone(), kind: raw.kind, number: raw.number });
            positions.insert(name, position);
        }
        *self = Listing { by_position, positions, next, read: true, stale: false };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &str) -> Raw {
        let (kind, name) = (FileKind::Regular, name.as_bytes().into());
        Raw { name, kind, number: 7, whiteout: false, below: None, fs: 0 }
    }

    #[test]
    fn names_keep_their_positions_while_others_come_and_go() {
        let mut listing = Listing::default();
        listing.update(alloc::vec![raw("a"), raw("b"), raw("c")]).expect("memory");
        listing.update(alloc::vec![raw("d"), raw("c"), raw("a")]).expect("memory");
        let shown: Vec<(u64, &[u8])> = listing.by_position.iter().map(|(at, e)| (*at, &*e.name)).collect();
        assert_eq!(shown, [(2, &b"a"[..]), (4, b"c"), (5, b"d")]);
    }
}
