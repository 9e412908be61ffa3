//! Tables that a shard lacks, and making them as pg_dump writes them from
//! another shard.
//!
//! All that one shard lacks is made in one transaction: it is there whole or
//! not at all, and what is there already is left as it is. Rows of sharded
//! tables come by moves; those of reference tables come with the table, because
//! a join with them would find nothing otherwise. It does not judge whether
//! tables that are there fit; the checks of moves do.
//!
//! Source: PostgreSQL manual, "pg_dump".

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::cli::Exit;
use super::dump::{Entry, entries};
use super::plan::{Failed, failed, say};
use crate::control::monitor::Target;
use crate::control::mover::Access;
use crate::control::mover::later::{Later, put_off};
use crate::control::mover::node::{Node, NodeError};
use crate::control::mover::sql;
use crate::local::{Installation, Version};
use crate::shardmap::{Map, Table};
use crate::types::ShardId;

/// A table, by schema and name.
type Name = (String, String);

/// What one shard lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    /// The shard.
    pub(super) shard: ShardId,
    /// Its name.
    called: String,
    /// The shard that has it.
    from: ShardId,
    sharded: Vec<Name>,
    /// Reference tables, which come with their rows.
    reference: Vec<Name>,
    /// Reference tables that are there with other rows.
    differing: Vec<String>,
}

impl Lack {
    /// Whether a table is missing.
    pub(super) fn lacks_tables(&self) -> bool {
        !(self.sharded.is_empty() && self.reference.is_empty())
    }

    /// Why a tenant's joins with reference tables would find too little here.
    pub(super) fn unfit(&self) -> Vec<String> {
        let called = &self.called;
        let missing = self.reference.iter().map(|(schema, name)| {
            format!(
                "{called} has no {schema}.{name}, which is on every shard: \
                 keyway apply --create-schema makes it, with its rows"
            )
        });
        let differing = self.differing.iter().map(|table| {
            format!(
                "{called} has other rows of {table} than the shard that the rows come from: \
                 make them the same, by pg_dump --data-only --table={table}"
            )
        });
        missing.chain(differing).collect()
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.sharded.iter().chain(&self.reference);
        let tables: Vec<String> = tables.map(|(schema, name)| format!("{schema}.{name}")).collect();
        write!(f, "{} lacks {}", self.called, tables.join(", "))
    }
}

/// What the shards lack that get rows (with the shards that give them), and
/// those of `desired` that are not in force.
pub(super) async fn lacks(
    access: &Access,
    (in_force, desired): (&Map, &Map),
    moves: impl Iterator<Item = (ShardId, ShardId)>,
) -> Result<Vec<Lack>, Failed> {
    let new = desired.shards().iter().filter(|shard| in_force.shard(shard.id).is_none());
    let new = new.map(|shard| (shard.id, in_force.home()));
    let mut found: Vec<Lack> = Vec::new();
    let pairs: Vec<(ShardId, ShardId)> = moves.chain(new).collect();
    for (shard, from) in pairs {
        if found.iter().any(|lack| lack.shard == shard) {
            continue;
        }
        let called = desired.shard(shard).or_else(|| in_force.shard(shard));
        let called = called.map_or_else(|| shard.number().to_string(), |shard| shard.name.clone());
        let mut lack = Lack {
            shard,
            called,
            from,
            sharded: Vec::new(),
            reference: Vec::new(),
            differing: Vec::new(),
        };
        let (mut source, mut target) = (node_of(access, from)?, node_of(access, shard)?);
        for (schema, name, place) in desired.tables() {
            let (all, refers) = match place {
                Table::Sharded { .. } => (&mut lack.sharded, false),
                Table::Reference => (&mut lack.reference, true),
                Table::Single(_) => continue,
            };
            let one = (schema.to_owned(), name.to_owned());
            if !is_there(&mut source, &one).await.map_err(failed)? {
                continue;
            }
            if !is_there(&mut target, &one).await.map_err(failed)? {
                all.push(one);
            } else if refers && owns_nothing(in_force, shard) {
                let sums = (sum(&mut source, &one).await, sum(&mut target, &one).await);
                if sums.0.map_err(failed)? != sums.1.map_err(failed)? {
                    lack.differing.push(format!("{schema}.{name}"));
                }
            }
        }
        found.push(lack);
    }
    Ok(found)
}

