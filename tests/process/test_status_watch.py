"""`esid status` for people: every section is there, and `--watch` is a page of its own on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.tools.daemon import Daemon
from tests.tools.stacks import STACKS
from tests.tools.terminals import Terminal
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.parametrize("stack", [STACKS[0]], indirect=True)
SECTIONS = ("Queues", "Rate limit", "Ledger", "Freshness", "Throughput", "Processes", "Schedule (esid schedule)")
WATCH = [sys.executable, "-m", "esid", "status", "--watch"]
#: The terminal's other page and its cursor: taken, and given back.
TAKEN, GIVEN_BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@pytest.fixture
def watching(daemon: Daemon) -> Iterator[Terminal]:
    """`esid status --watch` in a terminal, with its first page drawn."""
    daemon.ok("migrate")
    with Terminal(WATCH, daemon.environment, daemon.directory) as terminal:
        wait_until(terminal.page, 60, lambda: terminal.seen)
        yield terminal


def shows(terminal: Terminal, is_meant: Callable[[list[str]], bool]) -> list[str]:
    """The page, once it is as it is meant to be."""
    wait_until(lambda: is_meant(terminal.page()), 30, lambda: "\n".join(terminal.page()), every_s=0.05)
    return terminal.page()


def assert_given_back(terminal: Terminal) -> None:
    """The terminal is as it was."""
    assert terminal.seen.count(TAKEN) == terminal.seen.count(GIVEN_BACK) == 1
    assert terminal.seen.index(TAKEN) < terminal.seen.index(GIVEN_BACK)
    # Lines go on in the next one again
    assert terminal.seen.rindex("\x1b[?7h") > terminal.seen.rindex("\x1b[?7l")
    assert terminal.is_plain


def test_status_has_every_section(daemon: Daemon) -> None:
    daemon.start()
    wait_until(lambda: " worker " in daemon.ok("status"), 60, daemon.log, every_s=0.5)
    out = daemon.ok("status")
    assert [one for one in SECTIONS if f"\n{one}" not in out] == []
    assert "sync_alliance" in out
    assert daemon.stop() == 0
    # What has ended in good order has signed off
    assert "none was heard of" in daemon.ok("status")


def test_watch_draws_over_itself(daemon: Daemon) -> None:
    daemon.ok("migrate")
    master, terminal = pty.openpty()
    watching = subprocess.Popen(
        WATCH, env=daemon.environment, cwd=daemon.directory, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    seen = b""

    def screens() -> bool:
        nonlocal seen
        seen += os.read(master, 65536)
        return seen.count(b"\x1b[H") >= 2

    try:
        wait_until(screens, 60, "a second screen")
        # Not cleared, which flickers: each line is drawn over, and what stood behind it is wiped
        assert b"\x1b[2J" not in seen
        assert seen.count(b"\x1b[K") > 2 * len(SECTIONS)
        assert seen.count(b"\x1b[J") >= 1
    finally:
        watching.send_signal(signal.SIGINT)
        # A terminal that nobody reads takes no last word.
        with suppress(OSError):
            while os.read(master, 65536):
                pass
        assert watching.wait(30) == 130
        os.close(master)


def test_a_low_terminal_shows_the_top_and_says_what_is_below(watching: Terminal) -> None:
    page = watching.page()

    assert len(page) == 24
    assert max(map(len, page)) <= 80
    assert page[0].startswith("esid ")
    assert [row for row in page if row.startswith("Ledger")]
    assert "q quits" in page[-1]
    assert "lines below: " in page[-1]
    # Nothing goes by: the terminal's history has none of it
    assert watching.seen.startswith(TAKEN)
    watching.press("q")
    assert watching.wait() == 0
    assert_given_back(watching)


def test_the_page_takes_the_size_that_there_is_also_when_it_changes(watching: Terminal) -> None:
    watching.resize(120, 70)
    page = shows(watching, lambda page: len(page) == 70)

    # Everything is there, and no keys are needed
    assert [one for one in SECTIONS if not any(row.startswith(one) for row in page)] == []
    assert "below" not in page[-1]
    watching.resize(40, 10)
    page = shows(watching, lambda page: len(page) == 10)
    assert page[0].startswith("esid ")
    assert max(map(len, page)) <= 40


def test_keys_scroll(watching: Terminal) -> None:
    top = watching.page()
    watching.press("j")
    assert shows(watching, lambda page: page[0] != top[0])[0] == top[1]
    watching.press("\x1b[A")
    shows(watching, lambda page: page[0] == top[0])
    watching.press("\x1b[6~")
    shows(watching, lambda page: "the end" in page[-1] or not any(row in top[1:] for row in page[:1]))
    watching.press("G")
    assert shows(watching, lambda page: "the end" in page[-1])[-2].strip().startswith("clean_up")
    watching.press("\x1b[H")
    shows(watching, lambda page: page[0] == top[0])


@pytest.mark.parametrize(("how", "code"), [("\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_whatever_ends_it_gives_the_terminal_back(watching: Terminal, how: str | signal.Signals, code: int) -> None:
    watching.press(how) if isinstance(how, str) else watching.process.send_signal(how)

    assert watching.wait() == code
    assert_given_back(watching)


def test_an_error_is_said_on_the_terminal_as_it_was(watching: Terminal, daemon: Daemon, stack: object) -> None:
    # When the database becomes a file that is none
    (path,) = Path(daemon.environment["ESID_DATA_DIR"]).parent.rglob("*.db")
    for one in path.parent.glob(f"{path.name}*"):
        one.write_bytes(b"no database " * 4096)

    assert watching.wait() == 65
    assert_given_back(watching)
    after = watching.seen.rpartition(GIVEN_BACK)[2]
    assert after.startswith("esid: ")
    assert len(after.splitlines()) == 1


def test_stopped_and_continued_it_gives_back_and_takes_again(watching: Terminal) -> None:
    watching.press("\x1a")
    wait_until(lambda: GIVEN_BACK in watching.read(), 20, lambda: watching.seen)
    wait_until(lambda: watching.is_plain, 20, "a plain terminal")
    watching.process.send_signal(signal.SIGCONT)

    wait_until(lambda: watching.read().count(TAKEN) == 2, 20, lambda: watching.seen)
    watching.press("q")
    assert watching.wait() == 0


@pytest.mark.parametrize("surroundings", ["pipe", "dumb"])
def test_where_there_is_no_page_it_is_plain_text_again_and_again(daemon: Daemon, surroundings: str) -> None:
    daemon.ok("migrate")
    with (daemon.directory / "out").open("wb") as out:
        environment = {**daemon.environment, "TERM": "dumb"}
        to_file = {"stdout": out.fileno()} if surroundings == "pipe" else {}
        with Terminal(WATCH, environment, daemon.directory, **to_file) as terminal:

            def seen() -> str:
                return (daemon.directory / "out").read_text(encoding="utf-8") + terminal.read()

            wait_until(lambda: seen().count("\nLedger") >= 2, 60, seen)
            assert "\x1b" not in seen()
