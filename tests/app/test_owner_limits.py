"""What one owner and one job may take: each limit is a setting, and the error names it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.settings import Settings
from core.tokens.vocabulary import of_bytes
from tests.app.served import ON_SQLITE, Api, serving

SMALL = {
    "max_storage_bytes": 100,
    "max_live_jobs": 2,
    "max_batch_size": 8,
    "max_epochs": 2,
    "max_tags": 1,
    "max_page_size": 3,
    "max_sequence_length": 64,
    "max_parameters": 1_000_000,
}


@pytest.fixture
def small(settings: Settings) -> Iterator[Api]:
    """An API that gives little."""
    with serving(settings.model_copy(update=SMALL)) as served:
        yield served


def detail(answer: Any, status: int) -> str:
    """Return what an answer of this status says."""
    assert answer.status_code == status, answer.text
    said: str = answer.json()["detail"]
    return said


def fitting(dataset: str, **changes: Any) -> dict[str, Any]:
    """Return a job within all limits."""
    return {
        "dataset": dataset,
        "tokenizer": "bytes",
        "model": {"config": {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 8}},
        "sequence": {"max_length": 32},
        "training": {"epochs": 1, "batch_size": 4},
        **changes,
    }


@ON_SQLITE
def test_a_job_over_a_limit_is_refused_with_the_limit(small: Api) -> None:
    dataset = small.dataset()
    assert small.http.post("/jobs", json=fitting(dataset)).status_code == 201
    for place, value, name in [
        (["training", "batch_size"], 9, "MAX_BATCH_SIZE"),
        (["training", "epochs"], 3, "MAX_EPOCHS"),
        (["sequence", "max_length"], 65, "MAX_SEQUENCE_LENGTH"),
        (["tags"], {"a": "1", "b": "2"}, "MAX_TAGS"),
        (["model"], {"config": {"model_type": "gpt2", "n_head": 1, "n_embd": 512}}, "MAX_PARAMETERS"),
    ]:
        changed: Any = value if len(place) == 1 else {place[1]: value}
        answer = small.http.post("/jobs", json=fitting(dataset, **{place[0]: changed}))
        assert f"EPOCHD_{name}" in detail(answer, 422)
        assert place in [error["loc"] for error in answer.json()["errors"]]
    for path in ("/jobs", "/datasets", "/tokenizers"):
        assert "EPOCHD_MAX_PAGE_SIZE" in small.http.get(f"{path}?limit=4").text
        assert small.http.get(f"{path}?limit=3").status_code == small.http.get(path).status_code == 200


def test_one_owner_has_so_many_jobs_that_have_not_ended(small: Api) -> None:
    dataset = small.dataset()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: small.http.post("/jobs", json=fitting(dataset)), range(6)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(made) == 2
    refused = next(answer for answer in answers if answer.status_code != 201)
    assert "EPOCHD_MAX_LIVE_JOBS" in detail(refused, 409)
    other = small.other_key("someone else")
    theirs = small.http.post("/datasets?filename=a.txt", content="text", headers=other).json()["id"]
    assert small.http.post("/jobs", json=fitting(theirs), headers=other).status_code == 201
    assert small.http.post(f"/jobs/{made[0]}/cancel").status_code == 200
    assert small.http.post("/jobs", json=fitting(dataset)).status_code == 201
    assert "EPOCHD_MAX_LIVE_JOBS" in detail(small.http.post(f"/jobs/{made[0]}/retry"), 409)


def test_one_owner_keeps_so_many_bytes(small: Api) -> None:
    kept = small.dataset("x" * 60, filename="a.txt")
    announced = {"filename": "b.txt", "bytes": 41, "sha256": "0" * 64}
    for refused in (
        small.http.post("/datasets?filename=b.txt", content="y" * 41),
        small.http.post("/datasets", files={"file": ("b.txt", b"y" * 41)}),
        small.http.post("/tokenizers?filename=tokenizer.json", content=of_bytes().to_str()),
        small.http.post("/uploads", json=announced),
    ):
        assert "EPOCHD_MAX_STORAGE_BYTES" in detail(refused, 413)
    assert small.http.post("/datasets?filename=a.txt", content="x" * 60).status_code == 200
    # What is announced is counted, until it is given up.
    upload = small.http.post("/uploads", json=announced | {"bytes": 40}).json()["id"]
    assert "EPOCHD_MAX_STORAGE_BYTES" in detail(small.http.post("/uploads", json=announced | {"bytes": 1}), 413)
    assert small.http.delete(f"/uploads/{upload}").status_code == 204
    assert small.http.delete(f"/datasets/{kept}").status_code == 204
    assert small.http.post("/datasets?filename=b.txt", content="y" * 100).status_code == 201
    # The checkpoints of a job need room too.
    full = small.http.get("/datasets").json()["data"][0]["id"]
    assert "EPOCHD_MAX_STORAGE_BYTES" in detail(small.http.post("/jobs", json=fitting(full)), 413)
