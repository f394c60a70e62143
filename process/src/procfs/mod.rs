//! The processes' part of `/proc`: one directory per process and thread.
//!
//! [`ENTRIES`] says what is in such a directory; the files that tables of numbers go into are made in [`stat`], [`status`] and [`memory`].

mod deadlocks;
mod fd;
mod map_files;
mod mem;
mod memory;
mod mounts;
mod namespaces;
mod pagemap;
mod settings;
mod stat;
mod status;
mod sysctl;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use fs::procfs::{Listed, Node, PidRoot, ProcDir, ProcFile, link};
use fs::{FileKind, FsContext, LinkTarget, OpenFlags};

use namespaces::Namespaces;

use crate::{Process, Task, inspect, tree};

/// The process or thread that a directory is about.
#[derive(Clone)]
pub(crate) struct Subject {
    /// The thread; for a process its leader.
    task: Arc<Task>,
    /// Below `task/`: about the thread alone.
    thread: bool,
}

impl Subject {
    fn process(&self) -> &Arc<Process> {
        self.task.process()
    }

    /// `ESRCH` once it has been waited for.
    fn check_alive(&self) -> Result<()> {
        if self.process().is_reaped() { Err(Errno::ESRCH) } else { Ok(()) }
    }

    /// Where it is in the file system. `ENOENT` once it has exited.
    fn place(&self) -> Result<Arc<crate::FsState>> {
        self.task.fs_if_alive().ok_or(Errno::ENOENT)
    }

    /// Who owns the files: root's if others may not look inside.
    fn owner(&self) -> (u32, u32) {
        let cred = self.task.cred();
        if self.process().dumpable() == 1 { (cred.euid, cred.egid) } else { (0, 0) }
    }
}

type Read = fn(&Subject) -> Result<Vec<u8>>;
type Write = fn(&Subject, &[u8]) -> Result<()>;
type Target = fn(&Subject) -> Result<fs::Path>;

/// What an entry is.
enum Kind {
    /// A file that everybody may read.
    Text(Read),
    /// A file that only those who may inspect the process read.
    Private(Read),
    /// A file that can be written too.
    Setting(Read, Write),
    /// A file that can only be written.
    Order(Write),
    /// A link straight to a file, for those who may inspect the process.
    Link(Target),
    /// A directory.
    Dir(fn(&Subject) -> Node),
    /// A file of its own kind.
    File(fn(&Subject) -> Node),
}

impl Kind {
    fn file_kind(&self) -> FileKind {
        match self {
            Kind::Text(_) | Kind::Private(_) | Kind::Setting(..) | Kind::Order(_) => FileKind::Regular,
            Kind::Link(_) => FileKind::Symlink,
            Kind::Dir(_) => FileKind::Directory,
            Kind::File(_) => FileKind::Regular,
        }
    }
}

