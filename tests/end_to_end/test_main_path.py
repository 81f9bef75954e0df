"""The whole way, as a client goes it: upload, submit, watch, download, load; and with the worker killed in between."""

import json
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.installation import ROWS, TINY
from tests.services import wait_for
from tests.stack import Stack

IDS = "\n".join(
    json.dumps({"input_ids": [n % 7 for n in range(length)], "labels": [-100, *range(length - 1)]})
    for length in range(5, 30)
)
LLAMA = {
    "config": {
        **{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "num_key_value_heads": 1},
    }
}

LOAD = """
import sys
from transformers import AutoModelForCausalLM
print(AutoModelForCausalLM.from_pretrained(sys.argv[1]).num_parameters())
"""


@pytest.fixture
def api(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {stack.key}"}, trust_env=False)


def _post(api: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = api.post(path, **request).raise_for_status().json()
    return answer


def _watch(stack: Stack, job_id: str, heard: list[dict[str, Any]]) -> None:
    address = f"{stack.url.replace('http', 'ws', 1)}/jobs/{job_id}/stream"
    with connect(address, additional_headers={"Authorization": f"Bearer {stack.key}"}, proxy=None) as socket:
        for message in socket:
            heard.extend(json.loads(line) for line in str(message).split("\n"))


def _whole_log(api: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    done = False
    while not done:
        page = api.get(f"/jobs/{job_id}/events", params={"after": log[-1]["id"]} if log else {}).json()
        log, done = log + page["events"], page["done"]
    return log


def test_a_worker_killed_in_mid_epoch_costs_a_watcher_nothing(stack: Stack, api: httpx.Client) -> None:
    dataset = _post(api, "/datasets", files={"file": ("rows.jsonl", ROWS)})
    spec = {**TINY, "dataset": dataset["id"], "training": {"epochs": 60, "batch_size": 4}}
    job = _post(api, "/jobs", json=spec)
    heard: list[dict[str, Any]] = []
    watcher = Thread(target=_watch, args=(stack, job["id"], heard))
    watcher.start()
    wait_for(lambda: sum(event["type"] == "batch" for event in heard) > 20, seconds=120, what="20 batches")
    stack.processes()["worker"].kill()
    watcher.join(180)
    assert not watcher.is_alive()

    assert heard[-1]["type"] == "succeeded"
    assert [event["data"]["attempt"] for event in heard if event["type"] == "started"] == [1, 2]
    log = _whole_log(api, job["id"])
    # What a killed worker had said aloud and not yet written down is in no log; everything else was heard once.
    ids = [event["id"] for event in heard]
    assert len(ids) == len(set(ids))
    assert {event["id"] for event in log} <= set(ids)
    assert [event for event in heard if event["id"] in {event["id"] for event in log}] == log

    final = api.get(f"/jobs/{job['id']}").json()
    curves = api.get(f"/jobs/{job['id']}/metrics", params={"points": 10_000}).json()
    assert curves["batch"] == list(range(1, final["plan"]["steps"] + 1))
    assert final["progress"]["fraction"] == 1


@pytest.mark.parametrize(
    ("rows", "changes"),
    [(ROWS, {"model": LLAMA}), (IDS, {"tokenizer": None}), (ROWS, {"tokenizer": {"train": {"vocab_size": 300}}})],
    ids=["llama", "token ids", "a trained tokenizer"],
)
def test_a_checkpoint_comes_back_and_loads(
    stack: Stack, api: httpx.Client, tmp_path: Path, rows: str, changes: dict[str, Any]
) -> None:
    dataset = _post(api, "/datasets", files={"file": ("rows.jsonl", rows)})
    spec = {**TINY, "training": {"epochs": 1, "batch_size": 4}, "dataset": dataset["id"], **changes}
    job = _post(api, "/jobs", json=spec)
    _watch(stack, job["id"], [])
    final = api.get(f"/jobs/{job['id']}").json()
    assert final["status"] == "succeeded", final["error"]
    archive = api.get(f"/jobs/{job['id']}/checkpoints/latest/archive").raise_for_status().content
    subprocess.run(["tar", "x"], input=archive, cwd=tmp_path, check=True)
    (folder,) = tmp_path.iterdir()
    loaded = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True)
    assert int(loaded.stdout) == final["plan"]["parameters"]
