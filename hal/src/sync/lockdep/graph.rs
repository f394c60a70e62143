//! The order between classes that has been seen, and the search for what contradicts it. Pure bookkeeping, tested on the host.

use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::held::Taken;

/// More classes than the kernel has places where locks are made.
pub(super) const CLASSES: usize = 1024;
const WORDS: usize = CLASSES / 64;
const EDGES: usize = 16 << 10;
const LONGEST_CHAIN: usize = 16;

/// An interrupt handler waits for locks of the class.
pub(super) const IN_INTERRUPTS: u8 = 1;
/// Locks of the class are held with interrupts on.
pub(super) const INTERRUPTIBLE: u8 = 2;
/// Two of the class were taken, that with the higher address last.
pub(super) const RISING: u8 = 4;
/// Two of the class were taken, that with the lower address last.
pub(super) const FALLING: u8 = 8;

/// What locks have in common that are made at one place for one type.
#[derive(Clone, Copy)]
struct ClassInfo {
    site: &'static Location<'static>,
    holds: &'static str,
    rank: Option<u8>,
}

/// A lock of `to` was taken while one of `from` was held.
#[derive(Clone, Copy)]
struct Edge {
    from: u16,
    to: u16,
    held_at: &'static Location<'static>,
    taken_at: &'static Location<'static>,
}

/// A way from class to class along edges, by their numbers.
pub(super) type Chain = ArrayVec<u16, LONGEST_CHAIN>;

/// What is known, for all to look up without a lock; written under the graph's.
pub(super) struct Known {
    /// Bit `to` of row `from`.
    follows: [[AtomicU64; WORDS]; CLASSES],
    uses: [AtomicU8; CLASSES],
}

impl Known {
    pub(super) const fn new() -> Known {
        Known {
            follows: [const { [const { AtomicU64::new(0) }; WORDS] }; CLASSES],
            uses: [const { AtomicU8::new(0) }; CLASSES],
        }
    }

    pub(super) fn has(&self, from: u16, to: u16) -> bool {
        self.row(from, usize::from(to) / 64) & 1 << (to % 64) != 0
    }

    fn row(&self, from: u16, word: usize) -> u64 {
        self.follows[usize::from(from)][word].load(Ordering::Relaxed)
    }

    pub(super) fn uses(&self, class: u16) -> u8 {
        self.uses[usize::from(class)].load(Ordering::Relaxed)
    }
}

/// Classes and the order in which they are taken.
pub(super) struct Graph {
    known: &'static Known,
    classes: ArrayVec<ClassInfo, CLASSES>,
    edges: ArrayVec<Edge, EDGES>,
    /// In a search: what was found, and from where.
    queue: [u16; CLASSES],
    came_from: [u16; CLASSES],
}

impl Graph {
    pub(super) const fn new(known: &'static Known) -> Graph {
        Graph {
            known,
            classes: ArrayVec::new_const(),
            edges: ArrayVec::new_const(),
            queue: [0; CLASSES],
            came_from: [0; CLASSES],
        }
    }

    /// The number of the class of locks for a `holds` that are made at `site`, with that rank if they have any.
    pub(super) fn class(&mut self, site: &'static Location<'static>, holds: &'static str, rank: Option<u8>) -> u16 {
        let is_it = |class: &ClassInfo| class.site == site && class.holds == holds && class.rank == rank;
        let known = self.classes.iter().position(is_it);
        let number = known.unwrap_or_else(|| {
            self.classes.push(ClassInfo { site, holds, rank });
            self.classes.len() - 1
        });
        number as u16
    }

    /// Notes uses of a class.
    pub(super) fn note(&self, class: u16, uses: u8) {
        self.known.uses[usize::from(class)].fetch_or(uses, Ordering::Relaxed);
    }

    /// Learns that `taken` is taken while `held` is held, unless there is a chain in the opposite direction.
    pub(super) fn learn(&mut self, held: &Taken, taken: &Taken) -> Result<(), Chain> {
        let (from, to) = (held.class, taken.class);
        if self.known.has(from, to) {
            return Ok(());
        }
        if let Some(chain) = self.find(to, |_, class| class == from) {
            return Err(chain);
        }
        self.edges.push(Edge { from, to, held_at: held.at, taken_at: taken.at });
        self.known.follows[usize::from(from)][usize::from(to) / 64].fetch_or(1 << (to % 64), Ordering::Relaxed);
        Ok(())
    }

    /// A chain from a class that interrupt handlers wait for to one that is held with interrupts on, by way of `class`.
    pub(super) fn interrupt_chain(&mut self, class: u16) -> Option<Chain> {
        let after = self.find(class, |known, class| known.uses(class) & INTERRUPTIBLE != 0)?;
        let mut chain = (0..self.classes.len() as u16)
            .filter(|&source| self.known.uses(source) & IN_INTERRUPTS != 0)
            .find_map(|source| self.find(source, |_, found| found == class))?;
        let _ = chain.try_extend_from_slice(&after[1..]);
        Some(chain)
    }

    /// The shortest chain from `start` to a class that is `wanted`, which may be `start` itself.
    fn find(&mut self, start: u16, wanted: impl Fn(&Known, u16) -> bool) -> Option<Chain> {
        let mut seen = [0u64; WORDS];
        seen[usize::from(start) / 64] |= 1 << (start % 64);
        self.queue[0] = start;
        let (mut next, mut len) = (0, 1);
        while next < len {
            let class = self.queue[next];
            next += 1;
            if wanted(self.known, class) {
                return Some(self.chain(start, class));
            }
            for (word, seen) in seen.iter_mut().enumerate() {
                let mut new = self.known.row(class, word) & !*seen;
                *seen |= new;
                while new != 0 {
                    let found = word as u16 * 64 + new.trailing_zeros() as u16;
                    new &= new - 1;
                    self.came_from[usize::from(found)] = class;
                    self.queue[len] = found;
                    len += 1;
                }
            }
        }
        None
    }

    fn chain(&self, start: u16, end: u16) -> Chain {
        let mut chain = Chain::new();
        let mut class = end;
        while class != start && chain.try_push(class).is_ok() {
            class = self.came_from[usize::from(class)];
        }
        let _ = chain.try_push(start);
        chain.reverse();
        chain
    }

    /// The name of a class.
    pub(super) fn name(&self, class: u16) -> impl fmt::Display {
        let info = self.classes[usize::from(class)];
        fmt::from_fn(move |f| match info.rank {
            Some(rank) if rank > 0 => write!(f, "`{}` of {}, rank {rank},", info.holds, info.site),
            _ => write!(f, "`{}` of {}", info.holds, info.site),
        })
    }

    /// A chain with where its locks were taken.
    pub(super) fn describe<'a>(&'a self, chain: &'a Chain) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            if let [only] = chain[..] {
                return write!(f, "{}", self.name(only));
            }
            for (nth, pair) in chain.windows(2).enumerate() {
                let Some(edge) = self.edges.iter().find(|edge| edge.from == pair[0] && edge.to == pair[1]) else {
                    continue;
                };
                let then = if nth == 0 { "" } else { ", then " };
                write!(f, "{then}{} (taken at {})", self.name(edge.from), edge.held_at)?;
                write!(f, " before {} (at {})", self.name(edge.to), edge.taken_at)?;
            }
            Ok(())
        })
    }
}
