"""Commands of `esid` in processes of their own that need not import it: one that has done so forks each of them.

Starting Python and importing esid is nearly all that a short command costs, and the tests run thousands of them. What a
command sees (environment, directory, standard files) and what becomes of it (exit code, output, signals) are its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

_NUMBER = struct.Struct("i")


@dataclass
class Zygote:
    """The process that forks, from its first command to `close`."""

    environment: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None
    _control: socket.socket | None = field(default=None, repr=False)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], directory: str, stdin: bytes, timeout_s: float
    ) -> tuple[int, bytes, bytes]:
        """(exit code, standard output, standard error) of a command. Raises TimeoutExpired."""
        control = self._started()
        told = json.dumps({"arguments": list(arguments), "environment": dict(environment), "directory": directory})
        files = [_file(text) for text in (told.encode(), stdin, b"", b"")]
        reply, theirs = socket.socketpair()
        with closing(reply):
            with closing(theirs):
                socket.send_fds(control, [b"!"], [theirs.fileno(), *files])
            reply.settimeout(timeout_s)
            pid = _NUMBER.unpack(reply.recv(4))[0]
            try:
                (status,) = _NUMBER.unpack(reply.recv(4))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout_s) from None
        out, err = (_content(one) for one in files[2:])
        for one in files:
            os.close(one)
        return os.waitstatus_to_exitcode(status), out, err

    def close(self) -> None:
        """End it; what it has forked goes on."""
        if self._process and self._control:
            self._control.close()
            self._process.wait()
            self._process = self._control = None

    def _started(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with closing(theirs):
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno())],
                    env=dict(self.environment),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
        return self._control


def _file(content: bytes) -> int:
    made = os.memfd_create("standard file")
    os.write(made, content)
    os.lseek(made, 0, os.SEEK_SET)
    return made


def _content(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as opened:
        return opened.read()


def _serve(control: socket.socket) -> None:
    """Fork a command for each question. Returns in the process that is to become one, and when nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        text, files, _, _ = socket.recv_fds(control, 1, 5)
        if not text:
            raise SystemExit
        if os.fork() == 0:
            break
        for one in files:
            os.close(one)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reply, told, *standard = files
    pid = os.fork()
    if pid:
        with suppress(OSError):
            os.write(reply, _NUMBER.pack(pid))
            os.write(reply, _NUMBER.pack(os.waitpid(pid, 0)[1]))
        os._exit(0)
    wanted = json.loads(_content(told))
    for number, one in enumerate(standard):
        os.dup2(one, number)
    for one in files:
        os.close(one)
    os.chdir(wanted["directory"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.argv = ["esid", *wanted["arguments"]]


def _import_all() -> None:
    """What any command may import."""
    commands = importlib.import_module("esid.cli.commands")
    for one in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(one.name)
    gc.freeze()


if __name__ == "__main__":
    from esid.__main__ import main

    _import_all()
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        _serve(_control)
    raise SystemExit(main())
