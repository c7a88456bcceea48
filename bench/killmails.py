"""How fast day archives are imported, beside the limits that the same machine has in the same run.

    python -m bench.killmails --dir FOLDER [--processes 2] [--rounds 3] [--database sqlite|postgresql]

FOLDER holds archives of EVE Ref. Their killmails are dealt out to days of equal size, so that every process has as much
to do. Limits: decompressing and parsing the same archives and doing nothing else; writing the same rows, the ledger's
among them, with the database's fastest statement (COPY, executemany) into the same tables with the same indexes, and doing
nothing else. Both are measured before the import and after it, and the mean counts: the speed of many a machine changes
within minutes. A PostgreSQL of its own is started on a free port, as for the tests.

On a machine that does other things meanwhile a rate by the clock says little, so the processor time of all processes,
the server's among them, is counted too: `cores / seconds of processor a killmail` is the rate that a machine of two
idle cores gives, as long as nothing but the processor limits it.
"""

from __future__ import annotations

import argparse
import bz2
import gc
import io
import json
import multiprocessing
import os
import resource
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.processes import cpu_s, pss, tree
from esid import clock
from esid.entities.killmail import SHAPES
from esid.feeds import importing, readers
from esid.feeds.archives import EVEREF, Folder
from esid.feeds.day import POSTGRESQL_BATCH, SQLITE_BATCH
from esid.feeds.importing import Parts, Unit
from esid.feeds.tar import members
from esid.store import copying, migrate, wholes
from esid.store.connection import Store
from esid.store.model import utc_text
from tests.tools.servers import PrivatePostgres

#: Killmails on zKillboard in the facts that this project is built on; days of equal size that are made, and times that each
#: killmail is in them, under an id of its own, so that a run lasts and a day is as large as a real one.
ALL, DAYS, TIMES = 94_259_891, 8, 4
TABLES = ("killmails", "attackers", "killmail_items", "sync_jobs")
#: Seconds between two looks at the memory; one takes milliseconds of a core.
_SAMPLE_S = 0.5
_fork = multiprocessing.get_context("fork")


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name, PrivatePostgres(durable=True) as server:
        folder = Path(name) / "archives"
        count = _deal_out(Path(arguments.dir), folder)
        print(f"{count:,} killmails in {DAYS} archives, {arguments.processes} processes, {os.cpu_count()} cores")
        for kind in arguments.database.split(","):
            rounds = []
            for number in range(arguments.rounds):
                new = partial(_database, kind, Path(name), server)
                rounds.append(_round(new, Folder(folder), arguments.processes, count, _Cpu(server)))
                print(f"{kind} {number + 1}: {_words(rounds[-1])}")
            middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            print(f"{kind} median: {_words(middle)}")
            hours = [ALL / middle[name] / 3600 for name in ("import", "import_cpu")]
            gigabytes = ALL * middle["bytes"] / 1e9
            print(f"{kind} all {ALL:,}: {hours[0]:.1f} h by the clock, {hours[1]:.1f} h by processor, {gigabytes:.0f} GB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", default="postgresql,sqlite")
    return parser.parse_args()


def _words(one: dict[str, float]) -> str:
    parts = []
    for suffix, how in (("", "clock"), ("_cpu", "processor")):
        parse, write, whole = (one[name + suffix] for name in ("parse", "write", "import"))
        parts.append(
            f"by {how}: parse alone {parse:,.0f}/s, write alone {write:,.0f}/s, import {whole:,.0f}/s = "
            f"{one['share' + suffix]:.0%} of the slower"
        )
    return "; ".join([*parts, f"{one['memory']:.0f} MB", f"{one['bytes']:,.0f} bytes a killmail", f"load {one['load']:.1f}"])


class _Cpu:
    """Seconds of processor that our children and the server have used."""

    def __init__(self, server: PrivatePostgres) -> None:
        self._postmaster = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])

    def seconds(self) -> float:
        """So far."""
        ours = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ours.ru_utime + ours.ru_stime + cpu_s(tree(self._postmaster))


@contextmanager
def _database(kind: str, folder: Path, server: PrivatePostgres) -> Iterator[str]:
    """The address of a new database, with its tables; it is gone again afterwards."""
    path = folder / "mirror.db"
    name = "" if kind == "sqlite" else server.create_database()
    url = server.url(name) if name else f"sqlite:///{path}"
    store = Store(url, for_import=True)
    migrate.migrate(store)
    store.close()
    try:
        yield url
    finally:
        if name:
            server.drop_database(name)
        for one in folder.glob(f"{path.name}*"):
            one.unlink()


def _round(
    new: Callable[[], AbstractContextManager[str]], folder: Folder, processes: int, count: int, cpu: _Cpu
) -> dict[str, float]:
    days = folder.days(EVEREF)
    limits = partial(_limits, new, folder, days, processes, cpu)
    done: list[Any] = []
    before = _apart(limits)
    with new() as url:
        with _memory() as peak:
            spent = _measured("import", lambda: _import(url, folder, days, processes, done), cpu)
        bytes_ = _bytes(url) / count
    assert sum(one.new for one in done) == count, done
    after = _apart(limits)
    spent |= {name: (before[name] + after[name]) / 2 for name in before}
    found = {name: count / seconds for name, seconds in spent.items()}
    for suffix in ("", "_cpu"):
        found[f"share{suffix}"] = found[f"import{suffix}"] / min(found[f"parse{suffix}"], found[f"write{suffix}"])
    return found | {"memory": max(peak) / 1e6, "bytes": bytes_, "load": os.getloadavg()[0]}