/// Whether no row is on `shard` by the map, so that nobody reads there yet.
fn owns_nothing(map: &Map, shard: ShardId) -> bool {
    map.home() != shard && map.keyspaces().iter().all(|one| !one.shards().contains(&shard))
}

fn node_of(access: &Access, shard: ShardId) -> Result<Node, Failed> {
    let target = access.primaries.get(&shard).cloned();
    target.map(Node::new).ok_or_else(|| failed(format!("shard {} has no primary", shard.number())))
}

async fn is_there(node: &mut Node, (schema, name): &Name) -> Result<bool, NodeError> {
    let table = sql::literal(&format!("{}.{}", sql::ident(schema), sql::ident(name)));
    let asked = format!("SELECT (pg_catalog.to_regclass({table}) IS NOT NULL)::text");
    Ok(node.value(&asked).await?.as_deref() == Some("true"))
}

async fn sum(node: &mut Node, (schema, name): &Name) -> Result<Option<String>, NodeError> {
    node.value(&format!(
        "SELECT pg_catalog.count(*) || ' ' || coalesce(pg_catalog.sum(\
         pg_catalog.hashtextextended(one::text, 0)::numeric), 0) FROM {}.{} AS one",
        sql::ident(schema),
        sql::ident(name)
    ))
    .await
}

/// Makes what `lack` names, and says what it has made.
pub(super) async fn create(
    access: &Access,
    map: &Map,
    lack: &Lack,
    named: Option<&Path>,
) -> Result<(), Failed> {
    let (mut source, mut target) = (node_of(access, lack.from)?, node_of(access, lack.shard)?);
    let there: BTreeSet<(String, String, String)> =
        triples(target.rows(EXISTING).await.map_err(failed)?).collect();
    let version = source.version().await.map_err(failed)?;
    let mut of_schema = dump_of(version, named, source.target(), (map, lack.from))?;
    let patterns = source.rows(&others(map, lack, &there)).await.map_err(failed)?;
    let patterns = patterns.into_iter().flatten().flatten();
    of_schema.arg("--schema-only").args(patterns.map(|one| format!("--exclude-table={one}")));
    let chosen = choose(entries(&output_of(of_schema)?), lack, &there);
    let mut rows = Vec::new();
    if !lack.reference.is_empty() {
        let mut of_rows = dump_of(version, named, source.target(), (map, lack.from))?;
        let leaves = source.rows(&leaves(&lack.reference)).await.map_err(failed)?;
        let leaves = leaves.into_iter().flatten().flatten();
        of_rows.args(ROWS).args(leaves.map(|one| format!("--table={one}")));
        rows.extend(entries(&output_of(of_rows)?).into_iter().map(|entry| entry.sql));
    }
    for left in &chosen.left_out {
        say(&format!("{}: {left} is not made: make it by hand if it is needed", lack.called));
    }
    let mut statements = vec![
        "SET LOCAL statement_timeout = 0".to_owned(),
        "SET LOCAL check_function_bodies = off".to_owned(),
    ];
    if !chosen.later.is_empty()
        && target.value(sql::HAS_BASE).await.map_err(failed)?.as_deref() != Some("true")
    {
        statements.push(sql::BASE.to_owned());
    }
    // Rows come before what would look at each, or act on it.
    let all = [chosen.first, rows, chosen.last, put_off(&chosen.later)].concat();
    statements.extend(all.iter().map(|sql| sql.trim_end_matches(';').to_owned()));
    // Each entry ends a line, which may be a comment's.
    let whole = format!("BEGIN; {}\n; COMMIT", statements.join("\n;\n"));
    target.rows_within(&whole, CREATE_WAIT).await.map_err(|error| explain(lack, &error))?;
    let made = lack.to_string().replacen(" lacks ", " now has ", 1);
    say(&made);
    if !chosen.later.is_empty() {
        say(&format!("  {} indexes are made once the rows are copied", chosen.later.len()));
    }
    Ok(())
}

fn explain(lack: &Lack, error: &NodeError) -> Failed {
    let hint = match error.code() {
        Some("42704") => {
            "; roles and what belongs to the whole server are not made: \
             pg_dumpall --globals-only writes them"
        }
        Some("42501") => "; --user names a role that may",
        Some(_) | None => "",
    };
    failed(format!("{}: nothing was made: {error}{hint}", lack.called))
}

/// What of a dump is to be made, and when.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chosen {
    /// Types, functions, tables.
    first: Vec<String>,
    /// What may follow once tables have rows.
    last: Vec<String>,
    later: Vec<Later>,
    left_out: Vec<String>,
}

