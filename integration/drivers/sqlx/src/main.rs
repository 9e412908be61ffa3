//! sqlx as applications use it: its migrator, its pool and cache of prepared
//! statements, streams, transactions, COPY and LISTEN. Prints `ok name`,
//! `FAIL name: why` and `see name: value`.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgAdvisoryLock, PgListener, PgPool, PgPoolOptions};
use sqlx::types::{Json, Uuid};
use sqlx::{Column, Connection, Executor, PgConnection, Row, SqlSafeStr, Statement, TypeInfo};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
const TENANTS: std::ops::Range<i64> = 1..9;

/// Id, name, budget, tags, details and ref.
type Project = (i64, String, Option<f64>, Vec<Option<String>>, Json<Vec<i32>>, Uuid);

struct World {
    url: String,
    pool: PgPool,
    sharded: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(20))
        .test_before_acquire(true)
        .connect(&url)
        .await
        .unwrap();
    let world = World { url, pool, sharded: std::env::var_os("KEYWAY_TEST_SHARDED").is_some() };
    let mut failed = false;
    macro_rules! check {
        ($($name:ident),* $(,)?) => { $(
            let done = tokio::time::timeout(Duration::from_secs(40), $name(&world)).await;
            let done = done.unwrap_or_else(|_| Err("still running after 40 s".into()));
            match done {
                Ok(()) => println!("ok {}", stringify!($name)),
                Err(error) => {
                    failed = true;
                    println!("FAIL {}: {}", stringify!($name), error.to_string().replace('\n', " "));
                }
            }
        )* };
    }
    check!(
        migrations_run_and_run_again,
        rows_of_every_type,
        cached_statements_serve_every_tenant,
        statements_are_described,
        transactions_and_savepoints,
        streams_are_read_in_parts,
        many_tasks_share_the_pool,
        reads_over_many_tenants,
        statement_after_a_schema_change,
        rows_by_many,
    );
    if !world.sharded {
        check!(copy_both_ways, notifications_arrive, locks_of_the_application);
    }
    std::process::exit(i32::from(failed));
}

fn see(check: &str, value: impl Debug) {
    println!("see {check}: {value:?}");
}

fn equal<T: PartialEq + Debug>(got: T, wanted: T) -> Outcome {
    if got == wanted { Ok(()) } else { Err(format!("is {got:?}, expected {wanted:?}").into()) }
}

fn state<T>(result: Result<T, sqlx::Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error
            .as_database_error()
            .and_then(|error| error.code())
            .map_or_else(|| error.to_string(), |code| code.into_owned()),
    }
}

async fn migrations_run_and_run_again(world: &World) -> Outcome {
    for sql in [
        "DROP SCHEMA IF EXISTS sx CASCADE",
        "CREATE SCHEMA sx",
        "CREATE TABLE sx.plans (code text PRIMARY KEY)",
        "DROP TABLE IF EXISTS _sqlx_migrations",
    ] {
        sqlx::query(sql).execute(&world.pool).await?;
    }
    let mut migrator = Migrator::new(std::path::Path::new(MIGRATIONS)).await?;
    // Its lock is a session's, which a sharded database does not give.
    migrator.set_locking(!world.sharded);
    migrator.run(&world.pool).await?;
    migrator.run(&world.pool).await?;
    let done: Vec<(i64, bool)> =
        sqlx::query_as("SELECT version, success FROM _sqlx_migrations ORDER BY 1").fetch_all(&world.pool).await?;
    see("migrations_run_and_run_again", done);
    Ok(())
}

async fn rows_of_every_type(world: &World) -> Outcome {
    for tenant in TENANTS {
        let insert = "INSERT INTO sx.projects (tenant_id, id, name, budget, tags, details, ref) \
                      VALUES ($1, 1, $2, $3, $4, $5, $6) RETURNING id, name, budget, tags, details, ref";
        let project: Project = sqlx::query_as(insert)
            .bind(tenant)
            .bind(format!("project {tenant}"))
            .bind(10.5_f64)
            .bind([Some("a"), None, Some("b,\"c")])
            .bind(Json(vec![1, 2]))
            .bind(Uuid::from_u128(42))
            .fetch_one(&world.pool)
            .await?;
        see("rows_of_every_type", project);
    }
    Ok(())
}

