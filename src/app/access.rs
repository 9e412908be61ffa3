//! Who may come in and how the router goes out, as files, variables and
//! programs say now: users, rules, certificates, logins at shards.
//!
//! Paths in a file are relative to its folder. Reading may block: see
//! `secrets`.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use super::secrets::Environment;
use super::serve::Failure;
use crate::auth::rules::{NameMaps, Rules};
use crate::auth::{ITERATIONS_DEFAULT, StoredPassword, Verifier};
use crate::config::{self, Admin, ClientTlsMode, Config, Hints, Login};
use crate::document::{Problem, Source};
use crate::engine::{Access, BackendLogin, User, Users};
use crate::net::tls::{self, ClientCertificates, ServerTls};
use crate::shardmap::{Map, SecretRef, Tls, TlsMode};
use crate::types::{Secret, ShardId};

/// Reads the secrets and files that `config` names; `folder` is that of its
/// file. `owner` is the user of a backend's URL, unless the configuration has
/// one of that name.
pub(super) fn read(
    config: &Config,
    folder: &Path,
    owner: Option<&(String, User)>,
    environment: &Environment,
) -> Result<Access, Failure> {
    let mut users = Users::default();
    for user in &config.users {
        users.by_name.insert(user.name.clone(), make_user(user, folder, environment)?);
    }
    if let Some((name, user)) = owner {
        users.by_name.entry(name.clone()).or_insert_with(|| user.clone());
    }
    let path = |file: &String| folder.join(file);
    let tls = match (config.tls.mode, &config.tls.cert, &config.tls.key) {
        (ClientTlsMode::Disable, ..) => None,
        (ClientTlsMode::Allow | ClientTlsMode::Require, Some(cert), Some(key)) => {
            let authority = config.tls.client_ca.as_ref().map(path);
            let revoked = config.tls.client_crl.as_ref().map(path);
            if revoked.is_some() && authority.is_none() {
                return Err(Failure::refused("tls.client_crl needs tls.client_ca"));
            }
            let clients = authority
                .as_deref()
                .map(|authority| ClientCertificates { authority, revoked: revoked.as_deref() });
            let made = ServerTls::load(&path(cert), &path(key), clients);
            Some(made.map_err(Failure::refused)?)
        }
        (ClientTlsMode::Allow | ClientTlsMode::Require, ..) => {
            return Err(Failure::refused("tls.mode needs tls.cert and tls.key"));
        }
    };
    let (rules, names) = read_rules(config, folder).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::refused(all.join("\n"))
    })?;
    Ok(Access {
        users: Arc::new(users),
        pool_modes: config
            .databases
            .iter()
            .filter_map(|database| Some((database.name.clone(), database.pool_mode?)))
            .collect(),
        tls,
        rules,
        names,
        backend_login: config.auth.backend_login,
        lookup: config.auth.query_user.is_some(),
    })
}

/// The rules and maps of names that `config` names.
///
/// # Errors
/// Everything that is wrong with the files, or with both together.
pub(super) fn read_rules(
    config: &Config,
    folder: &Path,
) -> Result<(Option<Rules>, NameMaps), Vec<Problem>> {
    let names = match &config.auth.ident_file {
        Some(file) => read_with(&folder.join(file), NameMaps::parse)?,
        None => NameMaps::default(),
    };
    let Some(file) = &config.auth.hba_file else { return Ok((None, names)) };
    let path = folder.join(file);
    let rules = read_with(&path, Rules::parse)?;
    let name = path.display().to_string();
    let problem = |line, reason: String| Problem { file: name.clone(), line, column: 1, reason };
    let mut problems: Vec<Problem> = rules
        .maps()
        .filter(|(_, map)| !names.has(map))
        .map(|(line, map)| problem(line, format!("there is no map {map} in auth.ident_file")))
        .collect();
    if let Some(line) = rules.first_with_certificate()
        && config.tls.client_ca.is_none()
    {
        let reason = "clients are asked for no certificate: set tls.client_ca".to_owned();
        problems.push(problem(line, reason));
    }
    if problems.is_empty() { Ok((Some(rules), names)) } else { Err(problems) }
}

