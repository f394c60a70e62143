//! `/sys/block/loopN/loop`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;

use base::Errno;

use super::{Bound, flag};
use crate::block::BlockDev;
use crate::procfs::{Node, dir, file};

/// The directory; `None` for what is no loop device, or has no file.
pub(in crate::block) fn directory(device: &Arc<BlockDev>) -> Option<Node> {
    device.loop_disk()?.bound()?;
    let about = |say: fn(&Bound) -> String| {
        let device = device.clone();
        file(move || {
            let bound = device.loop_disk().and_then(|disk| disk.bound()).ok_or(Errno::ENXIO)?;
            Ok(format!("{}\n", say(&bound)).into_bytes())
        })
    };
    let backing = {
        let device = device.clone();
        file(move || {
            let bound = device.loop_disk().and_then(|disk| disk.bound()).ok_or(Errno::ENXIO)?;
            let root = crate::vfs::mount::root().ok_or(Errno::ENOENT)?;
            let mut name = bound.open.path_name(&root);
            name.push(b'\n');
            Ok(name)
        })
    };
    Some(dir(vec![
        ("backing_file", backing),
        ("offset", about(|bound| format!("{}", bound.info.offset))),
        ("sizelimit", about(|bound| format!("{}", bound.info.size_limit))),
        ("autoclear", about(|bound| bit(bound, flag::AUTOCLEAR))),
        ("partscan", about(|bound| bit(bound, flag::PARTSCAN))),
        ("dio", about(|bound| bit(bound, flag::DIRECT_IO))),
    ]))
}

fn bit(bound: &Bound, bit: u32) -> String {
    String::from(if bound.info.flags & bit != 0 { "1" } else { "0" })
}
