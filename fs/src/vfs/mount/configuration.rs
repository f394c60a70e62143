//! What fsopen(2) and fspick(2) give descriptors of: a file system that is being set up, option by option.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use mm::Sink;
use sched::Mutex;

use super::change::Changer;
use super::{Mount, MountFlags, MountNamespace, Path, SuperFlags};
use crate::open_file::Hold;
use crate::vfs::superblock;
use crate::{File, FileSystem, Io, OpenFile, OpenFlags};

/// How many messages are kept for read(2).
const MESSAGES_MAX: usize = 8;
/// The options together (as in the page that mount(2) takes).
const OPTIONS_MAX: usize = abi::PAGE_SIZE - 2;

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Takes options for a new one.
    Create,
    /// Made: can be mounted.
    Made,
    /// Takes options for one that is mounted.
    Reconfigure,
    /// Nothing can be done with it.
    Failed,
}

struct State {
    phase: Phase,
    source: Option<Vec<u8>>,
    options: Vec<u8>,
    flags: SuperFlags,
    /// What was made, or picked.
    mount: Option<Arc<Mount>>,
    messages: VecDeque<String>,
}

/// A file system that is being set up.
pub struct Configuration {
    kind: &'static dyn FileSystem,
    state: Mutex<State>,
}

/// What fsconfig(2) sets an option to.
pub enum Value<'a> {
    /// FSCONFIG_SET_FLAG: nothing.
    Flag,
    /// FSCONFIG_SET_STRING.
    Text(&'a [u8]),
}

/// The options that are about any file system: what they are called, and the flag they set or clear.
const FLAGS: [(&[u8], SuperFlags, bool); 9] = [
    (b"ro", SuperFlags::RDONLY, true),
    (b"rw", SuperFlags::RDONLY, false),
    (b"sync", SuperFlags::SYNCHRONOUS, true),
    (b"async", SuperFlags::SYNCHRONOUS, false),
    (b"dirsync", SuperFlags::DIRSYNC, true),
    (b"mand", SuperFlags::MANDLOCK, true),
    (b"nomand", SuperFlags::MANDLOCK, false),
    (b"lazytime", SuperFlags::LAZYTIME, true),
    (b"nolazytime", SuperFlags::LAZYTIME, false),
];

impl State {
    fn say(&mut self, text: String) {
        if self.messages.len() == MESSAGES_MAX {
            self.messages.pop_front();
        }
        self.messages.push_back(text);
    }

    /// Notes an error for read(2), and gives it.
    fn invalid(&mut self, text: String) -> Errno {
        self.say(format!("e {text}\n"));
        Errno::EINVAL
    }
}

fn open(kind: &'static dyn FileSystem, phase: Phase, flags: SuperFlags, mount: Option<Arc<Mount>>) -> Arc<OpenFile> {
    let state = State { phase, source: None, options: Vec::new(), flags, mount, messages: VecDeque::new() };
    let file = Configuration { kind, state: Mutex::new(state) };
    crate::vfs::pseudo::open_anonymous(Arc::new(file), "[fscontext]", OpenFlags::RDWR)
}

/// fsopen(2): a new file system of that kind. `ENODEV`.
pub fn create(kind: &[u8]) -> Result<Arc<OpenFile>> {
    Ok(open(superblock::find(kind)?, Phase::Create, SuperFlags::empty(), None))
}

/// fspick(2): the file system that is mounted there. `EINVAL` where `path` is no mount's root.
pub fn pick(path: &Path) -> Result<Arc<OpenFile>> {
    if !path.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let superblock = &path.mount.superblock;
    let kind = superblock::find(superblock.kind.as_bytes()).map_err(|_| Errno::EOPNOTSUPP)?;
    Ok(open(kind, Phase::Reconfigure, superblock.flags(), Some(path.mount.clone())))
}

impl Configuration {
    /// What the open file sets up. `EINVAL` where it is something else.
    pub fn of(open: &OpenFile) -> Result<&Configuration> {
        open.file().downcast().ok_or(Errno::EINVAL)
    }

