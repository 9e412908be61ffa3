//! Notices that a map's or a configuration's file has changed.
//!
//! Watches the folders, not the files: editors and deployment tools replace a
//! file by renaming another over it. Says only that something changed; whoever
//! reads the files again finds out what.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Watches some files; dropping it stops that.
pub struct FileWatch {
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
}

impl FileWatch {
    /// Watches the folders of `files`.
    ///
    /// # Errors
    /// A folder that can't be watched. SIGHUP and RELOAD still work without.
    pub fn start(files: &[PathBuf]) -> notify::Result<Self> {
        let (changed, changes) = mpsc::channel(1);
        let names: BTreeSet<OsString> =
            files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<Event>| match event {
                // A full channel means that a change is already known.
                Ok(event) if concerns(&event, &names) => drop(changed.try_send(())),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "watching the maps' folders failed"),
            })?;
        let folders: BTreeSet<PathBuf> = files.iter().map(|file| folder_of(file)).collect();
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher, changes })
    }

    /// Waits for a change, and then until the files have been quiet for a
    /// moment: one save is many events.
    ///
    /// Cancel-safe up to the first event; after that a dropped future loses
    /// the change.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The watcher is gone: there will be no change.
            std::future::pending::<()>().await;
        }
        for _ in 0..QUIET_ROUNDS_MAX {
            match tokio::time::timeout(QUIET, self.changes.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Whether `event` may have changed one of the files. A link that is swapped
/// somewhere in the folder (as Kubernetes does for a mounted map) counts too.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let changes = match event.kind {
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) => true,
        EventKind::Access(_) | EventKind::Any | EventKind::Other => false,
    };
    changes
        && event
            .paths
            .iter()
            .filter_map(|path| path.file_name())
            .any(|name| names.contains(name) || name.as_encoded_bytes().starts_with(b".."))
}

/// How long files must not change before they are read.
const QUIET: Duration = Duration::from_millis(150);
/// Files that never rest are read all the same.
const QUIET_ROUNDS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn wait(watch: &mut FileWatch, limit: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(limit, watch.changed()).await.is_ok() })
    }

    #[test]
    fn a_file_that_is_replaced_by_rename_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.toml");
        fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::start(std::slice::from_ref(&file)).unwrap();
        fs::write(folder.path().join("map.toml.new"), "two").unwrap();
        fs::rename(folder.path().join("map.toml.new"), &file).unwrap();
        assert!(wait(&mut watch, Duration::from_secs(10)));
    }

    #[test]
    fn another_file_in_the_folder_is_of_no_concern() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.toml");
        fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::start(std::slice::from_ref(&file)).unwrap();
        fs::write(folder.path().join("other.toml"), "x").unwrap();
        assert!(!wait(&mut watch, Duration::from_millis(300)));
    }
}
