"""From tokens to what the model sees: which rows are trained on, and how long rows become sequences."""

from dataclasses import dataclass

import numpy as np

from core.job_spec import Sequence
from core.tokens.arrays import Ids, Tokens, count_loss
from core.tokens.batches import IntArray
from core.tokens.seeds import derive


@dataclass(frozen=True)
class Pieces:
    """What packed sequences are made of: piece p is `counts[p]` inputs from `ids[starts[p]]` on, all of one document.

    Sequence s holds the pieces from `first[s]` to before `first[s + 1]`.
    """

    starts: IntArray
    counts: IntArray
    first: IntArray


@dataclass(frozen=True)
class Sequences:
    """What the model sees, as views into the rows: sequence s is `ids[starts[s] : starts[s] + lengths[s]]`.

    It is read without its last token, and predicts all but its first: `lengths[s] - 1` positions. `loss_tokens[s]` is
    how many of these carry loss, at least 1. Where `pieces` are given a sequence is made of them instead, with as many
    positions. `dropped` were shorter than `min_length`; `silent` carried no loss at all.
    """

    ids: Ids
    labels: Ids
    starts: IntArray
    lengths: IntArray
    loss_tokens: IntArray
    dropped: int
    silent: int
    pieces: Pieces | None = None

    def __len__(self) -> int:
        return len(self.starts)


def hold_out(rows: int, count: int, *, seed: int) -> tuple[IntArray, IntArray]:
    """Split row numbers into those to train on and `count` to validate on, by the seed."""
    order = np.random.default_rng(derive(seed, "hold out")).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def cut(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Cut the given rows into sequences, as the spec's `sequence.mode` says.

    What is shorter than `min_length`, and what carries no loss at all (it would cost time and teach nothing), is left
    out and counted.
    """
    return _packed(tokens, rows, sequence) if sequence.mode == "packed" else _documents(tokens, rows, sequence)


def windows_of_rows(tokens: Tokens, rows: IntArray, sequence: Sequence) -> tuple[IntArray, IntArray]:
    """Return the starts and the lengths of all sequences that documents are cut into, whatever is left out later."""
    max_length, stride = sequence.max_length, sequence.stride or sequence.max_length
    row_starts, row_ends = tokens.bounds[rows], tokens.bounds[rows + 1]
    beyond_first = np.maximum(row_ends - row_starts - max_length, 0)
    counts = 1 + -(-beyond_first // stride)
    first = np.cumsum(counts) - counts  # the number of each row's first sequence
    nth = np.arange(counts.sum()) - np.repeat(first, counts)
    starts = np.repeat(row_starts, counts) + nth * stride
    return starts, np.minimum(np.repeat(row_ends, counts) - starts, max_length)


def _documents(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Cut rows into sequences of at most `max_length` tokens that start `stride` tokens apart.

    The last sequence of a row is the first that reaches its end.
    """
    starts, lengths = windows_of_rows(tokens, rows, sequence)
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


def _packed(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Join rows end to end and cut them into sequences of `max_length - 1` positions; only the last may be shorter.

    A row that reaches over a cut goes on in the next sequence, from the token that it stopped at: no label is lost.
    """
    width = sequence.max_length - 1
    lengths = tokens.bounds[rows + 1] - tokens.bounds[rows]
    long_enough = lengths >= sequence.min_length
    starts, lengths = tokens.bounds[rows[long_enough]], lengths[long_enough]
    heard = _loss_tokens(tokens, starts, lengths) > 0
    starts, positions = starts[heard], lengths[heard] - 1

    ends = np.cumsum(positions)
    begins, total = ends - positions, int(positions.sum())
    cuts = np.union1d(begins, np.arange(0, total, width))
    row = np.searchsorted(begins, cuts, side="right") - 1
    piece_starts, counts = starts[row] + cuts - begins[row], np.diff(cuts, append=total)
    loss_tokens = _loss_tokens(tokens, piece_starts, counts + 1)

    owner = cuts // width
    sums = np.bincount(owner, weights=loss_tokens, minlength=-(-total // width)).astype(np.int64)
    kept = sums > 0  # a long prompt may fill a whole sequence
    inside = kept[owner]
    first = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(sums))[kept])))
    return Sequences(
        ids=tokens.ids,
        labels=tokens.labels,
        starts=piece_starts[inside][first[:-1]],
        lengths=np.bincount(owner, weights=counts, minlength=len(sums)).astype(np.int64)[kept] + 1,
        loss_tokens=sums[kept],
        dropped=int((~long_enough).sum()),
        silent=int((~heard).sum() + (~kept).sum()),
        pieces=Pieces(starts=piece_starts[inside], counts=counts[inside], first=first),
    )


def _loss_tokens(tokens: Tokens, starts: IntArray, lengths: IntArray) -> IntArray:
    """Return how many labels of each stretch carry loss; its first token has nothing to be predicted from."""
    if tokens.labels is tokens.ids:
        return lengths - 1
    return count_loss(tokens.labels, starts + 1, starts + lengths)
