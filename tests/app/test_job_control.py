"""What an owner asks of a job over HTTP: each answered truthfully, in every state, and only to its owner."""

from typing import Any

import pytest

from core import deletion, jobs
from tests.app.played_worker import PlayedWorker
from tests.app.served import ON_SQLITE, Api
from tests.app.watcher import PollWatcher, SocketWatcher, Watcher
from tests.house import LOST
from tests.services import wait_for

REQUESTS = ("cancel", "pause", "resume", "retry", "checkpoints")


def ask(api: Api, job_id: str, request: str) -> tuple[int, dict[str, Any]]:
    answer = api.http.post(f"/jobs/{job_id}/{request}")
    return answer.status_code, answer.json()


def end(api: Api, worker: PlayedWorker, how: str) -> None:
    if how == "succeeded":
        worker.succeed(api.store)
        return
    with api.work.begin() as session:
        if how == "failed":
            jobs.fail(session, worker.claim, LOST)
        else:
            jobs.request_cancel(session, session.get_one(jobs.Job, worker.job_id).owner_id, worker.job_id)
            jobs.stop(session, worker.claim, "drained")


def test_a_queued_job_is_paused_and_resumed_at_its_old_place(api: Api) -> None:
    first, second = api.job()["id"], api.job()["id"]
    status, job = ask(api, first, "pause")
    assert (status, job["status"], job["queue_position"]) == (200, "paused", None)
    assert api.http.get(f"/jobs/{second}").json()["queue_position"] == 1
    assert [job["id"] for job in api.http.get("/jobs", params={"status": "paused"}).json()["data"]] == [first]
    status, job = ask(api, first, "resume")
    assert (status, job["status"], job["queue_position"]) == (200, "queued", 1)
    assert [job["queue_position"] for job in api.http.get("/jobs").json()["data"]] == [2, 1]
    events = api.http.get(f"/jobs/{first}/events").json()["events"]
    assert [event["type"] for event in events] == ["submitted", "paused", "resumed"]


def test_a_running_job_is_asked_to_pause_until_the_trainer_has_answered(api: Api) -> None:
    worker = api.worker()
    status, job = ask(api, worker.job_id, "pause")
    assert (status, job["status"], job["stop_requested"]) == (200, "running", "pause")
    with api.work.begin() as session:
        jobs.stop(session, worker.claim, "drained")
    job = api.http.get(f"/jobs/{worker.job_id}").json()
    assert (job["status"], job["stop_requested"], job["finished_at"]) == ("paused", None, None)


def test_a_pause_is_withdrawn_and_a_cancel_is_not(api: Api) -> None:
    worker = api.worker()
    ask(api, worker.job_id, "pause")
    assert ask(api, worker.job_id, "resume")[1]["stop_requested"] is None
    ask(api, worker.job_id, "pause")
    assert ask(api, worker.job_id, "cancel")[1]["stop_requested"] == "cancel"
    for request in ("pause", "resume"):
        assert ask(api, worker.job_id, request)[0] == 409
    assert api.http.get(f"/jobs/{worker.job_id}").json()["stop_requested"] == "cancel"


def test_a_request_to_save_stands_until_it_is_answered(api: Api) -> None:
    worker = api.worker()
    assert not api.http.get(f"/jobs/{worker.job_id}").json()["save_requested"]
    status, job = ask(api, worker.job_id, "checkpoints")
    assert (status, job["status"], job["save_requested"]) == (202, "running", True)
    with api.work.begin() as session:
        jobs.record(session, worker.claim, [], save_requested=False)
    assert not api.http.get(f"/jobs/{worker.job_id}").json()["save_requested"]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_a_retried_job_has_its_whole_budget_again_and_no_error(api: Api, how: str) -> None:
    worker = api.worker()
    worker.checkpoint(api.store, {"config.json": b"{}"}, step=7)
    end(api, worker, how)
    status, job = ask(api, worker.job_id, "retry")
    assert (status, job["status"], job["queue_position"]) == (200, "queued", 1)
    assert (job["error"], job["finished_at"], job["failures"]) == (None, None, 0)
    again = PlayedWorker(api.work, worker.job_id)
    assert (again.claim.attempt, again.claim.fence > worker.claim.fence + 1) == (2, True)


def test_a_retry_without_the_checkpoint_it_started_from_is_refused(api: Api) -> None:
    parent = api.worker()
    parent.checkpoint(api.store, {"config.json": b"{}"})
    parent.succeed(api.store)
    child = api.worker(model={"checkpoint": {"job": parent.job_id, "epoch": "latest"}})
    end(api, child, "failed")
    assert api.http.delete(f"/jobs/{parent.job_id}").status_code == 204
    with api.work.begin() as session:
        assert deletion.take_away(session, parent.job_id)
    status, problem = ask(api, child.job_id, "retry")
    assert status == 409
    assert "nothing to go on from" in problem["detail"]


LEGAL = {
    "queued": {"cancel", "pause"},
    "paused": {"cancel", "resume"},
    "running": {"cancel", "pause", "checkpoints"},
    "succeeded": set[str](),
    "failed": {"retry"},
    "cancelled": {"retry"},
}


