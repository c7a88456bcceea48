"""Every error that esid raises on purpose, and whose fault it is.

What follows from an error follows from its `fault` alone: what is the id's is counted against the id, and all else is
held until it is mended, without a count. So a new kind of error is a class here with a fault, and nothing more.

EsidError                     exit 70  ours
├── UsageError                exit  2  person     what was typed cannot be meant
├── SettingsError             exit 78  person     a setting is missing, wrong or unknown
├── AlreadyRunning            exit 75  person     another daemon holds this database file
├── NotPermitted              exit 77  person     a file or directory cannot be written
├── AddressInUse              exit 69  person     the status server's port is taken
├── SourceUnavailable         exit 69  source     zKillboard or EVE Ref does not answer
├── StoreError                exit 70  ours
│   ├── NoDatabase            exit 66  person     there is none where the settings say
│   ├── DataRefused           exit 70  ours       the database refuses a value: an attempt of the ids that it is about
│   ├── DatabaseLost          exit 65  database   the file was deleted, moved or replaced under a daemon
│   └── DatabaseUnavailable   exit 69  database   work pauses, nothing is counted as an attempt
│       ├── DatabaseRefused   exit 78             wrong password, user or database name
│       └── DatabaseHindered  exit 69             it answers, and does not do all that it is asked to
│           ├── DatabaseForbids  exit 77          a right is missing, or the file cannot be written
│           ├── DatabaseDamaged  exit 65          not a database, or a malformed one
│           └── SchemaMismatch   exit 65          older (run `esid migrate`) or newer than this program
├── QueueError                exit 70  broker
│   ├── BrokerUnavailable     exit 69             work pauses, nothing is counted as an attempt
│   │   ├── BrokerRefused     exit 78             wrong user, password or virtual host
│   │   └── NotTaken          exit 69             some messages were not confirmed: a queue is away or full
│   ├── QueueMismatch         exit 78             a queue of that name exists with other arguments
│   └── QueueTaken            exit 78             another installation consumes our queues
├── DamagedArchive            exit 65  source     a day archive ends too early or holds what is none
├── Stopping                           nobody     the daemon stops: work goes back, no attempt is counted
├── Held                               nobody     the budget is closed: work waits, no attempt is counted
│   └── HeldAlone                                 this id waits, the others of its message need not
│       └── Doubted                               the same, as others that its source has named are refused in rows
└── EsiError                           ESI        no answer about one id that can be used
    ├── EsiUnavailable                 ESI        5xx, an error in a 200: again, up to 10 attempts
    │   └── Unreachable                the way    no connection, no whole answer, a code of a proxy or a ban: the same
    ├── BadBody                        ESI        not JSON, truncated, empty: once more (it may pass)
    ├── BadField                       the route  JSON of the wrong shape: names entity, field, value
    │   └── Implausible                           a list far longer than it was: believed if it says so an hour later
    ├── TooLarge                       the id     more than the cap
    ├── NotFound                       the id     404: remembered, asked again after 21 days
    └── Refused                        the id     400, 422: the request itself is refused

An `EsiError` is believed to be the id's only while others are answered: several different ids in a row that fail are an
outage (`esi.budget.breaker`), whatever they fail with. An id that had an answer once is given up only after three looks.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

DAY_S = 86_400.0


class Fault(StrEnum):
    """Whose fault an error is. What is the database's, the broker's, ESI's or the way's is never booked on an id."""

    ID = "the id"
    ROUTE = "the route"
    ESI = "ESI"
    WAY = "the way to ESI"
    DATABASE = "the database"
    BROKER = "the broker"
    SOURCE = "a source of killmails"
    PERSON = "what was typed or set"
    OURS = "esid"
    NOBODY = "nobody"


class EsidError(Exception):
    """The root. `str()` is one line for a person: cause first, then the cure."""

    #: What the process exits with when nobody handles the error.
    exit_code = 70
    fault = Fault.OURS


class UsageError(EsidError):
    """What was typed cannot be meant."""

    exit_code = 2
    fault = Fault.PERSON


class SettingsError(EsidError):
    """A setting is missing, wrong or unknown."""

    exit_code = 78
    fault = Fault.PERSON


class AlreadyRunning(EsidError):
    """Another daemon holds this database file."""

    exit_code = 75
    fault = Fault.PERSON


class NotPermitted(EsidError):
    """A file or directory cannot be read or written."""

    exit_code = 77
    fault = Fault.PERSON


class AddressInUse(EsidError):
    """The status server cannot listen where it was told to."""

    exit_code = 69
    fault = Fault.PERSON


class SourceUnavailable(EsidError):
    """A source of killmails beside ESI does not answer. It may come back by itself."""

    exit_code = 69
    fault = Fault.SOURCE


class StoreError(EsidError):
    """The database said no."""


class NoDatabase(StoreError):
    """There is no database of ours where the settings say. Only `esid run`, `migrate` and `import` set one up."""

    exit_code = 66
    fault = Fault.PERSON


class DataRefused(StoreError):
    """The database refuses a value of a row. The same row is refused again; other rows are not."""


class DatabaseUnavailable(StoreError):
    """The database does not do its part, whatever row it is about: all work waits. It may come back by itself.

    Attributes:
        is_partial: other statements may succeed meanwhile, so that one success does not show that it is over.
    """

    exit_code = 69
    fault = Fault.DATABASE
    is_partial = False


class DatabaseRefused(DatabaseUnavailable):
    """The database is there and does not let us in. It ends a start; a daemon that runs waits for it to be mended."""

    exit_code = 78


class DatabaseHindered(DatabaseUnavailable):
    """The database answers, but not all statements succeed: it is locked, short of memory or disk, or was changed."""

    is_partial = True


class DatabaseForbids(DatabaseHindered):
    """We may not read or write a table, or the file."""

    exit_code = 77


class DatabaseDamaged(DatabaseHindered):
    """The file is no database, or something in the database is damaged. It is left as it is."""

    exit_code = 65


class DatabaseLost(StoreError):
    """The file was deleted, moved or replaced under a daemon that runs. No other one is set up in its place."""

    exit_code = 65
    fault = Fault.DATABASE


class SchemaMismatch(DatabaseHindered):
    """The schema is not the one of this program. The data are left alone."""

    exit_code = 65


class QueueError(EsidError):
    """The queue said no."""

    fault = Fault.BROKER


class BrokerUnavailable(QueueError):
    """RabbitMQ cannot be reached. It may come back by itself."""

    exit_code = 69


class BrokerRefused(BrokerUnavailable):
    """RabbitMQ is there and does not let us in. It ends a start; a daemon that runs waits for it to be mended."""

    exit_code = 78


class NotTaken(BrokerUnavailable):
    """RabbitMQ runs and has not taken some messages: their queue is away or full.

    Args:
        messages: these; all others are safe.
    """

    def __init__(self, words: str, messages: Sequence[Any]) -> None:
        super().__init__(words)
        self.messages = messages


class QueueMismatch(QueueError):
    """A queue of our name exists with other arguments."""

    exit_code = 78


class QueueTaken(QueueError):
    """Another installation consumes the queues of our prefix. It ends a start; a daemon that runs waits for it to go."""

    exit_code = 78


class DamagedArchive(EsidError):
    """A day archive ends too early or is no archive. What was read before stands."""

    exit_code = 65
    fault = Fault.SOURCE


class Stopping(EsidError):
    """The daemon is stopping: the work in hand goes back to the queue, uncounted."""

    fault = Fault.NOBODY


class Held(EsidError):
    """The budget lets nothing leave for longer than a thread should wait.

    Args:
        wait_s: seconds until it is worth trying again.
    """

    fault = Fault.NOBODY

    def __init__(self, wait_s: float, reason: str) -> None:
        super().__init__(f"held for {wait_s:.0f} s: {reason}")
        self.wait_s = wait_s
        self.reason = reason


class HeldAlone(Held):
    """This one id waits; others of its message may be asked meanwhile."""


class Doubted(HeldAlone):
    """Others that the same source has named were refused in rows: this one waits for its place behind the rest."""


class EsiError(EsidError):
    """There is no answer about one id that can be used.

    Attributes:
        reason: one word, the key of the retry table and of `esid dead list --reason`.
        status: HTTP status of the last answer, None where there was none.
        sample: first bytes of the last answer, for a person to look at.
        path, at: the route that was asked, and when it failed, on the monotonic clock; "" and 0.0 where nothing was asked.
        again_in_s: seconds before the next attempt, where it is known when there is another answer; None = by the attempts.
        max_attempts: attempts in all before the id is a dead letter; an id that had an answer once has 3 at least.
        ask_again_after_s: seconds after which a dead id is asked again; None = a day, or a week without any answer before.
        ask_again_for_s: seconds since its first dead letter after which it is asked as if that were None; None = no end.
    """

    reason = "error"
    fault = Fault.ESI
    max_attempts = 1
    ask_again_after_s: float | None = None
    ask_again_for_s: float | None = None

    def __init__(self, message: str, *, status: int | None = None, sample: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.sample = sample[:200]
        self.path, self.at = "", 0.0
        self.again_in_s: float | None = None


class EsiUnavailable(EsiError):
    """5xx, or an answer that says it is none: the next attempt may succeed."""

    reason = "unavailable"
    max_attempts = 10
    ask_again_after_s, ask_again_for_s = DAY_S, 7 * DAY_S


class Unreachable(EsiUnavailable):
    """Something stands in the way: no connection, no whole answer, a redirect, or a code of a gateway, a proxy or a ban."""

    fault = Fault.WAY

    def __init__(self, message: str, *, status: int | None = None, sample: bytes = b"") -> None:
        super().__init__(message, status=status, sample=sample)
        self.reason = "unavailable" if status is None else f"http_{status}"


class BadBody(EsiError):
    """A 200 whose body is not JSON: an outage's symptom more often than data, so it is asked once more."""

    reason = "bad_body"
    max_attempts = 2
    ask_again_after_s, ask_again_for_s = DAY_S, 7 * DAY_S


class BadField(EsiError):
    """JSON of the wrong shape."""

    reason = "bad_field"
    fault = Fault.ROUTE

    def __init__(self, entity: str, field: str, value: object) -> None:
        super().__init__(f"{entity}: field {field!r} has the value {_short(value)}")


class Implausible(BadField):
    """A list far longer than what was known: an hour later another answer may say the same."""

    ask_again_after_s = 3660.0


class TooLarge(EsiError):
    """The body is larger than the cap."""

    reason = "too_large"
    fault = Fault.ID


class NotFound(EsiError):
    """ESI does not know the id (any more). A character can be restored, so it is asked again."""

    reason = "not_found"
    fault = Fault.ID
    ask_again_after_s = 21 * DAY_S


class Refused(EsiError):
    """ESI refuses the request itself (400, 422)."""

    fault = Fault.ID

    def __init__(self, message: str, *, status: int, sample: bytes = b"", reason: str = "") -> None:
        super().__init__(message, status=status, sample=sample)
        self.reason = reason or f"http_{status}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = reprlib.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def let_go(error: BaseException | None) -> None:
    """An error is kept until its message has been worked off; the answers that its frames have in hand are not."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
