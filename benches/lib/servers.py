"""The servers of a measurement: Postgres, pgbouncer and the router, each started
for it and ended with it. It does not measure.

All clients log in by trust, so that a run's logins cost every target the same;
the targets themselves log in at Postgres with a password, once per connection.
"""
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POOL_SIZE = 20
# pgbench's own tables, and the sharded rows: so many tenants with so many accounts.
TENANTS = 1000
ACCOUNTS = 1000
SLOTS = 4096


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, what):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{what} ended with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{what} does not listen on port {port}")


class Cluster:
    """Postgres servers of `keyway local`, in a folder that goes with them."""

    def __init__(self, keyway, shards, settings=(), replicas=0):
        self.keyway = keyway
        self.dir = Path(tempfile.mkdtemp(prefix="keyway-bench-"))
        self.dir.chmod(0o755)
        command = [keyway, "local", "up", "--dir", self.dir / "cluster", "--shards", str(shards)]
        command += ["--replicas", str(replicas), "--port", str(free_port()), "--fast", "--detach", "--json"]
        for setting in settings:
            command += ["--set", setting]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"keyway local: {done.stderr}")
        self.view = json.loads(done.stdout)
        self.version = self.view["postgres"]
        self.socket_dir = self.view["socket_dir"]
        self.user = self.view["user"]
        self.password = self.view["password"]

    def port(self, shard=1):
        return self.view["shards"][shard - 1]["primary"]["port"]

    def url(self, shard=1):
        return self.view["shards"][shard - 1]["primary"]["url"]

    def replica_url(self, shard=1):
        return self.view["shards"][shard - 1]["replicas"][0]["url"]

    def backend_url(self, via, shard=1):
        """As the router is told it: over TCP, or by the Unix socket."""
        login = f"postgres://{self.user}:{self.password}@"
        if via == "tcp":
            return f"{login}127.0.0.1:{self.port(shard)}/app?sslmode=disable"
        folder = urllib.parse.quote(self.socket_dir, safe="")
        return f"{login}/app?host={folder}&port={self.port(shard)}&sslmode=disable"

    def host(self, via):
        return "127.0.0.1" if via == "tcp" else self.socket_dir

    def psql(self, shard, sql):
        subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", self.url(shard), "-c", sql], check=True)

    def fill_pgbench(self, scale):
        command = ["pgbench", "-i", "-q", "-s", str(scale), self.url()]
        subprocess.run(command, check=True, capture_output=True)

    def fill_tenants(self):
        """Each shard gets the tenants whose slots it owns, by Postgres's own hash."""
        for shard in self.view["shards"]:
            first, last = shard["slots"]
            self.psql(
                shard["number"],
                "CREATE TABLE accounts (tenant_id int8 NOT NULL, id int4 NOT NULL,"
                " balance int4 NOT NULL, filler char(84), PRIMARY KEY (tenant_id, id));"
                f" INSERT INTO accounts SELECT t, i, 0, '' FROM generate_series(1, {TENANTS}) t,"
                f" generate_series(1, {ACCOUNTS}) i WHERE hashint8extended(t, 0) & {SLOTS - 1}"
                f" BETWEEN {first} AND {last}",
            )
            self.psql(shard["number"], "VACUUM ANALYZE accounts")

    def map(self, via, level=None):
        """The shard map of the tenants' tables, and the level of reads from replicas."""
        lines = ["epoch = 1", 'database = "app"', 'home = "shard1"']
        if level:
            lines.append(f'consistency = "{level}"')
        ranges = []
        for shard in self.view["shards"]:
            lines += [
                "[[shard]]",
                f"number = {shard['number']}",
                f"name = \"{shard['name']}\"",
                f'user = "{self.user}"',
                'password_env = "PGPASSWORD"',
                'tls = "disable"',
                f'primary = {{ host = "{self.host(via)}", port = {shard["primary"]["port"]} }}',
            ]
            replicas = [
                f'{{ host = "{self.host(via)}", port = {replica["port"]} }}'
                for replica in shard["replicas"]
            ]
            lines.append(f"replicas = [{', '.join(replicas)}]")
            first, last = shard["slots"]
            ranges.append(f'{shard["name"]} = ["{first}-{last}"]')
        lines += [
            "[[keyspace]]",
            'name = "tenants"',
            'type = "int8"',
            f"slots = {SLOTS}",
            f"ranges = {{ {', '.join(ranges)} }}",
            "[[key_rule]]",
            'keyspace = "tenants"',
            'column = "tenant_id"',
            'tables = ["public.accounts"]',
        ]
        return "\n".join(lines) + "\n"

    def stop(self):
        command = [self.keyway, "local", "down", "--dir", self.dir / "cluster"]
        subprocess.run(command, capture_output=True, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


class Server:
    """A process before Postgres, with a folder of its own."""

    def __init__(self, name):
        self.name = name
        self.port = free_port()
        self.dir = Path(tempfile.mkdtemp(prefix=f"keyway-bench-{name}-"))
        self.dir.chmod(0o755)
        self.process = None

    def start(self, command, env=None, limits=None):
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.dir,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                preexec_fn=limits,
            )
        wait_for_port(self.port, self.process, self.name)

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Pgbouncer(Server):
    def __init__(self, cluster, via, program="pgbouncer"):
        super().__init__(f"pgbouncer-{via}")
        # It refuses to run as root; the servers' own user may use their sockets.
        owner = pwd.getpwuid(os.stat(cluster.socket_dir).st_uid).pw_name
        (self.dir / "users").write_text(f'"{cluster.user}" "{cluster.password}"\n')
        (self.dir / "ini").write_text(
            "[databases]\n"
            f"app = host={cluster.host(via)} port={cluster.port()} dbname=app\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self.dir}/users\npool_mode = transaction\n"
            f"default_pool_size = {POOL_SIZE}\nmax_client_conn = 20000\n"
            "log_connections = 0\nlog_disconnections = 0\nserver_tls_sslmode = disable\n"
            # Prepared statements in transaction mode, from 1.21 on.
            + ("max_prepared_statements = 200\n" if can_prepare(program) else "")
        )
        command = [program, str(self.dir / "ini")]
        if os.getuid() == 0:
            for file in self.dir.iterdir():
                shutil.chown(file, owner)
            command[1:1] = ["-u", owner]
        self.start(command)


