//! tokio-postgres and deadpool-postgres: binary by default, pipelined, pooled.

use std::error::Error;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// What a check saw, in words that must be the same both ways, or why it failed.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) seen: Result<Vec<String>, String>,
}

type Outcome = Result<Vec<String>, Box<dyn Error + Send + Sync>>;
type Run = fn(String) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// Runs every check against one database, in order.
pub(crate) fn run_all(url: &str) -> Vec<Check> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let mut done = Vec::new();
    for (name, run) in CHECKS {
        let outcome = local.block_on(&runtime, async {
            tokio::time::timeout(Duration::from_secs(12), run(url.to_owned())).await
        });
        let seen = match outcome {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(error)) => Err(words(error.as_ref())),
            Err(_) => Err("still running after 12 s".to_owned()),
        };
        done.push(Check { name, seen });
    }
    done
}

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |url| Box::pin($name(url)))),*]
    };
}

const CHECKS: &[(&str, Run)] = checks![
    connection_tells_the_same,
    values_go_in_binary,
    queries_are_pipelined,
    errors_in_a_pipeline_stay_with_their_query,
    statements_by_the_hundreds,
    statement_survives_ddl,
    transactions_and_savepoints,
    portals_with_row_limits,
    copy_both_ways,
    copy_that_fails,
    cancel_hits_the_running_statement_only,
    settings_follow_the_client_only,
    notices_and_notifications,
    several_statements_in_one_query,
    large_results_and_parameters,
    slow_reader_holds_up_nobody,
    pool_with_more_clients_than_backends,
    pool_that_cleans_its_connections,
    client_gone_in_a_transaction_leaves_nothing,
];

async fn connection_tells_the_same(url: String) -> Outcome {
    let mut seen = Vec::new();
    let config = url.parse::<tokio_postgres::Config>()?.application_name("driver rust").clone();
    let (client, connection) = config.connect(NoTls).await?;
    for name in PARAMETERS {
        seen.push(format!("{name}={:?}", connection.parameter(name)));
    }
    drive(connection);
    let row = client.query_one("select current_user::text, version()", &[]).await?;
    seen.push(format!("{} {}", row.get::<_, String>(0), row.get::<_, String>(1)));
    Ok(seen)
}

async fn values_go_in_binary(url: String) -> Outcome {
    let client = connect(&url).await?;
    let text = "select $1::int2, $2::int4, $3::int8, $4::float8, $5::bool, $6::text, $7::bytea, \
                $8::int4[], $9::varchar";
    let bytes: &[u8] = &[0, 255];
    let row = client
        .query_one(
            text,
            &[
                &-3_i16,
                &7_i32,
                &(1_i64 << 40),
                &1.5_f64,
                &true,
                &"ä€",
                &bytes,
                &vec![1, 2],
                &None::<&str>,
            ],
        )
        .await?;
    let all = (
        (row.get::<_, i16>(0), row.get::<_, i32>(1), row.get::<_, i64>(2), row.get::<_, f64>(3)),
        (row.get::<_, bool>(4), row.get::<_, String>(5), row.get::<_, Vec<u8>>(6)),
        (row.get::<_, Vec<i32>>(7), row.get::<_, Option<String>>(8)),
    );
    let typed = client
        .query_typed("select $1 || 'x', $2 + 1", &[(&"a", Type::TEXT), (&1_i64, Type::INT8)])
        .await?;
    Ok(vec![format!("{all:?}"), format!("{typed:?}")])
}

async fn queries_are_pipelined(url: String) -> Outcome {
    let client = connect(&url).await?;
    let statement = client.prepare("select $1::int4 * 2").await?;
    let mut queries = Vec::new();
    for n in 0..300_i32 {
        let (client, statement) = (&client, &statement);
        queries.push(async move {
            client.query_one(statement, &[&n]).await.map(|r| r.get::<_, i32>(0))
        });
    }
    let values: Vec<i32> = join_all(queries).await.into_iter().collect::<Result<_, _>>()?;
    equal(&values, &(0..300).map(|n| n * 2).collect::<Vec<_>>())?;
    Ok(Vec::new())
}

