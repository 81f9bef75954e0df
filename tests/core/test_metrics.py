"""Curves: each batch once, as it was last computed."""

from typing import Any

import pytest

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
        points = metrics.batches(session, claim.job_id, 1, 100)
        assert [(p.batch, p.loss) for p in points] == [(1, 11), (2, 12), (3, 13), (4, 24), (5, 35), (6, 26), (7, 17)]
        part = metrics.batches(session, claim.job_id, 4, 5)
        assert [(p.batch, p.loss) for p in part] == [(4, 24), (5, 35)]
        assert metrics.batches(session, "job_none", 1, 100) == []
        assert (metrics.last_batch(session, claim.job_id), metrics.last_batch(session, "job_none")) == (7, 0)


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


def test_a_long_log_is_plotted_from_blocks_that_follow_every_resume(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plotted(points: int) -> dict[str, Any]:
        with house.work.reading() as session:
            return metrics.curves(session, claim.job_id, points)

    claim = house.running()
    _write(house, claim, [_batch(n, 10.0 + n, accuracy=None) for n in range(1, 251)])
    claim = _again(house, claim)
    _write(house, claim, [_batch(n, None if n % 2 else 20.0 + n) for n in range(40, 130)])
    claim = _again(house, claim)
    _write(house, claim, [_batch(n, 30.0 + n, grad_norm=n / 2) for n in range(95, 111)])
    by_batch, by_one = plotted(250), plotted(1)
    monkeypatch.setattr(metrics, "WITHOUT_BLOCKS", 0)
    assert plotted(1) == by_one
    monkeypatch.undo()
    by_three = plotted(3)  # of 84 batches each
    monkeypatch.setattr(metrics, "WITHOUT_BLOCKS", 0)
    blocks = plotted(3)
    assert blocks["batch"] == [100, 200, 250] != by_three["batch"]
    for name in ("loss_min", "loss_max"):
        worst = min if name == "loss_min" else max
        parts = [by_batch[name][:100], by_batch[name][100:200], by_batch[name][200:]]
        assert blocks[name] == [worst(value for value in part if value is not None) for part in parts]
    for name in ("loss", "accuracy", "learning_rate", "grad_norm"):
        parts = [by_batch[name][:100], by_batch[name][100:200], by_batch[name][200:]]
        known = [[value for value in part if value is not None] for part in parts]
        assert blocks[name] == [pytest.approx(sum(part) / len(part)) if part else None for part in known]
