"""The command `esid`, also as `python -m esid`."""

from __future__ import annotations

import sys

from esid import host


def main() -> int:
    """Run the command that was typed; returns its exit code (see `esid.cli.main`)."""
    host.open_standard_files()
    if sys.argv[1:2] == ["run"]:
        # Before the rest is imported, which would have to be imported twice.
        host.keep_memory_steady()
    from esid.cli.main import main

    return main()


if __name__ == "__main__":
    raise SystemExit(main())
