"""Deleting a dataset: at once out of sight and off the disk, unless a job that has not ended needs it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core import datasets, jobs
from core.models import Dataset
from core.settings import Settings
from tests.app.played_worker import PlayedWorker
from tests.app.served import ON_SQLITE, Api
from tests.house import LOST
from worker import sweeper


def _files(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "store").rglob("*") if path.is_file()]


def _fail(api: Api, job_id: str) -> None:
    worker = PlayedWorker(api.work, job_id)
    with api.work.begin() as session:
        jobs.fail(session, worker.claim, LOST)


def test_a_deleted_dataset_is_gone_and_its_bytes_can_come_again(api: Api, settings: Settings) -> None:
    text = '{"text": "one"}\n{"text": ""}\n'
    dataset = api.dataset(text)
    assert len(_files(settings)) == 2, "the file and its report"
    assert api.http.delete(f"/datasets/{dataset}", headers=api.other_key("else")).status_code == 404
    assert api.http.delete(f"/datasets/{dataset}").status_code == 204
    assert _files(settings) == []
    for method, path in (("GET", ""), ("GET", "/report"), ("DELETE", "")):
        assert api.http.request(method, f"/datasets/{dataset}{path}").status_code == 404
    assert api.http.get("/datasets").json()["data"] == []
    assert api.http.post("/jobs", json={"dataset": dataset}).status_code == 422
    sweeper.sweep(api.work, api.store, settings)
    with api.work.reading() as session:
        assert session.get(Dataset, dataset) is None
    assert api.dataset(text) != dataset


@ON_SQLITE
def test_what_was_uploaded_and_deleted_can_be_uploaded_again(api: Api) -> None:
    what = {"filename": "a.txt", "bytes": 4, "sha256": hashlib.sha256(b"text").hexdigest()}
    made = []
    for _ in range(2):
        answer = api.http.post("/uploads", json=what)
        assert (answer.status_code, answer.json()["offset"]) == (201, 0)
        address = answer.headers["location"]
        api.http.patch(address, content=b"text", headers={"Upload-Offset": "0"})
        made.append(api.http.post(f"{address}/complete").json()["id"])
        assert api.http.delete(f"/datasets/{made[-1]}").status_code == 204
        assert api.http.post(f"{address}/complete").status_code == 404
    assert len(set(made)) == 2


def test_a_dataset_that_a_live_job_needs_stays(api: Api, settings: Settings) -> None:
    dataset, other = api.dataset(), api.dataset('{"text": "three"}\n')
    job = api.http.post("/jobs", json={"dataset": dataset, "validation": {"dataset": other}}).json()["id"]
    for name in (dataset, other):
        refused = api.http.delete(f"/datasets/{name}")
        assert (refused.status_code, job in refused.json()["detail"]) == (409, True)
    assert api.http.post(f"/jobs/{job}/pause").json()["status"] == "paused"
    assert api.http.delete(f"/datasets/{dataset}").status_code == 409, "it would go on after a resume"
    api.http.post(f"/jobs/{job}/resume")
    _fail(api, job)
    assert api.http.delete(f"/datasets/{other}").status_code == 204
    retried = api.http.post(f"/jobs/{job}/retry")
    assert (retried.status_code, other in retried.json()["detail"]) == (409, True)
    sweeper.sweep(api.work, api.store, settings)
    shown = api.http.get(f"/jobs/{job}").json()
    assert shown["spec"]["validation"]["dataset"] == other, "what has ended keeps its record"
    assert api.http.delete(f"/jobs/{job}").status_code == 204
    sweeper.remove_deleted_jobs(api.work, api.store)
    sweeper.sweep(api.work, api.store, settings)
    with api.work.reading() as session:
        assert session.get(Dataset, other) is None
        assert session.get(Dataset, dataset) is not None


def test_a_deletion_and_a_submission_at_once_agree(api: Api) -> None:
    def submit(dataset: str) -> int:
        return api.http.post("/jobs", json={"dataset": dataset}).status_code

    def delete(dataset: str) -> int:
        return api.http.delete(f"/datasets/{dataset}").status_code

    with ThreadPoolExecutor(2) as pool:
        for number in range(12):
            dataset = api.dataset(f'{{"text": "{number}"}}')
            submitted, deleted = pool.submit(submit, dataset), pool.submit(delete, dataset)
            assert (submitted.result(), deleted.result()) in ((201, 409), (422, 204))


@ON_SQLITE
def test_what_a_killed_api_left_of_a_deletion_is_done_by_a_worker(api: Api, settings: Settings) -> None:
    dataset = api.dataset()
    with api.work.reading() as session:
        owner = session.get_one(Dataset, dataset).owner_id
    with api.work.begin() as session:
        datasets.remove(session, owner, dataset)
    assert len(_files(settings)) == 1
    sweeper.sweep(api.work, api.store, settings)
    assert _files(settings) == []
