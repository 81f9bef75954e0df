"""How fast a dataset goes in, what that costs the API, and whether a watcher of a running job notices.

    python -m benchmarks.upload --megabytes 1000

In turn, in one run, while a small job trains on the same machine: `tee` and `sha256sum` write and hash a file of JSON
lines, and the same file is posted to the local stack, which receives, hashes, syncs and looks through it. Meanwhile a
process of its own watches the job over a WebSocket and takes for each event how long it was on its way. Prints medians.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from pydoc_data.topics import topics

import httpx
import psutil
from websockets.sync.client import connect

from benchmarks.first_batch import local_stack

# A job of many small updates: it never ends by itself, and tells several batches a second.
SPEC = {
    "name": "watched",
    "tokenizer": "bytes",
    "model": {"config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 64}},
    "sequence": {"max_length": 64},
    "training": {"epochs": 1000, "batch_size": 8},
    "validation": None,
}
_LETTERS_A_ROW = 1000


def write_rows(path: Path, megabytes: int) -> None:
    """Write so many megabytes of JSON lines of prose, no two of them alike."""
    prose = " ".join(" ".join(topics.values()).split())
    size, number = 0, 0
    with path.open("wb") as out:
        while size < megabytes * 10**6:
            start = number * 7919 % (len(prose) - _LETTERS_A_ROW)
            line = json.dumps({"text": f"{number} {prose[start : start + _LETTERS_A_ROW]}"}).encode() + b"\n"
            size += out.write(line)
            number += 1


def by_hand(source: Path, target: Path) -> float:
    """Return the seconds that `tee` and `sha256sum` take to write the file and to hash it."""
    started = time.perf_counter()
    command = f"tee {target} < {source} | sha256sum"
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def by_service(client: httpx.Client, source: Path) -> float:
    """Return the seconds from the request to its answer, then delete the dataset."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port or 80, blocksize=2**18)
    headers = {"Authorization": client.headers["Authorization"], "Content-Length": str(source.stat().st_size)}
    started = time.perf_counter()
    with source.open("rb") as body:
        connection.request("POST", "/datasets?filename=rows.jsonl", body=body, headers=headers)
        answer = connection.getresponse()
        dataset = json.loads(answer.read())
    seconds = time.perf_counter() - started
    if answer.status != 201:
        raise RuntimeError(f"the upload was answered with {answer.status}: {dataset}")
    client.delete(f"/datasets/{dataset['id']}").raise_for_status()
    return seconds


def watch(address: str, headers: dict[str, str], lags: Path) -> None:
    """Write for each batch event when it arrived, and how many seconds after it happened."""
    with connect(address, additional_headers=headers, proxy=None) as socket, lags.open("w", buffering=1) as out:
        for message in socket:
            arrived = time.time()
            for event in map(json.loads, str(message).split("\n")):
                if event["type"] == "batch":
                    out.write(f"{arrived} {arrived - datetime.fromisoformat(event['at']).timestamp()}\n")


class Memory:
    """The resident memory of a process, looked at twenty times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._ended = process, threading.Event()
        self.before = self.most = process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def watched_job(client: httpx.Client, lags: Path) -> Iterator[None]:
    """A job that trains, and somebody who watches it, until the block ends."""
    rows = "\n".join(json.dumps({"text": text[:200]}) for text in topics.values())
    dataset = client.post("/datasets?filename=small.jsonl", content=rows.encode()).raise_for_status().json()
    job = client.post("/jobs", json=SPEC | {"dataset": dataset["id"]}).raise_for_status().json()
    address = f"ws{str(client.base_url).removeprefix('http').rstrip('/')}{job['links']['stream']}"
    headers = {"Authorization": client.headers["Authorization"]}
    watcher = multiprocessing.get_context("spawn").Process(target=watch, args=(address, headers, lags), daemon=True)
    watcher.start()
    try:
        while not lags.exists() or not lags.stat().st_size:  # until it trains
            time.sleep(0.1)
        yield
    finally:
        watcher.terminate()
        client.post(f"/jobs/{job['id']}/cancel")


def lags_between(lags: Path, started: float, ended: float) -> list[float]:
    """Return the lags of the events that arrived in that time."""
    seen = (tuple(map(float, line.split())) for line in lags.read_text().splitlines()[:-1])
    return [lag for arrived, lag in seen if started <= arrived <= ended]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files lie; by default where temporary files do")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        measure(Path(folder), asked.megabytes, asked.repeats)


def measure(folder: Path, megabytes: int, repeats: int) -> None:
    """Measure and print."""
    source = folder / "rows.jsonl"
    write_rows(source, megabytes)
    size = source.stat().st_size / 10**6
    hand, service, waits, grown = list[float](), list[float](), list[float](), 0
    lags = folder / "lags"
    # A model this small gains nothing from a second thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    with local_stack(folder / "data") as client, watched_job(client, lags):
        api = next(p for p in psutil.Process().children(recursive=True) if p.cmdline()[2:4] == ["-m", "app"])
        for _ in range(repeats):
            hand.append(by_hand(source, folder / "copy"))
            with Memory(api) as memory:
                started = time.time()
                service.append(by_service(client, source))
            waits += lags_between(lags, started, time.time())
            grown = max(grown, memory.most - memory.before)
    _print(size, hand, service, waits, grown)


def _print(size: float, hand: list[float], service: list[float], waits: list[float], grown: int) -> None:
    for name, seconds in (("tee and sha256sum", hand), ("POST /datasets, to its answer", service)):
        rates = [size / second for second in seconds]
        print(
            f"{name:32} {statistics.median(rates):7.1f} MB/s  ({min(rates):.1f} to {max(rates):.1f}, {len(rates)} runs)"
        )
    ratios = [ours / theirs for ours, theirs in zip(hand, service, strict=True)]
    print(f"the service's speed is {statistics.median(ratios):.2f} of it (median of pairs), for {size:,.0f} MB")
    print(f"the API's memory grew by at most {grown / 10**6:.0f} MB")
    percentiles = statistics.quantiles(waits, n=100)
    print(
        f"{len(waits)} events were watched meanwhile: on their way {percentiles[49] * 1000:.0f} ms (median), "
        f"{percentiles[98] * 1000:.0f} ms (99 %), {max(waits) * 1000:.0f} ms (the longest)"
    )


if __name__ == "__main__":
    main()
