"""Packed rows give what their documents give one by one, and lose no label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.training.tiny import (
    GPT2,
    LLAMA,
    NO_DROPOUT,
    assignment,
    fingerprint,
    last_checkpoint,
    learner,
    of,
    ragged_rows,
    run,
    sequences,
)
from worker.training.evaluation import evaluate
from worker.training.facts import Batch, Checkpoint, Planned
from worker.training.token_loss import collate
from worker.training.update import MemoryBudget


def everything(data: Any) -> np.ndarray[Any, Any]:
    return np.arange(len(data))


def test_every_label_is_there_once_and_all_rows_but_the_last_are_full() -> None:
    rows = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11], [12, 13, 14]]
    packed = sequences(rows, max_length=5, mode="packed")
    assert packed.lengths.tolist() == [5, 5, 3]
    batch = collate(packed, everything(packed))
    assert batch.inputs.tolist() == [[1, 2, 3, 4], [6, 8, 9, 10], [12, 13, 0, 0]]
    assert batch.targets.tolist() == [2, 3, 4, 5, 7, 9, 10, 11, 13, 14]
    assert batch.places is not None
    assert batch.documents is not None
    assert batch.places.tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 0, 0]]
    assert [len(set(row)) for row in batch.documents.tolist()] == [1, 2, 2]


def test_a_document_over_a_cut_goes_on_from_the_token_it_stopped_at() -> None:
    packed = sequences([list(range(1, 8)), [9, 10]], max_length=4, mode="packed")
    batch = collate(packed, everything(packed))
    assert batch.inputs.tolist() == [[1, 2, 3], [4, 5, 6], [9, 0, 0]]
    assert batch.targets.tolist() == [2, 3, 4, 5, 6, 7, 10]


def test_short_and_silent_rows_are_left_out_and_counted() -> None:
    rows = [[1, 2, 3, 4], [5], [6, 7, 8], [1] * 9]
    labels = [[1, 2, 3, 4], [5], [-100] * 3, [-100] * 8 + [1]]
    packed = sequences(rows, labels, max_length=4, min_length=2, mode="packed")
    # The long row fills two sequences of three inputs, in the first of which no label carries a loss.
    assert packed.dropped == 1
    assert packed.loss_tokens.sum() == 4
    assert (packed.loss_tokens > 0).all()
    batch = collate(packed, everything(packed))
    assert sorted(batch.targets.tolist()) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_any_rows_keep_all_their_labels(seed: int) -> None:
    rows = ragged_rows(50, seed=seed)
    packed = sequences(rows, max_length=7, mode="packed")
    assert sorted(collate(packed, everything(packed)).targets) == sorted(n for row in rows for n in row[1:])
    assert packed.loss_tokens.sum() == sum(len(row) - 1 for row in rows)
    assert (packed.lengths[:-1] == 7).all()


@pytest.mark.parametrize("config", [GPT2 | NO_DROPOUT, LLAMA], ids=["gpt2", "llama"])
def test_no_token_attends_across_a_document_boundary(config: dict[str, Any]) -> None:
    rows = ragged_rows(12, longest=15)
    trained = learner(config)
    packed = sequences(rows, max_length=sum(len(row) - 1 for row in rows) + 1, mode="packed")
    alone = sequences(rows, max_length=128)
    assert len(packed) == 1
    together, hits = trained.token_loss(packed, everything(packed))
    together.backward()
    gradients = [parameter.grad.clone() for parameter in trained.model.parameters()]
    trained.model.zero_grad()
    one_by_one = [trained.token_loss(alone, np.array([row])) for row in range(len(rows))]
    total = torch.stack([loss for loss, _ in one_by_one]).sum()
    total.backward()
    torch.testing.assert_close(together, total, rtol=1e-5, atol=0)
    assert hits.item() == sum(hit.item() for _, hit in one_by_one)
    for packed_, parameter in zip(gradients, trained.model.parameters(), strict=True):
        torch.testing.assert_close(packed_, parameter.grad, rtol=1e-4, atol=1e-5)


def test_evaluation_sees_the_documents_too() -> None:
    rows = ragged_rows(30, longest=15)
    trained = learner()
    losses = []
    for data in (sequences(rows, max_length=500, mode="packed"), sequences(rows, max_length=128)):
        evaluating = evaluate(trained, data, batch_size=4, budget=MemoryBudget())
        while True:
            try:
                next(evaluating)
            except StopIteration as end:
                losses.append(end.value)
                break
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_packed_run_with_dropout_trains_and_resumes_exactly(tmp_path: Path) -> None:
    job = assignment(
        tmp_path,
        ragged_rows(60),
        sequence={"max_length": 16, "mode": "packed"},
        training={"epochs": 4, "batch_size": 4, "learning_rate": 0.02},
        checkpoints={"every_steps": 5, "keep": 100},
    )
    facts = run(job)
    assert of(facts, Planned)[0].padding < 0.02
    losses = [batch.loss for batch in of(facts, Batch)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    middle = of(facts, Checkpoint)[2]
    later = run(job.model_copy(update={"resume_from": middle.path, "output_dir": tmp_path / "later"}))
    assert fingerprint(last_checkpoint(later)) == fingerprint(last_checkpoint(facts))
