"""What a read costs at one level more than at another: user instructions of the
client's whole way through a router that reads from a replica, counted by
callgrind in the router itself, over pgbench's prepared selects of one client.

Only the driver of clients is counted, not the thread's timers and the monitor,
whose share follows the clock.
"""
import re
import subprocess
import time
import urllib.request
from pathlib import Path

from lib import counters, servers

QUERIES = 2000
COUNTED = re.compile(r"keyway::engine::driver::Driver::poll\b")


def instructions(cluster, level):
    """Per query of a read at `level`, of one that a replica serves."""
    router = servers.Router(
        cluster, "tcp", sharded=True, level=level, under=["valgrind", "--tool=callgrind"]
    )
    try:
        script = router.dir / "read.sql"
        script.write_text("SELECT balance FROM accounts WHERE tenant_id = 42 AND id = 7;\n")

        def run(queries):
            counters.pgbench("127.0.0.1", router.port, "prepared", 1, 0, str(script), queries=queries)

        wait_for_replica(router, run)
        before = replica_reads(router)
        control(router, "--zero")
        run(QUERIES)
        control(router, "--dump")
        served = replica_reads(router) - before
        if served < QUERIES:
            raise SystemExit(f"only {served} of {QUERIES} reads at level {level} ran on the replica")
        [dump] = router.dir.glob("callgrind.out.*.1")
        return inclusive(dump) / QUERIES
    finally:
        router.stop()


def wait_for_replica(router, run):
    """Until the monitor has seen enough for reads to go to the replica."""
    for _ in range(60):
        before = replica_reads(router)
        run(100)
        if replica_reads(router) - before >= 100:
            return
        time.sleep(0.5)
    raise SystemExit("no read goes to the replica")


def replica_reads(router):
    """Reads that the router has sent to a replica."""
    url = f"http://127.0.0.1:{router.http_port}/metrics"
    page = urllib.request.urlopen(url, timeout=20).read().decode()
    found = re.findall(r'^keyway_reads_total\{reason="(?:any|proven)"\} (\d+)', page, re.M)
    return sum(map(int, found))


def control(router, order):
    subprocess.run(["callgrind_control", order, str(router.pid)], check=True, capture_output=True)


def inclusive(dump: Path):
    """Instructions of the counted function and all that it calls."""
    names, counts, inside = {}, 0, False
    for line in dump.read_text().splitlines():
        if line.startswith(("fn=", "cfn=")):
            key, _, name = line.partition("=")[2].partition(" ")
            name = names.setdefault(key, name)
            if line.startswith("fn="):
                inside = bool(COUNTED.search(name))
        elif inside and line and line[0] in "0123456789+-*":
            # Its own, or what a call took, which follows the line of the call.
            counts += int(line.split()[1])
    return counts
