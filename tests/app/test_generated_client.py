"""A client that is generated from the OpenAPI document, by a program that knows nothing of epochd, works."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.served import ON_SQLITE, Api

PACKAGE = "epochd_client"


@pytest.fixture
def generated(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that imports a module of the generated package."""
    document = tmp_path / "openapi.json"
    document.write_bytes(api.http.get("/openapi.json").content)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate"),
            *("--path", str(document), "--output-path", str(tmp_path / "made"), "--meta", "none"),
        ],
        env={"PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Endpoint will not be generated" not in done.stdout, done.stdout
    assert "Unable to process schema" not in done.stdout, done.stdout
    (tmp_path / "made").rename(tmp_path / PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@ON_SQLITE
def test_a_job_from_its_data_to_its_end_and_a_refusal(api: Api, generated: Any) -> None:
    models, types = generated("models"), generated("types")
    client = generated("client").AuthenticatedClient(base_url=str(api.http.base_url), token=api.key)

    def call(name: str, *arguments: Any, **options: Any) -> Any:
        return generated(f"api.{name}").sync(*arguments, client=client, **options)

    with Path(__file__).open("rb") as stream:
        file = types.File(payload=stream, file_name="rows.txt", mime_type="text/plain")
        dataset = call("datasets.create_dataset", body=models.CreateDatasetFilesBody(file=file))
    assert dataset.rows > 3
    config = models.Gpt2Config("gpt2", n_layer=1, n_head=2, n_embd=16)
    spec = models.JobSpec(dataset=dataset.id, tokenizer="bytes", model=models.NewModel(config=config), name="generated")
    plan = call("jobs.create_job", body=spec, dry_run=True)
    assert plan.steps > 0
    job = call("jobs.create_job", body=spec, idempotency_key="once")
    assert (job.name, job.status) == ("generated", "queued")
    assert call("jobs.create_job", body=spec, idempotency_key="once").id == job.id
    assert [listed.id for listed in call("jobs.list_jobs").data] == [job.id]
    assert [event.type_ for event in call("watching.poll_events", job.id).events] == ["submitted"]
    call("jobs.cancel_job", job.id)
    assert call("jobs.get_job", job.id).status == "cancelled"

    refused = call("jobs.create_job", body=models.JobSpec(dataset="ds_none"))
    assert isinstance(refused, models.Problem)
    assert (refused.status, [error.loc for error in refused.errors]) == (422, [["dataset"]])
