"""Models from the hub: only what is safe and fits comes to this machine, whole, and the same one ever after."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.checkpoint_files import MANIFEST
from core.model_spec import HubModel
from tests.services import wait_for
from tests.worker.hub_server import Files, HubServer
from tests.worker.training.tiny import GPT2, learner
from worker import hub
from worker.training import build

LIMIT = 100_000


def fetch(folder: Path, name: str = "owner/name", revision: str = "main", **changes: Any) -> hub.Fetched:
    arguments = {"max_parameters": LIMIT, "interrupted": lambda: False, "patience_seconds": 0.0} | changes
    return hub.fetch(HubModel(hub=name, revision=revision), folder=folder / "hub", **arguments)


def refused(folder: Path, name: str = "owner/name", revision: str = "main", **changes: Any) -> hub.Unavailable:
    with pytest.raises(hub.Unavailable) as caught:
        fetch(folder, name, revision, **changes)
    assert caught.value.hint
    return caught.value


def downloads() -> list[psutil.Process]:
    """The downloads that run for this process."""
    children = psutil.Process().children(recursive=True)
    return [
        child for child in children if child.status() != psutil.STATUS_ZOMBIE and "hub" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("name", ["gpt2", "owner/name"])
def test_a_model_comes_whole_with_its_tokenizer_and_nothing_else(
    server: HubServer, files: Files, tmp_path: Path, name: str
) -> None:
    foreign = {
        "pytorch_model.bin": b"pickle",
        "model.pt": b"pickle",
        "modeling_evil.py": b"raise SystemExit",
        "other.safetensors": b"not read",
        "onnx/model.onnx": b"x",
        "sub/model.safetensors": b"x",
        ".gitattributes": b"x",
        "README.md": b"x",
    }
    commit = server.add(name, files | foreign).branches["main"]
    fetched = fetch(tmp_path, name)
    assert fetched.commit == commit
    assert {path.name: path.read_bytes() for path in fetched.folder.iterdir() if path.name != MANIFEST} == files
    assert not [line for line in server.asked if any(other in line for other in foreign)]
    AutoModelForCausalLM.from_pretrained(fetched.folder)
    assert len(AutoTokenizer.from_pretrained(fetched.folder)) == 257


def test_a_commit_stays_what_it_was_when_its_branch_moves_on(server: HubServer, files: Files, tmp_path: Path) -> None:
    repository = server.add("owner/name", files)
    first = repository.branches["main"]
    other = files | {"generation_config.json": b'{"eos_token_id": 3}'}
    second = repository.push(other)
    assert fetch(tmp_path).commit == second
    assert fetch(tmp_path, revision=first).commit == first
    assert fetch(tmp_path / "elsewhere", revision=first).commit == first
    repository.branches["refs/pr/1"] = first
    assert fetch(tmp_path, revision="refs/pr/1").commit == first


def test_what_is_here_needs_no_hub_and_is_checked(server: HubServer, files: Files, tmp_path: Path) -> None:
    commit = server.add("owner/name", files).branches["main"]
    folder = fetch(tmp_path).folder
    asked = len(server.asked)
    assert fetch(tmp_path, revision=commit).folder == folder
    assert len(server.asked) == asked
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert fetch(tmp_path, revision=commit).folder == folder
    assert weights.read_bytes() == files["model.safetensors"]


def test_of_a_model_in_pieces_all_come_and_no_others(server: HubServer, tmp_path: Path) -> None:
    learner().model.save_pretrained(tmp_path / "split", max_shard_size="10KB")
    pieces = {path.name: path.read_bytes() for path in (tmp_path / "split").iterdir()}
    assert sum(name.endswith(".safetensors") for name in pieces) > 1
    server.add("owner/name", pieces | {"stray.safetensors": b"x", "consolidated.safetensors": b"x"})
    fetched = fetch(tmp_path)
    assert {path.name for path in fetched.folder.iterdir()} == {*pieces, MANIFEST}
    AutoModelForCausalLM.from_pretrained(fetched.folder)


def _config(files: Files, **changes: Any) -> Files:
    return files | {"config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}


def _without(files: Files, *names: str) -> Files:
    return {name: data for name, data in files.items() if name not in names}


def _indexed(files: Files, *names: str) -> Files:
    index = {"weight_map": {f"w{place}": name for place, name in enumerate(names)}}
    return _without(files, "model.safetensors") | {"model.safetensors.index.json": json.dumps(index).encode()}


CASES: dict[str, Any] = {
    "no weights": (lambda f: _without(f, "model.safetensors"), "no weights in safetensors"),
    "only a pickle": (
        lambda f: _without(f, "model.safetensors") | {"pytorch_model.bin": b"x"},
        "no weights in safetensors",
    ),
    "an index of a pickle": (lambda f: _indexed(f, "a.bin") | {"a.bin": b"x"}, "no weights in safetensors"),
    "an index of what is not there": (lambda f: _indexed(f, "a.safetensors"), "no weights in safetensors"),
    "an index that leads out": (lambda f: _indexed(f, "../../a.safetensors"), "no weights in safetensors"),
    "an index of nothing": (_indexed, "no weights in safetensors"),
    "an index that is none": (
        lambda f: _indexed(f) | {"model.safetensors.index.json": b"[]"},
        "no weights in safetensors",
    ),
    "no config": (lambda f: _without(f, "config.json"), "no config.json"),
    "a config that is none": (lambda f: f | {"config.json": b"[]"}, "not a JSON object"),
    "code": (lambda f: _config(f, auto_map={"AutoModelForCausalLM": "evil.Model"}), "code of its own"),
    "code of a tokenizer": (
        lambda f: f | {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'},
        "code of its own",
    ),
    "another kind": (lambda f: _config(f, model_type="bert"), "'bert' cannot be trained"),
    "quantized": (lambda f: _config(f, quantization_config={"quant_method": "awq"}), "quantized"),
    "garbage for weights": (lambda f: f | {"model.safetensors": b"\xff" * 99}, "damaged"),
    "more than weights": (
        lambda f: f | {"model.safetensors": f["model.safetensors"] + bytes(2**24 + 2**20)},
        "larger than their weights",
    ),
}


def test_what_cannot_be_trained_is_refused_before_its_weights_come(
    server: HubServer, files: Files, tmp_path: Path
) -> None:
    names = {case: f"owner/case-{number}" for number, case in enumerate(CASES)}
    for case, (change, _) in CASES.items():
        server.add(names[case], change(files))
    with ThreadPoolExecutor(4) as pool:
        errors = dict(zip(CASES, pool.map(lambda case: refused(tmp_path, names[case]), CASES), strict=True))
    for case, (_, message) in CASES.items():
        assert message in errors[case].detail, case
        assert not errors[case].may_pass, case
        folder = tmp_path / "hub" / names[case].replace("/", "--")
        assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == [], case
    assert not server.fetched(".safetensors")


def test_a_model_over_the_limit_is_refused_by_its_headers_alone(
    server: HubServer, files: Files, tmp_path: Path
) -> None:
    server.add("owner/name", files)
    count = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(fetch(tmp_path).folder).parameters())
    server.asked.clear()
    error = refused(tmp_path / "other", max_parameters=count - 1)
    assert f"{count:,}" in error.detail
    assert f"{count - 1:,}" in error.detail
    assert not server.fetched(".safetensors")
    assert fetch(tmp_path / "other", max_parameters=count)


@pytest.mark.parametrize(
    "case",
    [
        ({}, "owner/unknown", "main", "shows no model owner/unknown"),
        ({}, "owner/name", "v9", "no revision v9"),
        ({}, "owner/name", "a" * 40, "no revision aaaa"),
        ({"error": (403, "GatedRepo")}, "owner/name", "main", "is gated"),
        ({"error": (403, "GatedRepo"), "only_files_fail": True}, "owner/name", "main", "is gated"),
        ({"error": (401, "RepoNotFound")}, "owner/name", "main", "shows no model owner/name"),
        ({"error": (403, "")}, "owner/name", "main", "could not be fetched"),
    ],
)
def test_what_the_hub_will_not_give_is_refused(server: HubServer, files: Files, tmp_path: Path, case: Any) -> None:
    fields, name, revision, message = case
    server.add("owner/name", files, **fields)
    error = refused(tmp_path, name, revision, patience_seconds=60.0)
    assert message in error.detail
    assert not error.may_pass


@pytest.mark.usefixtures("server")
def test_a_worker_that_is_set_to_work_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refused(tmp_path, patience_seconds=60.0)
    assert "HF_HUB_OFFLINE" in error.hint
    assert not error.may_pass


def test_an_outage_is_waited_out(server: HubServer, files: Files, tmp_path: Path) -> None:
    server.add("owner/name", files)
    server.busy = 2
    assert fetch(tmp_path, patience_seconds=60.0)


@pytest.mark.usefixtures("server")
def test_a_hub_that_cannot_be_reached_may_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused(tmp_path)
    assert error.may_pass
    assert "HF_ENDPOINT" in error.hint


def test_weights_that_came_damaged_are_not_kept(server: HubServer, files: Files, tmp_path: Path) -> None:
    repository = server.add("owner/name", files, damaged=frozenset({"model.safetensors"}))
    error = refused(tmp_path)
    assert error.may_pass
    assert "came damaged" in error.detail
    repository.damaged = frozenset()
    assert fetch(tmp_path)


def test_it_comes_once_for_all_who_wait_for_it(server: HubServer, files: Files, tmp_path: Path) -> None:
    server.add("owner/name", files)
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: fetch(tmp_path).folder, range(3)))
    assert len(folders) == 1
    assert len(server.fetched("model.safetensors")) == 1


def test_a_download_ends_when_nobody_waits_any_more_and_goes_on_later(
    server: HubServer, files: Files, tmp_path: Path
) -> None:
    server.add("owner/name", files)
    server.stall = Event()
    began = time.monotonic()
    seen: list[psutil.Process] = []

    def interrupted() -> bool:
        seen.extend(downloads())
        return bool(server.fetched("model.safetensors"))

    with pytest.raises(hub.Interrupted):
        fetch(tmp_path, interrupted=interrupted)
    assert seen
    assert time.monotonic() - began < 30
    assert downloads() == []
    server.stall.set()
    assert fetch(tmp_path)


def test_a_download_dies_with_its_worker(server: HubServer, files: Files, tmp_path: Path) -> None:
    server.add("owner/name", files)
    server.stall = Event()
    program = (
        "from pathlib import Path; from core.model_spec import HubModel; from worker import hub;"
        "hub.fetch(HubModel(hub='owner/name'), folder=Path('/'), max_parameters=10**9, interrupted=lambda: False)"
    ).replace("'/'", f"{str(tmp_path)!r}")
    worker = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: server.fetched("model.safetensors"), what="a download under way")
    children = psutil.Process(worker.pid).children(recursive=True)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_half_precision_is_trained_in_float32(server: HubServer, files: Files, tmp_path: Path) -> None:
    model = learner(GPT2).model.to(torch.float16)
    model.save_pretrained(tmp_path / "half")
    half = {path.name: path.read_bytes() for path in (tmp_path / "half").iterdir()}
    server.add("owner/name", files | half)
    loaded = build.load_model(fetch(tmp_path).folder, max_length=64)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
