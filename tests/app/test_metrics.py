"""Curves over HTTP."""

import csv
import io
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.routes import metrics
from core import events
from tests.app.served import ON_SQLITE, Api


def test_curves_come_whole_in_buckets_and_as_csv(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = api.worker()
    worker.tell(25)
    worker.event(
        "epoch", epoch=1, step=13, loss=1.0, accuracy=0.1, validation_loss=2.0, validation_accuracy=0.3, seconds=1.0
    )
    base = f"/jobs/{worker.job_id}/metrics"
    curves = api.http.get(base).json()
    assert curves["batch"] == list(range(1, 26))
    assert curves["loss"][:2] == [1.0, 0.5]
    assert curves["validation"] == [{"epoch": 1, "step": 13, "loss": 2.0, "accuracy": 0.3}]
    few = api.http.get(base, params={"points": 10}).json()
    assert all(len(few[name]) == 9 for name in few if name not in ("validation", "after"))
    assert (few["loss_min"][0], few["loss_max"][0]) == (1 / 3, 1.0)

    for page in (5000, 10, 25):
        monkeypatch.setattr(metrics, "_PAGE_BATCHES", page)
        answer = api.http.get(base, params={"format": "csv"})
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [int(row["batch"]) for row in rows] == list(range(1, 26))
        assert [float(row["loss"]) for row in rows] == curves["loss"]
        assert rows[0]["grad_norm"] == ""


def test_a_batch_that_was_run_again_counts_once(api: Api) -> None:
    worker = api.worker()
    worker.tell(10)
    worker.requeue_and_claim()
    worker.batch = 5
    worker.tell(3)
    base = f"/jobs/{worker.job_id}/metrics"
    assert api.http.get(base).json()["batch"] == list(range(1, 11))
    assert len(api.http.get(base, params={"format": "csv"}).text.splitlines()) == 11


def test_who_watches_from_where_the_curves_end_misses_nothing(api: Api) -> None:
    worker = api.worker()
    worker.tell(4)
    curves = api.http.get(f"/jobs/{worker.job_id}/metrics").json()
    worker.tell(3)
    events = api.http.get(f"/jobs/{worker.job_id}/events", params={"after": curves["after"]}).json()["events"]
    assert curves["batch"] + [event["data"]["batch"] for event in events] == list(range(1, 8))
    queued = api.job()["id"]
    assert api.http.get(f"/jobs/{queued}/metrics").json()["after"] == "0-1"


@ON_SQLITE
def test_tensorboard_reads_the_event_file(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_PAGE_BATCHES", 3)  # a step's two batches may lie on two pages
    worker = api.worker()
    worker.tell(10)
    worker.requeue_and_claim()
    worker.batch = 6
    worker.tell(1)  # again, under a higher fence: it comes once
    worker.event("epoch", epoch=1, step=5, validation_loss=2.0, validation_accuracy=0.25)
    answer = api.http.get(f"/jobs/{worker.job_id}/metrics", params={"format": "tensorboard"})
    filename = answer.headers["content-disposition"].split('"')[1]
    (tmp_path / filename).write_bytes(answer.content)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    losses = [(event.step, event.value) for event in read.Scalars("train/loss")]
    assert losses == [(step, pytest.approx((1 / (2 * step - 1) + 1 / (2 * step)) / 2)) for step in range(1, 6)]
    assert [event.value for event in read.Scalars("train/learning_rate")] == [pytest.approx(1e-3)] * 5
    assert [(event.step, event.value) for event in read.Scalars("validation/loss")] == [(5, 2.0)]
    with api.work.reading() as session:
        newest = events.newest(session, worker.job_id)
    assert newest is not None
    assert read.Scalars("validation/loss")[0].wall_time == pytest.approx(newest.at.timestamp())
