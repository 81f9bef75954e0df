"""How much faster a trainer is while the service around it stands still.

    python -m benchmarks.held_still [--pairs 100]

The local stack trains a job, watched over a WebSocket, on all cores. In turn, two seconds each, the service works, and
is stopped by a signal, all of it but the trainer: what the trainer says waits in its pipe. Both are measured by the
trainer's own clock, in one process and within seconds, so that what else the machine is busy with meets both.
"""

import argparse
import json
import signal
import statistics
import tempfile
import time
from pathlib import Path
from random import Random

import psutil
from websockets.sync.client import ClientConnection

from benchmarks.endless_job import endless_job
from benchmarks.first_batch import local_stack
from benchmarks.shapes import BATCH_SIZE, VOCAB_SIZE

# As long as ragged rows are on average, and all alike: so are all updates.
_LENGTH = 41
_BATCHES = 50
_WARM_UP_SECONDS = 10.0
# Short enough that no connection is given up.
_PHASE_SECONDS = 2.0
# In which the service tells all that it did not while it stood still.
_CATCH_UP_SECONDS = 0.6
# What overlaps with the other phase is left out.
_MARGIN_SECONDS = 0.05


def rows() -> str:
    """Return rows of random tokens, all of one length."""
    random = Random(0)
    ids = [[random.randrange(VOCAB_SIZE) for _ in range(_LENGTH)] for _ in range(_BATCHES * BATCH_SIZE)]
    ids[0][0] = VOCAB_SIZE - 1  # of rows of ids the vocabulary is told by the highest one
    return "".join(json.dumps({"input_ids": row}) + "\n" for row in ids)


def heard(socket: ClientConnection, seconds: float) -> list[tuple[float, float]]:
    """Return when each update of so many seconds was heard of, and how long it took by the trainer's clock."""
    ends_at, updates = time.monotonic() + seconds, []
    while (left := ends_at - time.monotonic()) > 0:
        try:
            message = socket.recv(timeout=left)
        except TimeoutError:
            break
        for event in map(json.loads, str(message).split("\n")):
            if event["type"] == "batch":
                took = event["data"]["tokens"] / event["data"]["tokens_per_second"]
                updates.append((time.monotonic(), took))
    return updates


def within(updates: list[tuple[float, float]], begins: float, ends: float) -> list[float]:
    """Return how long those updates took that began and ended within a time, counting back from the last one heard."""
    inside: list[float] = []
    ended_at = updates[-1][0] if updates else 0.0
    for _, took in reversed(updates):
        if begins + _MARGIN_SECONDS < ended_at - took and ended_at < ends - _MARGIN_SECONDS:
            inside.append(took)
        ended_at -= took
    return inside


def one_pair(socket: ClientConnection, service: list[psutil.Process]) -> tuple[list[float], list[float]]:
    """Return the seconds of each update while the service works, and while it stands still."""
    began_at = time.monotonic()
    working = within(heard(socket, _PHASE_SECONDS), began_at, time.monotonic())
    for process in service:
        process.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    time.sleep(_PHASE_SECONDS)
    went_on_at = time.monotonic()
    for process in reversed(service):
        process.send_signal(signal.SIGCONT)
    still = within(heard(socket, _CATCH_UP_SECONDS), stopped_at, went_on_at)
    return working, still


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.held_still")
    parser.add_argument("--pairs", type=int, default=100)
    pairs = parser.parse_args().pairs
    measured: list[tuple[float, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack(Path(folder) / "data") as client,
        endless_job(client, rows(), "4m") as socket,
    ):
        while not heard(socket, 1.0):
            pass
        heard(socket, _WARM_UP_SECONDS)
        stack = psutil.Process().children(recursive=True)
        service = [process for process in stack if "worker.training" not in process.cmdline()]
        while len(measured) < pairs:
            working, still = one_pair(socket, service)
            if working and still:  # a machine may be held up for the whole of a phase
                measured.append((statistics.mean(working), statistics.mean(still)))
    ratios = [still / working for working, still in measured]
    low, median, high = statistics.quantiles(ratios, n=4)
    beside, without = (statistics.mean(seconds) for seconds in zip(*measured, strict=True))
    error = statistics.stdev(ratios) / pairs**0.5
    print(f"an update takes {beside * 1000:.0f} ms beside the service, {without * 1000:.0f} ms while it stands still")
    print(f"speed with it, of that without: {median:.3f} (median of {pairs} pairs, quartiles {low:.3f} and {high:.3f})")
    print(f"mean of the pairs: {statistics.mean(ratios):.3f}, with a standard error of {error:.3f}")


if __name__ == "__main__":
    main()
