//! LISTEN and NOTIFY over connections that clients share.

use std::time::Duration;

use crate::setup::{cluster, one_server, router};
use crate::support::cluster::Cluster;
use crate::support::psql::psql;
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::wire::{Message, Wire};

#[test]
fn notifications_reach_those_who_listen_and_nobody_holds_a_backend() {
    let router = router(cluster(), "pool.size_max = 2");
    let mut listeners: Vec<Wire> = (0..20).map(|_| Wire::open(router.port(), "t1")).collect();
    for (number, client) in listeners.iter_mut().enumerate() {
        client.query("LISTEN everybody").unwrap();
        client.query(&format!("LISTEN \"only {number}\"")).unwrap();
        // Others than these two are left to whoever works.
        assert_eq!(client.value("SELECT 1"), "1");
    }
    let clients = shown(&router, "CLIENTS");
    assert!(clients.iter().all(|row| row[8].is_empty() && row[9].is_empty()), "{clients:?}");
    let servers = shown(&router, "SERVERS");
    // One in each thread: see `KEYWAY_TEST_THREADS`.
    let threads = std::env::var("KEYWAY_TEST_THREADS").map_or(1, |text| text.parse().unwrap());
    assert_eq!(servers.iter().filter(|row| row[3] == "listening").count(), threads, "{servers:?}");
    // Other users and unshared channels are left alone.
    let mut deaf = Wire::open(router.port(), "t1");
    let mut sender = Wire::open(router.port(), "t2");
    sender.query("NOTIFY everybody, 'one'; SELECT pg_notify('only 7', 'two')").unwrap();
    sender.query("NOTIFY everybody, 'three'").unwrap();
    for (number, client) in listeners.iter_mut().enumerate() {
        let expected: &[&str] =
            if number == 7 { &["one", "two", "three"] } else { &["one", "three"] };
        for payload in expected {
            assert_eq!(notification(client).1, *payload, "client {number}");
        }
    }
    deaf.send_query("SELECT 1");
    assert_ne!(deaf.read().unwrap().tag, b'A');
}

#[test]
fn listen_counts_from_its_commit_and_a_rollback_undoes_it() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    let mut sender = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    client.query("LISTEN at_commit").unwrap();
    sender.query("NOTIFY at_commit, 'before'").unwrap();
    client.query("SAVEPOINT s").unwrap();
    client.query("LISTEN undone").unwrap();
    client.query("ROLLBACK TO s").unwrap();
    // Its own comes after its own commit.
    client.query("NOTIFY at_commit, 'own'").unwrap();
    let tags = tags_of(&mut client, "COMMIT");
    assert_eq!(tags, "CZ");
    assert_eq!(notification(&mut client).1, "own");
    sender.query("NOTIFY undone, 'no'; NOTIFY at_commit, 'after'").unwrap();
    assert_eq!(notification(&mut client).1, "after");
    client.query("BEGIN").unwrap();
    client.query("UNLISTEN at_commit").unwrap();
    client.query("ROLLBACK").unwrap();
    sender.query("NOTIFY at_commit, 'still'").unwrap();
    assert_eq!(notification(&mut client).1, "still");
    client.query("UNLISTEN at_commit").unwrap();
    client.query("LISTEN last").unwrap();
    sender.query("NOTIFY at_commit, 'never'").unwrap();
    sender.query("NOTIFY last, 'end'").unwrap();
    assert_eq!(notification(&mut client).1, "end");
}

#[test]
fn notifications_wait_for_the_end_of_a_transaction() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("LISTEN later").unwrap();
    client.query("BEGIN; SELECT 1").unwrap();
    let mut sender = Wire::open(router.port(), "t1");
    sender.query("NOTIFY later, 'x'").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(tags_of(&mut client, "SELECT 2"), "TDCZ");
    assert_eq!(tags_of(&mut client, "COMMIT"), "CZ");
    assert_eq!(notification(&mut client).1, "x");
}

