//! `cargo xtask compat`: docs/compatibility.md from the system-call table.

use crate::workspace::root;
use crate::{Failure, Outcome};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// A line of `syscall_table! {}`: `(NR, "name", handler, Status, "sentence"),`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    number: u32,
    name: String,
    status: Status,
    note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Full,
    Partial,
    Error,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Full => "full",
            Status::Partial => "partial",
            Status::Error => "error",
        }
    }
}

fn table() -> PathBuf {
    root().join("syscall/src/table.rs")
}

fn document() -> PathBuf {
    root().join("docs/compatibility.md")
}

/// Writes the document, or with `--check` only compares it.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    if arguments.first().is_some_and(|word| word == "--check") {
        return check().map(|()| ExitCode::SUCCESS);
    }
    let text = generate()?.ok_or("there is no system-call table yet")?;
    fs::write(document(), text).map_err(|error| format!("{}: {error}", document().display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Fails if the document does not say what the table says.
pub(crate) fn check() -> Result<(), Failure> {
    match generate()? {
        Some(text) if fs::read_to_string(document()).unwrap_or_default() != text => {
            Err("docs/compatibility.md is stale: run `cargo xtask compat`".into())
        }
        _ => Ok(()),
    }
}

fn generate() -> Result<Option<String>, Failure> {
    let Ok(source) = fs::read_to_string(table()) else {
        return Ok(None);
    };
    let entries = parse(&source)?;
    Ok(Some(render(&entries)))
}

fn parse(source: &str) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    let block = source.split_once("syscall_table! {").map_or("", |(_, rest)| rest);
    for line in block.lines().skip(1) {
        let line = line.trim();
        if line.starts_with('}') {
            break;
        }
        if line.starts_with('(') {
            let entry = parse_line(line);
            entries.push(entry.ok_or_else(|| format!("table.rs: cannot read the entry {line}"))?);
        }
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Option<Entry> {
    let (number, rest) = line.strip_prefix('(')?.split_once(',')?;
    let (name, rest) = rest.trim().strip_prefix('"')?.split_once('"')?;
    let (_handler, rest) = rest.trim_start_matches(',').split_once(',')?;
    let (status, rest) = rest.split_once(',')?;
    let note = rest.trim().strip_prefix('"')?;
    let note = &note[..note.rfind('"')?];
    Some(Entry {
        number: number.trim().parse().ok()?,
        name: name.to_owned(),
        status: match status.trim() {
            "Full" => Status::Full,
            "Partial" => Status::Partial,
            "Error" => Status::Error,
            _ => return None,
        },
        note: note.replace("\\\"", "\""),
    })
}

fn render(entries: &[Entry]) -> String {
    let count = |status| entries.iter().filter(|entry| entry.status == status).count();
    let mut text = format!(
        "# System calls\n\n\
         Made by `cargo xtask compat` from `syscall/src/table.rs`; change that.\n\n\
         {} in full, {} in part, {} answered with an error. Any other number gets ENOSYS.\n\n\
         | nr | name | status | |\n|---:|---|---|---|\n",
        count(Status::Full),
        count(Status::Partial),
        count(Status::Error),
    );
    for entry in entries {
        let note = entry.note.replace('|', "\\|");
        let _ = writeln!(text, "| {} | {} | {} | {note} |", entry.number, entry.name, entry.status.word());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_shown() {
        let source = "x\nsyscall_table! {\n    // files\n    (0, \"read\", file::read, Full, \"\"),\n    \
                      (999, \"odd\", none, Error, \"Says \\\"no\\\", always | ever.\"),\n}\n(1, bad)\n";
        let entries = parse(source).expect("well formed");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].note, "Says \"no\", always | ever.");
        let text = render(&entries);
        assert!(text.contains("1 in full, 0 in part, 1 answered with an error"));
        assert!(text.contains("| 999 | odd | error | Says \"no\", always \\| ever. |"));
        assert!(parse("syscall_table! {\n(1, \"x\", y, Maybe, \"\"),\n}").is_err());
    }
}
