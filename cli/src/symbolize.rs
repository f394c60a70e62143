//! Turns a panic's addresses into functions and lines.

use crate::kernel_log::{KernelLog, Panic};
use addr2line::Loader;
use std::fmt::Write;
use std::path::Path;

/// Lines of the log that a report shows.
const TAIL: usize = 25;

/// The report of a kernel panic: message, backtrace, the log's tail.
pub fn report(panic: &Panic, log: &KernelLog, kernel: &Path) -> String {
    let mut text = format!("quintet: the guest's kernel panicked: {}\n", panic.message);
    if !panic.frames.is_empty() {
        text.push_str("  backtrace:\n");
        backtrace(&mut text, &panic.frames, kernel);
    }
    text.push_str(&tail(log));
    text
}

/// The last lines of the log, indented.
pub fn tail(log: &KernelLog) -> String {
    let lines = log.tail();
    if lines.is_empty() {
        return "  the kernel's log is empty\n".into();
    }
    let mut text = String::from("  the end of the kernel's log:\n");
    for line in &lines[lines.len().saturating_sub(TAIL)..] {
        let _ = writeln!(text, "    {line}");
    }
    text
}

fn backtrace(text: &mut String, frames: &[u64], kernel: &Path) {
    let loader = match Loader::new(kernel) {
        Ok(loader) => Some(loader),
        Err(error) => {
            let _ = writeln!(text, "    (no symbols from {}: {error})", kernel.display());
            None
        }
    };
    for (number, address) in frames.iter().enumerate() {
        // Return addresses: the call is before them, and may be the last thing in its function.
        let probe = address.saturating_sub(1);
        let names = loader.as_ref().map(|loader| lookup(loader, probe)).unwrap_or_default();
        if names.is_empty() {
            let _ = writeln!(text, "    #{number} {address:#018x}");
        }
        for (depth, name) in names.iter().enumerate() {
            let label = if depth == 0 { format!("#{number}") } else { "inlined in".into() };
            let _ = writeln!(text, "    {label} {name}");
        }
    }
}

/// The functions at an address, innermost first: those inlined there, then the one they are in.
fn lookup(loader: &Loader, address: u64) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let function = frame
                .function
                .as_ref()
                .and_then(|function| function.demangle().ok())
                .map(|name| without_hash(&name).to_owned());
            let place =
                frame.location.and_then(|place| Some(format!("{}:{}", relative(place.file?), place.line.unwrap_or(0))));
            names.extend(match (function, place) {
                (Some(function), Some(place)) => Some(format!("{function} at {place}")),
                (Some(only), None) | (None, Some(only)) => Some(only),
                (None, None) => None,
            });
        }
    }
    if names.is_empty() {
        names.extend(loader.find_symbol(address).map(|name| without_hash(name).to_owned()));
    }
    names
}

/// A demangled name without the `::h0123456789abcdef` of the legacy scheme.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => path,
        _ => name,
    }
}

fn relative(file: &str) -> &str {
    let here = std::env::current_dir().unwrap_or_default();
    here.to_str().and_then(|here| file.strip_prefix(here)).map_or(file, |file| file.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_log::Sink;

    #[test]
    fn hashes_are_dropped() {
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::hello"), "a::hello");
    }

    #[test]
    fn a_report_without_symbols_shows_addresses() {
        let panic = Panic { message: "m".into(), frames: vec![0x1234], complete: true };
        let log = KernelLog::new(Sink::Nowhere);
        log.push(b"last words\n");
        let text = report(&panic, &log, Path::new("/no/such/kernel"));
        assert!(text.contains("panicked: m\n"));
        assert!(text.contains("#0 0x0000000000001234"));
        assert!(text.contains("    last words\n"));
    }
}
