"""The loop against an independent source: transformers' own loss and schedule, torch's plain AdamW.

`transformers.Trainer` needs a further package, so its arithmetic is written out here: the loss of each micro-batch is
divided by the labels of the whole window (`num_items_in_batch`), the gradient clipped once, no decay on 1-d parameters.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

from tests.worker.training.tiny import (
    GPT2,
    LLAMA,
    NO_DROPOUT,
    assignment,
    last_checkpoint,
    of,
    prepared,
    ragged_rows,
    run,
)
from worker.training.batches import windows_after
from worker.training.facts import Batch
from worker.training.preparation import prepare

ROWS = ragged_rows(33, longest=30)


@pytest.mark.parametrize("config", [GPT2 | NO_DROPOUT, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("accumulation", [1, 3, 4])
def test_loss_learning_rate_gradient_norm_and_weights_agree(
    tmp_path: Path, config: dict[str, Any], accumulation: int
) -> None:
    training = {
        "epochs": 3, "batch_size": 4, "gradient_accumulation_steps": accumulation, "learning_rate": 0.01,
        "warmup_steps": 2, "weight_decay": 0.1, "max_grad_norm": 0.5,
        # The gradient of a key's bias is zero but for rounding; a smaller epsilon would blow that up to whole steps.
        "adam_epsilon": 1e-5,
    }  # fmt: skip
    job = assignment(tmp_path, ROWS, model={"config": config}, training=training)
    start = prepared(prepare(job))
    start.learner.model.save_pretrained(tmp_path / "start")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "start")

    facts = run(job)
    ours: dict[int, list[Batch]] = {}
    for batch in of(facts, Batch):
        ours.setdefault(batch.step, []).append(batch)
    for step, (loss, rate, norm) in enumerate(trained_by_hand(model, start.plan.steps, training), start=1):
        tokens = sum(b.tokens for b in ours[step])
        assert sum(b.loss * b.tokens for b in ours[step]) / tokens == pytest.approx(loss, rel=1e-4), step
        assert ours[step][-1].learning_rate == pytest.approx(rate, rel=1e-4), step
        assert ours[step][-1].grad_norm == pytest.approx(norm, rel=1e-4), step
    assert len(ours) == start.plan.steps >= 9
    trained = AutoModelForCausalLM.from_pretrained(last_checkpoint(facts) / "model")
    for ours_, theirs in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=1e-4, atol=1e-5)


def trained_by_hand(model: Any, steps: int, training: dict[str, Any]) -> list[tuple[float, float, float]]:
    """Train on the same rows in the same order; returns loss, learning rate and gradient norm of each update."""
    decaying = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": training["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=training["learning_rate"], eps=training["adam_epsilon"], fused=False, foreach=False,
    )  # fmt: skip
    schedule = get_linear_schedule_with_warmup(optimizer, training["warmup_steps"], steps)
    model.train()
    numbers = []
    accumulation = training["gradient_accumulation_steps"]
    lengths = torch.tensor([len(row) for row in ROWS]).numpy()
    for window in windows_after(
        0, lengths, batch_size=training["batch_size"], accumulation=accumulation, epochs=training["epochs"], seed=0
    ):
        micro_batches = [[ROWS[row] for row in batch] for batch in window.batches]
        items = sum(len(row) - 1 for rows in micro_batches for row in rows)
        total = 0.0
        for rows in micro_batches:
            longest = max(map(len, rows))
            inputs = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
            labels = inputs.masked_fill(mask == 0, -100)
            loss = model(input_ids=inputs, attention_mask=mask, labels=labels, num_items_in_batch=items).loss
            loss.backward()
            total += loss.item()
        norm = clip_grad_norm_(model.parameters(), training["max_grad_norm"]).item()
        numbers.append((total, schedule.get_last_lr()[0], norm))
        assert math.isfinite(norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return numbers