@pytest.mark.parametrize("state", LEGAL)
def test_what_is_not_possible_is_refused_with_the_state_and_changes_nothing(api: Api, state: str) -> None:
    job_id = api.job()["id"]
    if state == "paused":
        ask(api, job_id, "pause")
    elif state != "queued":
        worker = PlayedWorker(api.work, job_id)
        if state != "running":
            end(api, worker, state)
    before = api.http.get(f"/jobs/{job_id}").json()
    assert before["status"] == state
    for request in set(REQUESTS) - LEGAL[state]:
        status, problem = ask(api, job_id, request)
        assert (status, state in problem["detail"]) == (409, True), request
    if state not in ("succeeded", "failed", "cancelled"):
        answer = api.http.delete(f"/jobs/{job_id}")
        assert (answer.status_code, state in answer.json()["detail"]) == (409, True)
    assert api.http.get(f"/jobs/{job_id}").json() == before


@ON_SQLITE
def test_anothers_job_looks_like_none(api: Api) -> None:
    job_id, other = api.job()["id"], api.other_key("other")
    for request in REQUESTS:
        foreign = api.http.post(f"/jobs/{job_id}/{request}", headers=other)
        unknown = api.http.post(f"/jobs/job_none/{request}", headers=other)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json()["detail"].replace(job_id, "job_none") == unknown.json()["detail"]
    assert api.http.delete(f"/jobs/{job_id}", headers=other).status_code == 404
    reader = api.other_key("other reader", ["read"])
    assert api.http.delete(f"/jobs/{job_id}", headers=reader).status_code == 403
    assert api.http.get(f"/jobs/{job_id}").json()["status"] == "queued"


def test_a_deleted_job_is_gone_from_everywhere_and_its_key_is_free(api: Api) -> None:
    body = {"dataset": api.dataset(), "tags": {"team": "docs"}}
    made = api.http.post("/jobs", json=body, headers={"Idempotency-Key": "once"}).json()["id"]
    ask(api, made, "cancel")
    assert api.http.delete(f"/jobs/{made}").status_code == 204
    for path in ("", "/events", "/metrics", "/checkpoints"):
        assert api.http.get(f"/jobs/{made}{path}").status_code == 404, path
    assert api.http.delete(f"/jobs/{made}").status_code == 404
    for query in ({}, {"status": "cancelled"}, {"tag": "team:docs"}):
        assert api.http.get("/jobs", params=query).json()["data"] == []
    again = api.http.post("/jobs", json=body, headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.json()["id"] != made) == (201, True)


def test_a_job_that_a_live_one_goes_on_from_is_kept(api: Api) -> None:
    parent = api.worker()
    parent.succeed(api.store)
    child = api.job(model={"checkpoint": {"job": parent.job_id, "epoch": "latest"}})["id"]
    answer = api.http.delete(f"/jobs/{parent.job_id}")
    assert (answer.status_code, child in answer.json()["detail"]) == (409, True)
    ask(api, child, "cancel")
    assert api.http.delete(f"/jobs/{parent.job_id}").status_code == 204


def test_a_model_outlives_the_job_that_its_line_began_with(api: Api) -> None:
    first = api.worker()
    first.succeed(api.store)
    second = api.worker(model={"checkpoint": {"job": first.job_id, "epoch": "latest"}})
    second.succeed(api.store)
    assert api.http.delete(f"/jobs/{first.job_id}").status_code == 204
    with api.work.begin() as session:
        assert deletion.take_away(session, first.job_id)
    third = api.job(model={"checkpoint": {"job": second.job_id, "epoch": "latest"}})
    assert third["status"] == "queued"


def test_watchers_see_a_retried_job_go_on(api: Api) -> None:
    worker = api.worker()
    worker.tell(3)
    during = SocketWatcher(api, worker.job_id).start()
    during.wait_until_heard(worker.tell(2))
    end(api, worker, "failed")
    during.wait_until_over()
    assert during.close_code == 1000
    first_life = during.ids
    ask(api, worker.job_id, "retry")
    again = PlayedWorker(api.work, worker.job_id)
    again.tell(2)
    watchers: list[Watcher] = []
    for cursor in ("", first_life[0], first_life[-1]):
        watchers.append(SocketWatcher(api, worker.job_id, cursor).start())
        watchers.append(PollWatcher(api, worker.job_id, cursor).start())
    last = again.tell(3)
    for watcher in watchers:
        watcher.wait_until_heard(last)
    again.succeed(api.store)
    for watcher in watchers:
        watcher.wait_until_over()
    whole = watchers[0].ids
    assert whole[: len(first_life)] == first_life
    assert [watcher.ids for watcher in watchers] == [
        whole[whole.index(cursor) + 1 if cursor else 0 :]
        for cursor in ("", "", *[first_life[0]] * 2, *[first_life[-1]] * 2)
    ]


@ON_SQLITE
def test_a_page_that_ends_where_the_first_life_did_is_not_the_end(api: Api) -> None:
    worker = api.worker()
    worker.tell(3)
    end(api, worker, "failed")
    ask(api, worker.job_id, "retry")
    job = f"/jobs/{worker.job_id}/events"
    wait_for(lambda: len(api.http.get(job).json()["events"]) == 7, what="the retry in the log")
    page = api.http.get(job, params={"limit": 6}).json()
    assert (page["events"][-1]["type"], page["done"]) == ("failed", False)
    end(api, PlayedWorker(api.work, worker.job_id), "failed")
    assert api.http.get(job, params={"limit": 6}).json()["done"] is False
    assert api.http.get(job).json()["done"]
