"""Where day archives come from: EVE Ref and zKillboard over HTTP, or a folder with their files in it."""

from __future__ import annotations

import datetime as dt
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from esid.errors import NotFound, NotPermitted, TooLarge
from esid.esi.decode import Fields, parse_json
from esid.feeds.http import LARGEST_HASHES, Source

EVEREF, ZKILLBOARD = "everef", "zkillboard"
#: Sources of bodies, the one that is asked first before the other; and zKillboard's hashes, whose bodies ESI has.
SOURCES, HASHES = (EVEREF, ZKILLBOARD), "esi"
#: Bytes of the totals of all days; zKillboard's have 140 kB.
LARGEST_TOTALS = 1024 * 1024
_TAR, _JSON = re.compile(r"killmails-(\d{4}-\d{2}-\d{2})\.tar\.bz2"), re.compile(r"(\d{8})\.json")


@dataclass(frozen=True, slots=True)
class Archive:
    """One open archive: its file, what tells this version of it from another, its name for a person."""

    file: BinaryIO
    fingerprint: str
    name: str


class Online:
    """Archives over HTTP; a day without one raises NotFound.

    A file is written to disk first, without a name, so that a killed process leaves none behind.

    Args:
        directory: where there is room for a day (at most 1 GiB).
    """

    def __init__(self, everef: Source, zkillboard: Source, directory: Path) -> None:
        self._sources = {EVEREF: everef, ZKILLBOARD: zkillboard}
        self._directory = directory

    @contextmanager
    def open(self, source: str, day: dt.date) -> Iterator[Archive]:
        """The day's archive."""
        path = {
            EVEREF: f"/{day:%Y}/killmails-{day:%Y-%m-%d}.tar.bz2",
            ZKILLBOARD: f"/history/raw/{day:%Y%m%d}.json",
        }[source]
        with _unnamed(self._directory) as file:
            fingerprint = self._sources[source].download(path, file)
            file.seek(0)
            yield Archive(file, fingerprint, self._sources[source].name(path))

    def hashes(self, day: dt.date) -> bytes:
        """zKillboard's file of ids and hashes."""
        return self._sources[ZKILLBOARD].get(f"/history/{day:%Y%m%d}.json", LARGEST_HASHES)

    def totals(self, source: str = ZKILLBOARD) -> dict[dt.date, int]:
        """How many killmails a source knows of each day. Days that are none are left out.

        Raises:
            BadBody, BadField: it is no JSON object of numbers. Otherwise as `Source.get`.
        """
        path = "/totals.json" if source == EVEREF else "/history/totals.json"
        fields = Fields("totals", parse_json(self._sources[source].get(path, LARGEST_TOTALS)))
        return {day: fields.integer(name) for name in fields.value if (day := _day(name))}

    def close(self) -> None:
        """Close the connections."""
        for source in self._sources.values():
            source.close()


@contextmanager
def _permitted(path: Path) -> Iterator[None]:
    """Raises NotPermitted where the file or folder, or what lies in it, cannot be read."""
    try:
        yield
    except PermissionError as error:
        raise NotPermitted(f"{error.filename or path} cannot be read: {error.strerror}; check its owner and mode") from None


class Folder:
    """Archives that lie in a folder, at any depth, under the names that their sources give them.

    zKillboard's raw files lie in a folder `raw` beside the files of hashes, as they do over HTTP.

    Raises:
        NotPermitted: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise NotPermitted(f"{path} is no folder; --dir takes one with archives in it")
        self._path = path
        with _permitted(path):
            raw, hashes = self._found(_JSON, in_raw=True), self._found(_JSON, in_raw=False)
            self._files = {EVEREF: self._found(_TAR, in_raw=False), ZKILLBOARD: raw, HASHES: hashes}

    def days(self, source: str) -> list[dt.date]:
        """The days of which the folder has an archive."""
        return sorted(self._files[source])

    def size(self, source: str, day: dt.date) -> int:
        """Bytes of the day's archive."""
        path = self._files[source][day]
        with _permitted(path):
            return path.stat().st_size

    @contextmanager
    def open(self, source: str, day: dt.date) -> Iterator[Archive]:
        """The day's archive."""
        path = self._file(self._files[source], day)
        with _permitted(path), path.open("rb") as file:
            stat = path.stat()
            yield Archive(file, f"{stat.st_size} bytes of {stat.st_mtime_ns}", str(path))

    def hashes(self, day: dt.date) -> bytes:
        """zKillboard's file of ids and hashes."""
        path = self._file(self._files[HASHES], day)
        with _permitted(path), path.open("rb") as file:
            if len(body := file.read(LARGEST_HASHES + 1)) > LARGEST_HASHES:
                raise TooLarge(f"{path} is larger than {LARGEST_HASHES >> 20} MiB", sample=body)
            return body

    def close(self) -> None:
        """Nothing is open."""

    def _file(self, files: dict[dt.date, Path], day: dt.date) -> Path:
        if day not in files:
            raise NotFound(f"{self._path} has no archive of {day}", status=404)
        return files[day]

    def _found(self, name: re.Pattern[str], *, in_raw: bool) -> dict[dt.date, Path]:
        """Day -> file of one form of name."""
        files = (path for path in sorted(self._path.rglob("*")) if (path.parent.name == "raw") is in_raw and path.is_file())
        matches = [(name.fullmatch(path.name), path) for path in files]
        return {day: path for match, path in matches if match and (day := _day(match[1]))}


@contextmanager
def _unnamed(directory: Path) -> Iterator[BinaryIO]:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            yield file
    except PermissionError as error:
        raise NotPermitted(f"{directory} cannot be written: {error.strerror}; set ESID_DATA_DIR") from None


def _day(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None
