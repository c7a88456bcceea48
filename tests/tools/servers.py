"""Private PostgreSQL and RabbitMQ servers on free loopback ports, for the tests that need real ones.

Both keep their data in a temporary directory that `close()`, or the end of the process, removes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.tools.ports import free_ports
from tests.tools.waiting import wait_until

_START_S = 60.0
_STOP_S = 30.0
_LOG_TAIL = 2000


class PrivateServer:
    """A temporary directory and a life cycle; `stop()` keeps the data, `close()` removes it."""

    def __init__(self, name: str) -> None:
        self._owner = os.getpid()
        self.directory = Path(tempfile.mkdtemp(prefix=f"esid-{name}-"))
        self.log_path = self.directory / "server.log"
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start on the data there is and return once the server accepts connections."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the server, whatever it is doing, and remove its data; a forked child leaves both alone."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self) -> None:
        raise NotImplementedError


class Postgres:
    """A PostgreSQL that runs, with the superuser `esid` (trusted) and `secretrole` (password `s3cret-pw`, scram).

    Args:
        names: what the names of its databases begin with; others may make some, too.
    """

    password_role = "secretrole"
    password = "s3cret-pw"
    #: Trusted, too, but there only where a test makes it.
    plain_role = "plain_login"

    def __init__(self, port: int, log_path: Path, names: str = "test") -> None:
        self._bin = _newest("/usr/lib/postgresql/*/bin", "initdb", "postgresql")
        self.port, self.log_path, self._names = port, log_path, names
        self._databases = 0

    def url(self, dbname: str) -> str:
        """The URL of a database for the role that needs no password."""
        return f"postgresql://esid@127.0.0.1:{self.port}/{dbname}"

    def password_url(self, dbname: str, password: str = password) -> str:
        """The URL of a database for the role that needs a password, with this one."""
        return f"postgresql://{self.password_role}:{quote(password, safe='')}@127.0.0.1:{self.port}/{dbname}"

    def log_of(self, dbname: str) -> str:
        """The log's lines about one database."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if f"] {dbname} " in line)

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        self._databases += 1
        name = f"{self._names}_{self._databases}"
        self._client("createdb", name)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, cutting off whoever uses it."""
        self._client("dropdb", "--if-exists", "--force", name)

    def _client(self, program: str, *arguments: str) -> None:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "esid"]
        self._run([str(self._bin / program), *address, *arguments])

    def _run(self, command: list[str]) -> None:
        """Run to the end; output goes to a file because a started server would keep a pipe open."""
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            output.seek(0)
            said = output.read().decode(errors="replace")
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {said}\n{_tail(self.log_path)}")


class PrivatePostgres(PrivateServer, Postgres):
    """A PostgreSQL of our own.

    Args:
        durable: a commit is on disk, as by default; in tests what is killed is processes, never the machine.
    """

    def __init__(self, *, durable: bool = False) -> None:
        PrivateServer.__init__(self, "postgres")
        self._fsync = "on" if durable else "off"
        Postgres.__init__(self, free_ports(1)[0], self.log_path)
        self._data = self.directory / "data"
        self._as_postgres: list[str] = []
        if os.geteuid() == 0:
            self._as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(self.directory, "postgres", "postgres")

    def start(self) -> Self:
        """Start on the data there is; the first start makes the cluster and its roles."""
        fresh = not self._data.exists()
        if fresh:
            self._make_cluster()
        self._pg_ctl("start", "-w", "-t", f"{_START_S:.0f}", "-l", str(self.log_path))
        if fresh:
            role = f"CREATE ROLE {self.password_role} LOGIN SUPERUSER PASSWORD '{self.password}'"
            self._client("psql", "-d", "postgres", "-q", "-c", role)
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop with pg_ctl's mode "smart", "fast" or "immediate" (a crash); harmless when not running."""
        if (self._data / "postmaster.pid").exists():
            self._pg_ctl("stop", "-w", "-t", f"{_STOP_S:.0f}", "-m", mode)

    def _end(self) -> None:
        with suppress(RuntimeError):  # it died by itself and left its pid file
            self.stop("immediate")

    def _make_cluster(self) -> None:
        options = ["--username=esid", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run([*self._as_postgres, str(self._bin / "initdb"), "--pgdata", str(self._data), *options])
        (self._data / "pg_hba.conf").write_text(
            f"host all {self.password_role} 127.0.0.1/32 scram-sha-256\nhost all esid,{self.plain_role} 127.0.0.1/32 trust\n"
        )
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
                "max_connections = 500\npassword_encryption = 'scram-sha-256'\nlog_line_prefix = '%m [%p] %d '\n"
                f"fsync = {self._fsync}\n"
            )

    def _pg_ctl(self, *arguments: str) -> None:
        self._run([*self._as_postgres, str(self._bin / "pg_ctl"), "-s", "-D", str(self._data), *arguments])


