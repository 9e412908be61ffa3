//! Cursors over several shards, and portals that are executed in parts.

use tokio_postgres::Client;

use super::answers::shown;
use super::both::{Both, Clients};

pub(crate) async fn all(both: &Both) {
    let clients = both.clients().await;
    fetched_like_one_server(&clients).await;
    binary_cursors_and_parameters(&clients).await;
    cursors_end_with_what_they_belong_to(&clients).await;
    cursor_sees_what_declare_saw(&clients).await;
    portals_go_on_where_they_stood(both).await;
    what_is_refused(&clients).await;
    too_many_rows_are_refused(&clients).await;
}

/// All rows of a text, values and columns' names.
async fn table(client: &Client, sql: &str) -> Result<Vec<Vec<String>>, (String, String)> {
    let said = client.simple_query(sql).await.map_err(|error| shown(&error))?;
    let mut rows = Vec::new();
    for message in said {
        match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                let value = |at| row.get(at).unwrap_or("null").to_owned();
                rows.push((0..row.len()).map(value).collect());
            }
            tokio_postgres::SimpleQueryMessage::RowDescription(columns) => {
                rows.push(columns.iter().map(|column| column.name().to_owned()).collect());
            }
            tokio_postgres::SimpleQueryMessage::CommandComplete(count) => {
                rows.push(vec![format!("{count} rows")]);
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// One text after the other, on both; what they say must be the same.
async fn same(clients: &Clients, texts: &[&str]) {
    for text in texts {
        let (one, many) = (table(&clients.plain, text).await, table(&clients.router, text).await);
        assert_eq!(many, one, "{text}");
    }
}

async fn fetched_like_one_server(clients: &Clients) {
    let queries = [
        "SELECT tenant_id, id, t, num FROM events ORDER BY tenant_id, id",
        "SELECT n, count(*) AS many FROM events GROUP BY n ORDER BY n NULLS FIRST",
        "SELECT m FROM moods ORDER BY m, tenant_id LIMIT 5 OFFSET 1",
        "SELECT rank() OVER (ORDER BY tenant_id) FROM accounts ORDER BY 1",
        "SELECT id FROM events WHERE false",
    ];
    for query in queries {
        let declare = format!("DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR {query}");
        same(
            clients,
            &[
                "BEGIN",
                &declare,
                "FETCH c",
                "FETCH FORWARD 3 FROM c",
                "MOVE 2 IN c",
                "FETCH NEXT FROM c",
                "FETCH ALL c",
                "FETCH 10 FROM c",
                "CLOSE c",
                "FETCH c",
                "ROLLBACK",
            ],
        )
        .await;
    }
    // In the transaction of a shard, with what that has written.
    same(
        clients,
        &[
            "BEGIN",
            "UPDATE accounts SET name = 'x' WHERE tenant_id = 3",
            "DECLARE \"C d\" CURSOR FOR SELECT name FROM accounts ORDER BY tenant_id",
            "FETCH 5 FROM \"C d\"",
            "UPDATE accounts SET name = 'y' WHERE tenant_id = 3",
            "FETCH ALL FROM \"C d\"",
            "ROLLBACK",
        ],
    )
    .await;
}

async fn binary_cursors_and_parameters(clients: &Clients) {
    let mut seen = Vec::new();
    for client in [&clients.plain, &clients.router] {
        client.batch_execute("BEGIN").await.unwrap();
        let declare = "DECLARE c BINARY CURSOR FOR SELECT tenant_id, id FROM events WHERE id > $1 ORDER BY 1, 2";
        client.execute(declare, &[&3_i64]).await.unwrap();
        let rows = client.query("FETCH 4 FROM c", &[]).await.unwrap();
        let rows: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let moved = client.execute("MOVE ALL FROM c", &[]).await.unwrap();
        seen.push((rows, moved, client.query("FETCH c", &[]).await.unwrap().len()));
        client.batch_execute("CLOSE c").await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0.len(), 4);
}

async fn cursors_end_with_what_they_belong_to(clients: &Clients) {
    let declare = "DECLARE c CURSOR FOR SELECT tenant_id FROM accounts ORDER BY 1";
    let hold = "DECLARE h CURSOR WITH HOLD FOR SELECT tenant_id FROM accounts ORDER BY 1";
    // Its transaction ends: committed, undone, failed.
    same(clients, &[declare, "BEGIN", declare, declare, "ROLLBACK"]).await;
    same(clients, &["BEGIN", declare, "FETCH c", "COMMIT", "FETCH c"]).await;
    same(clients, &["BEGIN", declare, "SELECT 1/0", "FETCH c", "ROLLBACK", "FETCH c"]).await;
    same(clients, &["BEGIN", declare, "CLOSE ALL", "FETCH c", "ROLLBACK"]).await;
    // WITH HOLD it outlives that of others.
    same(
        clients,
        &[
            hold,
            "FETCH 2 FROM h",
            "BEGIN",
            "SELECT name FROM accounts WHERE tenant_id = 1",
            "FETCH 2 FROM h",
            "ROLLBACK",
            "FETCH 2 FROM h",
            "CLOSE h",
            "FETCH h",
            hold,
            "DISCARD ALL",
            "FETCH h",
        ],
    )
    .await;
    // A name that is taken can't be another cursor's, whatever shard that is on.
    let one = "DECLARE c CURSOR FOR SELECT name FROM accounts WHERE tenant_id = 1";
    same(clients, &["BEGIN", declare, one, "ROLLBACK"]).await;
    same(clients, &["BEGIN", one, "FETCH c", "CLOSE c", declare, "FETCH 3 FROM c", "ROLLBACK"])
        .await;
}

/// What is committed after DECLARE is not seen.
async fn cursor_sees_what_declare_saw(clients: &Clients) {
    let declare =
        "DECLARE c CURSOR FOR SELECT name FROM accounts WHERE tenant_id < 4 ORDER BY tenant_id";
    let update = "UPDATE accounts SET region = 'as' WHERE tenant_id = 2";
    same(clients, &["BEGIN", declare, "FETCH c", update, "FETCH ALL c", "ROLLBACK"]).await;
}

async fn portals_go_on_where_they_stood(both: &Both) {
    let mut seen = Vec::new();
    let clients = both.clients().await;
    for mut client in [clients.plain, clients.router] {
        let transaction = client.transaction().await.unwrap();
        let sql = "SELECT tenant_id, name FROM accounts ORDER BY tenant_id";
        let statement = transaction.prepare(sql).await.unwrap();
        let first = transaction.bind(&statement, &[]).await.unwrap();
        let counted =
            transaction.prepare("SELECT count(*) FROM events WHERE id > $1").await.unwrap();
        let second = transaction.bind(&statement, &[]).await.unwrap();
        let third = transaction.bind(&counted, &[&2_i64]).await.unwrap();
        let mut rows = Vec::new();
        for (portal, max) in [
            (&first, 3),
            (&second, 1),
            (&first, 30),
            (&third, 1),
            (&second, 2),
            (&first, 30),
            (&third, 1),
            (&first, 1),
            (&second, 0),
        ] {
            for row in transaction.query_portal(portal, max).await.unwrap() {
                rows.push(row.get::<_, i64>(0));
            }
            rows.push(-1);
        }
        transaction.commit().await.unwrap();
        seen.push(rows);
    }
    assert_eq!(seen[1], seen[0]);
    assert_eq!(seen[0].len(), 40 + 40 + 1 + 9);
}

async fn what_is_refused(clients: &Clients) {
    let client = &clients.router;
    client.batch_execute("BEGIN").await.unwrap();
    let declare = "DECLARE c CURSOR FOR SELECT tenant_id FROM accounts ORDER BY 1";
    for (before, sql, word) in [
        ("SELECT 1", "DECLARE c SCROLL CURSOR FOR SELECT tenant_id FROM accounts", "SCROLL"),
        ("SELECT 1", "DECLARE h CURSOR WITH HOLD FOR SELECT name FROM accounts", "WITH HOLD"),
        (declare, "FETCH BACKWARD 2 FROM c", "forward"),
        (declare, "FETCH 0 FROM c", "forward"),
    ] {
        client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
        client.batch_execute(before).await.unwrap();
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(shown(&error).0, "0A000", "{sql}: {error:?}");
        assert!(shown(&error).1.contains(word), "{sql}: {error:?}");
    }
    // Whether a cursor lasts through this, nobody has noted.
    client.batch_execute("ROLLBACK; BEGIN; SAVEPOINT s").await.unwrap();
    client.batch_execute(declare).await.unwrap();
    client.batch_execute("ROLLBACK TO s").await.unwrap();
    let error = client.batch_execute("FETCH c").await.unwrap_err();
    assert!(shown(&error).1.contains("ROLLBACK TO"), "{error:?}");
    client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
    client.batch_execute(declare).await.unwrap();
    let error = client.query("FETCH c", &[]).await.unwrap_err();
    assert!(shown(&error).1.contains("binary"), "{error:?}");
    client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
    client.batch_execute(declare).await.unwrap();
    let error = client.batch_execute("FETCH c; FETCH c").await.unwrap_err();
    assert_eq!(shown(&error).0, "0A000", "{error:?}");
    client.batch_execute("ROLLBACK").await.unwrap();
}

/// What is kept is bounded.
async fn too_many_rows_are_refused(clients: &Clients) {
    let client = &clients.router;
    client.batch_execute("BEGIN").await.unwrap();
    let sql = "DECLARE c CURSOR FOR SELECT repeat('x', 4000) FROM events a, events b, events d \
        WHERE a.tenant_id = b.tenant_id AND b.tenant_id = d.tenant_id";
    let error = client.batch_execute(sql).await.unwrap_err();
    assert_eq!(shown(&error).0, "53400", "{error:?}");
    assert!(shown(&error).1.contains("cursor"), "{error:?}");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT 1; CLOSE c; COMMIT").await.unwrap();
}
