"""Jobs over HTTP: what a client sends, sees, lists and cancels."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from core import jobs
from core.jobs import JobError
from tests.app.served import Api


def test_a_job_is_answered_as_the_contract_prints_it(api: Api) -> None:
    dataset = api.dataset()
    answer = api.http.post("/jobs", json={"dataset": dataset, "name": "docs-gpt", "tags": {"team": "docs"}})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert list(job) == [
        "id", "name", "status", "stop_requested", "save_requested", "attempt", "failures", "created_at", "started_at",
        "finished_at", "queue_position", "spec", "plan", "progress", "latest", "error", "links",
    ]  # fmt: skip
    assert (job["status"], job["queue_position"], job["attempt"], job["failures"]) == ("queued", 1, 0, 0)
    assert job["spec"]["training"]["batch_size"] == 16
    assert job["plan"]["rows"] == 1
    assert set(job["links"]) == {"events", "stream", "metrics", "checkpoints"}
    for name in ("events", "metrics", "checkpoints"):
        assert api.http.get(job["links"][name]).status_code == 200
    assert api.http.get(answer.headers["location"]).json() == job


def test_a_dry_run_gives_the_plan_alone_and_stores_nothing(api: Api) -> None:
    answer = api.http.post("/jobs?dry_run=true", json={"dataset": api.dataset()}, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 200
    assert answer.json()["parameters"] > 0
    assert "id" not in answer.json()
    assert "location" not in answer.headers
    assert api.http.get("/jobs").json()["data"] == []


def test_one_idempotency_key_is_one_job_however_often_at_once(api: Api) -> None:
    body = {"dataset": api.dataset()}

    def submit(_: int) -> tuple[int, str]:
        answer = api.http.post("/jobs", json=body, headers={"Idempotency-Key": "the-key"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(submit, range(20)))
    assert len({id_ for _, id_ in answers}) == 1
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len(api.http.get("/jobs").json()["data"]) == 1


def test_an_idempotency_key_belongs_to_one_body_and_one_owner(api: Api) -> None:
    body, key = {"dataset": api.dataset()}, {"Idempotency-Key": "the-key"}
    first = api.http.post("/jobs", json=body, headers=key)
    again = api.http.post("/jobs", json=body, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert again.headers["location"] == first.headers["location"]
    other = api.http.post("/jobs", json=body | {"name": "other"}, headers=key)
    assert other.status_code == 422
    assert first.json()["id"] in other.json()["detail"]
    foreign = api.other_key("someone else")
    theirs = api.http.post("/datasets?filename=a.txt", content="text", headers=foreign).json()["id"]
    answer = api.http.post("/jobs", json={"dataset": theirs}, headers=foreign | key)
    assert answer.status_code == 201


def test_the_queue_is_ordered_by_priority_and_then_by_age(api: Api) -> None:
    made = [api.job(priority=priority)["id"] for priority in (0, 5, 0, -1)]
    places = [api.http.get(f"/jobs/{id_}").json()["queue_position"] for id_ in made]
    assert places == [2, 1, 3, 4]


def test_jobs_are_listed_by_state_and_tag_in_pages(api: Api) -> None:
    made = [api.job(tags={"team": "docs" if number % 2 else "web"})["id"] for number in range(6)]
    api.http.post(f"/jobs/{made[0]}/cancel")

    def listed(**params: str) -> list[str]:
        ids: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = api.http.get("/jobs", params={"limit": "2", **params, **cursor}).json()
            ids += [job["id"] for job in page["data"]]
            if page["next_cursor"] is None:
                return ids
            cursor = {"cursor": page["next_cursor"]}

    assert listed() == made[::-1]
    assert listed(tag="team:docs") == [made[5], made[3], made[1]]
    assert listed(status="cancelled") == [made[0]]
    assert listed(status="queued", tag="team:web") == [made[4], made[2]]
    assert listed(tag="team:nobody") == []


def test_a_cancel_is_answered_truthfully(api: Api) -> None:
    queued = api.job()["id"]
    answer = api.http.post(f"/jobs/{queued}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.json()["finished_at"] is not None
    answer = api.http.post(f"/jobs/{queued}/cancel")
    assert answer.status_code == 409
    assert "cancelled" in answer.json()["detail"]

    worker = api.worker()
    answer = api.http.post(f"/jobs/{worker.job_id}/cancel")
    assert (answer.json()["status"], answer.json()["stop_requested"]) == ("running", "cancel")
    with worker.work.begin() as session:
        jobs.stop(session, worker.claim, "drained")
    answer = api.http.get(f"/jobs/{worker.job_id}")
    assert (answer.json()["status"], answer.json()["stop_requested"]) == ("cancelled", None)


def test_what_the_worker_writes_is_shown(api: Api) -> None:
    worker = api.worker()
    columns: dict[str, Any] = {
        "progress": {"epoch": 2, "step": 340, "batch": 679, "fraction": 0.53, "tokens_per_second": 3646.0},
        "latest": {"loss": 3.91, "accuracy": None, "learning_rate": 1.6e-4, "something_new": 7},
    }
    with worker.work.begin() as session:
        jobs.record(session, worker.claim, [], **columns)
    job = api.http.get(f"/jobs/{worker.job_id}").json()
    assert (job["status"], job["attempt"], job["queue_position"]) == ("running", 1, None)
    assert job["progress"] == columns["progress"] | {
        "eta_seconds": None,
        "steps_per_second": None,
        "memory_bytes": None,
    }
    assert job["latest"] == columns["latest"] | {"grad_norm": None, "validation_loss": None}
    with worker.work.begin() as session:
        jobs.fail(session, worker.claim, JobError("diverged", "the loss is not finite", "lower the learning rate"))
    job = api.http.get(f"/jobs/{worker.job_id}").json()
    assert job["status"] == "failed"
    assert job["error"] == {
        "code": "diverged",
        "message": "the loss is not finite",
        "hint": "lower the learning rate",
    }
