"""Modules of tests share what lies in `tests/tools`; they do not import one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.tools.daemon import ROOT

FILES = [path for folder in ("tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports at any place, and every name that may be one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name_of(path).split(".")[: -node.level] if node.level else []
            module = ".".join([*above, *(node.module or "").split(".")]).rstrip(".")
            yield from (module, *(f"{module}.{one.name}" for one in node.names))


def test_no_module_imports_a_test_module_or_a_conftest() -> None:
    tests = {name_of(path) for path in FILES if path.name == "conftest.py" or path.name.startswith("test_")}
    assert len(tests) > 100
    assert [f"{name_of(path)}: {name}" for path in FILES for name in imported(path) if name in tests] == []