async fn errors_in_a_pipeline_stay_with_their_query(url: String) -> Outcome {
    let client = connect(&url).await?;
    let statement = client.prepare("select 100 / $1::int4").await?;
    let values: Vec<i32> = vec![1, 0, 2, 0, 0, 5];
    let answers = join_all(values.iter().map(|n| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[n]).await }
    }))
    .await;
    Ok(answers
        .into_iter()
        .map(|a| match a {
            Ok(row) => row.get::<_, i32>(0).to_string(),
            Err(error) => format!("{:?}", error.code()),
        })
        .collect())
}

async fn statements_by_the_hundreds(url: String) -> Outcome {
    let (a, b) = (connect(&url).await?, connect(&url).await?);
    let mut kept = Vec::new();
    for n in 0..250_i32 {
        kept.push((
            a.prepare(&format!("select {n} + $1::int4")).await?,
            b.prepare(&format!("select {n} - $1::int4")).await?,
        ));
    }
    for (n, (of_a, of_b)) in (0..250_i32).zip(&kept).rev() {
        equal(&a.query_one(of_a, &[&1]).await?.get::<_, i32>(0), &(n + 1))?;
        equal(&b.query_one(of_b, &[&1]).await?.get::<_, i32>(0), &(n - 1))?;
    }
    drop(kept.split_off(100));
    equal(&a.query_one(&kept[99].0, &[&1]).await?.get::<_, i32>(0), &100)?;
    let count = a.query_one("select count(*) from pg_prepared_statements", &[]).await?;
    // The 100 kept and the one that counts.
    let statement = a.prepare("select $1::int4, $2::text, 1::numeric").await?;
    Ok(vec![
        count.get::<_, i64>(0).to_string(),
        format!("{:?} {:?}", statement.params(), statement.columns()),
    ])
}

async fn statement_survives_ddl(url: String) -> Outcome {
    let (a, b) = (connect(&url).await?, connect(&url).await?);
    b.batch_execute(
        "drop table if exists d_rust_ddl; create table d_rust_ddl (a int4); insert into d_rust_ddl values (1)",
    )
    .await?;
    let star = a.prepare("select * from d_rust_ddl").await?;
    equal(&a.query_one(&star, &[]).await?.len(), &1)?;
    b.batch_execute("alter table d_rust_ddl add b int4 default 2").await?;
    // Postgres refuses the old plan; a router may prepare it again.
    match a.query_one(&star, &[]).await {
        Ok(_) => {}
        Err(error) => equal(&error.code().map(|c| c.code()), &Some("0A000"))?,
    }
    equal(&a.query_one("select * from d_rust_ddl", &[]).await?.len(), &2)?;
    b.batch_execute("drop table d_rust_ddl").await?;
    Ok(Vec::new())
}

async fn transactions_and_savepoints(url: String) -> Outcome {
    let (mut a, b) = (connect(&url).await?, connect(&url).await?);
    a.batch_execute("drop table if exists d_rust_tx; create table d_rust_tx (id int4 primary key)")
        .await?;
    let mut seen = Vec::new();
    let mut transaction = a.transaction().await?;
    transaction.execute("insert into d_rust_tx values ($1)", &[&1]).await?;
    equal(&b.query("select * from d_rust_tx", &[]).await?.len(), &0)?;
    {
        let savepoint = transaction.savepoint("s").await?;
        seen.push(state(savepoint.execute("insert into d_rust_tx values ($1)", &[&1]).await));
        seen.push(state(savepoint.execute("select 1", &[]).await));
        savepoint.rollback().await?;
    }
    transaction.execute("insert into d_rust_tx values ($1)", &[&2]).await?;
    transaction.commit().await?;
    {
        let transaction = a.transaction().await?;
        transaction.execute("insert into d_rust_tx values ($1)", &[&3]).await?;
        // Dropped: the driver sends ROLLBACK.
    }
    let transaction = a.build_transaction().read_only(true).deferrable(true).start().await?;
    seen.push(state(transaction.execute("insert into d_rust_tx values ($1)", &[&4]).await));
    transaction.rollback().await?;
    let rows = b.query("select id from d_rust_tx order by id", &[]).await?;
    seen.push(format!("{:?}", rows.iter().map(|r| r.get::<_, i32>(0)).collect::<Vec<_>>()));
    a.batch_execute("drop table d_rust_tx").await?;
    Ok(seen)
}