async fn cached_statements_serve_every_tenant(world: &World) -> Outcome {
    for _ in 0..3 {
        for tenant in TENANTS {
            let name: String = sqlx::query_scalar("SELECT name FROM sx.projects WHERE tenant_id = $1 AND id = $2")
                .bind(tenant)
                .bind(1_i64)
                .fetch_one(&world.pool)
                .await?;
            equal(name, format!("project {tenant}"))?;
            let once = sqlx::query("SELECT name FROM sx.projects WHERE tenant_id = $1")
                .persistent(false)
                .bind(tenant)
                .fetch_all(&world.pool)
                .await?;
            equal(once.len(), 1)?;
            let simple = sqlx::AssertSqlSafe(format!("SELECT 1; SELECT name FROM sx.projects WHERE tenant_id = {tenant}"));
            if !world.sharded {
                equal(sqlx::raw_sql(simple).fetch_all(&world.pool).await?.len(), 2)?;
            }
        }
    }
    // More statements than the connection's cache has places.
    let mut one = PgConnection::connect(&world.url).await?;
    for n in 0..130 {
        let sql = format!("SELECT name, {n} FROM sx.projects WHERE tenant_id = $1");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(1 + n % 8).fetch_one(&mut one).await?;
    }
    one.clear_cached_statements().await?;
    one.ping().await?;
    one.close().await?;
    Ok(())
}

async fn statements_are_described(world: &World) -> Outcome {
    let mut one = world.pool.acquire().await?;
    for sql in [
        "SELECT * FROM sx.projects WHERE tenant_id = $1",
        "INSERT INTO sx.tasks (tenant_id, id, project_id) VALUES ($1, $2, $3) RETURNING *",
        "SELECT p.name, count(*) FROM sx.projects p JOIN sx.tasks t USING (tenant_id) WHERE tenant_id = $1 GROUP BY 1",
        "SELECT typname FROM pg_type WHERE oid = $1",
    ] {
        let statement = (&mut *one).prepare(sqlx::AssertSqlSafe(sql).into_sql_str()).await?;
        let columns: Vec<_> =
            statement.columns().iter().map(|c| (c.name().to_owned(), c.type_info().name().to_owned())).collect();
        see("statements_are_described", (statement.parameters().map(|p| format!("{p:?}").len() > 0), columns));
    }
    let error = (&mut *one).prepare(sqlx::SqlStr::from_static("SELECT nothing FROM sx.projects WHERE tenant_id = $1")).await;
    see("statements_are_described", state(error));
    Ok(())
}

async fn transactions_and_savepoints(world: &World) -> Outcome {
    for tenant in TENANTS {
        let mut tx = world.pool.begin().await?;
        sqlx::query("UPDATE sx.projects SET name = 'lost' WHERE tenant_id = $1").bind(tenant).execute(&mut *tx).await?;
        let mut inner = tx.begin().await?;
        let twice = sqlx::query("INSERT INTO sx.projects (tenant_id, id, name) VALUES ($1, 1, 'twice')").bind(tenant);
        equal(state(twice.execute(&mut *inner).await), "23505".to_owned())?;
        equal(state(sqlx::query("SELECT 1").execute(&mut *inner).await), "25P02".to_owned())?;
        inner.rollback().await?;
        let read = "SELECT name FROM sx.projects WHERE tenant_id = $1 FOR UPDATE";
        equal(sqlx::query_scalar::<_, String>(read).bind(tenant).fetch_one(&mut *tx).await?, "lost".to_owned())?;
        // Dropped without an end: rolled back before its connection's next use.
        drop(tx);
        equal(sqlx::query_scalar::<_, String>(read).bind(tenant).fetch_one(&world.pool).await?, format!("project {tenant}"))?;
        let mut strict = world.pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
        sqlx::query("UPDATE sx.projects SET budget = budget + 1 WHERE tenant_id = $1").bind(tenant).execute(&mut *strict).await?;
        strict.commit().await?;
    }
    Ok(())
}

async fn rows_by_many(world: &World) -> Outcome {
    for tenant in TENANTS {
        let mut insert = sqlx::QueryBuilder::new("INSERT INTO sx.tasks (tenant_id, id, project_id, title) ");
        insert.push_values(0..200_i64, |mut row, n| {
            row.push_bind(tenant).push_bind(n).push_bind(1_i64).push_bind(format!("task {n}"));
        });
        see("rows_by_many", insert.build().execute(&world.pool).await?.rows_affected());
        let ids: Vec<i64> = (0..50).collect();
        let gone = sqlx::query("DELETE FROM sx.tasks WHERE tenant_id = $1 AND id = ANY ($2)").bind(tenant).bind(ids);
        see("rows_by_many", gone.execute(&world.pool).await?.rows_affected());
    }
    Ok(())
}

async fn streams_are_read_in_parts(world: &World) -> Outcome {
    let mut tx = world.pool.begin().await?;
    let sql = "SELECT n FROM generate_series(1, 500) n WHERE $1 > 0";
    let mut rows = sqlx::query_scalar::<_, i32>(sql).bind(1_i64).fetch(&mut *tx);
    let mut sum = 0;
    while let Some(n) = rows.try_next().await? {
        sum += n;
    }
    drop(rows);
    equal(sum, 125_250)?;
    // Left in the middle: the rest is read before the next statement.
    let mut rows = sqlx::query("SELECT n FROM generate_series(1, 5000) n").fetch(&mut *tx);
    rows.try_next().await?;
    drop(rows);
    equal(sqlx::query_scalar::<_, i32>("SELECT 7").fetch_one(&mut *tx).await?, 7)?;
    tx.commit().await?;
    Ok(())
}

