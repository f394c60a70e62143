//! A radix tree from page indices to values: 64 ways a level, as deep as the largest index needs.

use alloc::boxed::Box;

const BITS: u32 = 6;
const WAYS: usize = 1 << BITS;

enum Slot<T> {
    Empty,
    Node(Box<Node<T>>),
    Leaf(T),
}

struct Node<T> {
    slots: [Slot<T>; WAYS],
    used: usize,
}

impl<T> Node<T> {
    fn new() -> Box<Node<T>> {
        Box::new(Node { slots: [const { Slot::Empty }; WAYS], used: 0 })
    }
}

/// A sparse array.
pub(crate) struct RadixTree<T> {
    root: Option<Box<Node<T>>>,
    /// Levels; the root covers indices of `BITS * height` bits.
    height: u32,
    len: usize,
}

fn way(index: u64, level: u32) -> usize {
    (index >> (BITS * level)) as usize & (WAYS - 1)
}

impl<T> RadixTree<T> {
    pub(crate) const fn new() -> RadixTree<T> {
        RadixTree { root: None, height: 0, len: 0 }
    }

    /// How many values it holds.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn covers(&self, index: u64) -> bool {
        BITS * self.height >= u64::BITS || index >> (BITS * self.height) == 0
    }

    pub(crate) fn get(&self, index: u64) -> Option<&T> {
        if !self.covers(index) {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut level = self.height - 1;
        loop {
            match &node.slots[way(index, level)] {
                Slot::Empty => return None,
                Slot::Leaf(value) => return Some(value),
                Slot::Node(next) => node = next,
            }
            level = level.checked_sub(1)?;
        }
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut T> {
        if !self.covers(index) {
            return None;
        }
        let mut node = self.root.as_deref_mut()?;
        let mut level = self.height - 1;
        loop {
            match &mut node.slots[way(index, level)] {
                Slot::Empty => return None,
                Slot::Leaf(value) => return Some(value),
                Slot::Node(next) => node = next,
            }
            level = level.checked_sub(1)?;
        }
    }

    /// Sets the value at `index`; gives the one that was there.
    pub(crate) fn insert(&mut self, index: u64, value: T) -> Option<T> {
        while self.root.is_none() || !self.covers(index) {
            let mut top = Node::new();
            if let Some(old) = self.root.take() {
                top.slots[0] = Slot::Node(old);
                top.used = 1;
            }
            self.root = Some(top);
            self.height += 1;
        }
        let mut node = self.root.as_deref_mut()?;
        for level in (1..self.height).rev() {
            let slot = &mut node.slots[way(index, level)];
            if matches!(slot, Slot::Empty) {
                *slot = Slot::Node(Node::new());
                node.used += 1;
            }
            let Slot::Node(next) = &mut node.slots[way(index, level)] else {
                return None;
            };
            node = next;
        }
        match core::mem::replace(&mut node.slots[way(index, 0)], Slot::Leaf(value)) {
            Slot::Leaf(old) => Some(old),
            _ => {
                node.used += 1;
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, index: u64) -> Option<T> {
        if !self.covers(index) {
            return None;
        }
        let removed = remove_below(self.root.as_deref_mut()?, index, self.height - 1)?;
        self.len -= 1;
        if self.len == 0 {
            self.root = None;
            self.height = 0;
        }
        Some(removed)
    }

    /// The lowest index from `from` on that holds a value.
    pub(crate) fn next(&self, from: u64) -> Option<u64> {
        if !self.covers(from) {
            return None;
        }
        next_below(self.root.as_deref()?, 0, from, self.height - 1)
    }
}

fn remove_below<T>(node: &mut Node<T>, index: u64, level: u32) -> Option<T> {
    let slot = &mut node.slots[way(index, level)];
    if let Slot::Node(next) = slot {
        let removed = remove_below(next, index, level.checked_sub(1)?)?;
        if next.used == 0 {
            *slot = Slot::Empty;
            node.used -= 1;
        }
        return Some(removed);
    }
    match core::mem::replace(slot, Slot::Empty) {
        Slot::Leaf(value) => {
            node.used -= 1;
            Some(value)
        }
        _ => None,
    }
}

fn next_below<T>(node: &Node<T>, base: u64, from: u64, level: u32) -> Option<u64> {
    let span = 1u64 << (BITS * level);
    let first = if from > base { ((from - base) / span) as usize } else { 0 };
    for i in first..WAYS {
        let start = base + i as u64 * span;
        match &node.slots[i] {
            Slot::Empty => {}
            Slot::Leaf(_) => return Some(start),
            Slot::Node(next) => {
                if let found @ Some(_) = next_below(next, start, from, level - 1) {
                    return found;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_like_an_ordered_map() {
        let mut tree = RadixTree::new();
        let mut model = BTreeMap::new();
        let mut seed = 42u64;
        for step in 0..20_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let shift = [4, 12, 24, 40][(seed >> 40) as usize % 4];
            let index = (seed >> 16) & ((1 << shift) - 1);
            match seed >> 60 & 3 {
                0 => assert_eq!(tree.remove(index), model.remove(&index)),
                1 => assert_eq!(tree.next(index), model.range(index..).next().map(|e| *e.0)),
                _ => assert_eq!(tree.insert(index, step), model.insert(index, step)),
            }
            assert_eq!(tree.get(index), model.get(&index));
            assert_eq!(tree.get_mut(index), model.get_mut(&index));
            assert_eq!(tree.len(), model.len());
        }
        while let Some(index) = tree.next(0) {
            assert_eq!(tree.remove(index), model.remove(&index));
        }
        assert!(model.is_empty() && tree.get(0).is_none());
    }
}
