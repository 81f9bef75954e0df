"""No body makes a 500, and none of these stores anything: on both databases alike."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.job_spec import JobSpec
from tests.app.served import ON_SQLITE, Api

NESTED = 100_000
BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "a number": b"1",
    "null": b"null",
    "NaN": b'{"dataset": "%s", "training": {"learning_rate": NaN}}',
    "Infinity": b'{"dataset": "%s", "training": {"learning_rate": Infinity}}',
    "1e999": b'{"dataset": "%s", "training": {"max_grad_norm": 1e999}}',
    "a huge int": b'{"dataset": "%s", "training": {"seed": ' + b"9" * 6000 + b"}}",
    "a large int": b'{"dataset": "%s", "training": {"seed": ' + b"9" * 4000 + b"}}",
    "2**63": b'{"dataset": "%s", "training": {"epochs": 9223372036854775808}}',
    "-2**63": b'{"dataset": "%s", "priority": -9223372036854775808}',
    "a bool for an int": b'{"dataset": "%s", "training": {"epochs": true}}',
    "a string for an int": b'{"dataset": "%s", "training": {"epochs": "1"}}',
    "a float for an int": b'{"dataset": "%s", "training": {"epochs": 1.5}}',
    "NUL in the name": b'{"dataset": "%s", "name": "a\\u0000b"}',
    "NUL in the dataset": b'{"dataset": "ds_\\u0000"}',
    "NUL in a tag": b'{"dataset": "%s", "tags": {"a": "\\u0000"}}',
    "NUL in a tag's key": b'{"dataset": "%s", "tags": {"\\u0000": "a"}}',
    "NUL in a prompt": b'{"dataset": "%s", "samples": {"prompts": ["\\u0000"]}}',
    "a raw NUL": b'{"dataset": "%s", "name": "a\x00b"}',
    "a lone surrogate": b'{"dataset": "%s", "name": "\\ud800"}',
    "no UTF-8": b'{"dataset": "%s", "name": "\xff"}',
    "UTF-16": '{"dataset": "x"}'.encode("utf-16"),
    "an unknown field": b'{"dataset": "%s", "trainign": {}}',
    "an unknown inner field": b'{"dataset": "%s", "training": {"epoch": 1}}',
    "an empty name": b'{"dataset": "%s", "name": ""}',
    "an empty dataset": b'{"dataset": ""}',
    "repeated keys": b'{"dataset": "%s", "name": "a", "name": "b"}',
    "repeated inner keys": b'{"dataset": "%s", "samples": {"prompts": []}, "training": {"epochs": 1, "epochs": 2}}',
    "deep arrays": b"[" * NESTED + b"]" * NESTED,
    "deep objects": b'{"a":' * NESTED + b"1" + b"}" * NESTED,
    "unclosed depth": b"[" * NESTED,
    "many unknown fields": json.dumps({f"field{n}": n for n in range(20_000)}).encode(),
    "a huge unknown field": b'{"dataset": "%s", "' + b"x" * 900_000 + b'": 1}',
    "a huge repeated field": b'{"dataset": "%s", "tags": {"' + b"x" * 90 + b'": "", "' + b"x" * 90 + b'": ""}}',
    "an absurd model": b'{"dataset": "%s", "model": {"config": {"model_type": "gpt2", "n_embd": 32768}}}',
    "an unknown model": b'{"dataset": "%s", "model": {"config": {"model_type": "bert"}}}',
    "a sequence too long": b'{"dataset": "%s", "sequence": {"max_length": 131072}}',
    "no such checkpoint": b'{"dataset": "%s", "model": {"checkpoint": {"job": "job_x"}}}',
}
JSON = {"content-type": "application/json"}


def test_a_bad_body_is_a_422_and_stores_nothing(api: Api) -> None:
    dataset = api.dataset().encode()
    for name, body in BODIES.items():
        for path in ("/jobs", "/jobs?dry_run=true"):
            answer = api.http.post(path, content=body.replace(b"%s", dataset), headers=JSON)
            assert answer.status_code == 422, (name, answer.text[:300])
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["status"] == 422
            assert problem["detail"]
            assert len(answer.content) < 20_000, name
    assert api.http.get("/jobs").json()["data"] == []


PLACES: list[tuple[dict[str, Any], list[list[str | int]]]] = [
    ({}, [["dataset"]]),
    ({"dataset": "x", "training": {"epochs": 0}}, [["training", "epochs"]]),
    ({"dataset": "x", "model": {"config": {"model_type": "gpt2", "n_layer": "1"}}}, [["model", "config", "n_layer"]]),
    ({"dataset": "x", "model": {"config": {"model_type": "gpt2", "n_head": 3}}}, [["model", "config"]]),
    ({"dataset": "x", "model": {"config": {}}}, [["model", "config"]]),
    ({"dataset": "x", "model": {"checkpoint": {"job": 1}}}, [["model", "checkpoint", "job"]]),
    ({"dataset": "x", "model": {"checkpoint": {}}}, [["model", "checkpoint", "job"]]),
    ({"dataset": "x", "validation": {"fraction": 2}}, [["validation", "fraction"]]),
    ({"dataset": "x", "validation": {"dataset": 7}}, [["validation", "dataset"]]),
    ({"dataset": "x", "tokenizer": {"train": {"vocab_size": 3}}}, [["tokenizer", "train", "vocab_size"]]),
    ({"dataset": "x", "tokenizer": {"train": {"vocab": 3}}}, [["tokenizer", "train", "vocab"]]),
    ({"dataset": "x", "samples": {"prompts": ["a", 1]}}, [["samples", "prompts", 1]]),
    ({"dataset": "x", "tags": {"a": 1}}, [["tags", "a"]]),
    ({"dataset": "x", "name": 1, "priority": "x"}, [["name"], ["priority"]]),
]


@ON_SQLITE
def test_faults_are_named_by_their_json_path(api: Api) -> None:
    for body, places in PLACES:
        errors = api.http.post("/jobs", json=body).json()["errors"]
        assert [error["loc"] for error in errors] == places, body
        assert all(error["msg"] and not error["msg"].startswith("Value error") for error in errors)


@ON_SQLITE
def test_repeated_keys_are_named_by_their_json_path(api: Api) -> None:
    body = '{"dataset": "x", "training": {"epochs": 1, "epochs": 1}, "tags": {"a": "b", "a": "c"}, "dataset": "y"}'
    errors = api.http.post("/jobs", content=body, headers=JSON).json()["errors"]
    assert [error["loc"] for error in errors] == [["training", "epochs"], ["tags", "a"], ["dataset"]]


@ON_SQLITE
def test_a_body_that_does_not_say_it_is_json_is_a_415(api: Api) -> None:
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = api.http.post("/jobs", content=b'{"dataset": "x"}', headers=headers)
        assert answer.status_code == 415
        assert "Content-Type: application/json" in answer.json()["detail"]
    for said in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"):
        assert api.http.post("/jobs", content=b"{}", headers={"content-type": said}).status_code == 422


ADDRESSES = [
    ("/jobs/%00", 404),
    ("/jobs/job_%00/events", 404),
    ("/jobs/..%2f..%2fetc", 404),
    ("/jobs/" + "j" * 300, 404),
    ("/jobs/%ff", 404),
    ("/datasets/%00", 404),
    ("/datasets/%F0%9F%98%80", 404),
    ("/datasets/%00/preview", 404),
    ("/datasets/ds_x/preview", 404),
    ("/datasets/ds_x/preview?rows=0", 422),
    ("/datasets/ds_x/preview?rows=101", 422),
    ("/datasets/ds_x/preview?tokenizer=tok_%00", 422),
    ("/datasets/ds_x/preview?max_length=8193", 422),
    ("/datasets/ds_x/preview?max_length=99999999999999999999", 422),
    ("/datasets/ds_x/preview?max_length=8&stride=9", 422),
    ("/datasets/ds_x/preview?min_length=1", 422),
    ("/datasets/ds_x/preview?mode=packed&stride=9", 422),
    ("/datasets/ds_x/preview?vocab_size=256", 422),
    ("/tokenizers/%00", 404),
    ("/tokenizers/tok_x", 404),
    ("/tokenizers?cursor=%00", 422),
    ("/jobs?limit=0", 422),
    ("/jobs?limit=201", 422),
    ("/jobs?limit=x", 422),
    ("/jobs?limit=99999999999999999999", 422),
    ("/jobs?cursor=%00", 422),
    ("/jobs?cursor='", 422),
    ("/jobs?status=asleep", 422),
    ("/jobs?tag=%00", 422),
    ("/jobs?tag=" + "x" * 300, 422),
    ("/jobs?tag=%FF", 200),
    ("/jobs?status=&tag=", 200),
    ("/jobs?limit=", 422),
    ("/jobs?cursor=", 422),
    ("/datasets?cursor=%00", 422),
    ("/datasets/%00/report", 404),
    ("/uploads/%00", 404),
    ("/uploads/" + "u" * 300, 404),
    ("/uploads", 405),
    ("/jobs/{job}/events?after=x", 422),
    ("/jobs/{job}/events?after=1", 422),
    ("/jobs/{job}/events?after=-1-1", 422),
    ("/jobs/{job}/events?after=1-1%00", 422),
    ("/jobs/{job}/events?after=%D9%A1-1", 422),
    ("/jobs/{job}/events?after=9999999999-1", 422),
    ("/jobs/{job}/events?after=999999999-999999999999999999", 200),
    ("/jobs/{job}/events?after=", 200),
    ("/jobs/{job}/events?limit=0", 422),
    ("/jobs/{job}/events?wait=61", 422),
    ("/jobs/{job}/events?wait=nan", 422),
    ("/jobs/{job}/metrics?points=0", 422),
    ("/jobs/{job}/metrics?points=10001", 422),
    ("/jobs/{job}/metrics?format=xml", 422),
    ("/jobs/{job}/checkpoints/0/archive", 404),
    ("/jobs/{job}/checkpoints/-1/archive", 404),
    ("/jobs/{job}/checkpoints/1e3/archive", 404),
    ("/jobs/{job}/checkpoints/999999999/archive", 404),
    ("/jobs/{job}/checkpoints/99999999999999999999/archive", 404),
    ("/jobs/{job}/checkpoints/%D9%A1/archive", 404),
    ("/jobs/{job}/checkpoints/latest/archive?manifest=%00", 422),
    ("/jobs/{job}/stream", 404),
    ("/jobs/", 404),
]


def test_no_address_makes_a_500(api: Api) -> None:
    job = api.job()["id"]
    for path, status in ADDRESSES:
        answer = api.http.get(path.replace("{job}", job))
        assert answer.status_code == status, (path, answer.text[:300])
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
DOCUMENTS = st.recursive(
    SCALARS | st.sampled_from(sorted(JobSpec.model_fields)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*JobSpec.model_fields, "config", "checkpoint", "train", "epochs"]), inner)
    ),
    max_leaves=12,
)


@ON_SQLITE
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=DOCUMENTS)
def test_no_document_makes_a_500(api: Api, document: Any) -> None:
    answer = api.http.post("/jobs", content=json.dumps(document).encode(errors="surrogatepass"), headers=JSON)
    assert answer.status_code == 422


@ON_SQLITE
def test_an_idempotency_key_is_a_plain_token(api: Api) -> None:
    body = {"dataset": api.dataset()}
    for key in (b"", b"x" * 201, b"a b", b"\xff"):
        answer = api.http.post("/jobs", json=body, headers={b"Idempotency-Key": key})
        assert answer.status_code == 422, key
    assert api.http.get("/jobs").json()["data"] == []
