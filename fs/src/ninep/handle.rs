//! Handles of open files: reading and writing a message's worth at a time.

use alloc::sync::Arc;

use base::Result;
use mm::{Sink, Source};

use super::node::Node;
use super::session::{Fid, Span};
use crate::Inode;
use crate::remote::{Moved, Remote};

/// An open file's handle.
pub(super) struct Handle(pub(super) Arc<Fid>);

impl Remote for Handle {
    fn read_some(&self, sink: &mut Sink, offset: u64) -> Result<Moved> {
        let wanted = sink.remaining().min(self.0.session().data_max());
        let spans = Span::allocate(wanted)?;
        let got = self.0.read(offset, &spans)?;
        let mut put = 0;
        for span in &spans {
            let len = span.len.min(got - put);
            if len == 0 {
                break;
            }
            match sink.put_frame(&span.frame, 0, len) {
                Ok(n) => put += n,
                Err(_) if put > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Moved { bytes: put, whole: put == wanted })
    }

    fn write_some(&self, source: &mut Source, offset: u64) -> Result<Moved> {
        let wanted = source.remaining().min(self.0.session().data_max());
        let mut spans = Span::allocate(wanted)?;
        let (mut taken, mut filled) = (0, 0);
        for span in &mut spans {
            let len = span.len;
            span.len = match source.take_frame(&span.frame, 0, len) {
                Ok(n) => n,
                Err(_) if taken > 0 => break,
                Err(error) => return Err(error),
            };
            taken += span.len;
            filled += 1;
            if span.len < len {
                break;
            }
        }
        let bytes = self.0.write(offset, &spans[..filled])?;
        Ok(Moved { bytes, whole: bytes == wanted })
    }

    fn ask(&self, inode: &Inode) -> Result<()> {
        // The server goes by names: without one any more, the file has the size that is known.
        let _ = Node::of(inode)?.ask(inode);
        Ok(())
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.0.sync(data_only)
    }
}
