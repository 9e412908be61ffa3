//! The metrics page, in the OpenMetrics text format.
//!
//! Labels are names of the maps (database, shard, node) and words of a closed
//! list, never a client's, a user's or a statement's: the number of series is
//! bounded by the configuration. Users' pools are summed per node; the console
//! has them one by one.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::console::VERSION;
use super::source::Inputs;
use crate::cluster::Health;
use crate::engine::snapshot::{ClientState, Latency, PoolSnapshot, Totals};
use crate::types::NodeId;

/// The page's content type.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page.
pub fn page(inputs: Inputs) -> String {
    let mut registry = Registry::with_prefix("keyway");
    let mut families = totals(&inputs.engine.totals);
    families.extend(delays(&inputs.engine.totals));
    families.extend(clients(&inputs));
    families.extend(pools(&inputs));
    families.extend(nodes(&inputs));
    families.extend(maps(&inputs));
    let latency = inputs.engine.totals.latency;
    registry.register_collector(Box::new(Page { families, latency }));
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = text::encode(&mut out, &registry);
    out
}

/// Everything of one page.
#[derive(Debug)]
struct Page {
    families: Vec<Family>,
    latency: Latency,
}

/// Samples of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    samples: Vec<(Labels, Sample)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug)]
enum Sample {
    Count(u64),
    CountMs(u64),
    CountUs(u64),
    Level(u64),
    LevelMs(u64),
    LevelUs(u64),
}

impl Sample {
    const fn kind(self) -> MetricType {
        match self {
            Self::Count(_) | Self::CountMs(_) | Self::CountUs(_) => MetricType::Counter,
            Self::Level(_) | Self::LevelMs(_) | Self::LevelUs(_) => MetricType::Gauge,
        }
    }

    fn encode(self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => encoder.encode_counter::<NoLabelSet, _, u64>(&n, None),
            Self::CountMs(ms) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&seconds(ms, 1_000), None)
            }
            Self::CountUs(us) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&seconds(us, 1_000_000), None)
            }
            Self::Level(n) => encoder.encode_gauge(&n),
            Self::LevelUs(us) => encoder.encode_gauge(&seconds(us, 1_000_000)),
            Self::LevelMs(ms) => encoder.encode_gauge(&seconds(ms, 1_000)),
        }
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, unit, samples } in &self.families {
            let Some((_, first)) = samples.first() else { continue };
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), first.kind())?;
            for (labels, sample) in samples {
                if labels.is_empty() {
                    sample.encode(&mut metric)?;
                } else {
                    sample.encode(&mut metric.encode_family(labels)?)?;
                }
            }
        }
        let buckets: Vec<(f64, u64)> = (0..)
            .zip(self.latency.buckets)
            .map(|(index, count)| {
                let bound = Latency::bound_us(index);
                (bound.map_or(f64::MAX, |us| seconds(us, 1_000_000)), count)
            })
            .collect();
        let (sum, count) = (seconds(self.latency.sum_us, 1_000_000), self.latency.count());
        encoder
            .encode_descriptor(
                "statement_duration",
                "From a statement's arrival to the end of its reply; of a sample of them.",
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn totals(totals: &Totals) -> Vec<Family> {
    let by_class = |origin: &'static str, errors: &BTreeMap<String, u64>| {
        let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
        for (class, count) in errors {
            *classes.entry(known_class(class)).or_default() += count;
        }
        let labels =
            move |class: &str| vec![("origin", origin.to_owned()), ("class", class.to_owned())];
        classes
            .into_iter()
            .map(|(class, count)| (labels(class), Sample::Count(count)))
            .collect::<Vec<_>>()
    };
    let errors =
        [by_class("router", &totals.errors_router), by_class("server", &totals.errors_server)];
    let reads = totals.reads.iter().map(|(reason, n)| one("reason", reason, Sample::Count(*n)));
    let version = (vec![("version", VERSION.to_owned())], Sample::Level(1));
    vec![
        family("build_info", "The router's version, always 1.", vec![version]),
        counter("statements", "Statements of clients.", totals.statements),
        counter("transactions", "Transactions of clients.", totals.transactions),
        family("errors", "Errors that clients got, by origin and class.", errors.concat()),
        counter("received_bytes", "Bytes that clients sent.", totals.bytes_in),
        counter("sent_bytes", "Bytes that clients were sent.", totals.bytes_out),
        family(
            "plans",
            "Statements by whether their plan was in the cache.",
            vec![
                one("result", "hit", Sample::Count(totals.plan_hits)),
                one("result", "miss", Sample::Count(totals.plan_misses)),
            ],
        ),
        family("reads", "Reads by why they went where they did.", reads.collect()),
        counter("checkouts", "Connections given to clients.", totals.checkouts),
        counter(
            "checkout_timeouts",
            "Clients that waited for a connection in vain.",
            totals.checkout_timeouts,
        ),
        counter("cancels", "Cancel requests with a known key.", totals.cancels),
        family(
            "logins",
            "Logins of clients.",
            vec![
                one("result", "ok", Sample::Count(totals.logins_ok)),
                one("result", "failed", Sample::Count(totals.logins_failed)),
            ],
        ),
        gauge("clients", "Clients that are connected.", totals.clients_now),
        gauge("clients_limit", "Most clients that may be connected.", totals.clients_max),
    ]
}

