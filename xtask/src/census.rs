//! `cargo xtask census`: lines of code and of unsafe code, crate by crate.

use crate::Outcome;
use crate::source::{bare, unsafe_spans};
use crate::workspace::{crates, rust_files};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Crates that run on the host, or in the guest as programs: no part of the kernel.
const NOT_KERNEL: &[&str] = &["quintet", "protocol", "guest-init", "xtask", "abi-tests", "sim"];

#[derive(Default)]
struct Count {
    files: usize,
    lines: usize,
    unsafe_lines: usize,
}

impl Count {
    fn add(&mut self, other: &Count) {
        self.files += other.files;
        self.lines += other.lines;
        self.unsafe_lines += other.unsafe_lines;
    }

    fn print(&self, name: &str) {
        let share = 100.0 * self.unsafe_lines as f64 / self.lines.max(1) as f64;
        let Count { files, lines, unsafe_lines } = self;
        println!("{name:<16}{files:>7}{lines:>9}{unsafe_lines:>9}{share:>8.1} %");
    }
}

/// Prints the table.
pub(crate) fn run() -> Outcome {
    println!("{:<16}{:>7}{:>9}{:>9}{:>10}", "crate", "files", "lines", "unsafe", "share");
    let (mut kernel, mut rest) = (Count::default(), Count::default());
    for each in crates()? {
        let count = count(&each.folder);
        count.print(&each.name);
        let sum = if NOT_KERNEL.contains(&each.name.as_str()) { &mut rest } else { &mut kernel };
        sum.add(&count);
    }
    println!();
    kernel.print("kernel, all");
    rest.print("host and tests");
    println!("\nLines are those with code: no blank lines, no comments.");
    Ok(ExitCode::SUCCESS)
}

fn count(folder: &Path) -> Count {
    let mut sum = Count::default();
    for path in rust_files(folder) {
        let Ok(source) = fs::read_to_string(&path) else {
            continue;
        };
        let bare = bare(&source);
        let code: BTreeSet<usize> =
            bare.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(|(number, _)| number).collect();
        let in_unsafe: BTreeSet<usize> =
            unsafe_spans(&bare).into_iter().flat_map(|span| span.first..=span.last).collect();
        sum.add(&Count { files: 1, lines: code.len(), unsafe_lines: code.intersection(&in_unsafe).count() });
    }
    sum
}
