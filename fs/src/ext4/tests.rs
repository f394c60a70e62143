//! Images made by mke2fs, changed here, and checked by e2fsck and debugfs.

extern crate std;

mod damage;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::path::PathBuf;
use std::process::Command;

use base::{Errno, Result};

use super::create::New;
use super::inode::ROOT;
use super::volume::{OnError, OpenOptions, Volume};
use crate::block::MemoryDisk;
use crate::damage::Random;
use crate::xattr::SetMode;
use crate::{DeviceNumber, FileKind, NewInode};

const NOW: i64 = 1_700_000_000_123_456_789;
const WRITE: OpenOptions = OpenOptions { read_only: false, no_load: false, on_error: Some(OnError::ReadOnly) };

/// A file that goes when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(contents: &[u8]) -> Temporary {
        static NEXT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quintet-ext4-{}-{n}", std::process::id()));
        std::fs::write(&path, contents).expect("a file can be written");
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn tool(name: &str, arguments: &[&str], image: &Temporary) -> (i32, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).args(arguments).arg(&image.0).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{name} (of e2fsprogs) can't be run: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// An image of so many MiB, made with these options.
fn make(mib: usize, options: &[&str]) -> Vec<u8> {
    let image = Temporary::new(&vec![0; mib << 20]);
    let (status, said) = tool("mke2fs", &[&["-q", "-F"], options].concat(), &image);
    assert_eq!(status, 0, "{said}");
    std::fs::read(&image.0).expect("it is there")
}

/// e2fsck finds nothing to mend.
fn check(image: &[u8], what: &str) {
    let file = Temporary::new(image);
    let (status, said) = tool("e2fsck", &["-fn"], &file);
    if status != 0 {
        let _ = std::fs::write("/tmp/quintet-bad.img", image);
    }
    assert_eq!(status, 0, "{what}: {said}");
}

/// e2fsck replays the journal and finds nothing else to mend: the image after that.
fn check_with_replay(image: &[u8], what: &str) -> Vec<u8> {
    let file = Temporary::new(image);
    let (status, said) = tool("e2fsck", &["-y", "-E", "journal_only"], &file);
    assert!(status <= 1, "{what}: {said}");
    let after = std::fs::read(&file.0).expect("it is there");
    check(&after, what);
    after
}

fn open(disk: &Arc<MemoryDisk>) -> Volume {
    Volume::open(disk.clone(), WRITE, NOW).expect("it opens")
}

fn new(kind: FileKind, target: &'static [u8]) -> New<'static> {
    let inode = NewInode { kind, mode: 0o640, uid: 70_000, gid: 5, rdev: DeviceNumber::new(300, 70_000), target };
    New { inode, now: NOW, xattrs: Vec::new() }
}

/// Writes blocks of a file, allocating those that it has not, as the kernel's write-back does.
fn write(volume: &mut Volume, number: u32, first: u32, data: &[u8]) -> Result<()> {
    let size = volume.sb.block_size;
    for (i, chunk) in data.chunks(size).enumerate() {
        let at = first + i as u32;
        let block = volume.operation(|v| {
            let mut inode = v.inode(number)?;
            if let Some(block) = v.map(&inode, at, 1)?.readable() {
                return Ok(block);
            }
            let goal = v.goal(&inode, at);
            let (block, _) = v.allocate_blocks(goal, 1)?;
            v.insert(&mut inode, at, block, 1, false)?;
            inode.set_size(inode.size().max(u64::from(at) * size as u64 + chunk.len() as u64));
            v.put_inode(inode)?;
            Ok(block)
        })?;
        let mut whole = vec![0; size];
        whole[..chunk.len()].copy_from_slice(chunk);
        volume.store.io().write(block * size as u64, &whole)?;
        if volume.is_full() {
            volume.commit(NOW)?;
        }
    }
    Ok(())
}

fn read(volume: &mut Volume, number: u32) -> Vec<u8> {
    let size = volume.sb.block_size;
    let inode = volume.checked_inode(number).expect("sane");
    let mut data = Vec::new();
    for at in 0..inode.size().div_ceil(size as u64) as u32 {
        let mut block = vec![0; size];
        if let Some(found) = volume.map(&inode, at, 1).expect("sane").readable() {
            volume.store.io().read(found * size as u64, &mut block).expect("in range");
        }
        data.extend_from_slice(&block);
    }
    data.truncate(inode.size() as usize);
    data
}

fn names(volume: &mut Volume, dir: u32) -> Vec<String> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(listed) = volume.list_block(dir, at).expect("sane") {
        all.extend(listed.into_iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
        at = (at / volume.sb.block_size as u64 + 1) * volume.sb.block_size as u64;
    }
    all.sort();
    all
}

const KINDS: [&[&str]; 7] = [
    &["-t", "ext4"],
    &["-t", "ext4", "-b", "1024"],
    &["-t", "ext4", "-O", "^metadata_csum,uninit_bg", "-b", "4096"],
    &["-t", "ext4", "-O", "^64bit,^flex_bg", "-I", "128", "-b", "2048"],
    &["-t", "ext4", "-O", "metadata_csum_seed,large_dir", "-b", "1024"],
    &["-t", "ext3"],
    &["-t", "ext2", "-b", "1024"],
];

#[test]
fn an_image_that_is_opened_and_closed_is_clean() {
    for kind in KINDS {
        let disk = Arc::new(MemoryDisk::new(make(32, kind)));
        let mut volume = open(&disk);
        assert_eq!(names(&mut volume, ROOT), ["lost+found"], "{kind:?}");
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));
    }
}