async fn portals_with_row_limits(url: String) -> Outcome {
    let (mut a, b) = (connect(&url).await?, connect(&url).await?);
    let transaction = a.transaction().await?;
    let portal = transaction.bind("select n from generate_series(1, $1::int4) n", &[&10]).await?;
    let mut seen = Vec::new();
    for limit in [3, 4, 0, 1] {
        let rows = transaction.query_portal(&portal, limit).await?;
        seen.push(format!("{:?}", rows.iter().map(|r| r.get::<_, i32>(0)).collect::<Vec<_>>()));
        b.simple_query("select 1").await?;
    }
    let streamed = transaction.query_portal_raw(&portal, 1).await?;
    seen.push(pin!(streamed).try_collect::<Vec<_>>().await?.len().to_string());
    transaction.commit().await?;
    Ok(seen)
}

async fn copy_both_ways(url: String) -> Outcome {
    let client = connect(&url).await?;
    client.batch_execute("drop table if exists d_rust_copy; create table d_rust_copy (id int4 primary key, t text)").await?;
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>("copy d_rust_copy from stdin").await?);
    for n in 0..20_000 {
        sink.feed(format!("{n}\trow {n}\n").into()).await?;
    }
    let mut seen = vec![sink.finish().await?.to_string()];
    let sink = client.copy_in("copy d_rust_copy from stdin (format binary)").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for n in 20_000..20_050_i32 {
        writer.as_mut().write(&[&n, &"binary"]).await?;
    }
    seen.push(writer.finish().await?.to_string());
    let out = client.copy_out("copy (select * from d_rust_copy order by id) to stdout").await?;
    seen.push(out.try_fold(0, |n, b| async move { Ok(n + b.len()) }).await?.to_string());
    let out = client.copy_out("copy d_rust_copy to stdout (format binary)").await?;
    let rows = BinaryCopyOutStream::new(out, &[Type::INT4, Type::TEXT]);
    let total =
        rows.try_fold(0_i64, |n, row| async move { Ok(n + i64::from(row.get::<i32>(0))) }).await?;
    equal(&total, &(0..20_050_i64).sum())?;
    client.batch_execute("drop table d_rust_copy").await?;
    Ok(seen)
}

async fn copy_that_fails(url: String) -> Outcome {
    let client = connect(&url).await?;
    client.batch_execute("drop table if exists d_rust_copy; create table d_rust_copy (id int4 primary key, t text)").await?;
    let mut seen = Vec::new();
    {
        // Dropped before its end: the driver sends CopyFail.
        let mut sink =
            pin!(client.copy_in::<_, bytes::Bytes>("copy d_rust_copy from stdin").await?);
        sink.send("1\tx\n".into()).await?;
    }
    seen.push(format!("{} rows", client.query("select * from d_rust_copy", &[]).await?.len()));
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>("copy d_rust_copy from stdin").await?);
    let mut sent = Ok(());
    for n in 0..5_000 {
        let line = if n == 50 { "not a number\tx\n".to_owned() } else { format!("{n}\tx\n") };
        sent = sink.send(line.into()).await;
        if sent.is_err() {
            break;
        }
    }
    let ended = match sent {
        Ok(()) => sink.finish().await.map(|_| ()),
        Err(error) => Err(error),
    };
    seen.push(state(ended));
    {
        // Not read to its end: the driver drains it.
        let mut out = pin!(
            client
                .copy_out("copy (select repeat('x', 100) from generate_series(1, 20000)) to stdout")
                .await?
        );
        out.next().await.ok_or("no data")??;
    }
    seen.push(format!("{} rows", client.query("select * from d_rust_copy", &[]).await?.len()));
    client.batch_execute("drop table d_rust_copy").await?;
    Ok(seen)
}

