//! Images made by mksquashfs. Where there is no mksquashfs, there is nothing to test with.

extern crate std;

use std::process::Command;
use std::vec::Vec;

use alloc::sync::Arc;

use super::*;
use crate::block::MemoryDisk;
use crate::image::testing;

fn image(compression: &str, options: &[&str]) -> Option<Vec<u8>> {
    testing::pack(|tree, out| {
        let mut command = Command::new("mksquashfs");
        command.args([tree, out]).args(["-comp", compression, "-noappend", "-quiet", "-no-progress"]).args(options);
        command
    })
}

const COMPRESSIONS: [&str; 4] = ["gzip", "xz", "lz4", "zstd"];

fn open(bytes: Vec<u8>) -> Result<Squashfs> {
    Squashfs::open(Arc::new(MemoryDisk::new(bytes)))
}

#[test]
fn every_compression_reads_back() {
    for bytes in COMPRESSIONS.into_iter().filter_map(|name| image(name, &[])) {
        testing::check_whole(&open(bytes).expect("an image"));
    }
}

fn exercise(bytes: Vec<u8>) {
    if let Ok(image) = open(bytes) {
        testing::visit_all(&image);
    }
}

#[test]
fn damaged_images_are_errors_and_nothing_worse() {
    for name in COMPRESSIONS {
        if let Some(bytes) = image(name, &[]) {
            testing::check_damaged(name, &bytes, 60, exercise);
        }
    }
}

/// Where nothing is compressed, it is the structures that are damaged.
#[test]
fn damaged_structures_are_errors_and_nothing_worse() {
    if let Some(bytes) = image("gzip", &["-noI", "-noD", "-noF", "-noX"]) {
        testing::check_damaged("plain", &bytes, 400, exercise);
    }
}
