//! One router takes over from another: no connection is refused or lost; and
//! what a service manager passes and hears.

use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, spawn};

use keyway::local::Guard;
use rustix::process::{Pid, Signal, kill_process};

use crate::http::get;
use crate::setup::{cluster, router};
use crate::support::psql::psql;
use crate::support::router::Router;
use crate::support::{free_port, scratch_dir, wait_for};
use crate::wire::{PATIENCE, Wire, cancel};

/// A router with the same files that takes over from `old`.
struct Successor {
    child: Child,
    log: std::path::PathBuf,
    _guard: Guard,
}

impl Successor {
    fn start(old: &Router, number: u32) -> Self {
        let log = old.dir().join(format!("successor-{number}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut guard = Guard::start().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(["serve", "--takeover", "--listen", &format!("127.0.0.1:{}", old.port())])
            .arg("--config")
            .arg(old.config_file())
            .current_dir(old.dir())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        guard.watch(child.id()).unwrap();
        Self { child, log, _guard: guard }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for_line(&mut self, line: &str) {
        wait_for(line, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.log());
            self.log().contains(line)
        });
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that come and go, each with a query, until they are told to stop.
struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(port: u16) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let work = |number: u32| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Wire::open(port, "t1");
                    assert_eq!(client.value(&format!("SELECT {number}")), number.to_string());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..4).map(work).collect();
        Self { stop, served, threads }
    }

    /// Waits until so many more have been served.
    fn go_on(&self, more: u32) {
        let wanted = self.served.load(Ordering::Relaxed) + more;
        wait_for("more clients to be served", || {
            self.served.load(Ordering::Relaxed) >= wanted
                || self.threads.iter().any(JoinHandle::is_finished)
        });
    }

    fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client was refused or dropped");
        }
        self.served.load(Ordering::Relaxed)
    }
}

fn config(dir: &Path) -> String {
    format!(
        "handover_socket = {:?}\nunix_socket_dir = {dir:?}\ntimeouts.login = \"1s\"",
        dir.join("handover")
    )
}

