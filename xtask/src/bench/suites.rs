//! The suites: what a guest runs to measure. Whatever it is prints its rows, `name<TAB>value<TAB>unit`;
//! a value that could not be had is `-`.

use crate::workspace::root;
use crate::{Failure, build};
use std::path::PathBuf;

/// What one guest runs.
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// The root, the same for both sides.
    pub(super) root: &'static str,
    pub(super) memory: &'static str,
    /// The program that measures.
    program: Program,
    /// How it is called in the guest.
    pub(super) command: &'static [&'static str],
    pub(super) rounds: usize,
    /// Rounds of `--quick`, which leaves the suite out if there are none.
    pub(super) quick_rounds: usize,
    /// Counting instructions suits it.
    pub(super) icount: bool,
    /// The start of the guest is measured, too.
    pub(super) timed_start: bool,
    /// Seconds after which a guest hangs.
    pub(super) limit: u32,
}

/// Where a suite's program comes from.
enum Program {
    /// `bench/micro`.
    Micro,
    /// A script under `bench/`.
    Script(&'static str),
}

const PROGRAM: &str = "/bench";

/// Every suite there is.
pub(super) const ALL: &[Suite] = &[
    Suite {
        name: "micro",
        root: "builtin",
        memory: "1G",
        program: Program::Micro,
        command: &[PROGRAM],
        rounds: 5,
        quick_rounds: 3,
        icount: true,
        timed_start: false,
        limit: 400,
    },
    Suite {
        name: "boot",
        root: "builtin",
        memory: "1G",
        program: Program::Micro,
        command: &["sh", "-c", "echo up; exec /bench start"],
        rounds: 5,
        quick_rounds: 3,
        icount: true,
        timed_start: true,
        limit: 200,
    },
    Suite {
        name: "perf",
        root: "debian,linux-perf,rt-tests",
        memory: "4G",
        program: Program::Script("perf.sh"),
        command: &["sh", PROGRAM],
        rounds: 3,
        quick_rounds: 0,
        icount: false,
        timed_start: false,
        limit: 900,
    },
    Suite {
        name: "apps",
        root: "debian,fio,iperf3,libmemcached-tools,libstb-dev,memcached,nginx-light,postgresql,redis-server,redis-tools,\
               sqlite3,sysbench,wrk",
        memory: "5G",
        program: Program::Script("apps.sh"),
        command: &["sh", PROGRAM],
        rounds: 3,
        quick_rounds: 0,
        icount: false,
        timed_start: false,
        limit: 1800,
    },
];

impl Suite {
    /// Files to add to the root, and where.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, &'static str)>, Failure> {
        let program = match self.program {
            Program::Micro => build::for_guest("bench-micro")?,
            Program::Script(name) => root().join("bench").join(name),
        };
        Ok(vec![(program, PROGRAM)])
    }
}
