//! Finds a password in libpq's passfile.
//!
//! Source: PostgreSQL manual, "The Password File".

use std::path::PathBuf;

use super::secrets::Environment;
use crate::types::Secret;

/// What a password is looked up for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Host name, or the folder of a Unix socket.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
}

/// What came of looking into the passfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The password.
    Found(Secret),
    /// No file, or no line that fits.
    Absent,
    /// The file was not looked at.
    Ignored {
        /// Why, and what to do.
        reason: String,
    },
}

/// Looks `wanted` up in the file that PGPASSFILE names, else `~/.pgpass`.
pub fn look_up(environment: &Environment, wanted: Wanted<'_>) -> Lookup {
    let named = environment.variable("PGPASSFILE").filter(|path| !path.is_empty());
    let path = named
        .map(PathBuf::from)
        .or_else(|| environment.variable("HOME").map(|home| PathBuf::from(home).join(".pgpass")));
    let Some(path) = path else { return Lookup::Absent };
    let Ok(metadata) = std::fs::metadata(&path) else { return Lookup::Absent };
    let ignored = |reason: String| Lookup::Ignored { reason };
    if !metadata.is_file() {
        return ignored(format!("passfile {} is not a plain file", path.display()));
    }
    if others_may_read(&metadata) {
        return ignored(format!(
            "passfile {} can be read by others; its permissions should be u=rw (0600) or less",
            path.display()
        ));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => find(&text, wanted).map_or(Lookup::Absent, Lookup::Found),
        Err(error) => ignored(format!("passfile {} can't be read: {error}", path.display())),
    }
}

fn others_may_read(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

/// The password of the first line of `text` that fits.
fn find(text: &str, wanted: Wanted<'_>) -> Option<Secret> {
    let host = if wanted.host == DEFAULT_SOCKET_FOLDER { "localhost" } else { wanted.host };
    let port = wanted.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line);
        let password = fields.pop().filter(|_| fields.len() == 4)?;
        let given = [host, &port, wanted.database, wanted.user];
        let fits = fields.iter().zip(given).all(|(field, value)| field.fits(value));
        (fits && !password.text.is_empty()).then(|| Secret::new(password.text))
    })
}

/// One field of a line.
struct Field {
    text: String,
    /// Written as a lone `*`.
    any: bool,
}

impl Field {
    fn fits(&self, value: &str) -> bool {
        self.any || self.text == value
    }
}

/// The first five fields of `line`; what follows the fifth colon counts not.
fn fields(line: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut text = String::new();
    let mut raw = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 5 => {
                fields.push(Field { text: std::mem::take(&mut text), any: raw == "*" });
                raw.clear();
                continue;
            }
            '\\' => text.extend(chars.next()),
            other => text.push(other),
        }
        raw.push(c);
    }
    if fields.len() < 5 {
        fields.push(Field { text, any: raw == "*" });
    }
    fields
}

/// Where servers of the distributions put their socket.
const DEFAULT_SOCKET_FOLDER: &str = "/var/run/postgresql";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "h", port: 5432, database: "d", user: "u" };

    fn found(text: &str) -> Option<String> {
        find(text, WANTED).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        assert_eq!(found("h:5432:d:u:one\n*:*:*:*:two").as_deref(), Some("one"));
        assert_eq!(found("x:5432:d:u:one\n*:*:*:*:two").as_deref(), Some("two"));
        assert_eq!(found("# h:5432:d:u:one\nh:*:d:u:two").as_deref(), Some("two"));
        assert_eq!(found("h:5433:d:u:one"), None);
        assert_eq!(found("h:5432:d:u"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn backslashes_quote_colons_and_stars() {
        assert_eq!(found(r"h:5432:d:u:a\:b\\c").as_deref(), Some(r"a:b\c"));
        assert_eq!(found(r"\*:5432:d:u:one"), None, "a quoted star is a star");
    }

    #[test]
    fn the_default_socket_is_localhost() {
        let wanted = Wanted { host: DEFAULT_SOCKET_FOLDER, ..WANTED };
        assert!(find("localhost:*:*:*:one", wanted).is_some());
        let wanted = Wanted { host: "/other", ..WANTED };
        assert!(find("localhost:*:*:*:one", wanted).is_none());
        assert!(find("/other:*:*:*:one", wanted).is_some());
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        fs::write(&path, "*:*:*:*:sesame\n").unwrap();
        let environment = Environment::of([("PGPASSFILE", path.to_str().unwrap())]);
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match look_up(&environment, WANTED) {
                Lookup::Found(secret) => assert!(usable && secret.expose() == "sesame", "{mode:o}"),
                Lookup::Ignored { reason } => {
                    assert!(!usable && reason.contains("0600") && !reason.contains("sesame"));
                }
                Lookup::Absent => panic!("{mode:o}"),
            }
        }
    }

    #[test]
    fn home_is_looked_into_unless_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".pgpass");
        fs::write(&path, "*:*:*:*:home\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let home = folder.path().to_str().unwrap();
        let look = |environment: Environment| look_up(&environment, WANTED);
        assert!(matches!(look(Environment::of([("HOME", home)])), Lookup::Found(_)));
        let other = Environment::of([("HOME", home), ("PGPASSFILE", "/no/such")]);
        assert_eq!(look(other), Lookup::Absent);
    }
}
