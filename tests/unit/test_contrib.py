"""What lies in contrib/ speaks of what exists: metrics, files, settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from esid import settings
from esid.daemon import child, supervisor
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


def program(name: str, *arguments: str) -> None:
    """Run a checker of this environment, which must have nothing to say against it."""
    ran = subprocess.run([Path(sys.executable).parent / name, *arguments], capture_output=True, check=False)
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()


def test_the_manifests_of_kubernetes_and_compose_are_valid() -> None:
    program("kubernetes-validate", "--strict", str(ROOT / "contrib" / "kubernetes" / "esid.yml"))
    program("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / "contrib" / "docker" / "compose.yml"))
    program("hadolint", str(ROOT / "contrib" / "docker" / "Dockerfile"))


@pytest.mark.parametrize("name", ["docker/compose.yml", "docker/Dockerfile", "kubernetes/esid.yml", "systemd/esid@.service"])
def test_deployments_name_settings_that_exist_and_wait_for_a_stop(name: str) -> None:
    text = (ROOT / "contrib" / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:ESI|ESID|DB)_[A-Z_]+|DATABASE_URL|RABBITMQ_URL|WORKER_TYPES)\b", text))
    assert {one for one in named if not one.endswith("_")} <= {setting.name for setting in settings.TABLE}
    if found := re.findall(r"(?:stop_grace_period: |terminationGracePeriodSeconds: |TimeoutStopSec=)(\d+)", text):
        assert int(found[0]) > supervisor.STOP_S


@pytest.mark.parametrize("name", ["esid.service", "esid@.service"])
def test_the_units_are_clean_and_hardened(name: str, tmp_path: Path) -> None:
    unit = ROOT / "contrib" / "systemd" / name
    # Given the program where the unit looks for it
    text = unit.read_text(encoding="utf-8").replace("/opt/esid/bin/esid", "/bin/true")
    (tmp_path / name).write_text(text)
    instance = tmp_path / name.replace("@.", "@characters.")
    instance.write_text(text)
    for command in (["verify", str(instance)], ["security", "--offline=true", "--threshold=20", str(instance)]):
        ran = subprocess.run(["systemd-analyze", *command], capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert command[0] == "security" or instance.name.encode() not in ran.stderr, ran.stderr
    # The manager waits longer for a word than we need to replace a process that hangs
    assert int(re.findall(r"^WatchdogSec=(\d+)$", text, re.M)[0]) > child.SILENT_S + child.TRACE_S
