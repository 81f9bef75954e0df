"""Curves: each batch once, as it was last computed."""

from typing import Any

from core import jobs, metrics
from core.events import Cursor, Event
from core.jobs import Claim
from core.models import utc_now
from tests.house import House


def _batch(number: int, loss: float | None, **fields: Any) -> tuple[str, dict[str, Any]]:
    data = {
        "epoch": 1,
        "batch": number,
        "step": number,
        "loss": loss,
        "accuracy": 0.5,
        "learning_rate": 0.25,
        "tokens": 9,
    }
    return "batch", data | fields


def _write(house: House, claim: Claim, made: list[tuple[str, dict[str, Any]]], start: int = 2) -> None:
    events = [Event(Cursor(claim.fence, seq), kind, utc_now(), data) for seq, (kind, data) in enumerate(made, start)]
    house.do(jobs.record, claim, events)


def _again(house: House, claim: Claim) -> Claim:
    house.do(jobs.stop, claim, "drained")
    again = house.claim()
    assert again
    return again


def test_of_a_batch_that_ran_again_the_last_run_counts(house: House) -> None:
    claim = house.running()
    _write(house, claim, [_batch(n, 10.0 + n) for n in range(1, 8)])
    claim = _again(house, claim)
    _write(house, claim, [("warning", {}), *(_batch(n, 20.0 + n) for n in range(4, 7))])
    claim = _again(house, claim)
    _write(house, claim, [_batch(n, 30.0 + n) for n in range(5, 6)])
    with house.work.reading() as session:
        points = list(metrics.batches(session, claim.job_id))
        assert [(p.batch, p.loss) for p in points] == [(1, 11), (2, 12), (3, 13), (4, 24), (5, 35), (6, 26), (7, 17)]
        part = metrics.batches(session, claim.job_id, after=3, limit=2)
        assert [(p.batch, p.loss) for p in part] == [(4, 24), (5, 35)]
        assert list(metrics.batches(session, "job_none")) == []


def test_buckets_are_means_with_the_span_of_the_loss(house: House) -> None:
    claim = house.running()
    losses = [4.0, 2.0, None, 8.0, 1.0, None, None]
    made = [_batch(n, loss, epoch=1 + n // 4) for n, loss in enumerate(losses, 1)]
    made[1][1].update(grad_norm=3.0, tokens_per_second=1.0)
    made[3][1].update(grad_norm=None, tokens_per_second=1.0)
    _write(house, claim, made)
    with house.work.reading() as session:
        curves = metrics.curves(session, claim.job_id, points=4)
        assert curves["batch"] == curves["step"] == [2, 4, 6, 7]
        assert curves["epoch"] == [1, 2, 2, 2]
        assert curves["loss"] == [3.0, 8.0, 1.0, None]
        assert curves["loss_min"] == [2.0, 8.0, 1.0, None]
        assert curves["loss_max"] == [4.0, 8.0, 1.0, None]
        assert curves["grad_norm"] == [3.0, None, None, None]
        assert curves["accuracy"] == [0.5] * 4
        assert curves["learning_rate"] == [0.25] * 4
        for points in range(1, 12):
            curves = metrics.curves(session, claim.job_id, points=points)
            lengths = {len(column) for name, column in curves.items() if name != "validation"}
            assert len(lengths) == 1
            assert 1 <= lengths.pop() <= points
            assert curves["batch"][-1] == 7
        assert metrics.curves(session, claim.job_id, points=7)["loss"] == losses
        assert metrics.curves(session, "job_none", points=5)["loss"] == []


def test_the_validation_curve_has_each_epoch_once(house: House) -> None:
    def epoch(number: int, loss: float | None) -> tuple[str, dict[str, Any]]:
        numbers = {"validation_loss": loss, "validation_accuracy": 0.5}
        return "epoch", {"epoch": number, "step": number * 10, "loss": 1.0} | numbers

    claim = house.running()
    _write(house, claim, [epoch(1, 3.0), epoch(2, 2.0), epoch(3, None)])
    claim = _again(house, claim)
    _write(house, claim, [epoch(2, 2.5)])
    with house.work.reading() as session:
        assert metrics.curves(session, claim.job_id, points=1)["validation"] == [
            {"epoch": 1, "step": 10, "loss": 3.0, "accuracy": 0.5},
            {"epoch": 2, "step": 20, "loss": 2.5, "accuracy": 0.5},
        ]
