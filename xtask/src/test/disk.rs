//! Disks in the guest: images made by e2fsprogs are used by programs there, and e2fsck finds them clean afterwards.

use super::{Selection, Tally};
use crate::build;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk, what the guest does with it, and what it has to say.
struct Case {
    name: &'static str,
    /// MiB, and mke2fs's options.
    disk: (usize, &'static [&'static str]),
    options: &'static [&'static str],
    script: &'static str,
    stdout: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "disk: what is written is there after unmounting",
        disk: (64, &["-t", "ext4", "-b", "4096"]),
        options: &["--cpus", "2"],
        script: "
            mount -t ext4 /dev/vda /mnt && cd /mnt
            cp -r /bin/busybox /etc . && mkdir -p a/b/c && echo one > a/b/c/f && ln a/b/c/f hard && ln -s a soft
            i=0; while [ $i -lt 300 ]; do echo $i > a/file-number-$i; i=$((i+1)); done; rm a/file-number-1*
            truncate -s 5000000 sparse && echo end >> sparse && dd if=/dev/zero of=gone bs=1M count=20 2>/dev/null && rm gone
            cd / && umount /mnt && mount -t ext4 -o ro /dev/vda /mnt && cd /mnt
            cmp busybox /bin/busybox && cat hard soft/b/c/f && ls a | wc -l && tail -c 4 sparse && stat -c %s sparse
            touch refused 2>&1; grep -c mnt /proc/mounts; cd / && umount /mnt",
        stdout: "one\none\n190\nend\n5000004\ntouch: refused: Read-only file system\n1\n",
    },
    Case {
        name: "disk: blocks of 1024 bytes, more data than memory",
        disk: (256, &["-t", "ext4", "-b", "1024"]),
        options: &["--memory", "96M"],
        script: "
            mount -t ext4 /dev/vda /mnt && cd /mnt && dd if=/dev/urandom of=r bs=64k count=64 2>/dev/null
            i=0; while [ $i -lt 40 ]; do cat r; i=$((i+1)); done > big; md5sum r > sum
            echo 3 > /proc/sys/vm/drop_caches; md5sum -c sum
            i=0; while [ $i -lt 40 ]; do dd if=big bs=4M skip=$i count=1 2>/dev/null | cmp - r || echo differs; i=$((i+1)); done
            stat -c %s big; cd /; umount /mnt",
        stdout: "r: OK\n167772160\n",
    },
    Case {
        name: "disk: more names than memory",
        disk: (256, &["-t", "ext4", "-b", "4096", "-N", "70000"]),
        options: &["--memory", "80M"],
        script: "
            mount -t ext4 /dev/vda /mnt && cd /mnt && for d in $(seq 60); do mkdir $d; (cd $d && seq 1000 | xargs touch); done
            free() { sed -n 's/MemFree: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }
            for n in 1 2; do find . -type f | wc -l; ls -lR . | grep -c rw-; done
            echo 3 > /proc/sys/vm/drop_caches; before=$(free); find . -type f -size +1k; full=$(free)
            echo 2 > /proc/sys/vm/drop_caches; after=$(free); [ $after -gt $((full + 5000)) ] || echo $before $full $after
            rm -r [1-5]*; find . -type f | wc -l; cd / && umount /mnt",
        stdout: "60000\n60000\n60000\n60000\n5000\n",
    },
    Case {
        name: "disk: a full one says so, and again has room",
        disk: (16, &["-t", "ext4", "-b", "4096"]),
        options: &[],
        script: "
            mount -t ext4 /dev/vda /mnt && cd /mnt && dd if=/dev/zero of=fill bs=64k 2>&1 | head -1
            rm fill && dd if=/dev/zero of=again bs=1M count=8 2>/dev/null && sync && stat -c %s again; cd /; umount /mnt",
        stdout: "dd: error writing 'fill': No space left on device\n8388608\n",
    },
    Case {
        name: "disk: what nobody uses is discarded, and nothing else",
        disk: (64, &["-t", "ext4"]),
        options: &[],
        script: "
            mount -t ext4 /dev/vda /mnt && cd /mnt && dd if=/dev/urandom of=a bs=1M count=9 2>/dev/null && md5sum a > sum
            cp a b && cp a c && rm b && sync && fstrim /mnt && echo trimmed; fstrim -o 1G /mnt 2>&1 | grep -o 'Invalid argument'
            echo 3 > /proc/sys/vm/drop_caches; md5sum -c sum; cmp a c; cp c d && cmp a d; cd /; umount /mnt",
        stdout: "trimmed\nInvalid argument\na: OK\n",
    },
    Case {
        name: "disk: ext3",
        disk: (32, &["-t", "ext3"]),
        options: &["--machine", "q35"],
        script: "
            mount -t ext3 /dev/vda /mnt && cd /mnt && dd if=/dev/zero bs=1k count=9000 2>/dev/null | tr '\\0' x > f
            md5sum < f; truncate -s 3000 f && mv f g && cd / && umount /mnt && mount -t ext3 /dev/vda /mnt
            md5sum < /mnt/g; umount /mnt",
        stdout: "c86504121ce6ef95f0bad87e021dd95c  -\n33d7ac42e3aa0f3146843833c23e4365  -\n",
    },
    Case {
        name: "disk: partitions, statistics, and /dev itself",
        disk: (0, &[]),
        options: &[],
        script: "
            cat /proc/partitions | tr -s ' '; cat /sys/class/block/vda1/start /sys/block/vda/vda2/size
            echo hello > /dev/vda2; sync; dd if=/dev/vda bs=512 skip=128 count=1 2>/dev/null | head -c 5; echo
            dd if=/dev/zero of=/dev/vda1 bs=1k count=1000 2>&1 | head -1; cat /sys/block/vda/queue/write_cache
            grep -c vda /proc/diskstats",
        stdout: "major minor #blocks name\n\n 254 0 1024 vda\n 254 1 32 vda1\n 254 2 960 vda2\n64\n1920\nhello\n\
                 dd: error writing '/dev/vda1': No space left on device\nwrite back\n3\n",
    },
];

