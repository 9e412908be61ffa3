//! The command line: what can be asked, its help and its exit codes.
//!
//! Scripts rely on the names here. Parses only; it reads no file and starts
//! nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::local::cli::LocalArgs;

/// A sharding router and read/write splitter for PostgreSQL.
///
/// Applications connect to Keyway as they would to Postgres. It pools their
/// connections, finds the shard that owns each statement's key, and sends reads
/// to replicas where the configuration allows it.
#[derive(Debug, Parser)]
#[command(name = "keyway", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the router.
    Serve(ServeArgs),
    /// Say where a statement would go, and why. Offline: reads the map, asks no database.
    Route(RouteArgs),
    /// Write down what the shards' schemas hold, for routing offline.
    Catalog(CatalogArgs),
    /// Say what a shard map would move, and what stands in the way.
    Plan(PlanArgs),
    /// Move rows until they are where a shard map wants them.
    Apply(ApplyArgs),
    /// Propose a shard map in which the shards bear alike.
    Rebalance(RebalanceArgs),
    /// Move rows back to where an earlier map has them.
    Rollback(RollbackArgs),
    /// Say who has put which map into force, and when.
    History(HistoryArgs),
    /// Find what moves have left behind, and rows on shards that don't own them.
    Doctor(DoctorArgs),
    /// Check shard maps and configuration files.
    Check(CheckArgs),
    /// Make a configuration out of another pooler's.
    Import(ImportArgs),
    /// Run real PostgreSQL servers on this machine, for development and tests.
    Local(LocalArgs),
    /// Write the manual pages.
    Man(ManArgs),
    /// Print a shell's completions.
    Completions(CompletionsArgs),
}

/// `keyway serve`.
#[derive(Args, Debug, Default)]
#[command(
    max_term_width = 100,
    long_about = SERVE_ABOUT,
    after_help = SERVE_EXAMPLES,
    group = clap::ArgGroup::new("files").args(["config", "map"]).multiple(true)
        .conflicts_with("backend")
)]
pub struct ServeArgs {
    /// Configuration file; keyway.toml in the working directory if there is one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Shard map; overrides the maps that the configuration names.
    #[arg(long, value_name = "FILE")]
    pub map: Option<PathBuf>,
    /// Where clients connect: ADDR:PORT, or :PORT for all addresses.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Threads that serve clients, over the configuration's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub threads: Option<u32>,
    /// One unsharded database instead of files: postgres://user@host:port/db.
    #[arg(long, value_name = "URL")]
    pub backend: Option<String>,
    /// Take over from the router that runs with the same handover_socket: its listening sockets
    /// are passed on, and it serves the clients that it has until they leave.
    #[arg(long)]
    pub takeover: bool,
    /// A streaming replica of --backend; may be given several times.
    #[arg(long, value_name = "URL", requires = "backend")]
    pub replica: Vec<String>,
}

/// `keyway route`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = ROUTE_ABOUT, after_help = ROUTE_EXAMPLES)]
pub struct RouteArgs {
    /// Shard map to route by.
    #[arg(long, value_name = "FILE")]
    pub map: PathBuf,
    /// What the shards' schemas hold, as `keyway catalog` wrote it; without it routes are planned
    /// from the map alone.
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Value of $1, $2, … in order, in text form.
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    pub params: Vec<String>,
    /// The statement.
    #[arg(value_name = "SQL")]
    pub sql: String,
}

/// `keyway catalog`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = CATALOG_ABOUT, after_help = CATALOG_EXAMPLES)]
pub struct CatalogArgs {
    /// Shard map whose shards are asked.
    #[arg(long, value_name = "FILE")]
    pub map: PathBuf,
    /// Role to log in as where the map names none; PGUSER without it.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// `keyway plan`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = PLAN_ABOUT, after_help = PLAN_EXAMPLES)]
pub struct PlanArgs {
    /// The shard map that is wanted.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The map in force, where nothing was moved yet: map-EPOCH.toml in a router's state_dir, or
    /// the file as it was.
    #[arg(long, value_name = "FILE")]
    pub in_force: Option<PathBuf>,
    /// Role to log in as, with the password in PGPASSWORD, instead of the map's.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Count rows and bytes instead of estimating them.
    #[arg(long)]
    pub exact: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `keyway apply`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = APPLY_ABOUT, after_help = APPLY_EXAMPLES)]
