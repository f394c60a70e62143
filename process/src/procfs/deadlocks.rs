//! `/proc/deadlocks` and `/proc/deadlocks.dot`: who waits for whom, and where that goes round in a circle.
//!
//! A thread waits for one thing at a time. Known exactly: the owner of a priority-inheritance futex, whose lock on a file is in the way, and who has the
//! other end of a pipe. Of other futexes the kernel knows only who waits. Where the word belongs to a mutex of the C library, that has written down the
//! owner two words further on: if the number there is one of the process's own threads, it is told as likely. So are those who have taken from a System V
//! semaphore and will give back when they end (SEM_UNDO), or else the process that changed it last. Who waits for a child waits for all of its children here.
//!
//! [`cycles`] is pure: threads are numbers, and edges say who waits for whom.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Result;
use fs::procfs::{file, register_root};
use fs::{Access, LockOwner};
use sched::Thread;

use crate::{Process, Task, tree};

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

fn futexes(edges: &mut Vec<Edge>) {
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
}

fn file_locks(edges: &mut Vec<Edge>) {
    for (thread, owner) in fs::lock::waits() {
        let Some(waiter) = task_of(&thread) else { continue };
        let kind = if matches!(owner, LockOwner::Table(_)) { "POSIX" } else { "flock or OFD" };
        edges.push(Edge { waiter, holders: holders(owner), what: format!("file lock ({kind})"), likely: false });
    }
}

/// A pipe at which somebody waits.
struct Pipe {
    inode: u64,
    readers: Vec<Arc<Thread>>,
    writers: Vec<Arc<Thread>>,
    can_read: Vec<Arc<Task>>,
    can_write: Vec<Arc<Task>>,
}

fn pipes(edges: &mut Vec<Edge>) {
    // Descriptor tables, each once, and the threads that share one.
    let mut tables: BTreeMap<u64, Vec<Arc<Task>>> = BTreeMap::new();
    for task in tree::processes().iter().flat_map(|process| process.threads()) {
        if let Some(files) = task.files_if_alive() {
            tables.entry(files.id()).or_default().push(task);
        }
    }
    let mut pipes: BTreeMap<usize, Pipe> = BTreeMap::new();
    for tasks in tables.values() {
        let Some(files) = tasks.first().and_then(|task| task.files_if_alive()) else { continue };
        for open in files.numbers().into_iter().filter_map(|fd| files.get_any(fd).ok()) {
            let Some(waits) = ipc::pipe::waits(&open) else { continue };
            if waits.readers.is_empty() && waits.writers.is_empty() {
                continue;
            }
            let pipe = pipes.entry(waits.pipe).or_insert_with(|| Pipe {
                inode: open.inode().number(),
                readers: waits.readers,
                writers: waits.writers,
                can_read: Vec::new(),
                can_write: Vec::new(),
            });
            for (access, users) in [(Access::READ, &mut pipe.can_read), (Access::WRITE, &mut pipe.can_write)] {
                let known = users.iter().any(|user| Arc::ptr_eq(user, &tasks[0]));
                if waits.access.contains(access) && !known {
                    users.extend(tasks.iter().cloned());
                }
            }
        }
    }
    for pipe in pipes.into_values() {
        let sides = [(pipe.readers, pipe.can_write, "data"), (pipe.writers, pipe.can_read, "room")];
        for (threads, holders, wanted) in sides {
            for waiter in threads.iter().filter_map(|thread| task_of(thread)) {
                let what = format!("{wanted} in pipe {}", pipe.inode);
                edges.push(Edge { waiter, holders: holders.clone(), what, likely: false });
            }
        }
    }
}

fn semaphores(edges: &mut Vec<Edge>) {
    for set in ipc::sysv::initial().semaphores.all() {
        for wait in set.object.waits() {
            let Some(waiter) = task_of(&wait.thread) else { continue };
            let tasks = || tree::processes().into_iter().flat_map(|process| process.threads());
            let owes = |task: &Arc<Task>| task.semaphore_undo_number().is_some_and(|list| wait.holders.contains(&list));
            let mut holders: Vec<_> = tasks().filter(owes).collect();
            if holders.is_empty() && wait.last != waiter.pid() {
                holders = tree::process(wait.last).map_or_else(Vec::new, |process| process.threads());
            }
            let what = format!("semaphore {} of set {}", wait.number, set.id);
            edges.push(Edge { waiter, likely: !holders.is_empty(), holders, what });
        }
    }
}

