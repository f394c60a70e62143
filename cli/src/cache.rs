//! The folder where roots and verdicts are kept between runs.

use crate::failure::{Context, Failure};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a file that is being made begins with.
const UNFINISHED: &str = ".new-";
/// Nobody makes a root for so long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Roots that nobody has used for so long are made again when they are wanted.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The cache folder: `$XDG_CACHE_HOME/quintet`, else `~/.cache/quintet`.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the cache, making it if needed.
    pub fn open() -> Result<Cache, Failure> {
        let base = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::home_dir().map(|home| home.join(".cache")))
            .ok_or_else(|| Failure::new("no place for the cache").advise("Set HOME or XDG_CACHE_HOME."))?;
        let folder = base.join("quintet");
        fs::create_dir_all(&folder).map_err(|error| {
            Failure::new(format!("cannot make {}", folder.display()))
                .because(error)
                .advise("Set XDG_CACHE_HOME to a folder that you may write.")
        })?;
        Ok(Cache { folder })
    }

    /// A path in the cache.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until no other `quintet` works on `name`, and keeps others away until dropped.
    pub fn lock(&self, name: &str) -> Result<File, Failure> {
        let path = self.path(&format!("{name}.lock"));
        let file = File::create(&path).or_fail(|| format!("cannot make {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("quintet: waiting for another quintet that makes the {name} root");
            file.lock().or_fail(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// A new, unnamed-to-others file that [`Cache::keep`] can give its name. Makes room by removing what nobody uses any more.
    pub fn temporary(&self) -> Result<tempfile::NamedTempFile, Failure> {
        // What can't be removed now takes room, and is tried again next time.
        let _ = self.sweep(SystemTime::now());
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)
            .or_fail(|| format!("cannot make a file in {}", self.folder.display()))
    }

    /// Puts a finished file in its place, at once and whole.
    pub fn keep(&self, file: tempfile::NamedTempFile, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        file.persist(&path).or_fail(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Removes files that were never finished, and roots whose lock nobody has taken for long.
    fn sweep(&self, now: SystemTime) -> std::io::Result<()> {
        let older = |path: &Path, age: Duration| -> bool {
            let modified = fs::metadata(path).and_then(|meta| meta.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|passed| passed > age))
        };
        let mut unused = Vec::new();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            match name.strip_suffix(".lock") {
                Some(root) if older(&path, UNUSED) => unused.push(root.to_owned()),
                Some(_) => {}
                None if name.starts_with(UNFINISHED) && older(&path, ABANDONED) => fs::remove_file(&path)?,
                None => files.push((name, path)),
            }
        }
        for root in unused {
            let lock = self.path(&format!("{root}.lock"));
            // Who has it is using the root right now.
            let Ok(held) = File::open(&lock) else { continue };
            if held.try_lock().is_err() {
                continue;
            }
            let of_root =
                |name: &str| name.strip_prefix(&root).is_some_and(|rest| rest.starts_with('-') && !rest.contains(','));
            for (_, path) in files.iter().filter(|(name, path)| path.is_file() && of_root(name)) {
                fs::remove_file(path)?;
            }
            fs::remove_file(&lock)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache { folder: folder.path().to_owned() };
        let day = Duration::from_secs(24 * 60 * 60);
        let now = SystemTime::now();
        let make = |name: &str, age: Duration| {
            let file = File::create(cache.path(name)).expect("a file");
            file.set_modified(now - age).expect("a time");
        };
        for (name, days) in [
            (".new-old", 2),
            (".new-fresh", 0),
            ("accel", 90),
            ("debian.lock", 1),
            ("debian-1.ext4", 90),
            ("debian,git.lock", 31),
            ("debian,git-1.ext4", 31),
            ("debian,git-2.cpio", 40),
        ] {
            make(name, day * days + Duration::from_secs(60));
        }
        cache.sweep(now).expect("a sweep");
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        left.sort();
        assert_eq!(left, [".new-fresh", "accel", "debian-1.ext4", "debian.lock"]);
    }
}
