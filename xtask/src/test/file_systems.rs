//! ABI tests on file systems that the others don't run on: their folders are on a disk, in an overlay, in a folder of the host.

use super::disk::tool;
use super::{Selection, Tally};
use crate::build;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A file system, how the guest gets to `/mnt`, and the themes whose cases have to pass there.
struct Place {
    name: &'static str,
    /// mke2fs's options, for one on a disk.
    disk: &'static [&'static str],
    /// Without a disk, how a folder of the host is shown.
    shown: &'static str,
    mount: &'static str,
    themes: &'static str,
}

const THEMES: &str = "files:: folders:: mmap_file:: acl:: model::";

const PLACES: &[Place] = &[
    Place {
        name: "file systems: ext4",
        disk: &["-t", "ext4", "-b", "4096"],
        shown: "",
        mount: "mount -t ext4 /dev/vda /mnt",
        themes: THEMES,
    },
    Place {
        name: "file systems: ext4 with blocks of 1024 bytes, all data in the journal",
        disk: &["-t", "ext4", "-b", "1024"],
        shown: "",
        mount: "mount -t ext4 -o data=journal /dev/vda /mnt",
        themes: "model::",
    },
    Place {
        name: "file systems: ext2",
        disk: &["-t", "ext2"],
        shown: "",
        mount: "mount -t ext2 /dev/vda /mnt",
        themes: "model::",
    },
    Place {
        name: "file systems: overlayfs",
        disk: &[],
        shown: "",
        mount: "mkdir /tmp/l /tmp/u /tmp/w && mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w o /mnt",
        themes: THEMES,
    },
    Place { name: "file systems: 9p", disk: &[], shown: "", mount: "true", themes: "model::" },
    Place { name: "file systems: virtiofs", disk: &[], shown: ":virtiofs", mount: "true", themes: "model:: files::" },
];

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let folder = std::env::temp_dir().join(format!("quintet-places-{}", std::process::id()));
    for place in PLACES.iter().filter(|place| selection.takes(place.name)) {
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        tally.note(place.name, &judge(place, &folder));
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(tally)
}

fn judge(place: &Place, folder: &Path) -> Result<(), String> {
    let program = build::for_guest("abi-tests")?;
    let image = folder.join("disk.img");
    let mut command = Command::new(build::quintet());
    command.args(["run", "--cpus", "2", "--timeout", "280", "--copy"]).arg(format!("{}:/abi-tests", program.display()));
    if place.disk.is_empty() {
        command.arg("-v").arg(format!("{}:/mnt{}", folder.display(), place.shown));
    } else {
        fs::write(&image, vec![0; 256 << 20]).map_err(|error| error.to_string())?;
        tool("mke2fs", &[&["-q", "-F"], place.disk].concat(), &image)?;
        command.arg("--disk").arg(&image);
    }
    let script = format!(
        "{} && chmod 1777 /mnt && for theme in {}; do TMPDIR=/mnt /abi-tests --scale 5 $theme; done; umount /mnt",
        place.mount, place.themes
    );
    let output = command.args(["--", "sh", "-c", &script]).output();
    let output = output.map_err(|error| format!("cannot start quintet: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> = said.lines().filter(|line| line.starts_with("not ok")).collect();
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    if !wrong.is_empty() || passed == 0 {
        return Err(format!("{passed} passed; {}\n{}", wrong.join("\n"), String::from_utf8_lossy(&output.stderr)));
    }
    if place.disk.is_empty() { Ok(()) } else { tool("e2fsck", &["-fn"], &image) }
}
