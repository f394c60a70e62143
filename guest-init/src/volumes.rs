//! Folders of the host, over virtio-9p or virtiofs.

use crate::mounts;
use protocol::Volume;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::{CStr, OsStr};
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Others may change the folder too: nothing is kept of it.
const OPTIONS: &CStr = c"trans=virtio,version=9p2000.L,msize=135168";

/// Mounts what the host shows, making the folders that are missing.
pub(crate) fn mount_all(volumes: &[Volume]) -> Result<(), String> {
    volumes.iter().try_for_each(|volume| {
        let place = Path::new(OsStr::from_bytes(&volume.place));
        let said = |error: &dyn std::fmt::Display| format!("cannot mount the volume at {}: {error}", place.display());
        DirBuilder::new().recursive(true).mode(0o755).create(place).map_err(|error| said(&error))?;
        let flags = if volume.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_one(OsStr::from_bytes(&volume.tag), place, flags).map_err(|error| said(&error))
    })
}

fn mount_one(tag: &OsStr, place: &Path, flags: MountFlags) -> Result<(), Errno> {
    match mount(tag, place, mounts::NINEP, flags, Some(OPTIONS)) {
        // No 9P server has the tag, or there is none at all.
        Err(Errno::NOENT | Errno::NODEV) => mount(tag, place, "virtiofs", flags, None),
        mounted => mounted,
    }
}
