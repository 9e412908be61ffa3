//! The table of slots: every slot belongs to exactly one shard.

use toml::Spanned;

use crate::document::{Problem, Source};
use crate::types::ShardId;

use super::node::Shard;

/// All `slots` to one shard.
pub(super) fn all(slots: u32, shard: ShardId) -> Box<[ShardId]> {
    (0..slots).map(|_| shard).collect()
}

/// The owner of each of `slots`, from ranges that shards claim; `at` is where
/// the keyspace stands.
///
/// # Errors
/// Ranges that are none, slots with two owners, slots with none.
pub(super) fn owners(
    slots: u32,
    at: usize,
    claims: &[(ShardId, &Spanned<String>)],
    shards: &[Shard],
    source: Source<'_>,
) -> Result<Box<[ShardId]>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut owners: Vec<Option<ShardId>> = (0..slots).map(|_| None).collect();
    let name = |id: ShardId| {
        shards.iter().find(|shard| shard.id == id).map_or("?", |shard| shard.name.as_str())
    };
    for (shard, text) in claims {
        let offset = text.span().start;
        let (first, last) = match range(text.get_ref(), slots) {
            Ok(range) => range,
            Err(reason) => {
                problems.push(source.problem(offset, reason));
                continue;
            }
        };
        let mut doubles = Runs::default();
        for (slot, owner) in (0..slots).zip(&mut owners) {
            if slot < first || slot > last {
                continue;
            }
            match owner {
                Some(other) => doubles.add(slot, *other),
                None => *owner = Some(*shard),
            }
        }
        for (from, to, other) in doubles.0 {
            let reason = format!(
                "{} claimed by both {} and {}",
                slots_are(from, to),
                name(other),
                name(*shard)
            );
            problems.push(source.problem(offset, reason));
        }
        if problems.len() > PROBLEMS_MAX {
            return Err(problems);
        }
    }
    let mut gaps = Runs::default();
    for (slot, _) in (0..slots).zip(&owners).filter(|(_, owner)| owner.is_none()) {
        gaps.add(slot, ShardId::new(0));
    }
    if problems.is_empty() {
        for (from, to, _) in gaps.0 {
            problems
                .push(source.problem(at, format!("{} claimed by no shard", slots_are(from, to))));
        }
    }
    if problems.is_empty() { Ok(owners.into_iter().flatten().collect()) } else { Err(problems) }
}

/// Consecutive slots of one other owner.
#[derive(Default)]
struct Runs(Vec<(u32, u32, ShardId)>);

impl Runs {
    fn add(&mut self, slot: u32, owner: ShardId) {
        match self.0.last_mut() {
            Some((_, last, same)) if *same == owner && last.saturating_add(1) == slot => {
                *last = slot;
            }
            _ => self.0.push((slot, slot, owner)),
        }
    }
}

fn slots_are(from: u32, to: u32) -> String {
    if from == to { format!("slot {from} is") } else { format!("slots {from}-{to} are") }
}

/// `7` or `0-2047`, both ends included.
fn range(text: &str, slots: u32) -> Result<(u32, u32), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| {
        let digits = digits.trim();
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse::<u32>().ok() } else { None }
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err(format!("{text:?} is no range of slots, such as \"0-2047\" or \"7\""));
    };
    if first > last {
        return Err(format!("the range {text} ends before it starts"));
    }
    if last >= slots {
        return Err(format!(
            "the range {text} ends past the last slot, {}",
            slots.saturating_sub(1)
        ));
    }
    Ok((first, last))
}

/// Most slots of a keyspace.
pub(super) const SLOTS_MAX: u32 = 65_536;
/// Slots of a keyspace that doesn't say.
pub(super) const SLOTS_DEFAULT: u32 = 4096;
/// After so many problems the rest of the ranges is not looked at.
const PROBLEMS_MAX: usize = 100;
