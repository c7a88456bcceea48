"""The page in a real Chromium: no error, no request to anybody else, accessible, dark, on a phone, without script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from esid.store.connection import Store
from tests.tools.daemon import Daemon
from tests.tools.ports import free_ports
from tests.tools.stacks import STACKS, Stack
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.parametrize("stack", [STACKS[0]], indirect=True)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@contextmanager
def browser(profile: Path, *, width: int = 1280, scheme: str = "light", script: bool = True) -> Iterator[webdriver.Chrome]:
    """A Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},1200"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if width < 500:
        metrics = {"width": width, "height": 800, "pixelRatio": 2}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    if not script:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    made = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        made.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        yield made
    finally:
        made.quit()


@pytest.fixture
def address(daemon: Daemon) -> str:
    """The page of a daemon that has something to show."""
    (port,) = free_ports(1)
    daemon.settings |= {"ESID_HTTP_LISTEN": f"127.0.0.1:{port}", "ESID_FEED_URL": "off"}
    daemon.start()
    daemon.ok("enqueue", "character", "95999999")
    return f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_is_accessible_and_quiet(address: str, tmp_path: Path, width: int, scheme: str) -> None:
    with browser(tmp_path / "profile", width=width, scheme=scheme) as chrome:
        chrome.get(address)
        assert "ESI's limits" in chrome.page_source
        background = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(13, 17, 23)") == (scheme == "dark")
        # Readable without scrolling sideways
        assert chrome.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        # Accessible: axe finds nothing, whatever its weight
        chrome.execute_script((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = chrome.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
        assert [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found] == []
        # Nothing in the console, and nobody else was asked for anything
        assert chrome.get_log("browser") == []
        events = [json.loads(one["message"])["message"] for one in chrome.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert len(asked) >= 3
        assert [url for url in asked if not url.startswith((address, "data:", "chrome"))] == []


def test_it_refreshes_itself_with_script_and_is_whole_without(address: str, stack: Stack, tmp_path: Path) -> None:
    with browser(tmp_path / "without", script=False) as chrome:
        chrome.get(address)
        assert "Schedule" in chrome.page_source
        assert 'http-equiv="refresh"' in chrome.page_source
    with browser(tmp_path / "with") as chrome:
        chrome.get(address)
        assert "a_new_field" not in chrome.page_source
        store, stamp = Store(stack.database_url), "2026-01-01 00:00:00.000000+00:00"
        columns = ("entity_type", "field", "count", "first_at", "last_at")
        store.run(lambda: store.insert("unknown_fields", columns, [("alliance", "a_new_field", 1, stamp, stamp)]))
        store.close()
        wait_until(lambda: "a_new_field" in chrome.page_source, 30, "the page to refresh itself", every_s=0.2)


def test_it_says_when_esid_does_not_answer_any_more(address: str, daemon: Daemon, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as chrome:
        chrome.get(address)
        assert daemon.stop() == 0
        wait_until(lambda: "what is shown is old" in chrome.page_source, 30, "the note", every_s=0.2)
        assert "ESI's limits" in chrome.page_source
