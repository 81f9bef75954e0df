"""What sequences come to: batches, tokens, padding; counted in one way, for the plan before a run and in it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.job_spec import Training
from core.tokens.batches import epoch_batches, padding_share
from core.tokens.sequences import Sequences

# Padding and the largest batch of more sequences than this are told by so many of them.
_LOOKED_AT = 2**20


@dataclass(frozen=True)
class Projection:
    """How many times as many rows there are as were counted: for training, and for validation."""

    training: float = 1.0
    validation: float = 1.0


def count(
    training: Sequences, validation: Sequences | None, settings: Training, projection: Projection | None = None
) -> dict[str, Any]:
    """Return those of a plan's counts that follow from its sequences, as fields of `Counts`.

    Without a projection they are exact: of the first epoch, as it will be trained.
    """
    by = projection or Projection()
    sequences = max(1, round(len(training) * by.training))
    lengths = training.lengths if projection is None else np.resize(training.lengths, min(sequences, _LOOKED_AT))
    batches = epoch_batches(lengths, batch_size=settings.batch_size, seed=settings.seed, epoch=1)
    return {
        "sequences": sequences,
        "dropped_sequences": round(training.dropped * by.training),
        "silent_sequences": round(training.silent * by.training),
        "validation_sequences": round(len(validation) * by.validation) if validation else 0,
        "validation_tokens": round(int(validation.loss_tokens.sum()) * by.validation) if validation else 0,
        "batches_per_epoch": -(-sequences // settings.batch_size),
        "tokens_per_epoch": round(int(training.loss_tokens.sum()) * by.training),
        "padding": padding_share(lengths, batches),
        "largest_batch": max(((len(batch), int(lengths[batch].max()) - 1) for batch in batches), key=_cells),
    }


def _cells(batch: tuple[int, int]) -> tuple[int, int]:
    rows, positions = batch
    return rows * positions, positions
