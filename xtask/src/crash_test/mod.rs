//! `cargo xtask crash-test`: kills the machine while programs write to an ext4 disk, and looks what is left.
//!
//! In each round the guest mounts the disk as the last kill left it (so that our own recovery is used), writers run, the host reads
//! what they acknowledge, and kills the machine at a random moment. Then e2fsck replays the journal in a copy and must find nothing else
//! to mend, and every file whose fsync was acknowledged must be there with its contents. With `--drop-unflushed`, sectors that were
//! written but not flushed arrive or not, at random.

mod nbd;

use crate::{Failure, Outcome, build, setup};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const MODES: [&str; 3] = ["ordered", "journal", "writeback"];
/// The disk: small, so that its journal is used round and round.
const DISK_MIB: usize = 48;
/// After so many rounds a fresh disk is taken, before it fills up.
const ROUNDS_OF_A_DISK: usize = 12;
/// How long a guest may take to begin to write.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the guest runs: one writer whose fsyncs are acknowledged, one that makes and removes all sorts of things.
const WORKLOAD: &str = r#"
mkdir -p /mnt && mount -t ext4 -o data=$1,commit=1 /dev/vda /mnt && cd /mnt || { echo "failed mount"; exit 1; }
churn() {
    i=0
    rm -rf churn
    while :; do
        i=$((i+1)); d=churn/$i
        mkdir -p $d; dd if=/dev/urandom of=$d/a bs=4k count=$((i%40)) 2>/dev/null
        for n in 1 2 3 4 5 6 7 8; do echo $n$i >$d/n$n; done
        truncate -s $((i*37%9000)) $d/a; mv $d/n1 $d/m1; ln $d/m1 $d/l; ln -s a $d/s; mv $d/n2 $d/n3; rm $d/n4
        [ $i -gt 4 ] && rm -rf churn/$((i-4))
    done
}
churn &
i=0
while :; do
    i=$((i+1))
    echo "round $2 file $i $i $i" | dd of=f$2.$i conv=fsync 2>/dev/null || { echo "failed write"; exit 1; }
    echo "ack $i"
    if [ $((i%3)) = 0 ]; then
        mv f$2.$i g$2.$i; echo $i | dd of=marker conv=fsync 2>/dev/null; echo "moved $i"
    fi
done
"#;

