//! The programs that write while the machine is killed, what they promise, and how that is looked for.

use super::tool;
use crate::Failure;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A program whose acknowledged writes have to survive. Its script gets the journal's mode, the number of the round on this disk, how many rows were
/// acknowledged before, and `write` or `check`. It says `ack N` for what is promised, and `failed ...` where something is missing.
pub(super) struct Writer {
    pub(super) name: &'static str,
    pub(super) root: &'static str,
    pub(super) disk_mib: usize,
    pub(super) script: &'static str,
    /// The guest itself has to look for what was promised, when it has started again.
    pub(super) checks_itself: bool,
    check: fn(&Path, &Promised) -> Result<(), Failure>,
}

/// What has to be on the disk.
#[derive(Clone, Default)]
pub(super) struct Promised {
    /// By the number of the file, whether its renaming was acknowledged as well.
    files: BTreeMap<(usize, u32), bool>,
    /// Rows with the numbers from 1 on.
    pub(super) rows: u32,
}

/// A writer of files, whose fsyncs are acknowledged, and one that makes and removes all sorts of things; a SQLite with a rollback journal or a log
/// in turn; a PostgreSQL.
pub(super) const WRITERS: [Writer; 3] = [
    Writer {
        name: "files",
        root: "builtin",
        disk_mib: 48,
        script: include_str!("files.sh"),
        checks_itself: false,
        check: check_files,
    },
    Writer {
        name: "sqlite",
        root: "debian",
        disk_mib: 48,
        script: include_str!("sqlite.sh"),
        checks_itself: false,
        check: check_sqlite,
    },
    Writer {
        name: "postgresql",
        root: "debian,postgresql",
        disk_mib: 256,
        script: include_str!("postgresql.sh"),
        checks_itself: true,
        check: |_, _| Ok(()),
    },
];

impl Promised {
    /// How much it is.
    pub(super) fn len(&self) -> usize {
        self.files.len() + self.rows as usize
    }

    /// Takes in a line that a writer says.
    pub(super) fn note(&mut self, line: &str, writer: &Writer, round: usize) -> Result<(), Failure> {
        let mut words = line.split(' ');
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
        match (words.next(), number(words.next())) {
            (Some("ack"), Some(n)) if writer.name == "files" => drop(self.files.insert((round, n), false)),
            (Some("ack"), Some(n)) => self.rows = self.rows.max(n),
            (Some("moved"), Some(n)) => drop(self.files.insert((round, n), true)),
            // The last line may be cut off.
            (Some("failed"), _) => return Err(format!("the writer says: {line}")),
            _ => {}
        }
        Ok(())
    }
}

impl Writer {
    /// Looks for what was promised in the files of a copy of the disk, whose journal has been replayed.
    pub(super) fn check(&self, copy: &Path, folder: &Path, promised: &Promised) -> Result<(), Failure> {
        if self.checks_itself {
            return Ok(());
        }
        let out = folder.join("files");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out).map_err(|error| error.to_string())?;
        let dump = format!("rdump / {}", out.display());
        let (_, said) = tool("debugfs", &["-R", &dump, copy.to_str().unwrap_or_default()])?;
        (self.check)(&out, promised).map_err(|why| format!("{why}; debugfs: {said}"))
    }
}

fn check_files(out: &Path, promised: &Promised) -> Result<(), Failure> {
    for ((round, n), moved) in &promised.files {
        let read = |letter: char| fs::read_to_string(out.join(format!("{letter}{round}.{n}"))).ok();
        // Once the renaming was acknowledged, only the new name will do.
        let found = if *moved { read('g') } else { read('f').or_else(|| read('g')) };
        let expected = format!("round {round} file {n} {n} {n}\n");
        if found.as_deref() != Some(&expected) {
            return Err(format!("file {n} of round {round} was promised, and is {found:?}"));
        }
    }
    Ok(())
}

/// Opens the database with the host's SQLite, which rolls back or replays what it has to.
fn check_sqlite(out: &Path, promised: &Promised) -> Result<(), Failure> {
    const CHECK: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute('pragma integrity_check').fetchone()[0])
print(db.execute('select count(*) from t where id <= ?', (int(sys.argv[2]),)).fetchone()[0])
";
    if promised.rows == 0 {
        return Ok(());
    }
    let output =
        Command::new("python3").args(["-c", CHECK]).arg(out.join("db")).arg(promised.rows.to_string()).output();
    let output = output.map_err(|error| format!("cannot run python3: {error}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if said == format!("ok\n{}\n", promised.rows) {
        Ok(())
    } else {
        Err(format!("SQLite says {said:?}, and {} rows were promised", promised.rows))
    }
}
