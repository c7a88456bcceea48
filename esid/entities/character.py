"""Characters, bulk first: two POST routes of 1000 ids keep known ones fresh, a GET fills in each once a day.

The GET may be a day old (ESI's own cache) while affiliation is at most an hour old, so a GET older than the last look
leaves corporation, alliance and faction alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peewee import BigIntegerField, DoubleField, TextField

from esid import clock
from esid.entities.base import BULK_ABOVE, Edges, Entity, Failed, Result, done, is_due, sync_each
from esid.entities.ids import seen_alliance, seen_corporation
from esid.errors import BadField, EsiError, EsiUnavailable, Held, NotFound, Refused, Stopping
from esid.esi.decode import Fields
from esid.esi.routes import Route
from esid.store.model import Done, EntityTable, Job, Row, UtcField

if TYPE_CHECKING:
    from esid.esi.client import Answer, Client

#: Refused ids in a row, none accepted, after which one from the other end is asked whether it is the route that refuses.
_SUSPICIOUS = 10
#: Part of the ids that an answer may leave out, and be believed.
_LEFT_OUT = 0.1
#: Most ids of one POST, and seconds that its answer is good for (ESI's own cache; the answer itself has no Expires).
BATCH, AFFILIATION_S = 1000, 3600.0
AFFILIATION = Route("/characters/affiliation", cache_s=AFFILIATION_S)
NAMES = Route("/universe/names", cache_s=86_400.0)


class Character(EntityTable):
    """GET /characters/{id}; POST /characters/affiliation; POST /universe/names."""

    name = TextField(null=True)
    corporation_id = BigIntegerField(null=True)
    alliance_id = BigIntegerField(null=True)
    faction_id = BigIntegerField(null=True)
    birthday = UtcField(null=True)
    bloodline_id = BigIntegerField(null=True)
    race_id = BigIntegerField(null=True)
    gender = TextField(null=True)
    security_status = DoubleField(null=True)
    description = TextField(null=True)
    title = TextField(null=True)

    class Meta:
        table_name = "characters"


_KNOWN = frozenset(Character._meta.fields) | {"corporation_title", "character_title_id", "achievement_score"}
_KNOWN_AFFILIATION = frozenset({"character_id", "corporation_id", "alliance_id", "faction_id"})


def parse(job: Job, answer: Answer) -> Done:
    """One character in full. Its corporation and alliance become known."""
    fields = Fields(f"character {job.id}", answer.body)
    details = {
        "id": job.id,
        "name": fields.text("name"),
        "birthday": fields.time("birthday"),
        "bloodline_id": fields.id("bloodline_id"),
        "race_id": fields.id("race_id"),
        "gender": fields.text("gender"),
        "security_status": fields.number("security_status", optional=True),
        "description": fields.text("description", optional=True),
        "title": fields.text("corporation_title" if fields.has("corporation_title") else "title", optional=True),
    }
    affiliation, seen = _affiliation(job.id, fields)
    rows = [Row(Character, details), Row(Character, affiliation, guard="checked_at")]
    return done(job, answer, rows, seen, fields.unknown(_KNOWN))


def sync(entity: Entity, jobs: Sequence[Job], edges: Edges) -> Iterator[Result]:
    """A few ids are asked one by one where they are due, many in bulk first (the details follow in small messages)."""
    due = [job for job in jobs if is_due(job)]
    if len(jobs) > BULK_ABOVE:
        yield from _in_bulk(jobs, edges)
    else:
        yield from sync_each(entity, due, edges)
        if rest := [job for job in jobs if job not in due]:
            yield from _in_bulk(rest, edges)


def _in_bulk(jobs: Sequence[Job], edges: Edges) -> Iterator[Result]:
    """Names and affiliations of many; whoever is due for details stays pending."""
    excluded = edges.unbatchable("character", [job.id for job in jobs])
    yield from (_later(job) for job in jobs if job.id in excluded)
    asked = [job for job in jobs if job.id not in excluded]
    for start in range(0, len(asked), BATCH):
        yield from _one_batch({job.id: job for job in asked[start : start + BATCH]}, edges)


def _one_batch(jobs: dict[int, Job], edges: Edges) -> Iterator[Result]:
    stale = [key for key, job in jobs.items() if _is_stale(job)]
    looks = Halving(edges.client, AFFILIATION, stale)
    looked = dict(_by_character(looks.answers, "affiliation", "character_id"))
    bad = set(looks.bad) | (_left_out(stale, looked) if not looks.error else set())
    naming = Halving(
        edges.client, NAMES, [] if looks.error else [k for k, job in jobs.items() if is_due(job) and k not in bad]
    )
    named = dict(_by_character(naming.answers, "name", "id"))
    edges.add_unbatchable("character", sorted(bad | set(naming.bad)))
    for key, job in jobs.items():
        name = _name(named[key][1]) if key in named else None
        if key in looked:
            yield _known_in_part(job, *looked[key], name)
        elif key not in stale or key in bad or (is_due(job) and not looks.error):
            yield _later(job, name)
        elif not isinstance(looks.error, (Held, Stopping)):
            yield Failed(job, looks.error or EsiUnavailable("the answer of /characters/affiliation lacks this id"))
    interruption = looks.error or naming.error
    if isinstance(interruption, (Held, Stopping)):
        raise interruption


def _left_out(asked: Sequence[int], answered: Collection[int]) -> set[int]:
    """Ids that answers leave out: as unfit for batches as those that break them. An answer that lacks many tells nothing."""
    missing = set(asked) - set(answered)
    return missing if len(missing) <= max(1.0, _LEFT_OUT * len(asked)) and answered else set()


class Halving:
    """One bulk request, halved as often as it takes to find the ids that make ESI refuse the whole.

    A half is not asked as a whole when its twin was accepted: the bad id must be in it. A single id is always asked. Where
    the route refuses whatever is asked, no id is bad and none is answered.

    Attributes:
        answers: of the parts that were accepted.
        bad: the ids that were refused alone.
        error: what ended it early; the answers and bad ids before it stand.
    """

    def __init__(self, client: Client, route: Route, ids: Sequence[int]) -> None:
        self.answers: list[Answer] = []
        self.bad: list[int] = []
        self.error: EsiError | Held | Stopping | None = None
        self._client, self._route, self._last = client, route, ids[-1:]
        try:
            if ids:
                self._ask(ids, is_bad=False)
        except _RefusesAll:
            self.bad.clear()
        except (EsiError, Held, Stopping) as error:
            self.error = error
            if not self.answers:
                # Nobody knows yet whether it is about ids.
                self.bad.clear()

    def _ask(self, ids: Sequence[int], *, is_bad: bool) -> None:
        if (len(ids) == 1 or not is_bad) and self._is_accepted(ids):
            return
        if len(ids) == 1:
            self.bad.append(ids[0])
            if len(self.bad) == _SUSPICIOUS and not self.answers and not self._is_accepted(self._last):
                raise _RefusesAll
            return
        left, right = ids[: len(ids) // 2], ids[len(ids) // 2 :]
        bad_before = len(self.bad)
        self._ask(left, is_bad=False)
        self._ask(right, is_bad=len(self.bad) == bad_before)

    def _is_accepted(self, ids: Sequence[int]) -> bool:
        try:
            self.answers.append(self._client.post(self._route, ids))
        except (NotFound, Refused) as error:
            if error.status not in {400, 404, 422}:
                raise
            return False
        return True


class _RefusesAll(Exception):
    """It is not about ids."""


def _by_character(answers: Sequence[Answer], entity: str, key: str) -> Iterator[tuple[int, tuple[Answer, Fields]]]:
    """The rows of bulk answers by id. A row without an id is as good as missing; it fails no other."""
    for answer in answers:
        for row in answer.body if isinstance(answer.body, list) else ():
            try:
                fields = Fields(entity, row)
                yield fields.id(key), (answer, fields)
            except BadField:
                continue


def _name(fields: Fields) -> str | None:
    """The name, where the id is a character's and the row is whole; the details tell what is wrong otherwise."""
    try:
        name: str = fields.text("name")
        return name if fields.text("category") == "character" else None
    except BadField:
        return None


