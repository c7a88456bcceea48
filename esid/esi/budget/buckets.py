"""Token buckets of the rate groups, with a floating window as ESI has it: a token spent comes back a window later.

What is spent is booked by slices of the window, so a token comes back here a slice later than at ESI, never sooner.
Above a quarter of the bucket the tokens are spread evenly. Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import esid.esi.budget.layout as layout
from esid import log
from esid.esi import headers as read
from esid.esi.budget.layout import SLICES
from esid.esi.routes import GROUPS, HIDDEN, WORST_COST, token_cost

#: Part of a bucket that may go in one burst.
BURST = 0.25
#: Tokens that are lost in sums of tokens.
_ROUNDING = 1e-6
#: Tokens of an ordinary answer: the step of the even spread, until the answer tells its cost.
_STEP = 2.0
#: Seconds that the spread may lag behind: a thread that waits does not hear at once that an answer cost less.
_LAG_S = 1.0
#: Seconds after which a host looks again whether its share of a bucket has grown.
SHARE_LOOK_S = 0.5
#: Seconds that a hidden limit closes for after an HTTP 500, which is how it says no.
HIDDEN_CLOSED_S = 60.0
_HIDDEN_PREFIX = "hidden:"
_log = log.get("esi")


class Buckets:
    """The buckets of one state, by number.

    Args:
        reserve_percent: part of each bucket that is never used.
        is_divided: other hosts use the buckets too, and each has its part of them.
    """

    def __init__(self, state: Any, reserve_percent: int, *, is_divided: bool) -> None:
        self._state, self._reserve_percent, self._is_divided = state, reserve_percent, is_divided
        self._buckets = list(state.buckets)
        self._known: dict[bytes, int] = {}
        self._is_full = False

    def number(self, group: str) -> int | None:
        """The number of a rate group that the table or an answer has told of; None for any other."""
        return self._find(group, GROUPS.get(group))

    def hidden_number(self, name: str) -> int | None:
        """The number of a hidden limit."""
        number = self._find(_HIDDEN_PREFIX + name, HIDDEN[name])
        if number is not None:
            self._buckets[number].flat = 1.0
        return number

    def learn(self, group: str, headers: Mapping[str, str], now: float) -> int | None:
        """The number of the group that an answer names, with the limit that it tells."""
        told = read.bucket_limit(headers)
        # A name that is empty, or that of a limit which no header tells, is none.
        name = group.partition("\0")[0]
        if not name or name.startswith(_HIDDEN_PREFIX):
            return None
        number = self._find(name, told or GROUPS.get(name))
        if number is not None and told and told != (self._buckets[number].limit, self._buckets[number].window_s):
            self._resize(self._buckets[number], told, now)
        return number

    def names(self) -> list[str]:
        """The names of all groups and hidden limits that are known, in the order of their numbers."""
        return [_name(bucket) for bucket in layout.named(self._buckets)]

    def name(self, number: int) -> str:
        """The group's name; "" for a number that is free."""
        return _name(self._buckets[number])

    def is_hidden(self, number: int) -> bool:
        """True for a limit that no header tells."""
        return self.name(number).startswith(_HIDDEN_PREFIX)

    def usable(self, number: int) -> float:
        """Tokens of a window, less the reserve."""
        return self._usable(self._buckets[number])

    def used(self, number: int, now: float) -> float:
        """Tokens that are spent and not back yet."""
        return _used(self._buckets[number], now)

    def worst(self, number: int) -> float:
        """Tokens that one request may cost."""
        return float(self._buckets[number].flat or WORST_COST)

    def wait_s(self, number: int, now: float, reserved: int) -> float:
        """Seconds until one more request may leave; 0 = now.

        Args:
            reserved: requests of this host that are on their way in this bucket.
        """
        bucket = self._buckets[number]
        if bucket.closed_until > now:
            return float(bucket.closed_until - now)
        cap, used, worst = self._cap(bucket), _used(bucket, now), self.worst(number)
        if worst > cap > 0 and not (used or reserved or (self._is_divided and bucket.others_used)):
            # A limit that is smaller than what a request may cost: one leaves, or nobody would ever learn of a better one.
            return 0.0
        if used + worst * (reserved + 1) > cap:
            if reserved and used + worst <= cap:
                return 0.02
            back_s = _back_in_s(bucket, now, min(used, used + worst - cap))
            # Where only our share is too small, it may grow with the next exchange.
            return min(back_s, SHARE_LOOK_S) if used + worst * (reserved + 1) <= self._usable(bucket) else back_s
        # The spread owes no more than what is not back yet, at what a token is worth now: a share that was small when an
        # answer came may have grown.
        owed_s = (used + (bucket.flat or _STEP) * reserved) * self._token_s(bucket)
        bucket.next_at = min(bucket.next_at, now + min(owed_s, bucket.window_s))
        return max(0.0, float(bucket.next_at) - now) if used > BURST * cap else 0.0

    def take(self, number: int, now: float) -> None:
        """A request leaves: the next one keeps its distance."""
        bucket = self._buckets[number]
        bucket.next_at = max(now - _LAG_S, bucket.next_at) + (bucket.flat or _STEP) * self._token_s(bucket)

    def settle(self, number: int, status: int | None, headers: Mapping[str, str], now: float, in_flight: int) -> None:
        """Book one answer; one that cost more or less than an ordinary one moves the next request by as much.

        Args:
            in_flight: other requests on their way in this bucket, which the headers may have counted already.
        """
        bucket = self._buckets[number]
        if bucket.flat:
            _spend(bucket, bucket.flat, now)
            if status == 500:
                self.close(number, HIDDEN_CLOSED_S, now)
            return
        told = read.tokens(headers, "Used")
        cost = _cost(status) if told is None else told
        _spend(bucket, cost, now)
        # Less than what CCP says is not believed: what is told to cost nothing would leave all at once.
        bucket.next_at += (max(cost, _cost(status)) - _STEP) * self._token_s(bucket)
        remaining = read.tokens(headers, "Remaining")
        if remaining is not None:
            others = bucket.others_used + bucket.others_free
            foreign = bucket.limit - _used(bucket, now) - others - WORST_COST * in_flight - remaining
            _spend(bucket, foreign, now)

    def close(self, number: int, seconds: float, now: float) -> None:
        """Nothing leaves in this bucket for so long; a later end stays."""
        bucket = self._buckets[number]
        bucket.closed_until = max(now + seconds, bucket.closed_until)

    def spend(self, number: int, tokens: float, now: float) -> None:
        """Book tokens that were spent now; a bucket that nobody has taken has none."""
        _spend(self._buckets[number], tokens, now)

    def _usable(self, bucket: Any) -> float:
        return float(bucket.limit) * (100 - self._reserve_percent) / 100

    def _cap(self, bucket: Any) -> float:
        """Tokens of a window that this host may use."""
        usable = self._usable(bucket)
        return min(usable, float(bucket.allowed)) if self._is_divided else usable

    def _token_s(self, bucket: Any) -> float:
        """Seconds in which a token comes back, spread evenly."""
        return float(bucket.window_s) / max(1.0, self._cap(bucket))

    def _find(self, name: str, limit: tuple[float, float] | None) -> int | None:
        wanted = layout.stored(name, 39)
        number = self._known.get(wanted)
        if number is None or self._buckets[number].name != wanted:
            number = self._look_for(wanted, limit)
            if number is not None:
                self._known[wanted] = number
        return number

    def _look_for(self, wanted: bytes, limit: tuple[float, float] | None) -> int | None:
        names = [bucket.name for bucket in layout.named(self._buckets)]
        if wanted in names:
            return names.index(wanted)
        if limit is None:
            return None
        if len(names) == len(self._buckets):
            self._say_full(wanted)
            return None
        bucket = layout.take(self._buckets[len(names)], wanted)
        bucket.limit, bucket.window_s = limit
        return len(names)

    def _say_full(self, name: bytes) -> None:
        if not self._is_full:
            words = (
                f"ESI names more rate groups than the budget's file has room for ({len(self._buckets)}): the limit of "
                f"{name.decode()} and of those after it is not kept; raise BUCKETS in esid/esi/budget/layout.py"
            )
            log.event(_log, "budget.full", words, level=logging.WARNING)
        self._is_full = True

    def _resize(self, bucket: Any, limit: tuple[float, float], now: float) -> None:
        """A limit that is told anew: what is spent stays spent, since when it was. Two nodes of ESI may tell of two limits
        in turns, and no token is to grow younger by that.

        It is shared out at once. Who is alone has all of it until then: who joins lets nothing leave before we know of it.
        """
        _turn(bucket, now)
        spent = _spent_by_time(bucket)
        self._state.exchanged_at = 0.0
        bucket.limit, bucket.window_s = limit
        if self._state.members <= 1:
            bucket.allowed = self._usable(bucket)
        # More than there is cannot be spent: what a limit that was told wrong has booked does not outlive it.
        part = min(1.0, float(bucket.limit) / max(1.0, sum(spent.values())))
        bucket.slice_no, bucket.spent[:] = _slice_no(bucket, now), [0.0] * SLICES
        for at, tokens in spent.items():
            slice_no = min(bucket.slice_no, max(_slice_no(bucket, at), bucket.slice_no - SLICES + 1))
            bucket.spent[slice_no % SLICES] += tokens * part