fn choose(all: Vec<Entry>, lack: &Lack, there: &BTreeSet<(String, String, String)>) -> Chosen {
    let attached: BTreeSet<(String, String)> = all
        .iter()
        .filter(|entry| entry.kind == "INDEX ATTACH")
        .map(|entry| (entry.schema.clone(), entry.name.clone()))
        .collect();
    let mut chosen = Chosen::default();
    // What is made here of the things that a comment or a right may be for.
    let mut made: BTreeSet<(String, String)> = BTreeSet::new();
    for entry in all {
        let own = |kind: &str| (kind.to_owned(), entry.schema.clone(), entry.name.clone());
        let Entry { kind, schema, name, .. } = &entry;
        match kind.as_str() {
            "SCHEMA" | "EXTENSION" | "TYPE" | "DOMAIN" | "SHELL TYPE" | "COLLATION"
            | "FUNCTION" | "PROCEDURE" | "AGGREGATE" | "SEQUENCE" => {
                // An identity is a part of its table.
                if there.contains(&own(family(kind))) && !entry.sql.starts_with("ALTER TABLE") {
                    continue;
                }
                made.insert((schema.clone(), format!("{kind} {}", plain(name))));
            }
            // Another move's, which ends with it.
            "TRIGGER" if name.contains(" ~keyway_") => continue,
            "INDEX" if !attached.contains(&(schema.clone(), name.clone())) => {
                if let Some(later) = put_off_index(&entry, lack) {
                    chosen.later.push(later);
                    continue;
                }
            }
            _ if entry.is_remark() => {
                let of = |one: &&mut Later| plain(name) == format!("INDEX {}", plain(&one.name));
                if let Some(later) = chosen.later.iter_mut().find(of) {
                    later.remark.push_str(&entry.sql);
                    continue;
                }
                let free = FREE.iter().any(|word| name.starts_with(word));
                if free && !made.contains(&(schema.clone(), plain(name))) {
                    continue;
                }
            }
            _ if BELONGING.contains(&kind.as_str()) => {}
            _ => {
                chosen.left_out.push(format!("{kind} {name}"));
                continue;
            }
        }
        let sql = if kind == "ACL" { without_moves(&entry.sql) } else { entry.sql };
        if LAST.contains(&entry.kind.as_str()) || !chosen.last.is_empty() {
            chosen.last.push(sql);
        } else {
            chosen.first.push(sql);
        }
    }
    chosen.first.retain(|sql| !sql.is_empty());
    chosen.last.retain(|sql| !sql.is_empty());
    chosen
}

/// The word under which [`EXISTING`] has a thing of this kind.
fn family(kind: &str) -> &str {
    match kind {
        "DOMAIN" | "SHELL TYPE" => "TYPE",
        "PROCEDURE" | "AGGREGATE" => "FUNCTION",
        other => other,
    }
}

fn put_off_index(entry: &Entry, lack: &Lack) -> Option<Later> {
    let definition = entry.plain_index()?;
    let rest = definition.strip_prefix(quoted(&entry.name, definition)?.as_str())?;
    let (table, _) = rest.strip_prefix(" ON ")?.split_once(" USING ")?;
    let small = lack.reference.iter().any(|(schema, name)| {
        [name.clone(), sql::ident(name)].iter().any(|name| {
            *table == format!("{schema}.{name}")
                || *table == format!("{}.{name}", sql::ident(schema))
        })
    });
    (!small).then(|| Later {
        table: table.to_owned(),
        schema: entry.schema.clone(),
        name: entry.name.clone(),
        definition: definition.to_owned(),
        remark: String::new(),
    })
}

/// A name without quotes, and without a function's arguments: comments and
/// rights write both in another way than what they are for.
fn plain(name: &str) -> String {
    name.split('(').next().unwrap_or_default().replace('"', "")
}

/// The name as `text` begins with it.
fn quoted(name: &str, text: &str) -> Option<String> {
    [name.to_owned(), sql::ident(name)].into_iter().find(|one| text.starts_with(one.as_str()))
}