async fn cancel_hits_the_running_statement_only(url: String) -> Outcome {
    let (a, b) = (connect(&url).await?, connect(&url).await?);
    let token = a.cancel_token();
    let canceller = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel_query(NoTls).await
    };
    let (slept, cancelled) = tokio::join!(a.query("select pg_sleep(20)", &[]), canceller);
    cancelled?;
    let mut seen = vec![state(slept)];
    let late = async {
        for _ in 0..5 {
            token.cancel_query(NoTls).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    let (other, late) = tokio::join!(b.query("select 1 from pg_sleep(0.5)", &[]), late);
    late?;
    seen.push(state(other));
    // A late cancel may still meet this session's own next statement.
    let _ = a.query("select 1", &[]).await;
    seen.push(state(a.query("select 1", &[]).await));
    Ok(seen)
}

async fn settings_follow_the_client_only(url: String) -> Outcome {
    let (mut a, b) = (connect(&url).await?, connect(&url).await?);
    const ALL: &str = "select current_setting('timezone'), current_setting('search_path'), \
                       (current_user = session_user)::text, coalesce(current_setting('my.own', true), '')";
    let before = strings(&b, ALL).await?;
    a.batch_execute("set timezone = 'Asia/Tokyo'; set search_path = pg_catalog; set my.own = 'x'")
        .await?;
    a.batch_execute("set role d_role_one").await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(format!("{:?}", strings(&a, ALL).await?));
        equal(&strings(&b, ALL).await?, &before)?;
    }
    {
        let transaction = a.transaction().await?;
        transaction.batch_execute("set timezone = 'UTC'; set local my.own = 'y'").await?;
    }
    seen.push(format!("{:?}", strings(&a, ALL).await?));
    a.batch_execute("reset role; reset all").await?;
    seen.push(format!("{}", strings(&a, ALL).await? == before));
    Ok(seen)
}

async fn notices_and_notifications(url: String) -> Outcome {
    let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await?;
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            let words = match message {
                AsyncMessage::Notice(n) => format!("{} {}", n.code().code(), n.message()),
                AsyncMessage::Notification(n) => format!("{} {}", n.channel(), n.payload()),
                _ => "something new".to_owned(),
            };
            if heard.send(words).is_err() {
                break;
            }
        }
    });
    let other = connect(&url).await?;
    client
        .batch_execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$; listen d_rust")
        .await?;
    other.execute("select pg_notify('d_rust', $1)", &[&"three"]).await?;
    client.batch_execute("notify d_rust, 'four'").await?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let words = tokio::time::timeout(Duration::from_secs(5), hear.recv()).await?;
        seen.push(words.ok_or("the connection ended")?);
    }
    client.batch_execute("unlisten *").await?;
    Ok(seen)
}

async fn several_statements_in_one_query(url: String) -> Outcome {
    let client = connect(&url).await?;
    let mut seen = Vec::new();
    for text in
        ["select 1; select 2, 3; select 4 where false", "", ";", "select 1; select 1/0; select 2"]
    {
        seen.push(match client.simple_query(text).await {
            Ok(messages) => messages.iter().map(simple_words).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{:?}", error.code()),
        });
    }
    client
        .batch_execute("drop table if exists d_rust_multi; create table d_rust_multi (a int4)")
        .await?;
    seen.push(state(client.batch_execute("insert into d_rust_multi values (1); select 1/0").await));
    seen.push(client.query("select * from d_rust_multi", &[]).await?.len().to_string());
    seen.push(state(client.query("select 1; select 2", &[]).await));
    seen.push(client.query("", &[]).await?.len().to_string());
    client.batch_execute("drop table d_rust_multi").await?;
    Ok(seen)
}

async fn large_results_and_parameters(url: String) -> Outcome {
    let client = connect(&url).await?;
    let rows =
        client.query("select n, md5(n::text) from generate_series(1, 100000) n", &[]).await?;
    equal(&rows.len(), &100_000)?;
    equal(&rows[99_999].get::<_, i32>(0), &100_000)?;
    let blob: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let row = client.query_one("select $1::bytea", &[&blob]).await?;
    equal(&(row.get::<_, &[u8]>(0) == blob), &true)?;
    Ok(Vec::new())
}

async fn slow_reader_holds_up_nobody(url: String) -> Outcome {
    let (a, b) = (connect(&url).await?, connect(&url).await?);
    let none: &[i32] = &[];
    let text = "select n, repeat('x', 200) from generate_series(1, 100000) n";
    let mut rows = pin!(a.query_raw(text, none).await?);
    let mut count = 0_i32;
    while let Some(row) = rows.next().await {
        count += 1;
        equal(&row?.get::<_, i32>(0), &count)?;
        if count % 20_000 == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            b.simple_query("select 1").await?;
        }
    }
    equal(&count, &100_000)?;
    Ok(Vec::new())
}

