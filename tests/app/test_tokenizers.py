"""Uploaded tokenizers: read in a process of their own, kept where they are of use, gone when nothing needs them."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from core import jobs
from core.settings import Settings
from core.tokens.vocabulary import of_bytes
from tests.app.served import ON_SQLITE, Api, serving
from tests.chinese import CHAPTERS
from tests.sentencepieces import sentencepiece_model

BYTES = of_bytes().to_str().encode()


def stored(settings: Settings) -> list[Path]:
    """Return every tokenizer's file in the store, and whatever is under way."""
    folders = (settings.data_dir / "store" / name for name in ("tokenizers", "incoming"))
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def upload(api: Api, content: bytes = BYTES, name: str = "tokenizer.json", **params: str) -> dict[str, Any]:
    """Upload a tokenizer that is of use."""
    answer = api.http.post("/tokenizers", params={"filename": name, **params}, content=content)
    assert answer.status_code in (200, 201), answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_tokenizer_json_is_kept_once(api: Api, settings: Settings) -> None:
    answer = api.http.post("/tokenizers", files={"file": ("tokenizer.json", BYTES)})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"].startswith("tok_")
    assert {name: made[name] for name in made if name not in ("id", "created_at")} == {
        "filename": "tokenizer.json",
        "format": "tokenizer.json",
        "bytes": len(BYTES),
        "sha256": hashlib.sha256(BYTES).hexdigest(),
        "vocab_size": 257,
        "end_of_text": "<|endoftext|>",
        "lossless": True,
    }
    again = api.http.post("/tokenizers?filename=other.json", content=BYTES)
    assert (again.status_code, again.json()) == (200, made)
    assert api.http.get(f"/tokenizers/{made['id']}").json() == made
    assert api.http.get("/tokenizers").json() == {"data": [made], "next_cursor": None}
    [path] = stored(settings)
    assert Tokenizer.from_file(str(path)).encode("道").ids == list("道".encode())


@ON_SQLITE
def test_a_sentencepiece_model_becomes_one(api: Api, settings: Settings, tmp_path: Path) -> None:
    path = sentencepiece_model(tmp_path, CHAPTERS)
    made = upload(api, path.read_bytes(), "chinese.model")
    assert (made["format"], made["end_of_text"], made["lossless"]) == ("sentencepiece", "</s>", False)
    [kept] = stored(settings)
    assert Tokenizer.from_file(str(kept)).get_vocab_size() == made["vocab_size"]


@ON_SQLITE
def test_the_end_of_text_can_be_named(api: Api) -> None:
    document = json.loads(BYTES)
    document["added_tokens"][0]["content"] = "<stop>"
    content = json.dumps(document).encode()
    answer = api.http.post("/tokenizers?filename=t.json", content=content)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "end_of_text"])
    answer = api.http.post("/tokenizers?filename=t.json&end_of_text=<nope>", content=content)
    assert answer.status_code == 422
    assert upload(api, content, end_of_text="<stop>")["end_of_text"] == "<stop>"
    answer = api.http.post("/tokenizers?filename=t.json&end_of_text=a", content=content)
    assert answer.status_code == 409
    assert "Delete that one first" in answer.json()["detail"]


@ON_SQLITE
def test_chance_is_taken_out(api: Api, settings: Settings) -> None:
    document = json.loads(BYTES)
    document["model"]["dropout"] = 0.5
    document["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    upload(api, json.dumps(document).encode())
    [path] = stored(settings)
    assert Tokenizer.from_file(str(path)).encode("道道").ids == list("道道".encode())


class _Runs:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("/tmp/epochd-ran"),)


