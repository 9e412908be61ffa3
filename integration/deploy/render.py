"""Lints the chart and renders it with Helm's own library.

    render.py CHART VALUES     VALUES is JSON; prints JSON: findings, manifests
"""

import json
import sys

import helm_python as helm

chart, values = sys.argv[1], json.loads(sys.argv[2])
findings = helm.lint(chart)
with helm.Chart.load(chart) as loaded:
    manifests = loaded.render(values, name="demo", namespace="prod")
print(json.dumps({"findings": findings, "manifests": manifests}))
