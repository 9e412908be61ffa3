//! All settings of a running router, section by section.
//!
//! Each is declared once, with its default and limits; the reader, the manual
//! page and the schema are made from that.

use crate::types::{Consistency, Millis};

use super::moves::MoveSettings;
use super::reader::Reader;
use super::setting::{Bytes, Setting, UrlTemplate, section, words};

/// Everything that tunes the router, apart from who may log in and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Backend connections.
    pub pool: Pool,
    /// What one client may take.
    pub limits: Limits,
    /// How long things may last.
    pub timeouts: Timeouts,
    /// Where reads go.
    pub reads: Reads,
    /// How nodes are watched.
    pub nodes: Nodes,
    /// Reads of several shards that one server puts together.
    pub merge: Merge,
    /// Programs that print passwords.
    pub secrets: Secrets,
    /// Rows that move to another shard.
    pub moves: MoveSettings,
    /// The log.
    pub log: Log,
}

impl Settings {
    /// Rows of the table of settings, in the order of the manual page.
    pub fn table() -> impl Iterator<Item = &'static Setting> {
        let sections = [
            Pool::TABLE,
            Limits::TABLE,
            Timeouts::TABLE,
            Reads::TABLE,
            Nodes::TABLE,
            Merge::TABLE,
            Secrets::TABLE,
            MoveSettings::TABLE,
            Log::TABLE,
        ];
        sections.into_iter().flatten()
    }

    /// The values in the order of the rows.
    pub(crate) fn written(&self) -> Vec<String> {
        [
            self.pool.written(),
            self.limits.written(),
            self.timeouts.written(),
            self.reads.written(),
            self.nodes.written(),
            self.merge.written(),
            self.secrets.written(),
            self.moves.written(),
            self.log.written(),
        ]
        .concat()
    }

    pub(crate) fn read_from(reader: &mut Reader<'_>) -> Self {
        Self {
            pool: Pool::read_from(reader),
            limits: Limits::read_from(reader),
            timeouts: Timeouts::read_from(reader),
            reads: Reads::read_from(reader),
            nodes: Nodes::read_from(reader),
            merge: Merge::read_from(reader),
            secrets: Secrets::read_from(reader),
            moves: MoveSettings::read_from(reader),
            log: Log::read_from(reader),
        }
    }
}

words! {
    /// When a client gives its backend back.
    PoolMode {
        /// At the end of each transaction.
        #[default]
        Transaction = "transaction",
        /// When the client leaves.
        Session = "session",
        /// At the end of each statement: there are no transactions.
        Statement = "statement",
    }
}

words! {
    /// Whose writes the router sees.
    Writers {
        /// All come through this router.
        #[default]
        Here = "here",
        /// Others write too: more routers, jobs, direct connections.
        Elsewhere = "elsewhere",
    }
}

words! {
    /// Who says which of two primaries is the right one.
    Authority {
        /// Nobody does.
        #[default]
        Nobody = "nobody",
        /// The shard map.
        Map = "map",
        /// Each node's Patroni.
        Patroni = "patroni",
        /// An operator, by SET PRIMARY on the console.
        Console = "console",
    }
}