async fn many_tasks_share_the_pool(world: &World) -> Outcome {
    let work = |n: i64| async move {
        let tenant = 1 + n % 8;
        let mut tx = world.pool.begin().await?;
        let name: String = sqlx::query_scalar("SELECT name FROM sx.projects WHERE tenant_id = $1").bind(tenant).fetch_one(&mut *tx).await?;
        sqlx::query("UPDATE sx.projects SET name = $2 WHERE tenant_id = $1").bind(tenant).bind(&name).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(name == format!("project {tenant}"))
    };
    let done = try_join_all((0..120).map(work)).await?;
    equal(done.iter().filter(|good| **good).count(), 120)
}

async fn reads_over_many_tenants(world: &World) -> Outcome {
    for _ in 0..3 {
        let some: Vec<(i64, String)> = sqlx::query_as("SELECT tenant_id, name FROM sx.projects ORDER BY tenant_id LIMIT $1")
            .bind(5_i64)
            .fetch_all(&world.pool)
            .await?;
        see("reads_over_many_tenants", some);
        let counts: Vec<(i64, i64)> =
            sqlx::query_as("SELECT tenant_id, count(*) FROM sx.projects GROUP BY tenant_id ORDER BY tenant_id").fetch_all(&world.pool).await?;
        see("reads_over_many_tenants", counts);
        let listed: Vec<i64> = sqlx::query_scalar("SELECT tenant_id FROM sx.projects WHERE tenant_id = ANY ($1) ORDER BY 1")
            .bind(vec![1_i64, 2, 5])
            .fetch_all(&world.pool)
            .await?;
        see("reads_over_many_tenants", listed);
    }
    Ok(())
}

async fn statement_after_a_schema_change(world: &World) -> Outcome {
    let mut one = PgConnection::connect(&world.url).await?;
    let select = "SELECT * FROM sx.projects WHERE tenant_id = $1";
    for _ in 0..2 {
        let row = sqlx::query(select).bind(2_i64).fetch_one(&mut one).await?;
        see("statement_after_a_schema_change", row.len());
        sqlx::query("ALTER TABLE sx.projects ADD COLUMN extra int").execute(&world.pool).await?;
        let again = sqlx::query(select).bind(2_i64).fetch_one(&mut one).await;
        see("statement_after_a_schema_change", state(again));
        one.clear_cached_statements().await?;
        see("statement_after_a_schema_change", sqlx::query(select).bind(2_i64).fetch_one(&mut one).await?.len());
        sqlx::query("ALTER TABLE sx.projects DROP COLUMN extra").execute(&world.pool).await?;
        one.clear_cached_statements().await?;
    }
    Ok(())
}

async fn copy_both_ways(world: &World) -> Outcome {
    let mut one = world.pool.acquire().await?;
    let mut copy = one.copy_in_raw("COPY sx.plans FROM STDIN").await?;
    for n in 0..100 {
        copy.send(format!("plan {n}\n").into_bytes()).await?;
    }
    equal(copy.finish().await?, 100)?;
    let mut copy = one.copy_in_raw("COPY sx.plans FROM STDIN").await?;
    copy.send(b"gone\n".to_vec()).await?;
    copy.abort("no").await?;
    let parts: Vec<_> = one.copy_out_raw("COPY (SELECT code FROM sx.plans ORDER BY 1) TO STDOUT").await?.try_collect().await?;
    see("copy_both_ways", parts.iter().map(|part| part.len()).sum::<usize>());
    Ok(())
}

async fn notifications_arrive(world: &World) -> Outcome {
    let mut listener = PgListener::connect(&world.url).await?;
    listener.listen_all(["sx_news", "sx \"more\""]).await?;
    sqlx::query("SELECT pg_notify($1, $2)").bind("sx \"more\"").bind("hello").execute(&world.pool).await?;
    let heard = listener.recv().await?;
    see("notifications_arrive", (heard.channel(), heard.payload()));
    listener.unlisten_all().await?;
    Ok(())
}

async fn locks_of_the_application(world: &World) -> Outcome {
    let lock = PgAdvisoryLock::new("sx lock");
    let held = lock.acquire(world.pool.acquire().await?).await?;
    let other = PgConnection::connect(&world.url).await?;
    let sqlx::Either::Right(other) = lock.try_acquire(other).await? else {
        return Err("the lock is given twice".into());
    };
    let back = held.release_now().await?;
    drop(back);
    let sqlx::Either::Left(taken) = lock.try_acquire(other).await? else {
        return Err("the lock did not come back".into());
    };
    taken.release_now().await?;
    Ok(())
}
