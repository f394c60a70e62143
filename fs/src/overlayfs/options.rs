//! The mount options.

use alloc::boxed::Box;
use alloc::vec::Vec;

use base::{Errno, Result};

use super::LAYERS_MAX;

/// Whether renamed directories remember what they hide, and whether what they remember is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Redirect {
    /// Directories of lower layers are not renamed (`EXDEV`).
    Off,
    /// Not renamed, but what others renamed is followed: the default.
    #[default]
    Follow,
    /// Neither renamed nor followed.
    NoFollow,
    /// Renamed and followed.
    On,
}

/// How inode numbers of several file systems are kept apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Xino {
    /// By the device: the default.
    #[default]
    Off,
    /// By the upper bits, where all file systems are known to leave these free.
    Auto,
    /// By the upper bits.
    On,
}

/// The options of an instance.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Options {
    pub(super) lowers: Vec<Box<[u8]>>,
    lower_text: Vec<u8>,
    pub(super) upper: Option<Box<[u8]>>,
    pub(super) work: Option<Box<[u8]>>,
    pub(super) redirect: Redirect,
    pub(super) xino: Xino,
    /// Our own attributes are in the name space `user.`.
    pub(super) user_xattr: bool,
    /// Nothing is made to last.
    pub(super) volatile: bool,
    metacopy: bool,
}

/// Cuts `text` at each `separator` that no backslash precedes.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, &byte) in text.iter().enumerate() {
        if byte == separator && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Takes the backslashes away.
fn unescape(text: &[u8]) -> Box<[u8]> {
    let mut plain = Vec::new();
    let mut escaped = false;
    for &byte in text {
        escaped = byte == b'\\' && !escaped;
        if !escaped {
            plain.push(byte);
        }
    }
    plain.into_boxed_slice()
}

