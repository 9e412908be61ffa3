//! Who may say how fresh a read must be, and tokens between routers: on
//! replicas that stand still a read shows at once where it went.

use keyway::local::NodeName;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::support::cluster::Cluster;
use super::support::router::Router;

/// Replicas of shard 1 whose replay is paused until this is dropped.
pub(crate) struct Paused<'c>(&'c Cluster);

impl<'c> Paused<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        for replica in [1, 2] {
            sql(cluster, replica, "SELECT pg_wal_replay_pause()");
        }
        Self(cluster)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        for replica in [1, 2] {
            sql(self.0, replica, "SELECT pg_wal_replay_resume()");
        }
    }
}

fn sql(cluster: &Cluster, replica: u16, sql: &str) {
    cluster.servers().superuser_sql(NodeName { shard: 1, replica }, sql).unwrap();
}

/// A client's connection.
pub(crate) async fn connect(router: &Router) -> Client {
    let (client, connection) = tokio_postgres::connect(&router.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The first column of the first row.
pub(crate) async fn one(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    value.unwrap().to_owned()
}

/// What EXPLAIN ROUTE says of the node.
pub(crate) async fn node(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(&format!("EXPLAIN ROUTE {sql}")).await.unwrap();
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.get(0) == Some("node") => row.get(1),
        _ => None,
    });
    value.unwrap().to_owned()
}