def _limits(
    new: Callable[[], AbstractContextManager[str]], folder: Folder, days: list[Any], processes: int, cpu: _Cpu
) -> dict[str, float]:
    parse = _measured("parse", lambda: _in_processes(lambda day: _parse(folder, day), days, processes), cpu)
    bodies = [_bodies(folder, day) for day in days]
    gc.freeze()  # nobody's time is to go into looking for garbage among them
    with new() as url:
        return parse | _measured("write", lambda: _write_alone(url, bodies, processes), cpu)


def _measured(name: str, work: Callable[[], float], cpu: _Cpu) -> dict[str, float]:
    """Seconds by the clock, and of all cores by processor."""
    before = cpu.seconds()
    return {name: work(), f"{name}_cpu": (cpu.seconds() - before) / (os.cpu_count() or 1)}


def _apart(work: Callable[[], Any]) -> Any:
    """What `work` returns in a process of its own, whose memory goes with it."""
    mine, theirs = _fork.Pipe(duplex=False)
    process = _fork.Process(target=lambda: theirs.send(work()))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found


def _parse(folder: Folder, day: Any) -> None:
    with folder.open(EVEREF, day) as archive, readers.unpacked(archive.file) as stream:
        for _, content in members(stream):
            json.loads(content)


def _import(url: str, folder: Folder, days: list[Any], processes: int, done: list[Any]) -> float:
    """Seconds of the import itself."""
    started = time.perf_counter()
    units = [Unit(EVEREF, day) for day in days]
    importing.run(Parts(lambda: Store(url, for_import=True), lambda: folder), units, processes, lambda _: None, done.append)
    return time.perf_counter() - started


def _bodies(folder: Folder, day: Any) -> list[Any]:
    with folder.open(EVEREF, day) as archive:
        return list(readers.everef(archive.file))


def _write_alone(url: str, bodies: list[list[Any]], processes: int) -> float:
    """Seconds to write the rows alone, from memory, each process its own."""

    def write(rows: list[Any]) -> None:
        store = Store(url, for_import=True)
        at_once = SQLITE_BATCH if store.is_sqlite else POSTGRESQL_BATCH
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            store.run(lambda part=part: _copy(store, part))  # type: ignore[misc]
        store.close()

    return _in_processes(write, bodies, processes)


def _copy(store: Store, bodies: list[Any]) -> None:
    now = clock.now()
    stamp = utc_text(now)
    for table, columns in SHAPES:
        name = table._meta.table_name
        if name == "killmails":
            rows = [(*one.killmail, now, now) for one in bodies]
            copying.copy(store, name, (*columns, "created_at", "updated_at"), rows)
        else:
            of_each = [one.attackers if name == "attackers" else one.items for one in bodies]
            copying.copy(store, name, columns, [row for rows in of_each for row in rows])
    copying.copy(
        store, "sync_jobs", wholes.JOB_COLUMNS, [wholes.job("killmail", one.id, one.killmail[1], stamp) for one in bodies]
    )


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


def _bytes(url: str) -> float:
    """Bytes on disk of what an import writes, indexes included."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return float(sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*")))
    store = Store(url, for_import=True)
    with store.connection():
        sizes = [store.rows("SELECT pg_total_relation_size(%s)", (name,))[0][0] for name in TABLES]
    store.close()
    return float(sum(sizes))


@contextmanager
def _memory() -> Iterator[list[int]]:
    """Bytes of memory (PSS, so that what processes share counts once) of this process and its children, sampled."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(_SAMPLE_S):
            peak.append(pss(tree(os.getpid())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _deal_out(source: Path, target: Path) -> int:
    """Write the killmails of a folder into archives of equal size; how many there are."""
    target.mkdir()
    found = Folder(source)
    tars = [(io.BytesIO(), f"2000-01-{number + 1:02}") for number in range(DAYS)]
    opened = [tarfile.open(fileobj=buffer, mode="w") for buffer, _ in tars]  # noqa: SIM115
    count = 0
    for day in found.days(EVEREF):
        with found.open(EVEREF, day) as archive, bz2.BZ2File(archive.file) as stream:
            for name, content in members(stream):
                killmail = json.loads(content)
                for turn in range(TIMES):
                    again = killmail | {"killmail_id": killmail["killmail_id"] + turn * 1_000_000_000}
                    text = json.dumps(again, separators=(",", ":")).encode()
                    info = tarfile.TarInfo(f"{turn}/{name}")
                    info.size = len(text)
                    opened[count % DAYS].addfile(info, io.BytesIO(text))
                    count += 1
    for tar, (buffer, day) in zip(opened, tars, strict=True):
        tar.close()
        (target / f"killmails-{day}.tar.bz2").write_bytes(bz2.compress(buffer.getvalue()))
    return count


if __name__ == "__main__":
    main()
