//! The shard map of a local cluster: its nodes, and the sample's tables.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::describe::{ClusterView, NodeView};
use super::error::LocalError;
use super::state::write_file;

/// Writes the cluster's shard map and the router's configuration, unless
/// someone took them over. The map's epoch grows when its content changes, as
/// it does when a port had to be chosen anew.
pub(crate) fn write_router_files(view: &ClusterView) -> Result<(), LocalError> {
    let old = fs::read_to_string(&view.map).unwrap_or_default();
    if old.is_empty() || old.starts_with(MARK) {
        let epoch = epoch_in(&old);
        if old != map_text(view, epoch) {
            write_file(&view.map, &map_text(view, epoch.saturating_add(1)), 0o644)?;
        }
    }
    let old = fs::read_to_string(&view.config).unwrap_or_default();
    if old.is_empty() || old.starts_with(MARK) {
        write_file(&view.config, &config_text(view), 0o644)?;
    }
    Ok(())
}

/// The epoch that a map file names; zero where it names none.
fn epoch_in(map: &str) -> u32 {
    map.lines().find_map(|line| line.strip_prefix("epoch = ")?.parse().ok()).unwrap_or(0)
}

/// A configuration for `keyway serve`: the application's user, who is an
/// administrator too.
fn config_text(view: &ClusterView) -> String {
    let path = |path: &Path| string(&path.display().to_string());
    format!(
        "{MARK}; it is written anew at each start until this line is removed.\n\
         listen = [\"127.0.0.1:{}\"]\n\
         http_listen = \"127.0.0.1:{}\"\n\
         maps = [{}]\n\
         state_dir = {}\n\n\
         [[user]]\nname = \"{}\"\npassword_file = {}\nadmin = true\n",
        view.router_ports.0,
        view.router_ports.1,
        path(&view.map),
        path(&view.dir.join("state")),
        view.user,
        path(&view.password_file)
    )
}

/// First and last slot of shard `number` of `count`: even parts, in order.
pub(crate) fn slots_of(number: u16, count: u16) -> (u32, u32) {
    let bound = |n: u16| u32::from(n) * SLOTS / u32::from(count.max(1));
    (bound(number.saturating_sub(1)), bound(number).saturating_sub(1))
}

fn map_text(view: &ClusterView, epoch: u32) -> String {
    let mut out = format!(
        "{MARK}; it is written anew at each start until this line is removed.\n\
         epoch = {epoch}\ndatabase = \"{}\"\nhome = \"shard1\"\nconsistency = \"any\"\n",
        view.database
    );
    let mut ranges = Vec::new();
    for shard in &view.shards {
        let replicas: Vec<String> = shard.replicas.iter().map(node).collect();
        // A string never fails to grow.
        let _ = write!(
            out,
            "\n[[shard]]\nnumber = {}\nname = \"{}\"\nuser = \"{}\"\npassword_file = {}\n\
             tls = \"disable\"\nprimary = {}\nreplicas = [{}]\n",
            shard.number,
            shard.name,
            view.user,
            string(&view.password_file.display().to_string()),
            node(&shard.primary),
            replicas.join(", ")
        );
        ranges.push(format!("{} = [\"{}-{}\"]", shard.name, shard.slots.0, shard.slots.1));
    }
    let _ = write!(
        out,
        "\n[[keyspace]]\nname = \"tenants\"\ntype = \"int8\"\nslots = {SLOTS}\n\
         ranges = {{ {} }}\n{SAMPLE_TABLES}",
        ranges.join(", ")
    );
    out
}

fn node(node: &NodeView) -> String {
    format!("{{ host = \"{}\", port = {} }}", node.host, node.port)
}

/// A string as TOML's basic strings write it.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // A string never fails to grow.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

const MARK: &str = "# Written by `keyway local up`";
/// Slots of the sample's keyspace.
const SLOTS: u32 = 4_096;
const SAMPLE_TABLES: &str = r#"
[[key_rule]]
keyspace = "tenants"
column = "tenant_id"
tables = ["public.tenants", "public.users", "public.projects", "public.tasks", "public.comments"]

[reference]
tables = ["public.plans"]
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::local::describe::sample_view;
    use crate::shardmap::{KeyType, Map, Table};

    #[test]
    fn slots_are_divided_evenly_and_wholly() {
        assert_eq!([slots_of(1, 2), slots_of(2, 2)], [(0, 2047), (2048, 4095)]);
        for count in 1..=64 {
            let mut next = 0;
            for number in 1..=count {
                let (first, last) = slots_of(number, count);
                assert_eq!(first, next);
                next = last + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }

    #[test]
    fn map_of_a_cluster_is_valid_and_names_its_nodes() {
        let view = sample_view();
        let map = Map::parse(&map_text(&view, 1), "shardmap.toml").unwrap();
        assert_eq!(map.shards().len(), 2);
        let ports: Vec<u16> = map.nodes().iter().map(|n| n.port()).collect();
        assert_eq!(ports, view.nodes().map(|n| n.port).collect::<Vec<_>>());
        let Some(Table::Sharded { keyspace, column, .. }) = map.table(None, "tasks") else {
            panic!("tasks is sharded");
        };
        assert_eq!(column, "tenant_id");
        assert_eq!(map.keyspace(keyspace).unwrap().key_type(), KeyType::Int8);
        assert_eq!(map.table(None, "plans"), Some(Table::Reference));
    }

    #[test]
    fn configuration_is_valid_and_names_the_map() {
        let view = sample_view();
        let config = Config::parse(&config_text(&view), "keyway.toml").unwrap();
        assert_eq!(config.server.maps, [view.map.display().to_string()]);
        assert_eq!(config.users.len(), 1);
    }

    #[test]
    fn map_that_someone_took_over_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut view = sample_view();
        view.map = dir.path().join("shardmap.toml");
        view.config = dir.path().join("keyway.toml");
        write_router_files(&view).unwrap();
        assert_eq!(fs::read_to_string(&view.map).unwrap(), map_text(&view, 1));
        fs::write(&view.map, "# mine\n").unwrap();
        write_router_files(&view).unwrap();
        assert_eq!(fs::read_to_string(&view.map).unwrap(), "# mine\n");
    }

    #[test]
    fn epoch_grows_when_the_map_changes_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut view = sample_view();
        view.map = dir.path().join("shardmap.toml");
        view.config = dir.path().join("keyway.toml");
        for (port, epoch) in [(7001, 1), (7001, 1), (7009, 2), (7009, 2)] {
            view.shards[0].primary.port = port;
            write_router_files(&view).unwrap();
            assert_eq!(epoch_in(&fs::read_to_string(&view.map).unwrap()), epoch);
        }
    }

    #[test]
    fn demo_map_differs_from_this_one_only_in_its_hosts() {
        let demo = Map::parse(include_str!("../../shardmaps/demo.toml"), "demo.toml").unwrap();
        let local = Map::parse(&map_text(&sample_view(), 1), "shardmap.toml").unwrap();
        assert_eq!(demo.keyspaces(), local.keyspaces());
        assert!(demo.tables().eq(local.tables()));
        assert_eq!(demo.consistency(), local.consistency());
        assert_eq!(demo.nodes().len(), local.nodes().len());
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\c\n"), r#""a\"b\\c\u000A""#);
    }
}
