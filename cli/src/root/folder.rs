//! A folder as root: everything under it, with owners, modes, links and devices as they are.

use super::Output;
use crate::cpio::{Entry, kind};
use crate::failure::{Context, Failure};
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// More than this is not copied for each run.
const LARGE: u64 = 64 << 20;

/// Is there so much in the folder that it is better shown to the guest than copied?
pub(super) fn is_large(folder: &Path) -> bool {
    let sizes = WalkDir::new(folder).into_iter().flatten().filter_map(|found| Some(found.metadata().ok()?.len()));
    let mut total = 0;
    sizes
        .take_while(|size| {
            total += size;
            total <= LARGE
        })
        .count();
    total > LARGE
}

/// Writes the folder and what is in it, at a place that `.` names if it is the root.
pub(super) fn write(folder: &Path, place: &Path, archive: &mut Output) -> Result<(), Failure> {
    let mut inodes = HashMap::new();
    for found in WalkDir::new(folder).sort_by_file_name() {
        let found = found.or_fail(|| format!("cannot read the root {}", folder.display()))?;
        let what = || format!("cannot copy {} to the initrd", found.path().display());
        let metadata = found.metadata().or_fail(what)?;
        if metadata.file_type().is_socket() {
            continue;
        }
        let inside = found.path().strip_prefix(folder).unwrap_or(found.path());
        add(archive, &name(place, inside), found.path(), &metadata, &mut inodes).or_fail(what)?;
    }
    Ok(())
}

/// Where a file goes whose path is `inside` a folder that goes to `place`.
fn name(place: &Path, inside: &Path) -> PathBuf {
    let inner = if place == Path::new(".") { inside.to_owned() } else { place.join(inside) };
    // The folder itself has an empty path inside, and joining that adds a slash.
    let name: PathBuf = inner.components().collect();
    if name.as_os_str().is_empty() { PathBuf::from(".") } else { name }
}

fn add(
    archive: &mut Output,
    name: &Path,
    path: &Path,
    metadata: &Metadata,
    inodes: &mut HashMap<(u64, u64), u32>,
) -> io::Result<()> {
    let name = name.as_os_str().as_bytes();
    let linked = metadata.is_file() && metadata.nlink() > 1;
    let known = linked.then(|| inodes.get(&(metadata.dev(), metadata.ino())).copied()).flatten();
    let inode = known.unwrap_or_else(|| archive.next_inode());
    if linked {
        inodes.insert((metadata.dev(), metadata.ino()), inode);
    }
    let entry = Entry {
        inode,
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        links: metadata.nlink() as u32,
        mtime: u32::try_from(metadata.mtime()).unwrap_or(0),
        device: (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())),
    };
    match metadata.mode() & kind::MASK {
        kind::LINK => archive.link(name, entry, fs::read_link(path)?.as_os_str().as_bytes()),
        kind::FILE if known.is_none() => archive.file(name, entry, metadata.len(), &mut File::open(path)?),
        _ => archive.node(name, entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_files() {
        let named = |place: &str, inside: &str| name(Path::new(place), Path::new(inside)).display().to_string();
        assert_eq!((named(".", ""), named(".", "a/b")), (".".into(), "a/b".into()));
        assert_eq!((named("opt/x", ""), named("opt/x", "a/b")), ("opt/x".into(), "opt/x/a/b".into()));
    }
}
