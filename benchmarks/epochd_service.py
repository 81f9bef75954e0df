"""A contender of `benchmarks.throughput`: a job of epochd's local stack, timed by when its events arrive.

    python -m benchmarks.epochd_service case.json

The whole service runs on the machine that trains: the API, Redis, the worker with its fork server, and the WebSocket
client that measures.
"""

import json
import sys
import tempfile
from pathlib import Path

import httpx
import psutil
from websockets.sync.client import connect

from benchmarks.case import Case, job_spec
from benchmarks.first_batch import local_stack
from benchmarks.stopwatch import Measurement, Stopwatch

_ENDS = ("failed", "cancelled", "succeeded")


def main(case: Case) -> None:
    """Train until there is enough, and tell what was measured."""
    with tempfile.TemporaryDirectory() as folder, local_stack(Path(folder) / "data") as client:
        with Path(case.rows_path).open("rb") as stream:
            uploaded = client.post("/datasets", files={"file": ("rows.jsonl", stream)}).raise_for_status().json()
        job = client.post("/jobs", json=job_spec(case, dataset=uploaded["id"])).raise_for_status().json()
        measured = measure(case, client, job["id"])
    measured.tell()


def measure(case: Case, client: httpx.Client, job: str) -> Measurement:
    """Watch until there is enough, then cancel. Raises RuntimeError where the job ends before that."""
    address = f"ws{str(client.base_url).removeprefix('http').rstrip('/')}/jobs/{job}/stream"
    headers = {"Authorization": client.headers["Authorization"]}
    stopwatch, first_loss, tokens = Stopwatch(case, whole_epochs=True), None, 0
    with connect(address, additional_headers=headers, proxy=None) as socket:
        for message in socket:
            for event in map(json.loads, str(message).split("\n")):
                if event["type"] in _ENDS:
                    raise RuntimeError(f"the job ended before it was measured: {event}")
                if event["type"] != "batch":
                    continue
                data = event["data"]
                first_loss = first_loss or data["loss"]
                tokens += data["tokens"]
                if data.get("tokens_per_second") is None:  # not the last batch of its window
                    continue
                if stopwatch.update_done(tokens):
                    measured = stopwatch.measurement(first_loss=first_loss, pid=_trainer())
                    client.post(f"/jobs/{job}/cancel").raise_for_status()
                    return measured
                tokens = 0
    raise RuntimeError("the job's stream ended before it was measured")


def _trainer() -> int:
    """Return the process that trains: of the stack's two the one that has worked most, the other forked it."""
    trainers = [p for p in psutil.Process().children(recursive=True) if "worker.training" in p.cmdline()]
    return int(max(trainers, key=lambda p: p.cpu_times().user).pid)


if __name__ == "__main__":
    main(Case.read(sys.argv[1]))
