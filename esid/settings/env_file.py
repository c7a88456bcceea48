"""The file with settings: which one it is, and what stands in it. Values are literal: nothing in them is expanded."""

from __future__ import annotations

import codecs
import io
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from esid.errors import SettingsError
from esid.settings.table import BY_NAME, SYSTEM_FILE
from esid.settings.urls import passwords

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class EnvFile:
    """What a file says. `lines` tells for each name in which line; without a path there is no file."""

    path: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        """Where the value of a name stands."""
        return f"{self.path} line {self.lines[name]}"

    def origins(self) -> dict[str, str]:
        """The same for all names."""
        return {name: self.origin(name) for name in self.values}


def find(named: Path | None, usual: Sequence[Path]) -> EnvFile:
    """The file that a person has named, else the first of the usual ones that is there, else none.

    Raises:
        SettingsError: it cannot be read or understood, or is not there although it was named.
    """
    if named:
        return _read(named)
    for path in usual:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # reading it says why
        return _read(path)
    return EnvFile()


def _read(path: Path) -> EnvFile:
    try:
        with path.open("rb") as stream:
            content, mode = stream.read(), stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise SettingsError(f"{path} is not there; it was named by --env-file or ESID_ENV_FILE") from None
    except PermissionError:
        who = "its owner or group (runuser -u esid -- esid …)" if path == SYSTEM_FILE else "its owner, or look at its mode"
        raise SettingsError(
            f"{path} cannot be read: Permission denied; run as {who}, or name another file: --env-file"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; check its owner and mode") from None
    values, lines = parse(content, path)
    if mode & stat.S_IROTH and _has_password(values):
        # That of the machine is root's, and its group is to read it.
        mode_wanted = 640 if path == SYSTEM_FILE else 600
        words = f"{path} holds a password and everybody on this machine can read it; run: chmod {mode_wanted} {path}"
        raise SettingsError(words)
    return EnvFile(path, values, lines)


def parse(content: bytes, path: Path, *, is_ours: bool = True) -> tuple[dict[str, str], dict[str, int]]:
    """Name -> value, and -> the number of its line.

    Args:
        is_ours: False for the file of another program, whose names may mean something else there.

    Raises:
        SettingsError: it is no text, or a line cannot be understood.
    """
    if content.startswith(_UTF16):
        raise SettingsError(f"{path} is UTF-16 text; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text") from None
    values, lines = dict[str, str](), dict[str, int]()
    for binding in parse_stream(io.StringIO(text)):
        line = _line(binding)
        if binding.error:
            raise SettingsError(f"{path} line {line}: cannot be read; write NAME=value")
        if not binding.key:
            continue
        if is_ours and binding.value is None and binding.key.upper() in BY_NAME:
            raise SettingsError(f"{path} line {line}: {binding.key} without a value; write {binding.key.upper()}=value")
        values[binding.key], lines[binding.key] = binding.value or "", line
    return values, lines


def _line(binding: Binding) -> int:
    """The parser counts the blank lines before a line as part of it."""
    text = binding.original.string
    return int(binding.original.line + text[: len(text) - len(text.lstrip())].count("\n"))


def _has_password(values: Mapping[str, str]) -> bool:
    secrets = [setting.name for setting in BY_NAME.values() if setting.secret]
    return any(values.get(name) and (name == "DB_PASSWORD" or passwords(values[name])) for name in secrets)
