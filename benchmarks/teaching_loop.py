"""A contender of `benchmarks.throughput`: the teaching loop as it is described in many a GPT-2 tutorial.

    python -m benchmarks.teaching_loop case.json

Shuffled batches padded to their longest row, no attention mask, a clipped gradient after every micro-batch, accuracy by
argmax over all logits, loss and accuracy read back and logged for every batch.
"""

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, get_linear_schedule_with_warmup

from benchmarks.case import Case
from benchmarks.stopwatch import Stopwatch

IGNORED = -100
_log = logging.getLogger("teaching_loop")


def new_model(case: Case) -> GPT2LMHeadModel:
    """Build the model from the seed."""
    torch.manual_seed(case.seed)
    shape: dict[str, Any] = {**case.model, "vocab_size": case.vocab_size, "n_positions": case.max_length}
    return GPT2LMHeadModel(GPT2Config(**shape))


def collate(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Pad token ids with 0, and labels so that the loss ignores them."""
    ids = [torch.tensor(row) for row in rows]
    inputs = pad_sequence(ids, batch_first=True, padding_value=0)
    return inputs, pad_sequence(ids, batch_first=True, padding_value=IGNORED)


def accuracy(logits: Tensor, labels: Tensor) -> tuple[int, int]:
    """Return how many labels are predicted best, and how many there are."""
    labels = labels[:, 1:].reshape(-1)
    predicted = logits[:, :-1].reshape(-1, logits.shape[-1]).argmax(dim=-1)
    counts = labels.ne(IGNORED)
    hits = predicted.eq(labels).masked_select(counts).sum().item()
    return int(hits), int(counts.sum().item())


def batches(case: Case) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the numbered batches of one epoch after the other."""
    rows = case.rows()
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        rows,
        batch_size=case.batch_size,
        shuffle=True,
        collate_fn=collate,
    )
    number = 0
    for _ in range(case.epochs):
        for inputs, labels in loader:
            number += 1
            yield number, inputs, labels


def main(case: Case) -> None:
    """Train until there is enough, and tell what was measured."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    device = torch.device(case.device)
    model: Any = new_model(case)
    model.to(device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.learning_rate, weight_decay=case.weight_decay)
    scheduler = get_linear_schedule_with_warmup(optimizer, case.warmup_steps, case.steps)
    synchronize = torch.cuda.synchronize if case.device == "cuda" else lambda: None
    stopwatch = Stopwatch(case, whole_epochs=False, synchronize=synchronize)
    first_loss, window_tokens = None, 0
    for number, *batch in batches(case):
        inputs, labels = (tensor.to(device) for tensor in batch)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=case.device == "cuda"):
            outputs = model(inputs, labels=labels)
        loss = outputs.loss
        hits, tokens = accuracy(outputs.logits, labels)
        (loss / case.accumulation).backward()
        clip_grad_norm_(model.parameters(), case.max_grad_norm)
        window_tokens += tokens
        window_full = number % case.accumulation == 0
        if window_full:
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        batch_loss = loss.item()
        first_loss = first_loss or batch_loss
        rate = scheduler.get_last_lr()[0]
        _log.info("batch %d loss %.4f accuracy %.4f learning rate %.3e", number, batch_loss, hits / tokens, rate)
        if window_full:
            if stopwatch.update_done(window_tokens):
                stopwatch.measurement(first_loss=first_loss, pid=os.getpid()).tell()
                return
            window_tokens = 0


if __name__ == "__main__":
    main(Case.read(sys.argv[1]))
