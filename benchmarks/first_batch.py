"""How long from submitting a job to its first `batch` event at a WebSocket client, and how long by hand.

    python -m benchmarks.first_batch

Side by side, in turn, in one run: the service with its fork server warm, and a plain script that imports torch and
transformers and trains the same first batch of the same text. Prints medians and their ratio.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics

import httpx
from websockets.sync.client import connect

from benchmarks.shapes import BATCH_SIZE, MAX_LENGTH, MODEL, VOCAB_SIZE

RUNS = 7

SPEC = {
    "name": "first batch",
    "tokenizer": {"train": {"vocab_size": VOCAB_SIZE}},
    "model": {"config": {"model_type": "gpt2", **MODEL}},
    "sequence": {"max_length": MAX_LENGTH},
    "training": {"epochs": 1, "batch_size": BATCH_SIZE},
}


@contextmanager
def local_stack(data_dir: Path) -> Iterator[httpx.Client]:
    """The local stack on a free port, and a client of it. Raises RuntimeError where it does not start."""
    environment = {**os.environ, "EPOCHD_DATA_DIR": str(data_dir), "EPOCHD_PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "up"], env=environment, stdout=subprocess.PIPE, text=True
    ) as stack:
        try:
            while not (data_dir / "url").exists():
                if stack.poll() is not None:
                    logs = "\n".join(log.read_text()[-1000:] for log in (data_dir / "logs").glob("*.log"))
                    raise RuntimeError(f"the local stack ended with status {stack.returncode}\n{logs}")
                time.sleep(0.05)
            url, key = (data_dir / "url").read_text().strip(), (data_dir / "key").read_text().strip()
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
                yield client
        finally:
            stack.terminate()  # a stack that a shell started in the background would not hear of an interrupt


def by_service(client: httpx.Client, dataset: str) -> float:
    """Return the seconds from the POST to the first batch event, then cancel the job."""
    started = time.perf_counter()
    job = client.post("/jobs", json={**SPEC, "dataset": dataset}).raise_for_status().json()
    address = f"ws{str(client.base_url).removeprefix('http').rstrip('/')}/jobs/{job['id']}/stream"
    headers = {"Authorization": client.headers["Authorization"]}
    with connect(address, additional_headers=headers, proxy=None) as socket:
        for message in socket:
            if any(json.loads(line)["type"] == "batch" for line in str(message).split("\n")):
                break
        seconds = time.perf_counter() - started
        client.post(f"/jobs/{job['id']}/cancel").raise_for_status()
        for _ in socket:  # to the end of the log, so that nothing runs beside the next measurement
            pass
    return seconds


def by_hand(corpus: Path) -> float:
    """Return the seconds from starting the plain script to its first loss."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "benchmarks.plain_script", str(corpus)], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text("\n\n".join(topics.values()))
        service, hand = [], []
        with local_stack(Path(folder) / "data") as client:
            with corpus.open("rb") as stream:
                dataset = client.post("/datasets", files={"file": ("corpus.txt", stream)}).raise_for_status().json()
            spec = {**SPEC, "dataset": dataset["id"]}
            plan = client.post("/jobs", params={"dry_run": True}, json=spec).raise_for_status().json()
            print(f"{plan['parameters']:,} parameters, {dataset['bytes']:,} bytes of text")
            for _ in range(RUNS):
                # Each time as on a dataset that is new here; the plain script keeps nothing either.
                shutil.rmtree(Path(folder) / "data" / "cache", ignore_errors=True)
                service.append(by_service(client, dataset["id"]))
                hand.append(by_hand(corpus))
    print(f"{'':34}  median     min     max   ({RUNS} runs, in turn)")
    for name, seconds in (("epochd: submit -> first batch event", service), ("plain script -> first loss", hand)):
        print(f"{name:34} {statistics.median(seconds):6.2f}s {min(seconds):6.2f}s {max(seconds):6.2f}s")
    ratios = [h / s for h, s in zip(hand, service, strict=True)]
    print(f"the plain script takes {statistics.median(ratios):.1f} times as long (median of pairs)")


if __name__ == "__main__":
    main()