class Router(Server):
    """`keyway serve` of one database, or of the tenants' shards."""

    def __init__(self, cluster, via, sharded=False, limits=None, threads=1, level=None, under=()):
        super().__init__(f"keyway-{'sharded-' if sharded else ''}{via}")
        lines = [f'listen = ["127.0.0.1:{self.port}"]', f'state_dir = "{self.dir}/state"']
        lines.append(f"threads = {threads}")
        self.http_port = free_port()
        if level:
            lines.append(f'http_listen = "127.0.0.1:{self.http_port}"')
        if sharded:
            (self.dir / "map.toml").write_text(cluster.map(via, level))
            lines.append(f'maps = ["{self.dir}/map.toml"]')
        else:
            lines.append(f'backend = "{cluster.backend_url(via)}"')
        lines += ["[pool]", f"size_max = {POOL_SIZE}"]
        lines += ["[limits]", "clients_max = 20000"]
        lines += ["[log]", 'level = "warn"']
        lines += ["[[user]]", f'name = "{cluster.user}"', "trust = true"]
        (self.dir / "keyway.toml").write_text("\n".join(lines) + "\n")
        command = [*under, str(cluster.keyway), "serve", "--config", str(self.dir / "keyway.toml")]
        self.start(command, {"PGPASSWORD": cluster.password}, limits)


def pgbouncer_version(program="pgbouncer"):
    """As numbers, such as (1, 18); none if there is no pgbouncer."""
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not found:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.split()[1].split(".")[:2])


def can_prepare(program="pgbouncer"):
    """Before 1.21 prepared statements need pool_mode = session."""
    version = pgbouncer_version(program)
    return version is not None and version >= (1, 21)
