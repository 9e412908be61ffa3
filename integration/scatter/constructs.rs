//! Generated reads that work on rows of several shards at once: aggregates,
//! windows, set operations, joins on any column, subqueries, common table
//! expressions, sorts by any type.

use super::answers::{Read, Rows};
use super::generated::{COLUMNS, Dice};

/// A read that is valid on one server, most of the time.
pub(crate) fn read(dice: &mut Dice) -> Read {
    match dice.below(11) {
        0 => aggregate(dice),
        1 | 2 => grouped(dice),
        3 => grouping_sets(dice),
        4 => windowed(dice),
        5 => combined(dice),
        6 => joined(dice),
        7 => subquery(dice),
        8 => common(dice),
        9 => distinct(dice),
        _ => sorted(dice),
    }
}

/// Aggregates whose result does not depend on the order of their rows.
const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(n)",
    "count(DISTINCT n)",
    "count(DISTINCT t)",
    "sum(n)",
    "sum(id)",
    "sum(big::numeric)",
    "sum(n::smallint % 100)",
    "sum(iv)",
    "avg(n)",
    "avg(id)",
    "avg(n::numeric)",
    "avg(iv)",
    "min(n)",
    "max(big)",
    "min(t)",
    "max(t)",
    "min(c)",
    "max(upper(t))",
    "min(t COLLATE \"C.utf8\")",
    "min(d)",
    "max(ts)",
    "max(tz)",
    "max(f8)",
    "bool_and(b)",
    "bool_or(n > 3)",
    "every(b IS NOT NULL)",
    "bit_and(n)",
    "bit_or(id)",
    "bit_xor(id)",
    "stddev(n::numeric)",
    "var_pop(id)",
    "array_agg(id ORDER BY tenant_id, id)",
    "string_agg(t, ',' ORDER BY t, tenant_id, id)",
    "jsonb_agg(n ORDER BY n, tenant_id, id)",
    "percentile_disc(0.5) WITHIN GROUP (ORDER BY n)",
    "mode() WITHIN GROUP (ORDER BY id)",
    "max(arr)",
    "sum(n) FILTER (WHERE b)",
    "count(*) FILTER (WHERE t LIKE 'a%')",
    "avg(n) FILTER (WHERE n > 0)",
    "sum(n) + count(*)",
    "coalesce(sum(n), 0) * 2",
    "sum(n * 2 + 1)",
    "sum(CASE WHEN b THEN 1 ELSE 0 END)",
    "round(avg(n), 2)",
    "max(n) - min(n)",
    "max(n) > 5 AND bool_or(b)",
];

fn aggregates(dice: &mut Dice) -> Vec<String> {
    (0..1 + dice.below(4))
        .map(|number| {
            let one = dice.pick(AGGREGATES);
            if dice.once_in(3) { format!("{one} AS a{number}") } else { one.to_owned() }
        })
        .collect()
}

fn filter(dice: &mut Dice) -> String {
    let conditions = [
        "n > 0",
        "b",
        "t LIKE 'a%'",
        "tenant_id IN (3, 9, 27)",
        "tenant_id > 20",
        "n = ANY('{3,17}')",
        "n > 100",
        "d BETWEEN '1999-01-01' AND '2024-12-31' AND n IS NOT NULL",
        "id < 4 OR n = 3",
        "c = 'a' AND (b OR n > 2)",
        "CASE WHEN b THEN n > 0 ELSE id > 2 END",
        "ts < TIMESTAMP '2024-06-01' - INTERVAL '1 day'",
        "num BETWEEN -2 AND 2",
        "length(t) = 1",
        "tz < now()",
        "n > 2000000000 AND n < 0",
    ];
    match dice.below(3) {
        0 => String::new(),
        1 => format!(" WHERE {}", dice.pick(&conditions)),
        _ => format!(" WHERE ({}) AND {}", dice.pick(&conditions), dice.pick(&conditions)),
    }
}

fn aggregate(dice: &mut Dice) -> Read {
    let items = aggregates(dice).join(", ");
    let having = dice.pick(&["", "", " HAVING count(*) > 3", " HAVING sum(n) > 1000000"]);
    let sql = format!("SELECT {items} FROM events{}{having}", filter(dice));
    Read { sql, rows: Rows::Unordered }
}

