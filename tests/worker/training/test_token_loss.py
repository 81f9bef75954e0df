"""The loss at the places that carry one equals the model's own loss over everything."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.training.tiny import GPT2, LLAMA, NO_DROPOUT, learner, ragged_rows, sequences
from worker.training.token_loss import collate

CONFIGS = [GPT2 | NO_DROPOUT, LLAMA, LLAMA | {"tie_word_embeddings": True}]
LABELS = ["own", "some ignored"]


def rows_and_labels(kind: str) -> tuple[list[list[int]], list[list[int]] | None]:
    rows = ragged_rows(30)
    if kind == "own":
        return rows, None
    rng = np.random.default_rng(1)
    # The last label always counts, so that every row carries loss.
    return rows, [[-100 if rng.random() < 0.5 else token for token in row[:-1]] + row[-1:] for row in rows]


@pytest.mark.parametrize("config", CONFIGS, ids=["gpt2", "llama", "llama tied"])
@pytest.mark.parametrize("kind", LABELS)
def test_equals_the_models_own_loss_and_gradient(config: dict[str, Any], kind: str) -> None:
    rows, labels = rows_and_labels(kind)
    tiny, cut = learner(config), sequences(rows, labels)
    longest = max(map(len, rows))

    def padded(lists: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in lists])

    inputs, own_labels = padded(rows, 0), padded(labels or rows, -100)
    mask = padded([[1] * len(row) for row in rows], 0)
    theirs = tiny.model(input_ids=inputs, attention_mask=mask, labels=own_labels).loss
    theirs.backward()
    gradients = [parameter.grad.clone() for parameter in tiny.model.parameters()]
    tiny.model.zero_grad()

    total, _ = tiny.token_loss(cut, np.arange(len(rows)))
    ours = total / cut.loss_tokens.sum()
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for parameter, gradient in zip(tiny.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", LABELS)
def test_accuracy_by_hand(kind: str) -> None:
    rows, labels = rows_and_labels(kind)
    tiny = learner()
    # Weights large enough that the model prefers some tokens clearly.
    with torch.no_grad():
        for parameter in tiny.model.parameters():
            parameter.mul_(20)
    hits = tokens = 0
    for row, row_labels in zip(rows, labels or rows, strict=True):
        logits = tiny.model(torch.tensor([row])).logits[0].detach().numpy()
        for place in range(len(row) - 1):
            if row_labels[place + 1] != -100:
                tokens += 1
                hits += int(np.argmax(logits[place]) == row_labels[place + 1])
    _, correct = tiny.token_loss(sequences(rows, labels), np.arange(len(rows)))
    assert correct.item() == hits
    assert 0 < hits < tokens


def test_bfloat16_computes_close_by_and_keeps_float32_weights() -> None:
    cut, rows = sequences(ragged_rows(4)), np.arange(4)
    full, _ = learner().token_loss(cut, rows)
    half_learner = learner(precision="bf16")
    half, _ = half_learner.token_loss(cut, rows)
    assert half.item() != full.item()
    assert half.item() == pytest.approx(full.item(), rel=1e-2)
    half.backward()
    assert {p.dtype for p in half_learner.model.parameters()} == {torch.float32}


def test_collate_pads_on_the_right_and_leaves_the_last_token_out() -> None:
    cut = sequences([[1, 2, 3, 4], [5, 6]], labels=[[1, 2, -100, 4], [5, 6]])
    batch = collate(cut, np.array([1, 0]))
    assert batch.inputs.tolist() == [[5, 0, 0], [1, 2, 3]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [0, 3, 5]
    assert batch.targets.tolist() == [6, 2, 4]
    assert collate(cut, np.array([1])).positions is None
