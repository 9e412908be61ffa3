//! The map in force: one file for each epoch in a folder of the router's own.
//!
//! A map is written to a temporary file, synced, renamed into place, and the
//! folder synced: a crash leaves either the whole map or none of it. The one
//! with the greatest epoch is in force. If that one can't be read, nothing is
//! served in its place: an older map may name the wrong owners.
//!
//! [`moves`] and [`routers`] have what several routers share, in tables of the
//! home shard.

pub mod moves;
pub mod routers;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::document::Problem;
use crate::shardmap::{FILE_BYTES_MAX, Map};
use crate::types::Epoch;

/// The folder that holds the maps of one database.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in `folder`, which the first write makes.
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The map in force; `None` before the first one is kept.
    ///
    /// # Errors
    /// The folder or the newest map can't be read. Nothing may be served.
    pub fn load(&self) -> Result<Option<Map>, StoreError> {
        let Some(epoch) = self.newest()? else { return Ok(None) };
        let path = self.path(epoch);
        let failed = |error| StoreError::Read { path: path.clone(), error };
        let len = fs::metadata(&path).map_err(failed)?.len();
        if len > FILE_BYTES_MAX as u64 {
            return Err(failed(io::Error::other("the file is larger than a map may be")));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        let map = Map::parse(&text, &path.display().to_string())
            .map_err(|problems| StoreError::Invalid { path: path.clone(), problems })?;
        if map.epoch() != epoch {
            return Err(StoreError::Epoch { path, found: map.epoch() });
        }
        Ok(Some(map))
    }

    /// Makes `map` the one in force, durably; older maps are kept.
    ///
    /// # Errors
    /// An epoch that is not newer than all kept ones, or a failed write. The
    /// map in force is then as before, unless syncing the folder failed after
    /// the rename: then it is one or the other, and both are whole.
    pub fn keep(&self, map: &Map) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder).map_err(|error| self.write_failed(&self.folder, error))?;
        if let Some(newest) = self.newest()?
            && newest >= map.epoch()
        {
            return Err(StoreError::NotNewer { newest, wanted: map.epoch() });
        }
        self.write(map)
    }

    /// Writes `map` in place of the newest kept one, which has its epoch.
    ///
    /// # Errors
    /// As [`Store::keep`]; another epoch is refused.
    pub fn replace(&self, map: &Map) -> Result<(), StoreError> {
        match self.newest()? {
            Some(newest) if newest == map.epoch() => self.write(map),
            Some(newest) => Err(StoreError::NotNewer { newest, wanted: map.epoch() }),
            None => self.keep(map),
        }
    }

    fn write(&self, map: &Map) -> Result<(), StoreError> {
        let path = self.path(map.epoch());
        let temporary = path.with_extension("toml.tmp");
        let written = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(map.to_toml().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        written().map_err(|error| self.write_failed(&path, error))
    }

    fn newest(&self) -> Result<Option<Epoch>, StoreError> {
        let failed = |error| StoreError::Read { path: self.folder.clone(), error };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut newest = None;
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let epoch = name.to_str().and_then(epoch_of);
            newest = newest.max(epoch);
        }
        Ok(newest)
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(format!("map-{}.toml", epoch.number()))
    }

    fn write_failed(&self, path: &Path, error: io::Error) -> StoreError {
        StoreError::Write { path: path.to_owned(), error }
    }
}

/// The epoch in the name of a map that was wholly written.
fn epoch_of(name: &str) -> Option<Epoch> {
    let digits = name.strip_prefix("map-")?.strip_suffix(".toml")?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(Epoch::new(number))
}

/// Why the map in force can't be read or kept.
#[derive(Debug)]
pub enum StoreError {
    /// A file or the folder can't be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A map can't be written.
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The newest map is not a valid map.
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// A map's name and content disagree.
    Epoch {
        /// Which.
        path: PathBuf,
        /// What the content says.
        found: Epoch,
    },
    /// Epochs only grow.
    NotNewer {
        /// The newest that is kept.
        newest: Epoch,
        /// The one to be kept.
        wanted: Epoch,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "can't read {}: {error}", path.display()),
            Self::Write { path, error } => write!(f, "can't write {}: {error}", path.display()),
            Self::Invalid { path, problems } => {
                write!(f, "the map in force, {}, is damaged", path.display())?;
                problems.first().map_or(Ok(()), |problem| write!(f, ": {problem}"))
            }
            Self::Epoch { path, found } => {
                write!(f, "{} says that it is epoch {}", path.display(), found.number())
            }
            Self::NotNewer { newest, wanted } => write!(
                f,
                "epoch {} is not newer than the kept epoch {}",
                wanted.number(),
                newest.number()
            ),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shardmap::Endpoint;

    fn map(epoch: u64) -> Map {
        Map::unsharded("app", Endpoint::new("h", 5432), Vec::new()).with_epoch(Epoch::new(epoch))
    }

    #[test]
    fn newest_map_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("state"));
        assert_eq!(store.load().unwrap(), None);
        for epoch in [2, 10] {
            store.keep(&map(epoch)).unwrap();
            assert_eq!(store.load().unwrap(), Some(map(epoch)));
        }
        assert!(matches!(store.keep(&map(10)), Err(StoreError::NotNewer { .. })));
        assert!(matches!(store.keep(&map(9)), Err(StoreError::NotNewer { .. })));
    }

    #[test]
    fn leftover_of_a_crash_is_not_a_map() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        store.keep(&map(1)).unwrap();
        fs::write(folder.path().join("map-2.toml.tmp"), "epoch = 2\ndat").unwrap();
        assert_eq!(store.load().unwrap(), Some(map(1)));
        store.keep(&map(2)).unwrap();
        assert_eq!(store.load().unwrap(), Some(map(2)));
    }

    #[test]
    fn damaged_newest_map_is_refused_and_no_older_one_served() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        store.keep(&map(1)).unwrap();
        let whole = map(2).to_toml();
        for torn in ["", &whole[..whole.len() / 2], &map(3).to_toml()] {
            fs::write(folder.path().join("map-2.toml"), torn).unwrap();
            let error = store.load().unwrap_err();
            assert!(error.to_string().contains("map-2.toml"), "{error}");
        }
    }
}
