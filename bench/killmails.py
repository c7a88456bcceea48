"""How fast day archives are imported, beside the limits that the same machine has in the same run.

    python -m bench.killmails --dir FOLDER [--processes 2] [--rounds 3] [--database sqlite|postgresql]

FOLDER holds archives of EVE Ref. Their killmails are dealt out to days of equal size, so that every process has as much
to do. Limits: decompressing and parsing the same archives and doing nothing else; writing the same rows with the
database's fastest statement (COPY, executemany) into the same tables with the same indexes, and doing nothing else. A
PostgreSQL of its own is started on a free port, as for the tests.
"""

from __future__ import annotations

import argparse
import bz2
import io
import json
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from esid.entities.killmail import SHAPES
from esid.esi.decode import parse_json
from esid.feeds import importing, readers
from esid.feeds.archives import EVEREF, Folder
from esid.feeds.importing import Parts, Unit
from esid.feeds.tar import members
from esid.store import bulk, migrate
from esid.store.connection import Store
from tests.servers import PrivatePostgres

#: Killmails on zKillboard in the facts that this project is built on, and days of equal size that are made.
ALL, DAYS = 94_259_891, 8
TABLES = ("killmails", "attackers", "killmail_items", "sync_jobs")
_fork = multiprocessing.get_context("fork")


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name, PrivatePostgres() as server:
        folder = Path(name) / "archives"
        count = _deal_out(Path(arguments.dir), folder)
        print(f"{count:,} killmails in {DAYS} archives, {arguments.processes} processes, {os.cpu_count()} cores")
        for kind in arguments.database.split(","):
            rounds = []
            for number in range(arguments.rounds):
                path = Path(name) / f"{number}.db"
                url = f"sqlite:///{path}" if kind == "sqlite" else server.url(server.create_database())
                rounds.append(_round(url, Folder(folder), arguments.processes, count))
                print(f"{kind} {number + 1}: {_words(rounds[-1])}")
            middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            hours = ALL / middle["import"] / 3600
            print(f"{kind} median: {_words(middle)}")
            gigabytes = ALL * middle["bytes"] / 1e9
            print(f"{kind} all {ALL:,}: {hours:.1f} h, {gigabytes:.0f} GB on disk")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", default="postgresql,sqlite")
    return parser.parse_args()


def _words(one: dict[str, float]) -> str:
    ratio = one["import"] / min(one["parse"], one["write"])
    return (
        f"parse alone {one['parse']:,.0f}/s, write alone {one['write']:,.0f}/s, import {one['import']:,.0f}/s = "
        f"{ratio:.0%} of the slower; {one['memory']:.0f} MB; {one['bytes']:,.0f} bytes a killmail; load {one['load']:.1f}"
    )


def _round(url: str, folder: Folder, processes: int, count: int) -> dict[str, float]:
    days = folder.days(EVEREF)
    parse_s = _in_processes(lambda day: _parse(folder, day), days, processes)
    write_s = _write_alone(url + "_limit" if url.startswith("sqlite") else url, folder, processes)
    store = _empty(url)
    store.close()
    done: list[Any] = []
    with _memory() as peak:
        started = time.perf_counter()
        units = [Unit(EVEREF, day) for day in days]
        importing.run(Parts(lambda: Store(url), lambda: folder), units, processes, lambda _: None, done.append)
        import_s = time.perf_counter() - started
    assert sum(one.new for one in done) == count, done
    return {
        "parse": count / parse_s,
        "write": count / write_s,
        "import": count / import_s,
        "memory": max(peak) / 1e6,
        "bytes": _bytes(url) / count,
        "load": os.getloadavg()[0],
    }


def _parse(folder: Folder, day: Any) -> None:
    with folder.open(EVEREF, day) as archive, bz2.BZ2File(archive.file) as stream:
        for _, content in members(stream):
            parse_json(content)


def _write_alone(url: str, folder: Folder, processes: int) -> float:
    """Seconds to write the rows alone, from memory, each process its own."""
    bodies = []
    for day in folder.days(EVEREF):
        with folder.open(EVEREF, day) as archive:
            bodies.append(list(readers.everef(archive.file)))
    _empty(url).close()

    def write(rows: list[Any]) -> None:
        store = Store(url)
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            store.run(lambda part=part: _copy(store, part))  # type: ignore[misc]
        store.close()

    return _in_processes(write, bodies, processes)


def _copy(store: Store, bodies: list[Any]) -> None:
    from esid import clock

    now = clock.now()
    for table, columns in SHAPES:
        name = table._meta.table_name
        if name == "killmails":
            rows = [(*one.killmail, now, now) for one in bodies]
            bulk.copy(store, name, (*columns, "created_at", "updated_at"), rows)
        else:
            bulk.copy(store, name, columns, [row for one in bodies for row in (one.attackers if name == "attackers" else one.items)])


def _in_processes(work: Callable[[Any], None], units: list[Any], processes: int) -> float:
    """Seconds until all units are done."""

    def child(mine: list[Any]) -> None:
        for unit in mine:
            work(unit)

    children = [_fork.Process(target=child, args=(units[place::processes],)) for place in range(processes)]
    started = time.perf_counter()
    for one in children:
        one.start()
    for one in children:
        one.join()
        assert one.exitcode == 0
    return time.perf_counter() - started


def _empty(url: str) -> Store:
    store = Store(url)
    migrate.migrate(store)
    store.run(lambda: [store.rows(f"DELETE FROM {name}") for name in (*TABLES, "archive_imports")])
    if not store.is_sqlite:
        with store.connection():
            for name in (*TABLES, "archive_imports"):
                store.rows(f"TRUNCATE {name}")
    return store


def _bytes(url: str) -> float:
    """Bytes on disk of what an import writes, indexes included."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return float(sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*") if not one.name.endswith("_limit")))
    store = Store(url)
    with store.connection():
        sizes = [store.rows("SELECT pg_total_relation_size(%s)", (name,))[0][0] for name in TABLES]
    store.close()
    return float(sum(sizes))


@contextmanager
def _memory() -> Iterator[list[int]]:
    """Bytes of memory (PSS, so that what processes share counts once) of this process and its children, sampled."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            peak.append(sum(map(_pss, [os.getpid(), *_children(os.getpid())])))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _deal_out(source: Path, target: Path) -> int:
    """Write the killmails of a folder into archives of equal size; how many there are."""
    target.mkdir()
    found = Folder(source)
    tars = [(io.BytesIO(), f"2000-01-{number + 1:02}") for number in range(DAYS)]
    opened = [tarfile.open(fileobj=buffer, mode="w") for buffer, _ in tars]
    count = 0
    for day in found.days(EVEREF):
        with found.open(EVEREF, day) as archive, bz2.BZ2File(archive.file) as stream:
            for name, content in members(stream):
                json.loads(content)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                opened[count % DAYS].addfile(info, io.BytesIO(content))
                count += 1
    for tar, (buffer, day) in zip(opened, tars, strict=True):
        tar.close()
        (target / f"killmails-{day}.tar.bz2").write_bytes(bz2.compress(buffer.getvalue()))
    return count


if __name__ == "__main__":
    main()
