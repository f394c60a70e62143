//! `/sys/devices/system/cpu/cpuN/cache`: the caches of a processor.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use hal::cpu::{Cache, CacheKind};

use crate::FileKind;
use crate::procfs::{Listed, Node, ProcDir, dir, file};

/// The directory of processor `cpu`.
pub(super) fn directory(cpu: usize) -> Node {
    Node::dir_of(Caches { cpu, caches: hal::cpu::caches() })
}

struct Caches {
    cpu: usize,
    caches: Vec<Cache>,
}

fn name(index: usize) -> String {
    format!("index{index}")
}

/// The processors that share a cache of processor `cpu`, first and last.
fn sharers(cache: &Cache, cpu: usize, count: usize) -> (usize, usize) {
    let each = (cache.sharers as usize).max(1);
    let first = cpu / each * each;
    (first, (first + each - 1).min(count.saturating_sub(1)).max(cpu))
}

fn list((first, last): (usize, usize)) -> String {
    if first == last { format!("{first}") } else { format!("{first}-{last}") }
}

fn mask((first, last): (usize, usize)) -> String {
    format!("{:x}", (u64::MAX >> (63 - (last - first).min(63))).checked_shl(first as u32).unwrap_or(0))
}

fn files(cache: &Cache, cpu: usize) -> Node {
    let sharers = sharers(cache, cpu, hal::cpu::count());
    let kind = match cache.kind {
        CacheKind::Data => "Data",
        CacheKind::Instruction => "Instruction",
        CacheKind::Unified => "Unified",
    };
    let line = |value: String| file(move || Ok(format!("{value}\n").into_bytes()));
    dir(vec![
        ("coherency_line_size", line(format!("{}", cache.line))),
        ("id", line(format!("{}", sharers.0 / (cache.sharers as usize).max(1)))),
        ("level", line(format!("{}", cache.level))),
        ("number_of_sets", line(format!("{}", cache.sets))),
        ("physical_line_partition", line(format!("{}", cache.partitions))),
        ("shared_cpu_list", line(list(sharers))),
        ("shared_cpu_map", line(mask(sharers))),
        ("size", line(format!("{}K", cache.size() / 1024))),
        ("type", line(kind.into())),
        ("ways_of_associativity", line(format!("{}", cache.ways))),
    ])
}

impl ProcDir for Caches {
    fn lookup(&self, wanted: &[u8]) -> Option<Node> {
        let index = (0..self.caches.len()).find(|&index| name(index).as_bytes() == wanted)?;
        Some(files(&self.caches[index], self.cpu))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut next = position;
        for index in usize::try_from(position).unwrap_or(usize::MAX)..self.caches.len() {
            let name = name(index);
            if !emit(&Listed { name: name.as_bytes(), kind: FileKind::Directory, next: index as u64 + 1 }) {
                break;
            }
            next = index as u64 + 1;
        }
        next
    }

    fn is_fixed(&self, _name: &[u8]) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_share_caches_in_groups() {
        let cache =
            Cache { level: 3, kind: CacheKind::Unified, line: 64, partitions: 1, ways: 16, sets: 1024, sharers: 2 };
        assert_eq!(cache.size(), 1 << 20);
        let shared = [0, 3, 4].map(|cpu| sharers(&cache, cpu, 5));
        assert_eq!(shared, [(0, 1), (2, 3), (4, 4)]);
        assert_eq!(shared.map(list), ["0-1", "2-3", "4"]);
        assert_eq!(shared.map(mask), ["3", "c", "10"]);
        assert_eq!(mask((0, 63)), "ffffffffffffffff");
    }
}
