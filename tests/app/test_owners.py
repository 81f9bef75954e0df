"""What is another's looks like what does not exist, on every route and in every place that takes an id."""

from dataclasses import dataclass
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from core.tokens.vocabulary import of_bytes
from tests.app.all_routes import WEBSOCKET, every_route, parameters
from tests.app.served import ON_SQLITE, Api

# What else stands in a path: it means the same beside a known id and an unknown one.
PLACES = {"epoch": "1", "name": "config.json"}
# Not one owner's: the page's files.
OPEN = {"asset"}
SSE = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Seen:
    """An answer, as far as it may differ."""

    status: int
    headers: frozenset[tuple[str, str]]
    body: bytes

    def of_other_ids(self, ids: dict[str, str], others: dict[str, str]) -> "Seen":
        """Return what it would be of other ids."""
        body = self.body
        for kind, id_ in ids.items():
            body = body.replace(id_.encode(), others[kind].encode())
        return Seen(self.status, self.headers, body)


def ask(api: Api, method: str, path: str, key: dict[str, str], **options: Any) -> Seen:
    """Ask, over HTTP or for a WebSocket, and return what of the answer the ids may tell."""
    if method == WEBSOCKET:
        with pytest.raises(InvalidStatus) as refused, connect(api.ws(path), additional_headers=key, proxy=None):
            pass
        answer = refused.value.response
        status, headers, body = answer.status_code, dict(answer.headers.raw_items()), answer.body or b""
    else:
        headers = options.pop("headers", {}) | key
        got = api.http.request(method, path, headers=headers, **options)
        status, headers, body = got.status_code, dict(got.headers), got.content
    told = {name.lower(): value for name, value in headers.items() if name.lower() not in ("x-request-id", "date")}
    return Seen(status, frozenset(told.items()), body)


@pytest.fixture
def ids(api: Api) -> dict[str, str]:
    """One of everything that has an id, of the owner of the first key."""
    worker = api.worker(tags={"team": "docs"})
    worker.checkpoint(api.store, {"config.json": b"{}"})
    announced = api.http.post("/uploads", json={"filename": "a.txt", "bytes": 3, "sha256": "0" * 64}).json()
    tokenizer = api.http.post("/tokenizers?filename=tokenizer.json", content=of_bytes().to_str()).json()
    refused = api.http.post("/datasets?filename=a.jsonl", content=b"nope\n" * 30).json()
    return {
        "job_id": worker.job_id,
        "refusal_id": refused["report_url"].rpartition("/")[2],
        "dataset_id": api.http.get("/datasets").json()["data"][0]["id"],
        "upload_id": announced["id"],
        "tokenizer_id": tokenizer["id"],
    }


@ON_SQLITE
def test_on_every_route_anothers_id_is_answered_as_an_unknown_one(api: Api, ids: dict[str, str]) -> None:
    foreign, own, admin = (
        api.other_key("someone else"),
        api.other_key("local"),
        api.other_key("the operator", ["read", "admin"]),
    )
    unknown = {kind: id_.partition("_")[0] + "_" + "0" * 26 for kind, id_ in ids.items()}
    tried = 0
    for method, path in every_route(api.app):
        named = set(parameters(path)) - OPEN
        if not named & ids.keys():
            assert not named, f"{path} has a parameter that this test knows nothing to give for"
            continue
        for headers in ({}, SSE) if path.endswith("/events") else ({"Upload-Offset": "0"},):
            theirs = ask(api, method, path.format(**ids, **PLACES), foreign, headers=headers)
            none = ask(api, method, path.format(**unknown, **PLACES), foreign, headers=headers)
            assert theirs.status == 404, (method, path)
            assert theirs.of_other_ids(ids, unknown) == none, (method, path)
            tried += 1
    assert tried > 25
    # None of it has changed anything, and all of it is there: for its owner, and for whoever sees all.
    for method, path in every_route(api.app):
        if method == "GET" and set(parameters(path)) & ids.keys():
            mine, seen = (api.http.get(path.format(**ids, **PLACES), headers=key) for key in (own, admin))
            assert (mine.status_code, seen.status_code) == (200, 200), path
            assert seen.content == mine.content, path


@ON_SQLITE
def test_in_every_place_of_a_request_anothers_id_is_answered_as_an_unknown_one(api: Api, ids: dict[str, str]) -> None:
    foreign = api.other_key("someone else")
    mine = api.http.post("/datasets?filename=a.txt", content="one\n\ntwo", headers=foreign).json()["id"]
    unknown = {kind: id_.partition("_")[0] + "_" + "0" * 26 for kind, id_ in ids.items()}

    def requests(of: dict[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
        job = {"dataset": mine}
        bodies = [
            {"dataset": of["dataset_id"]},
            job | {"validation": {"dataset": of["dataset_id"]}},
            job | {"tokenizer": {"upload": of["tokenizer_id"]}},
            job | {"model": {"checkpoint": {"job": of["job_id"]}}},
        ]
        return [
            *(("POST", path, {"json": body}) for path in ("/jobs", "/jobs?dry_run=true") for body in bodies),
            ("GET", f"/datasets/{mine}/preview?tokenizer={of['tokenizer_id']}", {}),
            ("GET", f"/datasets/{mine}/preview?tokenizer={of['job_id']}", {}),
        ]

    for (method, path, theirs), (_, as_path, none) in zip(requests(ids), requests(unknown), strict=True):
        seen = ask(api, method, path, foreign, **theirs)
        assert seen.status == 422, (path, theirs)
        assert seen.of_other_ids(ids, unknown) == ask(api, method, as_path, foreign, **none)
    for path in ("/jobs", "/jobs?tag=team:docs", "/jobs?status=running", "/tokenizers"):
        assert api.http.get(path, headers=foreign).json() == {"data": [], "next_cursor": None}


def test_who_may_see_all_sees_all(api: Api) -> None:
    worker = api.worker(tags={"team": "docs"})
    api.http.post("/datasets?filename=a.txt", content="text", headers=api.other_key("someone else"))
    admin, reader = api.other_key("the operator", ["read", "write", "admin"]), api.other_key("the operator")
    assert len(api.http.get("/datasets", headers=admin).json()["data"]) == 2
    for path in ("/jobs", "/jobs?tag=team:docs"):
        assert [job["id"] for job in api.http.get(path, headers=admin).json()["data"]] == [worker.job_id]
        assert api.http.get(path, headers=reader).json()["data"] == []
    asked = api.http.post(f"/jobs/{worker.job_id}/cancel", headers=admin)
    assert asked.json()["stop_requested"] == "cancel"
    # What it makes is still its own: nobody's job comes to hang on another's dataset.
    dataset = api.http.get(f"/jobs/{worker.job_id}").json()["spec"]["dataset"]
    assert api.http.post("/jobs", json={"dataset": dataset}, headers=admin).status_code == 422
