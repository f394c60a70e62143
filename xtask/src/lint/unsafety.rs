//! `unsafe` only in hal, and there only with a reason.

use crate::Failure;
use crate::source::{bare, unsafe_spans};
use crate::workspace::{Crate, rust_files, shown};
use std::fs;
use std::path::Path;

/// Crates that may contain `unsafe`: the hardware layer, and the programs that test the ABI or time
/// it, which have to make system calls that no safe wrapper would make.
const ALLOWED: &[&str] = &["hal", "abi-tests", "bench-micro"];

pub(super) fn check(crates: &[Crate]) -> Result<(), Failure> {
    let mut faults = Vec::new();
    for each in crates {
        let allowed = ALLOWED.contains(&each.name.as_str());
        if !allowed && !inherits_lints(&each.folder) {
            faults.push(format!("{}: Cargo.toml lacks [lints] workspace = true", each.name));
        }
        for path in rust_files(&each.folder) {
            let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            for (line, fault) in faults_in(&source, allowed, each.name == "hal") {
                faults.push(format!("{}:{}: {fault}", shown(&path), line + 1));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn inherits_lints(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let section = manifest.split("[lints]").nth(1).unwrap_or_default();
    section.trim_start().starts_with("workspace = true")
}

fn faults_in(source: &str, allowed: bool, reasons: bool) -> Vec<(usize, &'static str)> {
    let lines: Vec<&str> = source.lines().collect();
    unsafe_spans(&bare(source))
        .into_iter()
        .filter_map(|span| {
            if !allowed {
                return Some((span.first, "unsafe outside hal"));
            }
            let lacks = reasons && span.name == "block" && !has_reason(&lines, span.first);
            lacks.then_some((span.first, "an unsafe block without a SAFETY comment above it"))
        })
        .collect()
}

/// True if the block's line, or the comment right above its statement, gives the reason.
fn has_reason(lines: &[&str], line: usize) -> bool {
    const STATEMENT: usize = 4;
    if lines[line].contains("SAFETY:") {
        return true;
    }
    let mut code = 0;
    for above in lines[..line].iter().rev() {
        let text = above.trim();
        if text.starts_with("//") {
            if text.contains("SAFETY:") {
                return true;
            }
        } else {
            code += 1;
            if code >= STATEMENT || text.is_empty() || text == "}" {
                return false;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found() {
        let good = "// SAFETY: because\n// of this\nlet x = unsafe { y() };\n";
        let bad = "fn f() {\n    let x = 1;\n\n    unsafe { y() }\n}\n";
        assert!(faults_in(good, true, true).is_empty());
        assert_eq!(faults_in(bad, true, true).len(), 1);
        assert_eq!(faults_in(good, false, true).len(), 1);
        assert!(faults_in("// unsafe { }\nlet s = \"unsafe { }\";", false, true).is_empty());
    }
}
