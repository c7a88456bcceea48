"""The instance lock: one daemon on one SQLite file; on PostgreSQL a sign that a daemon with this data directory runs.

The kernel holds it (flock), so it ends with its process; the text in the file is for people only.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from esid import clock
from esid.errors import AlreadyRunning, NotPermitted

#: Seconds for which a lock that is held is tried again, and between two tries: who only asks whether it is held
#: (`holder`) holds it for a moment, too.
PATIENCE_S, _AGAIN_S = 0.5, 0.02
#: Seconds after which one of several daemons takes it that others were there before.
_ALONE_S = 0.1


class InstanceLock:
    """Held from `__init__` until `release` or the end of the process. Children must not inherit it: see `supervisor`.

    Args:
        alone: refuse a second holder.

    Raises:
        AlreadyRunning: naming pid and start of the other daemon.
        NotPermitted: the file cannot be made.
    """

    def __init__(self, path: Path, *, alone: bool) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotPermitted(f"{path} cannot be made: {error.strerror}; set ESID_DATA_DIR or DATABASE_URL") from None
        is_first = self._is_taken(fcntl.LOCK_EX, PATIENCE_S if alone else _ALONE_S)
        if not (is_first or (not alone and self._is_taken(fcntl.LOCK_SH, PATIENCE_S))):
            os.close(self._file)
            raise AlreadyRunning(
                f"esid is already running here ({holder(path)}, lock {path}); stop it first, or set ESID_DATA_DIR"
            ) from None
        if is_first:
            # Of several it is the first one's text: what a later one wrote would be of one that could not even start.
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"pid {os.getpid()} since {clock.now():%Y-%m-%d %H:%M:%S} UTC\n".encode(), 0)
        if is_first and not alone:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def _is_taken(self, kind: int, patience_s: float) -> bool:
        ends_at = clock.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if clock.monotonic() >= ends_at:
                    return False
                clock.sleep(_AGAIN_S)
            else:
                return True

    def release(self) -> None:
        """Give it back."""
        os.close(self._file)


def holder(path: Path) -> str | None:
    """`pid N since TIME` of a running daemon; None where none runs (whatever the file says)."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(file, 200).decode("utf-8", "replace").strip()
    else:
        return None
    finally:
        os.close(file)
