"""Day archives end in the tables as they are, on both databases, whatever is killed in between."""

from __future__ import annotations

import bz2
import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from esid.entities.killmail import Killmail
from esid.feeds.day import MOST_REFUSED
from esid.store import ledger, migrate
from esid.store.connection import Store
from tests.fake_feed import FakeFeed, Mail, Publisher, generate
from tests.fake_feed.publisher import archive, tar_of
from tests.tools import mirror
from tests.tools.daemon import ROOT, Daemon
from tests.tools.killmail_tables import assert_equal, everything
from tests.tools.terminals import Terminal
from tests.tools.waiting import wait_until

REAL = ROOT.parent / "shared" / "esi" / "killmails"
FIRST, SECOND = dt.date(2021, 11, 29), dt.date(2021, 11, 30)


@pytest.fixture
def esid(database_url: str, tmp_path: Path) -> Daemon:
    """`esid` on an empty database."""
    return Daemon({"DATABASE_URL": database_url, "ESID_DATA_DIR": str(tmp_path / "data")})


@pytest.fixture
def store(esid: Daemon) -> Iterator[Store]:
    """That database, with the schema in it."""
    opened = Store(esid.settings["DATABASE_URL"], pool_size=4)
    migrate.migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two days of ours."""
    path = tmp_path / "archives"
    path.mkdir()
    for day, mails in our_days().items():
        (path / f"killmails-{day}.tar.bz2").write_bytes(archive(mails))
    return path


def our_days() -> dict[dt.date, list[Mail]]:
    """Two days of generated killmails; one of them by the hand of CCP."""
    days = {FIRST: generate(97_010_570, 700, FIRST), SECOND: generate(97_030_000, 300, SECOND)}
    days[SECOND][5] = Mail(days[SECOND][5].id, "CCP VERIFIED", days[SECOND][5].body)
    return days


def real_mails(days: str = "*") -> list[Mail]:
    """Every killmail of these real day archives; [] where they are not at hand."""
    found = []
    for path in sorted(REAL.glob(f"killmails-{days}.tar.bz2")) if REAL.exists() else ():
        with tarfile.open(path, "r|bz2") as tar:
            for member in tar:
                body = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
                hash_ = body.pop("killmail_hash")
                body.pop("http_last_modified")
                found.append(Mail(body["killmail_id"], hash_, body))
    return found


def start(esid: Daemon, *arguments: str) -> subprocess.Popen[bytes]:
    """`esid import` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "esid", "import", "killmails", *arguments],
        env=esid.environment, cwd=esid.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


