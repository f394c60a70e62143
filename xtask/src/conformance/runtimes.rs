//! Erlang, Java and Node from Debian's packages, with short programs of ours (`conformance/runtimes`): what their run-times ask of threads,
//! polling and processes.

use super::suites::Item;
use crate::Failure;
use crate::workspace::root;
use std::path::PathBuf;

/// The root has the three.
pub(super) const ROOT: &str = "debian,erlang-base,nodejs,openjdk-17-jdk-headless";
const PLACE: &str = "/opt/runtimes";

/// What is run of each program.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("erlang", "escript erlang.escript", &["ring", "timers", "ports", "tcp", "unix", "files", "preemption"]),
    (
        "java",
        "java Parts.java",
        &[
            "locks",
            "parking",
            "monitors",
            "deadlock",
            "forkjoin",
            "selector",
            "unix",
            "processes",
            "watch",
            "interrupts",
        ],
    ),
    (
        "node",
        "node node.js",
        &["workers", "processes", "messages", "files", "watching", "timers", "signals", "tcp", "unix"],
    ),
];

/// The programs, for the guest.
pub(super) fn files() -> Result<Vec<(PathBuf, &'static str)>, Failure> {
    Ok(vec![(root().join("conformance/runtimes"), PLACE)])
}

/// A part of a program each.
pub(super) fn items() -> Result<Vec<Item>, Failure> {
    let of_program = |(name, command, parts): &(&str, &str, &'static [&str])| -> Vec<Item> {
        parts.iter().map(|part| item(name, command, part)).collect()
    };
    Ok(PROGRAMS.iter().flat_map(of_program).collect())
}

fn item(name: &str, command: &str, part: &str) -> Item {
    Item {
        quick: name == "node",
        // A Java program is compiled first.
        limit: 240,
        folder: Some(PLACE.to_owned()),
        ..Item::program(&format!("{name}:{part}"), &format!("{command} {part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_becomes_an_item() {
        let items = items().expect("a constant list");
        let tcp = items.iter().find(|item| item.name == "erlang:tcp").expect("that part");
        assert_eq!(tcp.command, ["escript", "erlang.escript", "tcp"]);
    }
}
