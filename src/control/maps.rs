//! The operator's map file against the map in force: what is served at the
//! start, and what a reload changes.
//!
//! The file is what the operator wants; the map in force is what the router
//! wrote down when it took a file over. Whether a file may be taken over is
//! decided by [`adopt`]; here are the files.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::document::Problem;
use crate::shardmap::{Adoption, FILE_BYTES_MAX, Map, adopt};
use crate::store::{Store, StoreError};

/// A map file and the store of the maps taken over from it.
#[derive(Debug)]
pub struct MapFile {
    path: PathBuf,
    store: Store,
    /// The text that was looked at last, so that a file that was merely
    /// touched is not judged again.
    seen: String,
}

/// The map to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The map in force.
    pub map: Map,
    /// Why the file is not what is served, if it isn't.
    pub kept_back: Option<String>,
}

impl MapFile {
    /// Reads the file at `path` and settles what to serve: the map in force
    /// under `state_dir` if there is one and the file changes who owns what.
    ///
    /// # Errors
    /// The file can't be read or is no map, or the store is damaged or can't
    /// be written. Nothing can be served.
    pub fn open(path: &Path, state_dir: &Path) -> Result<(Self, Settled), MapFileError> {
        let text = read(path)?;
        let desired = parse(&text, path)?;
        let store = Store::new(state_dir.join(folder_name(desired.database())));
        let in_force = store.load().map_err(MapFileError::Store)?;
        let file = Self { path: path.to_owned(), store, seen: text };
        let settled = file.settle(in_force.as_ref(), desired)?;
        Ok((file, settled))
    }

    /// Reads the file again and says what to serve instead of `in_force`, which
    /// is to be taken over before it is served. `check` may refuse it.
    ///
    /// # Errors
    /// As [`MapFile::open`], or `check` refused; `in_force` serves on.
    pub fn reload(
        &mut self,
        in_force: &Map,
        check: impl FnOnce(&Map) -> Result<(), String>,
    ) -> Result<Settled, MapFileError> {
        let text = read(&self.path)?;
        self.seen.clone_from(&text);
        let desired = parse(&text, &self.path)?;
        check(&desired)
            .map_err(|reason| MapFileError::Refused { path: self.path.clone(), reason })?;
        self.judge(Some(in_force), desired)
    }

    /// Writes down a map that is to be served.
    ///
    /// # Errors
    /// It can't be written.
    pub fn take_over(&self, map: &Map) -> Result<(), MapFileError> {
        match self.store.keep(map) {
            // It was taken over before, or one that came to nothing was.
            Err(StoreError::NotNewer { newest, wanted }) if newest == wanted => {
                self.store.replace(map).map_err(MapFileError::Store)
            }
            other => other.map_err(MapFileError::Store),
        }
    }

    /// Whether the file has other content than when it was last looked at.
    pub fn is_changed(&self) -> bool {
        // A file that is just being replaced counts once it is there again.
        read(&self.path).is_ok_and(|text| text != self.seen)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn settle(&self, in_force: Option<&Map>, desired: Map) -> Result<Settled, MapFileError> {
        let settled = self.judge(in_force, desired)?;
        if in_force != Some(&settled.map) {
            self.store.keep(&settled.map).map_err(MapFileError::Store)?;
        }
        Ok(settled)
    }

    fn judge(&self, in_force: Option<&Map>, desired: Map) -> Result<Settled, MapFileError> {
        match (adopt(in_force, desired), in_force) {
            (Adoption::Serve(map), _) => Ok(Settled { map, kept_back: None }),
            (Adoption::Same, Some(map)) => Ok(Settled { map: map.clone(), kept_back: None }),
            (Adoption::Keep { reason }, Some(map)) => {
                Ok(Settled { map: map.clone(), kept_back: Some(reason) })
            }
            (Adoption::Keep { reason }, None) => {
                Err(MapFileError::Refused { path: self.path.clone(), reason })
            }
            (Adoption::Same, None) => Err(MapFileError::Refused {
                path: self.path.clone(),
                reason: "no map is in force that it could equal".to_owned(),
            }),
        }
    }
}

fn read(path: &Path) -> Result<String, MapFileError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        // One byte more than allowed, which the parser then refuses by size.
        let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| MapFileError::Read { path: path.to_owned(), error })
}

fn parse(text: &str, path: &Path) -> Result<Map, MapFileError> {
    Map::parse(text, &path.display().to_string()).map_err(MapFileError::Invalid)
}

/// A folder's name for `database`: itself, if that can't be mistaken for a
/// path; other characters become their number.
fn folder_name(database: &str) -> String {
    let mut name = String::with_capacity(database.len());
    for (position, c) in database.chars().enumerate() {
        if c.is_ascii_alphanumeric() || c == '_' || (c == '-' && position > 0) {
            name.push(c);
        } else {
            name.push_str(&format!("%{:X}", u32::from(c)));
        }
    }
    name
}

