"""Streams end with the key that opened them, and one key has so many."""

import threading
from datetime import timedelta

import httpx
import pytest
from sqlmodel import col, select
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app import watchers
from app.routes import events
from core import keys
from core.models import Key, utc_now
from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving
from tests.services import wait_for

SSE = {"Accept": "text/event-stream"}


def end(api: Api, how: str, key: dict[str, str]) -> None:
    """Make a key useless."""
    prefix = key["Authorization"].split("_")[1]
    with api.work.begin() as session:
        if how == "revoked":
            keys.revoke(session, prefix)
        else:
            row = session.exec(select(Key).where(col(Key.prefix) == prefix)).one()
            row.expires_at = utc_now() - timedelta(seconds=1)
            session.add(row)


def test_a_key_that_ends_is_noticed_within_a_minute() -> None:
    # What is waited for in turn: the next look at the keys, and the next sign of life of a silent stream.
    assert watchers.LOOK_SECONDS + events.SIGN_OF_LIFE_SECONDS < 60


@ON_SQLITE
@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_streams_end_with_their_key_and_others_go_on(api: Api, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(watchers, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(events, "SIGN_OF_LIFE_SECONDS", 0.05)
    job = api.job()["id"]
    key, other = api.other_key("local"), api.other_key("local")
    over: list[str] = []

    def listen() -> None:
        with httpx.stream("GET", f"{api.http.base_url}/jobs/{job}/events", headers=key | SSE, trust_env=False) as got:
            over.extend(got.iter_lines())
            over.append("the end")

    stream = threading.Thread(target=listen)
    stream.start()
    ticket = api.http.post(f"/jobs/{job}/stream-ticket", headers=key).json()["ticket"]
    url = api.ws(f"/jobs/{job}/stream")
    with (
        connect(url, additional_headers=key, proxy=None) as socket,
        connect(f"{url}?ticket={ticket}", proxy=None) as ticketed,
        connect(url, additional_headers=other, proxy=None) as untouched,
    ):
        for open_ in (socket, ticketed, untouched):
            assert "submitted" in str(open_.recv())
        end(api, how, key)
        for open_ in (socket, ticketed):
            with pytest.raises(ConnectionClosed) as closed:
                open_.recv(timeout=30)
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1008
        stream.join(30)
        assert over[-1] == "the end"
        api.http.post(f"/jobs/{job}/pause")
        assert "paused" in str(untouched.recv(timeout=30))


@ON_SQLITE
def test_one_key_has_so_many_streams(settings: Settings) -> None:
    with serving(settings.model_copy(update={"max_watchers_per_key": 2})) as api:
        job = api.job()["id"]
        url, key, other = api.ws(f"/jobs/{job}/stream"), api.other_key("local"), api.other_key("local")

        def status(headers: dict[str, str]) -> int:
            try:
                with connect(url, additional_headers=headers, proxy=None):
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        with (
            connect(url, additional_headers=key, proxy=None),
            connect(url, additional_headers=key, proxy=None) as second,
        ):
            assert status(key) == 429
            assert status(other) == 101
            for query, headers in (("", SSE), ("?wait=1", {})):
                refused = api.http.get(f"/jobs/{job}/events{query}", headers=key | headers)
                assert refused.status_code == 429
                assert refused.headers["retry-after"]
                assert "EPOCHD_MAX_WATCHERS_PER_KEY" in refused.json()["detail"]
            assert api.http.get(f"/jobs/{job}/events", headers=key).status_code == 200
            second.close()
            wait_for(lambda: status(key) == 101, what="the place of the one that left")