#[test]
fn one_file_of_each_type() {
    for kind in KINDS {
        let disk = Arc::new(MemoryDisk::new(make(32, kind)));
        let mut volume = open(&disk);
        let long: &'static [u8] = &[b'x'; 200];
        let made = [
            ("file", FileKind::Regular, &b""[..]),
            ("directory", FileKind::Directory, b""),
            ("fifo", FileKind::Fifo, b""),
            ("socket", FileKind::Socket, b""),
            ("character", FileKind::CharDevice, b""),
            ("block", FileKind::BlockDevice, b""),
            ("short", FileKind::Symlink, b"file"),
            ("long", FileKind::Symlink, long),
        ];
        let mut numbers = BTreeMap::new();
        for (name, kind, target) in made {
            let inode =
                volume.operation(|v| v.create(ROOT, name.as_bytes(), &new(kind, target))).expect("there is room");
            numbers.insert(name, inode.number);
        }
        let data: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        write(&mut volume, numbers["file"], 0, &data).expect("there is room");
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));

        let mut volume = open(&disk);
        assert_eq!(read(&mut volume, numbers["file"]), data);
        assert_eq!(volume.link_target(numbers["short"]).as_deref(), Ok(&b"file"[..]));
        assert_eq!(volume.link_target(numbers["long"]).as_deref(), Ok(long));
        let inode = volume.checked_inode(numbers["character"]).expect("sane");
        assert_eq!(Volume::device(&inode), DeviceNumber::new(300, 70_000));
        assert_eq!((inode.uid(), inode.gid(), inode.mode() & 0o7777), (70_000, 5, 0o640));
        for (name, _, _) in made {
            volume.operation(|v| v.unlink(ROOT, name.as_bytes(), NOW)).expect("it is there");
            volume.delete(numbers[name], NOW).expect("nobody has it open");
        }
        assert_eq!(names(&mut volume, ROOT), ["lost+found"]);
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));
    }
}

