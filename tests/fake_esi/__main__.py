"""Serve a generated world until SIGTERM or SIGINT, to try the daemon by hand."""

from __future__ import annotations

import argparse
import signal

from tests.fake_esi import FakeEsi, World


def main() -> None:
    """Print the base URL and serve."""
    args = _parse_args()
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # in all threads: only sigwait sees them
    world = World.generate(args.alliances, args.corporations, args.characters, args.seed)
    esi = FakeEsi(world, port=args.port)
    esi.latency_s = args.latency
    with esi:
        print(esi.base_url, flush=True)
        signal.sigwait(signals)


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_esi", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port to listen on, 0 for a free one")
    parser.add_argument("--alliances", type=int, default=10)
    parser.add_argument("--corporations", type=int, default=100)
    parser.add_argument("--characters", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