async fn pool_with_more_clients_than_backends(url: String) -> Outcome {
    let pool = pool(&url, RecyclingMethod::Fast)?;
    pool.get()
        .await?
        .batch_execute(
            "drop table if exists d_rust_pool; create table d_rust_pool (worker int4, turn int4)",
        )
        .await?;
    let workers = (0..60_i32).map(|worker| {
        let pool = pool.clone();
        async move {
            for turn in 0..10_i32 {
                let mut client = pool.get().await?;
                let transaction = client.transaction().await?;
                let insert =
                    transaction.prepare_cached("insert into d_rust_pool values ($1, $2)").await?;
                transaction.execute(&insert, &[&worker, &turn]).await?;
                let max = transaction
                    .prepare_cached("select max(turn) from d_rust_pool where worker = $1")
                    .await?;
                equal(&transaction.query_one(&max, &[&worker]).await?.get::<_, i32>(0), &turn)?;
                transaction.commit().await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        }
    });
    join_all(workers).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let client = pool.get().await?;
    let row =
        client.query_one("select count(*), count(distinct worker) from d_rust_pool", &[]).await?;
    client.batch_execute("drop table d_rust_pool").await?;
    Ok(vec![format!("{} {}", row.get::<_, i64>(0), row.get::<_, i64>(1))])
}

async fn pool_that_cleans_its_connections(url: String) -> Outcome {
    let pool = pool(&url, RecyclingMethod::Clean)?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let client = pool.get().await?;
        seen.push(format!("{:?}", strings(&client, "select coalesce(current_setting('my.pooled', true), ''), current_setting('timezone')").await?));
        client.batch_execute("set my.pooled = 'dirty'; set timezone = 'Asia/Tokyo'; create temp table d_rust_temp (a int4); select pg_advisory_lock(44001)").await?;
    }
    drop(pool.get().await?);
    Ok(seen)
}

async fn client_gone_in_a_transaction_leaves_nothing(url: String) -> Outcome {
    let other = connect(&url).await?;
    other
        .batch_execute("drop table if exists d_rust_gone; create table d_rust_gone (a int4)")
        .await?;
    for _ in 0..3 {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        let driven = tokio::task::spawn_local(connection);
        client.batch_execute("begin; insert into d_rust_gone values (1)").await?;
        driven.abort();
    }
    for _ in 0..100 {
        let locks = other
            .query("select 1 from pg_locks where relation = 'd_rust_gone'::regclass", &[])
            .await?;
        if locks.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let count = other.query("select * from d_rust_gone", &[]).await?.len();
    other.batch_execute("drop table d_rust_gone").await?;
    Ok(vec![count.to_string()])
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    drive(connection);
    Ok(client)
}

fn drive<S>(connection: tokio_postgres::Connection<tokio_postgres::Socket, S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    tokio::task::spawn_local(async move {
        // Its end is seen by the client's next call.
        let _ = connection.await;
    });
}

fn pool(
    url: &str,
    recycling_method: RecyclingMethod,
) -> Result<Pool, Box<dyn Error + Send + Sync>> {
    let manager = Manager::from_config(url.parse()?, NoTls, ManagerConfig { recycling_method });
    Ok(Pool::builder(manager).max_size(40).build()?)
}

async fn strings(client: &Client, text: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let row = client.query_one(text, &[]).await?;
    (0..row.len()).map(|n| row.try_get(n)).collect()
}

/// `ok`, or the SQLSTATE of the error.
fn state<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |c| c.code().to_owned()),
    }
}

fn simple_words(message: &SimpleQueryMessage) -> String {
    match message {
        SimpleQueryMessage::Row(row) => {
            (0..row.len()).map(|n| row.get(n).unwrap_or("null")).collect::<Vec<_>>().join("|")
        }
        SimpleQueryMessage::CommandComplete(rows) => format!("done:{rows}"),
        SimpleQueryMessage::RowDescription(columns) => format!("{} columns", columns.len()),
        _ => "something new".to_owned(),
    }
}

fn equal<T: PartialEq + Debug>(got: &T, wanted: &T) -> Result<(), Box<dyn Error + Send + Sync>> {
    if got == wanted { Ok(()) } else { Err(format!("got {got:?}, expected {wanted:?}").into()) }
}

/// An error with its causes, on one line.
fn words(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        out = format!("{out}: {next}");
        cause = next.source();
    }
    out
}

const PARAMETERS: &[&str] = &[
    "server_version",
    "server_encoding",
    "client_encoding",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
    "application_name",
    "default_transaction_read_only",
    "in_hot_standby",
];
