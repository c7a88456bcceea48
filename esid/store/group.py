"""A SQLite database that other users of its folder's group may read: its files, and no other file of the folder.

A reader needs all three files of the database and no right to write: with `-wal` and `-shm` readable it joins the writer's
WAL. SQLite takes these two away when the last connection closes, and a reader may not make them anew, so that empty ones are
left, which say the same.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from esid.errors import NotPermitted

_SIDES = ("-wal", "-shm")
_ENTER, _READ = stat.S_IRGRP | stat.S_IXGRP, stat.S_IRGRP


def open_to_group(path: Path) -> None:
    """Let the group read the database at `path`, and enter its folder; what is open already is left as it is.

    Raises:
        NotPermitted: the folder or a file is somebody else's.
    """
    for one, right in ((path.parent, _ENTER), *((one, _READ) for one in (path, *_sides(path)))):
        try:
            mode = stat.S_IMODE(one.stat().st_mode)
            if mode & right != right:
                one.chmod(mode | right)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise NotPermitted(
                f"{one} cannot be opened to its group (ESID_DATA_MODE=group): {error.strerror}; "
                f"as its owner run: chmod g+r{'x' if right == _ENTER else ''} {one}"
            ) from None


def leave_sides(path: Path) -> None:
    """After the last connection: where the group may read the database, it can be opened without a right to write."""
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & _READ:
            return
        for one in _sides(path):
            with suppress(FileExistsError):
                file = os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
                os.fchmod(file, mode)
                os.close(file)


def _sides(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in _SIDES]