pub struct ApplyArgs {
    /// What `keyway plan` takes.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// Only say what would move.
    #[arg(long)]
    pub dry_run: bool,
    /// Delete the rows at their source as soon as the target owns them.
    #[arg(long)]
    pub finish: bool,
    /// Make the tables that a shard lacks, and what they need, as pg_dump writes them from another
    /// shard; the rows of reference tables too.
    #[arg(long)]
    pub create_schema: bool,
    /// The pg_dump to use; without it the newest that is found.
    #[arg(long, value_name = "PROGRAM", requires = "create_schema")]
    pub pg_dump: Option<PathBuf>,
}

/// `keyway rebalance`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = REBALANCE_ABOUT, after_help = REBALANCE_EXAMPLES)]
pub struct RebalanceArgs {
    /// The shard map, with the owners that are in force; it may have shards without slots.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What the shards shall bear alike.
    #[arg(long, value_enum)]
    pub by: By,
    /// A shard that shall own nothing; may be given several times.
    #[arg(long, value_name = "SHARD")]
    pub without: Vec<String>,
    /// By how many hundredths a shard may differ from the mean.
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    pub tolerance: u64,
    /// With --by load: for how long the shards are watched.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub over: u64,
    /// File to write the proposal into, which is not there yet; else it is printed.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Role to log in as, with the password in PGPASSWORD, instead of the map's.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// What a shard bears.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The rows of sharded tables.
    Rows,
    /// Their bytes.
    Bytes,
    /// Rows read and written a second, spread over a shard's slots as its rows are.
    Load,
}

/// `keyway rollback`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = ROLLBACK_ABOUT)]
pub struct RollbackArgs {
    /// A shard map that says how the shards are reached now.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The epoch whose owners are wanted; without it the one before the last change of owners.
    #[arg(value_name = "EPOCH")]
    pub epoch: Option<u64>,
    /// Role to log in as, with the password in PGPASSWORD, instead of the map's.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only say what would move.
    #[arg(long)]
    pub dry_run: bool,
    /// Delete the rows that are left behind as soon as they may be.
    #[arg(long)]
    pub finish: bool,
}

