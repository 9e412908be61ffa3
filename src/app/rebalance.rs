//! `keyway rebalance`: weighs the slots of all shards and proposes a map in
//! which the shards bear alike.
//!
//! It changes nothing: the proposal is a file that `keyway plan` and `keyway
//! apply` take like any other. Which slots go where is
//! [`crate::shardmap::Balance`]'s to say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use super::cli::{By, Exit, RebalanceArgs};
use super::plan::{Failed, Reach, blocking, failed, finish, say};
use super::route::read_map;
use crate::control::mover::node::Node;
use crate::control::weigh::{self, Share, Weight};
use crate::mover::MovedTable;
use crate::shardmap::{Balance, Hop, Keyspace, Map, Piece, Table};
use crate::store::moves;
use crate::types::{ShardId, SlotId};

/// `keyway rebalance`.
pub(super) fn run(args: &RebalanceArgs) -> Exit {
    finish(blocking(async {
        let map = read_map(&args.file)?;
        let mut reach = Reach::of(&map, &args.file, args.user.as_deref())?;
        in_force(&mut reach.home, &map).await?;
        let emptied = emptied(&map, &args.without).map_err(|why| (Exit::Refused, why))?;
        let weights = Weights::of(&reach, &map, args).await?;
        let proposal = propose(&map, &weights, &emptied, args.tolerance);
        let proposal = proposal.ok_or_else(|| failed("the map has no slots"))?;
        hand_over(&proposal.text(&map, args), &proposal.map, args)?;
        Ok(Exit::Done)
    }))
}

/// Refuses a file whose owners are not those in force: what was weighed would
/// not be what moves.
async fn in_force(home: &mut Node, map: &Map) -> Result<(), Failed> {
    let client = home.client().await.map_err(failed)?;
    let newest = match moves::newest_map(client, map.database()).await {
        // Nothing was ever moved, and no router takes leases there.
        Err(error) if error.is_missing() => None,
        other => other.map_err(failed)?,
    };
    let Some(newest) = newest else { return Ok(()) };
    match newest.diff(map).first() {
        None => Ok(()),
        Some(change) => Err((
            Exit::Refused,
            format!(
                "the file has other owners than epoch {now}, which is in force ({change}): \
                 keyway apply moves the rows there, keyway history --print {now} prints that map",
                now = newest.epoch().number()
            ),
        )),
    }
}

/// The shards that shall own nothing.
fn emptied(map: &Map, names: &[String]) -> Result<Vec<ShardId>, String> {
    let mut all = Vec::new();
    for name in names {
        let shard = map.shard_named(name).ok_or_else(|| format!("the map has no shard {name}"))?;
        let single = map.tables().find(|(_, _, place)| *place == Table::Single(shard.id));
        let schema = map.single_schemas().find(|(_, place)| *place == shard.id);
        if map.home() == shard.id {
            return Err(format!("{name} is the home shard, which can't be emptied"));
        }
        if let Some((schema, table, _)) = single {
            return Err(format!(
                "table {schema}.{table} is on {name} alone: no move takes it away"
            ));
        }
        if let Some((schema, _)) = schema {
            return Err(format!("schema {schema} is on {name} alone: no move takes it away"));
        }
        all.push(shard.id);
    }
    if all.len() >= map.shards().len() {
        return Err("no shard is left".to_owned());
    }
    Ok(all)
}

/// What the parts of the keyspaces weigh, wherever they are.
struct Weights {
    /// By the keyspace's position.
    parts: BTreeMap<(usize, Share), u64>,
    unit: &'static str,
}