fn grouped(dice: &mut Dice) -> Read {
    // Not num, f8 or iv: of equal values that look different any may stand for
    // the group.
    let keys = [
        "n",
        "b",
        "t",
        "c",
        "d",
        "region",
        "n % 3",
        "upper(t)",
        "date_trunc('month', ts)",
        "tenant_id % 4",
        "CASE WHEN b THEN 'yes' ELSE 'no' END",
        "u",
        "arr",
        "j",
    ];
    let mut chosen: Vec<&str> = Vec::new();
    for _ in 0..1 + dice.below(2) {
        let key = dice.pick(&keys);
        if !chosen.contains(&key) {
            chosen.push(key);
        }
    }
    let regions = chosen.contains(&"region");
    let from = if regions { "events e JOIN accounts USING (tenant_id)" } else { "events" };
    let mut items: Vec<String> = chosen.iter().map(|key| (*key).to_owned()).collect();
    if dice.once_in(4) {
        items[0] = format!("{} AS k", items[0]);
    }
    items.extend(aggregates(dice));
    let by: Vec<String> = match dice.below(3) {
        0 => (1..=chosen.len()).map(|place| place.to_string()).collect(),
        _ => chosen.iter().map(|key| (*key).to_owned()).collect(),
    };
    let having = dice.pick(&["", "", " HAVING count(*) > 2", " HAVING min(n) < 5 OR max(id) > 8"]);
    let (order, rows) = match dice.below(3) {
        0 => (String::new(), Rows::Unordered),
        _ => {
            let mut keys: Vec<String> = Vec::new();
            if dice.once_in(2) {
                keys.push(format!("count(*){}", dice.pick(&["", " DESC"])));
            }
            keys.extend((1..=chosen.len()).map(|place| place.to_string()));
            let limit = if dice.once_in(3) { " LIMIT 5 OFFSET 1" } else { "" };
            (format!(" ORDER BY {}{limit}", keys.join(", ")), Rows::Ordered)
        }
    };
    let filter = filter(dice);
    let sql = format!(
        "SELECT {} FROM {from}{filter} GROUP BY {}{having}{order}",
        items.join(", "),
        by.join(", ")
    );
    Read { sql, rows }
}

fn grouping_sets(dice: &mut Dice) -> Read {
    let by = dice.pick(&[
        "ROLLUP (b, n)",
        "CUBE (b, t)",
        "GROUPING SETS ((b), (t), ())",
        "b, ROLLUP (n, t)",
        "GROUPING SETS ((b, t), (n))",
        "GROUPING SETS (())",
    ]);
    let columns: Vec<&str> = ["b", "n", "t"]
        .into_iter()
        .filter(|c| by.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *c))
        .collect();
    let mut items: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
    if !columns.is_empty() {
        items.push(format!("grouping({})", columns.join(", ")));
    }
    items.extend(aggregates(dice));
    let sql = format!("SELECT {} FROM events{} GROUP BY {by}", items.join(", "), filter(dice));
    Read { sql, rows: Rows::Unordered }
}

fn windowed(dice: &mut Dice) -> Read {
    let window = dice.pick(&[
        "row_number() OVER (ORDER BY tenant_id, id)",
        "rank() OVER (PARTITION BY b ORDER BY n)",
        "sum(n) OVER (PARTITION BY t)",
        "lag(n) OVER (ORDER BY n, tenant_id, id)",
        "count(*) OVER ()",
        "ntile(4) OVER w",
        "first_value(t) OVER (PARTITION BY tenant_id % 3 ORDER BY id, tenant_id)",
        "avg(n) OVER (ORDER BY tenant_id, id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
        "sum(count(*)) OVER (ORDER BY n)",
        "dense_rank() OVER (ORDER BY max(id) DESC)",
    ]);
    let grouped = window.contains("count(*))") || window.contains("max(id)");
    let named =
        if window.contains("OVER w") { " WINDOW w AS (ORDER BY tenant_id, id)" } else { "" };
    let sql = if grouped {
        format!("SELECT n, {window} FROM events{} GROUP BY n", filter(dice))
    } else {
        format!("SELECT tenant_id, id, {window} FROM events{}{named}", filter(dice))
    };
    Read { sql, rows: Rows::Unordered }
}

fn combined(dice: &mut Dice) -> Read {
    let parts = [
        "SELECT n FROM events",
        "SELECT event_id::int FROM items",
        "SELECT tenant_id::int FROM accounts WHERE region = 'eu'",
        "SELECT n FROM events WHERE b",
        "SELECT 3",
        "(SELECT n FROM events ORDER BY n, tenant_id, id LIMIT 4)",
        "SELECT max(n) FROM events GROUP BY b",
        "VALUES (1), (17), (NULL)",
    ];
    let mut sql = dice.pick(&parts).to_owned();
    for _ in 0..1 + dice.below(2) {
        let how = dice.pick(&[
            "UNION",
            "UNION ALL",
            "INTERSECT",
            "INTERSECT ALL",
            "EXCEPT",
            "EXCEPT ALL",
        ]);
        sql = format!("{sql} {how} {}", dice.pick(&parts));
    }
    let rows = if dice.once_in(2) { Rows::Ordered } else { Rows::Unordered };
    if rows == Rows::Ordered {
        sql.push_str(" ORDER BY 1 NULLS FIRST");
    }
    Read { sql, rows }
}

