"""The chart of a report: CPU per query of pgbouncer and Keyway, with the spread
of the rounds, as an SVG that reads on light and on dark ground.
"""
import math

from .report import VIA, summaries

WIDTH, LEFT, RIGHT, TOP = 860, 190, 70, 78
BAR, GAP, GROUP_GAP, HEADING = 13, 2, 12, 30

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 17px; font-weight: 600 }
  .heading { font-weight: 600 }
  .small { font-size: 11px; fill: #57606a }
  .grid { stroke: #d0d7de }
  .spread { stroke: #24292f; stroke-opacity: .65 }
  .pgbouncer { fill: #8c959f }
  .keyway { fill: #1f77d0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .spread { stroke: #e6edf3 }
    .pgbouncer { fill: #767e88 }
    .keyway { fill: #4aa3ff }
  }
"""


def draw(report):
    # What stands beside pgbouncer; the rows of threads are a table only.
    rows = {row: targets for row, targets in summaries(report["results"]).items() if "keyway" in targets}
    measured = [found for targets in rows.values() for name, found in targets.items() if name != "direct" and found]
    most = max((found["us_max"] for found in measured), default=1)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if most / s <= 9)
    top_value = math.ceil(most / step) * step
    scale = (WIDTH - LEFT - RIGHT) / top_value

    body, y = [], TOP
    for group in dict.fromkeys((row.workload, row.via) for row in rows):
        y += HEADING
        body.append(text(LEFT, y - 9, f"{group[0]}, {VIA[group[1]]} to Postgres", "heading"))
        for row, targets in rows.items():
            if (row.workload, row.via) != group:
                continue
            bars = [(name, targets.get(name)) for name in ("pgbouncer", "keyway")]
            middle = y + BAR + GAP / 2 + 4
            body.append(text(LEFT - 10, middle, row.title(), anchor="end"))
            for name, found in bars:
                body += bar(name, found, y, scale)
                y += BAR + GAP
            y += GROUP_GAP
    bottom = y

    grid = []
    for n in range(int(top_value / step) + 1):
        x = LEFT + n * step * scale
        grid.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        grid.append(text(x, bottom + 16, f"{n * step:g}", "small", "middle"))
    axis = text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, "CPU per query, microseconds (less is better)", anchor="middle")
    legend = [
        f'<rect class="pgbouncer" x="{LEFT}" y="50" width="14" height="{BAR}"/>',
        text(LEFT + 20, 61, f"pgbouncer {report['pgbouncer']}"),
        f'<rect class="keyway" x="{LEFT + 150}" y="50" width="14" height="{BAR}"/>',
        text(LEFT + 170, 61, "Keyway, and × pgbouncer"),
        text(LEFT + 350, 61, "lines: least and most of the rounds", "small"),
    ]
    height = bottom + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        f' width="{WIDTH}" height="{height:.0f}" role="img" aria-labelledby="title">',
        '<title id="title">CPU per query of pgbouncer and Keyway</title>',
        f"<style>{STYLE}</style>",
        text(20, 30, "CPU per query: pgbench's selects, pool of 20, transaction mode", "title"),
        *legend,
        *grid,
        *body,
        axis,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def bar(name, found, y, scale):
    if not found:
        return [text(LEFT + 6, y + BAR - 2, f"{name}: not measured", "small")]
    end = LEFT + found["us"] * scale
    low, high = (LEFT + found[key] * scale for key in ("us_min", "us_max"))
    middle = y + BAR / 2
    label = f"{found['us']:.1f}"
    if "ratio" in found and name == "keyway":
        label += f"  × {found['ratio']:.2f}"
    return [
        f'<rect class="{name}" x="{LEFT}" y="{y:.1f}" width="{end - LEFT:.1f}" height="{BAR}"/>',
        f'<line class="spread" x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}"/>',
        text(max(end, high) + 6, y + BAR - 2, label, "small"),
    ]


def text(x, y, words, kind=None, anchor=None):
    extra = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{words}</text>'