/// `keyway history`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = HISTORY_ABOUT)]
pub struct HistoryArgs {
    /// A shard map that says how the shards are reached now.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print the map of this epoch as a file instead.
    #[arg(long, value_name = "EPOCH")]
    pub print: Option<u64>,
    /// Role to log in as, with the password in PGPASSWORD, instead of the map's.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// `keyway doctor`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = DOCTOR_ABOUT)]
pub struct DoctorArgs {
    /// A shard map that says how the shards are reached now.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Role to log in as, with the password in PGPASSWORD, instead of the map's.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Take away what is found.
    #[arg(long)]
    pub fix: bool,
    /// Print the SQL that gives ROLE the least rights with which rows can be moved, and do
    /// nothing else.
    #[arg(long, value_name = "ROLE", conflicts_with = "fix")]
    pub grants: Option<String>,
    /// With --grants: only for this shard.
    #[arg(long, value_name = "SHARD", requires = "grants")]
    pub on: Option<String>,
}

/// `keyway check`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, long_about = CHECK_ABOUT, after_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// Shard maps and configuration files, in any mix.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// `keyway import`.
#[derive(Args, Debug)]
#[command(max_term_width = 100)]
pub struct ImportArgs {
    /// Whose.
    #[command(subcommand)]
    pub from: ImportFrom,
}

/// The poolers whose configuration is understood.
#[derive(Debug, Subcommand)]
pub enum ImportFrom {
    /// Of pgbouncer: keyway.toml, a map for each database, files with the passwords.
    #[command(max_term_width = 100, long_about = IMPORT_ABOUT, after_help = IMPORT_EXAMPLES)]
    Pgbouncer {
        /// The pgbouncer.ini; auth_file and included files are found from there.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Folder to write into; made if it is not there.
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
}

/// `keyway man`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, after_help = MAN_EXAMPLES)]
pub struct ManArgs {
    /// Folder to write keyway.1 and the commands' pages into.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `keyway completions`.
#[derive(Args, Debug)]
#[command(max_term_width = 100, after_help = COMPLETIONS_EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// How a run of the program ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// The input was refused: an invalid file, a statement without a route.
    Refused,
    /// The machine refused: a file that can't be read, an address in use.
    Failed,
    /// As `keyway local` documents its codes.
    Local(u8),
}

impl Exit {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Failed => 3,
            Self::Local(code) => code,
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for serve: ended by SIGTERM or SIGINT after a graceful drain
  1  refused: an invalid file or setting, a statement that has no route
  2  usage: unknown or missing arguments
  3  failed: a file that can't be read, an address in use, a drain cut short

Each command has its own --help with examples.";

const SERVE_ABOUT: &str = "\
Run the router.

With --config or --map it serves the databases of those files. With --backend it
needs no file at all: one unsharded database, and clients log in as the URL's user
with the same password, which is taken from the URL, from PGPASSWORD, or from the
passfile (PGPASSFILE, else ~/.pgpass; ignored unless only its owner can read it).

It starts, listens and accepts logins while databases are down; what needs a
database that is down waits for it and then gets an error that says so.";

const SERVE_EXAMPLES: &str = "\
Examples:
  keyway serve --backend postgres://app@db1:5432/shop --listen 127.0.0.1:6432
  keyway serve --backend postgres://app@db1/shop --replica postgres://app@db2/shop
  keyway serve --config keyway.toml
  keyway serve --map shardmaps/prod.toml --listen :6432

Upgrades: with handover_socket in the configuration, keyway serve --takeover starts the
new program beside the old one without a refused or dropped connection.

Signals:
  SIGTERM, SIGINT  drain: no new clients, open transactions may finish until the
                   deadline (shutdown_timeout); a second one ends at once
  SIGHUP           read again the maps, the users, and all files with passwords
                   and certificates; an invalid file is logged with line and
                   reason, and what was in force serves on

Exit codes: 0 ended by a signal, 1 invalid configuration or map, 2 usage,
3 could not start (address in use, unreadable file) or the drain was cut short.";

const ROUTE_ABOUT: &str = "\
Say where a statement would go, and why.

Prints the target shards, whether the statement reads or writes, and the reason.
Nothing is connected to and nothing is run. The same answer comes from a running
router by EXPLAIN ROUTE <statement>.";

const ROUTE_EXAMPLES: &str = "\
Examples:
  keyway route --map shardmaps/prod.toml \"SELECT * FROM tasks WHERE tenant_id = 42\"
  keyway route --map prod.toml --param 42 \"UPDATE tasks SET done = true WHERE tenant_id = $1\"
  keyway route --map prod.toml --catalog catalog.json \"INSERT INTO tasks VALUES (42, 1)\"
  keyway route --map prod.toml --json \"SELECT count(*) FROM tasks\"

Exit codes: 0 the statement has a route, 1 it is refused (the reason is printed)
or the map is invalid, 2 usage, 3 the map can't be read.";

const CATALOG_ABOUT: &str = "\
Write down what the shards' schemas hold.

Asks every shard's primary for its relations, columns, keys, views and functions and
prints them as JSON, for keyway route --catalog. Any role may ask; no data is read and
nothing is locked. Passwords come from the map, else from PGPASSWORD. What does not fit
the map, or differs between shards, is said on standard error.";

const CATALOG_EXAMPLES: &str = "\
Examples:
  keyway catalog --map shardmaps/prod.toml > catalog.json
  keyway route --map shardmaps/prod.toml --catalog catalog.json \"INSERT INTO tasks VALUES (42, 1)\"

Exit codes: 0 done, 1 the map is invalid, 2 usage, 3 a shard can't be asked.";

const PLAN_ABOUT: &str = "\
Say what a shard map would move, and what stands in the way.

Compares FILE with the map in force, which the home shard knows, and checks on both
shards of every move whether it may begin. Each thing in the way comes with the SQL
that cures it. Nothing is changed.";

const REBALANCE_ABOUT: &str = "\
Propose a shard map in which the shards bear alike.

Weighs the slots on every shard and gives some to other shards: from the one that bears
most to the one that bears least, in few runs of neighbouring slots, no more than needed.
Pinned tenants stay where they are and count there. The same weights give the same map.
Nothing is changed: look at the proposal, then keyway plan and keyway apply.

Large tables are weighed by a sample of their pages. By load the rows that the primaries
read and write are counted for some seconds, and spread over the slots of a shard as its
rows are; what replicas read does not count.";

const REBALANCE_EXAMPLES: &str = "\
Examples:
  keyway rebalance --by rows shardmaps/prod.toml
  keyway rebalance --by load --over 60 --output next.toml shardmaps/prod.toml
  keyway rebalance --by bytes --without shard3 --output next.toml shardmaps/prod.toml

Exit codes: 0 done, 1 FILE is invalid or has other owners than the map in force, 2 usage,
3 a file can't be read or written, or a shard can't be asked.";

const ROLLBACK_ABOUT: &str = "\
Move rows back to where an earlier map has them.

The owners of that map become a new epoch, by moves, as keyway apply makes them; a
move that is not finished yet goes back instead, with everything written since. The
map file is not changed: keyway history --print EPOCH says what to put into it.

Exit codes: as keyway apply.";

const DOCTOR_ABOUT: &str = "\
Find what moves have left behind, and rows on shards that don't own them.

Looks on every shard for publications, subscriptions, replication slots, origins,
roles, triggers and functions of moves that have ended, and for rows whose slot
another shard owns by the map in force. Says what would take it away; --fix does it.
Misplaced rows are only removed where their owner has the same row.

Exit codes: 0 nothing is wrong, 1 something is, 2 usage, 3 a file can't be read or a
shard can't be asked.";

const HISTORY_ABOUT: &str = "\
Say who has put which map into force, and when.

The home shard keeps every map since something was moved first, or since routers
take leases there.";

const PLAN_EXAMPLES: &str = "\
Examples:
  keyway plan shardmaps/prod.toml
  keyway plan --exact --json shardmaps/prod.toml
  PGPASSWORD=… keyway plan --user keyway_mover shardmaps/prod.toml

Exit codes: 0 nothing moves or everything may, 1 something stands in the way or a map
is invalid, 2 usage, 3 a file can't be read or a shard can't be asked.";

const APPLY_ABOUT: &str = "\
Move rows until they are where a shard map wants them.

Does what keyway plan says, if nothing stands in the way: writes the moves into the
store on the home shard, where a running router finds them, and says how far they are.
Stopping the command stops no move, and running it again goes on.

With --create-schema tables that a shard lacks are made first, on shards that get rows
and on those that FILE has and the map in force has not. A table that is there is left
as it is. Indexes that are not unique are made once the rows are copied.";

const APPLY_EXAMPLES: &str = "\
Examples:
  keyway apply --dry-run shardmaps/prod.toml
  keyway apply shardmaps/prod.toml
  keyway apply --create-schema --finish shardmaps/prod.toml

Exit codes: 0 the rows are where the map wants them, 1 something stands in the way,
2 usage, 3 a move has stopped (SHOW MOVES says why) or a shard can't be asked.";

const CHECK_ABOUT: &str = "\
Check shard maps and configuration files.

Reads each file as serve would and prints every fault with file, line, column and
reason. Connects to nothing.";

const CHECK_EXAMPLES: &str = "\
Examples:
  keyway check keyway.toml shardmaps/*.toml

Exit codes: 0 all files are valid, 1 at least one is not, 2 usage.";

const IMPORT_ABOUT: &str = "\
Make a configuration out of a pgbouncer.ini.

Writes keyway.toml, a map for each database, and a file for each password that stands
in pgbouncer's files in the clear. Replaces no file. Says of each setting that has no
counterpart why; where pgbouncer's default differs, it is written out. Passwords that
are stored as SCRAM verifiers or MD5 hashes are taken over as they are.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  keyway import pgbouncer /etc/pgbouncer/pgbouncer.ini --out /etc/keyway
  keyway check /etc/keyway/keyway.toml /etc/keyway/shop.toml

Exit codes: 0 done, 1 a file can't be understood, 2 usage, 3 a file can't be read or
written, or is there already.";

const MAN_EXAMPLES: &str = "\
Examples:
  keyway man /usr/local/share/man/man1

Exit codes: 0 done, 2 usage, 3 a file can't be written.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  keyway completions bash > /etc/bash_completion.d/keyway
  keyway completions zsh > /usr/local/share/zsh/site-functions/_keyway
  keyway completions fish > ~/.config/fish/completions/keyway.fish

Exit codes: 0 done, 2 usage.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(args: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(args.split(' '))
    }

    fn refusal(args: &str) -> ErrorKind {
        parse(args).unwrap_err().kind()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_takes_a_backend_and_its_replicas() {
        let cli = parse("keyway serve --backend postgres://a@h/d --replica postgres://a@r1/d --replica postgres://a@r2/d --listen :6432").unwrap();
        let Command::Serve(args) = cli.command else { unreachable!() };
        assert_eq!(args.backend.as_deref(), Some("postgres://a@h/d"));
        assert_eq!(args.replica.len(), 2);
        assert_eq!(args.listen.as_deref(), Some(":6432"));
    }

    #[test]
    fn serve_without_arguments_is_allowed_and_finds_the_default_file() {
        assert!(parse("keyway serve").is_ok());
    }

    #[test]
    fn a_replica_without_a_backend_is_a_usage_error() {
        assert_eq!(
            refusal("keyway serve --replica postgres://a@h/d"),
            ErrorKind::MissingRequiredArgument
        );
    }

    #[test]
    fn a_backend_excludes_files() {
        assert_eq!(
            refusal("keyway serve --backend postgres://a@h/d --map m.toml"),
            ErrorKind::ArgumentConflict
        );
        assert_eq!(
            refusal("keyway serve --backend postgres://a@h/d --config k.toml"),
            ErrorKind::ArgumentConflict
        );
    }

    #[test]
    fn route_takes_parameters_that_begin_with_a_hyphen() {
        let cli = parse("keyway route --map m.toml --param -1 --param x SQL").unwrap();
        let Command::Route(args) = cli.command else { unreachable!() };
        assert_eq!(args.params, ["-1", "x"]);
        assert!(!args.json);
    }

    #[test]
    fn route_needs_a_map_and_a_statement() {
        assert_eq!(refusal("keyway route SQL"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refusal("keyway route --map m.toml"), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn check_needs_a_file() {
        assert_eq!(refusal("keyway check"), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn every_help_has_examples_and_exit_codes() {
        for command in [
            "serve",
            "route",
            "catalog",
            "plan",
            "apply",
            "rebalance",
            "check",
            "local",
            "man",
            "completions",
            "import pgbouncer",
        ] {
            let help = parse(&format!("keyway {command} --help")).unwrap_err().to_string();
            assert!(help.contains("Examples:"), "{command} shows examples");
            assert!(help.contains("Exit codes:"), "{command} says its exit codes");
        }
        let help = parse("keyway --help").unwrap_err().to_string();
        assert!(help.contains("Exit codes:"));
    }
}
