//! The suites: what a guest runs to measure. Whatever it is prints its rows, `name<TAB>value<TAB>unit`;
//! a value that could not be had is `-`.

use crate::workspace::root;
use crate::{Failure, build};
use std::path::PathBuf;

/// What is measured together.
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// The guests of a round.
    pub(super) guests: &'static [Guest],
    pub(super) rounds: usize,
    /// Rounds of `--quick`, which leaves the suite out if there are none.
    pub(super) quick_rounds: usize,
    /// Counting instructions suits it.
    pub(super) icount: bool,
}

/// What one guest runs.
pub(super) struct Guest {
    /// The root, the same for both sides.
    pub(super) root: &'static str,
    pub(super) memory: &'static str,
    /// What measures.
    programs: &'static [Program],
    /// How it is called in the guest.
    pub(super) command: &'static [&'static str],
    /// What its first output tells about the guest's start.
    pub(super) first_output: Option<&'static str>,
    /// It has an empty ext4 disk, and the host's network.
    pub(super) equipped: bool,
    /// Seconds after which it hangs.
    pub(super) limit: u32,
}

/// Where a guest's program comes from.
enum Program {
    /// `bench/micro`.
    Micro,
    /// A script under `bench/`.
    Script(&'static str),
}

const MICRO_PROGRAM: &str = "/measure";
const SCRIPT: &str = "/measure.sh";

const MICRO: Guest = Guest {
    root: "builtin",
    memory: "1G",
    programs: &[Program::Micro],
    command: &[MICRO_PROGRAM],
    first_output: None,
    equipped: false,
    limit: 400,
};

const PERF: Guest = Guest {
    root: "debian,linux-perf,rt-tests",
    memory: "4G",
    programs: &[Program::Script("perf.sh")],
    command: &["sh", SCRIPT],
    limit: 900,
    ..MICRO
};

const APPS: Guest = Guest {
    root: "debian,fio,git,iperf3,libmemcached-tools,libstb-dev,memcached,nginx-light,postgresql,redis-server,redis-tools,\
           sqlite3,sysbench,wrk",
    memory: "5G",
    programs: &[Program::Script("apps.sh")],
    equipped: true,
    limit: 1800,
    ..PERF
};

/// A shell that says something, and how the start looked from inside.
const SHELL: Guest = Guest {
    command: &["sh", "-c", "echo up; exec /measure start"],
    first_output: Some("shell's first output"),
    limit: 200,
    ..MICRO
};

/// A web server that says something over the network.
const SERVER: Guest = Guest {
    root: "debian,nginx-light",
    memory: "2G",
    programs: &[Program::Micro, Program::Script("serve.sh")],
    command: &["bash", SCRIPT],
    first_output: Some("nginx answers"),
    ..SHELL
};

/// Every suite there is.
pub(super) const ALL: &[Suite] = &[
    Suite { name: "micro", guests: &[MICRO], rounds: 5, quick_rounds: 3, icount: true },
    Suite { name: "boot", guests: &[SHELL, SERVER], rounds: 5, quick_rounds: 3, icount: true },
    Suite { name: "perf", guests: &[PERF], rounds: 3, quick_rounds: 0, icount: false },
    Suite { name: "apps", guests: &[APPS], rounds: 3, quick_rounds: 0, icount: false },
];

impl Guest {
    /// Files to add to the root, and where.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, &'static str)>, Failure> {
        let file = |program: &Program| match program {
            Program::Micro => Ok((build::for_guest("bench-micro")?, MICRO_PROGRAM)),
            Program::Script(name) => Ok((root().join("bench").join(name), SCRIPT)),
        };
        self.programs.iter().map(file).collect()
    }
}
