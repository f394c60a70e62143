//! What a mount of procfs shows, by its options (proc(5)): `hidepid`, `gid`, `subset`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;

use super::{Node, PidRoot};
use crate::SuperOps;
use crate::callers::caller;

/// Whose processes others see.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Hide {
    /// All.
    #[default]
    Off,
    /// All, but not into them.
    NoAccess,
    /// Those that one may look into.
    Invisible,
    /// The same, whatever one's group.
    NotPtraceable,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Options {
    hide: Hide,
    /// Who is in it sees all, but for [`Hide::NotPtraceable`].
    gid: u32,
    /// `subset=pid`: nothing but processes.
    pids_only: bool,
}

impl Options {
    /// Changes what a comma-separated list says. `EINVAL`.
    fn parse(mut self, list: &[u8]) -> Result<Options> {
        for option in list.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            let text = core::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
            match text.split_once('=').ok_or(Errno::EINVAL)? {
                ("hidepid", "0" | "off") => self.hide = Hide::Off,
                ("hidepid", "1" | "noaccess") => self.hide = Hide::NoAccess,
                ("hidepid", "2" | "invisible") => self.hide = Hide::Invisible,
                ("hidepid", "4" | "ptraceable") => self.hide = Hide::NotPtraceable,
                ("gid", number) => self.gid = number.parse().map_err(|_| Errno::EINVAL)?,
                ("subset", "pid") => self.pids_only = true,
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(self)
    }

    fn show(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.gid != 0 {
            text.extend_from_slice(alloc::format!(",gid={}", self.gid).as_bytes());
        }
        text.extend_from_slice(match self.hide {
            Hide::Off => b"",
            Hide::NoAccess => b",hidepid=noaccess",
            Hide::Invisible => b",hidepid=invisible",
            Hide::NotPtraceable => b",hidepid=ptraceable",
        });
        if self.pids_only {
            text.extend_from_slice(b",subset=pid");
        }
        text
    }
}

/// What a mount shows.
pub(super) struct View(SpinLock<Options>);

impl View {
    /// `EINVAL` for options that it doesn't know.
    pub(super) fn new(options: &[u8]) -> Result<View> {
        Ok(View(SpinLock::new(Options::default().parse(options)?)))
    }

    /// Is that entry of the root shown?
    pub(super) fn shows(&self, entry: &str) -> bool {
        !self.0.lock().pids_only || ["self", "thread-self"].contains(&entry)
    }

    /// May the caller look into a process, where that is hidden from `least` on?
    fn allows(&self, pids: &dyn PidRoot, name: &[u8], least: Hide) -> bool {
        let Options { hide, gid, .. } = *self.0.lock();
        if hide < least {
            return true;
        }
        let in_group = || caller().is_none_or(|caller| caller.cred.in_group(gid));
        hide != Hide::NotPtraceable && in_group() || pids.may_inspect(name)
    }

    /// Is a process listed?
    pub(super) fn lists(&self, pids: &dyn PidRoot, name: &[u8]) -> bool {
        self.allows(pids, name, Hide::Invisible)
    }

    /// The directory of a process, as far as the caller is to see it.
    pub(super) fn guard(self: &Arc<View>, pids: &'static dyn PidRoot, name: &[u8], node: Node) -> Option<Node> {
        if !self.lists(pids, name) {
            return None;
        }
        let (view, name) = (self.clone(), name.to_vec());
        let check = move |_| if view.allows(pids, &name, Hide::NoAccess) { Ok(()) } else { Err(Errno::EPERM) };
        Some(node.check(check))
    }
}

/// A mount's own part.
pub(super) struct Instance(pub(super) Arc<View>);

impl SuperOps for Instance {
    fn show_options(&self) -> Vec<u8> {
        self.0.0.lock().show()
    }

    fn reconfigure(&self, _read_only: bool, data: &[u8]) -> Result<()> {
        let mut options = self.0.0.lock();
        *options = options.parse(data)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_shown() {
        let parse = |list: &[u8]| Options::default().parse(list);
        assert_eq!(parse(b""), Ok(Options::default()));
        let all = parse(b"hidepid=2,gid=7,subset=pid").expect("good options");
        assert_eq!(all, Options { hide: Hide::Invisible, gid: 7, pids_only: true });
        assert_eq!(all.show(), b",gid=7,hidepid=invisible,subset=pid");
        assert_eq!(all.parse(b"hidepid=off").map(|options| options.show()), Ok(b",gid=7,subset=pid".to_vec()));
        for bad in [b"hidepid".as_slice(), b"hidepid=3", b"hidepid=ptrace", b"gid=x", b"subset=net", b"size=1"] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{}", bad.escape_ascii());
        }
    }
}
