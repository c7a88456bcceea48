"""What people paste for an id: the word itself, and links to sites and to the route of an entity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from esid.entities import BY_NAME
from esid.entities.corporation import CORPORATION
from esid.errors import UsageError
from esid.esi.routes import Route
from esid.feeds import links

PAGES = "https://zkillboard.com/alliance/ID/, https://evewho.com/alliance/ID"


@pytest.fixture(autouse=True)
def _schematic(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entity whose route does not begin with its name."""
    schematic = replace(CORPORATION, name="schematic", route=Route("/universe/schematics/{id}"))
    monkeypatch.setitem(BY_NAME, "schematic", schematic)


@pytest.mark.parametrize(
    ("entity", "token"),
    [
        ("alliance", "7"),
        ("alliance", "https://zkillboard.com/alliance/7/"),
        ("corporation", "evewho.com/corp/7"),
        ("character", "https://esi.evetech.net/latest/characters/7/?datasource=tranquility"),
        ("schematic", "7"),
        ("schematic", "https://esi.evetech.net/universe/schematics/7"),
        ("schematic", "esi.evetech.net/v1/universe/schematics/7/"),
    ],
)
def test_an_id_and_a_link_to_it_are_the_same(entity: str, token: str) -> None:
    assert links.pasted(entity, token) == ("7", None)


@pytest.mark.parametrize(
    ("entity", "words"),
    [
        ("alliance", f"a link like {PAGES} or https://esi.evetech.net/alliances/ID"),
        ("schematic", "a link like https://esi.evetech.net/universe/schematics/ID"),
    ],
)
def test_what_is_no_link_is_told_links_that_are_understood(entity: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        links.pasted(entity, "https://example.com/7")
    told = str(caught.value)
    assert told.endswith(words)
    for link in told.partition("a link like ")[2].replace(" or ", ", ").split(", "):
        assert links.pasted(entity, link.replace("ID", "7")) == ("7", None)


def test_a_link_to_something_else_is_told_apart() -> None:
    with pytest.raises(UsageError, match="is a link to the corporation 7, and alliances are asked for"):
        links.pasted("alliance", "https://evewho.com/corp/7")
