"""Every error that esid raises on purpose.

EsidError                     exit 70
├── UsageError                exit  2   what was typed cannot be meant
├── SettingsError             exit 78   a setting is missing, wrong or unknown
├── AlreadyRunning            exit 75   another daemon holds this database file
├── NotPermitted              exit 77   a file or directory cannot be written
├── AddressInUse              exit 69   the status server's port is taken
├── SourceUnavailable         exit 69   zKillboard or EVE Ref does not answer
├── StoreError                exit 70
│   ├── DatabaseUnavailable   exit 69   work pauses, nothing is counted as an attempt
│   │   └── DatabaseRefused   exit 78   wrong password, user or database name
│   ├── DatabaseDamaged       exit 65   not a database, or a malformed one
│   └── SchemaMismatch        exit 65   older (run `esid migrate`) or newer than this program
├── QueueError                exit 70
│   ├── BrokerUnavailable     exit 69   work pauses, nothing is counted as an attempt
│   │   └── BrokerRefused     exit 78   wrong user, password or virtual host
│   └── QueueMismatch         exit 78   a queue of that name exists with other arguments
├── DamagedArchive            exit 65   a day archive ends too early or holds what is none
├── Stopping                            the daemon stops: work goes back, no attempt is counted
├── Held                                the budget is closed: work waits, no attempt is counted
└── EsiError                            one id could not be fetched
    ├── EsiUnavailable                  5xx, timeout, broken connection: again, up to 10 attempts; then daily for a week
    ├── BadBody                         not JSON, truncated, empty: once more (it may pass); then daily for a week
    ├── BadField                        JSON of the wrong shape: dead letter naming entity, field, value
    ├── TooLarge                        more than the cap: dead letter
    ├── NotFound                        404: remembered, asked again after 21 days; of a row that was there 3 attempts
    └── Refused                         any other 4xx: dead letter
"""

from __future__ import annotations

import reprlib

DAY_S = 86_400.0


class EsidError(Exception):
    """The root. `str()` is one line for a person: cause first, then the cure."""

    #: What the process exits with when nobody handles the error.
    exit_code = 70


class UsageError(EsidError):
    """What was typed cannot be meant."""

    exit_code = 2


class SettingsError(EsidError):
    """A setting is missing, wrong or unknown."""

    exit_code = 78


class AlreadyRunning(EsidError):
    """Another daemon holds this database file."""

    exit_code = 75


class NotPermitted(EsidError):
    """A file or directory cannot be read or written."""

    exit_code = 77


class AddressInUse(EsidError):
    """The status server cannot listen where it was told to."""

    exit_code = 69


class SourceUnavailable(EsidError):
    """A source of killmails beside ESI does not answer. It may come back by itself."""

    exit_code = 69


class StoreError(EsidError):
    """The database said no."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached, is locked or read-only, or its disk is full. It may come back by itself."""

    exit_code = 69


class DatabaseRefused(DatabaseUnavailable):
    """The database is there and does not let us in. It ends a start; a daemon that runs waits for it to be mended."""

    exit_code = 78


class DatabaseDamaged(StoreError):
    """The file is no database, or a damaged one. It is left as it is."""

    exit_code = 65


class SchemaMismatch(StoreError):
    """The schema is not the one of this program. The data are left alone."""

    exit_code = 65


class QueueError(EsidError):
    """The queue said no."""


class BrokerUnavailable(QueueError):
    """RabbitMQ cannot be reached. It may come back by itself."""

    exit_code = 69


class BrokerRefused(BrokerUnavailable):
    """RabbitMQ is there and does not let us in. It ends a start; a daemon that runs waits for it to be mended."""

    exit_code = 78


class QueueMismatch(QueueError):
    """A queue of our name exists with other arguments."""

    exit_code = 78


class DamagedArchive(EsidError):
    """A day archive ends too early or is no archive. What was read before stands."""

    exit_code = 65


class Stopping(EsidError):
    """The daemon is stopping: the work in hand goes back to the queue, uncounted."""


class Held(EsidError):
    """The budget lets nothing leave for longer than a thread should wait.

    Args:
        wait_s: seconds until it is worth trying again.
    """

    def __init__(self, wait_s: float, reason: str) -> None:
        super().__init__(f"held for {wait_s:.0f} s: {reason}")
        self.wait_s = wait_s
        self.reason = reason


class EsiError(EsidError):
    """One id could not be fetched.

    Attributes:
        reason: one word, the key of the retry table and of `esid dead list --reason`.
        status: HTTP status of the last answer, None where there was none.
        sample: first bytes of the last answer, for a person to look at.
        max_attempts: attempts in all before the id is a dead letter; 1 = never again.
        ask_again_after_s: seconds after which a dead id is due again; None = never by itself.
        ask_again_for_s: seconds since its first dead letter after which it is due no more; None = no end.
    """

    reason = "error"
    max_attempts = 1
    ask_again_after_s: float | None = None
    ask_again_for_s: float | None = None

    def __init__(self, message: str, *, status: int | None = None, sample: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.sample = sample[:200]


class EsiUnavailable(EsiError):
    """5xx, timeout, broken connection: the next attempt may succeed."""

    reason = "unavailable"
    max_attempts = 10
    ask_again_after_s, ask_again_for_s = DAY_S, 7 * DAY_S


class BadBody(EsiError):
    """A 200 whose body is not JSON: an outage's symptom more often than data, so it is asked once more."""

    reason = "bad_body"
    max_attempts = 2
    ask_again_after_s, ask_again_for_s = DAY_S, 7 * DAY_S


class BadField(EsiError):
    """JSON of the wrong shape."""

    reason = "bad_field"

    def __init__(self, entity: str, field: str, value: object) -> None:
        super().__init__(f"{entity}: field {field!r} has the value {_short(value)}")


class TooLarge(EsiError):
    """The body is larger than the cap."""

    reason = "too_large"


class NotFound(EsiError):
    """ESI does not know the id (any more). A character can be restored, so it is asked again."""

    reason = "not_found"
    ask_again_after_s = 21 * DAY_S


class Refused(EsiError):
    """ESI refuses the request itself."""

    def __init__(self, message: str, *, status: int, sample: bytes = b"", reason: str = "") -> None:
        super().__init__(message, status=status, sample=sample)
        self.reason = reason or f"http_{status}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = reprlib.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