#[test]
fn a_directory_of_many_names_has_an_index_that_finds_them_all() {
    for kind in [KINDS[1], KINDS[4], KINDS[6]] {
        let disk = Arc::new(MemoryDisk::new(make(64, &[kind, &["-N", "20000"]].concat())));
        let mut volume = open(&disk);
        let dir = volume.operation(|v| v.create(ROOT, b"d", &new(FileKind::Directory, b""))).expect("room").number;
        let name = |i: u32| format!("name-{i}-{}", "x".repeat(i as usize % 90));
        let count = 6000;
        let file = volume.operation(|v| v.create(dir, b"first", &new(FileKind::Regular, b""))).expect("room").number;
        for i in 0..count {
            let made = volume.operation(|v| v.create(dir, name(i).as_bytes(), &new(FileKind::Fifo, b"")));
            made.unwrap_or_else(|error| panic!("{kind:?}: {i}: {error}"));
            if volume.is_full() {
                volume.commit(NOW).expect("commits");
            }
        }
        volume.commit(NOW).expect("commits");
        let inode = volume.inode(dir).expect("sane");
        for i in 0..count {
            assert!(volume.find_entry(&inode, name(i).as_bytes()).expect("sane").is_some(), "{i}");
        }
        assert_eq!(volume.find_entry(&inode, b"nothing").expect("sane"), None);
        assert_eq!(names(&mut volume, dir).len(), count as usize + 1);
        for i in (0..count).filter(|i| i % 3 != 0) {
            let inode = volume.inode(dir).expect("sane");
            let found = volume.find_entry(&inode, name(i).as_bytes()).expect("sane").expect("it is there");
            volume.operation(|v| v.unlink(dir, name(i).as_bytes(), NOW)).expect("it is there");
            volume.delete(found.inode, NOW).expect("deletes");
        }
        assert_eq!(names(&mut volume, dir).len(), count as usize / 3 + 1);
        assert_eq!(volume.operation(|v| v.unlink(ROOT, b"d", NOW)), Err(Errno::ENOTEMPTY));
        assert!(volume.inode(file).is_ok());
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));
    }
}

#[test]
fn scattered_blocks_make_deep_trees_that_can_be_cut() {
    for kind in KINDS {
        let disk = Arc::new(MemoryDisk::new(make(48, kind)));
        let mut volume = open(&disk);
        let file = volume.operation(|v| v.create(ROOT, b"f", &new(FileKind::Regular, b""))).expect("room").number;
        let mut random = Random(3);
        let mut model: BTreeMap<u32, u8> = BTreeMap::new();
        for n in 0..2500u32 {
            // Every other block, so that nothing joins.
            let at = random.below(3000) as u32 * 2;
            let data = vec![n as u8; volume.sb.block_size];
            write(&mut volume, file, at, &data).expect("room");
            model.insert(at, n as u8);
        }
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?} full"));
        let mut volume = open(&disk);
        let holds = |volume: &mut Volume, model: &BTreeMap<u32, u8>| {
            let data = read(volume, file);
            for (at, chunk) in data.chunks(volume.sb.block_size).enumerate() {
                let expected = model.get(&(at as u32)).copied().unwrap_or(0);
                assert!(chunk.iter().all(|&b| b == expected), "{kind:?} block {at}");
            }
        };
        holds(&mut volume, &model);
        // A hole in the middle.
        loop {
            let done = volume.operation(|v| {
                let mut inode = v.inode(file)?;
                let done = v.remove(&mut inode, 1000, 2000)?;
                v.put_inode(inode)?;
                Ok(done)
            });
            if done.expect("removes") {
                break;
            }
            volume.commit(NOW).expect("commits");
        }
        model.retain(|at, _| !(1000..=2000).contains(at));
        holds(&mut volume, &model);
        let size = 700 * volume.sb.block_size as u64;
        volume.truncate(file, size, NOW).expect("cuts");
        model.retain(|at, _| *at < 700);
        holds(&mut volume, &model);
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?} cut"));
        let mut volume = open(&disk);
        volume.operation(|v| v.unlink(ROOT, b"f", NOW)).expect("it is there");
        volume.close(NOW).expect("it closes, with an orphan");
        let mut volume = open(&disk);
        assert!(volume.orphans.is_empty(), "the orphan is gone");
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?} gone"));
    }
}

