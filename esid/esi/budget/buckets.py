"""Token buckets of the rate groups, with a floating window as ESI has it: a token spent comes back a window later.

What is spent is booked by slices of the window, so a token comes back here a slice later than at ESI, never sooner.
Above a quarter of the bucket the tokens are spread evenly. Called by the budget, under its lock; `now` is monotonic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esid.esi import headers as read
from esid.esi.budget.state import BUCKETS, SLICES
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


class Buckets:
    """The accounts of one state.

    Args:
        reserve_percent: part of each bucket that is never used.
    """

    def __init__(self, state: Any, reserve_percent: int) -> None:
        self._state, self._reserve_percent = state, reserve_percent

    def place(self, group: str) -> int | None:
        """The place of a rate group that the table or an answer has told of; None for any other."""
        return self._find(group, GROUPS.get(group))

    def hidden_place(self, name: str) -> int | None:
        """The place of a hidden limit."""
        place = self._find(_HIDDEN_PREFIX + name, HIDDEN[name])
        if place is not None:
            self._state.buckets[place].flat = 1.0
        return place

    def learn(self, group: str, headers: Mapping[str, str], now: float) -> int | None:
        """The place of the group that an answer names, with the limit that it tells."""
        told = read.bucket_limit(headers)
        # A name that is empty, or that of a limit which no header tells, is none.
        name = group.partition("\0")[0]
        if not name or name.startswith(_HIDDEN_PREFIX):
            return None
        place = self._find(name, told or GROUPS.get(name))
        if place is not None and told and told != (self._bucket(place).limit, self._bucket(place).window_s):
            self._resize(place, told, now)
        return place

    def name(self, place: int) -> str:
        """The group's name; "" for a place that is free."""
        name: bytes = self._bucket(place).name
        return name.decode("utf-8", "replace")

    def is_hidden(self, place: int) -> bool:
        """True for a limit that no header tells."""
        return self.name(place).startswith(_HIDDEN_PREFIX)

    def usable(self, place: int) -> float:
        """Tokens of a window, less the reserve."""
        return float(self._bucket(place).limit) * (100 - self._reserve_percent) / 100

    def used(self, place: int, now: float) -> float:
        """Tokens that are spent and not back yet."""
        self._turn(place, now)
        return float(sum(self._bucket(place).spent[:]))

    def worst(self, place: int) -> float:
        """Tokens that one request may cost."""
        return float(self._bucket(place).flat or WORST_COST)

    def wait_s(self, place: int, now: float, reserved: int, *, shared: bool) -> float:
        """Seconds until one more request may leave; 0 = now.

        Args:
            reserved: requests of this host that are on their way in this bucket.
        """
        bucket = self._bucket(place)
        if bucket.closed_until > now:
            return float(bucket.closed_until - now)
        cap, used, worst = self._cap(place, shared), self.used(place, now), self.worst(place)
        if worst > cap > 0 and not (used or reserved or (shared and bucket.others_used)):
            # A limit that is smaller than what a request may cost: one leaves, or nobody would ever learn of a better one.
            return 0.0
        if used + worst * (reserved + 1) > cap:
            if reserved and used + worst <= cap:
                return 0.02
            back_s = self._back_in_s(place, now, min(used, used + worst - cap))
            # Where only our share is too small, it may grow with the next exchange.
            return min(back_s, SHARE_LOOK_S) if used + worst * (reserved + 1) <= self.usable(place) else back_s
        # The spread owes no more than what is not back yet, at what a token is worth now: a share that was small when an
        # answer came may have grown.
        owed_s = (used + (bucket.flat or _STEP) * reserved) * self._token_s(place, shared)
        bucket.next_at = min(bucket.next_at, now + min(owed_s, bucket.window_s))
        return max(0.0, float(bucket.next_at) - now) if used > BURST * cap else 0.0

    def take(self, place: int, now: float, *, shared: bool) -> None:
        """A request leaves: the next one keeps its distance."""
        bucket = self._bucket(place)
        bucket.next_at = max(now - _LAG_S, bucket.next_at) + (bucket.flat or _STEP) * self._token_s(place, shared)

    def settle(
        self, place: int, status: int | None, headers: Mapping[str, str], now: float, in_flight: int, *, shared: bool
    ) -> None:
        """Book one answer; one that cost more or less than an ordinary one moves the next request by as much.

        Args:
            in_flight: other requests on their way in this bucket, which the headers may have counted already.
        """
        bucket = self._bucket(place)
        if bucket.flat:
            self.spend(place, bucket.flat, now)
            if status == 500:
                self._close(place, now + HIDDEN_CLOSED_S)
            return
        told = read.tokens(headers, "Used")
        cost = _cost(status) if told is None else told
        self.spend(place, cost, now)
        # Less than what CCP says is not believed: what is told to cost nothing would leave all at once.
        bucket.next_at += (max(cost, _cost(status)) - _STEP) * self._token_s(place, shared)
        remaining = read.tokens(headers, "Remaining")
        if remaining is not None:
            others = bucket.others_used + bucket.others_free
            foreign = bucket.limit - self.used(place, now) - others - WORST_COST * in_flight - remaining
            if foreign > 0:
                self.spend(place, foreign, now)

    def close(self, place: int, seconds: float, now: float) -> None:
        """Nothing leaves in this bucket for so long; a later end stays."""
        self._close(place, now + seconds)

    def spend(self, place: int, tokens: float, now: float) -> None:
        """Book tokens that were spent now; a place that is free has none."""
        bucket = self._bucket(place)
        if tokens > 0 and bucket.name:
            self._turn(place, now)
            bucket.spent[bucket.slice_no % SLICES] += tokens

    def _bucket(self, place: int) -> Any:
        return self._state.buckets[place]

    def _cap(self, place: int, shared: bool) -> float:
        """Tokens of a window that this host may use."""
        usable = self.usable(place)
        return min(usable, float(self._bucket(place).allowed)) if shared else usable

    def _token_s(self, place: int, shared: bool) -> float:
        """Seconds in which a token comes back, spread evenly."""
        return float(self._bucket(place).window_s) / max(1.0, self._cap(place, shared))

    def _find(self, name: str, limit: tuple[float, float] | None) -> int | None:
        wanted = name.encode()[:39]
        for place in range(BUCKETS):
            held = self._bucket(place).name
            if held == wanted:
                return place
            if not held:
                if limit is None:
                    return None
                bucket = self._bucket(place)
                (bucket.limit, bucket.window_s), bucket.name = limit, wanted
                return place
        return None

    def _resize(self, place: int, limit: tuple[float, float], now: float) -> None:
        """A limit that is told anew: what is spent stays spent, since when it was. Two nodes of ESI may tell of two limits
        in turns, and no token is to grow younger by that.

        It is shared out at once. Who is alone has all of it until then: who joins lets nothing leave before we know of it.
        """
        bucket = self._bucket(place)
        self._turn(place, now)
        spent = self._spent_by_time(place)
        self._state.exchanged_at = 0.0
        bucket.limit, bucket.window_s = limit
        if self._state.members <= 1:
            bucket.allowed = self.usable(place)
        # More than there is cannot be spent: what a limit that was told wrong has booked does not outlive it.
        part = min(1.0, float(bucket.limit) / max(1.0, sum(spent.values())))
        bucket.slice_no, bucket.spent[:] = self._number(place, now), [0.0] * SLICES
        for at, tokens in spent.items():
            number = min(bucket.slice_no, max(self._number(place, at), bucket.slice_no - SLICES + 1))
            bucket.spent[number % SLICES] += tokens * part

    def _spent_by_time(self, place: int) -> dict[float, float]:
        """The middle of each slice -> what was spent in it. To and from slices of another size no middle wanders."""
        bucket, slice_s = self._bucket(place), self._slice_s(place)
        slices = (
            (number, bucket.spent[number % SLICES]) for number in range(bucket.slice_no - SLICES + 1, bucket.slice_no + 1)
        )
        return {(number - 0.5) * slice_s: tokens for number, tokens in slices if tokens}

    def _close(self, place: int, until: float) -> None:
        bucket = self._bucket(place)
        bucket.closed_until = max(until, bucket.closed_until)

    def _slice_s(self, place: int) -> float:
        return float(self._bucket(place).window_s) / (SLICES - 1)

    def _number(self, place: int, time: float) -> int:
        """The slice of a time, from 1: nought is a bucket in which nothing has been counted yet, also on a machine that has
        just begun."""
        return int(time / self._slice_s(place)) + 1

    def _turn(self, place: int, now: float) -> None:
        """Give back what was spent a window ago: empty the slices that begin anew."""
        bucket = self._bucket(place)
        current = self._number(place, now)
        if not bucket.slice_no:
            spent, bucket.spent[0] = bucket.spent[0], 0.0
            bucket.spent[current % SLICES] += spent
        else:
            for old in range(bucket.slice_no + 1, min(current, bucket.slice_no + SLICES) + 1):
                bucket.spent[old % SLICES] = 0.0
        bucket.slice_no = max(current, bucket.slice_no)

    def _back_in_s(self, place: int, now: float, missing: float) -> float:
        """Seconds until so many tokens are back."""
        bucket = self._bucket(place)
        for age in range(SLICES - 1, -1, -1):
            missing -= bucket.spent[(bucket.slice_no - age) % SLICES]
            if missing <= _ROUNDING:
                return max(0.01, float(bucket.slice_no - 1 - age + SLICES) * self._slice_s(place) - now)
        return float(bucket.window_s)


def _cost(status: int | None) -> float:
    """What an answer costs; one that did not come may have cost ESI's most."""
    return WORST_COST if status is None else token_cost(status)
