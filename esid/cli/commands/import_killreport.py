"""`esid import killreport`: the rows of another program's database."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import esid.settings.env_file as env_file
import esid.settings.urls as urls
from esid import log
from esid.assembly import core
from esid.cli import render
from esid.cli.printing import note, print_json
from esid.cli.progress_bar import Bar
from esid.errors import EsidError, NotPermitted, SettingsError, UsageError
from esid.feeds.killreport import KILLMAILS, KINDS, Copied, Takeover, about
from esid.settings import Settings
from esid.store.connection import Store
from esid.store.killreport import Killreport

#: Characters of what may be a path, and is repeated.
_LONGEST_PATH = 200


def run(options: argparse.Namespace, chosen: Settings) -> int:
    """`esid import killreport`: its exit code."""
    _check_options(options)
    url = _url(options.from_url or options.address)
    log.set_up("WARNING", chosen.esid_log_format)
    theirs = Killreport(url)
    theirs.check({kind.table: kind.columns for kind in KINDS})
    core.wait_for_file(chosen)
    core.set_up_store(chosen).close()
    store = Store(chosen.database, for_import=True)
    bar, copied = Bar(about(theirs), "rows"), list[Copied]()
    try:
        for one in Takeover(store, theirs, bar.advance).run():
            copied.append(one)
            bar.clear()
            if not options.json:
                print(render.taken_over(one), flush=True)
    except KeyboardInterrupt:
        bar.leave()
        note("what was taken over stands; run it again, and it goes on where it was")
        raise
    finally:
        bar.leave()
        theirs.close()
        store.close()
        with suppress(EsidError):
            core.put_away(chosen)
    if options.json:
        print_json([asdict(one) for one in copied])
    return int(any(one.left_out for one in copied if one.table == KILLMAILS))


def _check_options(options: argparse.Namespace) -> None:
    """Raises UsageError for what belongs to the other import, and would be passed over."""
    others = {"--from": options.first, "--to": options.last, "--dir": options.dir, "--source": options.source}
    others |= {"--processes": options.processes, "--again": options.again}
    if typed := [name for name, value in others.items() if value]:
        words = f"`esid import killreport` takes all that is there: it has no {' and no '.join(typed)}"
        raise UsageError(f"{words} (see `esid import --help`)")
    if options.from_url and options.address:
        raise UsageError("killreport's database is named twice: with --from-url and without; leave one out")
    if not (options.from_url or options.address):
        raise UsageError("name killreport's database: --from-url ../killreport/backend/.env, or its URL without a password")


def _url(text: str) -> str:
    """The URL that was typed, or that stands in a file; nothing of it that may be a password is repeated."""
    if urls.passwords(text) or re.search(r"password *=", text, re.IGNORECASE):
        raise UsageError(
            "a password on the command line is seen by everybody on this machine (`ps`); name the file that has the URL "
            "as DATABASE_URL, like killreport's backend/.env, or put the password into ~/.pgpass"
        )
    if "://" in text:
        return _checked(text, "killreport's database", UsageError)
    path = Path(text)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise NotPermitted(f"{path} cannot be read: {error.strerror}; check its owner and mode") from None
        where = "" if "@" in text or "=" in text or len(text) > _LONGEST_PATH else f" (looked for {path.absolute()})"
        words = "killreport's database is neither a URL like postgresql://user@host/killreport nor a file that can be read"
        raise UsageError(f"{words}{where}") from None
    values, _ = env_file.parse(content, path, is_ours=False)
    if not (found := values.get("DATABASE_URL")):
        raise UsageError(f"{path} has no line DATABASE_URL=postgresql://…")
    log.hide(*(form for password in urls.passwords(found) for form in urls.forms(password)))
    return _checked(found, f"DATABASE_URL in {path}", SettingsError)


def _checked(url: str, where: str, error: type[EsidError]) -> str:
    try:
        return urls.server(url, ("postgresql", "postgres"))
    except ValueError as wrong:
        raise error(f"{where}: the value is not {wrong}") from None
