//! `/proc/deadlocks` and `/proc/deadlocks.dot`: who waits for whom, and where that goes round in a circle.
//!
//! A thread waits for one thing at a time. Known exactly: the owner of a priority-inheritance futex, and whose lock on a file is in the way. Of other
//! futexes the kernel knows only who waits. Where the word belongs to a mutex of the C library, that has written down the owner two words further on: if
//! the number there is one of the process's own threads, it is told as likely.
//!
//! [`cycles`] is pure: threads are numbers, and edges say who waits for whom.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Result;
use fs::LockOwner;
use fs::procfs::{file, register_root};
use sched::Thread;

use crate::{Task, tree};

/// One thread waits for another.
struct Edge {
    waiter: Arc<Task>,
    /// Any of these could end the wait: the threads of the process that has the lock.
    holders: Vec<Arc<Task>>,
    /// For what.
    what: String,
    likely: bool,
}

/// The offset of the owner in a mutex of the C library, from its word (`struct __pthread_mutex_s`).
const OWNER_AT: usize = 8;

fn task_of(thread: &Thread) -> Option<Arc<Task>> {
    thread.ext::<Arc<Task>>().cloned()
}

/// The threads of processes with that descriptor table, or that have that open file.
fn holders(owner: LockOwner) -> Vec<Arc<Task>> {
    let mut found = Vec::new();
    for process in tree::processes() {
        for task in process.threads() {
            let has = task.files_if_alive().is_some_and(|files| match owner {
                LockOwner::Table(id) => files.id() == id,
                LockOwner::OpenFile(id) => files.numbers().into_iter().any(|fd| {
                    let open = files.get_any(fd);
                    open.is_ok_and(|open| open.id() == id)
                }),
            });
            if has {
                found.push(task);
            }
        }
    }
    found
}

/// The thread that a mutex of the C library names as its owner.
fn likely_owner(waiter: &Task, word: usize) -> Option<Arc<Task>> {
    let space = waiter.process().address_space()?;
    let mut raw = [0; 4];
    if space.read_remote(word.checked_add(OWNER_AT)?, &mut raw) < raw.len() {
        return None;
    }
    let tid = i32::from_ne_bytes(raw);
    let owner = tree::task(tid).filter(|_| tid > 0)?;
    (Arc::ptr_eq(owner.process(), waiter.process()) && owner.tid() != waiter.tid()).then_some(owner)
}

/// All waits that are known.
fn edges() -> Vec<Edge> {
    let mut edges = Vec::new();
    for (thread, owner, word) in ipc::futex::pi::waits() {
        let Some(waiter) = task_of(&thread) else { continue };
        let holders = tree::task(owner as i32).into_iter().collect();
        edges.push(Edge { waiter, holders, what: format!("futex {word:#x} (PI)"), likely: false });
    }
    for (thread, word) in ipc::futex::waits() {
        let Some(waiter) = task_of(&thread) else { continue };
        let holders: Vec<_> = likely_owner(&waiter, word).into_iter().collect();
        edges.push(Edge { waiter, likely: !holders.is_empty(), holders, what: format!("futex {word:#x}") });
    }
    for (thread, owner) in fs::lock::waits() {
        let Some(waiter) = task_of(&thread) else { continue };
        let kind = if matches!(owner, LockOwner::Table(_)) { "POSIX" } else { "flock or OFD" };
        edges.push(Edge { waiter, holders: holders(owner), what: format!("file lock ({kind})"), likely: false });
    }
    edges.sort_by_key(|edge| edge.waiter.tid());
    edges
}

/// The circles among waits: each once, from its lowest number on. A wait for several threads is in a circle by any of them that waits too;
/// if one of them does not wait, it may end the wait, and there is no circle.
fn cycles(waits: &BTreeMap<i32, Vec<i32>>) -> Vec<Vec<i32>> {
    let blocked = |tid: i32| waits.get(&tid).is_some_and(|holders| !holders.is_empty());
    let next = |tid: i32| {
        let holders = waits.get(&tid)?;
        if holders.iter().all(|&holder| blocked(holder)) { holders.first().copied() } else { None }
    };
    let mut found: Vec<Vec<i32>> = Vec::new();
    for &start in waits.keys() {
        let (mut path, mut at) = (Vec::new(), Some(start));
        while let Some(tid) = at.filter(|tid| !path.contains(tid)) {
            path.push(tid);
            at = next(tid);
        }
        // Only the walk that comes back to where it began, and began at the lowest number, counts.
        if at == Some(start) && path.iter().min() == Some(&start) {
            found.push(path);
        }
    }
    found
}

