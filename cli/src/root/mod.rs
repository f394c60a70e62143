//! Roots: what the guest finds at `/`. Each becomes one cpio archive, the initrd, with the guest's
//! PID 1 at its end. Those that cost work to make are kept in the cache.

mod builtin;
mod debian;
mod disk_image;
mod folder;
pub mod package;
mod tarball;

use crate::cache::Cache;
use crate::cpio::{Archive, Entry, kind};
use crate::disk::Disk;
use crate::failure::{Context, Failure};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tempfile::NamedTempFile;
use walkdir::WalkDir;

/// A choice of root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// Debian's busybox.
    Builtin,
    /// Debian with the usual tools, and with these packages, on a disk.
    Debian(Vec<String>),
    /// A folder, a tar file, or a disk image with a file system.
    Path(PathBuf),
}

impl FromStr for Root {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Root, Infallible> {
        Ok(match text {
            "builtin" => Root::Builtin,
            "debian" => Root::Debian(Vec::new()),
            text => match text.strip_prefix("debian,") {
                Some(packages) => Root::Debian(packages.split(',').map(str::to_owned).collect()),
                None => Root::Path(text.into()),
            },
        })
    }
}

/// What `quintet` adds to a root.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The guest's PID 1.
    pub init: PathBuf,
    /// Kernel modules for it to load, in order.
    pub modules: Vec<PathBuf>,
    /// The user's own files and folders, and where they go.
    pub copies: Vec<(PathBuf, String)>,
}

/// A finished initrd.
#[derive(Debug)]
pub struct Initrd {
    /// The disk that has the root, if it is not in the initrd.
    pub disk: Option<Disk>,
    /// The folder that is shown to the guest as its root, and whether the guest changes it.
    pub shared: Option<(PathBuf, bool)>,
    /// The archive.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Deletes an archive that is not kept.
    _temporary: Option<NamedTempFile>,
}

/// What an archive under construction is written to.
type Output = Archive<BufWriter<File>>;

/// Makes the initrd for a root. `keep`: what the guest writes to a root on a disk (Debian's too) or in a folder stays there. `shows`: the
/// kernel can have a folder as its root.
pub fn prepare(root: &Root, keep: bool, shows: bool, cache: &Cache, overlay: &Overlay) -> Result<Initrd, Failure> {
    match root {
        Root::Builtin if keep => {
            Err(Failure::new("--keep needs a root that is a disk image or a folder").advise("Write --root debian."))
        }
        Root::Builtin => cached(cache, "builtin", builtin::RECIPE, overlay, builtin::write),
        Root::Debian(packages) => {
            let file = cache.temporary()?;
            let mut archive = open_archive(&file, 0)?;
            disk_image::write(&mut archive)?;
            overlay.write_places(&mut archive)?;
            let size = finish(archive, overlay)?;
            let disk = Some(debian::disk(cache, packages, keep)?);
            Ok(Initrd { disk, shared: None, path: file.path().to_owned(), size, _temporary: Some(file) })
        }
        Root::Path(path) => {
            let metadata = fs::metadata(path).map_err(|error| {
                Failure::new(format!("cannot use the root {}", path.display())).because(error).advise(
                    "--root takes `builtin`, `debian`, `debian,PACKAGE,...`, a folder, a tar file or a disk image.",
                )
            })?;
            let file = cache.temporary()?;
            let mut archive = open_archive(&file, 0)?;
            let disk = disk_image::recognize(path, keep && !metadata.is_dir())?;
            let shared = (metadata.is_dir() && (keep || shows && folder::is_large(path))).then(|| (path.clone(), keep));
            if disk.is_some() || shared.is_some() {
                disk_image::write(&mut archive)?;
                overlay.write_places(&mut archive)?;
            } else if metadata.is_dir() {
                folder::write(path, Path::new("."), &mut archive)?;
            } else {
                tarball::write(path, &mut archive)?;
            }
            let size = finish(archive, overlay)?;
            Ok(Initrd { disk, shared, path: file.path().to_owned(), size, _temporary: Some(file) })
        }
    }
}

