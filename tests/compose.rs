//! `docker-compose.yml` held against the map, the configuration and the files it
//! mounts: no Docker engine is needed to notice that they drifted apart.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use keyway::config::Config;
use keyway::shardmap::Map;
use keyway::types::Role;
use serde_yaml_ng::Value;

#[test]
fn every_node_of_the_map_is_a_postgres_service_and_no_other_is() {
    let (compose, map) = (compose(), map());
    let of_map: BTreeSet<&str> = map.nodes().iter().map(|n| n.host()).collect();
    assert_eq!(of_map.len(), map.nodes().len(), "each node has a host of its own");
    let services = compose["services"].as_mapping().unwrap();
    let of_compose: BTreeSet<&str> = services
        .iter()
        .filter(|(_, s)| s["image"].as_str().is_some_and(|i| i.starts_with("postgres:")))
        .map(|(name, _)| name.as_str().unwrap())
        .collect();
    assert_eq!(of_map, of_compose);
    for node in map.nodes() {
        assert_eq!(node.port(), 5432, "the port that the image listens on");
        let service = &compose["services"][node.host()];
        assert!(service["healthcheck"]["test"].is_sequence(), "{} is checked", node.host());
        let volume = service["volumes"][0].as_str().unwrap();
        assert_eq!(volume, format!("{}:/var/lib/postgresql", node.host()));
        assert!(compose["volumes"].as_mapping().unwrap().contains_key(node.host()));
    }
}

#[test]
fn every_replica_follows_the_primary_of_its_shard() {
    let (compose, map) = (compose(), map());
    for shard in map.shards() {
        let primary = map.node(shard.primary).unwrap();
        assert!(!shard.replicas.is_empty());
        for replica in &shard.replicas {
            let replica = map.node(*replica).unwrap();
            assert_eq!(replica.role, Role::Replica);
            let service = &compose["services"][replica.host()];
            assert_eq!(service["environment"]["PRIMARY_HOST"], primary.host());
            assert_eq!(service["environment"]["PRIMARY_PORT"], primary.port().to_string());
            let condition = &service["depends_on"][primary.host()]["condition"];
            assert_eq!(condition, "service_healthy");
            let (of_replica, of_primary) =
                (&service["image"], &compose["services"][primary.host()]["image"]);
            assert_eq!(of_replica, of_primary, "the same version on both");
        }
    }
}

#[test]
fn every_primary_loads_the_slots_that_the_map_gives_its_shard() {
    let (compose, map) = (compose(), map());
    let text = read("shardmaps/demo.toml");
    for shard in map.shards() {
        let primary = map.node(shard.primary).unwrap();
        let environment = &compose["services"][primary.host()]["environment"];
        let value = |name: &str| environment[name].as_str().unwrap();
        assert_eq!(value("SHARD"), shard.id.number().to_string());
        let range =
            format!("{} = [\"{}-{}\"]", shard.name, value("SLOT_FIRST"), value("SLOT_LAST"));
        assert!(text.contains(&range), "the map has {range}");
    }
}

#[test]
fn router_serves_the_map_on_the_ports_that_are_published() {
    let compose = compose();
    let router = &compose["services"]["router"];
    assert_eq!(router["build"], ".");
    let config = Config::parse(&read("docker/keyway.toml"), "docker/keyway.toml").unwrap();
    let mounted = |path: &str| {
        mounts(router).into_iter().find(|(_, inside)| inside == path).map(|(outside, _)| outside)
    };
    let command = router["command"].as_sequence().unwrap();
    assert_eq!(mounted(command[2].as_str().unwrap()).as_deref(), Some("./docker/keyway.toml"));
    assert_eq!(mounted(&config.server.maps[0]).as_deref(), Some("./shardmaps/demo.toml"));
    assert_eq!(mounted(&config.server.state_dir).as_deref(), Some("router"));
    let published: BTreeSet<String> = router["ports"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|p| p.as_str().unwrap().rsplit(':').next().unwrap().to_owned())
        .collect();
    let listens = config.server.listen.iter().chain(&config.server.http_listen);
    let listens = listens.map(|a| a.rsplit(':').next().unwrap().to_owned()).collect();
    assert_eq!(published, listens);
    let check = router["healthcheck"]["test"][3].as_str().unwrap();
    let http = config.server.http_listen.unwrap();
    assert!(check.contains(&format!("/dev/tcp/127.0.0.1/{}", http.rsplit(':').next().unwrap())));
}

#[test]
fn every_file_that_is_mounted_or_built_from_exists() {
    let compose = compose();
    for (name, service) in compose["services"].as_mapping().unwrap() {
        for (outside, _) in mounts(service) {
            let named = compose["volumes"].as_mapping().unwrap().contains_key(outside.as_str());
            assert!(named || root(&outside).exists(), "{name:?} mounts {outside}");
        }
    }
    let ignored = read(".dockerignore");
    // Cargo refuses a manifest whose targets it can't find.
    let manifest = read("Cargo.toml");
    let targets = manifest.lines().filter_map(|l| l.strip_prefix("path = \"")?.split('/').next());
    for kept in targets.chain(["Cargo.lock"]) {
        assert!(!ignored.lines().any(|l| l == kept), "the build needs {kept}");
    }
    // It would have rustup fetch another toolchain than the image's.
    assert!(ignored.lines().any(|l| l == "rust-toolchain.toml"));
    let version = manifest.lines().find_map(|l| l.strip_prefix("rust-version = ")).unwrap();
    let image = format!("FROM rust:{}-", version.trim_matches('"'));
    assert!(read("Dockerfile").contains(&image), "the image has Rust {version}");
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap()
}

fn map() -> Map {
    Map::parse(&read("shardmaps/demo.toml"), "shardmaps/demo.toml").unwrap()
}

#[test]
fn scripts_that_the_containers_run_are_executable_and_named_as_the_image_wants() {
    use std::os::unix::fs::PermissionsExt;
    let compose = compose();
    let mut found = BTreeSet::new();
    for (_, service) in compose["services"].as_mapping().unwrap() {
        for (outside, inside) in mounts(service).into_iter().filter(|(o, _)| o.ends_with(".sh")) {
            let mode = root(&outside).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{outside} is executable for everyone");
            let runs = inside.starts_with("/docker-entrypoint-initdb.d/")
                || service["entrypoint"][0].as_str() == Some(inside.as_str());
            assert!(runs, "{inside} is run by the image's entrypoint or is it");
            found.insert(outside);
        }
    }
    assert_eq!(found.len(), 2, "one for primaries, one for replicas");
}

#[test]
fn scripts_use_only_what_their_services_are_given() {
    let compose = compose();
    for (script, service) in [("primary.sh", "shard1-primary"), ("replica.sh", "shard1-replica1")] {
        let environment = compose["services"][service]["environment"].as_mapping().unwrap();
        let text = read(&format!("docker/{script}"));
        let used = text.split('$').skip(1).map(|rest| {
            rest.trim_start_matches('{')
                .chars()
                .take_while(|c| c.is_ascii_uppercase() || *c == '_')
                .collect::<String>()
        });
        for name in used.filter(|name| !name.is_empty() && name != "PGDATA") {
            assert!(environment.contains_key(name.as_str()), "{script} uses {name}");
        }
    }
}

/// What a service mounts: outside and inside.
fn mounts(service: &Value) -> Vec<(String, String)> {
    let volumes = service["volumes"].as_sequence().unwrap();
    let parts = volumes.iter().map(|v| v.as_str().unwrap().split(':').collect::<Vec<_>>());
    parts.map(|p| (p[0].to_owned(), p[1].to_owned())).collect()
}

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}