/// Why a map file is not taken over.
#[derive(Debug)]
pub enum MapFileError {
    /// It can't be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no map.
    Invalid(Vec<Problem>),
    /// It is a map that can't be served.
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is in force can't be read, or not be written.
    Store(StoreError),
}

impl fmt::Display for MapFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "can't read {}: {error}", path.display()),
            Self::Invalid(problems) => {
                for (position, problem) in problems.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(f, "{separator}{problem}")?;
                }
                Ok(())
            }
            Self::Refused { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for MapFileError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ShardId, SlotId};

    const ONE: &str = "epoch = 1\ndatabase = \"app\"\nhome = \"a\"\n\
        [[shard]]\nnumber = 1\nname = \"a\"\nuser = \"u\"\npassword_env = \"P\"\n\
        primary = { host = \"h1\" }\n\
        [[shard]]\nnumber = 2\nname = \"b\"\nuser = \"u\"\npassword_env = \"P\"\n\
        primary = { host = \"h2\" }\n\
        [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 4\n\
        ranges = { a = [\"0-1\"], b = [\"2-3\"] }\n";

    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let world = Self { folder: tempfile::tempdir().unwrap() };
            world.write(ONE);
            world
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("map.toml")
        }

        fn write(&self, text: &str) {
            fs::write(self.path(), text).unwrap();
        }

        fn open(&self) -> Result<(MapFile, Settled), MapFileError> {
            MapFile::open(&self.path(), &self.folder.path().join("state"))
        }
    }

    fn moved() -> String {
        ONE.replace("a = [\"0-1\"], b = [\"2-3\"]", "a = [\"0-2\"], b = [\"3\"]")
    }

    #[test]
    fn a_changed_address_takes_effect_as_a_new_epoch() {
        let world = World::new();
        let (mut file, first) = world.open().unwrap();
        assert_eq!((first.map.epoch().number(), &first.kept_back), (1, &None));
        assert!(!file.is_changed());
        world.write(&ONE.replace("h2", "h3"));
        assert!(file.is_changed());
        let second = file.reload(&first.map, |_| Ok(())).unwrap();
        assert_eq!((second.map.epoch().number(), &second.kept_back), (2, &None));
        assert!(!file.is_changed());
        file.take_over(&second.map).unwrap();
        file.take_over(&second.map).unwrap();
        let (_, restarted) = world.open().unwrap();
        assert_eq!(restarted, second);
    }

    #[test]
    fn a_changed_ownership_is_kept_back_at_reload_and_at_start() {
        let world = World::new();
        let (mut file, first) = world.open().unwrap();
        world.write(&moved());
        let second = file.reload(&first.map, |_| Ok(())).unwrap();
        assert_eq!(second.map, first.map);
        assert!(second.kept_back.unwrap().contains("keyway plan"));
        let (_, restarted) = world.open().unwrap();
        assert_eq!(restarted.map, first.map);
        assert!(restarted.kept_back.is_some());
    }

    #[test]
    fn an_invalid_file_is_refused_with_its_line_and_nothing_is_written() {
        let world = World::new();
        let (mut file, first) = world.open().unwrap();
        world.write(&ONE.replace("a = [\"0-1\"]", "a = [\"0-2\"]"));
        let error = file.reload(&first.map, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("map.toml:20:"), "{error}");
        world.write(ONE);
        assert_eq!(world.open().unwrap().1, first);
    }

    #[test]
    fn a_refused_map_is_not_written_down() {
        let world = World::new();
        let (mut file, first) = world.open().unwrap();
        world.write(&ONE.replace("h2", "h3"));
        let error = file.reload(&first.map, |_| Err("no password".to_owned())).unwrap_err();
        assert!(error.to_string().ends_with("map.toml: no password"), "{error}");
        world.write(ONE);
        assert_eq!(world.open().unwrap().1, first);
    }

    #[test]
    fn a_map_that_came_to_nothing_gives_way_to_the_one_of_its_epoch() {
        let world = World::new();
        let (mut file, first) = world.open().unwrap();
        world.write(&ONE.replace("h2", "h3"));
        let lost = file.reload(&first.map, |_| Ok(())).unwrap().map;
        file.take_over(&lost).unwrap();
        let won = first.map.with_slots_on("k", (SlotId::new(0), SlotId::new(0)), ShardId::new(2));
        let won = won.unwrap();
        assert_eq!(won.epoch(), lost.epoch());
        file.take_over(&won).unwrap();
        world.write(ONE);
        assert_eq!(world.open().unwrap().1.map, won);
    }

    #[test]
    fn a_databases_folder_is_no_path() {
        assert_eq!(folder_name("app_1"), "app_1");
        assert_eq!(folder_name("../x"), "%2E%2E%2Fx");
        assert_eq!(folder_name("-r"), "%2Dr");
    }
}