/// A root that is kept as `NAME-KEY-LENGTH-OVERLAY.cpio`: the root itself takes the first LENGTH
/// bytes, so another overlay can be put in the place of the one that follows.
fn cached(
    cache: &Cache,
    name: &str,
    recipe: &str,
    overlay: &Overlay,
    make: impl FnOnce(&mut Output) -> Result<(), Failure>,
) -> Result<Initrd, Failure> {
    let prefix = format!("{name}-{:016x}-", fingerprint(recipe.as_bytes()));
    let suffix = format!("-{:016x}.cpio", overlay.fingerprint()?);
    if let Some((path, _)) = find(cache, &prefix, &suffix) {
        return kept(path);
    }
    let _lock = cache.lock(name)?;
    if let Some((path, _)) = find(cache, &prefix, &suffix) {
        return kept(path);
    }
    let file = cache.temporary()?;
    let archive = match find(cache, &prefix, "") {
        Some((path, length)) => {
            let mut base = File::open(&path).or_fail(|| format!("cannot read {}", path.display()))?;
            std::io::copy(&mut std::io::Read::take(&mut base, length), &mut file.as_file())
                .or_fail(|| "cannot copy the root".into())?;
            (length, open_archive(&file, length)?)
        }
        None => {
            let mut archive = open_archive(&file, 0)?;
            make(&mut archive)?;
            (archive.offset(), archive)
        }
    };
    let (length, archive) = archive;
    finish(archive, overlay)?;
    remove_old(cache, name);
    kept(cache.keep(file, &format!("{prefix}{length}{suffix}"))?)
}

fn kept(path: PathBuf) -> Result<Initrd, Failure> {
    let size = fs::metadata(&path).or_fail(|| format!("cannot read {}", path.display()))?.len();
    Ok(Initrd { disk: None, shared: None, path, size, _temporary: None })
}