/// What held clients or threads up.
fn delays(totals: &Totals) -> Vec<Family> {
    vec![
        family(
            "move_waits",
            "Statements on keys that move: held until a cutover is over, in vain, or run again after a fence refused them.",
            vec![
                one("kind", "held", Sample::Count(totals.held)),
                one("kind", "timeout", Sample::Count(totals.hold_timeouts)),
                one("kind", "fenced", Sample::Count(totals.fenced)),
            ],
        ),
        counter(
            "passed_on",
            "Connections that a thread closed for another thread's clients.",
            totals.passed_on,
        ),
        counter("nudges", "Threads woken because another goes short.", totals.nudges),
        counter("map_swaps", "Maps that threads have taken over.", totals.map_swaps),
        timed(
            "map_swap",
            "For how long taking maps over kept threads from their clients, together.",
            vec![(Labels::new(), Sample::CountUs(totals.map_swap_us_sum))],
        ),
        timed(
            "map_swap_longest",
            "The longest for which taking a map over kept a thread from its clients.",
            vec![(Labels::new(), Sample::LevelUs(totals.map_swap_us_max))],
        ),
    ]
}

fn clients(inputs: &Inputs) -> Vec<Family> {
    let states = [
        ClientState::Login,
        ClientState::Idle,
        ClientState::Active,
        ClientState::Transaction,
        ClientState::Waiting,
    ];
    let samples = states.map(|state| {
        let count = inputs.engine.clients.iter().filter(|client| client.state == state).count();
        one("state", state.as_str(), Sample::Level(wide(count)))
    });
    let help = "Clients by what they are doing.";
    vec![family("clients_by_state", help, samples.to_vec())]
}