/// Rights without those of the logins that moves make.
fn without_moves(sql: &str) -> String {
    let lines = sql.lines().filter(|line| !line.contains(" TO kw_"));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn pattern(schema: &str, name: &str) -> String {
    format!("{}.{}", sql::ident(schema), sql::ident(name))
}

fn triples(rows: Vec<Vec<Option<String>>>) -> impl Iterator<Item = (String, String, String)> {
    rows.into_iter().filter_map(|row| {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        Some((cells.next()?, cells.next()?, cells.next()?))
    })
}

/// Asks for these tables and their partitions, as patterns.
fn leaves(tables: &[Name]) -> String {
    let roots: Vec<String> = tables
        .iter()
        .map(|(schema, name)| {
            format!("pg_catalog.to_regclass({})", sql::literal(&pattern(schema, name)))
        })
        .collect();
    format!(
        "WITH root AS (SELECT pg_catalog.unnest(ARRAY[{}]::oid[]) AS oid) \
         SELECT '\"' || pg_catalog.replace(n.nspname, '\"', '\"\"') || '\".\"' || \
         pg_catalog.replace(c.relname, '\"', '\"\"') || '\"' FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid IN (SELECT oid FROM root UNION SELECT part.relid FROM root, \
         LATERAL pg_catalog.pg_partition_tree(root.oid) AS part)",
        roots.join(", ")
    )
}

/// Asks for the relations that are not to be made: all but the missing tables,
/// their partitions, and the views over nothing but tables of the map.
fn others(map: &Map, lack: &Lack, there: &BTreeSet<(String, String, String)>) -> String {
    let regclass = |schema: &str, name: &str| {
        format!("pg_catalog.to_regclass({})", sql::literal(&pattern(schema, name)))
    };
    let missing = lack.sharded.iter().chain(&lack.reference);
    let missing: Vec<String> = missing.map(|(schema, name)| regclass(schema, name)).collect();
    let of_map = map.tables().filter(|(_, _, place)| !matches!(place, Table::Single(_)));
    let of_map: Vec<String> = of_map.map(|(schema, name, _)| regclass(schema, name)).collect();
    let views = there.iter().filter(|(kind, _, _)| kind == "VIEW");
    let views: Vec<String> = views.map(|(_, schema, name)| regclass(schema, name)).collect();
    OTHERS
        .replace("{missing}", &missing.join(", "))
        .replace("{of_map}", &of_map.join(", "))
        .replace("{views}", &views.join(", "))
}

/// A pg_dump that may do.
enum Program<'a> {
    At(&'a Path),
    Of(Installation),
}

impl Program<'_> {
    fn command(&self) -> Command {
        match self {
            Self::At(path) => Command::new(path),
            Self::Of(installation) => installation.command("pg_dump"),
        }
    }
}

/// A pg_dump that reads servers of this version, logged in.
fn dump_of(
    version: u32,
    named: Option<&Path>,
    target: &Target,
    of: (&Map, ShardId),
) -> Result<Command, Failed> {
    let programs = match named {
        Some(program) => vec![Program::At(program)],
        None => {
            let installed = Installation::find(Version::Newest, None).ok();
            installed
                .map(Program::Of)
                .into_iter()
                .chain([Program::At(Path::new("pg_dump"))])
                .collect()
        }
    };
    let mut tried = Vec::new();
    for program in programs {
        let mut command = program.command();
        let said = command.arg("--version").output().map(|output| output.stdout);
        let text = said.map(|said| String::from_utf8_lossy(&said).into_owned());
        let name = command.get_program().display().to_string();
        match text.ok().and_then(|text| major_of(&text)) {
            Some(major) if major >= version => {
                let mut command = program.command();
                log_in(&mut command, target, of);
                command.args(FLAGS);
                return Ok(command);
            }
            Some(major) => tried.push(format!("{name} is of version {major}")),
            None => tried.push(format!("{name} does not run")),
        }
    }
    Err((
        Exit::Refused,
        format!(
            "there is no pg_dump of version {version} or newer ({}): install PostgreSQL's client \
             programs, name one by --pg-dump, or make the tables by hand",
            tried.join(", ")
        ),
    ))
}

