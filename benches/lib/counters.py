"""What a process has cost so far, as the system counts it, and pgbench's runs.

CPU is the run time of all threads in nanoseconds (schedstat), which is exact,
where user and system time are sampled by ticks; those two give the kernel's
share only.
"""
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    run_ns: int
    user_ticks: int
    kernel_ticks: int
    switches: int

    def __sub__(self, other):
        return Cost(
            self.run_ns - other.run_ns,
            self.user_ticks - other.user_ticks,
            self.kernel_ticks - other.kernel_ticks,
            self.switches - other.switches,
        )


def cost(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    total = Cost(0, int(fields[11]), int(fields[12]), 0)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            total.run_ns += int((thread / "schedstat").read_text().split()[0])
            total.switches += status(thread, "voluntary_ctxt_switches")
        except FileNotFoundError:
            pass  # a thread that has just ended
    return total


def status(folder, name):
    found = re.search(rf"^{name}:\s*(\d+)", (folder / "status").read_text(), re.M)
    return int(found.group(1))


def resident_kib(pid):
    return status(Path(f"/proc/{pid}"), "VmRSS")


def is_traced(pid):
    return status(Path(f"/proc/{pid}"), "TracerPid") != 0


class Failed(Exception):
    """pgbench gave no figures."""


def pgbench(host, port, protocol, clients, seconds, script=None, user="app", password="", queries=0):
    """One run of selects, so many seconds long or, per client, so many
    `queries`; transactions done, and per second."""
    length = ["-t", str(queries)] if queries else ["-T", str(seconds)]
    command = ["pgbench", "-n", "-M", protocol, "-c", str(clients), "-j", "1", *length]
    command += ["-h", host, "-p", str(port), "-U", user]
    command += ["-f", script] if script else ["-S"]
    env = {**os.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
    env |= {"PGPASSWORD": password, "PGCONNECT_TIMEOUT": "10"}
    done = subprocess.run(
        command + ["app"], capture_output=True, text=True, env=env, timeout=seconds + 60, check=False
    )
    count = re.search(r"transactions actually processed: (\d+)", done.stdout)
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.M)
    if done.returncode or not count or not int(count.group(1)):
        raise Failed((done.stderr.strip().splitlines() or ["pgbench said nothing"])[-1][:160])
    return int(count.group(1)), float(rate.group(1))


def system_calls(pid, run):
    """Calls by name that process `pid` makes while `run()` runs, and its result."""
    with tempfile.NamedTemporaryFile("r", prefix="keyway-strace") as report:
        command = ["strace", "-f", "-c", "-o", report.name, "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            # It says so once it is attached to every thread.
            tracer.stderr.readline()
            result = run()
        finally:
            # Left behind, it would spoil all that is measured after it.
            tracer.send_signal(2)
            tracer.communicate()
        calls = {}
        for line in report.read().splitlines():
            fields = line.split()
            if len(fields) >= 5 and re.match(r"^[\d.]+$", fields[0]) and fields[-1] != "total":
                calls[fields[-1]] = int(fields[3])
        return calls, result
