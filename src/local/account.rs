//! The operating system's user that the servers run as.
//!
//! PostgreSQL refuses to run as root. Started by root, servers run as
//! `postgres` where there is such a user, else as `nobody`; started by anyone
//! else, as that one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::error::LocalError;

/// A user, and whether commands must change to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
    change: bool,
}

impl Account {
    /// The user for servers started by the current process.
    pub(crate) fn for_servers() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid != 0 {
            return Self { uid, gid, change: false };
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = ["postgres", "nobody"]
            .iter()
            .find_map(|name| user_in(&passwd, name))
            .unwrap_or((NOBODY, NOBODY));
        Self { uid, gid, change: true }
    }

    /// Makes `command` run as this user, without the caller's other groups.
    pub(crate) fn apply(&self, command: &mut Command) {
        if self.change {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Makes a folder that only this user (and root) can enter.
    pub(crate) fn make_private_dir(&self, dir: &Path) -> Result<(), LocalError> {
        fs::create_dir_all(dir).map_err(LocalError::path("make", dir))?;
        self.own(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(LocalError::path("set the mode of", dir))
    }

    /// Hands a file or folder to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), LocalError> {
        let owner = fs::symlink_metadata(path).map_err(LocalError::path("look at", path))?.uid();
        if owner != self.uid {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(LocalError::path("change the owner of", path))?;
        }
        Ok(())
    }

    /// Whether this user owns `path`.
    pub(crate) fn owns(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|m| m.uid() == self.uid)
    }

    /// Whether this user can enter every folder on the way to `path`, and the
    /// file or folder itself. Access lists are not looked at.
    pub(crate) fn reaches(&self, path: &Path) -> bool {
        let Ok(path) = fs::canonicalize(path) else { return false };
        path.ancestors().all(|p| {
            fs::metadata(p).is_ok_and(|m| {
                let bit = if m.uid() == self.uid {
                    0o100
                } else if m.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                m.mode() & bit != 0
            })
        })
    }
}

/// User and group number of `name` in the text of `/etc/passwd`.
fn user_in(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.next();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// What nearly every system calls `nobody`, where it doesn't say.
const NOBODY: u32 = 65_534;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_its_whole_name() {
        let passwd = "post:x:1:2::/:/bin/sh\npostgres:x:101:104:,,,:/var/lib:/bin/bash\n";
        assert_eq!(user_in(passwd, "postgres"), Some((101, 104)));
        assert_eq!(user_in(passwd, "nobody"), None);
        assert_eq!(user_in("nobody:x:what:1::/:/bin/sh", "nobody"), None);
    }

    #[test]
    fn folder_behind_a_closed_one_is_out_of_reach_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mode = |m| fs::set_permissions(dir.path(), fs::Permissions::from_mode(m)).unwrap();
        let other = Account { uid: 4_000_000_000, gid: 4_000_000_000, change: true };
        mode(0o755);
        assert!(other.reaches(&inner));
        mode(0o700);
        assert!(!other.reaches(&inner));
        assert!(!other.reaches(&dir.path().join("absent")));
    }
}