/// The version in what `pg_dump --version` prints.
fn major_of(text: &str) -> Option<u32> {
    let version = text.strip_prefix("pg_dump (PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn log_in(command: &mut Command, target: &Target, (map, shard): (&Map, ShardId)) {
    let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    for name in ["PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGOPTIONS", "PGTARGETSESSIONATTRS"] {
        command.env_remove(name);
    }
    let conninfo = format!(
        "host={} port={} dbname={} user={} sslmode={} connect_timeout=10",
        value(&target.host),
        target.port,
        value(&target.dbname),
        value(&target.user),
        map.shard(shard).map(|shard| shard.tls.mode).unwrap_or_default(),
    );
    command.args(["--dbname", &conninfo]).env("PGAPPNAME", "keyway schema");
    if let Some(password) = &target.password {
        command.env("PGPASSWORD", password.expose());
    }
    if let Some(root) = map.shard(shard).and_then(|shard| shard.tls.root_cert.as_ref()) {
        command.env("PGSSLROOTCERT", root);
    }
}

fn output_of(mut command: Command) -> Result<String, Failed> {
    let output = command.output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("pg_dump: {said}")));
    }
    if output.stdout.len() > DUMP_BYTES_MAX {
        return Err((
            Exit::Refused,
            format!(
                "the schema and the rows of reference tables have {} bytes: copy them by pg_dump \
                 and psql",
                output.stdout.len()
            ),
        ));
    }
    String::from_utf8(output.stdout).map_err(failed)
}