/// Pools of all users together, by node.
fn pools(inputs: &Inputs) -> Vec<Family> {
    let mut nodes: BTreeMap<(&str, NodeId), Vec<&PoolSnapshot>> = BTreeMap::new();
    for pool in &inputs.engine.pools {
        nodes.entry((&pool.database, pool.node)).or_default().push(pool);
    }
    let sum = |pools: &[&PoolSnapshot], number: fn(&PoolSnapshot) -> u64| {
        pools.iter().fold(0_u64, |sum, pool| sum.saturating_add(number(pool)))
    };
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    let (mut oldest, mut checkouts, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for ((database, node), pools) in &nodes {
        let labels = node_labels(inputs, database, *node);
        let with = |state: &str| {
            let mut labels = labels.clone();
            labels.push(("state", state.to_owned()));
            labels
        };
        let level = |number| Sample::Level(sum(pools, number));
        clients.push((with("active"), level(|pool| pool.clients_active)));
        clients.push((with("waiting"), level(|pool| pool.clients_waiting)));
        servers.push((with("active"), level(|pool| pool.servers_active)));
        servers.push((with("idle"), level(|pool| pool.servers_idle)));
        servers.push((with("connecting"), level(|pool| pool.servers_connecting)));
        let longest = pools.iter().map(|pool| pool.oldest_wait_ms).max().unwrap_or(0);
        oldest.push((labels.clone(), Sample::LevelMs(longest)));
        checkouts.push((labels.clone(), Sample::Count(sum(pools, |pool| pool.checkouts))));
        let waited = sum(pools, |pool| pool.checkout_wait_ms_total);
        waits.push((labels, Sample::CountMs(waited)));
    }
    vec![
        family("pool_clients", "Clients that have or await a connection to a node.", clients),
        family("pool_connections", "Connections to a node.", servers),
        timed("pool_oldest_wait", "How long the first in the queue has waited.", oldest),
        family("pool_checkouts", "Connections to a node given to clients.", checkouts),
        timed("pool_wait", "How long clients waited for a connection, together.", waits),
    ]
}

fn nodes(inputs: &Inputs) -> Vec<Family> {
    let (mut up, mut bytes, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut states, mut writers) = (Vec::new(), Vec::new());
    for view in &inputs.databases {
        for state in view.cluster.nodes() {
            let labels = node_labels(inputs, view.name(), state.member.node);
            match state.health {
                Health::Healthy | Health::Lagging | Health::Suspect => {
                    up.push((labels.clone(), Sample::Level(1)));
                }
                Health::Down => up.push((labels.clone(), Sample::Level(0))),
                // Neither would be true.
                Health::Unknown => {}
            }
            for health in Health::ALL {
                let mut labels = labels.clone();
                labels.push(("state", health.as_str().to_owned()));
                states.push((labels, Sample::Level(u64::from(state.health == health))));
            }
            let writes = view.cluster.primary_of(state.member.shard) == Some(state.member.node);
            writers.push((labels.clone(), Sample::Level(u64::from(writes))));
            // Who follows now, whatever the map says.
            if let Some(lag) = state.lag_bytes() {
                bytes.push((labels.clone(), Sample::Level(lag)));
            }
            if let Some(lag) = state.lag_ms(inputs.now) {
                times.push((labels, Sample::LevelMs(lag.count())));
            }
        }
    }
    vec![
        family("node_up", "Whether a node answers; absent until it was asked.", up),
        family("node_state", "How a node fares: 1 for the state that it is in.", states),
        family("node_takes_writes", "Whether a node gets its shard's writes.", writers),
        family("replica_lag_bytes", "WAL that a replica has not replayed.", bytes),
        timed("replica_lag", "What a replica misses at most, in time.", times),
    ]
}

fn maps(inputs: &Inputs) -> Vec<Family> {
    let database = |view: &super::DatabaseView, sample| one("database", view.name(), sample);
    let epochs = inputs
        .databases
        .iter()
        .map(|view| database(view, Sample::Level(view.map.epoch().number())));
    let kept = inputs
        .databases
        .iter()
        .map(|view| database(view, Sample::Level(u64::from(view.kept_back.is_some()))));
    vec![
        family("map_epoch", "Epoch of the shard map in force.", epochs.collect()),
        family(
            "map_kept_back",
            "Whether a map file differs from the map in force and was not taken.",
            kept.collect(),
        ),
    ]
}

/// Labels of a node: names of its map.
fn node_labels(inputs: &Inputs, database: &str, id: NodeId) -> Labels {
    let view = inputs.databases.iter().find(|view| view.name() == database);
    let node = view.and_then(|view| view.map.node(id).map(|node| (view, node)));
    let (shard, role) =
        node.map_or(("", ""), |(view, node)| (view.shard_of(node), node.role.as_str()));
    vec![
        ("database", escaped(database)),
        ("shard", escaped(shard)),
        ("node", escaped(&inputs.address_of(database, id))),
        ("role", role.to_owned()),
    ]
}

fn one(label: &'static str, value: &str, sample: Sample) -> (Labels, Sample) {
    (vec![(label, escaped(value))], sample)
}

fn counter(name: &'static str, help: &'static str, count: u64) -> Family {
    family(name, help, vec![(Labels::new(), Sample::Count(count))])
}

fn gauge(name: &'static str, help: &'static str, level: u64) -> Family {
    family(name, help, vec![(Labels::new(), Sample::Level(level))])
}

const fn family(name: &'static str, help: &'static str, samples: Vec<(Labels, Sample)>) -> Family {
    Family { name, help, unit: None, samples }
}

const fn timed(name: &'static str, help: &'static str, samples: Vec<(Labels, Sample)>) -> Family {
    Family { name, help, unit: Some(Unit::Seconds), samples }
}

/// A label's value with the characters that would end it written otherwise;
/// the library writes values as they are.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

/// `class` if the manual lists it, so that no peer can invent series.
fn known_class(class: &str) -> &'static str {
    CLASSES.iter().find(|known| **known == class).unwrap_or(&"other")
}

#[allow(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
fn seconds(count: u64, per_second: u64) -> f64 {
    count as f64 / per_second as f64
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Classes of SQLSTATEs. Source: PostgreSQL manual, "PostgreSQL Error Codes".
const CLASSES: &[&str] = &[
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23",
    "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42",
    "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
];
