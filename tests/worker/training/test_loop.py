"""A run as facts: what is told, in which order, and with which numbers."""

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from core.learning_rate import learning_rate
from tests.worker.training.tiny import GPT2, LLAMA, assignment, of, prepared, ragged_rows, run, texts, write_rows
from worker.training import pulse
from worker.training.errors import Diverged
from worker.training.facts import Alive, Batch, Checkpoint, Epoch, Finished, Planned, Preparing, Sample, Stopped, Warned
from worker.training.loop import train
from worker.training.preparation import prepare


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest) -> None:
    """On two cores it is lanes that compute, where a batch can be shared."""
    torch.set_num_threads(request.param)


def poisoned_steps(monkeypatch: pytest.MonkeyPatch, steps: set[int], *, batch_size: int) -> None:
    """Let the gradients of these updates, of one batch each, hold a NaN."""
    forward, seen = torch.nn.Embedding.forward, list[int]()

    def embed(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        hidden = forward(self, ids)
        if self.training and self.num_embeddings != 128:  # not the positions, which are not looked up row by row
            seen.append(len(ids))
            if -(-sum(seen) // batch_size) in steps:
                return hidden * float("nan")
        return hidden

    monkeypatch.setattr(torch.nn.Embedding, "forward", embed)


@pytest.mark.usefixtures("cores")
def test_the_facts_of_a_run_in_order(tmp_path: Path) -> None:
    job = assignment(
        tmp_path,
        texts(11),
        validation={"fraction": 0.1},
        training={"epochs": 2, "batch_size": 3, "gradient_accumulation_steps": 3},
        samples={"prompts": ["the import", ""], "max_new_tokens": 4},
    )
    facts = run(job)
    kinds = [type(fact) for fact in facts if not isinstance(fact, Preparing | Alive)]
    assert kinds == [Planned, *([Batch] * 4 + [Epoch, Sample, Sample, Checkpoint]) * 2, Finished]

    [plan] = of(facts, Planned)
    assert (plan.rows, plan.validation_rows, plan.vocab_size) == (10, 1, 257)
    assert (plan.batches_per_epoch, plan.steps) == (4, 4)
    batches = of(facts, Batch)
    assert [(b.epoch, b.batch, b.step) for b in batches] == [
        (1, 1, 1), (1, 2, 1), (1, 3, 1), (1, 4, 2), (2, 5, 3), (2, 6, 3), (2, 7, 3), (2, 8, 4),
    ]  # fmt: skip
    assert [b.grad_norm is not None and b.tokens_per_second is not None for b in batches] == [
        False, False, True, True, False, False, True, True,
    ]  # fmt: skip
    assert [(e.epoch, e.step) for e in of(facts, Epoch)] == [(1, 2), (2, 4)]
    assert facts[-1] == Finished(step=4)


def test_epoch_numbers_are_over_all_its_tokens(tmp_path: Path) -> None:
    facts = run(assignment(tmp_path, ragged_rows(10), training={"epochs": 2, "batch_size": 3}))
    [plan], epochs = of(facts, Planned), of(facts, Epoch)
    assert len(epochs) == 2
    for epoch in epochs:
        batches = [b for b in of(facts, Batch) if b.epoch == epoch.epoch]
        tokens = sum(b.tokens for b in batches)
        assert tokens == plan.tokens_per_epoch == sum(len(row) - 1 for row in ragged_rows(10))
        assert epoch.loss == pytest.approx(sum(b.loss * b.tokens for b in batches) / tokens)
        assert epoch.accuracy == pytest.approx(sum(b.accuracy * b.tokens for b in batches) / tokens)
        assert epoch.validation_loss is None
        assert epoch.perplexity == pytest.approx(math.exp(epoch.loss))


def test_validation_is_on_its_own_rows_and_over_all_their_tokens(tmp_path: Path) -> None:
    job = assignment(tmp_path, ragged_rows(10), validation={"dataset": "other"}, training={"epochs": 1})
    job = job.model_copy(update={"validation_dataset": write_rows(tmp_path / "v.jsonl", ragged_rows(5, seed=9))})
    facts = run(job)
    [epoch], [checkpoint], [plan] = of(facts, Epoch), of(facts, Checkpoint), of(facts, Planned)
    assert (plan.rows, plan.validation_rows) == (10, 5)

    resumed = prepared(prepare(job.model_copy(update={"base_model": None, "resume_from": checkpoint.path})))
    model = resumed.learner.model.train(mode=False)
    losses = [(model(torch.tensor([row]), labels=torch.tensor([row])).loss.item(), len(row) - 1)
              for row in ragged_rows(5, seed=9)]  # fmt: skip
    expected = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
    assert epoch.validation_loss == checkpoint.validation_loss == pytest.approx(expected, rel=1e-5)
    assert epoch.perplexity == pytest.approx(math.exp(expected), rel=1e-5)


def test_the_learning_rate_told_is_the_one_of_the_schedule(tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 2, "warmup_ratio": 0.3, "lr_scheduler": "cosine", "learning_rate": 0.01}
    facts = run(assignment(tmp_path, ragged_rows(10), training=training))
    expected = [learning_rate(i, total=10, warmup=3, scheduler="cosine", base=0.01) for i in range(10)]
    assert [b.learning_rate for b in of(facts, Batch)] == expected


def test_log_every_tells_every_nth_step_and_the_last(tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 1, "gradient_accumulation_steps": 2, "log_every": 3}
    facts = run(assignment(tmp_path, ragged_rows(14), training=training))
    assert [b.step for b in of(facts, Batch)] == [3, 3, 6, 6, 7, 7]
    [epoch], [plan] = of(facts, Epoch), of(facts, Planned)
    assert epoch.loss is not None
    assert plan.tokens_per_epoch > sum(b.tokens for b in of(facts, Batch))


def test_a_run_with_little_to_tell_shows_that_it_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.0)
    training = {"epochs": 1, "batch_size": 4, "log_every": 1000}
    facts = run(assignment(tmp_path, ragged_rows(24), training=training, validation={"fraction": 0.5}))
    # Three updates, of which the last is told, then an evaluation of three batches.
    assert [(a.epoch, a.step) for a in of(facts, Alive)] == [(1, 1), (1, 2), (1, 3), (1, 3), (1, 3)]
    assert [b.step for b in of(facts, Batch)] == [3]


@pytest.mark.parametrize(
    ("checkpoints", "steps"),
    [
        ({}, [4, 8, 12]),
        ({"every_epochs": 2}, [8, 12]),
        ({"every_epochs": 5, "every_steps": 5}, [5, 10, 12]),
        ({"every_steps": 2}, [2, 4, 6, 8, 10, 12]),
    ],
)
def test_checkpoints_fall_where_asked_and_on_the_last_step(
    tmp_path: Path, checkpoints: dict[str, Any], steps: list[int]
) -> None:
    job = assignment(tmp_path, ragged_rows(8), checkpoints=checkpoints, training={"epochs": 3, "batch_size": 2})
    facts = run(job)
    told = of(facts, Checkpoint)
    assert [c.step for c in told] == steps
    assert [c.path for c in told] == sorted((tmp_path / "out").iterdir())
    assert [c.epoch for c in told] == [-(-step // 4) for step in steps]


def test_a_stop_saves_and_says_so(tmp_path: Path) -> None:
    facts = run(assignment(tmp_path, ragged_rows(8), training={"epochs": 3, "batch_size": 2}), stop_after=3)
    assert [type(fact) for fact in facts[-2:]] == [Checkpoint, Stopped]
    assert facts[-1] == Stopped(step=3)
    assert facts[-2].step == 3


def test_a_stop_before_the_first_update_is_obeyed(tmp_path: Path) -> None:
    facts = list(train(assignment(tmp_path, ragged_rows(8)), lambda: True))
    assert facts == [Stopped(step=0)]


@pytest.mark.usefixtures("cores")
def test_a_window_that_is_not_finite_is_skipped_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned_steps(monkeypatch, {2}, batch_size=2)
    facts = run(assignment(tmp_path, ragged_rows(8), training={"epochs": 1, "batch_size": 2}))
    assert [w.code for w in of(facts, Warned)] == ["window_skipped_non_finite"]
    batches, [epoch] = of(facts, Batch), of(facts, Epoch)
    assert [b.loss is None for b in batches] == [False, True, False, False]
    assert (batches[1].accuracy, batches[1].grad_norm) == (None, None)
    assert epoch.loss is not None
    assert math.isfinite(epoch.loss)
    assert "NaN" not in "".join(fact.line() for fact in facts)


@pytest.mark.usefixtures("cores")
def test_five_in_a_row_have_diverged_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned_steps(monkeypatch, {1, 2, 3, 4, 6, 7, 8, 9, 10}, batch_size=2)
    facts: list[Any] = []
    job = assignment(tmp_path, ragged_rows(20), checkpoints={"every_steps": 5}, training={"batch_size": 2})
    with pytest.raises(Diverged, match="up to step 10"):
        facts.extend(iter_into(facts, train(job, lambda: False)))
    assert [c.step for c in of(facts, Checkpoint)] == [5]
    assert len(of(facts, Warned)) == 9


def iter_into(facts: list[Any], generator: Any) -> list[Any]:
    for fact in generator:
        facts.append(fact)
    return []


def test_a_short_run_without_one_finite_window_has_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned_steps(monkeypatch, {1, 2, 3}, batch_size=1)
    with pytest.raises(Diverged):
        run(assignment(tmp_path, ragged_rows(3), training={"epochs": 1, "batch_size": 1}))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("cores")
def test_running_out_of_memory_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = torch.nn.Embedding.forward

    def embed(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        in_lane = threading.current_thread() is not threading.main_thread()
        if self.num_embeddings != 128 and (in_lane or len(ids) > 4):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", embed)
    rows = [[i % 50] * 10 for i in range(16)]
    facts = run(assignment(tmp_path, rows, training={"epochs": 1, "batch_size": 8}))
    assert [w.code for w in of(facts, Warned)] == ["batch_split_out_of_memory"]
    assert [b.tokens for b in of(facts, Batch)] == [72, 72]


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_small_model_learns_what_it_is_shown(tmp_path: Path, config: dict[str, Any]) -> None:
    job = assignment(
        tmp_path,
        ["abcdefgh" * 4] * 16,
        model={"config": config},
        training={"epochs": 40, "batch_size": 8, "learning_rate": 0.01},
        samples={"prompts": ["abcdefgh"], "max_new_tokens": 8, "temperature": 0.01},
        checkpoints={"every_epochs": 40},
    )
    facts = run(job)
    epochs = of(facts, Epoch)
    assert epochs[0].loss > 5
    assert epochs[-1].loss < 0.3
    assert epochs[-1].accuracy > 0.95
    assert of(facts, Sample)[-1].text == "abcdefgh"
