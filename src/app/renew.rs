//! Takes over, while the router serves, what access is made of: users, rules,
//! certificates, the shards' passwords, and where users are looked up.
//!
//! Who is connected stays connected, and so do backends: what changes counts
//! for the next login.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::access::{self, logins};
use super::plane::Plane;
use super::serve::{Failure, read_config_file};
use crate::admin::Reloaded;
use crate::config::{BackendLogin, Config, Login};
use crate::control::lookup::Directions;
use crate::control::monitor::Target;
use crate::net::clock;
use crate::shardmap::{Map, SecretRef};
use crate::types::{Millis, Role, Secret};

impl Plane {
    /// Reads the configuration again, with the files that it names; a bad one
    /// changes nothing.
    pub(super) async fn reload_access(&self) -> Option<Reloaded> {
        let file = self.config_file()?;
        let result = self.reload_config(file).await.unwrap_or_else(|failure| {
            tracing::error!(error = %failure, "configuration refused; the old one serves on");
            format!("refused: {failure}")
        });
        tracing::info!(file = %file.display(), %result, "reload");
        Some(Reloaded { what: CONFIGURATION.to_owned(), epoch: None, result })
    }

    /// Takes over what access is made of; says what else is written
    /// differently now.
    async fn reload_config(&self, file: &Path) -> Result<String, Failure> {
        let config = read_config_file(file)?;
        let (old, new) = (self.config.values(), config.values());
        let differing = old.iter().zip(&new).filter(|(old, new)| old.1 != new.1);
        let waiting: Vec<&str> =
            differing.map(|(old, _)| old.0.path).filter(|path| !REREAD.contains(path)).collect();
        self.renew_access(config.clone()).await?;
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.renew_directions();
        self.renew_logins().await;
        self.note_files();
        Ok(if waiting.is_empty() {
            "users, rules and certificate are in force".to_owned()
        } else {
            let waiting = waiting.join(", ");
            format!("users, rules and certificate are in force; needs a restart: {waiting}")
        })
    }