#[test]
fn lost_connection_listens_again_and_says_what_may_be_missing() {
    let cluster = one_server();
    let router = router(&cluster, "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("LISTEN news").unwrap();
    let pid = listener_pid(&router);
    cluster.superuser_sql(1, &format!("SELECT pg_terminate_backend({pid}, 10000)"));
    let notice = loop {
        let message = client.read().unwrap();
        if message.tag == b'N' {
            break String::from_utf8_lossy(&message.body).into_owned();
        }
    };
    assert!(notice.contains("01000") && notice.contains("may have been lost"), "{notice}");
    wait_for("another connection", || {
        let now = listeners(&router);
        !now.is_empty() && now[0] != pid
    });
    wait_for("it to listen", || heard_channels(&cluster) == 1);
    client.query("NOTIFY news, 'again'").unwrap();
    assert_eq!(notification(&mut client).1, "again");
}

#[test]
fn nothing_is_left_of_a_client_that_is_gone() {
    let cluster = one_server();
    let router = router(&cluster, "");
    let mut first = Wire::open(router.port(), "t1");
    first.query("LISTEN one").unwrap();
    let mut second = Wire::open(router.port(), "t1");
    second.query("LISTEN two").unwrap();
    second.query("BEGIN").unwrap();
    second.query("LISTEN three").unwrap();
    second.query("ROLLBACK").unwrap();
    drop(first);
    let sql = "NOTIFY one, 'x'; NOTIFY two, 'y'";
    wait_for("the second to hear", || {
        second.query(sql).unwrap();
        notification(&mut second).1 == "y"
    });
    let last = |cluster: &Cluster| {
        cluster.superuser_sql(1, "SELECT query FROM pg_stat_activity WHERE query LIKE 'UNLISTEN%'")
    };
    wait_for("the rest to be given up", || last(&cluster).contains("UNLISTEN \"one\""));
}

#[test]
fn slow_client_loses_what_is_too_much_and_is_told() {
    let router = router(cluster(), "limits.held_bytes_max = \"64KiB\"");
    let mut client = Wire::open(router.port(), "t1");
    client.query("LISTEN flood").unwrap();
    client.query("BEGIN; SELECT 1").unwrap();
    let mut sender = Wire::open(router.port(), "t1");
    let flood =
        "SELECT count(pg_notify('flood', n || repeat('x', 7000))) FROM generate_series(1, 40) n";
    sender.query(flood).unwrap();
    // The sender's connection has told it; the listener's has it shortly after.
    std::thread::sleep(Duration::from_millis(500));
    client.query("COMMIT").unwrap();
    let mut seen = 0;
    let notice = loop {
        let message = client.read().unwrap();
        match message.tag {
            b'A' => seen += 1,
            b'N' => break String::from_utf8_lossy(&message.body).into_owned(),
            other => panic!("{other}"),
        }
    };
    assert!(notice.contains("notifications were lost"), "{notice}");
    assert!((1..40).contains(&seen), "{seen}");
    client.query("NOTIFY flood, 'on'").unwrap();
    assert_eq!(notification(&mut client).1, "on");
}

#[test]
fn sharded_database_listens_at_its_home_shard() {
    let options = RouterOptions::sharded(cluster()).with_config(
        "[[user]]\nname = \"t1\"\ntrust = true\n[[user]]\nname = \"t2\"\ntrust = true",
    );
    let router = Router::start(cluster(), &options);
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    client.query("LISTEN home").unwrap();
    client.query("COMMIT").unwrap();
    let mut sender = Wire::open(router.port(), "t2");
    sender.query("NOTIFY home, 'x'").unwrap();
    assert_eq!(notification(&mut client).1, "x");
    let error = client.query("LISTEN a; SELECT 1").unwrap_err();
    assert_eq!(error.code, "0A000");
}

#[test]
fn pause_closes_the_connection_that_listens_and_resume_brings_it_back() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t3");
    client.query("LISTEN paused").unwrap();
    psql(&router.console_url(), "PAUSE app").expect();
    assert!(shown(&router, "SERVERS").is_empty());
    psql(&router.console_url(), "RESUME app").expect();
    wait_for("it to listen again", || !listeners(&router).is_empty());
    let mut sender = Wire::open(router.port(), "t3");
    let sent = std::cell::Cell::new(0);
    // It has told of the gap; what is sent once it listens again arrives.
    client.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    wait_for("a notification", || {
        sent.set(sent.get() + 1);
        sender.query(&format!("NOTIFY paused, '{}'", sent.get())).unwrap();
        matches!(client.read(), Ok(message) if message.tag == b'A')
    });
}

/// The process and payload of the next notification.
#[track_caller]
fn notification(client: &mut Wire) -> (u32, String) {
    loop {
        let Message { tag, body } = client.read().unwrap();
        match tag {
            b'A' => {
                let pid = u32::from_be_bytes(body[..4].try_into().unwrap());
                let payload = body[4..].split(|byte| *byte == 0).nth(1).unwrap();
                return (pid, String::from_utf8_lossy(payload).into_owned());
            }
            b'N' | b'S' => {}
            other => panic!("{:?} before a notification", char::from(other)),
        }
    }
}

/// The tags of the messages that answer `sql`.
fn tags_of(client: &mut Wire, sql: &str) -> String {
    client.send_query(sql);
    let mut tags = String::new();
    loop {
        let message = client.read().unwrap();
        tags.push(char::from(message.tag));
        if message.tag == b'Z' {
            return tags;
        }
    }
}

fn shown(router: &Router, topic: &str) -> Vec<Vec<String>> {
    let text = psql(&router.console_url(), &format!("SHOW {topic}")).expect();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

fn listeners(router: &Router) -> Vec<String> {
    let servers = shown(router, "SERVERS");
    let listening = servers.iter().filter(|row| row[3] == "listening");
    listening.map(|row| row[4].clone()).collect()
}

fn listener_pid(router: &Router) -> String {
    listeners(router)[0].clone()
}

/// Sessions of the server whose last words were a LISTEN.
fn heard_channels(cluster: &Cluster) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'";
    cluster.superuser_sql(1, sql).parse().unwrap()
}