#[test]
fn clients_come_and_go_through_an_upgrade_without_a_failure() {
    let dir = scratch_dir();
    let mut old = router(cluster(), &config(&dir));
    let traffic = Traffic::start(old.port());
    let mut held = Wire::open(old.port(), "t2");
    held.query("BEGIN").unwrap();
    held.query("INSERT INTO notes VALUES (7100, 'before')").unwrap();
    let mut idle = Wire::open(old.port(), "t3");
    assert_eq!(idle.value("SELECT 1"), "1");
    traffic.go_on(50);

    let mut new = Successor::start(&old, 1);
    new.wait_for_line("took over from the router that listened before");
    traffic.go_on(50);
    // Who was connected is served by the old one as before.
    held.query("UPDATE notes SET word = 'after' WHERE id = 7100").unwrap();
    held.query("COMMIT").unwrap();
    assert_eq!(idle.value("SELECT word FROM notes WHERE id = 7100"), "after");
    held.query("DELETE FROM notes WHERE id = 7100").unwrap();
    wait_for("the new one to have the address for metrics", || get(&old, "/ready").0 == 200);
    let socket = format!("postgres://t1@/app?host={}&port={}", dir.display(), old.port());
    assert_eq!(psql(&socket, "SELECT 5").expect(), "5");

    drop((held, idle));
    assert_eq!(old.wait_end(), Some(0), "the old one ends when its clients have left");
    traffic.go_on(50);
    assert_eq!(psql(&socket, "SELECT 6").expect(), "6", "the socket's file is the new one's");

    // And once more: the new one hands over too.
    let mut newer = Successor::start(&old, 2);
    newer.wait_for_line("took over from the router that listened before");
    traffic.go_on(50);
    wait_for("the second one to end", || new.child.try_wait().unwrap().is_some());
    traffic.go_on(50);
    assert!(traffic.end() >= 250);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Three routers after each other, each with a client left: a cancel request
/// comes in at the newest, and reaches whose key it has. The first clients of
/// all have the same number.
#[test]
fn cancel_requests_reach_the_clients_of_routers_before() {
    let dir = scratch_dir();
    let mut old = router(cluster(), &format!("{}\nthreads = 2", config(&dir)));
    let sleep = |client: &mut Wire, mark: &str| {
        client.send_query(&format!("SELECT pg_sleep(60) /* handover-{mark} */"));
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
             AND query LIKE '%handover-{mark}%' AND pid <> pg_backend_pid()"
        );
        wait_for("the statement to run", || cluster().sql(1, &running) == "1");
    };
    // Two, so that both threads have one.
    let mut firsts = [Wire::open(old.port(), "t1"), Wire::open(old.port(), "t2")];
    firsts.sort_by_key(|client| client.pid);
    sleep(&mut firsts[0], "a");
    sleep(&mut firsts[1], "b");
    let mut middle = Successor::start(&old, 1);
    middle.wait_for_line("took over");
    let mut second = Wire::open(old.port(), "t3");
    sleep(&mut second, "c");
    let mut newest = Successor::start(&old, 2);
    newest.wait_for_line("took over");
    let mut third = Wire::open(old.port(), "t4");
    sleep(&mut third, "d");
    let numbers = [&firsts[0], &second, &third].map(|client| client.pid);
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");

    // With a key of nobody's nothing ends.
    cancel(old.port(), numbers[0], &[7; 4]);
    let [first, other] = &mut firsts;
    for client in [first, &mut second, other, &mut third] {
        client.cancel(old.port());
        assert_eq!(client.finish().unwrap_err().code, "57014");
        assert_eq!(client.value("SELECT 7"), "7");
    }
    // The one between has gone; the oldest is still reached.
    drop(second);
    wait_for("the second router to end", || middle.child.try_wait().unwrap().is_some());
    sleep(&mut firsts[1], "e");
    firsts[1].cancel(old.port());
    assert_eq!(firsts[1].finish().unwrap_err().code, "57014");
    drop(firsts);
    assert_eq!(old.wait_end(), Some(0));
    let left = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("cancels")).collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn router_serves_on_if_nobody_takes_over_after_all() {
    let dir = scratch_dir();
    let mut old = router(cluster(), &config(&dir));
    let mut client = Wire::open(old.port(), "t1");
    for said in [&b""[..], b"never"] {
        let mut asker = UnixStream::connect(dir.join("handover")).unwrap();
        let mut line = [0; 17];
        asker.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"keyway sockets 1\n");
        std::io::Write::write_all(&mut asker, said).unwrap();
        drop(asker);
        assert_eq!(client.value("SELECT 1"), "1");
        assert_eq!(Wire::open(old.port(), "t2").value("SELECT 2"), "2");
    }
    wait_for("the log to say so", || old.log().matches("no router has taken over").count() == 2);
    old.signal(Signal::TERM);
    drop(client);
    assert_eq!(old.wait_end(), Some(0));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn retired_router_drains_when_its_time_is_up() {
    let dir = scratch_dir();
    let lines = format!("{}\ntimeouts.retire = \"1500ms\"", config(&dir));
    let mut old = router(cluster(), &lines);
    let mut idle = Wire::open(old.port(), "t1");
    let mut new = Successor::start(&old, 1);
    new.wait_for_line("took over");
    assert_eq!(idle.value("SELECT 1"), "1");
    assert_eq!(idle.read().map(|message| message.tag).unwrap(), b'E', "disconnected by the drain");
    assert_eq!(old.wait_end(), Some(0));
    assert_eq!(Wire::open(old.port(), "t1").value("SELECT 2"), "2");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn takeover_without_a_place_for_it_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["serve", "--takeover", "--backend", "postgres://a@127.0.0.1:1/d"])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--takeover needs handover_socket"), "{said}");
}

/// Passes a socket on as the service manager does: descriptor 3, and who it is
/// for.
const ACTIVATE: &str = "\
import os, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(sys.argv[1])))
s.listen(16)
if s.fileno() != 3:
    os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn router_serves_the_managers_socket_and_tells_it_what_it_does() {
    let dir = scratch_dir();
    let manager = UnixDatagram::bind(dir.join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut words = [0; 256];
        let length = manager.recv(&mut words).expect("the router says something");
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    let port = free_port();
    let url = format!("{}?sslmode=disable", cluster().primary(1).url);
    let mut guard = Guard::start().unwrap();
    let mut child = Command::new("python3")
        .args(["-c", ACTIVATE, &port.to_string(), env!("CARGO_BIN_EXE_keyway"), "serve"])
        .args(["--backend", &url])
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    guard.watch(child.id()).unwrap();
    assert_eq!(hear(), "READY=1\nSTATUS=serving");
    let view = cluster().view();
    let through = format!("postgres://{}:{}@127.0.0.1:{port}/app", view.user, view.password);
    assert_eq!(psql(&through, "SELECT 7").expect(), "7");
    assert_eq!((hear(), hear()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    wait_for("the manager to hear of the end", || hear() == "STOPPING=1\nSTATUS=draining");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    std::fs::remove_dir_all(dir).unwrap();
}
