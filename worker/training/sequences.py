"""From tokens to what the model sees: which rows are trained on, and how long rows become sequences."""

from dataclasses import dataclass

import numpy as np

from core.dataset_files import IGNORED_LABEL
from core.job_spec import Sequence
from worker.training.batches import IntArray
from worker.training.dataset import Ids, Tokens
from worker.training.randomness import derive


@dataclass(frozen=True)
class Sequences:
    """What the model sees, as views into the rows: sequence s is `ids[starts[s] : starts[s] + lengths[s]]`.

    `loss_tokens[s]` is how many of its labels carry loss, at least 1: the first token has nothing to be predicted from.
    `dropped` were shorter than `min_length`; `silent` carried no loss at all.
    """

    ids: Ids
    labels: Ids
    starts: IntArray
    lengths: IntArray
    loss_tokens: IntArray
    dropped: int
    silent: int

    def __len__(self) -> int:
        return len(self.starts)


def hold_out(rows: int, count: int, *, seed: int) -> tuple[IntArray, IntArray]:
    """Split row numbers into those to train on and `count` to validate on, by the seed."""
    order = np.random.default_rng(derive(seed, "hold out")).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def cut(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Cut the given rows into sequences of at most `max_length` tokens that start `stride` tokens apart.

    The last sequence of a row is the first that reaches its end. Sequences shorter than `min_length`, and those whose
    labels are all ignored (they would cost time and teach nothing), are left out and counted.
    """
    max_length, stride = sequence.max_length, sequence.stride or sequence.max_length
    row_starts, row_ends = tokens.bounds[rows], tokens.bounds[rows + 1]
    beyond_first = np.maximum(row_ends - row_starts - max_length, 0)
    counts = 1 + -(-beyond_first // stride)
    first = np.cumsum(counts) - counts  # the number of each row's first sequence
    nth = np.arange(counts.sum()) - np.repeat(first, counts)
    starts = np.repeat(row_starts, counts) + nth * stride
    lengths = np.minimum(np.repeat(row_ends, counts) - starts, max_length)

    long_enough = lengths >= sequence.min_length
    starts, lengths = starts[long_enough], lengths[long_enough]
    loss_tokens = _loss_tokens(tokens, starts, lengths)
    heard = loss_tokens > 0
    return Sequences(
        ids=tokens.ids,
        labels=tokens.labels,
        starts=starts[heard],
        lengths=lengths[heard],
        loss_tokens=loss_tokens[heard],
        dropped=int((~long_enough).sum()),
        silent=int((~heard).sum()),
    )


def _loss_tokens(tokens: Tokens, starts: IntArray, lengths: IntArray) -> IntArray:
    if tokens.labels is tokens.ids:
        return lengths - 1
    before = np.concatenate(([0], np.cumsum(tokens.labels != IGNORED_LABEL, dtype=np.int64)))
    counts: IntArray = before[starts + lengths] - before[starts + 1]
    return counts
