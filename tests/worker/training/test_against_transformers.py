"""The loop against transformers' own `Trainer`: the same rows in the same order, the same numbers at every update."""

# What the Trainer (5.23) does, measured here or read in its source:
# - With `logging_steps=1` it logs of each update its loss, the norm of its gradient before clipping, and the learning
#   rate that it was made with (read before the schedule moves on), not the next one's.
# - It counts the labels of a whole window (`num_items_in_batch`), and the model divides the sum of each micro-batch by
#   that: the loss it logs, their sum over the window, is the mean per token.
# - It counts the first label of each row, which predicts nothing, for GPT-2 and not for Llama: the count follows the
#   class name (`...ForCausalLM`). So it makes GPT-2's loss and gradient too small, by 8 % on rows as short as these.
#   `padded` ignores the first labels, as the loss does anyway, so that they are not counted.
# - The last window of an epoch is what is left, and is divided by its own labels.
# - Its sampler draws single rows, so only the last batch of an epoch could be a smaller one. Ours may lie anywhere:
#   what the Trainer takes for a row is therefore a whole batch, and its batch size is 1.

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from core.tokens.batches import windows_after
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
from worker.training.facts import Batch, Checkpoint
from worker.training.preparation import Run, prepare

RELATIVE = 1e-4
MAX_GRAD_NORM = 0.9
TRAINING = {
    "batch_size": 4, "learning_rate": 0.01, "warmup_steps": 5, "weight_decay": 0.1, "max_grad_norm": MAX_GRAD_NORM,
    # The gradient of a key's bias is zero but for rounding; a smaller epsilon would blow that up to whole steps.
    "adam_epsilon": 1e-5,
}  # fmt: skip

Rows = list[dict[str, list[int]]]


def rows_with_prompts(count: int) -> Rows:
    """Ragged rows; in every second one the first half is a prompt, on which there is no loss."""
    rows = ragged_rows(count, longest=30)
    prompts = [len(row) // 2 * (number % 2) for number, row in enumerate(rows)]
    return [
        {"input_ids": row, "labels": [-100] * prompt + row[prompt:]}
        for row, prompt in zip(rows, prompts, strict=True)
    ]  # fmt: skip


# 10 batches, one of them of a single row; with 3 or 4 batches a window, the last window of an epoch is a smaller one.
ROWS = rows_with_prompts(37)
EPOCHS = {1: 6, 3: 17, 4: 17}  # by accumulation: 50 updates or more


class EpochByEpoch(Sampler[int]):
    """The batches of each epoch, which lie one epoch after the other."""

    def __init__(self, batches_per_epoch: int) -> None:
        self._length = batches_per_epoch
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._epoch * self._length, (self._epoch + 1) * self._length))


class TrainerInOurOrder(Trainer):
    """The Trainer as it is, but for the order of its rows."""

    def __init__(self, *, batches_per_epoch: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._sampler = EpochByEpoch(batches_per_epoch)

    def _get_train_sampler(self, *_: Any) -> Sampler[int]:
        return self._sampler


def padded(batch: Rows) -> dict[str, torch.Tensor]:
    """A batch as transformers' models take it: padded on the right, no loss on padding or on a row's first label."""
    longest = max(len(row["input_ids"]) for row in batch)

    def tensor(column: str, padding: int) -> torch.Tensor:
        return torch.tensor([row[column] + [padding] * (longest - len(row[column])) for row in batch])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch])
    labels = tensor("labels", -100)
    labels[:, 0] = -100
    return {"input_ids": tensor("input_ids", 0), "labels": labels, "attention_mask": mask}


def batches_in_order(start: Run) -> list[tuple[int, Rows]]:
    """Every batch of the run, with its step."""
    training = start.spec.training
    windows = windows_after(
        0,
        np.array([len(row["input_ids"]) for row in ROWS]),
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation_steps,
        epochs=training.epochs,
        seed=training.seed,
    )
    return [(window.step, [ROWS[row] for row in batch]) for window in windows for batch in window.batches]


def trained_by_transformers(model: PreTrainedModel, start: Run, folder: Path) -> list[dict[str, float]]:
    """Train the model; returns what the Trainer logged of each update."""
    training = start.spec.training
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1,
        num_train_epochs=training.epochs, per_device_train_batch_size=1,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=training.learning_rate, warmup_steps=training.warmup(start.plan.steps),
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(training.lr_scheduler, training.lr_scheduler),
        optim="adamw_torch", weight_decay=training.weight_decay, adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
    )  # fmt: skip
    trainer = TrainerInOurOrder(
        batches_per_epoch=start.plan.batches_per_epoch,
        model=model,
        args=arguments,
        train_dataset=[batch for _, batch in batches_in_order(start)],
        data_collator=lambda batches: padded(batches[0]),
    )
    trainer.train()
    *updates, _summary = trainer.state.log_history
    return updates


