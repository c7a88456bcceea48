"""Under load for long: memory, file descriptors and threads of each process stay as they are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from esid.store.connection import Store
from tests.fake_esi import FakeEsi, World
from tests.fault import checker
from tests.tools.daemon import Make
from tests.tools.waiting import wait_until

#: Minutes of load that are measured, seconds of load before them (caches and the allocator's lists fill), and between two
#: samples.
MINUTES = float(os.environ.get("ENDURANCE_MINUTES", "30"))
WARM_UP_S, EVERY_S = 900.0, 5.0


def sample(pid: int) -> tuple[float, int, int]:
    """(megabytes resident, file descriptors, threads) of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(fields["VmRSS"].split()[0]) / 1024, descriptors, int(fields["Threads"])


def slope_per_hour(times: list[float], values: list[float]) -> float:
    """Least squares, by the hour."""
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    over = sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True))
    return 3600 * over / sum((t - mean_t) ** 2 for t in times)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_memory_descriptors_and_threads_stay_as_they_are(
    make_daemon: Make, esi: FakeEsi, world: World, store: Store
) -> None:
    esi.world.__dict__.update(World.generate(alliances=20, corporations=1500, characters=400).__dict__)
    daemon = make_daemon(ESID_PROCESSES="2", ESID_THREADS="8", ESI_MAX_RPS="300")
    wanted = checker.sent(esi.world)
    daemon.start()
    pids = {pid: name for name, pid in daemon.children().items()} | {daemon.process.pid: "supervisor"}  # type: ignore[union-attr]
    samples: dict[int, list[tuple[float, float, int, int]]] = {pid: [] for pid in pids}
    began = time.monotonic()
    while time.monotonic() - began < WARM_UP_S + MINUTES * 60:
        # Everything is due again as soon as it is done
        if not checker.open_jobs(store):
            long_ago = "'2020-01-01 00:00:00.000000+00:00'"
            sets = f"expires_at = {long_ago}, next_at = {long_ago}"
            settled = "status IN ('completed', 'failed')"
            store.run(lambda sql=f"UPDATE sync_jobs SET {sets} WHERE {settled}": store.rows(sql))
            checker.enqueue(daemon, store, wanted)
        until = time.monotonic() + EVERY_S
        wait_until(lambda until=until: time.monotonic() >= until, EVERY_S + 5, "the next sample")
        esi.clear_log()
        if time.monotonic() - began > WARM_UP_S:
            for pid, found in samples.items():
                found.append((time.monotonic(), *sample(pid)))
    lines = []
    for pid, found in samples.items():
        times, sizes, descriptors, threads = (list(column) for column in zip(*found, strict=True))
        slope = slope_per_hour(times, sizes)
        lines.append(
            f"{pids[pid]}: {sizes[0]:.1f} -> {sizes[-1]:.1f} MB ({slope:+.2f} MB/h), descriptors "
            f"{min(descriptors)}..{max(descriptors)}, threads {min(threads)}..{max(threads)}"
        )
    print("\n".join(lines))
    assert daemon.children() == {name: pid for pid, name in pids.items() if name != "supervisor"}
    for pid, found in samples.items():
        times, sizes, descriptors, threads = (list(column) for column in zip(*found, strict=True))
        half = len(times) // 2
        assert slope_per_hour(times, sizes) < 1.0 or MINUTES < 20, (pid, lines)
        assert max(descriptors[half:]) <= max(descriptors[:half]) + 2, (pid, lines)
        assert max(threads[half:]) <= max(threads[:half]), (pid, lines)
    assert daemon.stop() == 0