def _known_in_part(job: Job, answer: Answer, fields: Fields, name: str | None) -> Result:
    try:
        affiliation, seen = _affiliation(job.id, fields)
    except EsiError as error:
        return Failed(job, error)
    rows = [Row(Character, affiliation, guard="checked_at"), *_name_row(job, name)]
    return Done(
        id=job.id,
        rows=tuple(rows),
        seen=tuple(seen),
        etag=job.etag,
        checked_at=answer.checked_at,
        unfinished=is_due(job),
        unknown=tuple(fields.unknown(_KNOWN_AFFILIATION)),
    )


def _later(job: Job, name: str | None = None) -> Done:
    """Nothing learned but perhaps the name; the details, where they are due, tell the rest."""
    return Done(id=job.id, rows=tuple(_name_row(job, name)), etag=job.etag, unfinished=is_due(job))


def _name_row(job: Job, name: str | None) -> list[Row]:
    return [Row(Character, {"id": job.id, "name": name})] if name is not None else []


def _affiliation(key: int, fields: Fields) -> tuple[dict[str, Any], list[Any]]:
    values = {
        "id": key,
        "corporation_id": fields.id("corporation_id"),
        "alliance_id": fields.id("alliance_id", optional=True),
        "faction_id": fields.id("faction_id", optional=True),
    }
    return values, [*seen_corporation(values["corporation_id"]), *seen_alliance(values["alliance_id"])]


def _is_stale(job: Job) -> bool:
    """True when the affiliation may be asked again."""
    return job.checked_at is None or job.checked_at <= clock.now() - dt.timedelta(seconds=AFFILIATION_S)


CHARACTER = Entity(
    "character",
    "character",
    Route("/characters/{id}", cache_s=86_400.0),
    parse,
    (Character,),
    batch=BATCH,
    bulk_s=AFFILIATION_S,
    sync=sync,
)
