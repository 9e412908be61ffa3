//! Types that have other numbers (OIDs) on each shard, by drivers that ask the
//! catalogs for a type once and then go by its number: values in binary, both
//! ways, on every shard, over several, and in transactions.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, Row};

use super::support::router::Router;
use super::support::wait_for;
use super::{cluster, psql, router, tenants};

/// A value by its type, whatever that is: what a driver makes of the numbers in
/// descriptions and in values.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Null,
    Label(String),
    Text(String),
    Int(i32),
    Array(Vec<Value>),
    Record(Vec<Value>),
}

type Fault = Box<dyn Error + Sync + Send>;

/// Splits a length and its bytes off; `None` is NULL.
fn sized<'a>(raw: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
    let len = word(raw)?;
    if len == -1 {
        return Ok(None);
    }
    let (value, rest) = raw.split_at_checked(usize::try_from(len)?).ok_or("too short")?;
    *raw = rest;
    Ok(Some(value))
}

fn word(raw: &mut &[u8]) -> Result<i32, Fault> {
    let (head, rest) = raw.split_first_chunk::<4>().ok_or("too short")?;
    *raw = rest;
    Ok(i32::from_be_bytes(*head))
}

fn is_number_of(found: i32, of: &Type) -> Result<(), Fault> {
    let known = i32::try_from(of.oid())?;
    if found == known { Ok(()) } else { Err(format!("OID {found}, not {known} of {of}").into()) }
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(of: &Type, mut raw: &'a [u8]) -> Result<Self, Fault> {
        let inner = |of: &Type, value: Option<&'a [u8]>| {
            value.map_or(Ok(Self::Null), |value| Self::from_sql(of, value))
        };
        match of.kind() {
            Kind::Enum(labels) => {
                let label = std::str::from_utf8(raw)?;
                assert!(labels.iter().any(|one| one == label), "{label} is no {of}");
                Ok(Self::Label(label.to_owned()))
            }
            Kind::Domain(base) => Self::from_sql(base, raw),
            Kind::Array(element) => {
                let (dimensions, _nulls) = (word(&mut raw)?, word(&mut raw)?);
                is_number_of(word(&mut raw)?, element)?;
                let mut count = i32::from(dimensions > 0);
                for _ in 0..dimensions {
                    count *= word(&mut raw)?;
                    word(&mut raw)?;
                }
                let each = (0..count).map(|_| inner(element, sized(&mut raw)?));
                each.collect::<Result<_, _>>().map(Self::Array)
            }
            Kind::Composite(fields) => {
                assert_eq!(word(&mut raw)?, i32::try_from(fields.len())?, "fields of {of}");
                let each = fields.iter().map(|field| {
                    is_number_of(word(&mut raw)?, field.type_())?;
                    inner(field.type_(), sized(&mut raw)?)
                });
                each.collect::<Result<_, _>>().map(Self::Record)
            }
            _ if *of == Type::INT4 => Ok(Self::Int(i32::from_sql(of, raw)?)),
            _ => Ok(Self::Text(std::str::from_utf8(raw)?.to_owned())),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Self, Fault> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Value {
    fn write(&self, of: &Type, out: &mut BytesMut) -> Result<(), Fault> {
        let number = |of: &Type| i32::try_from(of.oid()).map(i32::to_be_bytes);
        match (self, of.kind()) {
            (_, Kind::Domain(base)) => self.write(base, out)?,
            (Self::Label(text) | Self::Text(text), _) => out.extend_from_slice(text.as_bytes()),
            (Self::Int(number), _) => out.extend_from_slice(&number.to_be_bytes()),
            (Self::Array(values), Kind::Array(element)) => {
                let head = [1, 1].map(i32::to_be_bytes).concat();
                out.extend_from_slice(&head);
                out.extend_from_slice(&number(element)?);
                let count = i32::try_from(values.len())?;
                out.extend_from_slice(&[count, 1].map(i32::to_be_bytes).concat());
                values.iter().try_for_each(|value| value.write_sized(element, out))?;
            }
            (Self::Record(values), Kind::Composite(fields)) => {
                out.extend_from_slice(&i32::try_from(values.len())?.to_be_bytes());
                for (value, field) in values.iter().zip(fields) {
                    out.extend_from_slice(&number(field.type_())?);
                    value.write_sized(field.type_(), out)?;
                }
            }
            (value, _) => return Err(format!("{value:?} is no {of}").into()),
        }
        Ok(())
    }

    fn write_sized(&self, of: &Type, out: &mut BytesMut) -> Result<(), Fault> {
        if *self == Self::Null {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(());
        }
        let mut value = BytesMut::new();
        self.write(of, &mut value)?;
        out.extend_from_slice(&i32::try_from(value.len())?.to_be_bytes());
        out.extend_from_slice(&value);
        Ok(())
    }
}

impl ToSql for Value {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        if *self == Self::Null {
            return Ok(IsNull::Yes);
        }
        self.write(of, out)?;
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn label(text: &str) -> Value {
    Value::Label(text.to_owned())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// One row's values, of every kind of type.
fn values(tenant: u32) -> [Value; 6] {
    let moods = Value::Array(vec![label("sad"), Value::Null, label("glad")]);
    let number = i32::try_from(tenant).unwrap();
    let place = |street: &str| {
        Value::Record(vec![text(street), label("glad"), moods.clone(), Value::Int(number)])
    };
    [
        label("glad"),
        moods.clone(),
        place("High Street"),
        Value::Array(vec![place("a"), Value::Null, place("b")]),
        Value::Int(number),
        text("Quoted 'word'"),
    ]
}

const COLUMNS: &str = "m, ms, p, ps, n, w";

/// The types in every schema here; what is made before them differs by shard.
fn make_types(schema: &str) {
    let cluster = cluster();
    // On the second shard, other types have the numbers of the first's.
    for at in 0..3 {
        cluster.sql(2, &format!("CREATE TYPE public.other_{schema}_{at} AS ENUM ('x')"));
    }
    cluster.sql_everywhere(&format!("CREATE SCHEMA {schema}"));
    for shard in [1, 2] {
        cluster.superuser_sql(shard, &word_type(schema));
    }
    cluster.sql_everywhere(&format!(
        "CREATE TYPE {schema}.mood AS ENUM ('sad', 'glad');
         CREATE DOMAIN {schema}.natural AS int CHECK (VALUE > 0);
         CREATE TYPE {schema}.place AS (street text, mood {schema}.mood, moods {schema}.mood[],
           number {schema}.natural);
         CREATE TABLE {schema}.typed (tenant_id bigint NOT NULL, m {schema}.mood,
           ms {schema}.mood[], p {schema}.place, ps {schema}.place[], n {schema}.natural,
           w {schema}.word)"
    ));
    let number = |shard| cluster.sql(shard, &format!("SELECT '{schema}.mood'::regtype::oid"));
    assert_ne!(number(1), number(2), "the shards' numbers differ");
}

/// A base type as an extension makes one.
fn word_type(schema: &str) -> String {
    let function = |name: &str, takes: &str, gives: &str| {
        format!(
            "CREATE FUNCTION {schema}.word_{name}({takes}) RETURNS {gives} LANGUAGE internal \
             IMMUTABLE STRICT AS 'text{name}'"
        )
    };
    let word = format!("{schema}.word");
    [
        format!("CREATE TYPE {word}"),
        function("in", "cstring", &word),
        function("out", &word, "cstring"),
        function("recv", "internal", &word),
        function("send", &word, "bytea"),
        format!(
            "CREATE TYPE {word} (INPUT = {word}_in, OUTPUT = {word}_out, RECEIVE = {word}_recv, \
             SEND = {word}_send, LIKE = text)"
        ),
    ]
    .join(";\n")
}

/// Runs `work` with a client of the router's.
fn with_client<F: Future<Output = ()>>(router: &Router, work: impl FnOnce(Client) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&router.url(), NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        work(client).await;
        connection.abort();
    });
}

fn all(row: &Row) -> Vec<Value> {
    (0..row.len()).map(|at| row.get(at)).collect()
}

async fn insert(client: &Client, schema: &str, tenants: [u32; 2]) {
    let sql = format!(
        "INSERT INTO {schema}.typed (tenant_id, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"
    );
    let statement = client.prepare(&sql).await.unwrap();
    for tenant in tenants {
        let key = i64::from(tenant);
        let values = values(tenant);
        let params: Vec<&(dyn ToSql + Sync)> = std::iter::once(&key as &(dyn ToSql + Sync))
            .chain(values.iter().map(|value| value as &(dyn ToSql + Sync)))
            .collect();
        assert_eq!(client.execute(&statement, &params).await.unwrap(), 1);
    }
}

#[test]
fn values_of_own_types_are_the_same_on_every_shard() {
    make_types("kinds");
    let router = router(&["kinds.typed"]);
    let tenants = tenants(&router, "kinds.typed");
    with_client(&router, |client| async move {
        insert(&client, "kinds", tenants).await;
        let sql = format!("SELECT {COLUMNS} FROM kinds.typed WHERE tenant_id = $1");
        let by_key = client.prepare(&sql).await.unwrap();
        let whole = "SELECT t, ROW(m, ms), ARRAY[p] FROM kinds.typed t WHERE tenant_id = $1";
        for _ in 0..2 {
            for tenant in tenants {
                let rows = client.query(&by_key, &[&i64::from(tenant)]).await.unwrap();
                assert_eq!(all(&rows[0]), values(tenant), "prepared, then on {tenant}'s shard");
                let rows = client.query(&sql, &[&i64::from(tenant)]).await.unwrap();
                assert_eq!(all(&rows[0]), values(tenant), "prepared for it");
                let _rows = client.query(whole, &[&i64::from(tenant)]).await.unwrap();
            }
        }
        // The types that the client knows, in its Parse.
        let mood = by_key.columns()[0].type_().clone();
        let place = by_key.columns()[2].type_().clone();
        let sql = "SELECT $2, $3 FROM kinds.typed WHERE tenant_id = $1 AND m = $2 AND p = $3";
        let typed = client.prepare_typed(sql, &[Type::INT8, mood.clone(), place]).await.unwrap();
        for tenant in tenants {
            let values = values(tenant);
            let rows =
                client.query(&typed, &[&i64::from(tenant), &values[0], &values[2]]).await.unwrap();
            assert_eq!(all(&rows[0]), [values[0].clone(), values[2].clone()]);
        }
        // The table's number, too, is the one that the catalogs show.
        let known = client.query_one("SELECT 'kinds.typed'::regclass::oid", &[]).await.unwrap();
        let home: u32 = known.get(0);
        for tenant in tenants {
            let sql = format!("SELECT m FROM kinds.typed WHERE tenant_id = {tenant}");
            let statement = client.prepare(&sql).await.unwrap();
            assert_eq!(statement.columns()[0].table_oid(), Some(home));
            assert_eq!(statement.columns()[0].type_(), &mood);
        }
    });
    for (shard, tenant) in [(1, tenants[0]), (2, tenants[1])] {
        let sql = format!("SELECT m, ms, n, w FROM kinds.typed WHERE tenant_id = {tenant}");
        let shown = cluster().sql(shard, &sql);
        assert_eq!(shown, format!("glad|{{sad,NULL,glad}}|{tenant}|Quoted 'word'"));
    }
}

#[test]
fn reads_over_shards_show_own_types_in_one_shards_numbers() {
    make_types("spread");
    let router = router(&["spread.typed"]);
    let tenants = tenants(&router, "spread.typed");
    with_client(&router, |client| async move {
        insert(&client, "spread", tenants).await;
        let both = format!("SELECT {COLUMNS} FROM spread.typed");
        let sorted = |mut rows: Vec<Vec<Value>>| {
            rows.sort_by_key(|row| format!("{:?}", row[4]));
            rows
        };
        let expected = sorted(tenants.map(|tenant| values(tenant).to_vec()).into());
        for sql in
            [both.clone(), format!("{both} ORDER BY m, tenant_id"), format!("{both} ORDER BY n")]
        {
            let rows = client.query(&sql, &[]).await.unwrap();
            assert_eq!(sorted(rows.iter().map(all).collect()), expected, "{sql}");
        }
        let sql = "SELECT m, array_agg(n ORDER BY n), max(m), array_agg(p ORDER BY tenant_id) \
                   FROM spread.typed GROUP BY m";
        let rows = client.query(sql, &[]).await.unwrap();
        assert_eq!(rows.len(), 1);
        let [first, second] = tenants;
        let mut numbers = tenants.map(|tenant| Value::Int(i32::try_from(tenant).unwrap()));
        numbers.sort_by_key(|number| format!("{number:?}").len());
        assert_eq!(rows[0].get::<_, Value>(0), label("glad"));
        assert_eq!(rows[0].get::<_, Value>(2), label("glad"));
        let Value::Array(places) = rows[0].get::<_, Value>(3) else { panic!("no array") };
        assert_eq!(places.len(), [first, second].len());
        // Parameters of such types, on all shards.
        let sql = "SELECT count(*) FROM spread.typed WHERE m = $1 AND p = ANY($2::spread.place[])";
        let places = Value::Array(tenants.map(|tenant| values(tenant)[2].clone()).into());
        let row = client.query_one(sql, &[&label("glad"), &places]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 2);
    });
}

#[test]
fn types_are_looked_up_within_a_transaction_on_any_shard() {
    make_types("within");
    let router = router(&["within.typed"]);
    let tenants = tenants(&router, "within.typed");
    with_client(&router, |client| async move { insert(&client, "within", tenants).await });
    for tenant in tenants {
        for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
            with_client(&router, |client| async move {
                client.batch_execute(begin).await.unwrap();
                let write = "UPDATE within.typed SET w = w WHERE tenant_id = $1";
                client.execute(write, &[&i64::from(tenant)]).await.unwrap();
                // A client that knows no type yet asks the catalogs now.
                let sql = format!("SELECT {COLUMNS} FROM within.typed WHERE tenant_id = $1");
                let rows = client.query(&sql, &[&i64::from(tenant)]).await.unwrap();
                assert_eq!(all(&rows[0]), values(tenant));
                client.batch_execute("COMMIT").await.unwrap();
            });
        }
    }
}

#[test]
fn a_type_of_one_shard_alone_is_unknown_and_never_another() {
    make_types("alone");
    cluster().sql(
        2,
        "CREATE TYPE alone.local AS ENUM ('here');
         ALTER TABLE alone.typed ADD COLUMN l alone.local DEFAULT 'here'",
    );
    cluster().sql(
        1,
        "CREATE TYPE alone.homely AS ENUM ('home');
         ALTER TABLE alone.typed ADD COLUMN l alone.homely DEFAULT 'home'",
    );
    let router = router(&["alone.typed"]);
    let tenants = tenants(&router, "alone.typed");
    with_client(&router, |client| async move {
        insert(&client, "alone", tenants).await;
        let key = i64::from(tenants[1]);
        let sql = format!("SELECT l FROM alone.typed WHERE tenant_id = {key}");
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert_eq!(row.columns()[0].type_(), &Type::UNKNOWN);
        assert_eq!(row.get::<_, &str>(0), "here");
        // The home shard's is none of the other's.
        let sql = format!("SELECT l FROM alone.typed WHERE tenant_id = {}", tenants[0]);
        let homely = client.query_one(&sql, &[]).await.unwrap().columns()[0].type_().clone();
        assert_eq!(homely.name(), "homely");
        let sql = format!("SELECT $1::text FROM alone.typed WHERE tenant_id = {key}");
        let error = client.prepare_typed(&sql, &[homely]).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42704"), "{error:?}");
    });
}

#[test]
fn a_type_made_a_moment_ago_is_unknown_until_it_is_known() {
    make_types("later");
    let router = router(&["later.typed"]);
    let tenants = tenants(&router, "later.typed");
    psql(&router.url(), "CREATE TYPE later.fresh AS ENUM ('new')").expect();
    let number = cluster().sql(1, "SELECT 'later.fresh'::regtype::oid");
    with_client(&router, |client| async move {
        insert(&client, "later", tenants).await;
        for tenant in tenants {
            let sql =
                format!("SELECT 'new'::later.fresh FROM later.typed WHERE tenant_id = {tenant}");
            let known = async {
                let mut found = String::new();
                while found != number {
                    let statement = client.prepare(&sql).await.unwrap();
                    let of = statement.columns()[0].type_();
                    assert!(*of == Type::UNKNOWN || of.oid().to_string() == number, "{of:?}");
                    found = of.oid().to_string();
                }
            };
            tokio::time::timeout(Duration::from_secs(60), known).await.unwrap();
        }
    });
}

#[test]
fn values_longer_than_any_buffer_are_walked() {
    make_types("long");
    let router = router(&["long.typed"]);
    let tenants = tenants(&router, "long.typed");
    with_client(&router, |client| async move {
        let places = Value::Array(vec![values(7)[2].clone(); 20_000]);
        let sql = "INSERT INTO long.typed (tenant_id, ps) VALUES ($1, $2)";
        let insert = client.prepare(sql).await.unwrap();
        let read = client.prepare("SELECT ps FROM long.typed WHERE tenant_id = $1").await.unwrap();
        for tenant in tenants {
            let key = i64::from(tenant);
            client.execute(&insert, &[&key, &places]).await.unwrap();
            let row = client.query_one(&read, &[&key]).await.unwrap();
            assert!(row.get::<_, Value>(0) == places);
        }
    });
    wait_for("a router that is alive", || psql(&router.url(), "SELECT 1").expect() == "1");
}
