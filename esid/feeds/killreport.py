"""Takes over the rows of a killreport (see `store.killreport`): alliances, corporations, characters, killmails.

What is taken over is a beginning, not an answer of ESI: every id becomes known, and ESI is asked for it as for a new one.
Rows of ours that are newer stay. A killmail, which never changes, is taken where there is none. Theirs lack moon, war,
factions and what lay in containers, so that ESI is asked for each a day later, unless an archive has brought it before
(`esid import killmails`).

A batch is one transaction, which says how far the import has come: an import that was interrupted goes on there, and one
that came to its end may be repeated.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial

from esid import bounds, clock
from esid.entities.alliance import Alliance
from esid.entities.character import Character
from esid.entities.corporation import Corporation
from esid.entities.ids import seen_alliance, seen_character, seen_corporation
from esid.entities.killmail_body import Body
from esid.errors import DAY_S, BadField
from esid.feeds.day import LAYOUT, MOST_KNOWN, POSTGRESQL_BATCH, REST, SQLITE_BATCH
from esid.feeds.hashes import check_hash, is_askable
from esid.queue.work import GATHERING
from esid.store import copying, ledger, takeover, wholes
from esid.store.connection import Store
from esid.store.killreport import Killreport, Parts, Values
from esid.store.model import EntityTable, Row, Seen, utc_time
from esid.store.upsert import upsert
from esid.store.wholes import Whole

#: Seconds that archives have to confirm a killmail before ESI is asked for it.
CONFIRM_S = DAY_S
#: Killmails that were left out and are named.
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of its tables, ours of the same name, and the columns of both."""

    table: str
    entity: str
    model: type[EntityTable]
    columns: tuple[str, ...]
    seen: Callable[[int | None], list[Seen]]


def _columns(model: type[EntityTable], *but: str) -> tuple[str, ...]:
    names: Iterable[str] = model._meta.fields
    return tuple(name for name in names if name not in {"id", "created_at", "updated_at", *but})


_NEW_IN_ESI = ("war_eligible", "state", "type", "friendly_fire")
KINDS = (
    _Kind("alliances", "alliance", Alliance, _columns(Alliance), seen_alliance),
    _Kind("corporations", "corporation", Corporation, _columns(Corporation, *_NEW_IN_ESI), seen_corporation),
    _Kind("characters", "character", Character, _columns(Character), seen_character),
)
KILLMAILS = "killmails"
TABLES = (*(kind.table for kind in KINDS), KILLMAILS)


@dataclass
class Copied:
    """What became of rows of one table.

    Attributes:
        read: rows that killreport has.
        new, newer: rows that were not here, or were older here.
        kept: rows that stay as they are here.
        asked: killmails that are incomplete there: ESI is asked for them.
        left_out: rows that cannot be taken over: NPCs, for whom ESI is not asked, what lacks a value that every such thing
            has, and killmails without a hash; `named` says of the first killmails which and why. Of killmails also those
            that were left out before the place where this run has gone on.
        after: the id after which this run has gone on; 0 = it began.
    """

    table: str
    read: int = 0
    new: int = 0
    newer: int = 0
    kept: int = 0
    asked: int = 0
    left_out: int = 0
    named: list[str] = field(default_factory=list)
    after: int = 0

    def add(self, more: Copied) -> None:
        """Count more rows of the same table."""
        for one in fields(self)[1:]:
            setattr(self, one.name, getattr(self, one.name) + getattr(more, one.name))
        del self.named[_MOST_NAMED:]

    def leave_out(self, key: int, why: str) -> None:
        """Count a killmail that cannot be taken over."""
        self.left_out += 1
        self.named.append(f"killmail {key}: {why}")


def about(theirs: Killreport) -> int | None:
    """About how many rows there are to be taken over; None where nobody knows."""
    counts = [theirs.about(table) for table in TABLES]
    return None if None in counts else sum(filter(None, counts))


