"""What lies in contrib/ speaks of what exists: metrics, files, settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

from esid import __version__, settings
from esid.daemon import child, supervisor
from tests.tools.daemon import ROOT

DOCUMENTED = set(re.findall(r"^\| `(esid_[a-z_]+)` \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.M))
HISTOGRAM = {f"esid_message_duration_seconds_{end}" for end in ("bucket", "sum", "count")}
RULES = ROOT / "contrib" / "prometheus" / "alerts.yml"


@pytest.mark.heavy
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


@pytest.mark.heavy
def test_the_manifests_of_kubernetes_and_compose_are_valid() -> None:
    program("kubernetes-validate", "--strict", str(ROOT / "contrib" / "kubernetes" / "esid.yml"))
    program("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / "contrib" / "docker" / "compose.yml"))
    program("hadolint", str(ROOT / "contrib" / "docker" / "Dockerfile"))


IMAGE = f"esid:{__version__}"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "contrib" / "docker" / "compose.yml").read_text(encoding="utf-8"))
MANIFESTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((ROOT / "contrib" / "kubernetes" / "esid.yml").read_text(encoding="utf-8"))
)


def test_the_image_that_compose_and_kubernetes_name_is_the_one_that_make_builds() -> None:
    # Called by another make, as `make test` does it, make says in which directory it is.
    command = ["make", "--no-print-directory", "-n", "image"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tagged = subprocess.run(
        ["sh", "-c", f"docker() {{ echo $4; echo $5; }}; {ran.stdout}"], cwd=ROOT, capture_output=True, check=True
    )
    assert tagged.stdout.split() == [b"--tag", IMAGE.encode()]
    pod = MANIFESTS[0]["spec"]["template"]["spec"]
    assert {one["image"] for one in pod["initContainers"] + pod["containers"]} == {IMAGE}
    assert COMPOSE["services"]["esid"]["image"] == IMAGE
    build = COMPOSE["services"]["esid"]["build"]
    assert (ROOT / "contrib" / "docker" / build["context"] / build["dockerfile"]).is_file()


def test_what_kubernetes_gets_can_be_applied_again_with_another_release() -> None:
    # The template of a Job cannot be changed: the schema is migrated by each pod before it runs.
    assert [one["kind"] for one in MANIFESTS] == ["Deployment"]
    pod = MANIFESTS[0]["spec"]["template"]["spec"]
    assert [one["args"] for one in pod["initContainers"] + pod["containers"]] == [["migrate"], ["run"]]
    assert pod["initContainers"][0]["envFrom"] == pod["containers"][0]["envFrom"]
    # No release runs beside another one, whose schema it refuses.
    assert MANIFESTS[0]["spec"]["strategy"] == {"type": "Recreate"}


def test_compose_comes_back_after_a_reboot_and_finds_its_queues() -> None:
    assert {one["restart"] for one in COMPOSE["services"].values()} == {"unless-stopped"}
    assert COMPOSE["services"]["rabbitmq"]["hostname"]


@pytest.mark.heavy
def test_only_what_the_package_is_made_of_reaches_the_image(tmp_path: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    # Given a copy of what is let in, as docker reads it: all is left out but what is named
    assert rules[0] == "*"
    named = [rule[1:] for rule in rules if rule.startswith("!")]
    assert {"**/.env*", "**/*.db*"} <= set(rules[rules.index(f"!{named[-1]}") + 1 :])
    assert not any("*" in name or ".env" in name for name in named)
    for name in named:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    # When the package is made of it
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(tmp_path)]
    subprocess.run(build, capture_output=True, check=True)
    # Then it is whole
    (wheel,) = (tmp_path / "dist").iterdir()
    inside = set(ZipFile(wheel).namelist())
    whole = {
        str(path.relative_to(ROOT))
        for kind in ("py", "sql", "css", "html", "js")
        for path in (ROOT / "esid").rglob(f"*.{kind}")
    }
    assert whole <= inside


def test_esid_is_on_the_path_of_the_image() -> None:
    text = (ROOT / "contrib" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert "ENV PATH=/opt/esid/bin:$PATH" in text
    assert 'ENTRYPOINT ["esid"]' in text


@pytest.mark.parametrize("name", ["docker/compose.yml", "docker/Dockerfile", "kubernetes/esid.yml", "systemd/esid@.service"])
def test_deployments_name_settings_that_exist_and_wait_for_a_stop(name: str) -> None:
    text = (ROOT / "contrib" / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:ESI|ESID|DB)_[A-Z_]+|DATABASE_URL|RABBITMQ_URL|WORKER_TYPES)\b", text))
    assert {one for one in named if not one.endswith("_")} <= {setting.name for setting in settings.TABLE}
    if found := re.findall(r"(?:stop_grace_period: |terminationGracePeriodSeconds: |TimeoutStopSec=)(\d+)", text):
        assert int(found[0]) > supervisor.STOP_S


@pytest.mark.heavy
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
    # What esid reads by itself systemd does not read in its own way: quotes and backslashes would mean something else.
    assert re.findall(r"^EnvironmentFile=(.*)$", text, re.M) == ([] if name == "esid.service" else ["/etc/esid/%i.env"])
    # The manager waits longer for a word than we need to replace a process that hangs
    assert int(re.findall(r"^WatchdogSec=(\d+)$", text, re.M)[0]) > child.SILENT_S + child.TRACE_S


def test_no_command_of_the_docs_shows_a_password_or_breaks_on_a_quote() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "contrib").rglob("*.*")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"\$\(cat [^)]*env\)|`cat [^`]*env`", text), page
        assert not re.search(r"--from-literal=\S*(URL|PASSWORD)|DB_PASSWORD=\S+ docker", text), page
