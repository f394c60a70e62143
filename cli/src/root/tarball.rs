//! A tar file as root, plain or compressed, with owners, modes, links and devices as it says.

use super::Output;
use crate::cpio::{Entry, kind};
use crate::failure::{Context, Failure};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use tar::EntryType;

/// First bytes of a compressed file, and what unpacks it.
const COMPRESSIONS: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];

/// Writes the tar file's contents.
pub(super) fn write(path: &Path, archive: &mut Output) -> Result<(), Failure> {
    let what = || format!("cannot use {} as a root", path.display());
    let mut file = decompressed(path)?;
    let linked = link_targets(&file).or_fail(what)?;
    file.rewind().or_fail(what)?;
    Converter { archive, linked, inodes: HashMap::new(), folders: HashSet::new() }.convert(&file).map_err(|error| {
        Failure::new(what())
            .because(error)
            .advise("--root takes `builtin`, `debian`, a folder, a tar file or a disk image.")
    })
}

/// The file itself, or its contents in a temporary file.
fn decompressed(path: &Path) -> Result<File, Failure> {
    let what = || format!("cannot read {}", path.display());
    let mut file = File::open(path).or_fail(what)?;
    let mut head = Vec::new();
    file.by_ref().take(6).read_to_end(&mut head).or_fail(what)?;
    file.rewind().or_fail(what)?;
    let Some((_, program)) = COMPRESSIONS.iter().find(|(magic, _)| head.starts_with(magic)) else {
        return Ok(file);
    };
    let mut plain = tempfile::tempfile().or_fail(what)?;
    let out = plain.try_clone().or_fail(what)?;
    let status = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::from(file))
        .stdout(out)
        .status()
        .or_fail(|| format!("cannot run {program} to unpack {}", path.display()))?;
    if !status.success() {
        return Err(Failure::new(what()).because(format!("{program}: {status}")));
    }
    plain.rewind().or_fail(what)?;
    Ok(plain)
}

/// The names that later hard links refer to: their inodes have to say so from the start.
fn link_targets(file: &File) -> io::Result<HashMap<Vec<u8>, u32>> {
    let mut targets = HashMap::new();
    let mut tar = tar::Archive::new(file);
    for entry in tar.entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type() == EntryType::Link
            && let Some(target) = entry.link_name_bytes()
        {
            *targets.entry(clean(&target)?).or_insert(1) += 1;
        }
    }
    Ok(targets)
}

/// A path without `.`, empty parts or a leading slash; `.` for the root itself.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        let path = String::from_utf8_lossy(path);
        return Err(io::Error::other(format!("the path {path} leaves the archive")));
    }
    Ok(if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') })
}

struct Converter<'a> {
    archive: &'a mut Output,
    linked: HashMap<Vec<u8>, u32>,
    inodes: HashMap<Vec<u8>, Entry>,
    folders: HashSet<Vec<u8>>,
}

impl Converter<'_> {
    fn convert(&mut self, file: &File) -> io::Result<()> {
        let mut tar = tar::Archive::new(BufReader::with_capacity(256 << 10, file));
        for entry in tar.entries()? {
            self.add(&mut entry?)?;
        }
        Ok(())
    }

    fn add(&mut self, source: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
        let name = clean(&source.path_bytes())?;
        let header = source.header();
        let type_bits = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => kind::FILE,
            EntryType::Directory => kind::FOLDER,
            EntryType::Symlink => kind::LINK,
            EntryType::Char => kind::CHARACTER,
            EntryType::Block => kind::BLOCK,
            EntryType::Fifo => kind::FIFO,
            EntryType::Link => return self.add_hard_link(&name, source),
            _ => return Ok(()),
        };
        let mut entry = Entry {
            inode: self.archive.next_inode(),
            mode: type_bits | header.mode()? & 0o7777,
            uid: header.uid()? as u32,
            gid: header.gid()? as u32,
            links: self.linked.get(&name).copied().unwrap_or(1),
            mtime: u32::try_from(header.mtime()?).unwrap_or(0),
            device: (0, 0),
        };
        if matches!(type_bits, kind::CHARACTER | kind::BLOCK) {
            entry.device = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
        }
        self.add_parents(&name)?;
        if entry.links > 1 {
            self.inodes.insert(name.clone(), entry);
        }
        match type_bits {
            kind::FILE => {
                let size = source.size();
                self.archive.file(&name, entry, size, source)
            }
            kind::LINK => {
                let target = source.link_name_bytes().unwrap_or_default().into_owned();
                self.archive.link(&name, entry, &target)
            }
            kind::FOLDER => {
                self.folders.insert(name.clone());
                self.archive.node(&name, entry)
            }
            _ => self.archive.node(&name, entry),
        }
    }

    fn add_hard_link(&mut self, name: &[u8], source: &tar::Entry<'_, impl Read>) -> io::Result<()> {
        let target = clean(&source.link_name_bytes().unwrap_or_default())?;
        let Some(entry) = self.inodes.get(&target).copied() else {
            let (name, target) = (String::from_utf8_lossy(name), String::from_utf8_lossy(&target));
            return Err(io::Error::other(format!("{name} is a link to {target}, which is missing")));
        };
        self.add_parents(name)?;
        // Links may form chains.
        self.inodes.insert(name.to_vec(), entry);
        self.archive.node(name, entry)
    }

    /// Adds the folders that the tar file takes for granted.
    fn add_parents(&mut self, name: &[u8]) -> io::Result<()> {
        let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends {
            let parent = &name[..end];
            if self.folders.insert(parent.to_vec()) {
                let inode = self.archive.next_inode();
                let mode = kind::FOLDER | 0o755;
                self.archive.node(parent, Entry { inode, mode, links: 2, ..Entry::default() })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let clean = |path: &str| clean(path.as_bytes()).map(|path| String::from_utf8_lossy(&path).into_owned());
        assert_eq!(clean("./a//b/").ok().as_deref(), Some("a/b"));
        assert_eq!(clean("/a").ok().as_deref(), Some("a"));
        assert_eq!(clean("./").ok().as_deref(), Some("."));
        assert!(clean("a/../../b").is_err());
        assert!(clean("a..b/..c").is_ok());
    }
}