    /// Reads what `config` names, where that can't hold up anything else.
    async fn renew_access(&self, config: Config) -> Result<(), Failure> {
        let (folder, owner) = (self.folder.clone(), self.owner.clone());
        let environment = self.environment.clone();
        let read = tokio::task::spawn_blocking(move || {
            access::read(&config, &folder, owner.as_ref(), &environment)
        });
        let access = Arc::new(read.await.map_err(Failure::failed)??);
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&access);
        self.handle().publish_access(access).await;
        Ok(())
    }

    /// Reads again the passwords and certificates that the maps name. The
    /// monitor goes on with the connections that it has; the next ones log in
    /// as is said now.
    pub(super) async fn renew_logins(&self) {
        for (map, folder) in self.maps() {
            for target in self.targets(&map) {
                self.credentials.note(&target);
            }
            let name = map.database().to_owned();
            let environment = self.environment.clone();
            let read = tokio::task::spawn_blocking(move || logins(&map, &environment, &folder));
            match read.await {
                Ok(Ok(logins)) => self.handle().publish_logins(&name, logins).await,
                Ok(Err(error)) => {
                    tracing::error!(database = name, %error, "the old logins stay");
                }
                Err(error) => tracing::error!(database = name, %error, "the old logins stay"),
            }
        }
    }

    /// Runs the programs that print passwords again; true if one has printed
    /// another than before.
    pub(super) async fn run_commands_again(&self) -> bool {
        let environment = self.environment.clone();
        let run = tokio::task::spawn_blocking(move || environment.run_commands_again());
        run.await.unwrap_or(false)
    }

    // === lookups ===

    /// Where the users of this database are looked up.
    pub(super) fn directions(&self, database: &str) -> Option<Directions> {
        let all = self.directions.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(database).cloned()
    }

    /// Reads again where users are looked up, and as whom.
    pub(super) fn renew_directions(&self) {
        let config = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let login = match access::lookup_login(&config, &self.folder, &self.environment) {
            Ok(Some(login)) => login,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "users are looked up as before");
                return;
            }
        };
        let all: HashMap<String, Directions> = self
            .maps()
            .into_iter()
            .map(|(map, _)| (map.database().to_owned(), self.directions_of(&map, &config, &login)))
            .collect();
        *self.directions.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    fn directions_of(
        &self,
        map: &Map,
        config: &Config,
        (user, password): &(String, Option<Secret>),
    ) -> Directions {
        let as_lookup = |target: Target| Target {
            user: user.clone(),
            password: password.clone(),
            dbname: config.auth.query_dbname.clone().unwrap_or(target.dbname),
            ..target
        };
        let (home, elsewhere): (Vec<Target>, Vec<Target>) = self
            .targets(map)
            .into_iter()
            .map(as_lookup)
            .partition(|target| target.member.shard == map.home());
        let passes_through = config.auth.backend_login == BackendLogin::Own
            || map.shards().iter().any(|shard| shard.credentials.user.is_none());
        let others = elsewhere
            .into_iter()
            .filter(|target| passes_through && target.member.role == Role::Primary)
            .filter_map(|target| Some((map.shard(target.member.shard)?.name.clone(), target)))
            .collect();
        Directions {
            query: config.auth.query.clone(),
            home,
            others,
            limit: clock::duration(config.settings.timeouts.connect),
        }
    }

    // === files ===

    /// The files that access is read from.
    pub(super) fn access_files(&self) -> Vec<PathBuf> {
        let config = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut files: Vec<PathBuf> = self.config_file().map(Path::to_owned).into_iter().collect();
        let named = [
            &config.tls.cert,
            &config.tls.key,
            &config.tls.client_ca,
            &config.tls.client_crl,
            &config.auth.hba_file,
            &config.auth.ident_file,
            &config.auth.query_password_file,
        ];
        files.extend(named.into_iter().flatten().map(|file| self.folder.join(file)));
        files.extend(config.users.iter().filter_map(|user| match &user.login {
            Login::PasswordFile(file) => Some(self.folder.join(file)),
            Login::Trust
            | Login::Password(_)
            | Login::PasswordEnv(_)
            | Login::PasswordCommand(_)
            | Login::Verifier(_) => None,
        }));
        for (map, folder) in self.maps() {
            files.extend(map.shards().iter().filter_map(
                |shard| match &shard.credentials.password {
                    SecretRef::File(file) => Some(folder.join(file)),
                    SecretRef::Env(_)
                    | SecretRef::Command(_)
                    | SecretRef::Inline(_)
                    | SecretRef::Client => None,
                },
            ));
        }
        files
    }

    /// Remembers what the files hold.
    pub(super) fn note_files(&self) {
        let stamp = stamp(&self.access_files());
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        self.files_read.notify_one();
    }

    /// True if the files hold something else than at the last reload.
    pub(super) fn access_has_changed(&self) -> bool {
        let stamp = stamp(&self.access_files());
        let before = std::mem::replace(
            &mut *self.stamp.lock().unwrap_or_else(PoisonError::into_inner),
            stamp,
        );
        stamp != before
    }
}

/// A digest of the contents; a file that can't be read counts as empty.
fn stamp(files: &[PathBuf]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for file in files {
        let content = std::fs::read(file).unwrap_or_default();
        hasher.update(&content.len().to_le_bytes());
        hasher.update(&content);
    }
    hasher.digest()
}

/// A shard has refused its password: it may have been changed, and the new one
/// may be there already.
pub(super) async fn on_refusal(plane: Arc<Plane>, mut refused: tokio::sync::watch::Receiver<u64>) {
    while refused.changed().await.is_ok() {
        plane.run_commands_again().await;
        plane.renew_logins().await;
        // Many clients are refused at the same time.
        tokio::time::sleep(clock::duration(BETWEEN_RENEWALS)).await;
    }
}

/// Passwords that programs print may expire.
pub(super) async fn now_and_then(plane: Arc<Plane>) {
    let every = plane.config.settings.secrets.command_refresh;
    if every == Millis::ZERO {
        return;
    }
    loop {
        tokio::time::sleep(clock::duration(every)).await;
        if plane.run_commands_again().await {
            let config = plane.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Err(error) = plane.renew_access(config).await {
                tracing::error!(%error, "users stay as they were");
            }
            plane.renew_directions();
            plane.renew_logins().await;
        }
    }
}

/// Settings that a reload takes over.
const REREAD: &[&str] = &[
    "tls.cert",
    "tls.key",
    "tls.client_ca",
    "tls.client_crl",
    "auth.hba_file",
    "auth.ident_file",
    "auth.query_user",
    "auth.query_password",
    "auth.query_password_env",
    "auth.query_password_file",
    "auth.query_password_command",
    "auth.query",
    "auth.query_dbname",
    "auth.backend_login",
];
/// Least time between two readings after refusals.
const BETWEEN_RENEWALS: Millis = Millis::new(1_000);
/// What a reload calls the configuration, beside the databases.
const CONFIGURATION: &str = "(configuration)";
