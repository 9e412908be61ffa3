//! Generated reads: columns, conditions, joins, orders and limits of all kinds.

use super::answers::{Read, Rows};
use super::constructs;

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    pub(crate) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A read that is valid on one server, most of the time.
pub(crate) fn read(dice: &mut Dice) -> Read {
    match dice.below(8) {
        0 => grouped(dice),
        1 => joined(dice),
        2 | 3 => plain(dice),
        _ => constructs::read(dice),
    }
}

fn plain(dice: &mut Dice) -> Read {
    let mut items: Vec<String> = Vec::new();
    for number in 0..1 + dice.below(4) {
        let item = expression(dice);
        items.push(match dice.below(4) {
            0 => format!("{item} AS x{number}"),
            1 if !item.contains(' ') => format!("{item} x{number}"),
            _ => item,
        });
    }
    if dice.once_in(5) {
        items = vec!["*".to_owned()];
    }
    let filter = filter(dice, "");
    let (order, rows) = order(dice, &items, &["events.tenant_id", "events.id"]);
    let limit = limit(dice, rows);
    let sql = format!("SELECT {} FROM events{filter}{order}{limit}", items.join(", "));
    Read { sql, rows }
}

fn joined(dice: &mut Dice) -> Read {
    let join = dice.pick(&[
        "accounts a JOIN events e ON e.tenant_id = a.tenant_id",
        "accounts a LEFT JOIN events e ON a.tenant_id = e.tenant_id AND e.b",
        "events e JOIN accounts a USING (tenant_id)",
        "events e JOIN accounts a ON e.tenant_id = a.tenant_id JOIN regions r ON r.code = a.region",
        "accounts a LEFT JOIN regions r ON r.code = a.region LEFT JOIN events e ON e.tenant_id = a.tenant_id",
        "accounts a, events e",
        "events e, accounts a JOIN regions r ON a.region = r.code",
        "regions r LEFT JOIN accounts a ON a.region = r.code JOIN events e ON e.tenant_id = a.tenant_id",
    ]);
    let comma = join.contains(", ");
    let tie = if comma { " AND a.tenant_id = e.tenant_id" } else { "" };
    let items = ["a.name", "e.n", "e.t", "a.tenant_id", "e.id"].map(str::to_owned);
    let mut filter = filter(dice, "e.");
    if comma {
        filter = if filter.is_empty() { " WHERE true".to_owned() } else { filter };
        filter.push_str(tie);
    }
    let (order, rows) = order(dice, &items, &["a.tenant_id", "e.id"]);
    let limit = limit(dice, rows);
    let sql = format!("SELECT {} FROM {join}{filter}{order}{limit}", items.join(", "));
    Read { sql, rows }
}

fn grouped(dice: &mut Dice) -> Read {
    let extra = dice.pick(&["", ", b", ", n", ", d"]);
    let mut items = vec!["tenant_id".to_owned()];
    for _ in 0..1 + dice.below(3) {
        let aggregate = dice.pick(&[
            "count(*)",
            "count(n)",
            "sum(big::numeric)",
            // Not min(num): of 0 and 0.00 either is the least.
            "min(big)",
            "max(ts)",
            "avg(n)",
            "count(DISTINCT b)",
            "bool_or(b)",
            "string_agg(c, '|' ORDER BY id)",
            "max(n) FILTER (WHERE b)",
        ]);
        items.push(aggregate.to_owned());
    }
    let filter = filter(dice, "");
    let having = dice.pick(&["", " HAVING count(*) > 2", " HAVING max(n) > 0"]);
    let ties: Vec<&str> = ["tenant_id"].into_iter().chain(extra.strip_prefix(", ")).collect();
    let mut keys: Vec<String> = Vec::new();
    if dice.once_in(2) {
        let place = 1 + dice.below(items.len());
        keys.push(format!("{place}{}", direction(dice)));
    }
    let ordered = dice.below(4) > 0;
    let (order, rows) = if ordered {
        keys.extend(ties.iter().map(|tie| (*tie).to_owned()));
        (format!(" ORDER BY {}", keys.join(", ")), Rows::Ordered)
    } else {
        (String::new(), Rows::Unordered)
    };
    let limit = limit(dice, rows);
    let sql = format!(
        "SELECT {} FROM events{filter} GROUP BY tenant_id{extra}{having}{order}{limit}",
        items.join(", ")
    );
    Read { sql, rows }
}

