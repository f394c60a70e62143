//! The first line of a script: `#!interpreter argument`.

use base::{Errno, Result};

/// How much of a file is looked at, as on Linux.
pub const LINE_MAX: usize = 256;

/// An interpreter and its one optional argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Script<'a> {
    /// Its path.
    pub interpreter: &'a [u8],
    /// Everything after it, blanks at both ends removed.
    pub argument: Option<&'a [u8]>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    bytes
}

fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Reads the line from a file's first bytes (at most [`LINE_MAX`]); `None` if the file is no script. `ENOEXEC` (no interpreter, or its
/// path is cut off).
pub fn parse(start: &[u8]) -> Option<Result<Script<'_>>> {
    let start = &start[..start.len().min(LINE_MAX)];
    let rest = start.strip_prefix(b"#!")?;
    let end = rest.iter().position(|&b| b == b'\n' || b == 0);
    let whole = end.is_some() || start.len() < LINE_MAX;
    // A blank after the interpreter shows that its path is whole, although the line may not be.
    let line = trim_start(&rest[..end.unwrap_or(rest.len())]);
    let split = line.iter().position(|&b| is_blank(b));
    let interpreter = &line[..split.unwrap_or(line.len())];
    if interpreter.is_empty() || split.is_none() && !whole {
        return Some(Err(Errno::ENOEXEC));
    }
    let argument = split.map(|at| trim(&line[at..])).filter(|argument| !argument.is_empty());
    Some(Ok(Script { interpreter, argument }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        parse(line.as_bytes()).map(|script| script.unwrap()).map(|s| (text(s.interpreter), s.argument.map(text)))
    }

    #[test]
    fn interpreter_and_argument_are_found() {
        assert_eq!(of("echo hi"), None);
        assert_eq!(of("#!/bin/sh\necho"), Some(("/bin/sh".into(), None)));
        assert_eq!(of("#! /bin/sh  -e -x \t\nrest"), Some(("/bin/sh".into(), Some("-e -x".into()))));
        assert_eq!(of("#!/usr/bin/env python3"), Some(("/usr/bin/env".into(), Some("python3".into()))));
    }

    #[test]
    fn lines_without_interpreter_or_cut_off_are_refused() {
        assert_eq!(parse(b"#!\n"), Some(Err(Errno::ENOEXEC)));
        assert_eq!(parse(b"#!   \t"), Some(Err(Errno::ENOEXEC)));
        let long = [b"#!/".as_slice(), &[b'a'; 400]].concat();
        assert_eq!(parse(&long), Some(Err(Errno::ENOEXEC)));
        let cut_argument = [b"#!/bin/sh ".as_slice(), &[b'a'; 400]].concat();
        assert_eq!(parse(&cut_argument).unwrap().unwrap().interpreter, b"/bin/sh");
        let cut_after = [b"#!/".as_slice(), &[b'a'; 252], b" \n"].concat();
        assert_eq!(parse(&cut_after).unwrap().unwrap(), Script { interpreter: &cut_after[2..255], argument: None });
    }
}
