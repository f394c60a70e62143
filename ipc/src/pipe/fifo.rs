//! Opening FIFOs (fifo(7)).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use base::{Errno, Result};
use fs::{Access, File, Inode, OpenFlags};
use sched::{Sleep, WaitQueue};

use super::{Pipe, PipeEnd};

/// Opens the FIFO: for one direction, waits until somebody opens it for the other, or (with O_NONBLOCK) doesn't wait to read and gives
/// `ENXIO` to write. `ERESTARTSYS`.
pub fn open(inode: &Arc<Inode>, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let pipe = inode.attach_or_get(Pipe::new).ok_or(Errno::ENXIO)?;
    let access = flags.access();
    let nonblocking = flags.contains(OpenFlags::NONBLOCK);
    if access.is_empty() {
        return Err(Errno::EINVAL);
    }
    // A pipe opened again through /proc has been open at both ends: there is nobody to wait for.
    let nameless = inode.superblock().magic == fs::vfs::pseudo::PIPES.magic();
    if access == Access::WRITE && nonblocking && !nameless && !pipe.has_readers() {
        return Err(Errno::ENXIO);
    }
    let (reads, writes) = (pipe.reader_opens.load(Ordering::SeqCst), pipe.writer_opens.load(Ordering::SeqCst));
    let mut end = PipeEnd::new(pipe.clone(), inode.clone(), access);
    if access == Access::READ && !nameless && !pipe.has_writers() {
        if nonblocking {
            // No hang-up until there has been a writer.
            end.writers_seen = writes;
        } else {
            wait_for_open(&pipe.data, &pipe.writer_opens, writes)?;
        }
    }
    if access == Access::WRITE && !nameless && !pipe.has_readers() {
        wait_for_open(&pipe.room, &pipe.reader_opens, reads)?;
    }
    Ok(Arc::new(end))
}

fn wait_for_open(queue: &WaitQueue, opens: &AtomicU32, seen: u32) -> Result<()> {
    let opened = || (opens.load(Ordering::SeqCst) != seen).then_some(());
    Ok(queue.wait_until(Sleep::Interruptible, None, opened)?)
}