class Watcher:
    """A reader that looks all the time whether some killmail has a part of its attackers or items alone."""

    def __init__(self, url: str, mails: list[Mail]) -> None:
        self._items = {one.id: len(mirror.items(one.id, one.body)) for one in mails}
        self._store = Store(url, pool_size=2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks, self.parts = 0, list[Any]()

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._store.close()

    def _watch(self) -> None:
        # One statement is one snapshot on both databases.
        sql = (
            "SELECT id, attacker_count, (SELECT COUNT(*) FROM attackers WHERE killmail_id = killmails.id), "
            "(SELECT COUNT(*) FROM killmail_items WHERE killmail_id = killmails.id) FROM killmails "
            "ORDER BY created_at DESC LIMIT 2000"
        )
        while not self._stop.is_set():
            with self._store.connection():
                for key, said, attackers, items in self._store.rows(sql):
                    if said != attackers or items != self._items[key]:
                        self.parts.append((key, said, attackers, items))
            self.looks += 1


def test_archives_end_equal_to_their_json_and_the_second_time_changes_nothing(
    esid: Daemon, store: Store, folder: Path
) -> None:
    mails = [one for day in our_days().values() for one in day]
    with Watcher(esid.settings["DATABASE_URL"], mails) as watcher:
        out = esid.ok("import", "killmails", "--dir", str(folder))
        wait_until(lambda: watcher.looks > 2, 20, "a look")
    assert watcher.parts == []
    assert "2021-11-29  700 killmails, 700 new" in out
    assert "2 days: 1,000 killmails, 1,000 new" in out
    assert_equal(store, mails)
    before = everything(store)
    # Archives that were read to their end are not read again, and where they are, nothing is written.
    assert "read before" in esid.ok("import", "killmails", "--dir", str(folder))
    again = json.loads(esid.ok("import", "killmails", "--dir", str(folder), "--again", "--json"))
    assert [(day["killmails"], day["new"], day["repaired"]) for day in again] == [(700, 0, 0), (300, 0, 0)]
    assert everything(store) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_of_a_folder_exactly_the_days_are_taken_that_were_named(esid: Daemon, store: Store, folder: Path) -> None:
    def taken(*days: str) -> list[str]:
        ran = esid.ok("import", "killmails", "--dir", str(folder), *days, "--json")
        return [day["day"] for day in json.loads(ran)]

    assert taken("--from", str(FIRST)) == [str(FIRST)]
    assert_equal(store, our_days()[FIRST])
    assert taken("--to", str(FIRST)) == [str(FIRST)]
    assert taken("--from", str(FIRST), "--to", "2021-12-31") == [str(FIRST), str(SECOND)]
    assert taken() == [str(FIRST), str(SECOND)]
    # One that it lacks is said, with what it has
    ran = esid.run("import", "killmails", "--dir", str(folder), "--from", "2021-12-01")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert f"no archive of everef for these days; it has {FIRST} to {SECOND}" in ran.err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_bar_ends_at_100_percent_on_a_line_of_its_own(esid: Daemon, folder: Path) -> None:
    command = [sys.executable, "-m", "esid", "import", "killmails", "--dir", str(folder)]
    with Terminal(command, esid.environment, esid.directory) as terminal:
        assert terminal.wait(60) == 0
    *_, bar, summary = terminal.seen.rstrip().split("\r\n")
    assert f"[{'#' * 30}] 100 %  1,000 of 1,000" in bar.rpartition("\r\x1b[K")[2]
    assert summary.startswith("2 days: 1,000 killmails, 1,000 new")
    assert "\x1b" not in summary
    # Where nothing was read no bar is left
    with Terminal(command, esid.environment, esid.directory) as terminal:
        assert terminal.wait(60) == 0
    assert terminal.seen.rstrip().split("\x1b[K")[-1].endswith("2 days: 0 killmails, 0 new")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_bar_of_days_that_lack_something_does_not_say_100_percent(esid: Daemon, folder: Path) -> None:
    path = folder / f"killmails-{FIRST}.tar.bz2"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Terminal(
        [sys.executable, "-m", "esid", "import", "killmails", "--dir", str(folder)], esid.environment, esid.directory
    ) as terminal:
        assert terminal.wait(60) == 1
    assert "100 %" not in terminal.seen
    assert "\r\n2 days: " in terminal.seen


@pytest.mark.skipif(not REAL.exists(), reason="the real archives lie beside the project's own files")
@pytest.mark.quick_on("postgresql")
@pytest.mark.parametrize(
    ("days", "begin", "least"),
    [("2021-12-03", ["--from", "2021-12-03"], 4_000), pytest.param("*", [], 10_000, marks=pytest.mark.long)],
)
def test_real_archives_end_equal_to_their_json(esid: Daemon, store: Store, days: str, begin: list[str], least: int) -> None:
    mails = real_mails(days)
    report = json.loads(esid.ok("import", "killmails", "--dir", str(REAL), *begin, "--json", timeout_s=170))
    assert sum(day["new"] for day in report) == len(mails) > least
    assert_equal(store, mails)


@pytest.mark.quick_on("postgresql")
def test_ten_kills_lose_nothing_and_double_nothing(esid: Daemon, store: Store, folder: Path) -> None:
    # Given our days, or (LONG_TESTS=1) the real ones
    mails, path = [one for day in our_days().values() for one in day], folder
    if "LONG_TESTS" in os.environ:
        mails, path = real_mails(), REAL
    rng = random.Random(7)
    done = 0
    for _ in range(10):
        # When it is killed at a random moment of the rest
        process = start(esid, "--dir", str(path))
        wanted = done + rng.randrange(1, max(2, (len(mails) - done) // 6))

        def is_time(process: Any = process, wanted: int = wanted) -> bool:
            return process.poll() is not None or rows(store) >= wanted

        wait_until(is_time, 60, "progress", every_s=0.01)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        assert rows(store) >= done
        done = rows(store)
        assert parts(store) == []
    # Then the last run finds the rest and nothing twice, and another changes nothing
    report = json.loads(esid.ok("import", "killmails", "--dir", str(path), "--json", timeout_s=170))
    assert sum(day["new"] for day in report) == len(mails) - done
    assert_equal(store, mails)
    before = everything(store)
    esid.ok("import", "killmails", "--dir", str(path), "--again", timeout_s=170)
    assert everything(store) == before


def rows(store: Store) -> int:
    """How many killmails there are."""
    with store.connection():
        return int(store.rows("SELECT COUNT(*) FROM killmails")[0][0])


def parts(store: Store) -> list[Any]:
    """Killmails with other than their attackers."""
    sql = (
        "SELECT id FROM killmails WHERE attacker_count <> (SELECT COUNT(*) FROM attackers WHERE killmail_id = killmails.id)"
    )
    with store.connection():
        return store.rows(sql)


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.999], ids=str)
@pytest.mark.takes_turns("cut")
def test_of_a_damaged_file_the_good_is_kept_and_the_file_is_named(
    esid: Daemon, store: Store, folder: Path, cut: float
) -> None:
    # Given that one of two files ends too early: bzip2 packs 900 kB at a time, so the days are made larger than that
    days = our_days()
    path = folder / f"killmails-{FIRST}.tar.bz2"
    whole = bz2.decompress(path.read_bytes())
    packed = b"".join(bz2.compress(whole[start : start + 100_000]) for start in range(0, len(whole), 100_000))
    path.write_bytes(packed[: int(len(packed) * cut)])
    # When both are imported
    ran = esid.run("import", "killmails", "--dir", str(folder))
    # Then the code says that something is missing, the file is named, what was good is there
    assert ran.code == 1
    assert f"{path} is damaged" in ran.out
    found = mirror.table(store, Killmail)
    good = [one for one in days[FIRST] if one.id in found]
    assert len(days[FIRST]) * cut - 60 < len(good) < len(days[FIRST])
    assert_equal(store, good + days[SECOND])
    # And once the file is whole, the rest comes
    path.write_bytes(packed)
    esid.ok("import", "killmails", "--dir", str(folder))
    assert_equal(store, days[FIRST] + days[SECOND])


@pytest.mark.quick_on("sqlite")
def test_members_that_are_no_killmails_are_named_and_the_others_kept(esid: Daemon, store: Store, folder: Path) -> None:
    good = our_days()[FIRST][0]
    body = good.body | {"killmail_hash": good.hash}
    members = {
        "killmails/1.json": b"{",
        "killmails/2.json": json.dumps(body | {"killmail_id": "2"}).encode(),
        "killmails/3.json": json.dumps(good.body).encode(),
        f"killmails/{good.id}.json": json.dumps(body).encode(),
        "killmails/5.json": json.dumps(body | {"killmail_id": 5, "attackers": [{"damage_done": "1"}]}).encode(),
    }
    (folder / f"killmails-{FIRST}.tar.bz2").write_bytes(tar_of(members))
    ran = esid.run("import", "killmails", "--dir", str(folder), "--from", str(FIRST), "--to", str(FIRST))
    assert ran.code == 1
    assert "1 killmail, 1 new, 4 members refused" in ran.out
    for name in ("1", "2", "3", "5"):
        assert f"refused killmails/{name}.json: " in ran.out
    assert_equal(store, [good])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_day_of_members_that_are_no_killmails_is_given_up_by_name_within_little_memory(
    esid: Daemon, store: Store, folder: Path
) -> None:
    # Given a day of half a million such members, behind a good one
    good = our_days()[FIRST][0]
    path = folder / f"killmails-{FIRST}.tar.bz2"
    whole = bz2.decompress(archive([good])).rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    path.write_bytes(bz2.compress(whole) + bz2.compress((tarfile.TarInfo("none").tobuf(tarfile.USTAR_FORMAT)) * 10_000) * 50)
    # When it is imported, and once more
    for _ in range(2):
        ran, most_kb = measured(esid, "import", "killmails", "--dir", str(folder), "--processes", "1")
        # Then one line names it, it is not read on, and the other day is there
        assert ran.returncode == 1
        assert ran.stdout.count(f"{path} is damaged: ") == 1
        assert "are no killmails; the rest of the day is given up" in ran.stdout
        assert most_kb < 120_000
        assert_equal(store, [good, *our_days()[SECOND]])
    with store.connection():
        sql = "SELECT refused, finished FROM archive_imports ORDER BY refused DESC LIMIT 1"
        ((refused, is_finished),) = store.rows(sql)
    assert MOST_REFUSED <= refused < MOST_REFUSED + 1000
    assert not is_finished


def measured(esid: Daemon, *arguments: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """What a command did, and the kilobytes that the largest of its processes took."""
    code = (
        "import resource, subprocess, sys; ran = subprocess.run([sys.executable, '-m', 'esid', *sys.argv[1:]]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(ran.returncode)"
    )
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(
        command, env=esid.environment, cwd=esid.directory, capture_output=True, text=True, timeout=60, check=False
    )
    return ran, int(ran.stdout.split()[-1])


@pytest.mark.parametrize("content", [b"", b"<html>not here</html>", bz2.compress(b"x" * 2000), bz2.compress(b"")], ids=len)
@pytest.mark.takes_turns("content")
def test_a_file_that_is_no_archive_is_named(esid: Daemon, store: Store, folder: Path, content: bytes) -> None:
    path = folder / f"killmails-{FIRST}.tar.bz2"
    path.write_bytes(content)
    ran = esid.run("import", "killmails", "--dir", str(folder))
    assert ran.code == 1
    assert f"{path} is damaged" in ran.out
    assert "Traceback" not in ran.err
    assert_equal(store, our_days()[SECOND])


@pytest.mark.quick_on("postgresql")
def test_archives_come_over_http_from_either_source(esid: Daemon, store: Store) -> None:
    days, publisher = our_days(), Publisher()
    for mails in days.values():
        publisher.add(*mails)
    with FakeFeed(publisher) as fake:
        esid.settings |= fake.settings
        ran = esid.run("import", "killmails", "--from", str(FIRST), "--to", "2021-12-01", "--json")
        # The last of the three days has no archive: it is named, the others are there.
        assert ran.code == 1
        by_day = {day["day"]: day for day in json.loads(ran.out)}
        assert "HTTP 404" in by_day["2021-12-01"]["error"]
        assert [day["absent"] for day in by_day.values()] == [False, False, True]
        # In words: host, port and path whole, and nothing of a part that was read.
        ran = esid.run("import", "killmails", "--from", "2021-12-01")
        url = f"{fake.archive_url}/2021/killmails-2021-12-01.tar.bz2"
        assert ran.out.splitlines()[0] == f"2021-12-01  there is no archive of this day: {url}: HTTP 404"
        today = dt.datetime.now(dt.UTC).date()
        ran = esid.run("import", "killmails", "--from", str(today))
        assert ran.out.startswith(f"{today}  no archive so far, the day has not ended yet: {fake.archive_url}/")
        assert_equal(store, [one for mails in days.values() for one in mails])
        # What is missing from one source is taken from the other.
        store.run(lambda: store.rows("DELETE FROM killmails WHERE id < %s", (days[FIRST][300].id,)))
        esid.ok("import", "killmails", "--from", str(FIRST), "--to", str(SECOND), "--source", "zkillboard")
        assert_equal(store, [one for mails in days.values() for one in mails])
        assert fake.violations() == []
        assert fake.count("/ephemeral") == 0


def test_hashes_alone_become_jobs_for_esi_but_for_those_that_are_none(esid: Daemon, store: Store) -> None:
    days, publisher = our_days(), Publisher()
    publisher.add(*days[SECOND])
    with FakeFeed(publisher) as fake:
        esid.settings |= fake.settings
        ran = esid.run("import", "killmails", "--from", str(SECOND), "--source", "esi")
    assert ran.code == 1
    assert "299 asked of ESI, 1 still missing" in ran.out
    assert ledger.open_count(store, ["killmail"]) == 299
    assert ledger.job(store, "killmail", days[SECOND][5].id) is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_day_of_which_every_killmail_is_asked_of_esi_ends_well(esid: Daemon, store: Store) -> None:
    mails, publisher = our_days()[FIRST], Publisher()
    publisher.add(*mails)
    with FakeFeed(publisher) as fake:
        esid.settings |= fake.settings
        asked, none = (("--from", str(FIRST), "--source", "esi"), ("--from", str(SECOND), "--source", "esi", "--json"))
        assert "700 asked of ESI" in esid.ok("import", "killmails", *asked)
        # A day whose hashes cannot be had is said by the exit code too.
        ran = esid.run("import", "killmails", *none)
    assert ran.code == 1
    assert "HTTP 404" in json.loads(ran.out)[0]["errors"][0]
    assert ledger.open_count(store, ["killmail"]) == 700


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name the days"),
        (("--from", "2021-13-01"), "--from '2021-13-01' is not a day"),
        (("--from", "2021-12-03", "--to", "2021-11-29"), "is before"),
        (("--dir", "."), "has no archive"),
        (("--dir", ".", "--from", "2021-12-03", "--to", "2021-11-29"), "is before"),
        (("--from", "2021-11-29", "--processes", "0"), "--processes '0' is not a whole number from 1 to 64"),
        (("--from", "2021-11-29", "--source", "everet"), "did you mean everef?"),
    ],
    ids=str,
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_cannot_be_meant_is_said_in_one_line(esid: Daemon, arguments: tuple[str, ...], words: str) -> None:
    ran = esid.run("import", "killmails", *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert len(ran.err.strip().splitlines()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_other_peoples_servers_are_not_asked_without_a_contact(esid: Daemon) -> None:
    esid.settings |= {"ESID_ARCHIVE_URL": "https://data.everef.net/killmails", "ESID_FEED_URL": "http://127.0.0.1:9"}
    for command in (("import", "killmails", "--from", "2021-11-29"), ("heal",), ("schedule", "run", "heal")):
        ran = esid.run(*command)
        assert ran.code == 78
        assert "ESI_CONTACT is empty" in ran.err


@pytest.mark.parametrize(
    "command",
    ["heal", "schedule run sweep heal", "import killmails --from 2021-11-29 --source zkillboard",
     "import killmails --from 2021-11-29 --source esi"],
)  # fmt: skip
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_reads_zkillboards_history_says_that_it_is_off(esid: Daemon, command: str) -> None:
    ran = esid.run(*command.split(), ESI_CONTACT="you@example.com", ESID_FEED_URL="off")
    assert (ran.code, ran.out) == (78, "")
    assert "ESID_FEED_URL is off" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_eve_refs_archives_need_no_zkillboard(esid: Daemon, store: Store) -> None:
    publisher = Publisher()
    publisher.add(*our_days()[FIRST])
    with FakeFeed(publisher) as fake:
        esid.ok("import", "killmails", "--from", str(FIRST), ESID_ARCHIVE_URL=fake.archive_url, ESID_FEED_URL="off")
    assert_equal(store, our_days()[FIRST])