impl Weights {
    async fn of(reach: &Reach, map: &Map, args: &RebalanceArgs) -> Result<Self, Failed> {
        let unit = match args.by {
            By::Rows => "rows",
            By::Bytes => "bytes",
            By::Load => "rows read and written a second",
        };
        let mut nodes = Vec::new();
        for shard in map.shards() {
            let target = reach.access.primaries.get(&shard.id).cloned();
            let target = target.ok_or_else(|| failed(format!("{} has no primary", shard.name)))?;
            nodes.push((shard.id, Node::new(target)));
        }
        // Before the rows are counted, which is work too.
        let rates = match args.by {
            By::Load => Some(rates(map, &mut nodes, args.over).await?),
            By::Rows | By::Bytes => None,
        };
        let mut parts = BTreeMap::new();
        for (shard, node) in &mut nodes {
            node.rows("SET statement_timeout = 0").await.map_err(failed)?;
            let mut here = BTreeMap::new();
            for (position, keyspace) in map.keyspaces().iter().enumerate() {
                if !keyspace.shards().contains(shard) {
                    continue;
                }
                let tables = sloted(map, keyspace).map_err(|why| (Exit::Refused, why))?;
                let weights = weigh::weigh(node, keyspace, &tables).await.map_err(failed)?;
                let own = weights
                    .into_iter()
                    .filter(|(share, _)| owner(keyspace, *share) == Some(*shard));
                here.extend(own.map(|(share, weight)| ((position, share), weight)));
            }
            let rate = rates.as_ref().map(|rates| rates.get(shard).copied().unwrap_or(0));
            parts.extend(weighed(here, args.by, rate));
        }
        Ok(Self { parts, unit })
    }

    fn get(&self, keyspace: usize, share: Share) -> u64 {
        self.parts.get(&(keyspace, share)).copied().unwrap_or(0)
    }
}

/// Rows by the wanted measure; a rate is spread over them.
fn weighed(
    here: BTreeMap<(usize, Share), Weight>,
    by: By,
    rate: Option<u64>,
) -> Vec<((usize, Share), u64)> {
    let all: u128 = here.values().map(|weight| u128::from(weight.rows)).sum();
    let spread = |rows: u64| {
        let part = u128::from(rows) * u128::from(rate.unwrap_or(0));
        part.checked_div(all).and_then(|part| u64::try_from(part).ok()).unwrap_or(0)
    };
    here.into_iter()
        .map(|(share, weight)| {
            let weight = match by {
                By::Rows => weight.rows,
                By::Bytes => weight.bytes,
                By::Load => spread(weight.rows),
            };
            (share, weight)
        })
        .collect()
}

fn owner(keyspace: &Keyspace, share: Share) -> Option<ShardId> {
    match share {
        Share::Slot(slot) => keyspace.slot_owner(SlotId::new(slot)),
        Share::Pin(position) => keyspace.pin_of(&weigh::pin_at(keyspace, position)?),
    }
}

/// The tables of a keyspace, each with what says a row's slot.
fn sloted(map: &Map, keyspace: &Keyspace) -> Result<Vec<(MovedTable, String)>, String> {
    tables(map, Some(keyspace))
        .into_iter()
        .map(|table| {
            let column = format!("row.{}", crate::control::mover::sql::ident(&table.column));
            Ok((table, weigh::slot_of(keyspace, &column)?))
        })
        .collect()
}

fn tables(map: &Map, of: Option<&Keyspace>) -> Vec<MovedTable> {
    let of = of.map(Keyspace::name);
    map.tables()
        .filter_map(|(schema, name, place)| match place {
            Table::Sharded { keyspace, column, .. } => {
                let own = map.keyspace(keyspace).map(Keyspace::name);
                (of.is_none() || own == of).then(|| MovedTable {
                    schema: schema.to_owned(),
                    name: name.to_owned(),
                    column: column.to_owned(),
                })
            }
            Table::Reference | Table::Single(_) => None,
        })
        .collect()
}

