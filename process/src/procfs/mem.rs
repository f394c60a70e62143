//! `mem`: the memory of a process as a file.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::PAGE_SIZE;
use base::{Errno, Result};
use fs::procfs::{Node, open_with};
use fs::{File, Io, SeekFrom};
use mm::{AddressSpace, Sink, Source};

use super::Subject;
use crate::inspect;

/// Keeps looking at the memory that the process had when it was opened: exec gives it another.
struct Memory(Arc<AddressSpace>);

fn buffer() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    page.try_reserve_exact(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
    page.resize(PAGE_SIZE, 0);
    Ok(page)
}

impl File for Memory {
    fn read(&self, sink: &mut Sink, io: &mut Io) -> Result<usize> {
        let mut page = buffer()?;
        let mut done = 0;
        while sink.remaining() > 0 {
            let Ok(at) = usize::try_from(io.offset.wrapping_add(done as u64)) else { break };
            let want = sink.remaining().min(PAGE_SIZE - at % PAGE_SIZE);
            let read = self.0.read_remote(at, &mut page[..want]);
            if read == 0 {
                break;
            }
            done += sink.put(&page[..read])?;
        }
        if done == 0 && sink.remaining() > 0 { Err(Errno::EIO) } else { Ok(done) }
    }

    fn write(&self, source: &mut Source, io: &mut Io) -> Result<usize> {
        let mut page = buffer()?;
        let mut done = 0;
        while source.remaining() > 0 {
            let Ok(at) = usize::try_from(io.offset.wrapping_add(done as u64)) else { break };
            let want = source.remaining().min(PAGE_SIZE - at % PAGE_SIZE);
            let taken = source.take(&mut page[..want])?;
            let written = self.0.write_remote(at, &page[..taken], true);
            done += written;
            if written < taken {
                break;
            }
        }
        if done == 0 && source.done() > 0 { Err(Errno::EIO) } else { Ok(done) }
    }

    fn positioned(&self) -> bool {
        true
    }

    fn seek(&self, to: SeekFrom, position: u64) -> Result<u64> {
        to.in_endless(position)
    }
}

/// The node; the right to look is checked when it is opened.
pub(super) fn node(subject: &Subject) -> Node {
    let subject = subject.clone();
    let open = move |_, _: &fs::FsContext| -> Result<Arc<dyn File>> {
        inspect::check_current(&subject.task)?;
        let space = subject.process().address_space().ok_or(Errno::ESRCH)?;
        Ok(Arc::new(Memory(space)))
    };
    open_with(open).mode(0o600)
}
