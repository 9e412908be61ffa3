//! Generated statements of one tenant: what the router answers is what the
//! owning shard answers, and where it runs is where the map says.

use keyway::route::explain;

use crate::client::{Client, Refusal};
use crate::slots::Random;
use crate::world::{KEY_TYPES, World, world};

/// Statements generated.
const STATEMENTS: usize = 400;

/// Reads. `{k}` is a key written in some way, `{a}` and `{b}` are numbers,
/// `{p}` the port of the server that runs it.
const READS: &[&str] = &[
    "SELECT {p}, name, plan_code FROM tenants WHERE tenant_id = {k}",
    "SELECT {p}, count(*), sum(hours), max(due_on) FROM tasks WHERE {k} = tenant_id AND hours > {a}",
    "SELECT {p}, state, count(*) FILTER (WHERE hours > {a}) FROM public.tasks AS t WHERE t.tenant_id = {k} GROUP BY ROLLUP (state) ORDER BY 2, 3",
    "SELECT {p}, t.title, p.name FROM tasks t JOIN projects p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id WHERE t.tenant_id = {k} ORDER BY t.task_id LIMIT {b} OFFSET {a}",
    "SELECT {p}, u.full_name, count(k.task_id) FROM users u LEFT JOIN tasks k ON k.tenant_id = u.tenant_id AND k.assignee_id = u.user_id WHERE u.tenant_id = {k} GROUP BY u.user_id, u.full_name ORDER BY 3 DESC, u.user_id LIMIT {b}",
    "SELECT {p}, title FROM tasks JOIN projects USING (tenant_id, project_id) WHERE tenant_id = {k} ORDER BY task_id LIMIT {b}",
    "SELECT {p}, p.name FROM projects p WHERE p.tenant_id = {k} AND EXISTS (SELECT 1 FROM tasks t WHERE t.tenant_id = p.tenant_id AND t.project_id = p.project_id AND t.hours > {a}) ORDER BY project_id",
    "SELECT {p}, project_id FROM projects p WHERE tenant_id = {k} AND project_id IN (SELECT project_id FROM tasks WHERE tenant_id = {k} AND state = 'done') ORDER BY 2",
    "WITH busy AS (SELECT assignee_id, count(*) AS n FROM tasks WHERE tenant_id = {k} GROUP BY 1) SELECT {p}, u.email, b.n FROM busy b JOIN users u ON u.user_id = b.assignee_id AND u.tenant_id = {k} ORDER BY u.user_id",
    "SELECT {p}, x.n FROM (SELECT count(*) AS n FROM comments WHERE tenant_id = {k}) AS x WHERE x.n >= 0",
    "SELECT {p}, task_id, row_number() OVER (PARTITION BY state ORDER BY hours, task_id) FROM tasks WHERE tenant_id = {k} ORDER BY 2 LIMIT {b}",
    "SELECT {p}, 'task' AS what, count(*) FROM tasks WHERE tenant_id = {k} UNION ALL SELECT {p}, 'user', count(*) FROM users WHERE tenant_id = {k} ORDER BY 2",
    "SELECT DISTINCT ON (state) {p}, state, title FROM tasks WHERE tenant_id = {k} ORDER BY state, task_id DESC",
    "SELECT {p}, pl.title, pl.seats_max FROM tenants te JOIN plans pl USING (plan_code) WHERE te.tenant_id = {k}",
    "SELECT {p}, te.name, (SELECT count(*) FROM users u WHERE u.tenant_id = te.tenant_id AND u.active) FROM tenants te WHERE te.tenant_id = {k}",
    "SELECT {p}, settings ->> 'colour', settings -> 'private', settings @> '{\"private\": true}' FROM projects WHERE tenant_id = {k} ORDER BY project_id",
    "SELECT {p}, c.body, l.title FROM comments c, LATERAL (SELECT title FROM tasks t WHERE t.tenant_id = c.tenant_id AND t.task_id = c.task_id) l WHERE c.tenant_id = {k} ORDER BY c.comment_id LIMIT {b}",
    "select {p}, \"name\" /* not tenant_id = 1 */ from \"tenants\" -- ; select 1\n where \"tenant_id\" = {k}",
    "SELECT {p}, E'it\\'s', $q$tenant_id = 3$q$, U&'d\\0061t' FROM tenants WHERE name <> 'tenant_id = 2; --' AND tenant_id = {k}",
    "SELECT {p}, CASE WHEN hours BETWEEN {a} AND {b} THEN 'some' ELSE state END, created_at::date FROM tasks WHERE tenant_id = {k} AND state IN ('open', 'doing') ORDER BY task_id FETCH FIRST 3 ROWS ONLY",
    "SELECT {p}, string_agg(full_name, ', ' ORDER BY user_id) FROM users WHERE (tenant_id = {k}) AND (active OR email LIKE '%1@%')",
    "SELECT {p}, a.task_id, b.task_id FROM tasks a JOIN tasks b ON a.tenant_id = b.tenant_id AND a.project_id = b.project_id AND a.task_id < b.task_id WHERE b.tenant_id = {k} ORDER BY 2, 3 LIMIT {b}",
    "SELECT {p}, count(*) FROM tasks t WHERE t.tenant_id = {k} HAVING count(*) > {a}",
    "TABLE plans ORDER BY plan_code",
];

