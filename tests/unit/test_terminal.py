"""What is printed: other people's texts do nothing to a terminal, and no answer is a no."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from esid import log
from esid.cli import printing, progress_bar, render

#: Set the title, clear the screen, write to the clipboard; by ESC and by C1; turn the writing around; begin the line anew.
ODD = "a\x1b]0;owned\x07\x1b[2J\x9b2J\u202eb\rc\x7f"
PLAIN = "a\\u001b]0;owned\\u0007\\u001b[2J\\u009b2J\\u202eb\\u000dc\\u007f"


def test_control_characters_are_printed_as_their_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_lines(render.fields("corporations", {"description": f"{ODD}\nnext\tline, \u00e4\U0001f680"}))
    assert capsys.readouterr().out.splitlines()[1:] == [f"  description             {PLAIN}", "next\tline, \u00e4\U0001f680"]


@pytest.mark.parametrize("style", [log._TextFormatter, log._JsonFormatter])
def test_log_lines_have_none(style: Any) -> None:
    record = logging.LogRecord("esid.work", logging.ERROR, "", 0, "work.dead", (), None)
    record.esid_words, record.esid_fields = f"ESI says {ODD}", {"field": ODD.replace(" ", "")}
    line = style().format(record)
    assert not [one for one in line if ord(one) < 32 or 127 <= ord(one) < 160 or one == "\u202e"]
    assert line.count("\\u009b2J") == 2


def test_a_secret_is_hidden_as_json_writes_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_secrets", set())
    log.hide('pa"ss\\word')
    record = logging.LogRecord("esid.work", logging.ERROR, "", 0, "work.dead", (), None)
    record.esid_words = 'refused: pa"ss\\word'
    assert "refused: ***" in log._JsonFormatter().format(record)


def test_the_end_of_input_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        """Somebody who types Ctrl-D."""

        def isatty(self) -> bool:
            """A terminal."""
            return True

        def readline(self, *_: Any) -> str:
            """The end."""
            return ""

    monkeypatch.setattr("sys.stdin", Terminal())
    assert printing.confirmed("Empty the queues?") is False


def test_a_bar_is_no_longer_than_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress_bar.Bar(94_259_891).advance(1_000_000)
    assert len(capsys.readouterr().err.removeprefix("\r\033[K")) == 59