fn joined(dice: &mut Dice) -> Read {
    let join = dice.pick(&[
        "accounts a JOIN events e ON e.n = a.tenant_id",
        "accounts a LEFT JOIN events e ON e.id = a.tenant_id AND e.b",
        "items i JOIN events e ON i.event_id = e.id AND i.tenant_id <> e.tenant_id",
        "accounts a FULL JOIN items i ON i.id = a.tenant_id",
        "accounts a RIGHT JOIN events e ON e.tenant_id = a.tenant_id + 1",
        "regions r LEFT JOIN accounts a ON a.region = r.code",
        "regions r FULL JOIN accounts a ON a.region = r.code AND a.tenant_id > 9",
        "accounts a NATURAL JOIN items i",
        "accounts a CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.n > a.tenant_id ORDER BY e.n, e.tenant_id, e.id LIMIT 2) e",
        "accounts a JOIN (SELECT tenant_id, count(*) AS n FROM events GROUP BY tenant_id) e ON e.n = a.tenant_id",
        "accounts a, items i, events e",
        "accounts a JOIN accounts a2 ON a.region = a2.region AND a.tenant_id < a2.tenant_id",
    ]);
    let items = dice.pick(&["*", "count(*)", "a.name, count(*)", "a"]);
    let items = if !join.contains(" a ") { "e.n, i.price" } else { items };
    let items =
        if join.contains("a, items i, events e") && items == "*" { "count(*)" } else { items };
    let group = if items.contains("a.name, count") { " GROUP BY a.name" } else { "" };
    let filter = if join.contains("accounts a") {
        dice.pick(&["", " WHERE a.region = 'eu'", " WHERE a.name IS NULL OR a.tenant_id < 15"])
    } else {
        ""
    };
    let filter = if join.contains("a, items i, events e") {
        " WHERE i.event_id = e.id AND a.tenant_id = i.id AND e.n > 0"
    } else {
        filter
    };
    // An unnamed composite has another name on every server.
    let items = if items == "a" && !join.starts_with("accounts a JOIN events") {
        "count(*)"
    } else {
        items
    };
    Read { sql: format!("SELECT {items} FROM {join}{filter}{group}"), rows: Rows::Unordered }
}

fn subquery(dice: &mut Dice) -> Read {
    let sql = dice.pick(&[
        "SELECT a.tenant_id, (SELECT count(*) FROM events e WHERE e.tenant_id < a.tenant_id) FROM accounts a",
        "SELECT a.tenant_id, (SELECT max(e.n) FROM events e WHERE e.tenant_id = a.tenant_id) FROM accounts a",
        "SELECT name FROM accounts a WHERE EXISTS (SELECT FROM events e WHERE e.tenant_id = a.tenant_id AND e.n > 3)",
        "SELECT name FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.event_id = a.tenant_id)",
        "SELECT tenant_id, id FROM events WHERE n IN (SELECT event_id FROM items WHERE price > 20)",
        "SELECT tenant_id, id FROM events WHERE n NOT IN (SELECT event_id FROM items WHERE event_id IS NOT NULL)",
        "SELECT tenant_id FROM items WHERE price > (SELECT avg(price) FROM items)",
        "SELECT tenant_id FROM items WHERE price >= ALL (SELECT price FROM items WHERE price IS NOT NULL)",
        "SELECT x.b, x.c FROM (SELECT b, count(*) AS c FROM events GROUP BY b) x WHERE x.c > 10",
        "SELECT * FROM (SELECT tenant_id, id, row_number() OVER (PARTITION BY b ORDER BY n, tenant_id, id) r FROM events) x WHERE r < 3",
        "SELECT array(SELECT id FROM items i WHERE i.tenant_id = a.tenant_id ORDER BY id) FROM accounts a",
        "SELECT count(*) FROM (SELECT DISTINCT n FROM events) x",
        "SELECT r.title, (SELECT count(*) FROM accounts a WHERE a.region = r.code) FROM regions r",
        "SELECT sum(x) FROM (SELECT n AS x FROM events UNION ALL SELECT event_id FROM items) y",
        "SELECT jsonb_build_object('n', n, 'items', (SELECT jsonb_agg(i.id ORDER BY i.id, i.event_id) FROM items i WHERE i.tenant_id = e.tenant_id)) FROM events e WHERE e.n = 3",
        "SELECT row_to_json(a) FROM accounts a",
        "SELECT row_to_json(x) FROM (SELECT name, region FROM accounts) x",
        "SELECT (SELECT row_to_json(i) FROM items i WHERE i.tenant_id = a.tenant_id ORDER BY id LIMIT 1) FROM accounts a",
    ]);
    Read { sql: sql.to_owned(), rows: Rows::Unordered }
}

