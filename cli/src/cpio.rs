//! Writes the archive that travels as the initrd: cpio "newc", uncompressed.
//!
//! The data of every file of a page or more starts at a multiple of 4096 bytes, so that the kernel
//! can map the file's pages where the loader put them. The padding is extra NULs at the end of the
//! name field, which every reader of the format skips. Of files with several names (same device,
//! same inode, more than one link) the first entry carries the data, the others are empty.

use std::io::{self, Read, Write};

/// A page.
const PAGE: u64 = 4096;
const HEADER: u64 = 110;
/// Linux refuses longer name fields.
const LONGEST_NAME: u64 = 4096;

/// File type bits of [`Entry::mode`].
pub mod kind {
    /// Folder.
    pub const FOLDER: u32 = 0o040_000;
    /// Regular file.
    pub const FILE: u32 = 0o100_000;
    /// Symbolic link.
    pub const LINK: u32 = 0o120_000;
    /// Character device.
    pub const CHARACTER: u32 = 0o020_000;
    /// Block device.
    pub const BLOCK: u32 = 0o060_000;
    /// Named pipe.
    pub const FIFO: u32 = 0o010_000;
    /// The mask of these bits.
    pub const MASK: u32 = 0o170_000;
}

/// What an archive says about a file besides its name and data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// Inode number; files with the same number and more than one link are one file.
    pub inode: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u32,
    /// Time of last modification.
    pub mtime: u32,
    /// Of a device node: major and minor number.
    pub device: (u32, u32),
}

/// Writes entries one after the other.
pub struct Archive<W> {
    out: W,
    offset: u64,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An archive that begins at `offset` of the output, which holds only whole entries so far.
    pub fn new(out: W, offset: u64) -> Archive<W> {
        // Numbers given here must not meet those that an earlier part of the archive used.
        Archive { out, offset, inode: 1 << 30 }
    }

    /// A number for a new inode.
    pub fn next_inode(&mut self) -> u32 {
        self.inode += 1;
        self.inode
    }

    /// Bytes written, those before this archive's begin included.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Adds a folder, device or named pipe: anything without data.
    pub fn node(&mut self, name: &[u8], entry: Entry) -> io::Result<()> {
        self.file(name, entry, 0, &mut io::empty())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &[u8], entry: Entry, target: &[u8]) -> io::Result<()> {
        self.file(name, entry, target.len() as u64, &mut &*target)
    }

    /// Adds a file with `size` bytes of data.
    pub fn file(&mut self, name: &[u8], entry: Entry, size: u64, data: &mut dyn Read) -> io::Result<()> {
        let size32 = u32::try_from(size)
            .map_err(|_| io::Error::other(format!("{}: larger than 4 GiB", String::from_utf8_lossy(name))))?;
        let name_length = name.len() as u64 + 1;
        if name_length > LONGEST_NAME {
            return Err(io::Error::other("a path is longer than 4095 bytes"));
        }
        let mut field = aligned_name(self.offset, name_length, size >= PAGE);
        if field > LONGEST_NAME {
            self.filler(field - LONGEST_NAME)?;
            field = aligned_name(self.offset, name_length, true);
        }
        self.header(&entry, size32, field)?;
        self.write(name)?;
        self.zeros(field - name.len() as u64)?;
        self.zeros((self.offset.wrapping_neg()) % 4)?;
        let copied = io::copy(&mut data.take(size), &mut self.out)?;
        self.offset += copied;
        // A file that shrinks while it is read must not shift what follows.
        self.zeros(size - copied)?;
        self.zeros((self.offset.wrapping_neg()) % 4)
    }

    /// An entry that says nothing new, `size` bytes long or a little more: it moves the next one on.
    fn filler(&mut self, size: u64) -> io::Result<()> {
        let root = Entry { mode: kind::FOLDER | 0o755, links: 2, ..Entry::default() };
        let field = size.max(4) + (HEADER + size.max(4)).wrapping_neg() % 4;
        self.header(&root, 0, field)?;
        self.write(b".")?;
        self.zeros(field - 1)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        let name = b"TRAILER!!!\0";
        self.header(&Entry { links: 1, ..Entry::default() }, 0, name.len() as u64)?;
        self.write(name)?;
        self.zeros(self.offset.wrapping_neg() % PAGE)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Leaves the archive open for another writer to go on.
    pub fn pause(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &Entry, size: u32, name_field: u64) -> io::Result<()> {
        let fields = [
            entry.inode,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.links,
            entry.mtime,
            size,
            0,
            0,
            entry.device.0,
            entry.device.1,
            name_field as u32,
            0,
        ];
        let mut text = String::from("070701");
        for field in fields {
            use std::fmt::Write;
            let _ = write!(text, "{field:08X}");
        }
        self.write(text.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        self.offset += io::copy(&mut io::repeat(0).take(count), &mut self.out)?;
        Ok(())
    }
}

/// The length of the name field that puts the data at a multiple of a page, if `pages`.
fn aligned_name(offset: u64, name_length: u64, pages: bool) -> u64 {
    if !pages {
        return name_length;
    }
    let data = (offset + HEADER + name_length).next_multiple_of(PAGE);
    data - offset - HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, size, offset of the data and links of each entry.
    fn parse(archive: &[u8]) -> Vec<(String, usize, usize, u32)> {
        let mut at = 0;
        let mut entries = Vec::new();
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let text = std::str::from_utf8(&archive[start..start + 8]).expect("text");
                usize::from_str_radix(text, 16).expect("number")
            };
            let (size, name_field) = (field(6), field(11));
            assert!(name_field as u64 <= LONGEST_NAME);
            let name = &archive[at + 110..at + 110 + name_field];
            assert_eq!(name.last(), Some(&0));
            let name = name.split(|byte| *byte == 0).next().expect("a name");
            let name = String::from_utf8(name.to_vec()).expect("text");
            let data = (at + 110 + name_field).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, size, data, field(4) as u32));
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn large_files_start_at_pages_wherever_they_fall() {
        for before in (0..9000).step_by(37) {
            let mut archive = Archive::new(Vec::new(), 0);
            let entry = Entry { mode: kind::FILE | 0o644, links: 1, ..Entry::default() };
            archive.file(b"small", entry, before, &mut io::repeat(1)).expect("memory");
            archive.file(&[b'n'; 200], entry, 5000, &mut io::repeat(2)).expect("memory");
            archive.link(b"link", entry, b"small").expect("memory");
            let bytes = archive.finish().expect("memory");
            assert_eq!(bytes.len() % 4096, 0);
            let entries: Vec<_> = parse(&bytes).into_iter().filter(|(name, ..)| name != ".").collect();
            assert_eq!(entries.len(), 3);
            assert_eq!(entries[1].2 % 4096, 0);
            assert!(bytes[entries[1].2..][..5000].iter().all(|byte| *byte == 2));
            assert_eq!(&bytes[entries[2].2..][..5], b"small");
        }
    }

    #[test]
    fn a_file_that_shrank_is_padded() {
        let mut archive = Archive::new(Vec::new(), 0);
        archive.file(b"f", Entry::default(), 10, &mut &b"abc"[..]).expect("memory");
        let entries = parse(&archive.finish().expect("memory"));
        assert_eq!((entries[0].1, entries.len()), (10, 1));
    }
}
