"""A real `esid` in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from esid.errors import DatabaseUnavailable
from esid.store import processes
from esid.store.connection import Store
from tests.tools.waiting import wait_until
from tests.tools.zygote import Zygote

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ROOT / "tests" / "fault" / "hooks"
#: Commands that look at a database, and make none.
LOOKING = {"enqueue", "sync", "purge", "status", "show", "dead", "schedule", "heal"}

#: Runs the commands whose environment changes nothing of Python itself.
ZYGOTE = Zygote({"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)})
_OURS = ("ESI_", "ESID_", "DB_", "DATABASE_URL", "RABBITMQ_URL", "WORKER_TYPES")


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass
class Daemon:
    """`esid` with one environment: its commands, and its daemon as a process group of its own.

    Args:
        settings: on top of an environment without any setting; status server and feed are off unless named.
        hooks: what a test does to the running daemon, not to commands (see tests/fault/hooks/sitecustomize.py).
        inside: words before those of `esid run`: a command that runs it in surroundings of its own.
        is_set_up: False = before the first command that looks at a database, one is made.
    """

    settings: dict[str, str]
    hooks: dict[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="esid-test-")))
    process: subprocess.Popen[bytes] | None = None
    inside: tuple[str, ...] = ()
    is_set_up: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process."""
        path = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": str(ROOT)}
        return {**path, "ESID_HTTP_LISTEN": "off", "ESID_FEED_URL": "off", **self.settings}

    @property
    def log(self) -> str:
        """Everything that the daemon has printed."""
        path = self.directory / "log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 60.0, **changes: str) -> Ran:
        """Run one command to its end."""
        if not self.is_set_up and LOOKING & set(arguments) and not {"help", "--help"} & set(arguments):
            self.set_up(**changes)
        environment = {**self.environment, **changes}
        if _is_plain(environment) and "run" not in arguments:
            code, out, err = ZYGOTE.run(arguments, environment, str(self.directory), stdin.encode(), timeout_s)
            return Ran(code, out.decode(), err.decode())
        done = subprocess.run(
            [sys.executable, "-m", "esid", *arguments],
            env=environment,
            cwd=self.directory,
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *arguments: str, **more: str) -> str:
        """Run one command that must succeed; its standard output."""
        ran = self.run(*arguments, **more)
        assert ran.code == 0, (arguments, ran)
        return ran.out

    def set_up(self, **changes: str) -> Daemon:
        """Make the database, for commands that look at one."""
        self.is_set_up = True
        self.ok("migrate", **changes)
        return self

    def spawn(self, *arguments: str, stderr: int | None = None) -> Daemon:
        """Start `esid run` and wait for nothing; its lines go to `log`, or to another file descriptor."""
        self.is_set_up = True
        environment = self.environment
        if self.hooks:
            environment = {**environment, **self.hooks, "PYTHONPATH": f"{HOOKS}:{environment['PYTHONPATH']}"}
            environment["ESID_TEST_ONCE"] = str(self.directory / "crashed")
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, sys.executable, "-m", "esid", "run", *arguments],
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
                start_new_session=True,
            )
        return self

    @property
    def has_crashed(self) -> bool:
        """True once a process has crashed at the point of ESID_TEST_CRASH."""
        return (self.directory / "crashed").exists()

    def start(self, *arguments: str, until: str = "daemon.started") -> Daemon:
        """Start `esid run` and wait until it says so."""
        before = self.log.count(until)
        self.spawn(*arguments)
        wait_until(
            lambda: self.log.count(until) > before or self.process.poll() is not None, 30, lambda: f"{until!r}: {self.log}"
        )
        assert self.process.poll() is None, self.log
        return self

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the supervisor, or to its whole process group as systemd and pm2 do."""
        assert self.process
        (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit code."""
        assert self.process
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def children(self) -> dict[str, int]:
        """Pids of the child processes, by no particular name."""
        assert self.process
        found = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid="], capture_output=True, check=False)
        return {pid: int(pid) for pid in found.stdout.decode().split()}

    def workers(self) -> list[int]:
        """Pids of the worker processes that have told the database that they work."""
        store = Store(self.settings.get("DATABASE_URL") or f"sqlite:///{self.directory / 'data' / 'esid.db'}")
        with suppress(DatabaseUnavailable), closing(store):
            told = {int(one["name"].split(":")[1]) for one in processes.living(store) if one["kind"] == "worker"}
            return [pid for pid in self.children().values() if pid in told]
        return []

    def end(self) -> None:
        """Kill what is left."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


#: Makes a daemon with settings (capital letters) and hooks; all of them are ended after the test.
Make = Callable[..., Daemon]


def _is_plain(environment: dict[str, str]) -> bool:
    """Whether it differs from that of the zygote in settings alone."""
    others = {name: value for name, value in environment.items() if not name.startswith(_OURS) and name != "HOME"}
    return others == dict(ZYGOTE.environment) and not any(name.startswith("ESID_TEST_") for name in environment)