words! {
    /// What a line of the log looks like.
    LogFormat {
        /// For people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least important lines that are logged.
    LogLevel {
        /// What failed.
        Error = "error",
        /// What needs attention.
        Warn = "warn",
        /// What changed.
        #[default]
        Info = "info",
        /// Each statement and its route.
        Debug = "debug",
        /// Each message.
        Trace = "trace",
    }
}

section! {
    /// Connections to the backends.
    Pool in "pool." {
        /// When a client gives its backend back: at the end of each transaction, when it leaves (`session`), or after each statement (`statement`): then transactions are refused, and whatever would keep the backend. A user (`[[user]]`) or a database (`[[database]]`) may have a mode of its own.
        mode: PoolMode = PoolMode::Transaction;
        /// Most connections per user, database and node.
        size_max: u32 = 20, 1 => 10_000;
        /// Idle connections that are kept open per user, database and node even when nobody asks.
        size_min_idle: u32 = 0, 0 => 1_000;
        /// Most connections to one node, over all users, the router's own monitoring included. Keep it below the node's `max_connections` less what others use, divided by the number of routers.
        connections_per_node_max: u32 = 100, 3 => 100_000;
        /// Most clients of one user and database that may keep a connection beyond their transactions, for temporary tables, cursors WITH HOLD, session advisory locks or settings that can't be carried; one more gets an error (53400). 0 means any number. Less than `size_max` leaves connections for the others.
        holders_max: u32 = 0, 0 => 100_000;
        /// Most prepared statements that are kept on one connection; the least recently used is closed first.
        prepared_max: u32 = 200, 0 => 100_000;
        /// How long a client waits for a connection before it gets an error. Clients are served in the order in which they came.
        checkout_timeout: Millis = Millis::new(5_000), Millis::new(1) => Millis::new(3_600_000);
        /// An idle connection is closed after this time, down to `size_min_idle`; 0 means never.
        idle_timeout: Millis = Millis::new(600_000), Millis::ZERO => Millis::new(86_400_000);
        /// A connection is closed once it is older than this and free; up to a tenth is taken off at random, so that not all end together. 0 means never.
        lifetime_max: Millis = Millis::new(3_600_000), Millis::ZERO => Millis::new(604_800_000);
        /// First wait after a connection attempt failed; doubled at each further failure.
        reconnect_min: Millis = Millis::new(100), Millis::new(1) => Millis::new(60_000);
        /// Longest wait between connection attempts.
        reconnect_max: Millis = Millis::new(10_000), Millis::new(1) => Millis::new(3_600_000);
    }
}

section! {
    /// What clients may take.
    Limits in "limits." {
        /// Most clients at a time; one more is refused with an error.
        clients_max: u32 = 10_000, 1 => 1_000_000;
        /// Most clients from one IP address at a time; 0 means any number. An IPv6 network of 64 bits counts as one address; Unix sockets are not counted.
        clients_per_address_max: u32 = 0, 0 => 1_000_000;
        /// Most connections that are not logged in yet; one more is refused.
        logins_at_once_max: u32 = 1_000, 1 => 1_000_000;
        /// Most failed logins from one IP address in a minute, after which it is refused for the rest of that minute; 0 means any number.
        failed_logins_per_address_max: u32 = 0, 0 => 1_000_000;
        /// Longest text of a statement.
        statement_bytes_max: Bytes = Bytes::mib(16), Bytes::kib(4) => Bytes::mib(512);
        /// Most bytes of one client that are held while the router looks for the sharding key, and most bytes of replies that wait for a slow client.
        held_bytes_max: Bytes = Bytes::mib(1), Bytes::kib(64) => Bytes::mib(256);
        /// Most prepared statements of one client.
        prepared_per_client_max: u32 = 10_000, 1 => 1_000_000;
        /// Most bytes of prepared statements' texts of one client.
        prepared_bytes_max: Bytes = Bytes::mib(16), Bytes::kib(4) => Bytes::mib(1024);
        /// Most portals that one client has open.
        portals_per_client_max: u32 = 1_000, 1 => 100_000;
        /// Most memory for plans of statements, in each thread.
        plan_cache_bytes_max: Bytes = Bytes::mib(32), Bytes::mib(1) => Bytes::mib(1024);
    }
}

section! {
    /// How long things may last.
    Timeouts in "timeouts." {
        /// From connecting to being logged in.
        login: Millis = Millis::new(10_000), Millis::new(100) => Millis::new(600_000);
        /// From asking a backend for a connection to being logged in there.
        connect: Millis = Millis::new(5_000), Millis::new(10) => Millis::new(600_000);
        /// A client that leaves its transaction idle for longer is disconnected and the transaction rolled back; 0 means never.
        idle_in_transaction: Millis = Millis::ZERO, Millis::ZERO => Millis::new(86_400_000);
        /// A statement that runs longer is cancelled; 0 means never.
        statement: Millis = Millis::ZERO, Millis::ZERO => Millis::new(86_400_000);
        /// A client that is idle outside a transaction for longer is disconnected; 0 means never.
        client_idle: Millis = Millis::ZERO, Millis::ZERO => Millis::new(604_800_000);
        /// A client that keeps a connection beyond its transactions and is idle for longer is disconnected, so that others get the connection; 0 means never. Session mode does not count.
        idle_hold: Millis = Millis::ZERO, Millis::ZERO => Millis::new(604_800_000);
        /// How long a statement waits while an operator has paused its database before it gets an error; 0 means until the end of the pause.
        paused: Millis = Millis::new(120_000), Millis::ZERO => Millis::new(86_400_000);
        /// How long a router whose sockets another one has taken over serves the clients that it
        /// still has before it drains.
        retire: Millis = Millis::new(3_600_000), Millis::new(0) => Millis::new(604_800_000);
        /// How long a shutdown waits for running transactions before it cuts them off.
        drain: Millis = Millis::new(30_000), Millis::ZERO => Millis::new(86_400_000);
    }
}

section! {
    /// Reads of several shards that one server puts together.
    Merge in "merge." {
        /// Whether there are such reads; without them a read whose rows can't just be streamed is refused.
        enabled: bool = true;
        /// Most rows that one read brings together. A read that brings more fails.
        array_rows: u32 = 20_000, 1 => 10_000_000;
        /// Most bytes of rows that one read brings together. The server that puts them together needs about four times as much for as long.
        array_bytes: Bytes = Bytes::mib(4), Bytes::kib(64) => Bytes::mib(512);
        /// Most bytes of rows that a cursor over several shards has, or a portal that is executed in parts: they are kept in the router.
        cursor_bytes: Bytes = Bytes::mib(64), Bytes::kib(64) => Bytes::mib(4_096);
        /// Most bytes of rows that all reads of a thread hold at a time. A read that needs more fails.
        router_memory: Bytes = Bytes::mib(512), Bytes::mib(1) => Bytes::mib(65_536);
    }
}

section! {
    /// Where reads go.
    Reads in "reads." {
        /// How fresh reads must be: `primary` never uses a replica; `slot` uses one that has replayed every write to the same slots that this router acknowledged; `session` one that shows the session its own writes and no less than it has seen; `bounded(LAG)` one that trails by at most that time; `any` any healthy one. A map's own `consistency` comes first.
        consistency: Consistency = Consistency::Slot;
        /// Whether all writes come through this router, which the level `slot` needs: with `elsewhere` its reads go to the primary.
        writers: Writers = Writers::Here;
        /// How long a read waits for a replica that has replayed enough before it goes to the primary; 0 does not wait.
        replica_wait: Millis = Millis::ZERO, Millis::ZERO => Millis::new(10_000);
        /// The same for a READ ONLY transaction, which a replica may serve once it has all that was acknowledged before; the longer of the two counts.
        transaction_wait: Millis = Millis::new(20), Millis::ZERO => Millis::new(10_000);
        /// While a shard has no primary, its reads are served by a replica that misses at most so much, whatever their level but `primary`; 0 lets them wait for a primary.
        read_only_when_primary_down: Millis = Millis::ZERO, Millis::ZERO => Millis::new(604_800_000);
        /// The zone this router stands in; replicas of the same zone are preferred.
        zone: Option<String> = None;
    }
}

section! {
    /// How nodes are watched.
    Nodes in "nodes." {
        /// Which of two nodes that both say that they are a shard's primary gets the writes: with `nobody` none of them does until one is gone; with `map` it is the one that the shard map declares; with `patroni` the one whose Patroni says that it leads, and a primary alone gets none if its Patroni denies it; with `console` the one that an operator has named by `SET PRIMARY`.
        authority: Authority = Authority::Nobody;
        /// Where a node's Patroni is asked; `{host}` and `{port}` are those of the node in the map. It must answer as Patroni's `/primary` does: 200 from the leader, 503 from any other. Plain HTTP.
        patroni_url: UrlTemplate = UrlTemplate::new("http://{host}:8008/primary");
        /// A replica that is further behind is `lagging`, until it is half as far: reads at level `any` then prefer others.
        lagging_after: Millis = Millis::new(10_000), Millis::new(10) => Millis::new(86_400_000);
    }
}

section! {
    /// Programs that print passwords: `password_command`.
    Secrets in "secrets." {
        /// A program that takes longer is ended, and has failed.
        command_timeout: Millis = Millis::new(10_000), Millis::new(100) => Millis::new(60_000);
        /// How often they run again, for passwords that expire; a reload runs them too. 0 means only then.
        command_refresh: Millis = Millis::new(300_000), Millis::ZERO => Millis::new(86_400_000);
    }
}

section! {
    /// The log, on standard error.
    Log in "log." {
        /// What a line looks like.
        format: LogFormat = LogFormat::Text;
        /// The least important lines that are written.
        level: LogLevel = LogLevel::Info;
    }
}
