//! Statements by hand: those that are answered, and those that are refused.

use tokio_postgres::types::ToSql;

use super::answers::Rows::{self, Ordered, Unordered};

pub(crate) const ANSWERED: &[(&str, Rows)] = &[
    // The database's own collation compares bytes.
    ("SELECT t FROM events ORDER BY t, tenant_id, id", Ordered),
    ("SELECT t AS x FROM events ORDER BY x DESC NULLS LAST, tenant_id DESC, id LIMIT 20", Ordered),
    ("SELECT name FROM accounts ORDER BY upper(name), 1, tenant_id", Ordered),
    ("SELECT tenant_id, max(t) FROM events GROUP BY tenant_id ORDER BY max(t), 1", Ordered),
    ("SELECT c FROM events ORDER BY c, tenant_id, id", Ordered),
    ("SELECT a.name, e.id FROM accounts a RIGHT JOIN events e USING (tenant_id)", Unordered),
    (
        "SELECT i.id, e.id FROM items i RIGHT JOIN events e ON e.tenant_id = i.tenant_id AND i.event_id = e.id ORDER BY e.tenant_id, 2, 1",
        Ordered,
    ),
    (
        "SELECT r.title, i.id, e.id FROM regions r LEFT JOIN items i ON i.id = 1 JOIN events e ON e.tenant_id = i.tenant_id ORDER BY e.tenant_id, 3, r.code COLLATE \"C\"",
        Ordered,
    ),
    ("SELECT length(t), abs(n) AS a FROM events ORDER BY length, tenant_id, id", Ordered),
    ("SELECT n % 5, tenant_id FROM events ORDER BY n, tenant_id, id", Ordered),
    ("SELECT * FROM accounts", Unordered),
    ("SELECT * FROM events", Unordered),
    ("select tenant_id, name as n from accounts order by tenant_id", Ordered),
    ("SELECT tenant_id, id FROM events ORDER BY 1, 2 LIMIT 7", Ordered),
    ("SELECT tenant_id, id FROM events ORDER BY tenant_id, id OFFSET 5", Ordered),
    (
        "SELECT tenant_id, id FROM events ORDER BY tenant_id DESC, id DESC LIMIT 3 OFFSET 40",
        Ordered,
    ),
    (
        "SELECT tenant_id, id FROM events ORDER BY tenant_id, id OFFSET 2 ROWS FETCH FIRST 3 ROWS ONLY",
        Ordered,
    ),
    ("SELECT tenant_id, id FROM events ORDER BY tenant_id, id FETCH NEXT ROW ONLY", Ordered),
    ("SELECT tenant_id, id FROM events ORDER BY tenant_id, id LIMIT ALL OFFSET 100", Ordered),
    ("SELECT tenant_id FROM accounts LIMIT 0", Ordered),
    ("SELECT tenant_id FROM accounts ORDER BY 1 LIMIT 5 OFFSET 1000", Ordered),
    ("SELECT n, tenant_id, id FROM events ORDER BY n, tenant_id, id", Ordered),
    ("SELECT n FROM events ORDER BY n DESC NULLS LAST, tenant_id, id", Ordered),
    ("SELECT n FROM events ORDER BY n NULLS FIRST, tenant_id, id", Ordered),
    ("SELECT big FROM events ORDER BY big DESC, tenant_id, id LIMIT 30", Ordered),
    ("SELECT num FROM events ORDER BY num, tenant_id, id", Ordered),
    ("SELECT num FROM events ORDER BY num DESC, tenant_id, id", Ordered),
    ("SELECT f8 FROM events ORDER BY f8, tenant_id, id", Ordered),
    ("SELECT f4, f8 FROM events ORDER BY f4 DESC, f8, tenant_id, id", Ordered),
    ("SELECT b FROM events ORDER BY b, tenant_id, id", Ordered),
    ("SELECT d FROM events ORDER BY d, tenant_id, id", Ordered),
    ("SELECT ts, tz FROM events ORDER BY ts DESC, tz, tenant_id, id", Ordered),
    ("SELECT iv FROM events ORDER BY iv, tenant_id, id", Ordered),
    ("SELECT u FROM events ORDER BY u, tenant_id, id", Ordered),
    ("SELECT by FROM events ORDER BY by, tenant_id, id", Ordered),
    ("SELECT by FROM events ORDER BY by DESC, tenant_id, id", Ordered),
    ("SELECT t FROM events ORDER BY t COLLATE \"C\", tenant_id, id", Ordered),
    ("SELECT t FROM events ORDER BY t COLLATE pg_catalog.\"POSIX\" DESC, tenant_id, id", Ordered),
    ("SELECT id + n AS s FROM events ORDER BY s, tenant_id, id", Ordered),
    ("SELECT n AS id, id AS n FROM events ORDER BY n, tenant_id", Unordered),
    ("SELECT -n AS n FROM events ORDER BY n, tenant_id, id", Ordered),
    ("SELECT -n AS n FROM events ORDER BY (n), tenant_id, (id)", Ordered),
    ("SELECT -n AS n FROM events ORDER BY n + 0, tenant_id, id", Ordered),
    ("SELECT e.n FROM events e ORDER BY e.n, e.tenant_id, e.id", Ordered),
    ("SELECT *, n * 2 AS twice FROM events ORDER BY twice DESC, tenant_id, id", Ordered),
    ("SELECT e.* FROM events e ORDER BY e.tenant_id, id LIMIT 4", Ordered),
    ("SELECT tenant_id x, id y FROM events ORDER BY x, y LIMIT 4", Ordered),
    ("SELECT coalesce(n, 0) z, tenant_id, id FROM events ORDER BY z, 2, 3", Ordered),
    (
        "SELECT CASE WHEN n > 0 THEN 'plus' ELSE 'minus' END, tenant_id, id FROM events ORDER BY 2, 3",
        Ordered,
    ),
    (
        "SELECT upper(t), length(t) FROM events WHERE t LIKE 'a%' ORDER BY length(t), tenant_id, id",
        Ordered,
    ),
    (
        "SELECT n FROM events WHERE n BETWEEN -10 AND 10 AND b IS NOT TRUE ORDER BY 1, tenant_id, id",
        Ordered,
    ),
    ("SELECT n FROM events WHERE n IS DISTINCT FROM 3 ORDER BY 1, tenant_id, id", Ordered),
    (
        "SELECT extract(year FROM ts) FROM events WHERE ts < 'infinity' ORDER BY ts, tenant_id, id",
        Ordered,
    ),
    ("SELECT arr[1:2], j -> 'a' ->> 0 FROM events ORDER BY tenant_id, id LIMIT 5", Ordered),
    ("SELECT m::text FROM moods ORDER BY tenant_id LIMIT 5", Ordered),
    (
        "SELECT tenant_id FROM events WHERE tenant_id IN (1, 2, 3, 4, 5, 6, 7) ORDER BY tenant_id, id",
        Ordered,
    ),
    (
        "SELECT tenant_id FROM events WHERE tenant_id > 10 AND tenant_id <= 20 ORDER BY tenant_id, id",
        Ordered,
    ),
    (
        "SELECT tenant_id FROM events WHERE tenant_id = 3 OR tenant_id = 17 ORDER BY tenant_id, id",
        Ordered,
    ),
    (
        "SELECT a.name, e.n FROM accounts a JOIN events e ON e.tenant_id = a.tenant_id ORDER BY a.tenant_id, e.id",
        Ordered,
    ),
    (
        "SELECT a.name, e.n FROM accounts a JOIN events e USING (tenant_id) ORDER BY tenant_id, e.id",
        Ordered,
    ),
    (
        "SELECT a.tenant_id, e.id FROM accounts a LEFT JOIN events e ON e.tenant_id = a.tenant_id AND e.n > 0 ORDER BY 1, 2",
        Ordered,
    ),
    (
        "SELECT a.tenant_id, e.id, i.price FROM accounts a LEFT JOIN events e ON e.tenant_id = a.tenant_id LEFT JOIN items i ON i.tenant_id = e.tenant_id AND i.event_id = e.id ORDER BY 1, 2, i.id",
        Ordered,
    ),
    (
        "SELECT a.name, r.title FROM accounts a JOIN regions r ON r.code = a.region ORDER BY a.tenant_id",
        Ordered,
    ),
    (
        "SELECT a.name, r.title FROM accounts a LEFT JOIN regions r ON r.code = a.region ORDER BY a.tenant_id",
        Ordered,
    ),
    (
        "SELECT a.name, r.title FROM regions r, accounts a WHERE r.code = a.region ORDER BY a.tenant_id",
        Ordered,
    ),
    (
        "SELECT a.tenant_id, r.code FROM accounts a CROSS JOIN regions r ORDER BY a.tenant_id, r.code COLLATE \"C\"",
        Ordered,
    ),
    (
        "SELECT e1.id, e2.id FROM events e1, events e2 WHERE e1.tenant_id = e2.tenant_id AND e1.id < e2.id ORDER BY e1.tenant_id, 1, 2",
        Ordered,
    ),
    ("SELECT tenant_id, count(*) FROM events GROUP BY tenant_id ORDER BY tenant_id", Ordered),
    (
        "SELECT tenant_id, count(*) AS c, sum(n), avg(num) FROM events WHERE num > -1e30 GROUP BY tenant_id ORDER BY c DESC, tenant_id LIMIT 6",
        Ordered,
    ),
    (
        "SELECT e.tenant_id, max(e.ts) FROM events e GROUP BY e.tenant_id HAVING count(*) > 5 ORDER BY max(e.ts), 1",
        Ordered,
    ),
    (
        "SELECT tenant_id, b, count(*) FILTER (WHERE n > 0) FROM events GROUP BY tenant_id, b ORDER BY 1, 2",
        Ordered,
    ),
    (
        "SELECT tenant_id, string_agg(t, ',' ORDER BY id) FROM events GROUP BY tenant_id ORDER BY tenant_id",
        Ordered,
    ),
    (
        "SELECT a.tenant_id, count(e.id) FROM accounts a LEFT JOIN events e USING (tenant_id) GROUP BY a.tenant_id ORDER BY count(e.id), 1",
        Ordered,
    ),
    (
        "SELECT tenant_id -- the key\n, n /* a ) comment */ FROM events -- more\nORDER BY tenant_id, id -- end\nLIMIT 3 -- last",
        Ordered,
    ),
    ("SELECT ALL tenant_id FROM events ORDER BY tenant_id, id LIMIT 2;", Ordered),
    (
        "SELECT tenant_id AS \"order\", id AS \"limit\" FROM events ORDER BY \"order\", \"limit\" LIMIT 2",
        Ordered,
    ),
    ("SELECT tenant_id AS limit, id AS offset FROM events ORDER BY 1, 2 LIMIT 2", Ordered),
    ("SELECT 1 FROM accounts", Unordered),
    ("SELECT NULL, 'x' FROM accounts ORDER BY tenant_id", Ordered),
    // What one server has to put together.
    ("SELECT count(*) FROM events", Unordered),
    ("SELECT count(*), sum(n), avg(n), min(t), max(t) FROM events WHERE n > 0", Unordered),
    ("SELECT DISTINCT n FROM events", Unordered),
    ("SELECT n FROM events UNION ALL SELECT n FROM events", Unordered),
    ("SELECT n FROM events UNION SELECT event_id FROM items", Unordered),
    ("SELECT n, row_number() OVER (ORDER BY n, tenant_id, id) FROM events", Unordered),
    ("SELECT m FROM moods", Unordered),
    ("SELECT tenant_id FROM moods ORDER BY m, 1", Ordered),
    ("SELECT m, count(*) FROM moods GROUP BY m ORDER BY m", Ordered),
    ("SELECT arr FROM events ORDER BY arr, tenant_id, id", Ordered),
    ("SELECT n FROM events ORDER BY j, tenant_id, id", Ordered),
    ("SELECT n::text FROM events ORDER BY n, tenant_id, id", Unordered),
    (
        "SELECT (SELECT max(n) FROM events e WHERE e.tenant_id = a.tenant_id) FROM accounts a",
        Unordered,
    ),
    ("SELECT n FROM events WHERE n IN (SELECT id FROM items)", Unordered),
    ("SELECT a.name FROM accounts a JOIN events e ON e.n = a.tenant_id", Unordered),
    ("SELECT r.title, a.name FROM regions r LEFT JOIN accounts a ON a.region = r.code", Unordered),
    ("SELECT a.name FROM accounts a FULL JOIN events e USING (tenant_id)", Unordered),
    ("WITH w AS (SELECT 1) SELECT n FROM events, w", Unordered),
    ("SELECT n FROM events ORDER BY n, tenant_id, id LIMIT 1 + 1", Ordered),
    ("SELECT n FROM events ORDER BY n FETCH FIRST 2 ROWS WITH TIES", Unordered),
    ("SELECT t FROM events ORDER BY t COLLATE \"C.utf8\", tenant_id, id", Ordered),
    ("SELECT region, count(*) FROM accounts GROUP BY region ORDER BY 2 DESC, 1", Ordered),
    ("SELECT a FROM accounts a", Unordered),
    ("SELECT i.price FROM items i WHERE price > (SELECT avg(price) FROM items)", Unordered),
    // The shards sort and cut, one server again.
    (
        "SELECT * FROM accounts ORDER BY name COLLATE \"C.utf8\", tenant_id LIMIT 7 OFFSET 3",
        Ordered,
    ),
    (
        "SELECT tenant_id, t AS x, m.m FROM events JOIN moods m USING (tenant_id) ORDER BY m DESC, x NULLS FIRST, tenant_id, id LIMIT 5",
        Unordered,
    ),
    (
        "SELECT price, id FROM items ORDER BY price::text COLLATE \"C.utf8\" DESC, tenant_id, id LIMIT 6",
        Ordered,
    ),
    ("SELECT n, arr FROM events ORDER BY arr, tenant_id, id LIMIT 6", Ordered),
    ("SELECT t FROM events ORDER BY j, t COLLATE \"C.utf8\" LIMIT 6", Ordered),
    // What one server refuses is refused in the same words.
    ("SELECT nothing FROM events", Unordered),
    ("SELECT n FROM events ORDER BY nothing", Unordered),
];

