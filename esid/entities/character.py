"""Characters, bulk first: two POST routes of 1000 ids keep known ones fresh, a GET fills in each once a day.

The GET may be a day old (ESI's own cache) while affiliation is at most an hour old, so a GET older than the last look
leaves corporation, alliance and faction alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from esid import clock
from esid.entities.base import BULK_ABOVE, Bulk, Edges, Entity, Failed, Result, done, is_due, sync_each
from esid.entities.columns import Id, Number, Reader, Text, Time
from esid.errors import (
    DAY_S,
    BadBody,
    BadField,
    Doubted,
    EsiError,
    EsiUnavailable,
    Held,
    NotFound,
    Refused,
    Stopping,
    Unreachable,
)
from esid.esi.budget.breaker import Standing
from esid.esi.decode import Fields
from esid.esi.routes import Route
from esid.store.model import Done, EntityTable, Job, Row

if TYPE_CHECKING:
    from esid.esi.answers import Answer
    from esid.esi.client import Client

#: Refused ids in a row, none accepted, after which one from the other end is asked whether it is the route that refuses.
_SUSPICIOUS = 10
#: Ids of a batch that failed that are asked alone before it is halved: as many as an outage takes, with the batch.
_WITNESSES = 4
#: Requests that fail, and that are refused, for one batch at most: of a few bad ids all are found. Where there are more,
#: each by itself costs one error and not ten, and who is due for details is asked for them alone in any case. What fails
#: is asked again, up to ten times, and needs the error limit more.
_MOST_FAILURES, _MOST_REFUSALS = 24, 80
#: Part of the ids that an answer may leave out, and be believed.
_LEFT_OUT = 0.1
#: Seconds for which an id is in no batch: one that was refused, one that failed, one that was refused while nobody was
#: answered, so that it may have been the route that refused it.
REFUSED_S, SICK_S, DOUBTED_S = 21 * DAY_S, DAY_S, 1800.0
#: Most ids of one POST, and seconds that its answer is good for (ESI's own cache; the answer itself has no Expires).
BATCH, AFFILIATION_S = 1000, 3600.0
AFFILIATION = Route("/characters/affiliation", cache_s=AFFILIATION_S)
NAMES = Route("/universe/names", cache_s=86_400.0)


class Character(EntityTable):
    """GET /characters/{id}; POST /characters/affiliation; POST /universe/names."""

    name = Text(null=True, needed=True)
    corporation_id = Id(to="corporation", null=True, needed=True)
    alliance_id = Id(to="alliance", null=True)
    faction_id = Id(null=True)
    birthday = Time(null=True, needed=True)
    bloodline_id = Id(null=True, needed=True)
    race_id = Id(null=True, needed=True)
    gender = Text(null=True, needed=True)
    security_status = Number(null=True)
    description = Text(null=True)
    title = Text(of=("corporation_title", "title"), null=True)

    class Meta:
        table_name = "characters"


_AFFILIATED = ("corporation_id", "alliance_id", "faction_id")
_AFFILIATION = Reader(Character, only=_AFFILIATED, unused=("character_id",))
_DETAILS = Reader(Character, but=_AFFILIATED, unused=("character_title_id", "achievement_score"))
_KNOWN = _DETAILS.known | frozenset(_AFFILIATED)


def parse(job: Job, answer: Answer) -> Done:
    """One character in full. Its corporation and alliance become known."""
    fields = Fields(f"character {job.id}", answer.body)
    details, affiliation = _DETAILS.values(fields, job.id), _AFFILIATION.values(fields, job.id)
    rows = [Row(Character, details), Row(Character, affiliation, guard="checked_at")]
    return done(job, answer, rows, _AFFILIATION.seen(affiliation), fields.unknown(_KNOWN))


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
    doubted = {source for source in {job.source for job in jobs} if edges.client.is_doubted(AFFILIATION, source)}
    excluded |= {job.id for job in jobs if job.source in doubted}
    yield from (_later(job) for job in jobs if job.id in excluded)
    asked = [job for job in jobs if job.id not in excluded]
    for start in range(0, len(asked), BATCH):
        yield from _one_batch({job.id: job for job in asked[start : start + BATCH]}, edges)


def _one_batch(jobs: dict[int, Job], edges: Edges) -> Iterator[Result]:
    stale = [key for key, job in jobs.items() if _is_stale(job)]
    sources = {key: job.source for key, job in jobs.items()}
    known = bool(stale) and jobs[stale[0]].checked_at is not None
    looks = Halving(edges.client, AFFILIATION, stale, sources, known=known)
    looked = dict(_by_character(looks.answers, "affiliation", "character_id"))
    bad = set(looks.bad) | (_left_out(stale, looked) if not looks.error and not looks.undecided else set())
    left = bad | set(looks.undecided)
    unnamed = [] if looks.error or looks.is_doubted else [k for k, job in jobs.items() if is_due(job) and k not in left]
    naming = Halving(edges.client, NAMES, unnamed, sources)
    named = dict(_by_character(naming.answers, "name", "id"))
    for asked, found in ((looks, bad), (naming, set(naming.bad) - bad)):
        edges.add_unbatchable("character", sorted(found - asked.sick), REFUSED_S if asked.answers else DOUBTED_S)
        edges.add_unbatchable("character", sorted(found & asked.sick), SICK_S)
    for key, job in jobs.items():
        name = _name(named[key][1]) if key in named else None
        if key in looked:
            yield _known_in_part(job, *looked[key], name)
        elif key not in stale or key in left or (is_due(job) and not looks.error):
            yield _later(job, name)
        elif not isinstance(looks.error, (Held, Stopping)):
            yield Failed(job, looks.error or EsiUnavailable("the answer of /characters/affiliation lacks this id"))
    if isinstance(looks.error, (Held, Stopping)):
        raise looks.error


def _left_out(asked: Sequence[int], answered: Collection[int]) -> set[int]:
    """Ids that answers leave out: as unfit for batches as those that break them. An answer that lacks many tells nothing."""
    missing = set(asked) - set(answered)
    return missing if len(missing) <= max(1.0, _LEFT_OUT * len(asked)) and answered else set()


class Halving:
    """One bulk request, halved as often as it takes to find the ids that make ESI refuse the whole, or fail at it.

    A half is not asked as a whole when its twin was accepted: the bad id must be in it. A single id is always asked. Where
    the route refuses or fails whatever is asked, no id is bad and none is answered: of a whole that failed a few ids are
    asked alone first, and only when one of them is answered it is about ids. Ids of a doubted source are left to their own
    route.

    Args:
        sources: of each id that has one; see `Job`.
        known: the route had an answer once for the first of the ids. Wholes that are refused one after the other then tell
            that it is away.

    Attributes:
        answers: of the parts that were accepted.
        bad: the ids that were refused alone, or failed; where there is no answer it is not sure that it is about them.
        sick: those of them that failed.
        undecided: the ids that were not asked for any more, since too many requests had failed.
        error: what ended it early; the answers and bad ids before it stand.
        is_doubted: it ended as the source of the ids is doubted.
    """

    def __init__(
        self,
        client: Client,
        route: Route,
        ids: Sequence[int],
        sources: Mapping[int, str] | None = None,
        *,
        known: bool = False,
    ) -> None:
        self.answers: list[Answer] = []
        self.bad: list[int] = []
        self.sick = set[int]()
        self.undecided: list[int] = []
        self.error: EsiError | Held | Stopping | None = None
        self.is_doubted = False
        self._client, self._route, self._ids, self._sources = client, route, ids, sources or {}
        self._sure, self._is_about_ids = 0, False
        self._failures = self._refusals = 0
        self._standing = Standing.KNOWN if known and len(ids) > 1 else Standing.NEW
        try:
            if ids:
                self._ask(ids, is_bad=False)
        except _RefusesAll:
            self.bad.clear()
        except Doubted:
            self.bad.clear()
            self.is_doubted = True
        except (EsiError, Held, Stopping) as error:
            self.error = error
            # Of those since the last answer nobody knows whether it is about them.
            del self.bad[self._sure :]

    def _ask(self, ids: Sequence[int], *, is_bad: bool) -> None:
        if self.answers and (self._failures >= _MOST_FAILURES or self._refusals >= _MOST_REFUSALS):
            self.undecided += ids
            return
        if (len(ids) == 1 or not is_bad) and self._is_accepted(ids):
            return
        if len(ids) == 1:
            self.bad.append(ids[0])
            if len(self.bad) == _SUSPICIOUS and not self.answers and not self._is_accepted(self._ids[-1:]):
                raise _RefusesAll
            return
        left, right = ids[: len(ids) // 2], ids[len(ids) // 2 :]
        bad_before = len(self.bad)
        self._ask(left, is_bad=False)
        self._ask(right, is_bad=len(self.bad) == bad_before)

    def _is_accepted(self, ids: Sequence[int]) -> bool:
        try:
            self.answers.append(self._post(ids))
            self._sure = len(self.bad)
        except (NotFound, Refused):
            self._refusals += 1
            return False
        except Unreachable:
            raise
        except (EsiUnavailable, BadBody, BadField):
            self._failures += 1
            if not self._is_about_ids and not self._has_witness(ids):
                raise
            self.sick |= set(ids) if len(ids) == 1 else set()
            return False
        self._is_about_ids = True
        return True

    def _has_witness(self, failed: Sequence[int]) -> bool:
        """Whether one of some ids is answered alone, though a batch with it failed."""
        if len(failed) == 1:
            return False
        places = [len(failed) - 1, *(len(failed) * part // _WITNESSES for part in range(1, _WITNESSES))]
        for key in dict.fromkeys(failed[place] for place in places):
            with suppress(EsiUnavailable, BadBody, BadField, NotFound, Refused):
                self._post([key])
                self._is_about_ids = True
                break
        return self._is_about_ids

    def _post(self, ids: Sequence[int]) -> Answer:
        """Raises as `Client.post`."""
        sources = {self._sources.get(key, "") for key in ids}
        standing = self._standing if ids is self._ids else Standing.NEW
        source = sources.pop() if len(sources) == 1 else ""
        answer: Answer = self._client.post(self._route, ids, _rows, standing, source=source)
        return answer


class _RefusesAll(Exception):
    """It is not about ids."""


def _rows(answer: Answer) -> Answer:
    """The answer, where it is a list of objects. Raises BadField."""
    if not isinstance(answer.body, list) or (answer.body and not any(isinstance(row, dict) for row in answer.body)):
        raise BadField("the bulk answer", "(body)", answer.body)
    return answer


def _by_character(answers: Sequence[Answer], entity: str, key: str) -> Iterator[tuple[int, tuple[Answer, Fields]]]:
    """The rows of bulk answers by id. A row without an id is as good as missing; it fails no other."""
    for answer in answers:
        for row in answer.body:
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
        affiliation = _AFFILIATION.values(fields, job.id)
    except EsiError as error:
        return Failed(job, error)
    return Done(
        id=job.id,
        rows=(Row(Character, affiliation, guard="checked_at"), *_name_row(job, name)),
        seen=tuple(_AFFILIATION.seen(affiliation)),
        checked_at=answer.checked_at,
        unfinished=is_due(job),
        unknown=tuple(fields.unknown(_AFFILIATION.known)),
    )


def _later(job: Job, name: str | None = None) -> Done:
    """Nothing learned but perhaps the name; the details, where they are due, tell the rest."""
    return Done(id=job.id, rows=tuple(_name_row(job, name)), unfinished=is_due(job))


def _name_row(job: Job, name: str | None) -> list[Row]:
    return [Row(Character, {"id": job.id, "name": name})] if name is not None else []


def _is_stale(job: Job) -> bool:
    """True when the affiliation may be asked again."""
    return job.checked_at is None or job.checked_at <= clock.now() - dt.timedelta(seconds=AFFILIATION_S)


CHARACTER = Entity(
    "character",
    "character",
    Route("/characters/{id}", cache_s=86_400.0),
    parse,
    (Character,),
    bulk=Bulk(BATCH, AFFILIATION_S),
    filled="birthday",
    sync=sync,
)
