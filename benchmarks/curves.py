"""How long the curves of a long job take over HTTP, and its CSV, on SQLite and on PostgreSQL.

    python -m benchmarks.curves --batches 1000000

Writes the log of one job as a worker does, bit by bit, and then asks for plots of it and for all of it. Prints the
median and the longest of the answers, the CSV's speed, and by how much the API's memory grew meanwhile.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.installation import DATABASES, Growth, Installation, installation, percentile, settle
from core import events, metrics
from core.events import Cursor, Event
from core.models import utc_now

_FLUSH_BATCHES = 1000
_BATCHES_PER_EPOCH = 10_000


def fill(installed: Installation, count: int) -> str:
    """Write the log of a job of so many batches, and return the job's id."""
    job = installed.job(installed.dataset())
    for first in range(1, count + 1, _FLUSH_BATCHES):
        told = [_batch(number) for number in range(first, min(first + _FLUSH_BATCHES, count + 1))]
        with installed.work.begin() as session:
            events.append(session, job, told)
            metrics.fold_in(session, job, told)
    settle(installed)
    return job


def _batch(number: int) -> Event:
    data = {
        "epoch": 1 + number // _BATCHES_PER_EPOCH,
        "batch": number,
        "step": number,
        "loss": 2 + 8 / (1 + number / 5000),
        "accuracy": 0.25,
        "learning_rate": 1e-3,
        "tokens": 3072,
        "grad_norm": 0.5,
        "tokens_per_second": 61_440.0,
    }
    return Event(Cursor(1, number), "batch", utc_now(), data)


def plots(installed: Installation, job: str, points: int, repeats: int) -> None:
    """Ask for a plot over and over, and print how long that took."""
    took, got = list[float](), 0
    for _ in range(repeats):
        started = time.perf_counter()
        answer = installed.client.get(f"/jobs/{job}/metrics", params={"points": points})
        took.append((time.perf_counter() - started) * 1000)
        got = len(answer.raise_for_status().json()["loss"])
    print(
        f"  {points:6,} points asked, {got:6,} got: median {percentile(took, 50):6.1f} ms, longest {max(took):6.1f} ms"
    )


def csv(installed: Installation, job: str) -> None:
    """Ask for the CSV, and print its speed and what it took."""
    started, size = time.perf_counter(), 0
    address = f"/jobs/{job}/metrics?format=csv"
    with Growth(installed.process) as growth, installed.client.stream("GET", address) as answer:
        for chunk in answer.iter_bytes():
            size += len(chunk)
    seconds = time.perf_counter() - started
    print(
        f"  CSV: {size / 1e6:.0f} MB in {seconds:.1f} s; the API's memory grew by {growth.most / 1e6:.1f} MB",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--database", choices=DATABASES, nargs="*", default=DATABASES)
    asked = parser.parse_args()
    for database in asked.database:
        with tempfile.TemporaryDirectory() as folder, installation(database, Path(folder)) as installed:
            started = time.perf_counter()
            job = fill(installed, asked.batches)
            seconds = time.perf_counter() - started
            print(f"{asked.batches:,} batches on {database} (written in {seconds:.0f} s):", flush=True)
            for points in (100, 1000, 10_000):
                plots(installed, job, points, asked.repeats)
            csv(installed, job)


if __name__ == "__main__":
    main()