fn common(dice: &mut Dice) -> Read {
    let sql = dice.pick(&[
        "WITH big AS (SELECT * FROM events WHERE n > 10) SELECT count(*), max(n) FROM big",
        "WITH a AS (SELECT region, count(*) AS c FROM accounts GROUP BY region), b AS (SELECT max(c) AS m FROM a) SELECT a.region FROM a JOIN b ON a.c = b.m",
        "WITH events AS (SELECT id AS n FROM items) SELECT count(*) FROM events WHERE n = 2",
        "WITH RECURSIVE r(tenant_id, depth) AS (SELECT tenant_id, 1 FROM accounts WHERE tenant_id = 3 UNION ALL SELECT a.tenant_id, r.depth + 1 FROM accounts a JOIN r ON a.tenant_id = r.tenant_id + 7) SELECT * FROM r",
        "WITH RECURSIVE r AS (SELECT id, event_id FROM items WHERE id = 1 UNION SELECT i.id, i.event_id FROM items i JOIN r ON i.id = r.event_id) SELECT count(*), sum(id) FROM r",
        "WITH w AS MATERIALIZED (SELECT tenant_id, n FROM events) SELECT x.n, count(*) FROM w x JOIN w y ON x.n = y.n AND x.tenant_id <> y.tenant_id GROUP BY x.n",
        "WITH t AS (SELECT generate_series(1, 5) AS g) SELECT g, count(e.id) FROM t LEFT JOIN events e ON e.id = g GROUP BY g",
        "SELECT * FROM (VALUES (1, 'x'), (3, 'y')) v(k, l) JOIN events e ON e.n = v.k",
        "SELECT g.day, count(e.id) FROM generate_series(DATE '2024-01-01', DATE '2024-01-03', INTERVAL '1 day') g(day) LEFT JOIN events e ON e.ts::date = g.day GROUP BY g.day",
    ]);
    Read { sql: sql.to_owned(), rows: Rows::Unordered }
}

fn distinct(dice: &mut Dice) -> Read {
    let columns = ["n", "b", "t", "c", "d", "tenant_id % 5", "arr", "u", "lower(t)"];
    match dice.below(3) {
        0 => {
            let (a, b) = (dice.pick(&columns), dice.pick(&columns));
            let sql = format!("SELECT DISTINCT {a}, {b} FROM events{}", filter(dice));
            Read { sql, rows: Rows::Unordered }
        }
        1 => {
            let a = dice.pick(&columns);
            let sql =
                format!("SELECT DISTINCT {a} FROM events{} ORDER BY 1 DESC LIMIT 4", filter(dice));
            Read { sql, rows: Rows::Ordered }
        }
        _ => {
            let a = dice.pick(&columns);
            let sql = format!(
                "SELECT DISTINCT ON ({a}) tenant_id, n, t FROM events{} ORDER BY {a}, n DESC, events.tenant_id, events.id",
                filter(dice)
            );
            Read { sql, rows: Rows::Ordered }
        }
    }
}

/// By values that the router itself does not compare.
fn sorted(dice: &mut Dice) -> Read {
    let key = dice.pick(&[
        "t COLLATE \"C.utf8\"",
        "arr",
        "j",
        "t COLLATE \"C.utf8\" DESC",
        "lower(t) COLLATE \"C.utf8\"",
        "arr[2], j ->> 'a'",
        "ROW(n, b)",
        "n::text",
    ]);
    let columns = [dice.pick(COLUMNS), dice.pick(COLUMNS)].join(", ");
    let limit = dice.pick(&["", " LIMIT 9", " OFFSET 4 LIMIT 3", " FETCH FIRST 5 ROWS WITH TIES"]);
    let sql = format!(
        "SELECT {columns} FROM events{} ORDER BY {key}, events.tenant_id, events.id{limit}",
        filter(dice)
    );
    Read { sql, rows: Rows::Ordered }
}