    /// fsconfig(2) with an option. `EINVAL` for one that the file system doesn't know, `EBUSY` where it takes none (any more).
    pub fn set(&self, key: &[u8], value: &Value) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Create | Phase::Reconfigure) {
            return Err(Errno::EBUSY);
        }
        if let Some((_, flag, on)) = FLAGS.iter().find(|(name, _, _)| *name == key) {
            state.flags.set(*flag, *on);
            return Ok(());
        }
        if key == b"source" {
            let Value::Text(text) = value else { return Err(state.invalid("VFS: Non-string source".into())) };
            if state.source.is_some() {
                return Err(state.invalid("VFS: Multiple sources".into()));
            }
            state.source = Some(text.to_vec());
            return Ok(());
        }
        let mut option = key.to_vec();
        if let Value::Text(text) = value {
            option.push(b'=');
            option.extend_from_slice(text);
        }
        if let Err(error) = self.kind.check_options(&option) {
            let text = format!("{}: Unknown parameter '{}'", self.kind.name(), String::from_utf8_lossy(key));
            state.invalid(text);
            return Err(error);
        }
        if state.options.len() + option.len() + 1 > OPTIONS_MAX {
            return Err(state.invalid("VFS: Legacy: Cumulative options too large".into()));
        }
        if !state.options.is_empty() {
            state.options.push(b',');
        }
        state.options.extend_from_slice(&option);
        Ok(())
    }

    /// FSCONFIG_CMD_CREATE. `EBUSY` (done before), and what the file system says.
    pub fn make(&self, changer: &Changer) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Create {
            return Err(Errno::EBUSY);
        }
        changer.may_mount()?;
        if self.kind.needs_device() && state.source.is_none() {
            state.phase = Phase::Failed;
            return Err(state.invalid(format!("{}: No source specified", self.kind.name())));
        }
        let source = state.source.clone().unwrap_or_else(|| b"none".to_vec());
        let name = self.kind.name().as_bytes();
        let made = changer.instance(name, &source, (MountFlags::empty(), state.flags), &state.options);
        state.phase = if made.is_ok() { Phase::Made } else { Phase::Failed };
        state.mount = Some(made?);
        Ok(())
    }

    /// FSCONFIG_CMD_RECONFIGURE. `EBUSY` (it is not mounted), `EPERM`, and what the file system says.
    pub fn reconfigure(&self, changer: &Changer) -> Result<()> {
        let mut state = self.state.lock();
        let Some(mount) = state.mount.clone().filter(|_| state.phase == Phase::Reconfigure) else {
            return Err(Errno::EBUSY);
        };
        changer.may_mount()?;
        let done = mount.superblock.reconfigure(state.flags, &state.options);
        state.options.clear();
        if done.is_err() {
            state.phase = Phase::Failed;
        }
        done
    }

    /// fsmount(2): an open file that refers to a mount of what was made, attached nowhere. `EINVAL` (nothing was made), `EBUSY` (it was
    /// mounted before).
    pub fn mount(&self, changer: &Changer, flags: MountFlags) -> Result<Arc<OpenFile>> {
        let mut state = self.state.lock();
        let made = state.mount.clone().ok_or(Errno::EINVAL)?;
        if state.phase != Phase::Made {
            return Err(Errno::EBUSY);
        }
        state.phase = Phase::Reconfigure;
        drop(state);
        let mount = Mount::with(made.root.clone(), made.superblock.clone(), &made.source, flags, false);
        let (path, namespace) = changer.detached(mount);
        open_detached(path, namespace)
    }
}

impl File for Configuration {
    /// A message a call. `ENODATA` if there is none, `EMSGSIZE`.
    fn read(&self, sink: &mut Sink, _io: &mut Io) -> Result<usize> {
        let mut state = self.state.lock();
        let message = state.messages.pop_front().ok_or(Errno::ENODATA)?;
        if message.len() > sink.remaining() { Err(Errno::EMSGSIZE) } else { sink.put(message.as_bytes()) }
    }

    fn pollable(&self) -> bool {
        false
    }
}

/// What only names the root of a tree of mounts, which goes with it.
struct Detached {
    _namespace: Arc<MountNamespace>,
}

impl File for Detached {
    fn read(&self, _sink: &mut Sink, _io: &mut Io) -> Result<usize> {
        Err(Errno::EBADF)
    }

    fn write(&self, _source: &mut mm::Source, _io: &mut Io) -> Result<usize> {
        Err(Errno::EBADF)
    }
}

/// An open file, as of O_PATH, for a tree of mounts that is part of no process's namespace. `ENOENT`.
pub fn open_detached(path: Path, namespace: Arc<MountNamespace>) -> Result<Arc<OpenFile>> {
    let inode = path.inode()?.clone();
    Ok(OpenFile::new(Arc::new(Detached { _namespace: namespace }), path, inode, OpenFlags::PATH, Hold::None))
}
