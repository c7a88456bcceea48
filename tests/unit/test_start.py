"""A command of people imports what it needs and no more: importing is nearly all of the time that it takes."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import esid.entities
from esid import settings
from esid.assembly import core
from esid.catalogue import NAMES
from esid.cli import typed
from esid.entities import BY_NAME, MIRRORED
from esid.feeds.archives import HASHES, SOURCES

IMPORTED = """
import sys
from esid.cli.main import main
code = main(sys.argv[2:])
print(code, *sorted(set(sys.argv[1].split(",")) & set(sys.modules)), file=sys.stderr)
"""
LIBRARIES = (
    "peewee",
    "psycopg2",
    "dramatiq",
    "pika",
    "requests",
    "apscheduler.schedulers.background",
    "jinja2",
    "prometheus_client",
)


@pytest.mark.parametrize(
    ("words", "imported"),
    [
        ("version", ()),
        ("config", ()),
        ("dead list", ("dramatiq", "peewee", "psycopg2")),
        ("enqueue alliance 99000006", ("dramatiq", "peewee", "psycopg2")),
        ("status", ("dramatiq", "peewee", "psycopg2")),
    ],
)
def test_a_command_imports_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, imported: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ESID_DATA_DIR", str(tmp_path / "data"))
    core.set_up_store(settings.read()).close()
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED, ",".join(LIBRARIES), *words.split()],
        env={"ESID_DATA_DIR": str(tmp_path / "data"), "ESI_CONTACT": "you@example.com"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stderr.splitlines()[-1].split() == ["0", *imported]


def test_no_page_and_no_flow_of_an_entity_imports_what_only_a_worker_needs() -> None:
    modules = [one.name for one in pkgutil.iter_modules(esid.entities.__path__, "esid.entities.")]
    told = f"import sys; import {', '.join(modules)}; print(*{set(LIBRARIES)!r} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True)
    assert set(ran.stdout.split()) <= {"peewee", "psycopg2"}


def test_the_words_of_the_command_line_are_those_of_what_they_stand_for() -> None:
    assert (*SOURCES, HASHES) == typed.IMPORT_SOURCES
    assert {entity.lane for entity in BY_NAME.values()} == set(NAMES)
    assert sorted(typed.ROW_NAMES) == sorted(entity.name for entity in MIRRORED)
    assert {*typed.LIST_NAMES, *typed.ROW_NAMES} == BY_NAME.keys()
    assert typed.SYNC_NAMES == ("alliances", "corporations", "characters")
