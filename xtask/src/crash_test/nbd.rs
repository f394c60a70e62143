//! A disk behind the Network Block Device protocol that keeps what was flushed apart from what was only written, so that a power loss
//! can be played: what was not flushed arrives in part, in any order, or not at all.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// The disk has flags, and takes flushes.
const FLAGS: u16 = 1 | 4;
const SECTOR: usize = 512;

/// The disk's contents.
pub(super) struct Disk {
    /// As who reads sees them.
    now: Vec<u8>,
    /// As they were at the last flush, and what was written since.
    flushed: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
    pub(super) flushes: usize,
}

impl Disk {
    pub(super) fn new(image: Vec<u8>) -> Disk {
        Disk { flushed: image.clone(), now: image, unflushed: Vec::new(), flushes: 0 }
    }

    /// What is on the disk after a crash of the machine alone: everything that was written.
    pub(super) fn after_kill(&self) -> Vec<u8> {
        self.now.clone()
    }

    /// What is on the disk after the power failed: what was flushed, and sectors written since then as `keep` says.
    pub(super) fn after_power_loss(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let mut image = self.flushed.clone();
        for (offset, data) in &self.unflushed {
            for (i, sector) in data.chunks(SECTOR).enumerate() {
                if keep() {
                    let at = offset + i * SECTOR;
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }

    fn flush(&mut self) {
        self.flushes += 1;
        for (offset, data) in self.unflushed.drain(..) {
            self.flushed[offset..offset + data.len()].copy_from_slice(&data);
        }
    }
}

/// Serves the disk to one client on a socket at `path`, until the client goes.
pub(super) fn serve(path: &Path, disk: &Arc<Mutex<Disk>>) -> io::Result<JoinHandle<()>> {
    let listener = UnixListener::bind(path)?;
    let disk = disk.clone();
    Ok(thread::spawn(move || {
        if let Ok((mut client, _)) = listener.accept() {
            // The client is killed in the middle of what it says: that is how it ends.
            let _ = negotiate(&mut client, &disk).and_then(|()| transmit(&mut client, &disk));
        }
    }))
}

fn lock(disk: &Mutex<Disk>) -> std::sync::MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read<const N: usize>(client: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn negotiate(client: &mut UnixStream, disk: &Mutex<Disk>) -> io::Result<()> {
    let size = lock(disk).now.len() as u64;
    // Fixed new style, without zeros.
    client.write_all(&[&b"NBDMAGICIHAVEOPT"[..], &3u16.to_be_bytes()].concat())?;
    read::<4>(client)?;
    loop {
        if u64::from_be_bytes(read(client)?) != OPTION_MAGIC {
            return Err(io::Error::other("the client speaks another protocol"));
        }
        let option = u32::from_be_bytes(read(client)?);
        let mut data = vec![0; u32::from_be_bytes(read(client)?) as usize];
        client.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let head = [&OPTION_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()].concat();
            client.write_all(&[&head[..], &(data.len() as u32).to_be_bytes(), data].concat())
        };
        match option {
            1 => return client.write_all(&[&size.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat()),
            6 | 7 => {
                reply(3, &[&[0, 0][..], &size.to_be_bytes(), &FLAGS.to_be_bytes()].concat())?;
                reply(1, &[])?;
                if option == 7 {
                    return Ok(());
                }
            }
            _ => reply(1 << 31 | 1, &[])?,
        }
    }
}

fn transmit(client: &mut UnixStream, disk: &Mutex<Disk>) -> io::Result<()> {
    loop {
        let head: [u8; 28] = read(client)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(0) != REQUEST {
            return Err(io::Error::other("the client sent nonsense"));
        }
        let kind = u16::from_be_bytes([head[6], head[7]]);
        let (offset, len) = ((u64::from(word(16)) << 32 | u64::from(word(20))) as usize, word(24) as usize);
        let mut error = 0u32;
        let mut answer = Vec::new();
        match kind {
            0 => match lock(disk).now.get(offset..offset + len) {
                Some(data) => answer = data.to_vec(),
                None => error = 5,
            },
            1 => {
                let mut data = vec![0; len];
                client.read_exact(&mut data)?;
                let mut disk = lock(disk);
                match disk.now.get_mut(offset..offset + len) {
                    Some(to) => {
                        to.copy_from_slice(&data);
                        disk.unflushed.push((offset, data));
                    }
                    None => error = 5,
                }
            }
            2 => return Ok(()),
            3 => lock(disk).flush(),
            _ => error = 22,
        }
        let reply = [&REPLY.to_be_bytes()[..], &error.to_be_bytes(), &head[8..16], &answer];
        client.write_all(&reply.concat())?;
    }
}
