//! What Linux gave, kept in `target/conformance/linux`: it does not change with our kernel.

use super::guest::{self, Machine};
use super::suites::Item;
use super::verdict::{Tests, Verdict, Verdicts};
use crate::Failure;
use crate::guest::Kernel;
use crate::workspace::{root, shown};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The verdicts of all items on Linux: those kept, and the others from guests that run now.
pub(super) fn verdicts(machine: &Machine, items: &[Item], fresh: bool) -> Result<Verdicts, Failure> {
    let path = root().join("target/conformance/linux").join(format!("{}.json", machine.suite.name));
    let mut kept = if fresh { Map::new() } else { load(&path) };
    let mut verdicts = Verdicts::new();
    let mut missing = Vec::new();
    for item in items {
        let key = key(machine, item)?;
        match kept.get(&item.name).filter(|entry| entry["key"] == key).and_then(|entry| tests(&entry["tests"])) {
            Some(tests) => drop(verdicts.insert(item.name.clone(), tests)),
            None => missing.push((item.clone(), key)),
        }
    }
    if !verdicts.is_empty() {
        eprintln!(
            "{}: what Linux gave for {} of {} items is from {} (--fresh runs it again)",
            machine.suite.name,
            verdicts.len(),
            items.len(),
            shown(&path)
        );
    }
    let to_run: Vec<Item> = missing.iter().map(|(item, _)| item.clone()).collect();
    let new = guest::run(machine, Kernel::Linux, "first", &to_run, &mut |name, tests| {
        let Some((_, key)) = missing.iter().find(|(item, _)| item.name == name) else { return };
        let list: Map<String, Value> = tests.iter().map(|(test, verdict)| (test.clone(), verdict.to_json())).collect();
        kept.insert(name.to_owned(), json!({ "key": key, "tests": list }));
        save(&path, &kept);
    })?;
    verdicts.extend(new);
    Ok(verdicts)
}

/// Changes when what Linux gives might.
fn key(machine: &Machine, item: &Item) -> Result<String, Failure> {
    let suite = machine.suite;
    let mut text = format!("{} {} {:?} {} {}\n", suite.root, suite.memory, item.command, item.kind, item.limit);
    for (path, place) in (suite.files)()? {
        // A folder, made once, stands by its name.
        let contents = fs::read(&path).unwrap_or_default();
        text += &format!("{place} {}\n", String::from_utf8_lossy(&contents));
    }
    // FNV-1a.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Ok(format!("{hash:016x}"))
}

fn load(path: &Path) -> Map<String, Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str::<Value>(&text).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default()
}

/// Keeps what there is; if that fails, Linux runs again next time.
fn save(path: &PathBuf, kept: &Map<String, Value>) {
    let written = path.parent().map(fs::create_dir_all).unwrap_or(Ok(()));
    let text = format!("{:#}\n", Value::Object(kept.clone()));
    if let Err(error) = written.and_then(|()| fs::write(path, text)) {
        eprintln!("xtask: cannot keep what Linux gave in {}: {error}", path.display());
    }
}

fn tests(value: &Value) -> Option<Tests> {
    value.as_object()?.iter().map(|(name, verdict)| Some((name.clone(), Verdict::from_json(verdict)?))).collect()
}