def _name(bucket: Any) -> str:
    name: bytes = bucket.name
    return name.decode("utf-8", "replace")


def _used(bucket: Any, now: float) -> float:
    _turn(bucket, now)
    return float(sum(bucket.spent[:]))


def _spend(bucket: Any, tokens: float, now: float) -> None:
    if tokens > 0 and bucket.name:
        _turn(bucket, now)
        bucket.spent[bucket.slice_no % SLICES] += tokens


def _spent_by_time(bucket: Any) -> dict[float, float]:
    """The middle of each slice -> what was spent in it. To and from slices of another size no middle wanders."""
    slice_s = _slice_s(bucket)
    slices = ((number, bucket.spent[number % SLICES]) for number in range(bucket.slice_no - SLICES + 1, bucket.slice_no + 1))
    return {(number - 0.5) * slice_s: tokens for number, tokens in slices if tokens}


def _slice_s(bucket: Any) -> float:
    return float(bucket.window_s) / (SLICES - 1)


def _slice_no(bucket: Any, time: float) -> int:
    """The slice of a time, from 1: nought is a bucket in which nothing has been counted yet, also on a machine that has
    just begun."""
    return int(time / _slice_s(bucket)) + 1


def _turn(bucket: Any, now: float) -> None:
    """Give back what was spent a window ago: empty the slices that begin anew."""
    current = _slice_no(bucket, now)
    if not bucket.slice_no:
        spent, bucket.spent[0] = bucket.spent[0], 0.0
        bucket.spent[current % SLICES] += spent
    else:
        for old in range(bucket.slice_no + 1, min(current, bucket.slice_no + SLICES) + 1):
            bucket.spent[old % SLICES] = 0.0
    bucket.slice_no = max(current, bucket.slice_no)


def _back_in_s(bucket: Any, now: float, missing: float) -> float:
    """Seconds until so many tokens are back."""
    for age in range(SLICES - 1, -1, -1):
        missing -= bucket.spent[(bucket.slice_no - age) % SLICES]
        if missing <= _ROUNDING:
            return max(0.01, float(bucket.slice_no - 1 - age + SLICES) * _slice_s(bucket) - now)
    return float(bucket.window_s)


def _cost(status: int | None) -> float:
    """What an answer costs; one that did not come may have cost ESI's most."""
    return WORST_COST if status is None else token_cost(status)
