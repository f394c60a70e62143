//! Starts the program, with three pipes or on a terminal of its own.

use crate::account::{self, Account};
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use protocol::{Start, WindowSize};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// The host's ends of the program's streams.
pub(crate) enum Streams {
    /// One pipe for each stream.
    Pipes { stdin: Rc<OwnedFd>, stdout: Rc<OwnedFd>, stderr: Rc<OwnedFd> },
    /// The master of the program's terminal.
    Terminal(Rc<OwnedFd>),
}

/// A started program: its process, which leads a session and a process group, and its streams.
pub(crate) struct Program {
    pub(crate) pid: Pid,
    pub(crate) streams: Streams,
}

/// Why the program did not start, with the status that `docker run` has for it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) what: String,
}

fn failure(status: u8, what: impl Into<String>) -> Failure {
    Failure { status, what: what.into() }
}

/// Starts what the host asked for.
pub(crate) fn spawn(start: &Start) -> Result<Program, Failure> {
    let account = account::find(&String::from_utf8_lossy(&start.user)).map_err(|what| failure(125, what))?;
    let env = environment(start, &account);
    let argv = arguments(start)?;
    enter(&start.cwd)?;
    become_user(&account)?;
    let program = spawn_as_user(&argv, &env, start.terminal);
    become_root()?;
    enter(b"/")?;
    program
}

fn spawn_as_user(argv: &[CString], env: &[CString], terminal: Option<WindowSize>) -> Result<Program, Failure> {
    let path = find_program(&argv[0], env)?;
    let result = match terminal {
        Some(size) => spawn_on_terminal(&path, argv, env, size),
        None => spawn_on_pipes(&path, argv, env),
    };
    result.map_err(|error| explain(&path, &error))
}

fn explain(path: &CStr, error: &io::Error) -> Failure {
    let shown = path.to_string_lossy();
    match error.raw_os_error() {
        Some(libc::ENOENT) if Path::new(OsStr::from_bytes(path.to_bytes())).exists() => {
            failure(127, format!("{shown} is there, but not the interpreter or dynamic loader that it names"))
        }
        Some(libc::ENOENT | libc::ENOTDIR) => failure(127, format!("{shown}: not found")),
        _ => failure(126, format!("{shown}: cannot execute: {error}")),
    }
}

fn environment(start: &Start, account: &Account) -> Vec<CString> {
    let hostname = String::from_utf8_lossy(&start.hostname);
    let defaults = [format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}"), format!("HOME={}", account.home)];
    let name = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().unwrap_or(entry).to_vec();
    let mut entries: Vec<Vec<u8>> = defaults.map(String::into_bytes).to_vec();
    for given in &start.env {
        entries.retain(|entry| name(entry) != name(given));
        entries.push(given.clone());
    }
    entries.into_iter().filter_map(|entry| CString::new(entry).ok()).collect()
}

fn arguments(start: &Start) -> Result<Vec<CString>, Failure> {
    if start.argv.is_empty() {
        let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists());
        let shell = shell.ok_or_else(|| failure(127, "the root has neither bash nor sh"))?;
        return Ok(CString::new(shell).into_iter().collect());
    }
    let arguments: Result<Vec<_>, _> = start.argv.iter().cloned().map(CString::new).collect();
    arguments.map_err(|_| failure(126, "an argument contains a NUL byte"))
}

/// Goes to a folder, making it if it is missing.
fn enter(folder: &[u8]) -> Result<(), Failure> {
    let path = Path::new(if folder.is_empty() { OsStr::new("/") } else { OsStr::from_bytes(folder) });
    if !path.exists() {
        // What remains missing makes the next step fail.
        let _ = std::fs::create_dir_all(path);
    }
    std::env::set_current_dir(path)
        .map_err(|error| failure(125, format!("working directory {}: {error}", path.display())))
}

/// Takes the user's rights while the saved ids stay root's; a program that is executed loses those.
fn become_user(account: &Account) -> Result<(), Failure> {
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setgroups(&groups)
        .and_then(|()| setresgid(gid, gid, Gid::from_raw(0)))
        .and_then(|()| setresuid(uid, uid, Uid::from_raw(0)))
        .map_err(|error| failure(125, format!("cannot become uid {uid}, gid {gid}: {error}")))
}

fn become_root() -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresuid(uid, uid, uid)
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setgroups(&[]))
        .map_err(|error| failure(125, format!("cannot become root again: {error}")))
}

fn find_program(name: &CStr, env: &[CString]) -> Result<CString, Failure> {
    let shown = name.to_string_lossy();
    if name.is_empty() {
        return Err(failure(127, "the command is empty"));
    }
    if name.to_bytes().contains(&b'/') {
        return Ok(name.to_owned());
    }
    let path = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH.as_bytes());
    let mut unusable = None;
    for folder in path.split(|byte| *byte == b':') {
        let folder = if folder.is_empty() { b".".as_slice() } else { folder };
        let candidate = Path::new(OsStr::from_bytes(folder)).join(OsStr::from_bytes(name.to_bytes()));
        if !candidate.is_file() {
            continue;
        }
        let Ok(text) = CString::new(candidate.as_os_str().as_bytes()) else {
            continue;
        };
        if rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK).is_ok() {
            return Ok(text);
        }
        unusable.get_or_insert(candidate);
    }
    match unusable {
        Some(candidate) => Err(failure(126, format!("{}: permission denied", candidate.display()))),
        None => Err(failure(127, format!("{shown}: not found in the guest's PATH"))),
    }
}

fn spawn_on_pipes(path: &CStr, argv: &[CString], env: &[CString]) -> io::Result<Program> {
    let (stdin, to_stdin) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for ours in [&to_stdin, &from_stdout, &from_stderr] {
        rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK)?;
    }
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, theirs) in [&stdin, &stdout, &stderr].into_iter().enumerate() {
        actions.add_dup2(theirs.as_raw_fd(), number as i32)?;
    }
    Ok(Program {
        pid: start_process(path, argv, env, &actions)?,
        streams: Streams::Pipes {
            stdin: Rc::new(to_stdin),
            stdout: Rc::new(from_stdout),
            stderr: Rc::new(from_stderr),
        },
    })
}

fn spawn_on_terminal(path: &CStr, argv: &[CString], env: &[CString], size: WindowSize) -> io::Result<Program> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    resize(&master, size)?;
    rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
    let terminal = ptsname(&master, Vec::new())?;
    let mut actions = PosixSpawnFileActions::init()?;
    // A session leader without a terminal gets the first one that it opens.
    actions.add_open(0, terminal.as_c_str(), OFlag::O_RDWR, Mode::empty())?;
    actions.add_dup2(0, 1)?;
    actions.add_dup2(0, 2)?;
    Ok(Program { pid: start_process(path, argv, env, &actions)?, streams: Streams::Terminal(Rc::new(master)) })
}

/// Tells a terminal, by its master, how large it is.
pub(crate) fn resize(master: &OwnedFd, size: WindowSize) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

fn start_process(path: &CStr, argv: &[CString], env: &[CString], actions: &PosixSpawnFileActions) -> io::Result<Pid> {
    let mut attributes = PosixSpawnAttr::init()?;
    // nix has no name for this one.
    let new_session = PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_SETSID as _);
    attributes
        .set_flags(new_session | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let pid = posix_spawn(path, actions, &attributes, argv, env)?;
    Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::other("posix_spawn returned pid 0"))
}
