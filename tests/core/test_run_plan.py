"""A plan's own sums: the learning rate at its milestones, what checkpoints take, and what is warned of."""

from typing import Any

import pytest

from core.job_spec import JobSpec
from core.run_plan import Counts, counted, disk_of, milestones


def _spec(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"dataset": "ds"} | fields)


def _rates(steps: int, **training: Any) -> dict[str, tuple[int, float]]:
    found = milestones(_spec(training={"learning_rate": 1.0} | training).training, steps)
    return {rate.at: (rate.step, pytest.approx(rate.learning_rate)) for rate in found}


def test_the_milestones_are_those_of_the_schedule() -> None:
    assert _rates(10, warmup_steps=2) == {
        "first update": (1, 0.0),
        "end of warmup": (3, 1.0),
        "middle": (5, 0.75),
        "last update": (10, 0.125),
    }
    assert _rates(10, lr_scheduler="constant") == {
        "first update": (1, 1.0),
        "middle": (5, 1.0),
        "last update": (10, 1.0),
    }
    assert "end of warmup" not in _rates(4, warmup_steps=4)
    assert {step for step, _ in _rates(1).values()} == {1}


@pytest.mark.parametrize(
    ("epochs", "checkpoints", "kept", "models", "states"),
    [
        (1, {}, 1, 1, 1),
        (3, {}, 3, 3, 3),
        (20, {}, 6, 7, 3),  # five, the best one, and the next under way
        (20, {"keep": 1}, 2, 3, 3),
        (20, {"every_epochs": 20}, 1, 1, 1),
        (2, {"every_epochs": 2, "every_steps": 3}, 6, 7, 3),
    ],
)
def test_checkpoints_take_what_retention_keeps(
    epochs: int, checkpoints: dict[str, int], kept: int, models: int, states: int
) -> None:
    spec = _spec(training={"epochs": epochs}, checkpoints=checkpoints)
    disk = disk_of(spec, steps=20 * epochs, saved=10, trained=10)
    assert (disk.model, disk.state, disk.checkpoints) == (40, 80, kept)
    assert disk.total == 40 * models + 80 * states


def _counts(**fields: Any) -> Counts:
    defaults: dict[str, Any] = {
        **{"exact": True, "vocab_size": 100, "rows": 1000, "validation_rows": 50, "skipped_rows": 0},
        **{"sequences": 1000, "dropped_sequences": 0, "silent_sequences": 0, "validation_sequences": 50},
        **{"validation_tokens": 5000, "batches_per_epoch": 63, "tokens_per_epoch": 100_000, "padding": 0.0},
        "largest_batch": (16, 100),
    }
    return Counts(**defaults | fields)


@pytest.mark.parametrize(
    ("counts", "spec", "said"),
    [
        ({}, {}, []),
        ({}, {"training": {"warmup_steps": 189}}, ["as long as the run (189 steps)"]),
        ({}, {"training": {"warmup_steps": 188}}, []),
        ({"vocab_size": 10_001}, {}, ["vocabulary of 10,001 tokens is large for data of 100,000"]),
        ({"validation_rows": 9}, {}, ["Rows held out for validation: 9"]),
        ({"validation_tokens": 999}, {}, ["Tokens to validate on: 999"]),
        ({"validation_rows": 0, "validation_tokens": 0}, {}, ["a single row"]),
        ({"validation_rows": 0, "validation_tokens": 0}, {"validation": None}, []),
        ({"tokens_per_epoch": 9_999}, {}, ["model of 1,000,000 weights is large for data of 9,999"]),
    ],
)
def test_what_will_surprise_is_said(counts: dict[str, Any], spec: dict[str, Any], said: list[str]) -> None:
    plan = counted(_spec(**spec), _counts(**counts), parameters=1_000_000, memory=None, disk=None)
    assert len(plan.warnings) == len(said), plan.warnings
    for warning, words in zip(plan.warnings, said, strict=True):
        assert words in warning


def test_a_plan_holds_the_counts_and_its_updates() -> None:
    training = {"epochs": 3, "gradient_accumulation_steps": 2}
    plan = counted(_spec(training=training), _counts(), parameters=1, memory=None, disk=None)
    assert (plan.steps, plan.batches_per_epoch, plan.tokens_per_epoch) == (96, 63, 100_000)
    assert plan.learning_rates[-1].step == 96
