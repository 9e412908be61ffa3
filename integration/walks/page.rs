//! docs/walks.md, command by command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keyway::local::Guard;

use crate::clients::Clients;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::psql::{Psql, command, psql};
use crate::support::{free_port, scratch_dir, wait_for};

const PAGE: &str = include_str!("../../docs/walks.md");

/// The folder in which the page is followed, and the servers that it names.
struct Walk {
    cluster: Cluster,
    dir: PathBuf,
    port: u16,
    router: Option<(Child, Guard)>,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Some((router, _)) = &mut self.router {
            let _ = router.kill();
            let _ = router.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.join("router.log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Walk {
    fn begin() -> Self {
        let options = ClusterOptions { shards: 3, replicas: 0, ..ClusterOptions::default() };
        let cluster = Cluster::start_with(options, &[("max_slot_wal_keep_size", "-1")]);
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/sample");
        let args = [
            "--set=shard=1",
            "--set=first=0",
            "--set=last=4095",
            &format!("--file={sample}/schema.sql"),
            &format!("--file={sample}/data.sql"),
        ];
        crate::support::psql::psql_with(&cluster.primary(1).url, &args).expect();
        Self { cluster, dir: scratch_dir(), port: free_port(), router: None }
    }

    /// The page's servers are these.
    fn local(&self, text: &str) -> String {
        let mut text =
            text.replace("-U postgres", &format!("-U {}", self.cluster.view().superuser));
        text = text.replace("-p 6432", &format!("-p {}", self.port));
        text = text.replace("127.0.0.1:6432", &format!("127.0.0.1:{}", self.port));
        for shard in 1..=3 {
            let port = self.cluster.primary(shard).port;
            text = text.replace(
                &format!("{{ host = \"db{shard}\" }}"),
                &format!("{{ host = \"127.0.0.1\", port = {port} }}"),
            );
            text = text.replace(&format!("-h db{shard} "), &format!("-h 127.0.0.1 -p {port} "));
        }
        text
    }

    fn write(&self, block: &str) {
        let (first, rest) = block.split_once('\n').unwrap();
        let name = first.strip_prefix("# ").unwrap_or_else(|| panic!("no file's name: {first}"));
        fs::write(self.dir.join(name), self.local(rest)).unwrap();
    }

    /// Runs a line of the page as a shell would; it must succeed.
    fn run(&mut self, line: &str) -> String {
        println!("$ {line}");
        let program = Path::new(env!("CARGO_BIN_EXE_keyway")).parent().unwrap().to_owned();
        let psql = command();
        let clients = Path::new(psql.get_program()).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [program, clients].into_iter().chain(std::env::split_paths(&path));
        let view = self.cluster.view();
        let password = if line.contains("-U postgres") {
            &view.superuser_password
        } else if line.contains("-U app") {
            &view.password
        } else {
            "sesame"
        };
        let mut shell = Command::new("sh");
        shell
            .current_dir(&self.dir)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("KEYWAY_BACKEND_PASSWORD", &view.password)
            .env("MOVER_PASSWORD", "sesame")
            .env("PGPASSWORD", password)
            .stdin(Stdio::null());
        for (name, value) in psql.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        if line.starts_with("keyway serve") {
            self.serve(shell, line);
            return String::new();
        }
        shell.args(["-c", &self.local(line)]);
        let output = shell.output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        println!("{said}");
        assert!(output.status.success(), "{line}: {said}");
        said
    }

    fn serve(&mut self, mut shell: Command, line: &str) {
        let log = fs::File::create(self.dir.join("router.log")).unwrap();
        shell.args(["-c", &format!("exec {}", self.local(line))]);
        shell.stdout(log.try_clone().unwrap()).stderr(log);
        let child = shell.spawn().unwrap();
        let mut guard = Guard::start().unwrap();
        guard.watch(child.id()).unwrap();
        self.router = Some((child, guard));
        let url = self.url();
        let one = "SELECT count(*) FROM tenants WHERE tenant_id = 1";
        wait_for("the router", || psql(&url, one) == Psql::Done("1".to_owned()));
    }

    fn url(&self) -> String {
        let view = self.cluster.view();
        format!(
            "postgres://{}:{}@127.0.0.1:{}/{}?sslmode=disable",
            view.user, view.password, self.port, view.database
        )
    }

    /// Takes a shard's section out of a map file, as an operator would.
    fn take_out(&self, number: u16) {
        let file = self.dir.join("app.toml");
        let text = fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once(&format!("[[shard]]\nnumber = {number}\n")).unwrap();
        let (_, after) = rest.split_once("\n[[").unwrap();
        fs::write(file.with_extension("new"), format!("{before}[[{after}")).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
    }

    fn tenants_on(&self, shard: u16) -> u64 {
        self.cluster.sql(shard, "SELECT count(*) FROM tenants").parse().unwrap()
    }
}

/// The page's blocks of text, with their kind, by section.
fn sections() -> Vec<Vec<(&'static str, &'static str)>> {
    let section = |text: &'static str| {
        let blocks = text.split("```").skip(1).step_by(2);
        blocks.map(|block| block.split_once('\n').unwrap()).collect()
    };
    PAGE.split("\n## ").skip(1).map(section).collect()
}

/// Every write that was acknowledged is there once, on the shard that has its
/// tenant.
fn check_rows(walk: &Walk, written: &std::collections::BTreeMap<i64, i64>) {
    let mut found = std::collections::BTreeMap::new();
    for shard in 1..=3 {
        let sql = "SELECT project_id, tenant_id, (SELECT count(*) FROM tenants t \
                   WHERE t.tenant_id = p.tenant_id) FROM projects p WHERE project_id >= 1000000000";
        for line in walk.cluster.sql(shard, sql).lines() {
            let cells: Vec<i64> = line.split('|').map(|cell| cell.parse().unwrap()).collect();
            assert_eq!(found.insert(cells[0], cells[1]), None, "project {} is twice", cells[0]);
            assert_eq!(cells[2], 1, "tenant {} is on shard {shard}", cells[1]);
        }
    }
    assert_eq!(&found, written);
}

#[test]
fn the_page_is_walked_while_clients_go_on_and_see_no_error() {
    let mut walk = Walk::begin();
    let mut clients: Option<Clients> = None;
    let (mut commands, mut last) = (0, String::new());
    let all = sections();
    assert_eq!(all.len(), 4, "walks");
    for (number, section) in all.iter().enumerate() {
        for (index, (kind, text)) in section.iter().enumerate() {
            match *kind {
                "toml" => walk.write(text),
                "console" => {
                    if number == 3 && index > 0 {
                        walk.take_out(3);
                    }
                    for line in text.lines() {
                        last = walk.run(line.strip_prefix("$ ").unwrap());
                        commands += 1;
                    }
                }
                other => panic!("a block of {other:?}"),
            }
        }
        let clients = clients.get_or_insert_with(|| Clients::start(&walk.url(), 4));
        let turns = clients.turns();
        wait_for("the clients' next turns", || {
            clients.expect_no_error(&format!("walk {}", number + 1));
            clients.turns() > turns + 40
        });
        let there = [1, 2, 3].map(|shard| match (shard, number) {
            (2, 0) | (3, 0 | 1) => 0,
            _ => walk.tenants_on(shard),
        });
        println!("tenants: {there:?}");
        assert_eq!(there.iter().sum::<u64>(), 300);
        match number {
            0 => {}
            1 => assert!(there[0].abs_diff(there[1]) < 40, "{there:?}"),
            2 => assert!(there.iter().all(|count| *count > 20), "{there:?}"),
            _ => assert!(there[2] == 0 && there[0].abs_diff(there[1]) < 60, "{there:?}"),
        }
    }
    assert!(commands > 25, "{commands} commands");
    assert!(last.contains("by keyway_mover") && last.contains("shard3 to"), "{last}");
    let written = clients.unwrap().end();
    println!("{} projects were written", written.len());
    check_rows(&walk, &written);
}