def _faulty() -> Iterator[tuple[str, bytes]]:
    document = json.loads(BYTES)
    vocabulary = document["model"]["vocab"]
    yield "empty", b""
    yield "a pickle", pickle.dumps(_Runs())
    yield "a zip", b"PK\x03\x04" + bytes(100)
    yield "no JSON", b'{"model": '
    yield "deep", b'{"model": ' + b"[" * 100_000
    yield "another JSON", b'{"model": {"type": "Perl", "vocab": {}}}'
    yield "an array", b"[1]"
    yield "no model", json.dumps(document | {"model": None}).encode()
    yield (
        "no vocabulary",
        json.dumps(document | {"model": document["model"] | {"vocab": {}}, "added_tokens": []}).encode(),
    )
    gap = {token: (place if place else 10**6) for token, place in vocabulary.items()}
    yield "ids with a gap", json.dumps(document | {"model": document["model"] | {"vocab": gap}}).encode()
    yield "an id that is none", json.dumps(document | {"model": document["model"] | {"vocab": {"a": -1}}}).encode()
    split = {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
    yield "a broken pattern", json.dumps(document | {"pre_tokenizer": split}).encode()


@ON_SQLITE
def test_what_is_no_tokenizer_is_a_422_and_leaves_nothing(api: Api, settings: Settings) -> None:
    for name, content in _faulty():
        answer = api.http.post("/tokenizers?filename=tokenizer.json", content=content)
        assert answer.status_code == 422, (name, answer.text)
        assert answer.json()["detail"], name
    assert not Path("/tmp/epochd-ran").exists()
    assert stored(settings) == []
    assert api.http.get("/tokenizers").json()["data"] == []


@ON_SQLITE
def test_one_that_takes_too_long_or_too_much_is_given_up(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value, said in (("_SECONDS", 0.1, "longer than"), ("_MEMORY", 64 * 2**20, "64 MiB")):
        with monkeypatch.context() as patch:
            patch.setattr(f"core.tokenizer_files.{limit}", value)
            answer = api.http.post("/tokenizers?filename=tokenizer.json", content=BYTES)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
    assert api.http.get("/healthz").status_code == 200
    assert stored(settings) == []


@ON_SQLITE
def test_a_body_over_the_limit_is_a_413(settings: Settings) -> None:
    with serving(settings.model_copy(update={"max_tokenizer_bytes": 1000})) as api:
        answer = api.http.post("/tokenizers?filename=tokenizer.json", content=BYTES)
        assert answer.status_code == 413
        assert "EPOCHD_MAX_TOKENIZER_BYTES" in answer.json()["detail"]


def test_another_owners_tokenizer_looks_like_none(api: Api) -> None:
    made, theirs = upload(api), api.other_key("someone else")
    for method, path in (("GET", "/tokenizers/{}"), ("DELETE", "/tokenizers/{}")):
        foreign = api.http.request(method, path.format(made["id"]), headers=theirs)
        unknown = api.http.request(method, path.format(made["id"][:-1] + "x"), headers=theirs)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json()["detail"].replace(made["id"], "") == unknown.json()["detail"].replace(
            made["id"][:-1] + "x", ""
        )
    assert api.http.get("/tokenizers", headers=theirs).json()["data"] == []
    dataset = api.http.post("/datasets?filename=a.txt", content="text", headers=theirs).json()["id"]
    body = {"dataset": dataset, "tokenizer": {"upload": made["id"]}}
    answer = api.http.post("/jobs", json=body, headers=theirs)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["tokenizer", "upload"])
    preview = api.http.get(f"/datasets/{dataset}/preview?tokenizer={made['id']}", headers=theirs)
    assert preview.status_code == 422
    again = api.http.post("/tokenizers?filename=tokenizer.json", content=BYTES, headers=theirs)
    assert again.status_code == 201
    assert again.json()["id"] != made["id"]


def test_one_that_a_live_job_needs_stays(api: Api, settings: Settings) -> None:
    made = upload(api)
    job = api.job(tokenizer={"upload": made["id"]})
    assert job["plan"]["vocab_size"] == 257
    answer = api.http.delete(f"/tokenizers/{made['id']}")
    assert answer.status_code == 409
    assert job["id"] in answer.json()["detail"]
    api.http.post(f"/jobs/{job['id']}/cancel")
    assert api.http.delete(f"/tokenizers/{made['id']}").status_code == 204
    assert stored(settings) == []
    assert api.http.get(f"/tokenizers/{made['id']}").status_code == 404
    assert api.http.delete(f"/tokenizers/{made['id']}").status_code == 404
    assert api.http.get(f"/jobs/{job['id']}").status_code == 200
    retried = api.http.post(f"/jobs/{job['id']}/retry")
    assert retried.status_code == 409
    assert "was deleted" in retried.json()["detail"]


def test_a_paused_job_needs_its_tokenizer_too(api: Api) -> None:
    made = upload(api)
    worker = api.worker(tokenizer={"upload": made["id"]})
    api.http.post(f"/jobs/{worker.job_id}/pause")
    with worker.work.begin() as session:
        jobs.stop(session, worker.claim, "asked")
    assert api.http.get(f"/jobs/{worker.job_id}").json()["status"] == "paused"
    assert api.http.delete(f"/tokenizers/{made['id']}").status_code == 409
