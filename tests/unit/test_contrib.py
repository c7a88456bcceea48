"""What lies in contrib/ speaks of what exists: metrics, files, settings."""

from __future__ import annotations

import json
import re
import subprocess

from tests.daemon import ROOT

DOCUMENTED = set(re.findall(r"^\| `(esid_[a-z_]+)` \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.M))
HISTOGRAM = {f"esid_message_duration_seconds_{end}" for end in ("bucket", "sum", "count")}
RULES = ROOT / "contrib" / "prometheus" / "alerts.yml"


def test_the_alert_rules_use_metrics_that_exist_and_promtool_takes_them() -> None:
    expressions = re.findall(r"^ +expr: (.*)$", RULES.read_text(encoding="utf-8"), re.M)
    used = {name for one in expressions for name in re.findall(r"\besid_[a-z_]+", one)}
    assert len(used) >= 10
    assert used <= DOCUMENTED | HISTOGRAM
    for check in (["rules", str(RULES)], ["config", str(RULES.with_name("prometheus.yml"))]):
        ran = subprocess.run(["promtool", "check", *check], capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_dashboard_uses_metrics_that_exist() -> None:
    board = json.loads((ROOT / "contrib" / "grafana" / "esid.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for one in expressions for name in re.findall(r"\besid_[a-z_]+", one)}
    assert len(used) >= 15
    assert used <= DOCUMENTED | HISTOGRAM