fn archives(cache: &Cache) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(cache.folder()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn find(cache: &Cache, prefix: &str, suffix: &str) -> Option<(PathBuf, u64)> {
    archives(cache).find_map(|name| {
        let rest = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let length = rest.split('-').next()?.parse().ok()?;
        Some((cache.path(&name), length))
    })
}

/// True for `-KEY-LENGTH-OVERLAY.cpio`: the name before it may be the beginning of another root's.
fn is_archive_of_root(rest: &str) -> bool {
    let Some(numbers) = rest.strip_prefix('-').and_then(|rest| rest.strip_suffix(".cpio")) else { return false };
    let fields: Vec<&str> = numbers.split('-').collect();
    fields.len() == 3 && fields.iter().all(|field| field.chars().all(|digit| digit.is_ascii_hexdigit()))
}

/// Keeps the archives used last: others may be starting from them, or come back to them.
fn remove_old(cache: &Cache, name: &str) {
    const KEPT: usize = 3;
    let mut old: Vec<_> = archives(cache)
        .filter(|file| file.strip_prefix(name).is_some_and(is_archive_of_root))
        .map(|file| cache.path(&file))
        .map(|path| (fs::metadata(&path).and_then(|metadata| metadata.modified()).ok(), path))
        .collect();
    old.sort();
    for (_, path) in old.iter().rev().skip(KEPT - 1) {
        // Left over at worst.
        let _ = fs::remove_file(path);
    }
}

fn open_archive(file: &NamedTempFile, offset: u64) -> Result<Output, Failure> {
    let mut handle = file.reopen().or_fail(|| "cannot open the new initrd".into())?;
    handle.seek(SeekFrom::Start(offset)).or_fail(|| "cannot seek in the new initrd".into())?;
    Ok(Archive::new(BufWriter::with_capacity(1 << 20, handle), offset))
}

fn finish(mut archive: Output, overlay: &Overlay) -> Result<u64, Failure> {
    overlay.write(&mut archive)?;
    let mut file = archive
        .finish()
        .and_then(|buffer| buffer.into_inner().map_err(|error| error.into_error()))
        .or_fail(|| "cannot write the initrd".into())?;
    file.flush().and_then(|()| file.stream_position()).or_fail(|| "cannot write the initrd".into())
}

impl Overlay {
    /// Changes when the overlay's files do.
    fn fingerprint(&self) -> Result<u64, Failure> {
        let mut text = String::new();
        let copies = self.copies.iter().map(|(file, _)| file);
        for (_, place) in &self.copies {
            text.push_str(&format!("{place}\n"));
        }
        for path in self.modules.iter().chain([&self.init]).chain(copies) {
            for found in WalkDir::new(path).follow_root_links(true).sort_by_file_name() {
                let metadata = found.and_then(|found| Ok((found.metadata()?, found.into_path())));
                let (metadata, path) = metadata.or_fail(|| format!("cannot read {}", path.display()))?;
                let (size, seconds, nanos) = (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
                text.push_str(&format!("{} {size} {seconds} {nanos}\n", path.display()));
            }
        }
        Ok(fingerprint(text.as_bytes()))
    }

    /// The folders that the user's files go to, where the initrd has no root: Linux makes nothing in a folder that is not named before.
    fn write_places(&self, archive: &mut Output) -> Result<(), Failure> {
        let folders = |place: &str| {
            let parents = Path::new(place.trim_start_matches('/')).ancestors().skip(1);
            parents.filter_map(|parent| parent.to_str()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let places: BTreeSet<String> =
            self.copies.iter().flat_map(|(_, place)| -> Vec<String> { folders(place) }).collect();
        places.iter().try_for_each(|place| add_folder(archive, place))
    }

    fn write(&self, archive: &mut Output) -> Result<(), Failure> {
        // A kernel opens the console, and Rust's run-time /dev/null, before PID 1 mounts anything.
        let nodes = [
            ("dev", kind::FOLDER | 0o755, (0, 0)),
            ("dev/console", kind::CHARACTER | 0o600, (5, 1)),
            ("dev/null", kind::CHARACTER | 0o666, (1, 3)),
            (".quintet", kind::FOLDER | 0o700, (0, 0)),
            (".quintet/modules", kind::FOLDER | 0o700, (0, 0)),
        ];
        for (name, mode, device) in nodes {
            let inode = archive.next_inode();
            let entry = Entry { inode, mode, links: 1, device, ..Entry::default() };
            archive.node(name.as_bytes(), entry).or_fail(|| "cannot write the initrd".into())?;
        }
        add_file(archive, ".quintet/init", &self.init, 0o700)?;
        for path in &self.modules {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            add_file(archive, &format!(".quintet/modules/{name}"), path, 0o600)?;
        }
        for (file, place) in &self.copies {
            let place = place.trim_start_matches('/');
            if file.is_dir() {
                folder::write(file, Path::new(place), archive)?;
                continue;
            }
            let mode = fs::metadata(file).map_or(0o644, |metadata| metadata.mode() & 0o777);
            add_file(archive, place, file, mode)?;
        }
        Ok(())
    }
}

fn add_folder(archive: &mut Output, name: &str) -> Result<(), Failure> {
    let inode = archive.next_inode();
    let entry = Entry { inode, mode: kind::FOLDER | 0o755, links: 1, ..Entry::default() };
    archive.node(name.as_bytes(), entry).or_fail(|| "cannot write the initrd".into())
}

fn add_file(archive: &mut Output, name: &str, path: &Path, mode: u32) -> Result<(), Failure> {
    let what = || format!("cannot copy {} to the initrd", path.display());
    let mut file = File::open(path).or_fail(what)?;
    let size = file.metadata().or_fail(what)?.len();
    let inode = archive.next_inode();
    let entry = Entry { inode, mode: kind::FILE | mode, links: 1, ..Entry::default() };
    archive.file(name.as_bytes(), entry, size, &mut file).or_fail(what)
}

/// FNV-1a: names cache entries, protects nothing.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
