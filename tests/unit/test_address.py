"""Addresses of PostgreSQL, as libpq and Prisma write them."""

from __future__ import annotations

import pytest

from esid.errors import SettingsError
from esid.store import address
from esid.store.address import libpq


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("postgresql://me:p%40@db/esid", {"user": "me", "password": "p@", "host": "db", "dbname": "esid"}),
        ("POSTGRES://db/esid?connection_limit=5&schema=public", {"host": "db", "dbname": "esid"}),
        ("postgresql:///esid?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "esid"}),
        ("postgresql://a:1,b:2/esid", {"host": "a,b", "port": "1,2", "dbname": "esid"}),
        ("postgresql://db/esid?schema=eve", {"host": "db", "dbname": "esid", "options": '-c search_path="eve"'}),
        ("postgresql://db/e?schema=My%20%22s", {"host": "db", "dbname": "e", "options": '-c search_path="My\\ ""s"'}),
        ("postgresql://db/e?options=-cgeqo%3Doff&schema=x",
         {"host": "db", "dbname": "e", "options": '-cgeqo=off -c search_path="x"'}),
    ],
)  # fmt: skip
def test_every_form_is_understood(url: str, parts: dict[str, str]) -> None:
    assert libpq(url) == parts


def test_without_a_host_the_socket_of_this_machine_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_SOCKETS", address.Path("/"))
    assert libpq("postgresql:///esid") == {"dbname": "esid", "host": "/"}
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert libpq("postgresql:///esid") == {"dbname": "esid"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:secret@db/esid?foo=1", r"me:\*\*\*@db/esid cannot be read: .*foo"),
        ("postgresql://db", "names no database"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        libpq(url)
    assert "secret" not in str(refused.value)
