"""Jobs on models from the hub, through a real worker: the commit is the job's own, and no download holds a worker."""

import signal
import time
from pathlib import Path
from threading import Event

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.models import Dataset, Job
from tests.installation import Installation
from tests.services import wait_for
from tests.worker.hub_server import Files, HubServer, model_files

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

# What is the same in all: a base that brings its tokenizer, and 6 updates in 3 epochs.
ON_HUB = {"tokenizer": None, "model": {"hub": "owner/name"}, "validation": None}


def ended(installation: Installation, job_id: str) -> Job:
    return installation.wait_for_status(job_id, "succeeded", "failed", "cancelled")


def published(installation: Installation, job_id: str) -> Path:
    """The newest checkpoint's `model/` folder."""
    return installation.folder(installation.checkpoints(job_id)[0]) / "model"


def test_a_job_trains_a_model_from_the_hub_and_keeps_its_commit(
    installation: Installation, dataset: Dataset, server: HubServer, files: Files
) -> None:
    commit = server.add("owner/name", files).branches["main"]
    with installation.worker():
        job = ended(installation, installation.submit(dataset, **ON_HUB))
        assert job.status == "succeeded", job.error
        onward = ON_HUB | {"model": {"checkpoint": {"job": job.id}}}
        again = ended(installation, installation.submit(dataset, **onward))
    assert again.status == "succeeded", again.error
    assert job.spec["model"] == {"hub": "owner/name", "revision": commit, "lora": None}
    folder = published(installation, job.id)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert job.plan["parameters"] == sum(weight.numel() for weight in plain.parameters())
    assert len(AutoTokenizer.from_pretrained(folder)) == 257


def test_an_adapter_s_job_that_was_killed_goes_on_from_the_same_commit(
    installation: Installation, dataset: Dataset, server: HubServer, files: Files, tmp_path: Path
) -> None:
    repository = server.add("owner/name", files)
    first = repository.branches["main"]
    spec = ON_HUB | {
        "model": {"hub": "owner/name", "lora": {"r": 2, "dropout": 0.1}},
        "training": {"epochs": 20, "batch_size": 4},
        "checkpoints": {"every_epochs": 2},
    }
    with installation.worker() as worker:
        job_id = installation.submit(dataset, **spec)
        wait_for(lambda: installation.checkpoints(job_id), seconds=90, what="a checkpoint")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    second = repository.push(model_files(tmp_path / "other", seed=1))
    assert second != first
    # The successor is another machine: nothing of the hub's lies there.
    (installation.settings.data_dir / "hub").rename(tmp_path / "lost")
    with installation.worker():
        job = ended(installation, job_id)
        assert (job.status, job.attempt) == ("succeeded", 2), job.error
        undisturbed = ended(installation, installation.submit(dataset, **spec | {
            "model": {"hub": "owner/name", "revision": first, "lora": {"r": 2, "dropout": 0.1}}}))  # fmt: skip
    assert job.spec["model"]["revision"] == first
    folders = [published(installation, one) for one in (job.id, undisturbed.id)]
    adapters, configs = (
        [(folder / name).read_bytes() for folder in folders]
        for name in ("adapter_model.safetensors", "adapter_config.json")
    )
    assert adapters[0] == adapters[1]
    assert configs[0] == configs[1]
    assert first.encode() in configs[0]
    PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "lost" / "owner--name" / first), folders[0]
    )


def test_a_model_that_the_hub_does_not_have_fails_the_job_at_once_and_a_hub_that_is_away_costs_a_failure(
    installation: Installation, dataset: Dataset, server: HubServer
) -> None:
    with installation.worker():
        unknown = ended(installation, installation.submit(dataset, **ON_HUB))
        assert server.asked
        server.close()
        away = ended(installation, installation.submit(dataset, **ON_HUB, max_failures=1))
    assert (unknown.status, unknown.attempt, unknown.failures, unknown.error["code"]) == ("failed", 1, 0, "data")
    assert "owner/name" in unknown.error["message"]
    assert "model.hub" in unknown.error["hint"]
    assert (away.status, away.failures, away.error["code"]) == ("failed", 1, "data")
    assert "HF_ENDPOINT" in away.error["hint"]


def test_a_cancel_and_a_drain_do_not_wait_for_a_download(
    installation: Installation, dataset: Dataset, server: HubServer, files: Files
) -> None:
    server.add("owner/name", files)
    server.stall = Event()
    with installation.worker() as worker:
        job_id = installation.submit(dataset, **ON_HUB)
        wait_for(lambda: server.fetched("model.safetensors"), what="a download under way")
        began = time.monotonic()
        installation.cancel(job_id)
        assert ended(installation, job_id).status == "cancelled"
        assert time.monotonic() - began < 20
        waiting = installation.submit(dataset, **ON_HUB)
        wait_for(lambda: len(server.fetched("model.safetensors")) > 1, what="another download under way")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    job = installation.job(waiting)
    assert (job.status, job.failures) == ("queued", 0)
