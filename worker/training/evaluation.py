"""The loss on rows that are not trained on."""

from collections.abc import Generator

import numpy as np
import torch

from worker.training.build import Learner
from worker.training.sequences import Sequences
from worker.training.update import MemoryBudget


def evaluate(
    learner: Learner, sequences: Sequences, *, batch_size: int, budget: MemoryBudget
) -> Generator[None, None, tuple[float, float]]:
    """Return the mean loss and the accuracy over all tokens of the sequences. Leaves the model in training mode.

    Yields after every batch, so that the caller can tell that it is alive.
    """
    by_length = np.argsort(sequences.lengths, kind="stable")
    losses, hits = [], []
    learner.model.train(mode=False)
    with torch.no_grad():
        for batch in np.split(by_length, range(batch_size, len(by_length), batch_size)):
            for piece in budget.pieces(sequences, batch):
                loss, correct = learner.token_loss(sequences, piece)
                losses.append(loss.double())
                hits.append(correct)
            yield
    learner.model.train()
    tokens = int(sequences.loss_tokens.sum())
    return torch.stack(losses).sum().item() / tokens, torch.stack(hits).sum().item() / tokens