struct Options {
    kills: usize,
    modes: Vec<&'static str>,
    drop_unflushed: bool,
    seed: u64,
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { kills: 30, modes: MODES.to_vec(), drop_unflushed: false, seed: 1 };
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

/// What has to be on the disk: by the number of the file, whether its renaming was acknowledged as well.
type Promised = BTreeMap<(usize, u32), bool>;

/// `cargo xtask crash-test [--kills N] [--mode M] [--drop-unflushed] [--seed S]`
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    setup::ensure(setup::RUN)?;
    setup::ensure(setup::DISKS)?;
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

fn all_rounds(options: &Options, folder: &Path) -> Outcome {
    let mut random = Random(options.seed);
    let (mut acknowledged, mut flushes) = (0, 0);
    for (number, mode) in options.modes.iter().cycle().take(options.kills.div_ceil(ROUNDS_OF_A_DISK)).enumerate() {
        let mut image = make_disk(folder)?;
        let mut promised = Promised::new();
        let rounds = ROUNDS_OF_A_DISK.min(options.kills - number * ROUNDS_OF_A_DISK);
        for round in 0..rounds {
            let kill = number * ROUNDS_OF_A_DISK + round + 1;
            let disk = Arc::new(Mutex::new(nbd::Disk::new(image)));
            let before = promised.len();
            write_and_kill(folder, &disk, mode, round, &mut random, &mut promised)
                .map_err(|why| format!("kill {kill}, data={mode}: {why}"))?;
            let disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            image = match options.drop_unflushed {
                true => disk.after_power_loss(|| random.below(2) == 0),
                false => disk.after_kill(),
            };
            flushes += disk.flushes;
            acknowledged += promised.len() - before;
            println!(
                "kill {kill}: data={mode}, {} files acknowledged so far, {} flushes",
                promised.len(),
                disk.flushes
            );
            examine(folder, &image, &promised).map_err(|why| format!("kill {kill}, data={mode}: {why}"))?;
        }
    }
    println!(
        "{} of {} kills survived; {acknowledged} fsyncs acknowledged, {flushes} flushes",
        options.kills, options.kills
    );
    Ok(ExitCode::SUCCESS)
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

fn make_disk(folder: &Path) -> Result<Vec<u8>, Failure> {
    let path = folder.join("fresh.img");
    fs::write(&path, vec![0; DISK_MIB << 20]).map_err(|error| error.to_string())?;
    let (status, said) = tool("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", path_text(&path)])?;
    if status != 0 {
        return Err(format!("mke2fs: {said}"));
    }
    fs::read(&path).map_err(|error| error.to_string())
}

/// Boots a guest on the disk, collects what its writer acknowledges, and kills it.
fn write_and_kill(
    folder: &Path,
    disk: &Arc<Mutex<nbd::Disk>>,
    mode: &str,
    round: usize,
    random: &mut Random,
    promised: &mut Promised,
) -> Result<(), Failure> {
    let socket = folder.join("nbd.sock");
    let _ = fs::remove_file(&socket);
    let server = nbd::serve(&socket, disk).map_err(|error| format!("cannot serve the disk: {error}"))?;
    let mut guest = start(&socket, mode, round)?;
    let (lines, arriving) = mpsc::channel();
    let output = guest.stdout.take().ok_or("quintet has no output")?;
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let first = arriving.recv_timeout(PATIENCE).map_err(|_| "the guest does not come up".to_owned());
    let result = first.and_then(|line| {
        note(&line, round, promised)?;
        let end = Instant::now() + Duration::from_millis(200 + random.below(3000));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match arriving.recv_timeout(left) {
                Ok(line) => note(&line, round, promised)?,
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
    arriving.try_iter().try_for_each(|line| note(&line, round, promised))?;
    result
}

fn start(socket: &Path, mode: &str, round: usize) -> Result<Child, Failure> {
    Command::new(build::quintet())
        .args(["run", "--cpus", "2", "--disk", &format!("nbd:unix:{}", socket.display()), "--"])
        .args(["sh", "-c", WORKLOAD, "writer", mode, &round.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start quintet: {error}"))
}

fn note(line: &str, round: usize, promised: &mut Promised) -> Result<(), Failure> {
    let mut words = line.split(' ');
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
    match (words.next(), number(words.next())) {
        (Some("ack"), Some(n)) => drop(promised.insert((round, n), false)),
        (Some("moved"), Some(n)) => drop(promised.insert((round, n), true)),
        // The last line may be cut off.
        (Some("failed"), _) => return Err(format!("the writer says: {line}")),
        _ => {}
    }
    Ok(())
}

/// Looks at a copy: e2fsck, and the files that were promised.
fn examine(folder: &Path, image: &[u8], promised: &Promised) -> Result<(), Failure> {
    let (kept, copy): (PathBuf, PathBuf) = (folder.join("crashed.img"), folder.join("replayed.img"));
    for path in [&kept, &copy] {
        fs::write(path, image).map_err(|error| error.to_string())?;
    }
    let (status, said) = tool("e2fsck", &["-y", "-E", "journal_only", path_text(&copy)])?;
    if status > 1 {
        return Err(format!("the journal can't be replayed: {said}"));
    }
    let (status, said) = tool("e2fsck", &["-fn", path_text(&copy)])?;
    if status != 0 {
        return Err(format!("e2fsck finds more to mend than the journal: {said}"));
    }
    let out = folder.join("files");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).map_err(|error| error.to_string())?;
    let (_, said) = tool("debugfs", &["-R", &format!("rdump / {}", out.display()), path_text(&copy)])?;
    for ((round, n), moved) in promised {
        let read = |letter: char| fs::read_to_string(out.join(format!("{letter}{round}.{n}"))).ok();
        // Once the renaming was acknowledged, only the new name will do.
        let found = if *moved { read('g') } else { read('f').or_else(|| read('g')) };
        let expected = format!("round {round} file {n} {n} {n}\n");
        if found.as_deref() != Some(&expected) {
            return Err(format!("file {n} of round {round} was promised, and is {found:?}; debugfs: {said}"));
        }
    }
    Ok(())
}
