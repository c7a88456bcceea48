"""Whether a SQLite database and its instance lock are still the files that the daemon began with.

A process goes on with the file that it has opened, whatever lies at its name by now: all that it writes would be lost, and
a second daemon could begin beside it.
"""

from __future__ import annotations

from pathlib import Path

from esid.errors import DatabaseLost


class Files:
    """The two files as they are now."""

    def __init__(self, database: Path, lock: Path) -> None:
        self._database, self._lock = database, lock
        self._known = {path: _identity(path) for path in (database, lock)}

    def check(self) -> None:
        """Find both in their places.

        Raises:
            DatabaseLost: one was deleted, moved or replaced.
        """
        for path in (self._database, self._lock):
            try:
                found = _identity(path)
            except OSError:
                continue  # who cannot look does not know
            if found != self._known[path]:
                what = "replaced" if found else "deleted or moved"
                raise DatabaseLost(f"{path} was {what} while esid runs: {self._cure(path, is_there=bool(found))}")

    def _cure(self, path: Path, *, is_there: bool) -> str:
        if path == self._lock:
            return "a second daemon could begin on this database; start esid again, and leave the lock where it is"
        lost = "what esid has written since is lost"
        if is_there:
            return f"{lost}; if the new file is right, delete the -wal and -shm files of the old one, and start esid again"
        return f"{lost}; put the file back with its -wal file, or restore a backup, and start esid again"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from every other one; None where there is none. Raises OSError where that cannot be known."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
