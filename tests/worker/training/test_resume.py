"""A resumed run goes on bit for bit: promise 7."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import DataError
from core.tokens.sequences import Sequences
from tests.worker.training.tiny import (
    GPT2,
    LLAMA,
    assignment,
    fingerprint,
    last_checkpoint,
    of,
    ragged_rows,
    run,
    texts,
)
from worker.training.assignment import Assignment
from worker.training.errors import Diverged
from worker.training.facts import Batch, Checkpoint, Epoch, Finished, Sample, Stopped, Warned
from worker.training.token_loss import TokenLoss

# Dropout, accumulation with a trailing window (4 batches, 3 a window), validation and samples: 2 steps an epoch.
SPEC: dict[str, Any] = {
    "model": {"config": GPT2},
    "validation": {"fraction": 0.2},
    "training": {
        "epochs": 3, "batch_size": 4, "gradient_accumulation_steps": 3, "learning_rate": 0.01, "warmup_steps": 2,
        "lr_scheduler": "cosine",
    },
    "samples": {"prompts": ["the import"], "max_new_tokens": 5},
    "checkpoints": {"every_epochs": 1, "every_steps": 1},
}  # fmt: skip


@pytest.fixture(autouse=True, params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest) -> None:
    """On two cores it is lanes that compute, where a batch can be shared."""
    torch.set_num_threads(request.param)


def told(facts: list[Any]) -> list[tuple[Any, ...]]:
    """What must be the same in both runs: every number to the last bit; not the times."""
    batches = [(b.batch, b.step, b.loss, b.accuracy, b.learning_rate, b.grad_norm) for b in of(facts, Batch)]
    epochs = [(e.epoch, e.loss, e.accuracy, e.validation_loss, e.validation_accuracy) for e in of(facts, Epoch)]
    return batches + epochs + [(s.epoch, s.text) for s in of(facts, Sample)]


def resumed(job: Assignment, checkpoint: Path, folder: Path) -> Assignment:
    return job.model_copy(update={"resume_from": checkpoint, "output_dir": folder})


@pytest.mark.parametrize("rows", [texts(20), ragged_rows(20)], ids=["text", "token ids"])
def test_resumed_from_any_checkpoint_the_run_ends_in_the_same_bits(tmp_path: Path, rows: list[Any]) -> None:
    spec = SPEC if isinstance(rows[0], str) else SPEC | {"samples": {}}
    job = assignment(tmp_path, rows, **spec)
    facts = run(job)
    checkpoints = of(facts, Checkpoint)
    assert [c.step for c in checkpoints] == [1, 2, 3, 4, 5, 6]
    for checkpoint in checkpoints[:-1]:
        later = run(resumed(job, checkpoint.path, tmp_path / f"from-{checkpoint.step}"))
        assert fingerprint(last_checkpoint(later)) == fingerprint(checkpoints[-1].path), checkpoint.step
        rest = facts[facts.index(checkpoint) + 1 :]
        assert told(later) == told(rest), "nothing is told twice, nothing is left out, nothing differs"


def test_saved_on_order_the_run_goes_on_and_resumes_from_there_exactly(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(20), **SPEC | {"checkpoints": {"every_epochs": 3}})
    whole = run(job)
    # In mid-epoch, at an epoch's end where no checkpoint is due, and where one is.
    saved = run(job.model_copy(update={"output_dir": tmp_path / "saved"}), save_after={1, 4, 6})
    checkpoints = of(saved, Checkpoint)
    assert [(c.step, c.ordered) for c in checkpoints] == [(1, True), (4, True), (6, True)]
    assert told(saved) == told(whole)
    assert fingerprint(last_checkpoint(saved)) == fingerprint(last_checkpoint(whole))
    for checkpoint in checkpoints[:-1]:
        later = run(resumed(job, checkpoint.path, tmp_path / f"from-{checkpoint.step}"))
        assert told(later) == told(saved[saved.index(checkpoint) + 1 :])
        assert fingerprint(last_checkpoint(later)) == fingerprint(last_checkpoint(whole))


def test_stopped_anywhere_and_resumed_again_and_again(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(20), **SPEC | {"checkpoints": {"every_epochs": 3}})
    whole = run(job)
    parts, checkpoint = run(job.model_copy(update={"output_dir": tmp_path / "part"}), stop_after=1), None
    while isinstance(parts[-1], Stopped):
        checkpoint = last_checkpoint(parts)
        parts += run(resumed(job, checkpoint, tmp_path / "part"), stop_after=parts[-1].step + 1)
    # The last epoch was left open when the stop came, and closed by the run that went on from there.
    assert [c.step for c in of(parts, Checkpoint)] == [1, 2, 3, 4, 5, 6, 6]
    assert sorted(told(parts), key=str) == sorted(told(whole), key=str)
    assert fingerprint(last_checkpoint(parts)) == fingerprint(last_checkpoint(whole))


def test_another_seed_makes_another_run(tmp_path: Path) -> None:
    runs = [
        run(assignment(tmp_path / str(seed), ragged_rows(20), training={"epochs": 1, "batch_size": 4, "seed": seed}))
        for seed in (0, 1, 0)
    ]
    first, other, again = (fingerprint(last_checkpoint(facts)) for facts in runs)
    assert first == again != other
    tokens = [[batch.tokens for batch in of(facts, Batch)] for facts in runs]
    assert tokens[0] == tokens[2] != tokens[1], "and another order of the rows"


def test_llama_with_a_learnt_tokenizer_resumes_exactly(tmp_path: Path) -> None:
    spec = SPEC | {"model": {"config": LLAMA}, "tokenizer": {"train": {"vocab_size": 300}}}
    job = assignment(tmp_path, texts(20), **spec)
    facts = run(job)
    third = of(facts, Checkpoint)[2]
    later = run(resumed(job, third.path, tmp_path / "later"))
    assert fingerprint(last_checkpoint(later)) == fingerprint(last_checkpoint(facts))


@pytest.mark.parametrize(
    "training", [{"precision": "bf16"}, {"precision": "fp16"}, {"gradient_checkpointing": True}], ids=str
)
def test_whatever_it_computes_with_the_run_resumes_exactly(tmp_path: Path, training: dict[str, Any]) -> None:
    job = assignment(tmp_path, texts(20), **SPEC | {"training": SPEC["training"] | training})
    facts = run(job)
    checkpoints = of(facts, Checkpoint)
    for checkpoint in checkpoints[2:4]:  # in the midst of an epoch, and at the end of one
        later = run(resumed(job, checkpoint.path, tmp_path / f"from-{checkpoint.step}"))
        assert fingerprint(last_checkpoint(later)) == fingerprint(checkpoints[-1].path)
        assert told(later) == told(facts[facts.index(checkpoint) + 1 :])


def test_what_the_search_for_memory_learnt_is_kept(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(20), **SPEC)
    stopped = last_checkpoint(run(job, stop_after=1))
    state = stopped / "state" / "run_state.json"
    state.write_text(state.read_text().replace('"fitting_positions": null', '"fitting_positions": 99'))
    later = last_checkpoint(run(resumed(job, stopped, tmp_path / "later"), stop_after=2))
    assert '"fitting_positions": 99' in (later / "state" / "run_state.json").read_text()


def test_what_fits_is_remembered_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_loss = TokenLoss.__call__

    def full(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        # Two rows fit, but not beside those of another lane; evaluation needs less.
        in_lane = threading.current_thread() is not threading.main_thread()
        if (in_lane or len(rows) > 2) and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return token_loss(self, data, rows)

    monkeypatch.setattr(TokenLoss, "__call__", full)
    job = assignment(tmp_path, texts(20), **SPEC)
    facts = run(job)
    checkpoints, splits = of(facts, Checkpoint), of(facts, Warned)
    assert facts.index(splits[-1]) < facts.index(checkpoints[0]), "later ones would be as well after a resume"
    for checkpoint in checkpoints[:-1]:
        later = run(resumed(job, checkpoint.path, tmp_path / f"from-{checkpoint.step}"))
        assert not of(later, Warned)
        assert fingerprint(last_checkpoint(later)) == fingerprint(checkpoints[-1].path), checkpoint.step
        assert told(later) == told(facts[facts.index(checkpoint) + 1 :])


def test_discarded_windows_are_counted_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_loss, seen = TokenLoss.__call__, list[int]()

    def poisoned(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        seen.extend(rows)
        loss, correct = token_loss(self, data, rows)
        # From the second batch of two rows on.
        return (loss if len(seen) <= 2 else loss * float("nan")), correct

    monkeypatch.setattr(TokenLoss, "__call__", poisoned)
    job = assignment(tmp_path, ragged_rows(20), training={"batch_size": 2})
    stopped = run(job, stop_after=4)
    assert len(of(stopped, Warned)) == 3
    # With those of steps 2, 3 and 4 it makes five in a row.
    with pytest.raises(Diverged, match="5 windows in a row, up to step 6"):
        run(resumed(job, last_checkpoint(stopped), tmp_path / "later"))


def test_a_finished_run_is_finished_at_once(tmp_path: Path) -> None:
    job = assignment(tmp_path, ragged_rows(4), training={"epochs": 1})
    checkpoint = last_checkpoint(run(job))
    assert run(resumed(job, checkpoint, tmp_path / "later")) == [Finished(step=1)]


@pytest.mark.parametrize("change", ["rows", "learning_rate"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: str) -> None:
    training = {"batch_size": 2, "epochs": 2}
    checkpoint = last_checkpoint(run(assignment(tmp_path, ragged_rows(8), training=training), stop_after=1))
    if change == "rows":
        other = assignment(tmp_path / "other", ragged_rows(8, seed=5), training=training)
    else:
        other = assignment(tmp_path / "other", ragged_rows(8), training=training | {"learning_rate": 0.5})
    with pytest.raises(DataError, match="of another run"):
        run(resumed(other, checkpoint, tmp_path / "later"))
