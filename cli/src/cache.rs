//! The folder where roots and verdicts are kept between runs.

use crate::failure::{Context, Failure};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

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

    /// A new, unnamed-to-others file that [`Cache::keep`] can give its name.
    pub fn temporary(&self) -> Result<tempfile::NamedTempFile, Failure> {
        tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&self.folder)
            .or_fail(|| format!("cannot make a file in {}", self.folder.display()))
    }

    /// Puts a finished file in its place, at once and whole.
    pub fn keep(&self, file: tempfile::NamedTempFile, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        file.persist(&path).or_fail(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}