/// How many rows each shard reads and writes a second.
async fn rates(
    map: &Map,
    nodes: &mut [(ShardId, Node)],
    seconds: u64,
) -> Result<BTreeMap<ShardId, u64>, Failed> {
    let seconds = seconds.max(1);
    let tables = tables(map, None);
    let mut begun = BTreeMap::new();
    for (shard, node) in &mut *nodes {
        begun.insert(*shard, weigh::work_done(node, &tables).await.map_err(failed)?);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut rates = BTreeMap::new();
    for (shard, node) in &mut *nodes {
        let done = weigh::work_done(node, &tables).await.map_err(failed)?;
        let more = done.saturating_sub(begun.get(shard).copied().unwrap_or(0));
        rates.insert(*shard, more.checked_div(seconds).unwrap_or(0));
    }
    Ok(rates)
}

/// A map in which the shards bear alike, and how it came about.
struct Proposal {
    map: Map,
    hops: Vec<Hop>,
    /// Pinned tenants that change their shard: keyspace, tenant, to.
    pins: Vec<(String, String, ShardId)>,
    before: BTreeMap<ShardId, u64>,
    after: BTreeMap<ShardId, u64>,
    unit: &'static str,
}

fn propose(map: &Map, weights: &Weights, emptied: &[ShardId], tolerance: u64) -> Option<Proposal> {
    // Where there is nothing yet, every slot counts the same.
    let bare = weights.parts.values().all(|weight| *weight == 0);
    let mut fixed: BTreeMap<ShardId, u64> =
        map.shards().iter().map(|shard| (shard.id, 0)).collect();
    let (mut pieces, mut leaving) = (Vec::new(), Vec::new());
    for (position, keyspace) in map.keyspaces().iter().enumerate() {
        for slot in 0..keyspace.slots() {
            let weight = if bare { 1 } else { weights.get(position, Share::Slot(slot)) };
            let slot = SlotId::new(slot);
            pieces.push(Piece {
                keyspace: position,
                slot,
                owner: keyspace.slot_owner(slot)?,
                weight,
            });
        }
        for (number, (key, shard)) in (0..).zip(keyspace.pins()) {
            let weight = weights.get(position, Share::Pin(number));
            let load = fixed.entry(shard).or_default();
            *load = load.saturating_add(weight);
            if emptied.contains(&shard) {
                leaving.push((weight, keyspace.name().to_owned(), key.to_string(), shard));
            }
        }
    }
    let before = Balance::new(fixed.clone(), pieces.clone(), emptied).loads().clone();
    let mut proposed = map.clone();
    let mut pins = Vec::new();
    // The heaviest first, each to the shard that bears least then.
    leaving.sort_by(|a, b| b.cmp(a));
    let mut loads = before.clone();
    for (weight, keyspace, tenant, from) in leaving {
        let stay = loads.iter().filter(|(shard, _)| !emptied.contains(shard));
        let (to, _) = stay.min_by_key(|(shard, load)| (**load, **shard))?;
        let to = *to;
        for all in [&mut loads, &mut fixed] {
            let there = all.entry(to).or_default();
            *there = there.saturating_add(weight);
            let here = all.entry(from).or_default();
            *here = here.saturating_sub(weight);
        }
        pins.push((keyspace, tenant, to));
    }
    let mut balance = Balance::new(fixed, pieces, emptied);
    let hops = balance.level(tolerance);
    for hop in &hops {
        let name = map.keyspaces().get(hop.keyspace)?.name();
        proposed = proposed.with_slots_on(name, (hop.first, hop.last), hop.to)?;
    }
    for (keyspace, tenant, to) in &pins {
        proposed = proposed.with_tenant_on(keyspace, tenant, *to)?;
    }
    let unit = if bare { "slots" } else { weights.unit };
    let after = balance.loads().clone();
    Some(Proposal { map: proposed.with_epoch(map.epoch()), hops, pins, before, after, unit })
}

impl Proposal {
    /// What moves and why, as comments of a map file.
    fn text(&self, map: &Map, args: &RebalanceArgs) -> String {
        let name = |id: ShardId| map.shard(id).map_or("?", |shard| shard.name.as_str());
        let unit = self.unit;
        let mut out = String::new();
        // A string never fails to grow.
        for (shard, before) in &self.before {
            let after = self.after.get(shard).copied().unwrap_or(0);
            let _ = writeln!(out, "# {}: {before} {unit}, then {after}", name(*shard));
        }
        for hop in &self.hops {
            let Hop { first, last, from, to, weight, .. } = hop;
            let keyspace = map.keyspaces().get(hop.keyspace).map_or("?", Keyspace::name);
            let _ = writeln!(
                out,
                "# slots {}-{} of {keyspace} from {} to {}: {weight} {unit}",
                first.number(),
                last.number(),
                name(*from),
                name(*to)
            );
        }
        for (keyspace, tenant, to) in &self.pins {
            let _ = writeln!(out, "# tenant {tenant} of {keyspace} to {}", name(*to));
        }
        if self.hops.is_empty() && self.pins.is_empty() {
            let _ = writeln!(
                out,
                "# nothing moves: no shard is off the mean by more than {} %, or no slot is light \
                 enough to help",
                args.tolerance
            );
        }
        out
    }
}

fn hand_over(text: &str, map: &Map, args: &RebalanceArgs) -> Result<(), Failed> {
    let file = format!("{text}\n{}", map.to_toml());
    let Some(path) = &args.output else {
        say(file.trim_end());
        return Ok(());
    };
    let written = File::create_new(path).and_then(|mut out| out.write_all(file.as_bytes()));
    written.map_err(|error| failed(format!("{}: {error}", path.display())))?;
    say(text.trim_end());
    say(&format!("next: keyway plan {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[shard]]\nnumber = 3\nname = \"c\"\nprimary = { host = \"h3\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 8\n\
            ranges = { a = [\"0-5\"], b = [\"6-7\"] }\npins = { \"42\" = \"b\", \"43\" = \"b\" }\n\
            [[key_rule]]\nkeyspace = \"k\"\ncolumn = \"t\"\ntables = [\"public.x\"]\n";
        Map::parse(text, "map").unwrap()
    }

    fn weights(slots: &[u64], pins: &[u64]) -> Weights {
        let slots = (0..).map(Share::Slot).zip(slots);
        let pins = (0..).map(Share::Pin).zip(pins);
        let parts = slots.chain(pins).map(|(share, weight)| ((0, share), *weight)).collect();
        Weights { parts, unit: "rows" }
    }

    #[test]
    fn a_proposal_keeps_pins_and_reads_back() {
        let map = map();
        let found = propose(&map, &weights(&[10; 8], &[5, 5]), &[], 5).unwrap();
        let [keyspace] = found.map.keyspaces() else { panic!("one keyspace") };
        let pins: Vec<ShardId> = keyspace.pins().map(|(_, shard)| shard).collect();
        assert_eq!(pins, [ShardId::new(2), ShardId::new(2)]);
        assert_eq!(found.after.values().copied().collect::<Vec<_>>(), [30, 30, 30]);
        let read = Map::parse(&found.map.to_toml(), "proposal").unwrap();
        assert!(read.same_ownership(&found.map) && !read.same_ownership(&map));
        assert_eq!(read.epoch(), map.epoch());
    }

    #[test]
    fn an_emptied_shard_leaves_its_pins_too() {
        let map = map();
        let b = emptied(&map, &["b".to_owned()]).unwrap();
        let found = propose(&map, &weights(&[10; 8], &[5, 50]), &b, 5).unwrap();
        assert_eq!(found.map.keyspaces()[0].shards(), [ShardId::new(1), ShardId::new(3)]);
        assert_eq!(found.pins.len(), 2);
        assert_eq!(found.after[&ShardId::new(2)], 0);
        assert!(emptied(&map, &["a".to_owned()]).unwrap_err().contains("home"));
        assert!(emptied(&map, &["x".to_owned()]).is_err());
    }

    #[test]
    fn without_rows_slots_are_dealt_out() {
        let found = propose(&map(), &weights(&[], &[]), &[], 5).unwrap();
        let counts: Vec<u64> = found.after.values().copied().collect();
        assert!(counts.iter().all(|count| (2..=3).contains(count)), "{counts:?}");
        assert_eq!(found.unit, "slots");
    }

    #[test]
    fn a_rate_is_spread_as_rows_are() {
        let here = [(Share::Slot(0), 30), (Share::Slot(1), 10)];
        let here = here.map(|(share, rows)| ((0, share), Weight { rows, bytes: 1 }));
        let spread = weighed(here.into_iter().collect(), By::Load, Some(100));
        assert_eq!(spread.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [75, 25]);
    }
}