/// A server takes one text of up to a gigabyte.
const DUMP_BYTES_MAX: usize = 256 << 20;
const CREATE_WAIT: Duration = Duration::from_secs(600);
const FLAGS: [&str; 8] = [
    "--no-password",
    "--encoding=UTF8",
    "--no-publications",
    "--no-subscriptions",
    "--no-tablespaces",
    "--no-table-access-method",
    "--exclude-schema=keyway",
    "--lock-wait-timeout=10s",
];
const ROWS: [&str; 3] = ["--data-only", "--inserts", "--rows-per-insert=500"];
/// With the first of these the tables are whole.
const LAST: [&str; 5] = ["CONSTRAINT", "INDEX", "FK CONSTRAINT", "TRIGGER", "RULE"];
/// What may be there already, so that what is said of it need not be said.
const FREE: [&str; 10] = [
    "SCHEMA ",
    "EXTENSION ",
    "TYPE ",
    "DOMAIN ",
    "COLLATION ",
    "FUNCTION ",
    "PROCEDURE ",
    "AGGREGATE ",
    "SEQUENCE ",
    "SHELL TYPE ",
];
/// What comes with the tables and views that are chosen.
const BELONGING: [&str; 19] = [
    "TABLE",
    "TABLE ATTACH",
    "FOREIGN TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "SEQUENCE OWNED BY",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "COMMENT",
    "ACL",
];
/// Kind, schema and name of what is on a shard, named as pg_dump does.
const EXISTING: &str = "\
SELECT 'SCHEMA', '', nspname::text FROM pg_catalog.pg_namespace \
UNION ALL SELECT 'EXTENSION', '', extname::text FROM pg_catalog.pg_extension \
UNION ALL SELECT 'TYPE', nspname::text, typname::text FROM pg_catalog.pg_type \
JOIN pg_catalog.pg_namespace n ON n.oid = typnamespace \
UNION ALL SELECT 'COLLATION', nspname::text, collname::text FROM pg_catalog.pg_collation \
JOIN pg_catalog.pg_namespace n ON n.oid = collnamespace \
UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'VIEW' END, nspname::text, \
relname::text FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace \
WHERE relkind IN ('S', 'v', 'm') \
UNION ALL SELECT 'FUNCTION', nspname::text, proname || '(' || CASE \
WHEN prokind = 'a' AND pronargs = 0 THEN '*' ELSE coalesce((SELECT pg_catalog.string_agg(\
pg_catalog.format_type(t, NULL), ', ' ORDER BY i) \
FROM pg_catalog.unnest(proargtypes) WITH ORDINALITY AS a (t, i)), '') END || ')' \
FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace";
const OTHERS: &str = "\
WITH RECURSIVE missing AS (SELECT pg_catalog.unnest(ARRAY[{missing}]::oid[]) AS oid), \
of_map AS (SELECT pg_catalog.unnest(ARRAY[{of_map}]::oid[]) AS oid), \
made AS (SELECT oid FROM missing UNION SELECT part.relid FROM missing, \
LATERAL pg_catalog.pg_partition_tree(missing.oid) AS part), \
known AS (SELECT oid FROM of_map UNION SELECT part.relid FROM of_map, \
LATERAL pg_catalog.pg_partition_tree(of_map.oid) AS part), \
own AS (SELECT c.oid, c.relkind, \
'\"' || pg_catalog.replace(n.nspname, '\"', '\"\"') || '\".\"' || \
pg_catalog.replace(c.relname, '\"', '\"\"') || '\"' AS pattern \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname NOT LIKE 'pg\\_%' \
AND n.nspname NOT IN ('information_schema', 'keyway')), \
reads AS (SELECT DISTINCT r.ev_class AS view, d.refobjid AS rel FROM pg_catalog.pg_rewrite r \
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
AND d.refobjid <> r.ev_class), \
foreign_ones AS (SELECT oid FROM own WHERE relkind IN ('r', 'p', 'f') \
AND oid NOT IN (SELECT oid FROM known) \
UNION SELECT reads.view FROM reads JOIN foreign_ones ON foreign_ones.oid = reads.rel) \
SELECT pattern FROM own WHERE oid NOT IN (SELECT oid FROM made) \
AND NOT (relkind IN ('v', 'm') AND oid NOT IN (SELECT oid FROM foreign_ones) \
AND oid <> ALL (ARRAY[{views}]::oid[]))";

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, name: &str, sql: &str) -> Entry {
        let schema = if kind == "SCHEMA" { "" } else { "public" };
        Entry {
            kind: kind.to_owned(),
            schema: schema.to_owned(),
            name: name.to_owned(),
            sql: sql.to_owned(),
        }
    }

    fn lack() -> Lack {
        let name = |name: &str| ("public".to_owned(), name.to_owned());
        Lack {
            shard: ShardId::new(2),
            called: "b".to_owned(),
            from: ShardId::new(1),
            sharded: vec![name("tasks")],
            reference: vec![name("plans")],
            differing: Vec::new(),
        }
    }

    #[test]
    fn what_is_there_is_left_and_another_moves_triggers_too() {
        let there = [("TYPE", "mood"), ("SEQUENCE", "tasks_id"), ("FUNCTION", "f(integer)")];
        let there =
            there.map(|(kind, name)| (kind.to_owned(), "public".to_owned(), name.to_owned()));
        let chosen = choose(
            vec![
                entry("TYPE", "mood", "there"),
                entry("COMMENT", "TYPE mood", "of what is there"),
                entry("FUNCTION", "f(integer)", "there"),
                entry("FUNCTION", "f(text)", "missing"),
                entry("ACL", "FUNCTION f(text)", "GRANT ALL TO a;\nGRANT ALL TO kw_1_abc;"),
                entry("TABLE", "tasks", "table"),
                entry("SEQUENCE", "tasks_id", "ALTER TABLE public.tasks identity"),
                entry("TRIGGER", "tasks ~keyway_1_i", "another move's"),
                entry("TRIGGER", "tasks own", "trigger"),
                entry("CAST", "x", "cast"),
            ],
            &lack(),
            &there.into_iter().collect(),
        );
        let expected = ["missing", "GRANT ALL TO a;", "table", "ALTER TABLE public.tasks identity"];
        assert_eq!(chosen.first, expected);
        assert_eq!(chosen.last, ["trigger"]);
        assert_eq!(chosen.left_out, ["CAST x"]);
    }

    #[test]
    fn plain_indexes_of_sharded_tables_are_put_off() {
        let index = |name: &str, on: &str| {
            entry("INDEX", name, &format!("CREATE INDEX {name} ON public.{on} USING btree (a);"))
        };
        let chosen = choose(
            vec![
                index("by_a", "tasks"),
                index("\"By A\"", "plans"),
                entry("INDEX", "u", "CREATE UNIQUE INDEX u ON public.tasks USING btree (a);"),
                index("leaf", "tasks"),
                entry("INDEX ATTACH", "leaf", "attach"),
                entry("COMMENT", "INDEX by_a", "of one put off"),
            ],
            &lack(),
            &BTreeSet::new(),
        );
        let [later] = &chosen.later[..] else { panic!("{chosen:?}") };
        assert_eq!((later.table.as_str(), later.name.as_str()), ("public.tasks", "by_a"));
        assert_eq!(later.remark, "of one put off");
        assert_eq!(later.definition, "by_a ON public.tasks USING btree (a)");
        assert_eq!(chosen.last.len(), 4, "{chosen:?}");
    }

    #[test]
    fn a_program_says_its_version() {
        assert_eq!(major_of("pg_dump (PostgreSQL) 18.1\n"), Some(18));
        assert_eq!(major_of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)"), Some(15));
        assert_eq!(major_of("psql (PostgreSQL) 18.1"), None);
    }
}