fn on_off(value: &[u8]) -> Result<bool> {
    match value {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}

impl Options {
    /// Reads mount(2)'s data. `EINVAL`.
    pub(super) fn parse(data: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        for option in split(data, b',').into_iter().filter(|option| !option.is_empty()) {
            let cut = option.iter().position(|&b| b == b'=');
            let (name, value) = cut.map_or((option, None), |at| (&option[..at], Some(&option[at + 1..])));
            options.set(name, value)?;
        }
        options.check()?;
        Ok(options)
    }

    fn set(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        match (name, value) {
            (b"lowerdir", Some(value)) => {
                self.lowers = split(value, b':').into_iter().map(unescape).collect();
                self.lower_text = value.to_vec();
            }
            (b"lowerdir+", Some(value)) => self.add_lower(value),
            (b"upperdir", Some(value)) => self.upper = Some(unescape(value)),
            (b"workdir", Some(value)) => self.work = Some(unescape(value)),
            (b"redirect_dir", Some(b"on")) => self.redirect = Redirect::On,
            (b"redirect_dir", Some(b"off")) => self.redirect = Redirect::Off,
            (b"redirect_dir", Some(b"follow")) => self.redirect = Redirect::Follow,
            (b"redirect_dir", Some(b"nofollow")) => self.redirect = Redirect::NoFollow,
            (b"xino", Some(b"on")) => self.xino = Xino::On,
            (b"xino", Some(b"auto")) => self.xino = Xino::Auto,
            (b"xino", Some(b"off")) => self.xino = Xino::Off,
            // Data is always copied along, which is a choice that metacopy leaves open.
            (b"metacopy", Some(value)) => self.metacopy = on_off(value)?,
            (b"index" | b"nfs_export", Some(b"off")) => {}
            (b"uuid", Some(b"on" | b"off" | b"null" | b"auto")) => {}
            (b"verity", Some(b"off")) => {}
            (b"userxattr", None) => self.user_xattr = true,
            (b"volatile", None) => self.volatile = true,
            (b"default_permissions", None) => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// One layer more, whose name is as it stands (fsconfig(2)).
    fn add_lower(&mut self, value: &[u8]) {
        if !self.lower_text.is_empty() {
            self.lower_text.push(b':');
        }
        for &byte in value {
            if matches!(byte, b':' | b'\\') {
                self.lower_text.push(b'\\');
            }
            self.lower_text.push(byte);
        }
        self.lowers.push(value.into());
    }

    fn check(&mut self) -> Result<()> {
        let empty = |path: &Option<Box<[u8]>>| path.as_ref().is_some_and(|path| path.is_empty());
        if self.lowers.is_empty() || self.lowers.iter().any(|path| path.is_empty()) || self.lowers.len() > LAYERS_MAX {
            return Err(Errno::EINVAL);
        }
        if empty(&self.upper) || empty(&self.work) {
            return Err(Errno::EINVAL);
        }
        if self.user_xattr && (self.metacopy || self.redirect == Redirect::On) {
            return Err(Errno::EINVAL);
        }
        match &self.upper {
            Some(_) if self.work.is_none() => return Err(Errno::EINVAL),
            None => self.work = None,
            Some(_) => {}
        }
        Ok(())
    }

    /// Are renamed directories to remember what they hide?
    pub(super) fn redirects(&self) -> bool {
        self.redirect == Redirect::On
    }

    /// Are redirections followed?
    pub(super) fn follows(&self) -> bool {
        matches!(self.redirect, Redirect::On | Redirect::Follow) && !self.user_xattr
    }

    /// As `/proc/mounts` shows them, each with a leading comma.
    pub(super) fn show(&self, has_upper: bool, xino: bool) -> Vec<u8> {
        let mut text = b",lowerdir=".to_vec();
        text.extend_from_slice(&self.lower_text);
        if has_upper {
            for (name, path) in [(&b",upperdir="[..], &self.upper), (b",workdir=", &self.work)] {
                text.extend_from_slice(name);
                text.extend_from_slice(path.as_deref().unwrap_or_default());
            }
        }
        match self.redirect {
            Redirect::On => text.extend_from_slice(b",redirect_dir=on"),
            Redirect::Off => text.extend_from_slice(b",redirect_dir=off"),
            Redirect::NoFollow => text.extend_from_slice(b",redirect_dir=nofollow"),
            Redirect::Follow => {}
        }
        let flags: [(bool, &[u8]); 4] = [
            (xino, b",xino=on"),
            (self.metacopy, b",metacopy=on"),
            (self.volatile, b",volatile"),
            (self.user_xattr, b",userxattr"),
        ];
        flags.iter().filter(|(set, _)| *set).for_each(|(_, name)| text.extend_from_slice(name));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_separated_by_colons_that_are_not_escaped() {
        let options = Options::parse(b"lowerdir=/a:/b\\:c:/d\\,e,upperdir=/u,workdir=/w").expect("right");
        let lowers: Vec<&[u8]> = options.lowers.iter().map(|path| &**path).collect();
        assert_eq!(lowers, [&b"/a"[..], b"/b:c", b"/d,e"]);
        assert_eq!(options.show(true, false), b",lowerdir=/a:/b\\:c:/d\\,e,upperdir=/u,workdir=/w");
    }

    #[test]
    fn what_is_wrong_or_unknown_is_refused() {
        let wrong: [&[u8]; 9] = [
            b"",
            b"lowerdir=",
            b"lowerdir=/a:",
            b"lowerdir=/a,upperdir=/u",
            b"lowerdir=/a,what",
            b"lowerdir=/a,index=on",
            b"lowerdir=/a,redirect_dir=maybe",
            b"lowerdir=/a,upperdir=/u,workdir=/w,userxattr,redirect_dir=on",
            b"lowerdir=/a,metacopy=yes",
        ];
        for data in wrong {
            assert_eq!(Options::parse(data), Err(Errno::EINVAL), "{}", alloc::string::String::from_utf8_lossy(data));
        }
        assert!(Options::parse(b"lowerdir=/a,workdir=/w").expect("useless, but right").work.is_none());
    }
}
