"""`python -m esid` is the command `esid`."""

from esid.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
