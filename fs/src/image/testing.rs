//! Images made by Debian's tools, whole and damaged, for the tests of who reads them.

extern crate std;

use core::sync::atomic::{AtomicU32, Ordering};
use std::path::Path;
use std::process::{Command, Stdio};
use std::vec::Vec;
use std::{format, fs};

use base::{Errno, Result};

use super::Image;
use crate::FileKind;
use crate::damage::{self, Random};

/// Files in the largest directory.
const FILES: usize = 600;

fn noise(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

/// Files that compress well, badly, now well and now badly, to almost nothing, and the same once more, moved by some bytes.
fn files() -> [(&'static str, Vec<u8>); 6] {
    let big: Vec<u8> = (0..400_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let mixed =
        (0..40).flat_map(
            |n: usize| if n.is_multiple_of(3) { noise(9000 + n as u64) } else { big[n * 999..][..12_345].to_vec() },
        );
    let moved = [&b"moved"[..], &big[..300_000]].concat();
    [
        ("small", b"a small file".to_vec()),
        ("dir/mixed", mixed.collect()),
        ("dir/moved", moved),
        ("dir/big", big),
        ("dir/noise", noise(50_000)),
        ("dir/zeros", alloc::vec![0; 700_017]),
    ]
}

fn make_tree(tree: &Path) -> std::io::Result<()> {
    fs::create_dir_all(tree.join("dir/deep"))?;
    files().into_iter().try_for_each(|(name, content)| fs::write(tree.join(name), content))?;
    std::os::unix::fs::symlink("dir/big", tree.join("link"))?;
    (0..FILES).try_for_each(|n| fs::write(tree.join(format!("dir/deep/file-{n}")), format!("{n}")))
}

/// An image of a folder with a bit of everything, made by what `command(folder, image)` says; `None` where there is no such program.
pub(crate) fn pack(command: impl FnOnce(&Path, &Path) -> Command) -> Option<Vec<u8>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let base = std::env::temp_dir().join(format!("quintet-image-{}-{number}", std::process::id()));
    let (tree, out) = (base.join("tree"), base.join("image"));
    make_tree(&tree).expect("a folder");
    let made = command(&tree, &out).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let bytes = made.ok().filter(|status| status.success()).and_then(|_| fs::read(&out).ok());
    let _ = fs::remove_dir_all(&base);
    bytes
}

fn find<I: Image>(image: &I, path: &str) -> Result<I::File> {
    let mut file = image.file(image.root())?;
    for name in path.split('/') {
        file = image.file(image.lookup(&file, name.as_bytes())?.ok_or(Errno::ENOENT)?)?;
    }
    Ok(file)
}

/// At most `most` bytes of a file, from `from` on.
fn content<I: Image>(image: &I, file: &I::File, from: u64, most: u64) -> Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; (image.stat(file).size - from).min(most) as usize];
    for (n, chunk) in bytes.chunks_mut(40_000).enumerate() {
        image.read(file, from + n as u64 * 40_000, chunk)?;
    }
    Ok(bytes)
}

/// Checks that an image that [`pack`] made has what it was made of.
pub(crate) fn check_whole<I: Image>(image: &I) {
    let read = |path: &str| content(image, &find(image, path).expect("there"), 0, 4 << 20).expect("readable");
    for (name, expected) in files() {
        assert!(read(name) == expected, "{name}");
        let file = find(image, name).expect("there");
        let (mut part, from) = ([1; 5000], expected.len().saturating_sub(4321));
        image.read(&file, from as u64, &mut part).expect("readable");
        let len = expected.len() - from;
        assert!(part[..len] == expected[from..] && part[len..].iter().all(|&byte| byte == 0), "the end of {name}");
    }
    for n in 0..FILES {
        assert_eq!(read(&format!("dir/deep/file-{n}")), format!("{n}").as_bytes());
    }
    let link = find(image, "link").expect("there");
    assert_eq!((image.stat(&link).kind, image.link(&link)), (FileKind::Symlink, Ok(b"dir/big".to_vec())));
    assert_eq!(find(image, "dir/nothing").err(), Some(Errno::ENOENT));
    let deep = find(image, "dir/deep").expect("there");
    let (mut position, mut names) = (2, Vec::new());
    loop {
        let mut left = 70;
        let next = image.list(&deep, position, &mut |entry| {
            left -= 1;
            if left >= 0 {
                names.push(entry.name.to_vec());
            }
            left >= 0
        });
        let next = next.expect("lists");
        if next == position {
            break;
        }
        position = next;
    }
    let listed = names.len();
    names.sort();
    names.dedup();
    assert_eq!((listed, names.len()), (FILES, FILES));
}

/// Reads the beginnings and ends of all there is; errors are as good as content.
fn visit<I: Image>(image: &I, id: u64, depth: u32, budget: &mut u32) {
    *budget = budget.saturating_sub(1);
    let Ok(file) = image.file(id) else { return };
    let end = image.stat(&file).size.saturating_sub(30_000);
    let _ = (content(image, &file, 0, 100_000), content(image, &file, end, 30_000), image.xattrs(&file));
    let kind = image.stat(&file).kind;
    if kind == FileKind::Symlink {
        let _ = image.link(&file);
    }
    if depth == 0 || *budget == 0 || kind != FileKind::Directory {
        return;
    }
    let mut names = Vec::new();
    let _ = image.list(&file, 2, &mut |entry| {
        names.push(entry.name.to_vec());
        names.len() < 40
    });
    for name in names {
        if let Ok(Some(id)) = image.lookup(&file, &name) {
            visit(image, id, depth - 1, budget);
        }
    }
}

/// Damages an image in many ways, most of them near its beginning and end, where what describes the files is: errors are fine, panics and
/// endless loops are not. `exercise` opens it and calls [`visit_all`].
pub(crate) fn check_damaged(what: &str, whole: &[u8], rounds: usize, exercise: fn(Vec<u8>)) {
    let spoil = |bytes: &mut Vec<u8>, _round: usize, random: &mut Random| {
        for _ in 0..=random.below(6) {
            let (from, len) = match random.below(4) {
                0 => (0, 128),
                1 => (1024, 8192),
                2 => (bytes.len().saturating_sub(4096), 4096),
                _ => (random.below(bytes.len()) & !3, 256),
            };
            let end = (from + len).min(bytes.len());
            if end >= from + 8 {
                damage::spoil(&mut bytes[from..end], &[whole.len() / 512, whole.len()], false, random);
            }
        }
        if random.below(8) == 0 {
            let len = random.below(bytes.len()) / 512 * 512;
            bytes.truncate(len);
        }
    };
    damage::fuzz(what, rounds, whole, spoil, exercise);
}

/// Reads what there is in a damaged image.
pub(crate) fn visit_all<I: Image>(image: &I) {
    visit(image, image.root(), 3, &mut 60);
}
