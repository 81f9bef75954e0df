"""The OpenAPI document is true: schemathesis reads it and tries it, with a key, following its links."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlmodel import select

from core.models import EventRow
from core.settings import Settings
from core.tokens.vocabulary import of_bytes
from tests.app.served import ON_SQLITE, Api, serving

pytestmark = ON_SQLITE

ROOT = Path(__file__).parents[2]
_TONIGHT = int(time.time() // 86_400)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("phases", "seconds", "seed"),
    [
        ("examples,coverage,fuzzing", 30, 1),
        ("stateful", 40, 1),
        pytest.param("examples,coverage,fuzzing", 300, _TONIGHT, marks=pytest.mark.nightly, id="tonight"),
        pytest.param("stateful", 300, _TONIGHT, marks=pytest.mark.nightly, id="tonight-stateful"),
    ],
)
def test_whatever_the_document_allows_is_answered_as_it_says(
    settings: Settings, tmp_path: Path, phases: str, seconds: int, seed: int
) -> None:
    with serving(settings.model_copy(update={"max_upload_bytes": 2**20})) as api:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.http.base_url}/openapi.json"]
        # Not checked: that every made-up body is accepted (the document cannot say which datasets there are), and what
        # another owner sees (tests/app/test_owners.py does).
        checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance,object_level_authorization"]
        how = ["--phases", phases, "--max-time", str(seconds), "--max-examples", "15", "--seed", str(seed)]
        how += ["--suppress-health-check", "all", "--no-color"]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.app.openapi_hooks", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, *checks, *how, "-H", f"Authorization: Bearer {api.key}"],
            cwd=tmp_path,
            env=os.environ | hooks | {"EPOCHD_TEST_THERE": json.dumps(_there(api))},
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout)
        assert done.returncode == 0
        if phases == "stateful":
            followed = re.search(r"API Links: +(\d+) covered", done.stdout)
            assert followed
            assert int(followed[1]) >= 20
            with api.work.reading() as session:
                happened = set(session.exec(select(EventRow.type)))
            assert {"submitted", "paused", "cancelled"} <= happened, "links lead to jobs, and on from them"


def _there(api: Api) -> dict[str, str]:
    """Return what can be asked for: a job that has ended, with its events and checkpoints, and what it was made of."""
    tokenizer = of_bytes().to_str()
    worker = api.worker()
    worker.tell(20)
    worker.checkpoint(api.store, {"config.json": b"{}", "model.safetensors": bytes(100)})
    worker.write(2, "a line\nand one more\n")
    worker.succeed(api.store)
    made = api.http.post("/tokenizers?filename=tokenizer.json", content=tokenizer)
    upload = api.http.post("/uploads", json={"filename": "x.txt", "bytes": 5, "sha256": "0" * 64})
    refused = api.http.post("/datasets?filename=d.jsonl", content="no JSON\n" * 100)
    return {
        "job_id": worker.job_id,
        "epoch": "1",
        "name": "config.json",
        "dataset_id": api.dataset(),
        "tokenizer_id": made.json()["id"],
        "upload_id": upload.json()["id"],
        "refusal_id": refused.json()["report_url"].rpartition("/")[2],
        "tokenizer": tokenizer,
    }


def test_the_document_is_for_people_too(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    ids = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            ids.append(operation["operationId"])
            assert operation["summary"], (path, method)
            assert operation["tags"], (path, method)
            if path != "/healthz":
                assert {"400", "401", "403", "422", "503"} <= operation["responses"].keys(), (path, method)
    assert len(set(ids)) == len(ids)
    assert all(id_.isidentifier() and id_ == id_.lower() for id_ in ids)


@pytest.mark.parametrize("name", ["create_job", "create_upload", "create_dataset"])
def test_the_examples_run(api: Api, name: str) -> None:
    document = api.http.get("/openapi.json").json()
    path, operation = next(
        (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if operation["operationId"] == name
    )
    bodies = operation["requestBody"]["content"]
    answers: list[httpx.Response] = []
    if "application/json" in bodies:
        for example in bodies["application/json"]["examples"].values():
            body = dict(example["value"])
            if "dataset" in body:
                body["dataset"] = api.dataset()
            answers.append(api.http.post(path, json=body))
    else:
        filename = next(found for found in operation["parameters"] if found["name"] == "filename")
        example = bodies["application/octet-stream"]["example"]
        params = {"filename": filename["schema"]["examples"][0]}
        answers.append(api.http.post(path, params=params, content=example))
    assert answers
    for answer in answers:
        assert answer.status_code == 201, answer.text