class PrivatePgbouncer(PrivateServer):
    """A PgBouncer of our own in front of a PostgreSQL.

    Args:
        settings: lines of its own for pgbouncer.ini.
    """

    def __init__(self, behind: Postgres, pool_mode: str, *settings: str) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise RuntimeError("pgbouncer is not installed: apt install pgbouncer")
        super().__init__("pgbouncer")
        self.directory.chmod(0o755)
        (self.port,) = free_ports(1)
        (self.directory / "users").write_text('"esid" ""\n')
        self._config = self.directory / "pgbouncer.ini"
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={behind.port} user=esid",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {self.directory / 'users'}",
            f"pool_mode = {pool_mode}",
            *settings,
        ]
        self._config.write_text("\n".join(lines) + "\n")
        as_other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        self._command = [*as_other, program, str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, dbname: str) -> str:
        """The URL of a database behind it."""
        return f"postgresql://esid@127.0.0.1:{self.port}/{dbname}"

    def start(self) -> Self:
        """Start; takes a few milliseconds."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: _accepts(self.port), _START_S, "PgBouncer to listen")
        return self

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_S)
            self._process = None


class Rabbitmq:
    """A RabbitMQ that runs, with the user guest:guest."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """The URL of the virtual host "/"."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"


class PrivateRabbitmq(PrivateServer, Rabbitmq):
    """A RabbitMQ node of our own, with an epmd of its own."""

    def __init__(self) -> None:
        pattern = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"
        self._server = _newest(pattern, "rabbitmq-server", "rabbitmq-server")
        self._epmd_path = shutil.which("epmd")
        if self._epmd_path is None:
            raise RuntimeError("epmd is not installed: apt install erlang-base")
        PrivateServer.__init__(self, "rabbitmq")
        port, self._dist_port, self._epmd_port = free_ports(3)
        Rabbitmq.__init__(self, port)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._prepare_home()

    def start(self) -> Self:
        """Start on the data there is; takes about seven seconds."""
        if self._epmd is None:
            address = ["-address", "127.0.0.1", "-port", str(self._epmd_port)]
            self._epmd = self._spawn([str(self._epmd_path), *address])
            wait_until(lambda: _accepts(self._epmd_port), _START_S, "epmd to listen")
        self._node = self._spawn([str(self._server / "rabbitmq-server")])
        wait_until(self._is_ready, _START_S, "RabbitMQ to accept connections", every_s=0.1)
        return self

    def ctl(self, *arguments: str) -> str:
        """Tell or ask the node something by `rabbitmqctl`; what it prints."""
        command = [str(self._server / "rabbitmqctl"), *arguments]
        done = subprocess.run(command, env=self._environment(), cwd=self.directory, check=True, capture_output=True)
        return done.stdout.decode()

    def log(self) -> str:
        """What the node has logged."""
        return "\n".join(each.read_text(errors="replace") for each in (self.directory / "log").glob("*.log"))

    def kill(self) -> None:
        """End the node with SIGKILL, as a crash would; harmless when not running."""
        if self._node is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._node.pid, signal.SIGKILL)
            self._node.wait(_STOP_S)
            self._node = None

    def stop(self) -> None:
        """Shut the node down in good order; harmless when not running."""
        if self._node is not None:
            for pid in _pids_in_group(self._node.pid, "beam.smp"):
                os.kill(pid, signal.SIGTERM)
            self._node.wait(_STOP_S)
            self.kill()

    def _end(self) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(_STOP_S)
            self._epmd = None

    def _prepare_home(self) -> None:
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(os.urandom(10).hex())
        cookie.chmod(0o400)
        (self.directory / "enabled_plugins").write_text("[].")

    def _environment(self) -> Mapping[str, str]:
        home = str(self.directory)
        return os.environ | {
            "HOME": home,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"esid{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",  # idle schedulers do not spin
        }

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start in a process group of its own, out of reach of the terminal's Ctrl-C."""
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        """Whether the node answers a protocol header that asks for an unknown version."""
        if self._node is not None and self._node.poll() is not None:
            raise RuntimeError(f"RabbitMQ ended while starting:\n{_tail(self.log_path)}")
        return _accepts(self.port, b"AMQP\0\0\x09\x01")


def _tail(log_path: Path) -> str:
    return log_path.read_text(errors="replace")[-_LOG_TAIL:] if log_path.exists() else "(no log)"


def _accepts(port: int, greeting: bytes = b"") -> bool:
    """Whether a connection succeeds and, where a greeting is sent, is answered."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            if not greeting:
                return True
            connection.sendall(greeting)
            return bool(connection.recv(1))
    except OSError:
        return False


def _newest(pattern: str, program: str, package: str) -> Path:
    """The directory with the highest version among those that hold the program."""
    found = [each for each in Path("/").glob(pattern.lstrip("/")) if (each / program).exists()]
    if not found:
        raise RuntimeError(f"{program} not found under {pattern}: apt install {package}")
    return max(found, key=_version)


def _version(directory: Path) -> list[int]:
    """The numbers in the name of the versioned parent, e.g. rabbitmq_server-3.10.8 -> [3, 10, 8]."""
    text = directory.parent.name.rpartition("-")[2]
    return [int(each) for each in text.split(".") if each.isdigit()]


def _pids_in_group(group: int, name: str) -> list[int]:
    """The processes of this name in this process group."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            pid, _, rest = stat.read_text().partition(" (")
            command, _, fields = rest.rpartition(") ")
            if command == name and int(fields.split()[2]) == group:
                pids.append(int(pid))
    return pids