/// Name, what it is, and whether threads have it too.
const ENTRIES: &[(&str, Kind, bool)] = &[
    ("task", Kind::Dir(|subject| own(subject, Node::dir_of(Tasks(subject.clone())))), false),
    ("fd", Kind::Dir(|subject| own(subject, fd::links(subject)).mode(0o500)), true),
    ("fdinfo", Kind::Dir(|subject| own(subject, fd::infos(subject))), true),
    ("ns", Kind::Dir(|subject| own(subject, Node::dir_of(Namespaces(subject.clone())).mode(0o511))), true),
    ("map_files", Kind::Dir(|subject| own(subject, map_files::directory(subject))), false),
    ("net", Kind::Dir(|subject| own(subject, net::procfs::directory())), true),
    ("stat", Kind::Text(stat::stat), true),
    ("statm", Kind::Text(stat::statm), true),
    ("status", Kind::Text(status::status), true),
    ("schedstat", Kind::Text(stat::schedstat), true),
    ("cmdline", Kind::Text(memory::cmdline), true),
    ("mem", Kind::File(|subject| own(subject, mem::node(subject))), true),
    ("comm", Kind::Setting(settings::comm, settings::set_comm), true),
    ("environ", Kind::Private(memory::environ), true),
    ("auxv", Kind::Private(memory::auxv), true),
    ("maps", Kind::Private(memory::maps), true),
    ("smaps", Kind::Private(memory::smaps), true),
    ("smaps_rollup", Kind::Private(memory::smaps_rollup), true),
    ("pagemap", Kind::File(|subject| own(subject, pagemap::node(subject))), true),
    ("clear_refs", Kind::Order(pagemap::clear), true),
    ("limits", Kind::Text(settings::limits), true),
    ("io", Kind::Private(stat::io), true),
    ("wchan", Kind::Text(|_| Ok(b"0".to_vec())), true),
    ("syscall", Kind::Private(stat::syscall), true),
    ("personality", Kind::Private(settings::personality), true),
    ("children", Kind::Text(settings::children), true),
    ("cgroup", Kind::Text(|_| Ok(b"0::/\n".to_vec())), true),
    ("cpuset", Kind::Text(|_| Ok(b"/\n".to_vec())), true),
    ("oom_score", Kind::Text(settings::oom_score), true),
    ("oom_adj", Kind::Setting(settings::oom_adj, settings::set_oom_adj), true),
    ("oom_score_adj", Kind::Setting(settings::oom_score_adj, settings::set_oom_score_adj), true),
    ("loginuid", Kind::Setting(|subject| settings::login(subject, 0), settings::set_login), true),
    ("sessionid", Kind::Text(|subject| settings::login(subject, 1)), true),
    ("coredump_filter", Kind::Text(|_| Ok(b"00000033\n".to_vec())), false),
    ("timerslack_ns", Kind::Setting(settings::timer_slack, settings::set_timer_slack), false),
    ("uid_map", Kind::Text(|_| Ok(settings::identity_map())), true),
    ("gid_map", Kind::Text(|_| Ok(settings::identity_map())), true),
    ("setgroups", Kind::Text(|_| Ok(b"allow\n".to_vec())), true),
    (
        "mounts",
        Kind::Dir(|subject| own(subject, Node::file_of(mounts::Listing(subject.clone(), mounts::mounts)))),
        true,
    ),
    (
        "mountinfo",
        Kind::Dir(|subject| own(subject, Node::file_of(mounts::Listing(subject.clone(), mounts::mountinfo)))),
        true,
    ),
    (
        "mountstats",
        Kind::Dir(|subject| own(subject, Node::file_of(mounts::Listing(subject.clone(), mounts::mountstats)))),
        false,
    ),
    ("exe", Kind::Link(|subject| subject.process().exe().map(|exe| exe.path().clone()).ok_or(Errno::ENOENT)), true),
    ("cwd", Kind::Link(|subject| subject.place().map(|place| place.cwd())), true),
    ("root", Kind::Link(|subject| subject.place().map(|place| place.root())), true),
];

fn own(subject: &Subject, node: Node) -> Node {
    let (uid, gid) = subject.owner();
    node.owner(uid, gid)
}

/// A file whose text a function makes.
struct Text {
    subject: Subject,
    read: Read,
    write: Option<Write>,
    private: bool,
}

impl ProcFile for Text {
    fn read(&self) -> Result<Vec<u8>> {
        self.subject.check_alive()?;
        (self.read)(&self.subject)
    }

    fn write(&self, data: &[u8]) -> Result<()> {
        self.subject.check_alive()?;
        let write = self.write.ok_or(Errno::EIO)?;
        write(&self.subject, data)
    }

    fn may_open(&self, _flags: OpenFlags, _cx: &FsContext) -> Result<()> {
        if self.private { inspect::check_current(&self.subject.task) } else { Ok(()) }
    }
}

fn make(subject: &Subject, kind: &Kind) -> Node {
    let text = |read, write, private| Node::file_of(Text { subject: subject.clone(), read, write, private });
    let node = match *kind {
        Kind::Text(read) => text(read, None, false),
        Kind::Private(read) => text(read, None, true).mode(0o400),
        Kind::Setting(read, write) => text(read, Some(write), false).mode(0o644),
        Kind::Order(write) => text(|_| Err(Errno::EINVAL), Some(write), true).mode(0o200),
        Kind::Dir(make) | Kind::File(make) => return make(subject),
        Kind::Link(target) => {
            let subject = subject.clone();
            link(move |_| {
                inspect::check_current(&subject.task)?;
                target(&subject).map(LinkTarget::File)
            })
        }
    };
    own(subject, node)
}