#[test]
fn attributes_fill_the_inode_and_then_a_block() {
    for kind in [KINDS[0], KINDS[3]] {
        let disk = Arc::new(MemoryDisk::new(make(32, kind)));
        let mut volume = open(&disk);
        let file = volume.operation(|v| v.create(ROOT, b"f", &new(FileKind::Regular, b""))).expect("room").number;
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut random = Random(11);
        let mut full = 0;
        for _ in 0..600 {
            let name = format!("user.name{}", random.below(25)).into_bytes();
            if random.below(4) == 0 {
                let result = volume.operation(|v| v.set_xattr(file, &name, None, SetMode::Replace, NOW));
                assert_eq!(result, if model.remove(&name).is_some() { Ok(()) } else { Err(Errno::ENODATA) });
                continue;
            }
            let value = vec![random.below(256) as u8; random.below(400)];
            match volume.operation(|v| v.set_xattr(file, &name, Some(&value), SetMode::Any, NOW)) {
                Ok(()) => drop(model.insert(name, value)),
                Err(error) => {
                    assert_eq!(error, Errno::ENOSPC);
                    full += 1;
                }
            }
        }
        assert!(full > 0, "it never was full");
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));
        let mut volume = open(&disk);
        for (name, value) in &model {
            assert_eq!(volume.xattr(file, name).as_ref(), Ok(value));
        }
        let mut names = volume.xattr_names(file).expect("sane");
        names.sort();
        assert_eq!(names, model.into_keys().collect::<Vec<_>>());
        volume.operation(|v| v.unlink(ROOT, b"f", NOW)).expect("it is there");
        volume.delete(file, NOW).expect("deletes");
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));
    }
}

/// Random operations on a few directories; what is acknowledged by a commit is in the first part of what it gives.
fn play(volume: &mut Volume, random: &mut Random, steps: usize) {
    let mut dirs = vec![ROOT];
    let pick = |random: &mut Random, dirs: &[u32]| dirs[random.below(dirs.len())];
    for step in 0..steps {
        let (dir, other) = (pick(random, &dirs), pick(random, &dirs));
        let (name, to) = (format!("n{}", random.below(60)), format!("n{}", random.below(60)));
        let (name, to) = (name.as_bytes(), to.as_bytes());
        let parent = volume.inode(dir).expect("sane");
        let found = volume.find_entry(&parent, name).expect("sane");
        let kind = found.map(|f| volume.inode(f.inode).expect("sane").kind().expect("sane"));
        match (random.below(10), found) {
            (0..3, None) => {
                let kinds = [FileKind::Regular, FileKind::Directory, FileKind::Symlink, FileKind::Fifo];
                let kind = kinds[random.below(4)];
                let made = volume.operation(|v| v.create(dir, name, &new(kind, b"somewhere/else")));
                if let (Ok(made), FileKind::Directory) = (made, kind) {
                    dirs.push(made.number);
                }
            }
            (3..6, Some(found)) if kind == Some(FileKind::Regular) => {
                let data = vec![step as u8; 1 + random.below(20_000)];
                let _ = write(volume, found.inode, random.below(50) as u32, &data);
            }
            (6, Some(found)) => {
                let result = volume.operation(|v| v.unlink(dir, name, NOW));
                if result.is_ok() && volume.inode(found.inode).expect("sane").links() == 0 {
                    dirs.retain(|d| *d != found.inode);
                    volume.delete(found.inode, NOW).expect("deletes");
                }
            }
            (7, Some(found)) if kind == Some(FileKind::Regular) => {
                volume.truncate(found.inode, random.below(100_000) as u64, NOW).expect("cuts");
            }
            (8, Some(found)) if kind != Some(FileKind::Directory) => {
                let target = volume.inode(other).expect("sane");
                if volume.find_entry(&target, to).expect("sane").is_none() {
                    volume.operation(|v| v.link(other, to, found.inode, NOW)).expect("room");
                }
            }
            (9, Some(found)) if kind != Some(FileKind::Directory) => {
                let target = volume.inode(other).expect("sane");
                let there = volume.find_entry(&target, to).expect("sane");
                let there_kind = there.map(|t| volume.inode(t.inode).expect("sane").kind().expect("sane"));
                if there.is_none_or(|t| t.inode != found.inode) && there_kind != Some(FileKind::Directory) {
                    volume.operation(|v| v.rename((dir, name), (other, to), NOW)).expect("room");
                    if let Some(there) = there
                        && volume.inode(there.inode).expect("sane").links() == 0
                    {
                        volume.delete(there.inode, NOW).expect("deletes");
                    }
                }
            }
            _ => {}
        }
        if volume.is_full() || random.below(40) == 0 {
            volume.commit(NOW).expect("commits");
        }
    }
}

