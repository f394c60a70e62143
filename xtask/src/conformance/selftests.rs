//! The Linux kernel's own selftests, from Debian's linux-source package.

use super::built::Recipe;
use super::suites::Item;
use crate::Failure;

pub(super) const RECIPE: Recipe = Recipe {
    name: "linux-selftests",
    packages: "linux-source-6.1,gcc,libc6-dev,make,rsync,xz-utils,libcap-dev,libcap-ng-dev,libmnl-dev,libnuma-dev,\
               libpopt-dev,libfuse-dev,pkg-config,bison,flex,perl,python3-minimal",
    script: "selftests.sh",
    place: "/opt/selftests",
    list: "kselftest-list.txt",
};

/// These collections belong to `--quick`.
const QUICK: &[&str] = &["clone3", "futex/functional", "pidfd", "proc", "timers", "openat2", "sigaltstack", "epoll"];

/// A program each; status 4 says that it does not apply.
pub(super) fn items() -> Result<Vec<Item>, Failure> {
    let lines = RECIPE.lines()?;
    Ok(lines.iter().filter_map(|line| line.split_once(':')).map(|(folder, program)| item(folder, program)).collect())
}

fn item(folder: &str, program: &str) -> Item {
    Item {
        quick: QUICK.iter().any(|quick| folder.ends_with(quick)),
        kind: "tap:4",
        limit: 60,
        folder: Some(format!("{}/{folder}", RECIPE.place)),
        ..Item::program(&format!("{folder}:{program}"), &format!("./{program}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_becomes_an_item() {
        let item = item("timers", "nanosleep");
        assert_eq!((item.name.as_str(), item.quick), ("timers:nanosleep", true));
        assert_eq!(item.folder.as_deref(), Some("/opt/selftests/timers"));
    }
}
