"""Which sequences go together: the batches of an epoch are a pure function of the seed, the epoch and the lengths.

Batches of rows of like length hold next to no padding, yet are drawn anew each epoch: the rows are shuffled, dealt into
buckets of about 100 batches, sorted by length inside their bucket, cut into batches, and the batches are shuffled.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.tokens.seeds import derive

IntArray = npt.NDArray[np.int64]

# Larger buckets hold less padding and less chance: with 50 batches ragged text pads by 4 %, with 100 by 2 %.
_BATCHES_PER_BUCKET = 100


def epoch_batches(lengths: IntArray, *, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """Return the batches of an epoch (from 1), each an array of at most `batch_size` row numbers.

    Every row is in exactly one batch; where the rows do not divide evenly, one batch is smaller.
    """
    rng = np.random.default_rng(derive(seed, "batches", epoch))
    order = rng.permutation(len(lengths))
    batches = []
    for bucket in np.split(order, _bucket_ends(len(lengths), batch_size)):
        # Stable, so that rows of equal length keep their shuffled order.
        by_length = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += np.split(by_length, range(batch_size, len(by_length), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]


def _bucket_ends(rows: int, batch_size: int) -> IntArray:
    """Return where to cut the shuffled rows: buckets of equally many whole batches, so only the last has a rest."""
    batches = math.ceil(rows / batch_size)
    buckets = max(1, round(batches / _BATCHES_PER_BUCKET))
    return np.arange(1, buckets) * batches // buckets * batch_size


@dataclass(frozen=True)
class Window:
    """The work of one update. `step`, `epoch` and `first_batch` count from 1 over the whole run."""

    step: int
    epoch: int
    first_batch: int
    batches: list[IntArray]
    ends_epoch: bool


def windows_after(
    step: int, lengths: IntArray, *, batch_size: int, accumulation: int, epochs: int, seed: int
) -> Iterator[Window]:
    """Yield the windows of a run that come after its first `step` ones.

    A window is `accumulation` batches; the last of an epoch is what is left, it never reaches into the next.
    """
    batches_per_epoch = math.ceil(len(lengths) / batch_size)
    per_epoch = math.ceil(batches_per_epoch / accumulation)
    for epoch in range(step // per_epoch + 1, epochs + 1):
        before = (epoch - 1) * per_epoch
        batches = epoch_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
        for place in range(max(0, step - before), per_epoch):
            first = place * accumulation
            yield Window(
                step=before + place + 1,
                epoch=epoch,
                first_batch=(epoch - 1) * batches_per_epoch + first + 1,
                batches=batches[first : first + accumulation],
                ends_epoch=place == per_epoch - 1,
            )


def padding_share(lengths: IntArray, batches: list[IntArray]) -> float:
    """Return the share of the computed positions that is padding, in [0, 1).

    A row of n tokens computes n - 1 positions: its last token predicts nothing.
    """
    computed = sum(int(lengths[batch].max() - 1) * len(batch) for batch in batches)
    return 1.0 - int((lengths - 1).sum()) / computed
