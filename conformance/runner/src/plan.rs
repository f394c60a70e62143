//! The plan: what to run. A line an item, and lines about it below, fields between tabs:
//!
//! ```text
//! item<TAB>NAME<TAB>KIND<TAB>SECONDS<TAB>FOLDER<TAB>PROGRAM<TAB>ARGUMENT...
//! done<TAB>TEST    leave this test of the item out
//! only<TAB>TEST    run this test of the item, and others so named
//! ```
//!
//! KIND is `report`, or `status` or `tap` with the statuses that mean skipped: `status:4,77`. SECONDS is how
//! long a test may take. FOLDER is where the program starts, `-` for a new one.

use std::time::Duration;

/// How an item's result shows.
#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    /// It reports its tests.
    Report,
    /// Its exit status tells; these mean that it does not apply.
    Status(Vec<i32>),
    /// The same, but if it runs tests by the kernel's test harness, which says so in TAP, these count too.
    Tap(Vec<i32>),
}

/// One program to run.
#[derive(Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) limit: Duration,
    /// Where to start it, if not in a new folder.
    pub(crate) folder: Option<String>,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    pub(crate) done: Vec<String>,
    pub(crate) only: Vec<String>,
}

/// Reads a plan; the error names the line.
pub(crate) fn parse(text: &str) -> Result<Vec<Item>, String> {
    let mut items: Vec<Item> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let wrong = || format!("the plan has a bad line: {line}");
        match (fields.as_slice(), items.last_mut()) {
            (["item", name, kind, seconds, folder, command @ ..], _) if !command.is_empty() => items.push(Item {
                name: (*name).to_owned(),
                kind: parse_kind(kind).ok_or_else(wrong)?,
                limit: Duration::from_secs(seconds.parse().map_err(|_| wrong())?),
                folder: (*folder != "-").then(|| (*folder).to_owned()),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                done: Vec::new(),
                only: Vec::new(),
            }),
            (["done", test], Some(item)) => item.done.push((*test).to_owned()),
            (["only", test], Some(item)) => item.only.push((*test).to_owned()),
            _ => return Err(wrong()),
        }
    }
    Ok(items)
}

fn parse_kind(text: &str) -> Option<Kind> {
    let (kind, list) = text.split_once(':').unwrap_or((text, ""));
    let statuses = || -> Option<Vec<i32>> {
        list.split(',').filter(|word| !word.is_empty()).map(|word| word.parse().ok()).collect()
    };
    match kind {
        "report" => Some(Kind::Report),
        "status" => statuses().map(Kind::Status),
        "tap" => statuses().map(Kind::Tap),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_what_belongs_to_them() {
        let items = parse("item\ta\treport\t9\t-\tx\ty z\ndone\tt1\nonly\tt2\nitem\tb\tstatus:3,4\t1\t/f\tp\n");
        let items = items.expect("a good plan");
        assert_eq!((items[0].kind == Kind::Report, items[0].folder.as_deref()), (true, None));
        assert_eq!(items[0].command, ["x", "y z"]);
        assert_eq!((items[0].done.as_slice(), items[0].only.as_slice()), (&["t1".into()][..], &["t2".into()][..]));
        assert_eq!(items[1].kind, Kind::Status(vec![3, 4]));
        assert_eq!(items[1].folder.as_deref(), Some("/f"));
        assert_eq!(parse_kind("tap:4"), Some(Kind::Tap(vec![4])));
    }

    #[test]
    fn bad_plans_are_refused() {
        for bad in ["done\tx", "item\ta\treport\t9\t-", "item\ta\tno\t9\t-\tx", "item\ta\tstatus:x\t9\t-\tx", "word"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
