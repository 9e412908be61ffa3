//! `keyway catalog`: writes down what the shards' schemas hold.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::access::logins;
use super::cli::{CatalogArgs, Exit};
use super::complain;
use super::secrets::Environment;
use crate::catalog::{self, Catalog, differences};
use crate::cluster::Member;
use crate::control::catalog::load;
use crate::control::monitor::{Credentials, Target};
use crate::engine::BackendLogin;
use crate::route::key_faults;
use crate::shardmap::{Map, Node, Shard};
use crate::types::{Role, ShardId};

/// Asks every shard's primary and prints the catalog.
pub(super) fn run(args: &CatalogArgs) -> Exit {
    let map = match super::route::read_map(&args.map) {
        Ok(map) => map,
        Err((exit, reason)) => return complain(exit, reason),
    };
    let folder = args.map.parent().unwrap_or(Path::new(""));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let loaded = match runtime {
        Ok(runtime) => runtime.block_on(load_all(&map, folder, args.user.as_deref())),
        Err(error) => Err(error.to_string()),
    };
    let catalog = match loaded {
        Ok(catalog) => catalog,
        Err(reason) => return complain(Exit::Failed, reason),
    };
    for warning in warnings(&map, &catalog) {
        complain(Exit::Done, format!("warning: {warning}"));
    }
    match catalog::print(&catalog) {
        // A reader that has left gets nothing more.
        Ok(text) => drop(writeln!(std::io::stdout(), "{text}")),
        Err(error) => return complain(Exit::Failed, error),
    }
    Exit::Done
}

/// The catalog in a file that `keyway catalog` wrote.
pub(super) fn read(path: &Path) -> Result<Catalog, (Exit, String)> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| (Exit::Failed, format!("{name}: {error}")))?;
    catalog::parse(&text).map_err(|error| (Exit::Refused, format!("{name}: {error}")))
}

async fn load_all(map: &Map, folder: &Path, user: Option<&str>) -> Result<Catalog, String> {
    let environment = Environment::of_process();
    let logins = logins(map, &environment, folder)?;
    let mut shards = Vec::new();
    for node in map.nodes().iter().filter(|node| node.role == Role::Primary) {
        let Some(shard) = map.shard(node.shard) else { continue };
        let login = login_of(&logins, shard.id, user, &environment)
            .ok_or_else(|| format!("shard {}: no user: give --user", shard.name))?;
        let target = target_of(map, shard, node, login);
        let loaded =
            load(&target).await.map_err(|error| format!("shard {}: {error}", shard.name))?;
        shards.push((shard.id, Arc::new(loaded)));
    }
    Ok(Catalog::new(shards))
}

/// A shard's primary, to be logged in at so.
pub(super) fn target_of(map: &Map, shard: &Shard, node: &Node, login: BackendLogin) -> Target {
    Target {
        member: Member { node: node.id, shard: shard.id, role: node.role, weight: 1, near: false },
        name: format!("{}/{}/{}", map.database(), shard.name, node.endpoint),
        host: node.host().to_owned(),
        port: node.port(),
        dbname: shard.dbname.clone(),
        user: login.user.unwrap_or_default(),
        password: login.password,
        tls: login.tls,
        tls_required: login.tls_required,
        credentials: Credentials::default(),
    }
}

/// The map's login, else the user asked for, else the environment's.
fn login_of(
    logins: &HashMap<ShardId, BackendLogin>,
    shard: ShardId,
    user: Option<&str>,
    environment: &Environment,
) -> Option<BackendLogin> {
    let mut login = logins.get(&shard).cloned().unwrap_or_default();
    if login.user.is_none() {
        login.user = user.or_else(|| environment.variable("PGUSER")).map(str::to_owned);
    }
    login.user.as_ref()?;
    if login.password.is_none() {
        login.password = environment.secret("PGPASSWORD").ok();
    }
    Some(login)
}

/// What an operator should know of the catalog: keys that can't be keys, and
/// tables that should be the same on all shards and aren't.
pub(super) fn warnings(map: &Map, catalog: &Catalog) -> Vec<String> {
    let mut out = key_faults(map, catalog);
    let on_all = |schema: &str, name: Option<&str>| {
        use crate::shardmap::Table;
        let Some(name) = name else { return map.schema_shard(schema).is_none() };
        match map.table(Some(schema), name) {
            Some(Table::Sharded { .. } | Table::Reference) => true,
            Some(Table::Single(_)) | None => false,
        }
    };
    let name = |id: ShardId| map.shard(id).map_or("?", |shard| shard.name.as_str());
    let Some(home) = catalog.shard(map.home()) else { return out };
    for (shard, other) in catalog.shards().filter(|(shard, _)| *shard != map.home()) {
        let left = DIFFERENCES_MAX.saturating_sub(out.len());
        out.extend(differences((name(map.home()), home), (name(shard), other), left, &on_all));
    }
    out
}

/// More are not listed.
const DIFFERENCES_MAX: usize = 10;
