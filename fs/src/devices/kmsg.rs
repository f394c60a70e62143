//! `/dev/kmsg`: what programs write goes to the kernel's log.

use alloc::string::String;

use base::{Errno, Result};
use mm::{Sink, Source};

use crate::{File, Io};

/// The longest record (Linux's LOG_LINE_MAX).
const RECORD_MAX: usize = 992;

pub(super) struct Kmsg;

impl File for Kmsg {
    fn read(&self, _sink: &mut Sink, io: &mut Io) -> Result<usize> {
        // There is never a new record for a reader: the log is read through syslog(2).
        if io.nonblocking() { Err(Errno::EAGAIN) } else { Err(Errno::EINVAL) }
    }

    fn write(&self, source: &mut Source, _io: &mut Io) -> Result<usize> {
        let len = source.remaining();
        if len > RECORD_MAX {
            return Err(Errno::EINVAL);
        }
        let mut record = [0; RECORD_MAX];
        if source.take(&mut record[..len])? < len {
            return Err(Errno::EFAULT);
        }
        log::info!("{}", String::from_utf8_lossy(record[..len].trim_ascii_end()));
        Ok(len)
    }
}