/// Writes; each runs in a transaction that is rolled back.
const WRITES: &[&str] = &[
    "UPDATE tasks SET hours = hours + {a}, state = 'done' WHERE tenant_id = {k} AND state = 'doing' RETURNING {p}, task_id, hours",
    "DELETE FROM comments WHERE tenant_id = {k} AND comment_id % 3 = 0 RETURNING {p}, comment_id",
    "INSERT INTO notes (id, tenant_id, body) VALUES ({a}, {k}, 'x'), ({a} + 100, {k}, 'y') RETURNING {p}, id, body",
    "INSERT INTO notes (tenant_id, id, body) VALUES ({k}, {b}, 'x') ON CONFLICT (tenant_id, id) DO UPDATE SET body = excluded.body RETURNING {p}, body",
    "UPDATE tasks t SET title = p.name FROM projects p WHERE p.tenant_id = t.tenant_id AND p.project_id = t.project_id AND t.tenant_id = {k} AND t.hours > {a} RETURNING {p}, t.task_id, t.title",
    "WITH gone AS (DELETE FROM comments WHERE tenant_id = {k} AND comment_id % 2 = 0 RETURNING comment_id) SELECT {p}, count(*) FROM gone",
    "DELETE FROM comments c USING tasks t WHERE t.tenant_id = c.tenant_id AND t.task_id = c.task_id AND c.tenant_id = {k} AND t.state = 'done' RETURNING {p}, c.comment_id",
    "SELECT {p}, task_id FROM tasks WHERE tenant_id = {k} ORDER BY task_id LIMIT {b} FOR UPDATE",
    "UPDATE users SET email = 'same@example' WHERE tenant_id = {k}",
    "INSERT INTO notes (tenant_id, id) VALUES ({k}, NULL)",
];