fn graph(edges: &[Edge]) -> BTreeMap<i32, Vec<i32>> {
    edges.iter().map(|edge| (edge.waiter.tid(), edge.holders.iter().map(|task| task.tid()).collect())).collect()
}

fn name(task: &Task) -> String {
    let comm = task.comm_bytes();
    format!("thread {} ({}) of process {}", task.tid(), String::from_utf8_lossy(&comm), task.pid())
}

/// What is waited for, by address or kind, with who has it.
fn line(edge: &Edge) -> String {
    let held = match edge.holders.as_slice() {
        [] => String::from(", holder unknown"),
        [one] if edge.likely => format!(", likely held by {}", name(one)),
        [one] => format!(", held by {}", name(one)),
        [first, ..] => format!(", held by process {}", first.pid()),
    };
    format!("{} waits for {}{held}\n", name(&edge.waiter), edge.what)
}

fn text() -> Result<Vec<u8>> {
    let edges = edges();
    let mut out = String::new();
    for circle in cycles(&graph(&edges)) {
        out.push_str("deadlock:");
        for tid in circle.iter().chain(circle.first()) {
            out.push_str(&format!(" {tid}"));
        }
        out.push('\n');
        let member = |edge: &&Edge| circle.contains(&edge.waiter.tid());
        edges.iter().filter(member).for_each(|edge| out.push_str(&format!("  {}", line(edge))));
    }
    edges.iter().for_each(|edge| out.push_str(&line(edge)));
    Ok(out.into_bytes())
}

/// The same for Graphviz; circles are red.
fn dot() -> Result<Vec<u8>> {
    let edges = edges();
    let circles = cycles(&graph(&edges));
    let is_stuck = |tid: i32| circles.iter().any(|circle| circle.contains(&tid));
    let mut out = String::from("digraph waits {\n");
    for edge in &edges {
        let comm = edge.waiter.comm_bytes();
        let label: String = String::from_utf8_lossy(&comm)
            .chars()
            .filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'))
            .collect();
        let tid = edge.waiter.tid();
        let color = if is_stuck(tid) { ", color=red" } else { "" };
        out.push_str(&format!("  {tid} [label=\"{tid} {label}\"{color}];\n"));
        for holder in &edge.holders {
            let style = if edge.likely { ", style=dashed" } else { "" };
            out.push_str(&format!("  {tid} -> {} [label=\"{}\"{style}];\n", holder.tid(), edge.what));
        }
    }
    out.push_str("}\n");
    Ok(out.into_bytes())
}

/// Puts them into the root of `/proc`, for root alone: they tell of everybody. Once, at boot.
pub(super) fn register() {
    register_root("deadlocks", file(text).mode(0o400));
    register_root("deadlocks.dot", file(dot).mode(0o400));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pairs: &[(i32, &[i32])]) -> BTreeMap<i32, Vec<i32>> {
        pairs.iter().map(|(waiter, holders)| (*waiter, holders.to_vec())).collect()
    }

    #[test]
    fn circles_are_found_once_and_chains_into_them_are_not_circles() {
        assert_eq!(cycles(&waits(&[(1, &[2]), (2, &[3]), (3, &[1]), (4, &[1])])), [[1, 2, 3]]);
        assert!(cycles(&waits(&[(1, &[2]), (2, &[3])])).is_empty());
        assert!(cycles(&waits(&[(1, &[])])).is_empty());
    }

    #[test]
    fn a_thread_that_does_not_wait_may_end_the_wait() {
        assert!(cycles(&waits(&[(1, &[2, 5]), (2, &[1])])).is_empty());
        assert_eq!(cycles(&waits(&[(1, &[2, 5]), (2, &[1]), (5, &[1])])), [[1, 2]]);
    }
}
