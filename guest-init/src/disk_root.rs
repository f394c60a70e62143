//! A root on a disk, or a folder of the host: mounts it and makes it the root of everything, with what is mounted already moved into it.

use crate::mounts;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, mount_remount, unmount};
use rustix::process::{chdir, chroot};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

/// The word of the kernel's command line that names the device; `shared:TAG` is a folder of the host, `below:TAG` one that is not
/// changed.
const WORD: &str = "quintet.root=";
const PLACE: &str = "/newroot";
/// The file systems that are tried: those that can be written, and those of images that can't.
const KINDS: [&str; 1] = ["ext4"];
const IMAGES: [&str; 2] = ["squashfs", "erofs"];

/// The device that has the root, if it is on one. `/proc` is mounted.
pub(crate) fn device() -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace().find_map(|word| word.strip_prefix(WORD)).map(str::to_owned)
}

/// Makes the file system on `device` the root.
pub(crate) fn enter(device: &str) -> io::Result<()> {
    mounts::make_folder(PLACE, 0o755);
    match device.split_once(':') {
        Some(("shared", tag)) => mount_folder(tag, PLACE).map_err(|error| named(tag, error))?,
        Some(("below", tag)) => mount_layered(|place| mount_folder(tag, place)).map_err(|error| named(tag, error))?,
        _ => mount_any(device)
            .or_else(|error| mount_image(device).map_err(|_| error))
            .map_err(|error| named(device, error))?,
    }
    move_files(Path::new("/"), 0)?;
    for place in mounts::PLACES {
        let target = format!("{PLACE}{place}");
        mounts::make_folder(&target, 0o755);
        match mount_move(*place, &target) {
            // Not mounted, or below one that moved already.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(named(place, error)),
        }
    }
    chdir(PLACE)?;
    mount_move(".", "/")?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn named(what: &str, error: Errno) -> io::Error {
    io::Error::other(format!("{what} as the root: {error}"))
}

/// Nobody else changes it meanwhile, so names and pages are kept.
fn mount_folder(tag: &str, place: &str) -> Result<(), Errno> {
    mount(tag, place, mounts::NINEP, MountFlags::empty(), Some(c"trans=virtio,version=9p2000.L,cache=loose"))
}

/// What `mount_lower` mounts, with a layer on top, in memory, that takes what is written.
fn mount_layered(mount_lower: impl FnOnce(&str) -> Result<(), Errno>) -> Result<(), Errno> {
    let (lower, layer) = ("/newroot.lower", "/newroot.layer");
    mounts::make_folder(lower, 0o755);
    mounts::make_folder(layer, 0o755);
    mount_lower(lower)?;
    mount("tmpfs", layer, "tmpfs", MountFlags::empty(), Some(c"mode=755"))?;
    for part in ["upper", "work"] {
        mounts::make_folder(&format!("{layer}/{part}"), 0o755);
    }
    let options = c"lowerdir=/newroot.lower,upperdir=/newroot.layer/upper,workdir=/newroot.layer/work";
    mount("overlay", PLACE, "overlay", MountFlags::empty(), Some(options))?;
    // The layers stay with the overlay, and with nobody else.
    [lower, layer].iter().try_for_each(|place| unmount(*place, UnmountFlags::DETACH))
}

/// An image that can't be written.
fn mount_image(device: &str) -> Result<(), Errno> {
    mount_layered(|place| {
        let mut kinds = IMAGES.iter();
        let one = |kind: &str| mount(device, place, kind, MountFlags::RDONLY, None).is_ok();
        if kinds.any(|kind| one(kind)) { Ok(()) } else { Err(Errno::INVAL) }
    })
}

fn mount_any(device: &str) -> Result<(), Errno> {
    let mut result = Err(Errno::INVAL);
    for kind in KINDS {
        for flags in [MountFlags::empty(), MountFlags::RDONLY] {
            result = mount(device, PLACE, kind, flags, None);
            if result != Err(Errno::ROFS) && result != Err(Errno::ACCESS) {
                break;
            }
        }
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Moves the user's files (`quintet run --copy`) below `folder` from the initrd to the root: folders, links and files, with their modes
/// and owners.
fn move_files(folder: &Path, depth: u32) -> io::Result<()> {
    // The initrd has few folders, none of them deep.
    if depth > 64 {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let skipped = ["/dev", "/proc", "/sys", "/run", "/.quintet", "/newroot.lower", "/newroot.layer", PLACE];
        if skipped.iter().any(|skipped| path == Path::new(skipped)) {
            continue;
        }
        let target = PathBuf::from(format!("{PLACE}{}", path.display()));
        let told = |error: io::Error| io::Error::other(format!("copying {}: {error}", path.display()));
        if kind.is_dir() {
            make_folder(&path, &target).map_err(told)?;
            move_files(&path, depth + 1)?;
            continue;
        }
        if kind.is_symlink() {
            let _ = fs::remove_file(&target);
            symlink(fs::read_link(&path)?, &target).map_err(told)?;
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(told)?;
            let owner = entry.metadata()?;
            chown(&target, Some(owner.uid()), Some(owner.gid())).map_err(told)?;
        }
        // Twice it would take memory for nothing.
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// A folder like that of the initrd, where there is none yet.
fn make_folder(like: &Path, target: &Path) -> io::Result<()> {
    match fs::create_dir(target) {
        Ok(()) => {
            let wanted = fs::metadata(like)?;
            chown(target, Some(wanted.uid()), Some(wanted.gid()))?;
            fs::set_permissions(target, wanted.permissions())
        }
        // A link to a folder will do as well.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && target.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Before the machine is switched off: the root is marked as clean.
pub(crate) fn leave() {
    // Busy on Linux if somebody still writes: then its journal makes up for it.
    let _ = mount_remount("/", MountFlags::RDONLY, c"");
}
