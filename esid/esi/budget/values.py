"""What passes between the client and the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from zlib import crc32

from esid.errors import EsiError, Fault, Held
from esid.esi.budget.breaker import Standing


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of the budget: requests a second (0 = no pace), requests in flight, errors, percent of a bucket."""

    max_rps: float = 50.0
    max_in_flight: int = 64
    error_reserve: int = 10
    bucket_reserve: int = 2


class Outcome:
    """What an exchange ended in; the client fills it in.

    Attributes:
        status: None = no answer came.
        is_sent: False = it did not leave (no connection, or held while it connected): ESI has heard of nothing.
        failed: what was wrong with the answer, in words; "" = nothing.
        fault: whose fault that is by the look of it; the breaker finds out.
        is_outage: set by the budget: ESI or the route is away, so this failure is not an id's own.

    Args:
        look: what it waits for now, though it had leave; None = nothing.
    """

    def __init__(self, look: Callable[[], Wait | None] = lambda: None) -> None:
        self.status: int | None = None
        self.is_sent = True
        self.headers: Mapping[str, str] = {}
        self.failed, self.fault = "", Fault.ESI
        self.is_outage = False
        self._look = look

    def fail(self, error: EsiError) -> None:
        """The answer is none that can be used."""
        self.failed, self.fault = str(error), error.fault

    @property
    def was_held(self) -> bool:
        """True where it had leave and did not use it: that tells nothing of ESI."""
        return not (self.is_sent or self.failed)

    def check(self) -> None:
        """Where time has gone by since it had leave, and before it leaves. Raises Held; it does not leave then."""
        if wait := self._look():
            self.is_sent = False
            raise wait.held()


@dataclass(frozen=True, slots=True)
class Ticket:
    """What an admitted request holds: the numbers of its circuit and its buckets (see `Books`), and of its URL.

    Attributes:
        leaves_at: its turn in the pace; it does not leave sooner.
        file: the name of the budget that it was taken from; another one knows nothing of it.
        is_probe: it leaves although ESI is away.
    """

    circuit: int
    buckets: tuple[int, ...]
    url: int
    leaves_at: float
    file: bytes
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a request may not leave yet.

    Attributes:
        seconds: until it is worth trying again.
        error: what is raised instead of a wait that is too long. `HeldAlone` and its kinds are raised at once: one id waits,
            and the thread has others.
    """

    seconds: float
    why: str
    error: type[Held] = Held

    def held(self) -> Held:
        """The error to raise."""
        return self.error(self.seconds, self.why)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked, as the breaker sees it: the id in question, and what is known of it; `source` says who has named it, on
    which route (see `esi.budget.doubts`)."""

    name: str = ""
    standing: Standing = Standing.NEW
    source: int = 0

    @property
    def number(self) -> int:
        """A number for it, never 0."""
        return crc32(self.name.encode()) + 1


NOBODY = Subject()
