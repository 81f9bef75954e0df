"""A job that trains for as long as something is measured beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from websockets.sync.client import ClientConnection, connect

from benchmarks.shapes import BATCH_SIZE, MAX_LENGTH, MODELS


@contextmanager
def endless_job(client: httpx.Client, rows: str, model: str) -> Iterator[ClientConnection]:
    """Train one of MODELS on rows (JSON lines of ids), with no validation and no checkpoint, and watch it.

    It is cancelled at the end.
    """
    dataset = client.post("/datasets", files={"file": ("rows.jsonl", rows)}).raise_for_status().json()
    spec = {
        "dataset": dataset["id"],
        "validation": None,
        "model": {"config": {"model_type": "gpt2", **MODELS[model]}},
        "sequence": {"max_length": MAX_LENGTH},
        "training": {"epochs": 10_000, "batch_size": BATCH_SIZE},
        "checkpoints": {"every_epochs": 10_000},
    }
    job = client.post("/jobs", json=spec).raise_for_status().json()
    address = f"ws{str(client.base_url).removeprefix('http').rstrip('/')}/jobs/{job['id']}/stream"
    headers = {"Authorization": client.headers["Authorization"]}
    with connect(address, additional_headers=headers, proxy=None) as socket:
        yield socket
    client.post(f"/jobs/{job['id']}/cancel").raise_for_status()