#[test]
fn random_operations_leave_a_clean_image() {
    for (n, kind) in KINDS.into_iter().enumerate() {
        let disk = Arc::new(MemoryDisk::new(make(32, kind)));
        let mut volume = open(&disk);
        play(&mut volume, &mut Random(n as u64 + 1), 1500);
        volume.close(NOW).expect("it closes");
        check(&disk.image(), &format!("{kind:?}"));
    }
}

#[test]
fn after_a_power_loss_the_journal_makes_it_whole() {
    for kind in [KINDS[0], KINDS[1], KINDS[2], KINDS[5]] {
        for round in 0..4 {
            let what = format!("{kind:?} {round}");
            let disk = Arc::new(MemoryDisk::new(make(16, kind)));
            let mut volume = open(&disk);
            let mut random = Random(round * 77 + 5);
            play(&mut volume, &mut random, 200 + 150 * round as usize);
            drop(volume);
            let image = match round {
                0 => disk.after_power_loss(|| false),
                1 => disk.after_power_loss(|| true),
                _ => disk.after_power_loss(|| random.below(2) == 0),
            };
            let theirs = check_with_replay(&image, &what);
            let disk = Arc::new(MemoryDisk::new(image));
            let mut volume = open(&disk);
            let ours = names(&mut volume, ROOT);
            volume.close(NOW).expect("it closes");
            check(&disk.image(), &format!("{what}, recovered here"));
            let mut volume = open(&Arc::new(MemoryDisk::new(theirs)));
            assert_eq!(names(&mut volume, ROOT), ours, "{what}");
        }
    }
}

#[test]
fn a_failing_disk_makes_it_read_only_and_loses_nothing_older() {
    let disk = Arc::new(MemoryDisk::new(make(16, KINDS[0])));
    let mut volume = open(&disk);
    volume.operation(|v| v.create(ROOT, b"kept", &new(FileKind::Regular, b""))).expect("room");
    volume.commit(NOW).expect("commits");
    volume.operation(|v| v.create(ROOT, b"lost", &new(FileKind::Regular, b""))).expect("room");
    disk.writes_left.store(2, core::sync::atomic::Ordering::Relaxed);
    assert_eq!(volume.commit(NOW), Err(Errno::EIO));
    let again = volume.operation(|v| v.create(ROOT, b"refused", &new(FileKind::Regular, b"")));
    assert_eq!(again.map(|inode| inode.number), Err(Errno::EROFS));
    disk.writes_left.store(usize::MAX, core::sync::atomic::Ordering::Relaxed);
    let mut volume = open(&Arc::new(MemoryDisk::new(disk.image())));
    assert_eq!(names(&mut volume, ROOT), ["kept", "lost+found"]);
}

#[test]
fn a_full_disk_refuses_and_stays_clean() {
    let disk = Arc::new(MemoryDisk::new(make(8, KINDS[1])));
    let mut volume = open(&disk);
    let file = volume.operation(|v| v.create(ROOT, b"f", &new(FileKind::Regular, b""))).expect("room").number;
    let mut at = 0;
    let refused = loop {
        match write(&mut volume, file, at, &[1; 65536]) {
            Ok(()) => at += 64,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Errno::ENOSPC);
    let mut made = 0;
    while volume.operation(|v| v.create(ROOT, format!("d{made}").as_bytes(), &new(FileKind::Directory, b""))).is_ok() {
        made += 1;
    }
    volume.commit(NOW).expect("commits");
    volume.truncate(file, 0, NOW).expect("cuts");
    volume.commit(NOW).expect("commits");
    write(&mut volume, file, 0, &[2; 65536]).expect("there is room again");
    volume.close(NOW).expect("it closes");
    check(&disk.image(), "full");
}
