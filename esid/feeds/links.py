"""What people paste for an id: a link to zKillboard, EVE Who or ESI, `ID:HASH`. Nothing is fetched from a pasted host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from esid import words
from esid.entities import BY_NAME
from esid.entities.killmail import HASH
from esid.errors import EsiError, Held, SourceUnavailable, UsageError
from esid.esi.decode import Fields, parse_json
from esid.feeds.hashes import is_askable
from esid.store import ledger
from esid.store.connection import Store
from esid.words import plural

if TYPE_CHECKING:
    from esid.feeds.http import Source

_ESI = re.compile(r"(?:https?://)?[^/\s]+/(?:[a-z0-9]+/)?killmails/(\d{1,19})/([0-9a-f]{40})/?(?:[?#]\S*)?", re.ASCII | re.I)
_ESI_HOST = r"(?:https?://)?esi\.evetech\.net(?:/[a-z0-9]+)?"
_ZKILLBOARD = re.compile(r"(?:https?://)?(?:www\.)?zkillboard\.com/kill/(\d{1,19})/?(?:[?#]\S*)?", re.ASCII | re.I)
#: Sites whose pages name an entity and its id, the one behind the other, and who has such pages.
_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:zkillboard\.com|evewho\.com|esi\.evetech\.net(?:/[a-z0-9]+)?)/"
    r"(alliance|corporation|corp|character|kill|killmail)s?/(\d{1,19})(?:[/?#]\S*)?",
    re.ASCII | re.I,
)  # fmt: skip
_HAS_PAGES = ("alliance", "corporation", "character")


def pasted(entity: str, token: str) -> tuple[str, str | None]:
    """(id, hash) as they were typed, not checked as an id yet: of a link, or the word itself. Only a killmail has a hash.

    Raises:
        UsageError: it is a link, and none to such an entity.
    """
    if "/" not in token:
        key, _, hash_ = token.partition(":") if entity == "killmail" else (token, "", "")
        return key, hash_ or None
    if entity == "killmail":
        return killmail(token)
    path = BY_NAME[entity].route.path
    if found := re.fullmatch(_ESI_HOST + path.replace("{id}", r"(\d{1,19})") + r"(?:[/?#]\S*)?", token, re.ASCII | re.I):
        return found[1], None
    found = _PAGE.fullmatch(token)
    if not found:
        pages = f"https://zkillboard.com/{entity}/ID/, https://evewho.com/{entity}/ID or " if entity in _HAS_PAGES else ""
        esi = f"https://esi.evetech.net{path.replace('{id}', 'ID')}"
        raise UsageError(f"{token[:120]!r} is not an id: a whole number, or a link like {pages}{esi}")
    if (named := words.entity(found[1])) != entity:
        raise UsageError(f"{token[:120]!r} is a link to the {named} {found[2]}, and {plural(entity)} are asked for")
    return found[2], None


def killmail(token: str) -> tuple[str, str | None]:
    """(id, hash) as they were typed, not checked as an id yet; the hash is None in a link to zKillboard.

    Raises:
        UsageError: it is none of the forms.
    """
    if found := _ESI.fullmatch(token):
        return found[1], found[2].lower()
    if found := _ZKILLBOARD.fullmatch(token):
        return found[1], None
    key, _, hash_ = token.partition(":")
    if "/" in token:
        raise UsageError(
            f"{token[:120]!r} is no link to a killmail: https://zkillboard.com/kill/ID/ or "
            "https://esi.evetech.net/killmails/ID/HASH"
        )
    if not hash_:
        raise UsageError(f"{token!r}: a killmail is asked by id and hash: ID:HASH, or by a link to it")
    if not HASH.fullmatch(hash_.lower()):
        raise UsageError(f"{token!r}: a killmail's hash is 40 hexadecimal digits")
    return key, hash_.lower()


def hash_of(source: Source, key: int) -> str:
    """The hash of one killmail, asked of zKillboard.

    Raises:
        SourceUnavailable: zKillboard does not answer, or with something else; with the cure.
        UsageError: zKillboard does not know it, or has no hash that ESI knows.
    """
    cure = "paste the ESI link instead (on zKillboard under the killmail), or ID:HASH"
    try:
        body = parse_json(source.get(f"/api/killID/{key}/"))
        found = [Fields("zKillboard", one).object("zkb").text("hash") for one in body if one.get("killmail_id") == key]
    except (EsiError, Held, AttributeError, TypeError) as error:
        raise SourceUnavailable(f"the hash of killmail {key} cannot be had: {error}; {cure}") from None
    if not found:
        raise UsageError(f"{source.host} does not know killmail {key}; {cure}")
    hash_ = str(found[0]).lower()
    if not is_askable(hash_):
        raise UsageError(f"killmail {key} has the hash {found[0]!r}: it was made by hand, and ESI does not know it")
    return hash_


def with_hashes(
    store: Store, source: Callable[[], Source], wanted: Iterable[tuple[int, str | None]]
) -> Iterator[tuple[int, str]]:
    """Every killmail with its hash: as it was pasted, from the ledger, or asked of zKillboard once.

    Raises as `hash_of`.
    """
    open_source: Source | None = None
    for key, hash_ in wanted:
        known = hash_ or (ledger.job(store, "killmail", key) or {}).get("argument")
        if known is None:
            open_source = open_source or source()
            known = hash_of(open_source, key)
        elif not is_askable(known):
            raise UsageError(f"killmail {key} has the hash {known!r}: it was made by hand, and ESI does not know it")
        yield key, known