/// The directory of a process or thread.
struct TaskDir(Subject);

impl TaskDir {
    fn entries(&self) -> impl Iterator<Item = &'static (&'static str, Kind, bool)> {
        let thread = self.0.thread;
        ENTRIES.iter().filter(move |(.., of_threads)| *of_threads || !thread)
    }
}

impl ProcDir for TaskDir {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let (_, kind, _) = self.entries().find(|(entry, ..)| entry.as_bytes() == name)?;
        Some(make(&self.0, kind))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut next = position;
        for (at, (name, kind, _)) in self.entries().enumerate().skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            let entry = Listed { name: name.as_bytes(), kind: kind.file_kind(), next: at as u64 + 1 };
            if !emit(&entry) {
                break;
            }
            next = entry.next;
        }
        next
    }
}

fn directory(task: Arc<Task>, thread: bool) -> Node {
    let subject = Subject { task, thread };
    let (uid, gid) = subject.owner();
    Node::dir_of(TaskDir(subject)).owner(uid, gid)
}

/// `task/`: the threads of a process.
struct Tasks(Subject);

impl ProcDir for Tasks {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let task = tree::task(number(name)?)?;
        Arc::ptr_eq(task.process(), self.0.process()).then(|| directory(task, true))
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
        let mut tids: Vec<i32> = self.0.process().threads().iter().map(|task| task.tid()).collect();
        if !tids.contains(&self.0.process().pid()) {
            tids.push(self.0.process().pid());
        }
        tids.sort_unstable();
        list_numbers(&tids, FileKind::Directory, position, emit)
    }
}

/// Lists ascending numbers as names: the position after an entry is its number and one.
fn list_numbers(numbers: &[i32], kind: FileKind, position: u64, emit: &mut dyn FnMut(&Listed) -> bool) -> u64 {
    let mut next = position;
    for &number in numbers.iter().filter(|&&number| number as u64 >= position) {
        let name = format!("{number}");
        if !emit(&Listed { name: name.as_bytes(), kind, next: number as u64 + 1 }) {
            break;
        }
        next = number as u64 + 1;
    }
    next
}

/// The number that a name stands for: decimal, without leading zeros.
fn number(name: &[u8]) -> Option<i32> {
    let canonical = name == b"0" || name.first() != Some(&b'0');
    let text = core::str::from_utf8(name).ok().filter(|text| canonical && text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

/// The numbers in `/proc`.
struct Pids;

impl PidRoot for Pids {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        match name {
            b"self" => Some(link(|_| {
                let task = crate::try_current().ok_or(Errno::ENOENT)?;
                Ok(LinkTarget::Path(format!("{}", task.pid()).into_bytes()))
            })),
            b"thread-self" => Some(link(|_| {
                let task = crate::try_current().ok_or(Errno::ENOENT)?;
                Ok(LinkTarget::Path(format!("{}/task/{}", task.pid(), task.tid()).into_bytes()))
            })),
            name => tree::task(number(name)?).map(|task| directory(task, false)),
        }
    }

    fn may_inspect(&self, name: &[u8]) -> bool {
        let task = number(name).and_then(tree::task);
        task.is_some_and(|task| inspect::check_current(&task).is_ok())
    }

    fn list(&self, from: u32) -> Vec<u32> {
        let all = tree::processes();
        all.iter().map(|process| process.pid() as u32).filter(|&pid| pid >= from).collect()
    }
}

/// Registers the processes with procfs. Once, at boot.
pub(crate) fn register() {
    fs::procfs::register_pids(Arc::new(Pids));
    sysctl::register();
    deadlocks::register();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_are_names_of_processes() {
        assert_eq!(number(b"17"), Some(17));
        assert_eq!(number(b"0"), Some(0));
        for name in [b"017".as_slice(), b"", b"+1", b"-1", b"1x", b"99999999999"] {
            assert_eq!(number(name), None);
        }
    }
}
