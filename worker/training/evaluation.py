"""The loss on rows that are not trained on."""

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from core.tokens.batches import IntArray
from core.tokens.sequences import Sequences
from worker.training.build import Learner
from worker.training.errors import is_out_of_memory
from worker.training.update import MemoryBudget


def evaluate(
    learner: Learner, sequences: Sequences, *, batch_size: int, budget: MemoryBudget
) -> Generator[None, None, tuple[float, float]]:
    """Return the mean loss and the accuracy over all tokens of the sequences. Leaves the model in training mode, also
    where it is closed before its end.

    Yields after every batch, so that the caller can tell that it is alive. Where memory runs out, a batch is done again
    in smaller pieces, as in training; raises DoesNotFit where a single row is too much.
    """
    by_length = np.argsort(sequences.lengths, kind="stable")
    losses, hits = [], []
    learner.model.train(mode=False)
    try:
        for batch in np.split(by_length, range(batch_size, len(by_length), batch_size)):
            while (sums := _sums(learner, sequences, batch, budget)) is None:
                if learner.device.type == "cuda":
                    torch.cuda.empty_cache()
            losses.append(sums[0])
            hits.append(sums[1])
            yield
    finally:
        learner.model.train()
    tokens = int(sequences.loss_tokens.sum())
    return torch.stack(losses).sum().item() / tokens, torch.stack(hits).sum().item() / tokens


def _sums(
    learner: Learner, sequences: Sequences, batch: IntArray, budget: MemoryBudget
) -> tuple[Tensor, Tensor] | None:
    """Return a batch's sums of losses and of tokens predicted best; None where a piece did not fit (budgeted now)."""
    losses, hits = [], []
    too_large = None
    for piece in budget.pieces(sequences, batch):
        try:
            with torch.no_grad():
                loss, correct = learner.token_loss(sequences, piece)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            too_large = piece
            break
        losses.append(loss.double())
        hits.append(correct)
    if too_large is not None:
        budget.halve(sequences, too_large)
        return None
    return torch.stack(losses).sum(), torch.stack(hits).sum()
