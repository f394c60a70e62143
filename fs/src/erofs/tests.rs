//! Images made by mkfs.erofs. Where there is no mkfs.erofs, there is nothing to test with.

extern crate std;

use std::process::Command;
use std::vec::Vec;

use super::*;
use crate::block::MemoryDisk;
use crate::image::testing;

fn image() -> Option<Vec<u8>> {
    testing::pack(|tree, out| {
        let mut command = Command::new("mkfs.erofs");
        command.args([out, tree]);
        command
    })
}

fn open(bytes: Vec<u8>) -> Result<Erofs> {
    Erofs::open(Arc::new(MemoryDisk::new(bytes)))
}

#[test]
fn an_image_reads_back() {
    if let Some(bytes) = image() {
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
    if let Some(bytes) = image() {
        testing::check_damaged("erofs", &bytes, 300, exercise);
    }
}
