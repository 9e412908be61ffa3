//! What the tests start: a cluster, and routers with the maps that they need.

use std::fmt::Write as _;
use std::sync::OnceLock;

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::router::{Router, RouterOptions};

/// Two shards without replicas, for tests that leave servers alone.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start(ClusterOptions { replicas: 0, ..Default::default() });
        cluster.sql_everywhere("CREATE TABLE notes (id int PRIMARY KEY, word text)");
        cluster
    })
}

/// A cluster of one server, to stop and to damage.
pub fn one_server() -> Cluster {
    let options = ClusterOptions { shards: 1, replicas: 0, ..Default::default() };
    let cluster = Cluster::start(options);
    cluster.sql_everywhere("CREATE TABLE notes (id int PRIMARY KEY, word text)");
    cluster
}

/// The map of one shard's server as an unsharded database.
pub fn unsharded_map(cluster: &Cluster, shard: u16) -> String {
    let node = cluster.primary(shard);
    format!(
        "epoch = 1\ndatabase = \"app\"\n\n[[shard]]\nnumber = 1\nname = \"main\"\n\
         user = \"app\"\npassword_file = {:?}\ntls = \"disable\"\n\
         primary = {{ host = {:?}, port = {} }}\n",
        cluster.view().password_file,
        node.host,
        node.port
    )
}

/// A router before the first shard's server, with these lines of configuration
/// and the users t1 to t5 and the administrator a1, of whom no password is
/// asked.
pub fn router(cluster: &Cluster, config: &str) -> Router {
    Router::start(cluster, &options(cluster, config))
}

/// How [`router`] is started.
pub fn options(cluster: &Cluster, config: &str) -> RouterOptions {
    let mut config = format!("{config}\n");
    for number in 1..=5 {
        write!(config, "[[user]]\nname = \"t{number}\"\ntrust = true\n").unwrap();
    }
    config.push_str("[[user]]\nname = \"a1\"\ntrust = true\nadmin = true\n");
    let options = RouterOptions { map: Some(unsharded_map(cluster, 1)), ..Default::default() };
    options.with_config(&config)
}