/// A disk with a table of two partitions.
fn partitioned() -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    for (at, start, sectors) in [(446, 64u32, 64u32), (462, 128, 1920)] {
        image[at + 4] = 0x83;
        image[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        image[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

pub(super) fn run(selection: &Selection) -> Result<Tally, String> {
    let folder = std::env::temp_dir().join(format!("quintet-disks-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let mut tally = Tally::default();
    for case in CASES.iter().filter(|case| selection.takes(case.name)) {
        tally.note(case.name, &judge(case, &folder.join("disk.img")));
    }
    let _ = fs::remove_dir_all(&folder);
    Ok(tally)
}

/// Runs a tool of e2fsprogs on an image. What it says, if it is not content.
pub(super) fn tool(name: &str, arguments: &[&str], image: &Path) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).args(arguments).arg(image).env("PATH", path).output();
    let output = output.map_err(|error| format!("cannot run {name}: {error}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {said}")) }
}

fn judge(case: &Case, image: &PathBuf) -> Result<(), String> {
    let (mib, options) = case.disk;
    let contents = if mib == 0 { partitioned() } else { vec![0; mib << 20] };
    fs::write(image, contents).map_err(|error| error.to_string())?;
    if mib > 0 {
        tool("mke2fs", &[&["-q", "-F"], options].concat(), image)?;
    }
    let output = Command::new(build::quintet())
        .args(["run", "--timeout", "120", "--disk"])
        .arg(image)
        .args(case.options)
        .args(["--", "sh", "-c", case.script])
        .output()
        .map_err(|error| format!("cannot start quintet: {error}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if stdout != case.stdout {
        return Err(format!("stdout is {stdout:?} instead of {:?}; stderr:\n{stderr}", case.stdout));
    }
    if mib > 0 { tool("e2fsck", &["-fn"], image) } else { Ok(()) }
}
