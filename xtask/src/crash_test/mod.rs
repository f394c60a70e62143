//! `cargo xtask crash-test`: kills the machine while programs write to an ext4 disk, and looks what is left.
//!
//! In each round the guest mounts the disk as the last kill left it (so that our own recovery is used), a writer ([`writers`]) runs, the host reads
//! what it acknowledges, and kills the machine at a random moment. Then e2fsck replays the journal in a copy and must find nothing else
//! to mend, and what was acknowledged must be there. With `--drop-unflushed`, sectors that were written but not flushed arrive or not, at
//! random.

mod nbd;
mod writers;

use crate::{Failure, Outcome, build, setup};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use writers::{Promised, WRITERS, Writer};

const MODES: [&str; 3] = ["ordered", "journal", "writeback"];
/// After so many rounds a fresh disk is taken, before it fills up.
const ROUNDS_OF_A_DISK: usize = 12;
/// How long a guest may take to begin to write.
const PATIENCE: Duration = Duration::from_secs(120);

struct Options {
    kills: usize,
    modes: Vec<&'static str>,
    writers: Vec<&'static Writer>,
    drop_unflushed: bool,
    seed: u64,
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options =
        Options { kills: 36, modes: MODES.to_vec(), writers: WRITERS.iter().collect(), drop_unflushed: false, seed: 1 };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--kills" => options.kills = value()?.parse().map_err(|_| "--kills takes a number")?,
            "--seed" => options.seed = value()?.parse().map_err(|_| "--seed takes a number")?,
            "--drop-unflushed" => options.drop_unflushed = true,
            "--mode" => {
                let wanted = value()?;
                let known = MODES.iter().find(|mode| *mode == wanted);
                options.modes = vec![known.ok_or(format!("--mode takes one of {}", MODES.join(", ")))?];
            }
            "--writer" => {
                let wanted = value()?;
                let known = WRITERS.iter().find(|writer| writer.name == wanted);
                let names = WRITERS.map(|writer| writer.name).join(", ");
                options.writers = vec![known.ok_or(format!("--writer takes one of {names}"))?];
            }
            _ => return Err(format!("crash-test does not know {word}")),
        }
    }
    Ok(options)
}

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// `cargo xtask crash-test [--kills N] [--mode M] [--writer W] [--drop-unflushed] [--seed S]`
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    setup::ensure(setup::RUN)?;
    setup::ensure(setup::DISKS)?;
    setup::ensure(setup::CRASHES)?;
    build::all()?;
    let folder = std::env::temp_dir().join(format!("quintet-crash-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let result = all_rounds(&options, &folder);
    if result.is_ok() {
        let _ = fs::remove_dir_all(&folder);
    } else {
        eprintln!("crash-test: the image is in {}", folder.display());
    }
    result
}

/// A disk under test.
struct Trial<'a> {
    folder: &'a Path,
    writer: &'static Writer,
    mode: &'static str,
    image: Vec<u8>,
    promised: Promised,
    flushes: usize,
}

fn all_rounds(options: &Options, folder: &Path) -> Outcome {
    let mut random = Random(options.seed);
    let (mut acknowledged, mut flushes, mut survived) = (0, 0, 0);
    // Every writer comes to every mode: where one has gone round, the other moves on.
    let combinations = (0..).map(|number| {
        let writer = options.writers[number % options.writers.len()];
        (writer, options.modes[(number + number / options.modes.len()) % options.modes.len()])
    });
    for (writer, mode) in combinations {
        if survived == options.kills {
            break;
        }
        let mut trial = Trial::new(folder, writer, mode)?;
        for round in 0..ROUNDS_OF_A_DISK.min(options.kills - survived) {
            let kill = survived + 1;
            trial
                .kill(round, options.drop_unflushed, &mut random)
                .map_err(|why| format!("kill {kill}, {}, data={mode}: {why}", writer.name))?;
            survived = kill;
            println!(
                "kill {kill}: {}, data={mode}, {} writes acknowledged so far, {} flushes",
                writer.name,
                trial.promised.len(),
                trial.flushes
            );
        }
        trial.check_in_guest().map_err(|why| format!("after kill {survived}, {}, data={mode}: {why}", writer.name))?;
        acknowledged += trial.promised.len();
        flushes += trial.flushes;
    }
    println!("{survived} of {} kills survived; {acknowledged} writes acknowledged, {flushes} flushes", options.kills);
    Ok(ExitCode::SUCCESS)
}

