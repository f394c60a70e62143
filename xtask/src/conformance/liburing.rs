//! liburing's own tests, from Debian's source package: what those who write io_uring expect of it.

use super::built::Recipe;
use super::suites::Item;
use crate::Failure;

pub(super) const RECIPE: Recipe = Recipe {
    name: "liburing-tests",
    packages: "gcc,g++,libc6-dev,make,dpkg-dev",
    script: "liburing.sh",
    place: "/opt/liburing",
    list: "tests.txt",
};

/// These belong to `--quick`.
const QUICK: &[&str] = &["accept", "cq-overflow", "link", "nop", "poll", "read-write", "send_recv", "timeout"];

/// A program each; status 77 says that it does not apply.
pub(super) fn items() -> Result<Vec<Item>, Failure> {
    Ok(RECIPE.lines()?.iter().map(|program| item(program)).collect())
}

fn item(program: &str) -> Item {
    let name = program.trim_end_matches(".t");
    Item {
        quick: QUICK.contains(&name),
        kind: "status:77",
        limit: 60,
        ..Item::program(name, &format!("{}/{program}", RECIPE.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_becomes_an_item() {
        let item = item("nop.t");
        assert_eq!((item.name.as_str(), item.quick), ("nop", true));
        assert_eq!(item.command, ["/opt/liburing/nop.t"]);
    }
}
