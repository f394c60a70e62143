//! The layer table: which crate may depend on which. An edge that it does not have is an error.

use crate::Failure;
use crate::workspace::Crate;

const LIB: &[&str] = &["abi", "base", "bpf", "dev"];

/// Each crate, its own module's neighbours below it, and whether all below those counts too.
const LAYERS: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("base", &["abi"]),
    ("bpf", &["base"]),
    ("dev", &["abi", "base"]),
    ("hal", LIB),
    ("sched", &["hal"]),
    ("mm", &["sched"]),
    ("fs", &["mm", "sched"]),
    ("ipc", &["fs", "mm", "sched"]),
    ("net", &["fs", "mm", "sched"]),
    ("drivers", &["hal", "dev"]),
    ("container", &["sched", "mm", "fs", "ipc", "net"]),
    ("process", &["container"]),
    ("syscall", &["process"]),
    ("kernel", &["syscall", "drivers"]),
    ("protocol", &[]),
    ("quintet", &["protocol"]),
    ("guest-init", &["protocol"]),
    ("xtask", &[]),
    ("abi-tests", &[]),
    ("models", &[]),
    ("bench-micro", &[]),
    ("conformance-runner", &[]),
];

/// True if `upper` may depend on `lower`: directly below it, or below something that is.
fn may_depend(upper: &str, lower: &str) -> bool {
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == upper) else {
        return false;
    };
    below.iter().any(|name| *name == lower || may_depend(name, lower))
}

pub(super) fn check(crates: &[Crate]) -> Result<(), Failure> {
    let is_ours = |name: &str| crates.iter().any(|other| other.name == name);
    let mut faults = Vec::new();
    for each in crates {
        if !LAYERS.iter().any(|(name, _)| *name == each.name) {
            faults.push(format!("{} is not in the layer table", each.name));
        }
        for dependency in each.dependencies.iter().filter(|name| is_ours(name)) {
            if !may_depend(&each.name, dependency) {
                faults.push(format!("{} must not depend on {dependency}", each.name));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_never_see_each_other() {
        assert!(may_depend("ipc", "fs") && may_depend("ipc", "hal") && may_depend("kernel", "abi"));
        for (upper, lower) in [("ipc", "net"), ("net", "ipc"), ("hal", "sched"), ("mm", "fs"), ("fs", "fs")] {
            assert!(!may_depend(upper, lower), "{upper} -> {lower}");
        }
    }

    #[test]
    fn a_wrong_edge_is_named() {
        let wrong = Crate {
            name: "mm".into(),
            folder: "mm".into(),
            dependencies: vec!["fs".into(), "hal".into(), "log".into()],
        };
        let fs = Crate { name: "fs".into(), folder: "fs".into(), dependencies: Vec::new() };
        assert_eq!(check(&[wrong, fs]), Err("mm must not depend on fs".into()));
    }
}
