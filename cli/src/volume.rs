//! Folders of this machine that the guest gets to see, over virtio-9p or virtiofs.

use crate::failure::{Context, Failure};
use crate::machine::Model;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder and where the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The folder here.
    pub host: PathBuf,
    /// Its place in the guest.
    pub guest: String,
    /// The guest may not write.
    pub read_only: bool,
    /// It is shown over virtiofs, by a process of its own.
    pub virtiofs: bool,
}

/// Parses `HOST:GUEST[:ro|:rw|:virtiofs]`.
pub fn parse(text: &str) -> Result<Volume, String> {
    let (places, how) = match ["ro", "rw", "virtiofs"].map(|how| text.strip_suffix(how)?.strip_suffix(':')) {
        [Some(rest), ..] => (rest, "ro"),
        [_, Some(rest), _] => (rest, "rw"),
        [.., Some(rest)] => (rest, "virtiofs"),
        _ => (text, "rw"),
    };
    match places.rsplit_once(":/") {
        Some((host, guest)) if !host.is_empty() && !guest.is_empty() => Ok(Volume {
            host: host.into(),
            guest: format!("/{guest}"),
            read_only: how == "ro",
            virtiofs: how == "virtiofs",
        }),
        _ => Err("write HOST:/PATH/IN/THE/GUEST, with :ro behind it if the guest may not write".into()),
    }
}

/// What the guest knows its root by.
pub(crate) const ROOT_TAG: &str = "quintet.root";

impl Volume {
    /// Fails where the folder can't be shown.
    pub fn check(&self) -> Result<(), Failure> {
        let what = || format!("cannot use the volume {}", self.host.display());
        let metadata = fs::metadata(&self.host).or_fail(what)?;
        if metadata.is_dir() { Ok(()) } else { Err(Failure::new(what()).because("it is not a folder")) }
    }

    /// What the guest knows the `index`th volume by.
    pub fn tag(index: usize) -> String {
        format!("quintet.{index}")
    }

    /// QEMU's options for the `index`th volume, which is shown over 9P.
    pub fn arguments(&self, model: Model, index: usize) -> [(&'static str, OsString); 2] {
        arguments(&self.host, self.read_only, model, &Volume::tag(index))
    }

    /// What the guest's PID 1 has to mount.
    pub fn message(&self, index: usize) -> protocol::Volume {
        let (tag, place) = (Volume::tag(index).into_bytes(), self.guest.as_bytes().to_vec());
        protocol::Volume { tag, place, read_only: self.read_only }
    }
}

/// QEMU's options for the `index`th volume, which virtiofsd shows at a socket.
pub(crate) fn virtiofs_arguments(socket: &Path, model: Model, index: usize) -> [(&'static str, OsString); 2] {
    let mut line = OsString::from(format!("socket,id=virtiofs{index},path="));
    line.push(socket);
    let bus = match model {
        Model::Q35 => "pci",
        Model::Microvm => "device",
    };
    let device = format!("vhost-user-fs-{bus},chardev=virtiofs{index},tag={}", Volume::tag(index));
    [("-chardev", line), ("-device", device.into())]
}

/// QEMU's options to show a folder under a tag, over 9P.
pub(crate) fn arguments(folder: &Path, read_only: bool, model: Model, tag: &str) -> [(&'static str, OsString); 2] {
    let name: String = tag.replace('.', "-");
    let mut backend = OsString::from(format!("local,id={name},security_model=none,multidevs=remap"));
    if read_only {
        backend.push(",readonly=on");
    }
    backend.push(",path=");
    // A comma would end the name.
    let path = folder.as_os_str().as_bytes().split(|&b| b == b',').collect::<Vec<_>>().join(&b",,"[..]);
    backend.push(std::ffi::OsStr::from_bytes(&path));
    let bus = match model {
        Model::Q35 => "pci",
        Model::Microvm => "device",
    };
    [("-fsdev", backend), ("-device", format!("virtio-9p-{bus},fsdev={name},mount_tag={tag}").into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_separated_by_the_last_colon_before_a_slash() {
        let volume = |host: &str, guest: &str, read_only| Volume {
            host: host.into(),
            guest: guest.into(),
            read_only,
            virtiofs: false,
        };
        assert_eq!(parse("/a:/b"), Ok(volume("/a", "/b", false)));
        assert_eq!(parse("a:b:/c/d:ro"), Ok(volume("a:b", "/c/d", true)));
        assert_eq!(parse(".:/c:rw"), Ok(volume(".", "/c", false)));
        assert_eq!(parse("/a:/b:virtiofs"), Ok(Volume { virtiofs: true, ..volume("/a", "/b", false) }));
        for wrong in ["/a", "/a:b", ":/b", "/a:/", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_comma_in_a_name_does_not_end_it() {
        let [(_, backend), (_, device)] = parse("/x,y:/z:ro").expect("right").arguments(Model::Microvm, 1);
        assert_eq!(backend, "local,id=quintet-1,security_model=none,multidevs=remap,readonly=on,path=/x,,y");
        assert_eq!(device, "virtio-9p-device,fsdev=quintet-1,mount_tag=quintet.1");
    }
}
