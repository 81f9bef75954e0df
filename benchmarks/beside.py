"""What of the processor the service itself takes while a job trains.

    python -m benchmarks.beside [--model 4m|25m] [--shape ragged|full] [--seconds 60]

The local stack trains a job, watched over a WebSocket, on all cores. Prints how busy each of its processes was, as a
share of one core, by the kernel's count: unlike the tokens a second with and without the service, that does not depend
on what else the machine is busy with.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from websockets.sync.client import ClientConnection

from benchmarks.endless_job import endless_job
from benchmarks.first_batch import local_stack
from benchmarks.rows import make_rows
from benchmarks.shapes import BATCH_SIZE, MODELS

_BATCHES = 16
_WARM_UP_SECONDS = 5.0
_PARTS = {
    "worker.training": "trainer, and its fork server",
    "worker.celery_app": "worker",
    "app": "API",
    "cli.main": "epochd up",
}


def processor_seconds() -> Counter[str]:
    """Return how long each part of the stack, which this process has started, has been at work so far."""
    spent = Counter[str]()
    for process in psutil.Process().children(recursive=True):
        words = process.cmdline()
        part = next((part for word, part in _PARTS.items() if word in words), "Redis")
        times = process.cpu_times()
        spent[part] += times.user + times.system
    return spent


def heard(socket: ClientConnection, seconds: float) -> int:
    """Return how many batches are told in so long, and until the next message after it."""
    ends_at, batches = time.monotonic() + seconds, 0
    while True:
        batches += sum(json.loads(line)["type"] == "batch" for line in str(socket.recv()).split("\n"))
        if time.monotonic() >= ends_at:
            return batches


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.beside")
    parser.add_argument("--model", choices=MODELS, default="4m")
    parser.add_argument("--shape", choices=["ragged", "full"], default="ragged")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    rows = make_rows(options.shape, _BATCHES * BATCH_SIZE)
    lines = "".join(json.dumps({"input_ids": row}) + "\n" for row in rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack(Path(folder) / "data") as client,
        endless_job(client, lines, options.model) as socket,
    ):
        while not heard(socket, 0.0):
            pass
        heard(socket, _WARM_UP_SECONDS)
        before, began_at = processor_seconds(), time.monotonic()
        batches = heard(socket, options.seconds)
        spent, seconds = processor_seconds() - before, time.monotonic() - began_at
    print(f"{batches} batches in {seconds:.0f} s on {os.cpu_count()} cores, in percent of one core:")
    for part, busy in spent.most_common():
        print(f"{part:30} {busy / seconds:6.1%}")
    service = sum(spent.values()) - spent[_PARTS["worker.training"]]
    print(f"{'all but the trainer':30} {service / seconds:6.1%}")


if __name__ == "__main__":
    main()
