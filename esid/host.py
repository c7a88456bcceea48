"""What this host knows of its processes and files."""

from __future__ import annotations

import ctypes
import errno
import io
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

NAME = socket.gethostname()
_PR_SET_PDEATHSIG = 1
_MAP_FIXED = 0x10
#: Words and bits of a word of the C library's set of signals, one bit for each (signal(7)).
_WORDS, _BITS = 1024 // (8 * ctypes.sizeof(ctypes.c_ulong)), 8 * ctypes.sizeof(ctypes.c_ulong)
#: Seconds between looks where no descriptor is left to wait with.
_LOOK_S = 0.2
#: What glibc's allocator is told at the start of a process (The GNU C Library, "Memory Allocation Tunables"): threads share
#: two arenas, large pieces are given back as soon as they are freed, and no thread keeps a cache of its own.
_TUNABLES = "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072:glibc.malloc.tcache_count=0"
#: File systems that keep flock(2), or what processes share in memory, to one host or promise neither: magic number -> name.
#: Cluster file systems (Ceph, GFS2, OCFS2) keep both.
_NETWORK = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB",
    0xFF534D42: "CIFS",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x0BD00BD0: "Lustre",
}
#: Says that it has been told, wherever the loader takes the other variable away.
_BEGUN_ANEW = "_ESID_BEGUN_ANEW"


@lru_cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def me() -> str:
    """The name of this process for other processes and hosts: `host:pid:start:kernel`, without a space.

    `kernel` names the boot and the PID namespace: containers share a host's name or its numbers, never both of these.
    """
    return f"{NAME}:{os.getpid()}:{_started_at(os.getpid()) or 0}:{_kernel()}"


def is_here(owner: str) -> bool:
    """True for the name (see `me`) of a process of this host, kernel and PID namespace."""
    name, _, _, kernel, *_ = [*owner.split(":"), "", "", "", ""]
    return bool(kernel) and name == NAME and kernel == _kernel()


def is_gone(owner: str) -> bool:
    """True where a process of this kernel and PID namespace has ended for sure; False where nobody here can know.

    Args:
        owner: a name that begins as `me` writes it. Of any other, time alone tells.
    """
    _, pid, started, *_ = [*owner.split(":"), "", "", "", ""]
    if not is_here(owner) or not (pid.isdecimal() and started.isdecimal()):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    runs_since = _started_at(int(pid))
    return runs_since is not None and started != "0" and runs_since != int(started)


def boot_id() -> str:
    """The name of this boot of the kernel. Raises OSError where /proc is missing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _kernel() -> str:
    """Boot and PID namespace; "" where /proc does not tell, or tells of the processes of another namespace."""
    try:
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return ""
        return f"{boot_id()[:8]}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started_at(pid: int) -> int | None:
    """When a process was started, in ticks since boot: with the pid it names a process for ever. 0 = it has ended.

    None where that cannot be known: a missing file, too, may only be hidden (`hidepid`), or no descriptor is left.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except ProcessLookupError:
        return 0
    except OSError:
        return None
    # The state follows the command's name, which stands in parentheses and may hold anything (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this child when its parent dies; ends at once when that has happened already."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def wait_for_signals(signals: Iterable[int], seconds: float) -> None:
    """Return as soon as one of these signals, which all threads block, is pending, at the latest after `seconds`.

    By signalfd(2), which Python has no word for. It may return sooner where the process has no descriptor left.
    """
    mask = (ctypes.c_ulong * _WORDS)()
    for number in signals:
        mask[(number - 1) // _BITS] |= 1 << (number - 1) % _BITS
    descriptor = _libc().signalfd(-1, mask, os.O_CLOEXEC)
    look = select.poll()
    if descriptor < 0:
        look.poll(min(max(0.0, seconds), _LOOK_S) * 1000)
        return
    try:
        look.register(descriptor, select.POLLIN)
        look.poll(max(0.0, seconds) * 1000)
    finally:
        os.close(descriptor)


def keep_memory_steady() -> None:
    """Begin this process anew, once, with an allocator that does not keep what threads had in hand; children inherit it.

    By default glibc gives each thread an arena, in which the largest answer that it ever had stays for good, and a cache of
    seven pieces of each size, which fills for hours: megabytes in a process. The cache can be set at the start of a process
    only. Who has set the allocator in `GLIBC_TUNABLES` knows better; elsewhere (musl) there is nothing to set, and where it
    is not possible the process goes on as it is.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.pop(_BEGUN_ANEW, "") or "glibc.malloc." in given or not _is_glibc():
        return
    os.environ |= {"GLIBC_TUNABLES": f"{given}:{_TUNABLES}".lstrip(":"), _BEGUN_ANEW: "yes"}
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    del os.environ[_BEGUN_ANEW]


def open_standard_files() -> None:
    """Open the numbers 0 to 2 on nothing where they are closed, before a file of ours gets one of them.

    Python knows no stream of a closed one, and prints for standard error on standard output then. A closed standard input
    stays one: a command that reads it says so. What a stream's encoding lacks (ASCII, without a locale) is escaped.
    """
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def allow_open_files(least: int, enough: int) -> bool:
    """Raise the limit of open files to what is enough, or as far as that is permitted; False where it is below the least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        enough = min(enough, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    return max(soft, enough) >= least


def network_file_system(path: Path) -> str:
    """The name of the network file system that a path lies on, or would; "" for any other file system."""
    there = next((one for one in (path, *path.parents) if one.exists()), path)
    return _NETWORK.get(_file_system(there), "")


def _file_system(path: Path) -> int:
    """The magic number of a file system, by statfs(2), where it comes first; 0 where it cannot be known."""
    answer = (ctypes.c_ulong * 64)()
    return answer[0] & 0xFFFFFFFF if _libc().statfs(os.fsencode(path), answer) == 0 else 0


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False


def give_memory_back() -> None:
    """What is free between what is used goes back to the kernel; takes about a millisecond."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim:
        trim(0)


def map_over(address: int, size: int, file: int) -> None:
    """Lay a file over memory of ours, in the place of what was mapped there: pointers into it see the file then.

    By mmap(2), as Python's maps the same file for ever. Raises OSError.
    """
    call = _libc().mmap
    call.restype, call.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    fixed = mmap.MAP_SHARED | _MAP_FIXED
    if call(address, size, mmap.PROT_READ | mmap.PROT_WRITE, fixed, file, 0) != address:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def cure(error: OSError, otherwise: str) -> str:
    """What a person can do about a file that cannot be opened."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "allow more open files (ulimit -n, LimitNOFILE= of the unit)"
    return "make room on its disk" if error.errno in {errno.ENOSPC, errno.EDQUOT} else otherwise


def command() -> str:
    """What a person types to call this esid: its name where the shell finds it, else its path."""
    ours, found = Path(sys.executable).with_name("esid"), shutil.which("esid")
    if not ours.exists() or (found and Path(found).resolve() == ours.resolve()):
        return "esid"
    return str(ours)
