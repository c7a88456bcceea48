"""Loopback ports that stay ours while the server behind them is down."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ALL = range(10_000, 65_536)
#: Ports of one test process, given out in turn.
_BLOCK = 250
_names: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on, and that no other test process is given.

    They lie outside those that the system gives to outgoing connections, which would take the port of a server that
    is down between two starts.
    """
    return list(itertools.islice(filter(_is_free, _ours()), count))


@cache
def _ours() -> Iterator[int]:
    """A block's ports round and round; a name tells other processes that it is taken, and ends with this one."""
    outside = _not_outgoing()
    starts = list(outside[:-_BLOCK:_BLOCK])
    random.SystemRandom().shuffle(starts)
    _names.append(name := socket.socket(socket.AF_UNIX))
    start = next(start for start in starts if _binds(name, f"\0esid-test-ports-{start}"))
    return itertools.cycle(range(start, start + _BLOCK))


def _not_outgoing() -> range:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return max(range(_ALL.start, first), range(last + 1, _ALL.stop), key=len)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _binds(probe, ("127.0.0.1", port))


def _binds(one: socket.socket, address: str | tuple[str, int]) -> bool:
    try:
        one.bind(address)
    except OSError:
        return False
    return True
