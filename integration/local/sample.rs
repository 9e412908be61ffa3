//! The sample: every row is on the shard that owns it, and numbers never collide.

use std::collections::BTreeSet;

use crate::support::cluster::{Cluster, ClusterOptions};

#[test]
fn sample_is_spread_over_the_shards_by_slot() {
    let cluster = Cluster::start(ClusterOptions { replicas: 0, ..Default::default() });
    cluster.load_sample();
    let mut tenants = BTreeSet::new();
    let mut rows = 0;
    for shard in &cluster.view().shards {
        let number = shard.number;
        assert_eq!(cluster.sql(number, "SELECT count(*) FROM plans"), "3");
        for table in ["tenants", "users", "projects", "tasks", "comments"] {
            let slot = "(hashint8extended(tenant_id, 0) & 4095)";
            let (first, last) = shard.slots;
            let sql = format!(
                "SELECT count(*), count(*) FILTER (WHERE {slot} BETWEEN {first} AND {last}) FROM {table}"
            );
            let counts = cluster.sql(number, &sql);
            let (all, owned) = counts.split_once('|').unwrap();
            assert_eq!(all, owned, "{table} on shard {number}");
            rows += all.parse::<u32>().unwrap();
        }
        let here = cluster.sql(number, "SELECT tenant_id FROM tenants");
        tenants.extend(here.lines().map(|id| id.parse::<i64>().unwrap()));
    }
    assert_eq!(tenants, (1..=300).collect());
    assert_eq!(rows, 40_457, "the sample is the same on every machine");
}

#[test]
fn new_rows_of_each_shard_get_numbers_of_their_own() {
    let cluster = Cluster::start(ClusterOptions { replicas: 0, ..Default::default() });
    cluster.load_sample();
    for shard in [1, 2] {
        let id: i64 = cluster
            .sql(
                shard,
                "INSERT INTO tasks (tenant_id, project_id, title) \
                 SELECT tenant_id, project_id, 'new' FROM projects LIMIT 1 RETURNING task_id",
            )
            .parse()
            .unwrap();
        assert_eq!(id >> 40, i64::from(shard));
        let taken =
            cluster.sql(shard, "SELECT count(*) FROM tasks WHERE task_id >= 1::bigint << 40");
        assert_eq!(taken, "1", "the sample's own numbers lie below");
    }
}
