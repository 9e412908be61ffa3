"""Figures as a table: medians, spreads, and ratios to pgbouncer within a round.

A ratio is taken between two runs of the same round, which lie seconds apart, and
its median and range are over the rounds: what loads the machine meanwhile loads
both.
"""
import math
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What is compared: all targets of one row run the same queries."""

    workload: str  # "one database", "two shards" or "several threads"
    protocol: str
    clients: int
    via: str  # how Postgres is reached: "tcp" or "unix"

    def title(self):
        return f"{self.protocol}, {self.clients} clients"


def summary(runs, base):
    """Of one target's runs and pgbouncer's, both by round; None if there are none."""
    if not runs:
        return None
    us = [run["us"] for run in runs.values()]
    out = {
        "tps": statistics.median(run["tps"] for run in runs.values()),
        "us": statistics.median(us),
        "us_min": min(us),
        "us_max": max(us),
        "kernel": statistics.median(run["kernel"] for run in runs.values()),
        "switches": statistics.median(run["switches"] for run in runs.values()),
    }
    ratios = [run["us"] / base[n]["us"] for n, run in runs.items() if n in base and base[n]["us"]]
    if ratios:
        out |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return out


# What a row's ratios are to: the first of these that it has.
BASES = ("pgbouncer", "1 thread")


def base_of(targets):
    return next((name for name in BASES if name in targets), None)


def summaries(results):
    """Of every row: {target: summary}, in the order of measuring."""
    rows = {}
    for result in results:
        row = Row(result["workload"], result["protocol"], result["clients"], result["via"])
        runs = {int(n): run for n, run in result["rounds"].items()}
        rows.setdefault(row, {})[result["target"]] = runs
    return {
        row: {
            target: summary(runs, targets.get(base_of(targets), {})) for target, runs in targets.items()
        }
        for row, targets in rows.items()
    }


def means(rows):
    """Geometric means of the ratios of what is measured, by workload and socket."""
    groups = {}
    for row, targets in rows.items():
        found = targets.get("keyway") or targets.get("2 threads")
        if found and "ratio" in found:
            groups.setdefault((row.workload, row.via), []).append(found["ratio"])
    return {
        group: (math.exp(statistics.fmean(map(math.log, ratios))), len(ratios))
        for group, ratios in groups.items()
    }


VIA = {"tcp": "TCP", "unix": "Unix sockets"}


def table(report):
    """The whole report in Markdown."""
    rows = summaries(report["results"])
    lines = []
    # Parts that were measured in other runs say so.
    settings = report["settings"]
    for setting in dict.fromkeys(settings.values()):
        parts = [part for part, one in settings.items() if one == setting]
        apart = f"{', '.join(parts)}: " if len(set(settings.values())) > 1 else ""
        lines += [f"{apart}{setting}", ""]
    for group in dict.fromkeys((row.workload, row.via) for row in rows):
        workload, via = group
        base = next(base_of(targets) for row, targets in rows.items() if (row.workload, row.via) == group)
        lines += [
            f"**{workload}, {VIA[via]} to Postgres**",
            "",
            "| | target | queries/s | CPU µs/query (min–max) | kernel | switches/query |"
            f" × {base or '–'} (min–max) |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        for row, targets in rows.items():
            if (row.workload, row.via) != group:
                continue
            title = row.title()
            for target, found in targets.items():
                lines.append(f"| {title} | {target} | {cells(target, found, base)} |")
                title = ""
        mean = means(rows).get(group)
        if mean:
            lines += ["", f"Geometric mean of {mean[1]} ratios to {base}: **{mean[0]:.2f}**."]
        lines.append("")
    if report.get("idle"):
        lines += idle_table(report["idle"])
    for note in report.get("notes", []):
        lines.append(f"* {note}")
    return "\n".join(lines).rstrip() + "\n"


def cells(target, found, base):
    if found is None:
        return "– | – | – | – | –"
    if target == "direct":
        return f"{found['tps']:.0f} | | | |"
    cpu = f"{found['us']:.1f} ({found['us_min']:.1f}–{found['us_max']:.1f})"
    ratio = ""
    if target != base:
        ratio = "–"
        if "ratio" in found:
            ratio = f"**{found['ratio']:.2f}** ({found['ratio_min']:.2f}–{found['ratio_max']:.2f})"
    kernel = f"{100 * found['kernel']:.0f} %"
    return f"{found['tps']:.0f} | {cpu} | {kernel} | {found['switches']:.2f} | {ratio}"


def idle_table(idle):
    lines = [
        "**Idle clients: resident memory, MiB, without TLS**",
        "",
        "| | clients | at the start | connected | after one query each | per client |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for target, found in idle.items():
        start, connected, queried = (found[f"{k}_kib"] for k in ("start", "connected", "queried"))
        each = (queried - start) / max(found["clients"], 1)
        mib = [f"{kib / 1024:.1f}" for kib in (start, connected, queried)]
        lines.append(f"| {target} | {found['clients']} | {' | '.join(mib)} | {each:.1f} KiB |")
    return lines + [""]
