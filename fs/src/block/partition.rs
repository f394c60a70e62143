//! Partition tables: the PC's master boot record, with logical partitions, and the GUID partition table (UEFI 2.10, section 5.3).

use alloc::vec;
use alloc::vec::Vec;

use base::Result;

use super::BlockIo;

/// A partition: its number as in `/dev/vdaN`, and where it is, in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// From 1 on.
    pub number: u32,
    /// First sector.
    pub start: u64,
    /// How many.
    pub sectors: u64,
}

/// The most partitions of a disk that are used.
const MAX: u32 = 128;
const SECTOR: u64 = 512;

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// The partitions of a disk; none where there is no table that makes sense. `EIO`.
pub fn read(disk: &dyn BlockIo) -> Result<Vec<Partition>> {
    let block = u64::from(disk.logical_block());
    let end = disk.size() / SECTOR;
    if disk.size() < 2 * block {
        return Ok(Vec::new());
    }
    let mut first = vec![0; block as usize];
    disk.read(0, &mut first)?;
    if first[510] != 0x55 || first[511] != 0xaa {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> = (0..4).map(|i| Entry::parse(&first[446 + 16 * i..])).collect();
    if entries.iter().any(|entry| entry.kind == 0xee) {
        return gpt(disk, block);
    }
    // A FAT or NTFS boot sector ends in the same signature: a table has only 0 and 0x80 as its status bytes.
    if entries.iter().any(|entry| entry.status & 0x7f != 0) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let scale = block / SECTOR;
    for (i, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.kind != 0 && entry.blocks != 0) {
        let (start, sectors) = (u64::from(entry.start) * scale, u64::from(entry.blocks) * scale);
        if entry.is_extended() {
            // What shows of an extended partition itself is its first two sectors, as on Linux.
            add(&mut found, Partition { number: i as u32 + 1, start, sectors: sectors.min(2) }, end);
            logical(disk, u64::from(entry.start), &mut found)?;
        } else {
            add(&mut found, Partition { number: i as u32 + 1, start, sectors }, end);
        }
    }
    Ok(found)
}

fn add(found: &mut Vec<Partition>, partition: Partition, end: u64) {
    let fits = partition.start.checked_add(partition.sectors).is_some_and(|last| last <= end);
    if fits && partition.sectors > 0 && partition.number <= MAX {
        found.push(partition);
    }
}

/// An entry of a master boot record.
struct Entry {
    status: u8,
    kind: u8,
    start: u32,
    blocks: u32,
}

impl Entry {
    fn parse(bytes: &[u8]) -> Entry {
        Entry { status: bytes[0], kind: bytes[4], start: le32(bytes, 8), blocks: le32(bytes, 12) }
    }

    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// Follows the chain of extended boot records from block `base`.
fn logical(disk: &dyn BlockIo, base: u64, found: &mut Vec<Partition>) -> Result<()> {
    let block = u64::from(disk.logical_block());
    let scale = block / SECTOR;
    let mut at = base;
    for number in 5..=MAX {
        let mut record = vec![0; block as usize];
        if (at + 1) * block > disk.size() {
            break;
        }
        disk.read(at * block, &mut record)?;
        if record[510] != 0x55 || record[511] != 0xaa {
            break;
        }
        let (own, next) = (Entry::parse(&record[446..]), Entry::parse(&record[462..]));
        if own.kind != 0 && own.blocks != 0 {
            let start = (at + u64::from(own.start)) * scale;
            add(found, Partition { number, start, sectors: u64::from(own.blocks) * scale }, disk.size() / SECTOR);
        }
        if !next.is_extended() || next.blocks == 0 {
            break;
        }
        at = base + u64::from(next.start);
    }
    Ok(())
}

/// Reads the primary table, or the backup at the end of the disk where that is damaged.
fn gpt(disk: &dyn BlockIo, block: u64) -> Result<Vec<Partition>> {
    let last = disk.size() / block - 1;
    for header_at in [1, last] {
        if let Some(found) = gpt_at(disk, block, header_at)? {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn gpt_at(disk: &dyn BlockIo, block: u64, header_at: u64) -> Result<Option<Vec<Partition>>> {
    let mut header = vec![0; block as usize];
    disk.read(header_at * block, &mut header)?;
    let size = le32(&header, 12) as usize;
    if &header[..8] != b"EFI PART" || !(92..=header.len()).contains(&size) || le64(&header, 24) != header_at {
        return Ok(None);
    }
    let sum = le32(&header, 16);
    header[16..20].fill(0);
    if crc32(&header[..size]) != sum {
        return Ok(None);
    }
    let (table, count, entry) = (le64(&header, 72), le32(&header, 80), le32(&header, 84) as usize);
    if count > 1024 || !(128..=4096).contains(&entry) {
        return Ok(None);
    }
    let bytes = count as usize * entry;
    let whole = bytes.next_multiple_of(block as usize);
    let fits =
        table.checked_mul(block).and_then(|at| at.checked_add(whole as u64)).is_some_and(|end| end <= disk.size());
    if !fits {
        return Ok(None);
    }
    let mut entries = vec![0; whole];
    disk.read(table * block, &mut entries)?;
    if crc32(&entries[..bytes]) != le32(&header, 88) {
        return Ok(None);
    }
    let scale = block / SECTOR;
    let mut found = Vec::new();
    for (i, e) in entries[..bytes].chunks_exact(entry).enumerate() {
        let (first, last) = (le64(e, 32), le64(e, 40));
        if e[..16].iter().all(|&b| b == 0) || last < first {
            continue;
        }
        let range = first.checked_mul(scale).zip((last - first).checked_add(1).and_then(|n| n.checked_mul(scale)));
        if let Some((start, sectors)) = range {
            add(&mut found, Partition { number: i as u32 + 1, start, sectors }, disk.size() / SECTOR);
        }
    }
    Ok(Some(found))
}

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::*;

    fn entry(image: &mut [u8], at: usize, kind: u8, start: u32, blocks: u32) {
        image[at + 4] = kind;
        image[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        image[at + 12..at + 16].copy_from_slice(&blocks.to_le_bytes());
    }

    fn sign(image: &mut [u8], sector: usize) {
        image[sector * 512 + 510] = 0x55;
        image[sector * 512 + 511] = 0xaa;
    }

    fn partition(number: u32, start: u64, sectors: u64) -> Partition {
        Partition { number, start, sectors }
    }

    #[test]
    fn primary_and_logical_partitions() {
        let mut image = vec![0; 2048 * 512];
        sign(&mut image, 0);
        entry(&mut image, 446, 0x83, 64, 100);
        entry(&mut image, 462, 0x05, 1000, 500);
        sign(&mut image, 1000);
        entry(&mut image, 1000 * 512 + 446, 0x83, 10, 90);
        entry(&mut image, 1000 * 512 + 462, 0x05, 200, 300);
        sign(&mut image, 1200);
        entry(&mut image, 1200 * 512 + 446, 0x83, 5, 295);
        // Past the end of the disk: not used.
        entry(&mut image, 478, 0x83, 2000, 100);
        let found = read(&MemoryDisk::new(image));
        let expected = [partition(1, 64, 100), partition(2, 1000, 2), partition(5, 1010, 90), partition(6, 1205, 295)];
        assert_eq!(found.as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn a_chain_that_leads_back_to_itself_ends() {
        let mut image = vec![0; 64 * 512];
        sign(&mut image, 0);
        entry(&mut image, 446, 0x05, 10, 20);
        sign(&mut image, 10);
        entry(&mut image, 10 * 512 + 446, 0x83, 1, 2);
        entry(&mut image, 10 * 512 + 462, 0x05, 0, 20);
        assert!(read(&MemoryDisk::new(image)).is_ok_and(|found| found.len() as u32 <= MAX));
    }

    fn with_gpt() -> Vec<u8> {
        let mut image = vec![0; 4096 * 512];
        sign(&mut image, 0);
        entry(&mut image, 446, 0xee, 1, 4095);
        let mut table = vec![0u8; 128 * 128];
        for (i, (first, last)) in [(100u64, 199u64), (200, 4000)].into_iter().enumerate() {
            table[i * 128] = 0x0f;
            table[i * 128 + 32..i * 128 + 40].copy_from_slice(&first.to_le_bytes());
            table[i * 128 + 40..i * 128 + 48].copy_from_slice(&last.to_le_bytes());
        }
        for (header_at, table_at) in [(1usize, 2usize), (4095, 4063)] {
            image[table_at * 512..][..table.len()].copy_from_slice(&table);
            let mut header = vec![0; 92];
            header[..8].copy_from_slice(b"EFI PART");
            header[12..16].copy_from_slice(&92u32.to_le_bytes());
            header[24..32].copy_from_slice(&(header_at as u64).to_le_bytes());
            header[72..80].copy_from_slice(&(table_at as u64).to_le_bytes());
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
            let sum = crc32(&header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
            image[header_at * 512..][..92].copy_from_slice(&header);
        }
        image
    }

    #[test]
    fn a_damaged_primary_table_gives_way_to_the_backup() {
        let expected = [partition(1, 100, 100), partition(2, 200, 3801)];
        let mut image = with_gpt();
        assert_eq!(read(&MemoryDisk::new(image.clone())).as_deref(), Ok(&expected[..]));
        image[512 + 30] ^= 1;
        assert_eq!(read(&MemoryDisk::new(image.clone())).as_deref(), Ok(&expected[..]));
        image[4063 * 512 + 33] ^= 1;
        assert_eq!(read(&MemoryDisk::new(image)).as_deref(), Ok(&[][..]));
    }

    #[test]
    fn nothing_that_a_disk_holds_is_taken_without_its_check() {
        let mut seed = 7u64;
        for _ in 0..200 {
            let mut image = with_gpt();
            for _ in 0..20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % 2048;
                image[at] = (seed >> 20) as u8;
            }
            // Whatever it finds, it ends and does not panic.
            let _ = read(&MemoryDisk::new(image));
        }
    }
}
