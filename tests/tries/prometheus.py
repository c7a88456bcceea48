"""A real Prometheus scrapes a real daemon for five minutes (ESID_TRY_S), with our rules. Run by `make tries`."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.fake_esi import FakeEsi, World
from tests.tools.daemon import ROOT, Daemon
from tests.tools.ports import free_ports
from tests.tools.waiting import wait_until

SECONDS, EVERY_S = float(os.environ.get("ESID_TRY_S", "300")), 2.0


def test_every_scrape_succeeds_and_the_rules_load(tmp_path: Path) -> None:
    world = World.generate(alliances=6, corporations=40, characters=80, npc_corporations=3)
    web, port = free_ports(2)
    config = (ROOT / "contrib" / "prometheus" / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8580", f"127.0.0.1:{web}").replace("15s", f"{EVERY_S:.0f}s")
    (tmp_path / "prometheus.yml").write_text(config)
    (tmp_path / "alerts.yml").write_text((ROOT / "contrib" / "prometheus" / "alerts.yml").read_text())

    def ask(query: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    def number(query: str) -> float:
        found = ask(query)
        return float(found[0]["value"][1]) if found else 0.0

    with FakeEsi(world) as esi, (tmp_path / "log").open("wb") as log:
        daemon = Daemon({
            "ESI_BASE_URL": esi.base_url, "ESID_HTTP_LISTEN": f"127.0.0.1:{web}", "ESID_DATA_DIR": str(tmp_path / "data"),
            "ESID_FEED_URL": "off",
        })  # fmt: skip
        daemon.start()
        prometheus = subprocess.Popen(
            [
                "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wanted = SECONDS / EVERY_S * 0.9
            wait_until(
                lambda: number('count_over_time(up{job="esid"}[1h])') >= wanted, SECONDS * 1.5 + 60, "the scrapes", 1.0
            )
            assert number('min_over_time(up{job="esid"}[1h])') == 1
            assert number("max_over_time(scrape_duration_seconds[1h])") < 1.0
            assert number('esid_ledger_jobs{entity="alliance",status="completed"}') == 6
            assert number('count({__name__=~"esid_.*"})') > 50
            assert ask('ALERTS{alertstate="firing"}') == []
        finally:
            prometheus.terminate()
            prometheus.wait(30)
            daemon.stop()