#[test]
fn generated_statements_of_one_tenant_equal_the_owning_shards() {
    let world = world();
    let seed = std::env::var("KEYWAY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_124);
    println!("KEYWAY_SEED={seed}");
    let mut random = Random(seed);
    let router = Client::connect(&world.router.url());
    let shards = [1, 2].map(|s| Client::connect(&world.cluster.primary(s).url));
    for number in 0..STATEMENTS {
        let tenant = i64::try_from(1 + random.below(300)).unwrap();
        let owner = world.shard_of(tenant);
        let write = number % 4 == 0;
        let template = *random.pick(if write { WRITES } else { READS });
        let sql = fill(template, tenant, &mut random);
        let direct = &shards[usize::from(owner) - 1];
        let (ours, theirs) = if write {
            (rolled_back(&router, &sql), rolled_back(direct, &sql))
        } else {
            (router.text(&sql), direct.text(&sql))
        };
        let told = |e: Refusal| (e.state, e.message);
        assert_eq!(ours.map_err(told), theirs.map_err(told), "seed {seed}, {number}: {sql}");
        if template.contains("{k}") {
            let explained = explain(&world.map, sql.as_bytes(), None);
            assert_eq!(explained.shards, [format!("shard{owner}")], "{sql}");
        }
    }
    world.audit();
}

fn rolled_back(client: &Client, sql: &str) -> Result<String, Refusal> {
    client.run("BEGIN");
    let said = client.text(sql);
    client.run("ROLLBACK");
    said
}

fn fill(template: &str, tenant: i64, random: &mut Random) -> String {
    let mut sql = String::new();
    let mut parts = template.split("{k}");
    sql += parts.next().unwrap_or_default();
    for part in parts {
        sql += &match random.below(6) {
            0 => format!("'{tenant}'"),
            1 => format!("{tenant}::bigint"),
            2 => format!("CAST({tenant} AS int8)"),
            3 => format!("({tenant})"),
            4 => format!("'{tenant}'::int"),
            _ => tenant.to_string(),
        };
        sql += part;
    }
    let (a, b) = (random.below(12), 1 + random.below(9));
    sql.replace("{a}", &a.to_string())
        .replace("{b}", &b.to_string())
        .replace("{p}", "current_setting('port')")
}

#[test]
fn rows_of_every_key_type_are_where_the_database_says() {
    let world = world();
    let router = Client::connect(&world.router.url());
    let mut random = Random(7);
    for key_type in KEY_TYPES {
        for prefix in ["by", "part"] {
            let table = format!("{prefix}_{key_type}");
            let mut shards_seen = [false; 2];
            for n in 0..40_i32 {
                let key = key(key_type, n, &mut random);
                write_and_read(world, &router, &table, &key, n);
                let explained = explain(
                    &world.map,
                    format!("SELECT n FROM {table} WHERE k = {key}").as_bytes(),
                    None,
                );
                shards_seen[usize::from(explained.shards == ["shard2"])] = true;
            }
            assert_eq!(shards_seen, [true; 2], "{table} has rows on both shards");
        }
    }
    world.audit();
}

/// One key's life: rows inserted, changed, read back through the router and
/// from its shard, and one of them deleted.
fn write_and_read(world: &World, router: &Client, table: &str, key: &str, n: i32) {
    router.run(&format!(
        "INSERT INTO {table} (n, k, note) VALUES ({n}, {key}, 'a'), ({n} + 1000, {key}, 'b')"
    ));
    router.run(&format!("UPDATE {table} SET note = note || '!' WHERE k = {key} AND n = {n}"));
    router.run(&format!("DELETE FROM {table} WHERE {key} = k AND n = {n} + 1000"));
    let read =
        format!("SELECT current_setting('port'), note FROM {table} WHERE k = {key} AND n = {n}");
    let said = router.value(&read);
    let explained = explain(&world.map, read.as_bytes(), None);
    let number = world.map.shard_named(&explained.shards[0]).unwrap().id.number();
    assert_eq!(said, format!("{}|a!", world.cluster.primary(number).port), "{read}");
}

/// A key of this type as SQL writes it.
fn key(key_type: &str, n: i32, random: &mut Random) -> String {
    let number = random.next();
    match key_type {
        "int2" => (n * 37 - 500).to_string(),
        "int4" => (i64::from(n) * 7_919_993 - 150_000_000).to_string(),
        "int8" => (number.cast_signed() >> 3).to_string(),
        "uuid" => {
            let uuid = format!("{number:016x}{:016x}", random.next());
            match n % 3 {
                0 => format!("'{{{}}}'", uuid.to_uppercase()),
                1 => format!("'{}-{}'::uuid", &uuid[..16], &uuid[16..]),
                _ => format!("'{uuid}'"),
            }
        }
        _ => match n % 4 {
            0 => format!("'it''s {n}'"),
            1 => format!("E'caf\\u00e9 {n}'"),
            2 => format!("$${number}$$"),
            _ => format!("'schlüssel {n}'::text"),
        },
    }
}