pub(crate) const COLUMNS: &[&str] = &[
    "tenant_id",
    "id",
    "n",
    "big",
    "num",
    "f8",
    "f4",
    "b",
    "d",
    "ts",
    "tz",
    "iv",
    "u",
    "by",
    "t",
    "c",
    "j",
    "arr",
];

fn expression(dice: &mut Dice) -> String {
    match dice.below(3) {
        0 => dice
            .pick(&[
                "n % 7",
                "coalesce(n, -1)",
                "num * 2",
                "abs(f8)",
                "upper(t)",
                "length(c)",
                "n::text",
                "d - 3",
                "CASE WHEN b THEN n ELSE id END",
                "t || c",
                "n IS NULL",
                "(big / 3)",
                "-n",
                "1/nullif(n, 0)",
                "date_trunc('month', ts)",
                "'const'",
                "t COLLATE \"C\"",
            ])
            .to_owned(),
        _ => dice.pick(COLUMNS).to_owned(),
    }
}

fn filter(dice: &mut Dice, prefix: &str) -> String {
    let conditions = [
        "n > 0",
        "n IS NULL",
        "b",
        "NOT b",
        "num BETWEEN -2 AND 2",
        "t LIKE 'a%'",
        "tenant_id IN (3, 9, 27)",
        "tenant_id % 3 = 1",
        "ts < '2024-06-01'",
        "n = ANY('{3,17}')",
        "f8 <> 'NaN'",
        "id < 4 OR n = 3",
        "tenant_id = 12",
        "tenant_id > 20",
    ];
    match dice.below(3) {
        0 => String::new(),
        1 => format!(" WHERE {prefix}{}", dice.pick(&conditions[..2])),
        _ if prefix.is_empty() => {
            let (a, b) = (dice.pick(&conditions), dice.pick(&conditions));
            format!(" WHERE ({a}) {} ({b})", dice.pick(&["AND", "OR"]))
        }
        _ => " WHERE e.n > 0".to_owned(),
    }
}

fn direction(dice: &mut Dice) -> &'static str {
    dice.pick(&["", " ASC", " DESC", " NULLS FIRST", " DESC NULLS LAST", " ASC NULLS LAST"])
}

/// ORDER BY; total if it ends with the rows' own key.
fn order(dice: &mut Dice, items: &[String], key: &[&str]) -> (String, Rows) {
    if dice.once_in(4) {
        return (String::new(), Rows::Unordered);
    }
    let mut keys = Vec::new();
    for _ in 0..dice.below(3) {
        let one = match dice.below(4) {
            0 => (1 + dice.below(items.len())).to_string(),
            1 => {
                let item = &items[dice.below(items.len())];
                match item.rsplit_once(' ') {
                    Some((_, name)) if name.starts_with('x') => name.to_owned(),
                    _ => "n".to_owned(),
                }
            }
            2 if key[0] == "events.tenant_id" => dice.pick(COLUMNS).to_owned(),
            _ => format!("{} + 0", key[1]),
        };
        keys.push(format!("{one}{}", direction(dice)));
    }
    keys.extend(key.iter().map(|one| (*one).to_owned()));
    (format!(" ORDER BY {}", keys.join(", ")), Rows::Ordered)
}

fn limit(dice: &mut Dice, rows: Rows) -> String {
    if rows == Rows::Unordered || dice.once_in(2) {
        return String::new();
    }
    match dice.below(4) {
        0 => format!(" LIMIT {}", dice.below(20)),
        1 => format!(" OFFSET {}", dice.below(30)),
        2 => format!(" OFFSET {} LIMIT {}", dice.below(9), dice.below(9)),
        _ => format!(" LIMIT {} OFFSET {}", dice.below(40), dice.below(9)),
    }
}
