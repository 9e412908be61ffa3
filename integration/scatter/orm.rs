//! Statements in the styles of object-relational mappers, with the constructs
//! that they are fond of.

use super::answers::Rows::{self, Ordered, Unordered};

pub(crate) const STATEMENTS: &[(&str, Rows)] = &[
    // Django: names in quotes, COUNT(*) AS "__count", EXISTS as (1) AS "a", GROUP BY places.
    (r#"SELECT COUNT(*) AS "__count" FROM "accounts""#, Unordered),
    (
        r#"SELECT COUNT(*) AS "__count" FROM "events" WHERE ("events"."n" > 0 AND NOT ("events"."b"))"#,
        Unordered,
    ),
    (r#"SELECT 1 AS "a" FROM "events" WHERE "events"."n" = 3 LIMIT 1"#, Unordered),
    (
        r#"SELECT "accounts"."region", COUNT("events"."id") AS "total" FROM "accounts" LEFT OUTER JOIN "events" ON ("accounts"."tenant_id" = "events"."tenant_id") GROUP BY "accounts"."region" ORDER BY "total" DESC, 1"#,
        Ordered,
    ),
    (
        r#"SELECT "accounts"."tenant_id", "accounts"."name", "accounts"."region", COUNT("events"."id") AS "n" FROM "accounts" LEFT OUTER JOIN "events" ON ("accounts"."tenant_id" = "events"."tenant_id") GROUP BY "accounts"."tenant_id" ORDER BY "accounts"."name" ASC, 1"#,
        Ordered,
    ),
    (
        r#"SELECT AVG("col1"), MAX("col1") FROM (SELECT COUNT("items"."id") AS "col1" FROM "items" GROUP BY "items"."tenant_id") subquery"#,
        Unordered,
    ),
    (
        r#"SELECT DISTINCT "accounts"."region" FROM "accounts" INNER JOIN "events" ON ("accounts"."tenant_id" = "events"."tenant_id") WHERE "events"."n" >= 3 ORDER BY "accounts"."region" ASC"#,
        Ordered,
    ),
    (
        r#"SELECT (DATE_TRUNC('month', "events"."ts" AT TIME ZONE 'UTC'))::date AS "month", COUNT(*) AS "c" FROM "events" WHERE "events"."ts" < '2030-01-01' GROUP BY 1 ORDER BY 1 ASC"#,
        Ordered,
    ),
    (
        r#"SELECT "accounts"."tenant_id" FROM "accounts" WHERE EXISTS(SELECT 1 AS "a" FROM "items" U0 WHERE (U0."event_id" = ("accounts"."tenant_id") AND U0."price" > 3) LIMIT 1)"#,
        Unordered,
    ),
    (
        r#"SELECT "accounts"."tenant_id", (SELECT U0."n" FROM "events" U0 WHERE U0."tenant_id" = ("accounts"."tenant_id") ORDER BY U0."id" DESC LIMIT 1) AS "latest" FROM "accounts""#,
        Unordered,
    ),
    (
        r#"SELECT "events"."id", ROW_NUMBER() OVER (PARTITION BY "events"."tenant_id" ORDER BY "events"."id" DESC) AS "rank" FROM "events""#,
        Unordered,
    ),
    (
        r#"SELECT "accounts"."name" AS "col1" FROM "accounts" UNION (SELECT "regions"."title" AS "col1" FROM "regions") ORDER BY 1"#,
        Ordered,
    ),
    (
        r#"SELECT "accounts"."tenant_id", "accounts"."name" FROM "accounts" WHERE UPPER("accounts"."name"::text) LIKE UPPER('%an%') ORDER BY "accounts"."name" ASC, "accounts"."tenant_id" ASC LIMIT 21"#,
        Ordered,
    ),
    (
        r#"SELECT COUNT(*) FILTER (WHERE "events"."b") AS "yes", COUNT(*) FILTER (WHERE NOT "events"."b") AS "no" FROM "events""#,
        Unordered,
    ),
    (
        r#"SELECT COALESCE(SUM(CASE WHEN "events"."n" > 0 THEN "events"."n" ELSE 0 END), 0) AS "s" FROM "events""#,
        Unordered,
    ),
    // ActiveRecord: names in quotes, aliases like count_all, 1 AS one, subqueries for counts.
    (r#"SELECT COUNT(*) FROM "events" WHERE "events"."t" IS NOT NULL"#, Unordered),
    (
        r#"SELECT COUNT(*) AS "count_all", "events"."t" AS "events_t" FROM "events" GROUP BY "events"."t""#,
        Unordered,
    ),
    (
        r#"SELECT SUM("items"."price") AS "sum_price", "items"."event_id" AS "items_event_id" FROM "items" GROUP BY "items"."event_id" HAVING (SUM(items.price) > 10) ORDER BY "items"."event_id" ASC"#,
        Ordered,
    ),
    (r#"SELECT 1 AS one FROM "accounts" WHERE "accounts"."name" = 'anna' LIMIT 1"#, Unordered),
    (r#"SELECT "accounts".* FROM "accounts" ORDER BY "accounts"."tenant_id" ASC LIMIT 1"#, Ordered),
    (
        r#"SELECT "accounts".* FROM "accounts" WHERE "accounts"."tenant_id" IN (SELECT "events"."id" FROM "events" WHERE "events"."b" = TRUE)"#,
        Unordered,
    ),
    (
        r#"SELECT COUNT(*) FROM (SELECT 1 AS one FROM "events" LIMIT 30 OFFSET 3) subquery_for_count"#,
        Unordered,
    ),
    (r#"SELECT DISTINCT "accounts"."name" FROM "accounts""#, Unordered),
    (
        r#"SELECT COUNT(DISTINCT "events"."t") FROM "events" INNER JOIN "accounts" ON "accounts"."tenant_id" = "events"."tenant_id""#,
        Unordered,
    ),
    (r#"SELECT MAX("events"."ts") FROM "events""#, Unordered),
    (
        r#"SELECT AVG("items"."price") FROM "items" WHERE "items"."price" BETWEEN 1 AND 40"#,
        Unordered,
    ),
    (
        r#"SELECT "events"."id" FROM "events" WHERE ("events"."n" = 3 OR "events"."n" IS NULL) ORDER BY "events"."tenant_id" DESC, "events"."id" DESC LIMIT 11 OFFSET 0"#,
        Ordered,
    ),
    (
        r#"SELECT "accounts"."tenant_id" AS t0_r0, "accounts"."name" AS t0_r1, "events"."id" AS t1_r0, "events"."n" AS t1_r1 FROM "accounts" LEFT OUTER JOIN "events" ON "events"."tenant_id" = "accounts"."tenant_id" WHERE "events"."n" > 0"#,
        Unordered,
    ),
    // SQLAlchemy: lower-case names, aliases with numbers, anon_1, IN with lists, CTEs.
    ("SELECT count(*) AS count_1 FROM events", Unordered),
    (
        "SELECT count(events.id) AS count_1, events.b FROM events GROUP BY events.b HAVING count(events.id) > 2",
        Unordered,
    ),
    (
        "SELECT anon_1.region, anon_1.total FROM (SELECT accounts.region AS region, count(accounts.tenant_id) AS total FROM accounts GROUP BY accounts.region) AS anon_1 ORDER BY anon_1.total, anon_1.region",
        Ordered,
    ),
    (
        "SELECT a_1.name AS a_1_name, e_1.id AS e_1_id FROM accounts AS a_1 JOIN events AS e_1 ON a_1.tenant_id = e_1.tenant_id WHERE e_1.n IN (3, 17) ORDER BY a_1.tenant_id, e_1.id",
        Ordered,
    ),
    (
        "WITH top AS (SELECT events.tenant_id AS tenant_id, sum(events.id) AS total FROM events GROUP BY events.tenant_id ORDER BY total DESC, 1 LIMIT 5) SELECT accounts.name, top.total FROM accounts JOIN top ON accounts.tenant_id = top.tenant_id ORDER BY top.total DESC, accounts.tenant_id",
        Ordered,
    ),
    ("SELECT EXISTS (SELECT 1 FROM events WHERE events.n = 17) AS anon_1", Unordered),
    (
        "SELECT accounts.name, coalesce(anon_1.c, 0) AS coalesce_1 FROM accounts LEFT OUTER JOIN (SELECT items.tenant_id AS tenant_id, count(*) AS c FROM items GROUP BY items.tenant_id) AS anon_1 ON accounts.tenant_id = anon_1.tenant_id",
        Unordered,
    ),
    ("SELECT CAST(sum(items.price) AS FLOAT) AS anon_1 FROM items", Unordered),
    (
        "SELECT DISTINCT ON (events.b) events.b, events.id FROM events ORDER BY events.b, events.tenant_id, events.id",
        Ordered,
    ),
    (
        "SELECT events.id FROM events ORDER BY lower(events.t), events.tenant_id, events.id LIMIT 5",
        Ordered,
    ),
    (
        "SELECT date_trunc('day', events.ts) AS day, count(*) AS n, sum(CASE WHEN (events.b IS true) THEN 1 ELSE 0 END) AS yes FROM events GROUP BY date_trunc('day', events.ts) ORDER BY day",
        Ordered,
    ),
    (
        "SELECT json_agg(json_build_object('id', e.id, 'n', e.n) ORDER BY e.tenant_id, e.id) AS rows FROM events AS e WHERE e.n = 17",
        Unordered,
    ),
    (
        "SELECT lag(events.n) OVER (PARTITION BY events.tenant_id ORDER BY events.id) AS anon_1 FROM events",
        Unordered,
    ),
    // Prisma: schema and names in quotes, OFFSET always, aggregates over subqueries.
    (
        r#"SELECT COUNT(*) FROM (SELECT "public"."events"."id" FROM "public"."events" WHERE 1=1 OFFSET 0) AS "sub""#,
        Unordered,
    ),
    (
        r#"SELECT COUNT(*) AS "_count$_all" FROM (SELECT "e"."id" FROM "public"."events" AS "e" WHERE "e"."n" > 2 OFFSET 0) AS "sub""#,
        Unordered,
    ),
    (
        r#"SELECT "public"."accounts"."tenant_id", "public"."accounts"."name" FROM "public"."accounts" WHERE 1=1 ORDER BY "public"."accounts"."name" DESC, "public"."accounts"."tenant_id" ASC LIMIT 4 OFFSET 0"#,
        Ordered,
    ),
    (
        r#"SELECT "t0"."tenant_id", "t0"."name", "items"."__prisma_data__" AS "items" FROM "public"."accounts" AS "t0" LEFT JOIN LATERAL (SELECT COALESCE(JSONB_AGG("__prisma_data__" ORDER BY "__prisma_data__"), '[]') AS "__prisma_data__" FROM (SELECT JSONB_BUILD_OBJECT('id', "t1"."id") AS "__prisma_data__" FROM "public"."items" AS "t1" WHERE "t0"."tenant_id" = "t1"."tenant_id") AS "t2") AS "items" ON TRUE ORDER BY "t0"."tenant_id" ASC"#,
        Ordered,
    ),
    (
        r#"SELECT SUM("public"."items"."price"), "public"."items"."event_id" FROM "public"."items" WHERE 1=1 GROUP BY "public"."items"."event_id" ORDER BY "public"."items"."event_id" ASC OFFSET 0"#,
        Ordered,
    ),
];