/// Who waits for a child waits for any of them, as far as is told here.
fn children(edges: &mut Vec<Edge>) {
    let processes = tree::processes();
    for process in &processes {
        let waiters = process.child_wait.threads();
        if waiters.is_empty() {
            continue;
        }
        let mine = |child: &&Arc<Process>| child.ppid() == process.pid();
        let holders: Vec<_> = processes.iter().filter(mine).flat_map(|child| child.threads()).collect();
        for waiter in waiters.iter().filter_map(|thread| task_of(thread)) {
            edges.push(Edge { waiter, holders: holders.clone(), what: String::from("a child"), likely: false });
        }
    }
}

/// All waits that are known.
fn edges() -> Vec<Edge> {
    let mut edges = Vec::new();
    for collect in [futexes, file_locks, pipes, semaphores, children] {
        collect(&mut edges);
    }
    edges.sort_by_key(|edge| edge.waiter.tid());
    edges
}

/// The circles among waits, the shortest first, of those that share a thread one; each from its lowest number on. Whoever has what is waited
/// for may end the wait, so there is a circle only where all of them are stuck, too.
fn cycles(waits: &BTreeMap<i32, Vec<i32>>) -> Vec<Vec<i32>> {
    let mut stuck: BTreeMap<i32, &[i32]> = waits.iter().map(|(tid, holders)| (*tid, &holders[..])).collect();
    loop {
        let waiting: Vec<i32> = stuck.keys().copied().collect();
        stuck.retain(|_, holders| !holders.is_empty() && holders.iter().all(|tid| waiting.binary_search(tid).is_ok()));
        if stuck.len() == waiting.len() {
            break;
        }
    }
    let mut all: Vec<Vec<i32>> = stuck.keys().filter_map(|&tid| shortest_circle(&stuck, tid)).collect();
    all.sort_by_key(|circle| circle.len());
    let mut chosen: Vec<Vec<i32>> = Vec::new();
    for circle in all {
        if chosen.iter().flatten().all(|tid| !circle.contains(tid)) {
            chosen.push(circle);
        }
    }
    chosen
}

/// The shortest way from `start` back to it.
fn shortest_circle(waits: &BTreeMap<i32, &[i32]>, start: i32) -> Option<Vec<i32>> {
    let mut came_from = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(tid) = queue.pop_front() {
        for &holder in *waits.get(&tid)? {
            if holder == start {
                let mut circle = Vec::from([tid]);
                while let Some(&before) = came_from.get(&circle[circle.len() - 1]) {
                    circle.push(before);
                }
                circle.reverse();
                let lowest = (0..circle.len()).min_by_key(|&at| circle[at])?;
                circle.rotate_left(lowest);
                return Some(circle);
            }
            if let Entry::Vacant(new) = came_from.entry(holder) {
                new.insert(tid);
                queue.push_back(holder);
            }
        }
    }
    None
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
        [first, ..] if edge.likely => format!(", likely held by process {}", first.pid()),
        [first, rest @ ..] if rest.iter().all(|task| task.pid() == first.pid()) => {
            format!(", held by process {}", first.pid())
        }
        [first, rest @ ..] => format!(", held by process {} and {} more threads", first.pid(), rest.len()),
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
        assert!(cycles(&waits(&[(1, &[2]), (2, &[1, 3]), (3, &[4])])).is_empty());
    }

    #[test]
    fn the_shortest_of_circles_that_overlap_is_told() {
        // 4 and 5 hold the locks, too, but only wait for their children.
        let all = waits(&[(4, &[11]), (5, &[12]), (11, &[5, 12]), (12, &[4, 11]), (20, &[21]), (21, &[20])]);
        assert_eq!(cycles(&all), [[11, 12], [20, 21]]);
    }
}
