//! Images made by mksquashfs. Where there is no mksquashfs, there is nothing to test with.

extern crate std;

use std::process::Command;
use std::vec::Vec;

use alloc::sync::Arc;

use super::*;
use crate::block::MemoryDisk;
use crate::image::testing;

fn image(compression: &str) -> Option<Vec<u8>> {
    testing::pack(|tree, out| {
        let mut command = Command::new("mksquashfs");
        command.args([tree, out]).args(["-comp", compression, "-noappend", "-quiet", "-no-progress"]);
        command
    })
}

fn open(bytes: Vec<u8>) -> Result<Squashfs> {
    Squashfs::open(Arc::new(MemoryDisk::new(bytes)))
}

#[test]
fn every_compression_reads_back() {
    for bytes in ["gzip", "xz", "lz4", "zstd"].into_iter().filter_map(image) {
        testing::check_whole(&open(bytes).expect("an image"));
    }
}

#[test]
fn damaged_images_are_errors_and_nothing_worse() {
    for bytes in ["gzip", "xz", "lz4", "zstd"].into_iter().filter_map(image) {
        testing::check_damaged(&bytes, 60, open);
    }
}