def by_step(facts: list[Any]) -> dict[int, list[Batch]]:
    steps: dict[int, list[Batch]] = {}
    for batch in of(facts, Batch):
        steps.setdefault(batch.step, []).append(batch)
    return steps


@pytest.mark.parametrize(
    ("config", "accumulation", "scheduler", "cores"),
    [
        *((config, accumulation, "linear", 1) for config in (GPT2 | NO_DROPOUT, LLAMA) for accumulation in (1, 3, 4)),
        (LLAMA, 4, "cosine", 1),
        (GPT2 | NO_DROPOUT, 3, "constant", 1),
        (GPT2 | NO_DROPOUT, 3, "linear", 2),
        (LLAMA, 1, "linear", 2),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else str(value),
)
def test_every_update_is_the_trainers(
    tmp_path: Path, config: dict[str, Any], accumulation: int, scheduler: str, cores: int
) -> None:
    torch.set_num_threads(cores)
    training = TRAINING | {
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler": scheduler,
        "epochs": EPOCHS[accumulation],
    }
    job = assignment(tmp_path, ROWS, model={"config": config}, training=training)
    start = prepared(prepare(job))
    start.learner.model.save_pretrained(tmp_path / "start")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    facts = run(job)
    ours, theirs = by_step(facts), trained_by_transformers(model, start, tmp_path / "trainer")

    assert len(ours) == len(theirs) == start.plan.steps >= 50
    for step, logged in enumerate(theirs, start=1):
        batches = ours[step]
        tokens = sum(batch.tokens for batch in batches)
        assert sum(b.loss * b.tokens for b in batches) / tokens == pytest.approx(logged["loss"], rel=RELATIVE), step
        assert batches[-1].learning_rate == pytest.approx(logged["learning_rate"], rel=RELATIVE), step
        assert batches[-1].grad_norm == pytest.approx(logged["grad_norm"], rel=RELATIVE), step
    norms = [logged["grad_norm"] for logged in theirs]
    assert min(norms) < MAX_GRAD_NORM < max(norms), "some updates are to be clipped, and some not"

    trained = AutoModelForCausalLM.from_pretrained(last_checkpoint(facts) / "model")
    for (name, weight), expected in zip(trained.named_parameters(), model.parameters(), strict=True):
        assert (weight - expected).norm() <= RELATIVE * expected.norm(), name


@pytest.mark.parametrize("config", [GPT2 | NO_DROPOUT, LLAMA], ids=["gpt2", "llama"])
def test_every_batchs_accuracy_is_that_of_the_logits(tmp_path: Path, config: dict[str, Any]) -> None:
    training = TRAINING | {"epochs": 2, "gradient_accumulation_steps": 3, "warmup_steps": 0}
    job = assignment(tmp_path, ROWS, model={"config": config}, training=training, checkpoints={"every_steps": 1})
    start = prepared(prepare(job))
    facts = run(job)
    # The weights that each update begins with: the fresh ones, then those of the checkpoint before.
    start.learner.model.save_pretrained(tmp_path / "start")
    models = [tmp_path / "start", *(checkpoint.path / "model" for checkpoint in of(facts, Checkpoint))]
    accuracies = set()
    for (step, batch), told in zip(batches_in_order(start), of(facts, Batch), strict=True):
        model = AutoModelForCausalLM.from_pretrained(models[step - 1])
        hits, tokens = hits_and_tokens(model, batch)
        assert (told.step, told.tokens, told.accuracy) == (step, tokens, hits / tokens)
        accuracies.add(told.accuracy)
    assert len(accuracies) > 5


def hits_and_tokens(model: PreTrainedModel, batch: Rows) -> tuple[int, int]:
    """Count the labels that the model, asked row by row, predicts best, and those that it is asked for."""
    hits = tokens = 0
    for row in batch:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0].numpy()
        labels = np.array(row["labels"][1:])
        asked = labels != -100
        hits += int((logits[:-1].argmax(axis=-1) == labels)[asked].sum())
        tokens += int(asked.sum())
    return hits, tokens