type Params = Vec<Box<dyn ToSql + Sync>>;

pub(crate) fn with_params() -> Vec<(&'static str, Rows, Params)> {
    vec![
        (
            "SELECT tenant_id, id FROM events WHERE n > $1 ORDER BY tenant_id, id LIMIT $2 OFFSET $3",
            Ordered,
            vec![Box::new(0_i32), Box::new(5_i64), Box::new(3_i64)],
        ),
        (
            "SELECT t, n + $1 FROM events WHERE n > $1 ORDER BY t COLLATE \"C.utf8\", tenant_id, id LIMIT $2 OFFSET $3",
            Ordered,
            vec![Box::new(0_i32), Box::new(5_i64), Box::new(3_i64)],
        ),
        (
            "SELECT count(*), sum(n) + $1, max(t) FILTER (WHERE t < $2) FROM events WHERE n <> $3 HAVING count(*) > $4",
            Unordered,
            vec![Box::new(7_i64), Box::new("b"), Box::new(3_i32), Box::new(1_i64)],
        ),
        (
            "SELECT n % $1, count(*) FROM events GROUP BY 1 ORDER BY 1 LIMIT $2",
            Ordered,
            vec![Box::new(4_i32), Box::new(3_i64)],
        ),
        (
            "SELECT a.name, (SELECT count(*) FROM events e WHERE e.n > $1 AND e.tenant_id <> a.tenant_id) FROM accounts a WHERE a.region = $2 AND a.tenant_id = ANY($3)",
            Unordered,
            vec![Box::new(2_i32), Box::new("eu"), Box::new(vec![3_i64, 6, 9, 12])],
        ),
        (
            "SELECT tenant_id, id FROM events ORDER BY tenant_id, id OFFSET $1",
            Ordered,
            vec![Box::new(50_i64)],
        ),
        (
            "SELECT tenant_id, id FROM events ORDER BY tenant_id, id LIMIT $1",
            Ordered,
            vec![Box::new(None::<i64>)],
        ),
        (
            "SELECT tenant_id FROM events ORDER BY tenant_id, id LIMIT $1::integer OFFSET $2::integer",
            Ordered,
            vec![Box::new(4_i32), Box::new(9_i32)],
        ),
        (
            "SELECT tenant_id FROM events ORDER BY tenant_id, id LIMIT 6 OFFSET $1",
            Ordered,
            vec![Box::new(2_i64)],
        ),
        (
            "SELECT tenant_id FROM events ORDER BY tenant_id, id LIMIT $1",
            Ordered,
            vec![Box::new(-1_i64)],
        ),
        (
            "SELECT tenant_id FROM events ORDER BY tenant_id, id OFFSET $1",
            Ordered,
            vec![Box::new(-1_i64)],
        ),
        (
            "SELECT n + $1, t FROM events WHERE t = ANY($2) ORDER BY n + $1, tenant_id, id",
            Ordered,
            vec![Box::new(5_i32), Box::new(vec!["a", "Z", "ä"])],
        ),
        (
            "SELECT tenant_id, count(*) FROM events WHERE d > $1::text::date GROUP BY tenant_id ORDER BY 2 DESC, 1 LIMIT $2",
            Ordered,
            vec![Box::new("2000-01-01"), Box::new(3_i64)],
        ),
    ]
}

/// With the words that the refusal must name.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("SELECT n FROM events FOR UPDATE", ""),
    ("SELECT random() FROM events", "sharding key"),
    ("SELECT ctid FROM events", "ctid"),
    ("SELECT tableoid FROM events", "tableoid"),
    ("SELECT 'events'::regclass FROM events", "regclass"),
    ("SELECT n FROM events TABLESAMPLE SYSTEM (10)", ""),
];
