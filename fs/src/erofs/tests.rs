//! Images made by mkfs.erofs. Where there is no mkfs.erofs, there is nothing to test with.

extern crate std;

use std::process::Command;
use std::vec::Vec;

use super::*;
use crate::block::MemoryDisk;
use crate::image::testing;

fn image(options: &[&str]) -> Option<Vec<u8>> {
    testing::pack(|tree, out| {
        let mut command = Command::new("mkfs.erofs");
        command.args(options).args([out, tree]);
        command
    })
}

/// Ways of making images. What a mkfs.erofs does not know is left out: those before 1.6 have neither fragments nor LZMA.
const PLAIN: [&[&str]; 3] = [&[], &["-Enoinline_data"], &["--chunksize=8192"]];
const COMPRESSED: [&[&str]; 21] = [
    &["-zlz4"],
    &["-zlz4hc,9"],
    &["-zlz4hc,level=12", "-C65536"],
    &["-zlz4", "-C16384"],
    &["-zlz4", "-C1048576"],
    &["-zlz4", "--max-extent-bytes=8192"],
    &["-zlz4", "-Elegacy-compress"],
    &["-zlz4hc", "-Elegacy-compress,force-inode-extended"],
    &["-zlz4", "-C65536", "-Elegacy-compress"],
    &["-zlz4", "-Eztailpacking"],
    &["-zlz4hc", "-C65536", "-Eztailpacking,force-inode-extended"],
    &["-zlz4", "-Eztailpacking,legacy-compress"],
    &["-zlz4", "-Efragments"],
    &["-zlz4", "-C65536", "-Efragments,ztailpacking"],
    &["-zlz4", "-Eall-fragments"],
    &["-zlz4", "-Ededupe"],
    &["-zlz4hc", "-C65536", "-Ededupe,fragments,ztailpacking"],
    &["-zlzma", "-C65536"],
    &["-zlzma,level=9,dictsize=65536", "-C1048576", "-Eall-fragments,dedupe"],
    &["-zlzma", "-Ededupe,ztailpacking"],
    &["-zlz4", "-b512", "-C4096"],
];

fn open(bytes: Vec<u8>) -> Result<Erofs> {
    Erofs::open(Arc::new(MemoryDisk::new(bytes)))
}

#[test]
fn images_read_back_however_they_were_made() {
    for options in PLAIN.iter().chain(&COMPRESSED) {
        if let Some(bytes) = image(options) {
            testing::check_whole(&open(bytes).unwrap_or_else(|error| panic!("{options:?}: {error:?}")));
        }
    }
}

fn exercise(bytes: Vec<u8>) {
    if let Ok(image) = open(bytes) {
        testing::visit_all(&image);
    }
}

#[test]
fn damaged_images_are_errors_and_nothing_worse() {
    for (options, rounds) in
        PLAIN.iter().map(|options| (options, 60)).chain(COMPRESSED.iter().map(|options| (options, 8)))
    {
        if let Some(bytes) = image(options) {
            testing::check_damaged(&options.join(" "), &bytes, rounds, exercise);
        }
    }
}
