"""Nobody gets in without a key, and a key opens what its scopes say, for as long as it is good."""

from datetime import timedelta

import httpx
import pytest
from sqlmodel import col, select
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import connect

from core import keys
from core.models import Key, utc_now
from tests.app.all_routes import WEBSOCKET, every_route
from tests.app.served import ON_SQLITE, Api

OPEN = {"/healthz", "/", "/assets/index.html"}


def refusal(url: str, headers: dict[str, str]) -> Response:
    """Return what a handshake was refused with."""
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers, proxy=None):
        pass
    return refused.value.response


@ON_SQLITE
def test_every_route_needs_a_key(api: Api) -> None:
    given = {"job_id": "job_x", "dataset_id": "ds_x", "upload_id": "up_x", "tokenizer_id": "tok_x"}
    given |= {"refusal_id": "ref_x", "epoch": "1"}
    given |= {"name": "config.json", "asset": "index.html"}
    tried = [(method, path.format(**given)) for method, path in every_route(api.app) if method != WEBSOCKET]
    stranger = httpx.Client(base_url=api.http.base_url, trust_env=False)
    for method, path in tried:
        for header in (None, "Bearer", "Bearer epochd_00000000_x", "Basic eDp5", f"bearer {api.key}x", api.key):
            answer = stranger.request(method, path, headers={} if header is None else {"Authorization": header})
            if path in OPEN:
                assert answer.status_code == 200
                continue
            assert answer.status_code == 401, (method, path, header)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-request-id"].startswith("req_")


@ON_SQLITE
def test_a_websocket_without_a_key_is_refused_at_the_handshake(api: Api) -> None:
    job = api.job()
    for headers in ({}, {"Authorization": "Bearer epochd_00000000_x"}):
        assert (response := refusal(api.ws(job["links"]["stream"]), headers)).status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-request-id"].startswith("req_")
        assert b'"status": 401' in (response.body or b"")


@ON_SQLITE
def test_a_key_does_what_its_scopes_say(api: Api) -> None:
    job = api.job()
    read, write = api.other_key("local", ["read"]), api.other_key("local", ["write"])
    assert api.http.get(f"/jobs/{job['id']}", headers=read).status_code == 200
    assert api.http.post(f"/jobs/{job['id']}/cancel", headers=read).status_code == 403
    assert api.http.post("/datasets?filename=a.txt", content="text", headers=read).status_code == 403
    assert api.http.get(f"/jobs/{job['id']}", headers=write).status_code == 403
    assert api.http.post(f"/jobs/{job['id']}/cancel", headers=write).status_code == 200
    assert refusal(api.ws(job["links"]["stream"]), write).status_code == 403


def test_a_revoked_or_expired_key_is_none(api: Api) -> None:
    with api.work.begin() as session:
        expired = keys.create(session, "local", expires_at=utc_now() - timedelta(seconds=1))
        revoked = keys.create(session, "local")
        keys.revoke(session, revoked.split("_")[1])
    for key in (expired, revoked):
        assert api.http.get("/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_the_last_use_is_recorded_once_a_minute(api: Api) -> None:
    def last_use() -> object:
        with api.work.reading() as session:
            return session.exec(select(Key.last_used_at).where(col(Key.prefix) == api.key.split("_")[1])).one()

    assert last_use() is None
    api.http.get("/jobs")
    first = last_use()
    assert first is not None
    api.http.get("/jobs")
    assert last_use() == first
    with api.work.begin() as session:
        key = session.exec(select(Key).where(col(Key.prefix) == api.key.split("_")[1])).one()
        key.last_used_at = utc_now() - timedelta(seconds=61)
    api.http.get("/jobs")
    assert last_use() > first  # type: ignore[operator]


@ON_SQLITE
def test_the_log_never_holds_a_key(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.http.get("/jobs")
    api.http.get("/jobs", headers={"Authorization": f"Bearer {api.key}x"})
    assert "GET /jobs" in caplog.text
    assert api.key.split("_", 2)[2] not in caplog.text
