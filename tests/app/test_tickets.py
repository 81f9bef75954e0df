"""Tickets: they open one stream, once, for a minute, and nothing else; and nobody reads one in a log."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import col, select, update
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from core import keys
from core.deletion import take_away
from core.models import Ticket, utc_now
from tests.app.served import ON_SQLITE, Api


def a_ticket(api: Api, job_id: str, **options: Any) -> str:
    """Ask for a ticket."""
    answer = api.http.post(f"/jobs/{job_id}/stream-ticket", **options)
    assert answer.status_code == 200, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


def status_with(api: Api, job_id: str, ticket: str, **options: Any) -> int:
    """Open the stream with nothing but a ticket, and return the status of the handshake."""
    try:
        with connect(api.ws(f"/jobs/{job_id}/stream?ticket={ticket}"), proxy=None, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_a_ticket_opens_its_own_job_once(api: Api) -> None:
    job, other = api.job()["id"], api.job(name="other")["id"]
    ticket = a_ticket(api, job)
    assert status_with(api, other, ticket) == 401
    with connect(api.ws(f"/jobs/{job}/stream?after=0-0&ticket={ticket}"), proxy=None) as socket:
        assert '"submitted"' in str(socket.recv())
    assert status_with(api, job, ticket) == 401
    for nonsense in ("", "x", "%00", "%F0%9F%90%88", "x" * 300):
        assert status_with(api, job, nonsense) == 401


def test_of_many_at_once_one_gets_in(api: Api) -> None:
    job = api.job()["id"]
    ticket = a_ticket(api, job)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: status_with(api, job, ticket), range(8)))
    assert sorted(statuses) == [101] + [401] * 7


def test_a_ticket_is_good_for_a_minute_and_only_its_hash_is_kept(api: Api) -> None:
    job = api.job()["id"]
    answer = api.http.post(f"/jobs/{job}/stream-ticket")
    assert answer.headers["cache-control"] == "no-store"
    ticket = answer.json()["ticket"]
    left = datetime.fromisoformat(answer.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=30) < left <= timedelta(seconds=61)
    with api.work.begin() as session:
        row = session.exec(select(Ticket)).one()
        assert ticket not in str(row.model_dump())
        session.exec(update(Ticket).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert status_with(api, job, ticket) == 401
    a_ticket(api, job)
    with api.work.reading() as session:  # the next one has taken the expired one away
        assert len(session.exec(select(Ticket)).all()) == 1


def test_a_ticket_opens_no_more_than_its_key(api: Api) -> None:
    job = api.job()["id"]
    headers = api.other_key("local")
    ticket = a_ticket(api, job, headers=headers)
    with api.work.begin() as session:
        keys.revoke(session, headers["Authorization"].split("_")[1])
    assert status_with(api, job, ticket) == 401
    assert (
        api.http.get(f"/jobs/{job}", params={"ticket": a_ticket(api, job)}, headers={"Authorization": ""}).status_code
        == 401
    )
    write_only = api.other_key("local", ["write"])
    assert api.http.post(f"/jobs/{job}/stream-ticket", headers=write_only).status_code == 403


@ON_SQLITE
def test_a_foreign_page_is_refused_and_does_not_use_the_ticket_up(api: Api) -> None:
    job = api.job()["id"]
    ticket = a_ticket(api, job)
    for origin in ("https://evil.example", "null", f"http://127.0.0.1.evil.example:{api.port}"):
        assert status_with(api, job, ticket, origin=Origin(origin)) == 403
    assert status_with(api, job, ticket, origin=Origin(f"http://127.0.0.1:{api.port}")) == 101


@ON_SQLITE
def test_the_log_never_holds_a_ticket(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    job = api.job()["id"]
    tickets = [a_ticket(api, job) for _ in range(2)]
    assert status_with(api, job, tickets[0]) == 101
    assert status_with(api, job, tickets[0]) == 401
    api.http.get(f"/jobs?status=&ticket={tickets[1]}")
    # The test's own client writes a log too.
    log = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    assert sum(bool(re.search("[?&]ticket=…", line)) for line in log) == 3
    assert not any(ticket in line for line in log for ticket in tickets)


@ON_SQLITE
def test_a_deleted_job_takes_its_tickets_with_it(api: Api) -> None:
    job = api.job()["id"]
    a_ticket(api, job)
    api.http.post(f"/jobs/{job}/cancel")
    assert api.http.delete(f"/jobs/{job}").status_code == 204
    with api.work.begin() as session:
        while not take_away(session, job):
            pass
        assert session.exec(select(Ticket).where(col(Ticket.job_id) == job)).first() is None
