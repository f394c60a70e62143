//! Images made by mkfs.erofs, whole and damaged. Where there is no mkfs.erofs, there is nothing to test with.

extern crate std;

use std::process::{Command, Stdio};
use std::vec::Vec;
use std::{format, fs};

use super::*;
use crate::block::MemoryDisk;

fn image() -> Option<Vec<u8>> {
    use core::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let base = std::env::temp_dir().join(format!("erofs-{}-{number}", std::process::id()));
    let tree = base.join("tree");
    fs::create_dir_all(tree.join("dir/deep")).expect("a folder");
    fs::write(tree.join("small"), b"a small file").expect("a file");
    let big: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(tree.join("dir/big"), &big).expect("a file");
    std::os::unix::fs::symlink("dir/big", tree.join("link")).expect("a link");
    for n in 0..900 {
        fs::write(tree.join(format!("dir/deep/file-{n}")), format!("{n}")).expect("a file");
    }
    let out = base.join("image");
    let made = Command::new("mkfs.erofs")
        .args([out.as_os_str(), tree.as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let bytes = made.ok().filter(|status| status.success()).and_then(|_| fs::read(&out).ok());
    let _ = fs::remove_dir_all(&base);
    bytes
}

fn find(image: &Erofs, path: &str) -> Result<File> {
    let mut file = image.file(image.root())?;
    for name in path.split('/') {
        file = image.file(image.lookup(&file, name.as_bytes())?.ok_or(Errno::ENOENT)?)?;
    }
    Ok(file)
}

fn content(image: &Erofs, file: &File) -> Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; file.stat.size.min(1 << 20) as usize];
    image.read(file, 0, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn an_image_reads_back() {
    let Some(bytes) = image() else { return };
    let image = Erofs::open(Arc::new(MemoryDisk::new(bytes))).expect("an image");
    let big: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    assert!(content(&image, &find(&image, "dir/big").expect("there")) == Ok(big));
    assert_eq!(content(&image, &find(&image, "small").expect("there")), Ok(b"a small file".to_vec()));
    for n in 0..900 {
        let file = find(&image, &format!("dir/deep/file-{n}")).expect("there");
        assert_eq!(content(&image, &file), Ok(format!("{n}").into_bytes()));
    }
    assert_eq!(image.link(&find(&image, "link").expect("there")), Ok(b"dir/big".to_vec()));
    assert_eq!(find(&image, "dir/nothing").err(), Some(Errno::ENOENT));
    let deep = find(&image, "dir/deep").expect("there");
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
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 900);
}

#[test]
fn damaged_images_are_errors_and_nothing_worse() {
    let Some(whole) = image() else { return };
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..=random(8) {
            let at = if random(2) == 0 { 1024 + random(8192) } else { random(bytes.len()) };
            bytes[at] ^= 1 << random(8);
        }
        let Ok(image) = Erofs::open(Arc::new(MemoryDisk::new(bytes))) else { continue };
        for path in ["small", "link", "dir/big", "dir/deep", "dir/deep/file-500"] {
            let Ok(file) = find(&image, path) else { continue };
            let mut count = 0;
            let _ = (content(&image, &file), image.link(&file));
            let _ = image.list(&file, 2, &mut |_| {
                count += 1;
                count < 2000
            });
        }
    }
}
