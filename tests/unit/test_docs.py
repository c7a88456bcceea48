"""Docs that lie are bugs: commands, settings, tables and units in the docs are those of the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import esid.cli.main
import esid.cli.parser
from esid import __version__, catalogue, errors, settings
from esid.daemon import supervisor
from tests.tools import tables_page
from tests.tools.daemon import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
UNIT = (ROOT / "contrib" / "systemd" / "esid.service").read_text(encoding="utf-8")
PM2 = (ROOT / "contrib" / "pm2" / "ecosystem.config.js").read_text(encoding="utf-8")


def commands() -> dict[str, Any]:
    """Name -> parser of every command."""
    return dict(esid.cli.parser.Grammar().commands)


@pytest.mark.parametrize("name", commands())
def test_the_readme_names_the_command_and_its_options(name: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `esid {name}")]
    for option in (option for action in commands()[name]._actions for option in action.option_strings):
        if option not in {"-h", "--help", "--env-file"}:
            assert option in row, option


def test_every_command_takes_the_file_with_the_settings() -> None:
    assert all("--env-file" in one.format_help() for one in commands().values())
    assert "`--env-file PATH`" in README


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    named = set(re.findall(r"\besid ([a-z]+)\b(?=[^\n]*`)", "\n".join(re.findall(r"`[^`\n]+`", README))))
    assert named - {"esid"} <= set(commands())


@pytest.mark.parametrize("setting", settings.TABLE, ids=lambda setting: setting.name)
def test_the_example_has_every_setting_with_default_unit_and_meaning(setting: settings.Setting) -> None:
    assert f"# {setting.help} [{setting.unit}]\n#{setting.name}={setting.default}\n" in EXAMPLE


def test_the_example_has_no_setting_that_does_not_exist() -> None:
    assert set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.M)) == {setting.name for setting in settings.TABLE}


def test_the_readme_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"\b((?:ESI|ESID|DB)_[A-Z_]+|DATABASE_URL|RABBITMQ_URL|WORKER_TYPES)\b", README))
    known = {setting.name for setting in settings.TABLE} | {settings.FILE_SETTING}
    assert {name for name in named if not name.endswith("_")} <= known


def test_the_tables_page_is_that_of_the_models() -> None:
    assert tables_page.PATH.read_text(encoding="utf-8") == tables_page.page(), "`make docs` writes it anew"


def test_every_table_says_what_it_is() -> None:
    assert [model for model in tables_page.MODELS if len((model.__doc__ or "").split()) < 2] == []


#: Every error of ours.
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EsidError)]


def exit_codes() -> set[int]:
    """Every code that an error of ours ends in."""
    return {kind.exit_code for kind in KINDS}


def test_every_exit_code_stands_in_both_tables() -> None:
    in_readme = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.M)}
    in_cli = {int(code) for code in re.findall(r"^(\d+) +\S", str(esid.cli.main.__doc__), re.M)}
    assert in_readme == in_cli == exit_codes() | {0, 1, 130}


@pytest.mark.parametrize("name", [kind.__name__ for kind in KINDS])
def test_the_tree_in_the_docstring_has_every_error(name: str) -> None:
    assert re.search(rf"(^|[ ─]){name}\b", str(errors.__doc__), re.M)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_tree_in_the_docstring_says_whose_fault_an_error_is(kind: type[errors.EsidError]) -> None:
    words = {errors.Fault.PERSON: "person", errors.Fault.SOURCE: "source", errors.Fault.OURS: "ours"}
    word = words.get(kind.fault, kind.fault.value.removeprefix("the ").removesuffix(" to ESI"))
    line = next(line for line in str(errors.__doc__).splitlines() if re.search(rf"(^|[ ─]){kind.__name__}\b", line))
    # A kind below another one has its fault, where the tree names none.
    inherited = any(parent in KINDS and parent.fault is kind.fault for parent in kind.__mro__[1:])
    assert re.search(rf"\b{word}\b", line.partition(kind.__name__)[2]) or inherited


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_booked_on_an_id_or_held_by_its_fault_alone(kind: type[errors.EsidError]) -> None:
    # What a unit of work may meet: an id's own is counted, somebody else's is held, or counted while others are answered.
    if issubclass(kind, errors.EsiError):
        assert kind.fault in {errors.Fault.ID, errors.Fault.ROUTE, errors.Fault.ESI, errors.Fault.WAY}
        assert kind.max_attempts > 1 or kind.fault in {errors.Fault.ID, errors.Fault.ROUTE} or kind is errors.EsiError
    else:
        assert kind.fault not in {errors.Fault.ID, errors.Fault.ROUTE, errors.Fault.ESI, errors.Fault.WAY}


def test_the_readme_names_every_lane() -> None:
    for name in catalogue.NAMES:
        assert f"`{name}`" in README


def test_the_service_managers_wait_longer_than_a_stop_takes() -> None:
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)[0]) > supervisor.STOP_S
    assert int(re.findall(r"kill_timeout: (\d+)", PM2)[0]) / 1000 > supervisor.STOP_S
    assert "treekill: false" in PM2
    assert "KillMode=mixed" in UNIT


def test_the_service_managers_restart_only_what_a_restart_may_cure() -> None:
    codes = {int(code) for code in re.findall(r"^RestartPreventExitStatus=(.*)$", UNIT, re.M)[0].split()}
    assert codes == exit_codes() - {69, 70}
    assert re.findall(r"stop_exit_codes: \[(.*)\]", PM2)[0] == ", ".join(map(str, [0, *sorted(codes)]))


def test_the_changelog_knows_the_version() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    printed = subprocess.run([sys.executable, "-m", "esid", "version"], capture_output=True, check=True, cwd=ROOT)
    assert printed.stdout.decode().strip() == f"esid {__version__}"


# -- the walk


def defined() -> set[str]:
    """Every function and class of esid by its name, with that of its module or package before it, and every method."""
    found = set()
    for path in (ROOT / "esid").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found |= {node.name, f"{path.stem}.{node.name}", f"{path.parent.name}.{node.name}"}
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return found


def test_the_walk_names_no_function_and_no_class_that_does_not_exist() -> None:
    walk = (ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
    named = set(re.findall(r"([A-Za-z_.]+)\(\)", walk)) | set(re.findall(r"`([A-Z][a-z]+[A-Za-z]*)`", walk))
    assert len(named) > 50
    assert named <= defined()


# -- the index


def test_the_index_names_every_page_of_the_docs_and_no_other() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in docs.glob("*.md")} - {"README.md"}
    assert sorted(re.findall(r"^\| \[(.+)\]\(\1\) \| .+\? \|$", index, re.M)) == sorted({*pages, "adr/"})


def test_each_decision_has_a_number_of_its_own_which_its_title_bears() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    titles = [page.read_text(encoding="utf-8").split(".")[0] for page in pages]
    assert titles == [f"# {number + 1}" for number in range(len(pages))]
    assert [page.name[:4] for page in pages] == [f"{number + 1:04}" for number in range(len(pages))]


# -- links

PAGES = [path for folder in (".", "docs", "docs/adr", "bench") for path in sorted((ROOT / folder).glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if ":" not in path:
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


# -- the version


@pytest.mark.parametrize("page", ["contrib/docker/compose.yml", "contrib/kubernetes/esid.yml", "docs/operating.md"])
def test_every_page_that_names_the_version_names_this_one(page: str) -> None:
    named = re.findall(r"\besid[:-](\d+\.\d+\.\d+)", (ROOT / page).read_text(encoding="utf-8"))
    assert set(named) == {__version__}


def test_the_changelog_has_a_day_for_each_version_and_ends_at_this_one() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert titles[0] == "[Unreleased]"
    assert titles[1].startswith(f"[{__version__}] - ")
    assert [one for one in titles[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - 20\d\d-\d\d-\d\d", one)] == []
