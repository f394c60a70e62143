//! Disk images that the guest gets as `/dev/vda`, `/dev/vdb`, ...

use crate::failure::{Context, Failure};
use crate::machine::Model;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::str::FromStr;

/// A disk image and how the guest may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image's file, or an address such as `nbd:unix:SOCKET` that QEMU knows.
    pub image: String,
    /// The guest may not write.
    pub read_only: bool,
    /// What the guest writes is gone when it ends.
    pub snapshot: bool,
}

impl FromStr for Disk {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Disk, Infallible> {
        let mut disk = Disk { image: text.to_owned(), read_only: false, snapshot: false };
        loop {
            if let Some(rest) = disk.image.strip_suffix(":ro") {
                (disk.image, disk.read_only) = (rest.to_owned(), true);
            } else if let Some(rest) = disk.image.strip_suffix(":snapshot") {
                (disk.image, disk.snapshot) = (rest.to_owned(), true);
            } else {
                return Ok(disk);
            }
        }
    }
}

/// The guest's name for the `index`th disk.
pub fn name(index: usize) -> String {
    let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
    match index.checked_sub(26) {
        None => format!("vd{}", letter(index)),
        Some(rest) => format!("vd{}{}", letter(rest / 26), letter(rest)),
    }
}

/// What a qcow2 file begins with.
const QCOW2_MAGIC: &[u8; 4] = b"QFI\xfb";

impl Disk {
    fn is_remote(&self) -> bool {
        self.image.starts_with("nbd:") || self.image.starts_with("nbd+unix:")
    }

    /// The image's format, by its first bytes. Fails where the file can't be used as the options want it.
    pub fn format(&self) -> Result<&'static str, Failure> {
        if self.is_remote() {
            return Ok("raw");
        }
        let writes = !self.read_only && !self.snapshot;
        let what = || format!("cannot use the disk image {}", self.image);
        let mut file = File::options().read(true).write(writes).open(&self.image).or_fail(what)?;
        let mut start = Vec::new();
        file.by_ref().take(4).read_to_end(&mut start).or_fail(what)?;
        Ok(if start == QCOW2_MAGIC { "qcow2" } else { "raw" })
    }

    /// QEMU's options for the disk, the `index`th.
    pub fn arguments(&self, model: Model, cpus: u16, index: usize, format: &str) -> [(&'static str, OsString); 2] {
        let on = |yes: bool| if yes { "on" } else { "off" };
        let file = self.image.replace(',', ",,");
        let drive = format!(
            "if=none,id=disk{index},file={file},format={format},readonly={},snapshot={},discard=unmap",
            on(self.read_only),
            on(self.snapshot)
        );
        let device = match model {
            Model::Q35 => format!("virtio-blk-pci,drive=disk{index},serial=disk{index},num-queues={cpus}"),
            Model::Microvm => format!("virtio-blk-device,drive=disk{index},serial=disk{index},num-queues={cpus}"),
        };
        [("-drive", drive.into()), ("-device", device.into())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_by_letters() {
        assert_eq!([0, 25, 26, 53].map(name), ["vda", "vdz", "vdaa", "vdbb"]);
    }

    #[test]
    fn options_follow_the_name() {
        let disk = |text: &str| text.parse::<Disk>().expect("always parses");
        assert_eq!(disk("a.img"), Disk { image: "a.img".into(), read_only: false, snapshot: false });
        assert_eq!(disk("a:b.img:ro"), Disk { image: "a:b.img".into(), read_only: true, snapshot: false });
        assert_eq!(disk("a.img:ro:snapshot"), Disk { image: "a.img".into(), read_only: true, snapshot: true });
    }

    #[test]
    fn a_comma_in_a_name_does_not_end_it() {
        let disk: Disk = "a,b.img:snapshot".parse().expect("always parses");
        let [(_, drive), _] = disk.arguments(Model::Microvm, 2, 0, "raw");
        assert_eq!(drive, "if=none,id=disk0,file=a,,b.img,format=raw,readonly=off,snapshot=on,discard=unmap");
    }
}
