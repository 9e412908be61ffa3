//! Statements planned over and over: what a text costs whose template is known,
//! and one that nobody has sent before.
//!
//! It does not measure; the bench beside it counts. Texts are made beforehand,
//! as many as the largest count asks for, so that they cost every count the same.

use std::hint::black_box;

use keyway::route::{Planner, PlannerLimits, SearchPath, World};
use keyway::shardmap::Map;

/// A kind of text.
pub struct Kind {
    /// Its name in `benches/gates.toml`.
    pub name: &'static str,
    text: fn(usize) -> String,
    novelty: Novelty,
}

impl Kind {
    /// Whether each text is the first of its form.
    pub fn is_cold(&self) -> bool {
        self.novelty == Novelty::Cold
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Novelty {
    /// Texts of one normal form.
    Warm,
    /// Each text is the first of its form.
    Cold,
}

/// A short statement, and an ORM's of 2 KB: with constants, in the spellings of
/// two ORMs, and with parameters.
pub const KINDS: [Kind; 6] = [
    Kind { name: "plan-short", text: short, novelty: Novelty::Warm },
    Kind { name: "plan-orm", text: orm, novelty: Novelty::Warm },
    Kind { name: "plan-orm-quoted", text: orm_quoted, novelty: Novelty::Warm },
    Kind { name: "plan-orm-bound", text: orm_bound, novelty: Novelty::Warm },
    Kind { name: "plan-short-cold", text: short_cold, novelty: Novelty::Cold },
    Kind { name: "plan-orm-cold", text: orm_cold, novelty: Novelty::Cold },
];

/// A planner and what it is to plan.
pub struct Plans {
    map: Map,
    path: SearchPath,
    planner: Planner,
    texts: Vec<String>,
}

impl Plans {
    /// Texts of a kind, all warm if the kind is.
    pub fn of(kind: &Kind) -> Self {
        let mut plans = Self {
            map: Map::parse(TWO_SHARDS, "two shards").unwrap(),
            path: SearchPath::default(),
            planner: Planner::new(7, PlannerLimits::default()),
            texts: (0..TEXTS).map(kind.text).collect(),
        };
        if !kind.is_cold() {
            plans.run(TEXTS);
            let counts = plans.planner.counts();
            assert_eq!(counts.misses, 1, "one form, one template");
        }
        plans
    }

    /// The same by a planner that knows none of them.
    pub fn run_anew(&mut self, count: usize) {
        self.planner.clear();
        self.run(count);
    }

    /// Plans so many texts.
    pub fn run(&mut self, count: usize) {
        let world = World::of_map(&self.map, &self.path);
        for text in self.texts.iter().cycle().take(count) {
            black_box(self.planner.plan(text.as_bytes(), &world).unwrap());
        }
    }
}

fn short(n: usize) -> String {
    format!("SELECT balance FROM accounts WHERE tenant_id = {n} AND id = 7")
}

fn short_cold(n: usize) -> String {
    format!("SELECT balance AS b{n} FROM accounts WHERE tenant_id = {n} AND id = 7")
}

fn orm(n: usize) -> String {
    let columns = columns(|column| format!("accounts.{column} AS accounts_{column}"));
    format!(
        "SELECT {columns} \nFROM accounts \nWHERE accounts.tenant_id = {n} AND \
         accounts.status IN ('open', 'held') ORDER BY accounts.id DESC \n LIMIT 20 OFFSET 40"
    )
}

fn orm_quoted(n: usize) -> String {
    let columns = columns(|column| format!("\"accounts\".\"{column}\""));
    format!(
        "SELECT {columns} FROM \"accounts\" WHERE (\"accounts\".\"tenant_id\" = {n} AND \
         \"accounts\".\"status\" = 'open') ORDER BY \"accounts\".\"id\" DESC LIMIT 21"
    )
}

fn orm_bound(_: usize) -> String {
    let columns = columns(|column| format!("\"accounts\".\"{column}\""));
    format!(
        "SELECT {columns} FROM \"accounts\" WHERE \"accounts\".\"tenant_id\" = $1 AND \
         \"accounts\".\"status\" = $2 ORDER BY \"accounts\".\"id\" DESC LIMIT $3"
    )
}

fn orm_cold(n: usize) -> String {
    orm(n).replacen("AS accounts_id", &format!("AS accounts_{n}"), 1)
}

/// A select list of some 1,900 bytes.
fn columns(written: impl Fn(&str) -> String) -> String {
    let mut list = written("id");
    for number in 0.. {
        let name = NAMES.get(number % NAMES.len()).copied().unwrap_or("column");
        list.push_str(", ");
        list.push_str(&written(&format!("{name}_{number}")));
        if list.len() > LIST_BYTES {
            break;
        }
    }
    list
}

const NAMES: [&str; 6] = ["created_at", "customer", "balance", "currency", "is_active", "comment"];
const LIST_BYTES: usize = 1_850;
/// The most that a count asks for.
const TEXTS: usize = 2_500;
const TWO_SHARDS: &str = include_str!("two-shards.toml");