fn read_with<T>(
    path: &Path,
    parse: impl FnOnce(&str, &str) -> Result<T, Vec<Problem>>,
) -> Result<T, Vec<Problem>> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &name),
        Err(error) => {
            let reason = format!("can't read the file: {error}");
            Err(vec![Source::new(&name, "").problem(0, reason)])
        }
    }
}

fn make_user(
    user: &config::User,
    folder: &Path,
    environment: &Environment,
) -> Result<User, Failure> {
    let of = |error: &dyn Display| Failure::refused(format!("user {}: {error}", user.name));
    let mut made = User {
        admin: user.admin == Admin::Allow,
        databases: (!user.databases.is_empty()).then(|| user.databases.clone()),
        pool_mode: user.pool_mode,
        consistency: user.consistency,
        hints_forbidden: user.hints == Hints::Refuse,
        backend_login: user.backend_login,
        ..User::default()
    };
    let reference = match &user.login {
        Login::Trust => {
            made.trust = true;
            return Ok(made);
        }
        Login::Verifier(text) => {
            let stored = StoredPassword::parse(text.expose()).map_err(|error| of(&error))?;
            made.stored = Some(stored);
            return Ok(made);
        }
        Login::Password(secret) => SecretRef::Inline(secret.clone()),
        Login::PasswordEnv(name) => SecretRef::Env(name.clone()),
        Login::PasswordFile(path) => SecretRef::File(path.clone()),
        Login::PasswordCommand(words) => SecretRef::Command(words.clone()),
    };
    let password = environment.resolve(&reference, folder).map_err(|error| of(&error))?;
    if let Some(password) = password {
        made.stored = Some(StoredPassword::Scram(verifier_of(&password)?));
        made.password = Some(password);
    }
    Ok(made)
}

/// A verifier of `password`, with a salt of its own.
pub(super) fn verifier_of(password: &Secret) -> Result<Arc<Verifier>, Failure> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(Failure::failed)?;
    Verifier::from_password(password.expose().as_bytes(), &salt, ITERATIONS_DEFAULT)
        .map(Arc::new)
        .map_err(Failure::refused)
}

/// The role that looks up users, and its password.
pub(super) fn lookup_login(
    config: &Config,
    folder: &Path,
    environment: &Environment,
) -> Result<Option<(String, Option<Secret>)>, String> {
    let auth = &config.auth;
    let Some(user) = &auth.query_user else { return Ok(None) };
    let reference = if let Some(secret) = &auth.query_password {
        SecretRef::Inline(secret.clone())
    } else if let Some(name) = &auth.query_password_env {
        SecretRef::Env(name.clone())
    } else if let Some(path) = &auth.query_password_file {
        SecretRef::File(path.clone())
    } else if !auth.query_password_command.is_empty() {
        SecretRef::Command(auth.query_password_command.clone())
    } else {
        SecretRef::Client
    };
    let password = environment
        .resolve(&reference, folder)
        .map_err(|error| format!("auth.query_user: {error}"))?;
    Ok(Some((user.clone(), password)))
}

/// How to log in at each shard of a map; `folder` is that of its file.
pub(super) fn logins(
    map: &Map,
    environment: &Environment,
    folder: &Path,
) -> Result<HashMap<ShardId, BackendLogin>, String> {
    let mut out = HashMap::new();
    for shard in map.shards() {
        let of = |error: &dyn Display| format!("shard {}: {error}", shard.name);
        let encrypted = match shard.tls.mode {
            TlsMode::Disable => None,
            TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyFull => {
                let root = shard.tls.root_cert.as_ref();
                let root_cert = root.map(|file| folder.join(file).display().to_string());
                let settings = Tls { mode: shard.tls.mode, root_cert };
                Some(tls::client_config(&settings).map_err(|error| of(&error))?)
            }
        };
        out.insert(
            shard.id,
            BackendLogin {
                user: shard.credentials.user.clone(),
                password: environment
                    .resolve(&shard.credentials.password, folder)
                    .map_err(|error| of(&error))?,
                tls: encrypted,
                tls_required: matches!(shard.tls.mode, TlsMode::Require | TlsMode::VerifyFull),
            },
        );
    }
    Ok(out)
}
