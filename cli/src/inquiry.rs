//! Asking about a running guest: `quintet deadlocks`.
//!
//! A session listens on a socket in the cache folder, named after its process. Who connects writes one byte, what is wanted, and reads the
//! answer up to its end.

use crate::cache::Cache;
use crate::failure::{Context, Failure};
use crate::session::Event;
use std::fs;
use std::io::{ErrorKind, Read, Write, stdout};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// Where the sockets are, in the cache.
const FOLDER: &str = "running";
/// The questions.
const TEXT: u8 = b't';
const GRAPH: u8 = b'g';
/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session's socket; its name goes with it.
pub struct Desk(PathBuf);

impl Drop for Desk {
    fn drop(&mut self) {
        // A name that stays is found to be dead by who connects.
        let _ = fs::remove_file(&self.0);
    }
}

fn folder() -> Result<PathBuf, Failure> {
    let folder = Cache::open()?.path(FOLDER);
    fs::create_dir_all(&folder).or_fail(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Listens for questions, which become events.
pub fn listen(events: &Sender<Event>) -> Result<Desk, Failure> {
    let path = folder()?.join(std::process::id().to_string());
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).or_fail(|| format!("cannot listen on {}", path.display()))?;
    let events = events.clone();
    thread::spawn(move || {
        for mut asker in listener.incoming().flatten() {
            let mut question = [0];
            let asked = asker.set_read_timeout(Some(PATIENCE)).and_then(|()| asker.read_exact(&mut question));
            if asked.is_ok() && events.send(Event::Inquiry(question[0] == GRAPH, asker)).is_err() {
                return;
            }
        }
    });
    Ok(Desk(path))
}

/// Gives the guest's answer to who asked. Who does not read must not hold up the session, so a thread of its own writes.
pub fn answer(mut asker: UnixStream, text: Vec<u8>) {
    thread::spawn(move || {
        // Who asked may have gone.
        let _ = asker.set_write_timeout(Some(PATIENCE)).and_then(|()| asker.write_all(&text));
    });
}

/// `quintet deadlocks`: prints who waits for whom in the guest that process `pid` runs, or in the only one there is.
pub fn deadlocks(pid: Option<u32>, graph: bool) -> Result<u8, Failure> {
    let mut guest = connect(pid)?;
    let question = [if graph { GRAPH } else { TEXT }];
    let mut text = Vec::new();
    guest
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| guest.write_all(&question))
        .and_then(|()| guest.read_to_end(&mut text))
        .or_fail(|| "the guest does not answer".into())?;
    match stdout().write_all(&text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).or_fail(|| "cannot write".into()),
        _ => Ok(0),
    }
}

fn connect(pid: Option<u32>) -> Result<UnixStream, Failure> {
    let folder = folder()?;
    if let Some(pid) = pid {
        return UnixStream::connect(folder.join(pid.to_string())).or_fail(|| format!("process {pid} runs no guest"));
    }
    let mut running = Vec::new();
    let entries = fs::read_dir(&folder).or_fail(|| format!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        match UnixStream::connect(entry.path()) {
            Ok(guest) => running.push((entry.file_name(), guest)),
            // Its session was killed.
            Err(_) => drop(fs::remove_file(entry.path())),
        }
    }
    let names: Vec<_> = running.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    match running.pop() {
        Some((_, guest)) if names.len() == 1 => Ok(guest),
        None => Err(Failure::new("no guest is running")),
        Some(_) => Err(Failure::new("several guests are running").advise(format!("Name one: {}", names.join(", ")))),
    }
}
