//! Images made by mksquashfs, whole and damaged. Where there is no mksquashfs, there is nothing to test with.

extern crate std;

use std::process::{Command, Stdio};
use std::vec::Vec;
use std::{format, fs};

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::FileKind;
use crate::block::MemoryDisk;

/// A folder with a bit of everything, packed with this compression.
fn image(compression: &str) -> Option<Vec<u8>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let base = std::env::temp_dir().join(format!("squashfs-{}-{number}", std::process::id()));
    let tree = base.join("tree");
    fs::create_dir_all(tree.join("dir/deep")).expect("a folder");
    fs::write(tree.join("small"), b"a small file").expect("a file");
    let big: Vec<u8> = (0..400_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    fs::write(tree.join("dir/big"), &big).expect("a file");
    let noise: Vec<u8> = (0..50_000u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    fs::write(tree.join("dir/noise"), &noise).expect("a file");
    std::os::unix::fs::symlink("dir/big", tree.join("link")).expect("a link");
    for n in 0..600 {
        fs::write(tree.join(format!("dir/deep/file-{n}")), format!("{n}")).expect("a file");
    }
    let out = base.join("image");
    let made = Command::new("mksquashfs")
        .args([tree.as_os_str(), out.as_os_str()])
        .args(["-comp", compression, "-noappend", "-quiet", "-no-progress"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let bytes = made.ok().filter(|status| status.success()).and_then(|_| fs::read(&out).ok());
    let _ = fs::remove_dir_all(&base);
    bytes
}

fn open(bytes: Vec<u8>) -> Result<Squashfs> {
    Squashfs::open(Arc::new(MemoryDisk::new(bytes)))
}

fn find(image: &Squashfs, path: &str) -> Result<File> {
    let mut file = image.file(image.root())?;
    for name in path.split('/') {
        let id = image.lookup(&file, name.as_bytes())?.ok_or(Errno::ENOENT)?;
        file = image.file(id)?;
    }
    Ok(file)
}

fn content(image: &Squashfs, file: &File) -> Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; file.stat.size.min(4 << 20) as usize];
    for (n, chunk) in bytes.chunks_mut(40_000).enumerate() {
        image.read(file, n as u64 * 40_000, chunk)?;
    }
    Ok(bytes)
}

#[test]
fn every_compression_reads_back() {
    for compression in ["gzip", "xz", "lz4", "zstd"] {
        let Some(bytes) = image(compression) else { continue };
        let image = open(bytes).expect("an image");
        let big: Vec<u8> = (0..400_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert!(content(&image, &find(&image, "dir/big").expect("there")) == Ok(big), "{compression}");
        assert_eq!(content(&image, &find(&image, "small").expect("there")), Ok(b"a small file".to_vec()));
        assert_eq!(content(&image, &find(&image, "dir/deep/file-599").expect("there")), Ok(b"599".to_vec()));
        let link = find(&image, "link").expect("there");
        assert_eq!((link.stat.kind, image.link(&link)), (FileKind::Symlink, Ok(b"dir/big".to_vec())));
        assert_eq!(find(&image, "dir/nothing").err(), Some(Errno::ENOENT));
        let deep = find(&image, "dir/deep").expect("there");
        let (mut position, mut count) = (2, 0);
        loop {
            let mut left = 70;
            let next = image.list(&deep, position, &mut |_| {
                left -= 1;
                left >= 0
            });
            let next = next.expect("lists");
            if next == position {
                break;
            }
            count += 70 - left.max(0);
            position = next;
        }
        assert_eq!(count, 600);
    }
}

/// Reads all there is; errors are as good as content.
fn visit(image: &Squashfs, id: u64, depth: u32, budget: &mut u32) {
    *budget = budget.saturating_sub(1);
    let Ok(file) = image.file(id) else { return };
    let _ = (content(image, &file), image.link(&file), image.xattrs(&file));
    if depth == 0 || *budget == 0 || file.stat.kind != FileKind::Directory {
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

#[test]
fn damaged_images_are_errors_and_nothing_worse() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    for compression in ["gzip", "xz", "lz4", "zstd"] {
        let Some(whole) = image(compression) else { continue };
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..=random(6) {
                let at = match random(3) {
                    0 => random(SUPERBLOCK),
                    1 => bytes.len() - 1 - random(4000.min(bytes.len() - 1)),
                    _ => random(bytes.len()),
                };
                bytes[at] ^= 1 << random(8);
            }
            if random(8) == 0 {
                let len = random(bytes.len()) / 512 * 512;
                bytes.truncate(len);
            }
            if let Ok(image) = open(bytes) {
                visit(&image, image.root(), 3, &mut 60);
            }
        }
    }
}
