"""The OpenAPI document is true: schemathesis reads it and tries it, with a key, following its links."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving

pytestmark = ON_SQLITE

SECONDS = 60


def test_whatever_the_document_allows_is_answered_as_it_says(settings: Settings, tmp_path: Path) -> None:
    with serving(settings.model_copy(update={"max_upload_bytes": 2**20})) as api:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.http.base_url}/openapi.json"]
        # Not checked: that every made-up body is accepted (the document cannot say which datasets there are), and what
        # another owner sees (tests/app/test_owners.py does).
        checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance,object_level_authorization"]
        how = ["--max-time", str(SECONDS), "--max-examples", "15", "--seed", "1"]
        how += ["--suppress-health-check", "all", "--no-color"]
        done = subprocess.run(
            [*command, *checks, *how, "-H", f"Authorization: Bearer {api.key}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-10_000:]
        assert "Stateful" in done.stdout


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