impl<'a> Trial<'a> {
    fn new(folder: &'a Path, writer: &'static Writer, mode: &'static str) -> Result<Trial<'a>, Failure> {
        let image = make_disk(folder, writer.disk_mib)?;
        let mut trial = Trial { folder, writer, mode, image, promised: Promised::default(), flushes: 0 };
        // What takes long to set up is not what is to be killed.
        trial.check_in_guest()?;
        Ok(trial)
    }

    /// Has the writer write, kills the machine, and looks at what is left.
    fn kill(&mut self, round: usize, drop_unflushed: bool, random: &mut Random) -> Result<(), Failure> {
        let disk = Arc::new(Mutex::new(nbd::Disk::new(std::mem::take(&mut self.image))));
        let mut promised = self.promised.clone();
        write_and_kill(self, &disk, round, random, &mut promised)?;
        self.promised = promised;
        let disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Of what was not flushed all, none, or some is there.
        let share = random.below(5);
        self.image = if drop_unflushed { disk.after_power_loss(|| random.below(4) < share) } else { disk.after_kill() };
        self.flushes += disk.flushes;
        examine(self.folder, &self.image, self.writer, &self.promised)
    }

    /// Lets the writer look for what it promised, if only it can: its last words are its program's status.
    fn check_in_guest(&mut self) -> Result<(), Failure> {
        if !self.writer.checks_itself {
            return Ok(());
        }
        let disk = Arc::new(Mutex::new(nbd::Disk::new(std::mem::take(&mut self.image))));
        let (guest, server) = start(self, &disk, 0, "check", &self.promised)?;
        let output = guest.wait_with_output().map_err(|error| error.to_string())?;
        let _ = server.join();
        self.image = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner).after_kill();
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() { Ok(()) } else { Err(format!("the check ended with {}: {said}", output.status)) }
    }
}

fn tool(name: &str, arguments: &[&str]) -> Result<(i32, String), Failure> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("cannot run {name}, of e2fsprogs: {error}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status.code().unwrap_or(-1), said))
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn make_disk(folder: &Path, mib: usize) -> Result<Vec<u8>, Failure> {
    let path = folder.join("fresh.img");
    fs::write(&path, vec![0; mib << 20]).map_err(|error| error.to_string())?;
    let (status, said) = tool("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", path_text(&path)])?;
    if status != 0 {
        return Err(format!("mke2fs: {said}"));
    }
    fs::read(&path).map_err(|error| error.to_string())
}

/// Boots a guest on the disk, collects what its writer acknowledges, and kills it.
fn write_and_kill(
    trial: &Trial,
    disk: &Arc<Mutex<nbd::Disk>>,
    round: usize,
    random: &mut Random,
    promised: &mut Promised,
) -> Result<(), Failure> {
    let (mut guest, server) = start(trial, disk, round, "write", promised)?;
    let (lines, arriving) = mpsc::channel();
    let output = guest.stdout.take().ok_or("quintet has no output")?;
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut note = |line: &str| promised.note(line, trial.writer, round);
    let first = arriving.recv_timeout(PATIENCE).map_err(|_| "the guest does not come up".to_owned());
    let result = first.and_then(|line| {
        note(&line)?;
        let end = Instant::now() + Duration::from_millis(200 + random.below(3000));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match arriving.recv_timeout(left) {
                Ok(line) => note(&line)?,
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err("the guest ended by itself".into()),
            }
        }
        Ok(())
    });
    // QEMU dies with it.
    let _ = guest.kill();
    let _ = guest.wait();
    let _ = server.join();
    let _ = reader.join();
    // What had been said but not been read before the kill was promised as well.
    arriving.try_iter().try_for_each(|line| note(&line))?;
    result
}

/// Starts the writer's guest, and what serves the disk to it.
fn start(
    trial: &Trial,
    disk: &Arc<Mutex<nbd::Disk>>,
    round: usize,
    what: &str,
    promised: &Promised,
) -> Result<(Child, JoinHandle<()>), Failure> {
    let socket = trial.folder.join("nbd.sock");
    let _ = fs::remove_file(&socket);
    let server = nbd::serve(&socket, disk).map_err(|error| format!("cannot serve the disk: {error}"))?;
    let guest = Command::new(build::quintet())
        .args(["run", "--cpus", "2", "--root", trial.writer.root])
        .args(["--disk", &format!("nbd:unix:{}", socket.display()), "--", "sh", "-c", trial.writer.script, "writer"])
        .args([trial.mode, &round.to_string(), &promised.rows.to_string(), what])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    Ok((guest, server))
}

/// Looks at a copy: e2fsck, and what was promised.
fn examine(folder: &Path, image: &[u8], writer: &Writer, promised: &Promised) -> Result<(), Failure> {
    let (kept, copy): (PathBuf, PathBuf) = (folder.join("crashed.img"), folder.join("replayed.img"));
    for path in [&kept, &copy] {
        fs::write(path, image).map_err(|error| error.to_string())?;
    }
    // As at boot: the journal is replayed, and what was removed while it was open goes. Anything else would be too much.
    let (status, said) = tool("e2fsck", &["-p", path_text(&copy)])?;
    let usual = [": recovering journal", ": Clearing orphaned inode", ": Setting free ", ": clean, "];
    if status > 1 || !said.lines().all(|line| usual.iter().any(|usual| line.contains(usual))) {
        return Err(format!("e2fsck mends more than the journal: {said}"));
    }
    let (status, said) = tool("e2fsck", &["-fn", path_text(&copy)])?;
    if status != 0 {
        return Err(format!("e2fsck finds more to mend: {said}"));
    }
    writer.check(&copy, folder, promised)
}