class Takeover:
    """One import.

    Args:
        progress: told how many rows each batch had.
    """

    def __init__(self, store: Store, theirs: Killreport, progress: Callable[[int], None] = lambda _: None) -> None:
        self._store, self._theirs, self._progress = store, theirs, progress
        self._known = set[Seen]()
        #: Killmails that this run and those before it have left out.
        self._left = Copied(KILLMAILS)
        self._batch_size = SQLITE_BATCH if store.is_sqlite else POSTGRESQL_BATCH

    def run(self) -> Iterator[Copied]:
        """Take over everything; what became of each table as it ends.

        Raises:
            SourceUnavailable: killreport's database cannot be read; what was taken over stands, and the next run goes on.
            StoreError: in its kinds; the same.
        """
        for kind in KINDS:
            read = partial(self._theirs.page, kind.table, kind.columns)
            yield self._each_batch(kind.table, read, partial(self._write_rows, kind))
        self._left.left_out, self._left.named = takeover.left_out(self._store, self._name(KILLMAILS))
        killmails = self._each_batch(KILLMAILS, self._theirs.killmails, self._write_killmails)
        killmails.left_out, killmails.named = self._left.left_out, self._left.named
        yield killmails
        names = [self._name(table) for table in TABLES]
        self._store.run(lambda: takeover.forget_places(self._store, names))

    def _name(self, table: str) -> str:
        return f"{self._theirs.name} {table}"

    def _each_batch(
        self, table: str, read: Callable[[int, int], list[Values]], write: Callable[[list[Values]], Copied]
    ) -> Copied:
        last = takeover.place(self._store, self._name(table))
        copied = Copied(table, after=last)
        while rows := read(last, self._batch_size):
            started, last = clock.monotonic(), rows[-1][0]
            copied.add(write(rows))
            self._progress(len(rows))
            if self._store.is_sqlite:
                # It has one writer, which others want as well.
                clock.sleep((clock.monotonic() - started) * REST)
        return copied

    def _write_rows(self, kind: _Kind, rows: Sequence[Values]) -> Copied:
        return self._store.run(lambda: self._write_rows_once(kind, rows))

    def _write_rows_once(self, kind: _Kind, rows: Sequence[Values]) -> Copied:
        now, copied = clock.now(), Copied(kind.table, len(rows))
        asked = {row[0] for row in rows if any(one.asked for one in kind.seen(row[0]))}
        looked_at = takeover.looked_at(self._store, kind.entity, sorted(asked))
        ours = copying.by_id(self._store, kind.table, ("id", "updated_at"), sorted(asked))
        needed = [place for place, name in enumerate(kind.columns) if not kind.model._meta.fields[name].null]
        wanted = []
        for key, *values, at in rows:
            if key not in asked or None in (values[place] for place in needed):
                copied.left_out += 1
                continue
            # A row of ours is as new as our last look at it, and one that was taken over as the import.
            mine = [bounds.happened(looked_at.get(key), now), *(utc_time(row[1]) for row in ours.get(key, ()))]
            if key in ours and (at is None or max(filter(None, mine)) >= min(at, now)):
                copied.kept += 1
                continue
            copied.newer, copied.new = copied.newer + (key in ours), copied.new + (key not in ours)
            wanted.append(Row(kind.model, {"id": key, **dict(zip(kind.columns, values, strict=True))}))
        upsert(self._store, wanted, now)
        ledger.discover(self._store, (one for key in sorted(asked) for one in kind.seen(key)), now, GATHERING)
        takeover.note_place(self._store, self._name(kind.table), rows[-1][0])
        return copied

    def _write_killmails(self, heads: Sequence[Values]) -> Copied:
        copied = Copied(KILLMAILS, len(heads))
        there = self._there([head[0] for head in heads])
        copied.kept = len(there)
        batch, seen = self._sort([head for head in heads if head[0] not in there], copied)
        ids = [one.id for one in batch if is_askable(one.argument)]
        confirm_at, name = clock.now() + dt.timedelta(seconds=CONFIRM_S), self._name(KILLMAILS)
        if copied.left_out:
            self._left.add(Copied(KILLMAILS, left_out=copied.left_out, named=copied.named))

        def also() -> None:
            takeover.confirm_at(self._store, "killmail", ids, confirm_at)
            takeover.note_place(self._store, name, heads[-1][0])
            if copied.left_out:
                takeover.note_left_out(self._store, name, self._left.left_out, self._left.named)

        new = [one for one in seen if one not in self._known]
        written = wholes.write(self._store, LAYOUT, batch, new, GATHERING, also)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known.update(new)
        copied.new = len(written.new)
        copied.kept += len(batch) - len(written.new)
        return copied

    def _sort(self, heads: Sequence[Values], copied: Copied) -> tuple[list[Whole], dict[Seen, None]]:
        """Killmails that are all there, and the ids that these and the incomplete ones name; the rest is counted."""
        attackers, items = self._theirs.parts([head[0] for head in heads])
        batch, seen = list[Whole](), dict[Seen, None]()
        for head in heads:
            try:
                hash_ = check_hash(head[0], head[1])
            except BadField as error:
                copied.leave_out(head[0], str(error))
                continue
            body = _body(hash_, head, attackers, items)
            if body:
                batch.append(Whole(body.id, hash_, (body.attackers, [body.killmail], body.items)))
                seen.update(dict.fromkeys(body.seen()))
            elif is_askable(hash_):
                copied.asked += 1
                seen[Seen("killmail", head[0], hash_)] = None
            else:
                copied.leave_out(head[0], "it is incomplete, and ESI cannot be asked without its hash")
        return batch, seen

    def _there(self, ids: Sequence[int]) -> set[int]:
        with self._store.connection():
            return set(copying.by_id(self._store, KILLMAILS, ("id",), ids))


def _body(hash_: str, head: Values, attackers: Parts, items: Parts) -> Body | None:
    """One killmail as rows of ours; None where it is not all there."""
    key, _, time, system, *victim, count = head
    ship, damage = victim[4], victim[5]
    fought = attackers.get(key, [])
    if None in {time, system, ship, damage} or not fought or count not in {None, len(fought)}:
        return None
    lacks = [one for one in fought if None in one[6:8]] or [one for one in items.get(key, []) if None in (*one[:2], one[4])]
    if lacks:
        return None
    return Body(
        (key, hash_, time, system, None, None, *victim, len(fought)),
        # Their NULL is ESI's 0.0.
        [(key, seq, *one[:-1], 0.0 if one[-1] is None else one[-1]) for seq, one in enumerate(fought)],
        [(key, seq, None, *one) for seq, one in enumerate(items.get(key, []))],
    )
